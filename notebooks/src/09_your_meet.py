# %% [markdown]
# # 09 · Your own MEET
#
# Can one model answer in the style that you ask for, although its own weights stay as they are? Here a
# real model learns two styles, or those of your own data.
#
# **At the end you have**
#
# - a **control** for each style: a small set of trained weights that selects it,
# - a measurement of the answers under each control, and under mixtures of two,
# - a folder with the controls, which other programs can load and serve.
#
# You need [lesson 05](05_meet.ipynb), or the idea that it explains. **MEET** has two steps. In the first the
# model is frozen and only the controls are trained. In the second both are trained. This notebook takes the
# first step only, because with LoRA controls that was enough in lesson 05. On a laptop without a GPU it
# takes about ten minutes.
#
# Before you start, run `make real` in the course's folder. It downloads the model SmolLM2-135M
# (93 MB) once. Without it, the notebook downloads the model from the Hugging Face hub.
#
# **Before you use a control for real work.** It learns whatever its texts have in common, errors included.
# The *rude* control is here for comparison only. At the end you can save the other one without it.

# %% [markdown]
# ## Settings
#
# `PROFILE` chooses model and amount of training for your machine.
#
# | `PROFILE` | model | machine |
# |---|---|---|
# | `laptop` | SmolLM2-135M-Instruct | two CPU cores |
# | `colab` | Qwen2.5-0.5B-Instruct | one GPU with 16 GB |
# | `gpu` | Qwen2.5-1.5B-Instruct | one GPU with 24 GB |
#
# On Colab choose a runtime with a GPU, and set `OUT` to a folder on your Drive. `colab` and `gpu` have not
# been run on a GPU yet. `MODEL` may be another model: a folder, or a name on the Hugging Face hub.
#
# **Your own data.** `DATA` may be one of these. Files may be JSON, JSON lines, CSV or Parquet, also zipped,
# or a data set on the hub (`"owner/name:train"`).
#
# - A file of preference pairs, with `prompt`, `chosen` and `rejected`. The chosen texts train a control
#   named `good`, the rejected ones `bad`.
# - A file of rated texts: `prompt`, `completion`, and `thumbs` or `rating`. Thumbs up or the highest
#   ratings train `good`, thumbs down or the lowest ones `bad`. Ratings between them are left out.
# - A file for each style, with `prompt` and `completion`, as in
#   `{"formal": "formal.jsonl", "brief": "brief.jsonl"}`. A name consists of letters, digits, `_`, `+`
#   and `-`.
#
# Two hundred texts of each style are enough to try. To measure you need more: a tenth of the prompts is held
# out to test on. Another tenth, `texts["validation"]`, is left for choosing settings, and is not used below.
# Give each data set its own `OUT`.
#
# **The form of prompts.** In the profile `laptop` a prompt is followed by *Answer:*. In the other profiles
# it is put into the model's chat template (`FORM = "chat"`). Use the same form in training and later.

# %% tags=["parameters"]
PROFILE = "laptop"  # or "colab" (one T4), "gpu" (24 GB and more)
SEED = 0
SCALE = 1.0  # less: fewer steps and test rows, for a quick look
MODEL = None  # a folder or a hub id; None: the profile's
DATA = None  # texts of your own; None: everyday English, which comes with the course
STEPS = None  # of training, shared by all controls; None: the profile's
MINUTES = 0  # time for training: fewer steps, if they would take longer (0: no limit)
KIND = (
    "lora"  # or "prompt": soft prompts, vectors that are read before the prompt; they need STEP_2
)
SIZE = None  # rank of LoRA, or tokens of a soft prompt; None: the profile's, or 20 tokens
FORM = None  # "{}": prompts as they are; "{}\n\nAnswer:"; "chat"; None: the profile's
STEP_2 = 0  # steps of MEET's second step, which changes the model too
LONGEST = 64  # tokens of an answer
EXPORT = False  # True: also save a mix as one adapter, and the model with a control in it
OUT = None  # where everything goes; None: runs/09

# %%
import shutil
from dataclasses import replace

import numpy as np

from alignlib import Meet, Metrics, Mix
from alignlib.cost import machine
from alignlib.everyday import are_rude
from alignlib.plots import bars, curves, new_figure, show_table, show_tokens, smooth, with_slider
from alignlib.settings import with_steps
from alignlib.stats import bootstrap_mean, paired
from alignlib.workbench import MEET_BENCHES, bench, load_styles

profile = bench(PROFILE, MEET_BENCHES, SCALE, MODEL).with_control(KIND, SIZE)
metrics = Metrics("09", PROFILE, SEED, OUT)
print(machine())

# %% [markdown]
# ## The data
#
# **Everyday** holds short answers of a real model to simple questions, and the same answers after an
# insult that a program put in front. So a program can tell the two styles apart. *Polite* means no more
# here than *without an insult*. The test texts have other insults than the texts to train on.
# [The card](../data/everyday/README.md) says how the data were made.

# %%
texts = load_styles(DATA, profile.tests, SEED)
styles = list(texts["train"])
for split in ("train", "test"):
    print(f"{split}:", {name: len(rows) for name, rows in texts[split].items()}, "texts")
shown = [(name, row.prompt, row.completion) for name in styles for row in texts["train"][name][2:4]]
show_table(["style", "prompt", "text"], shown)

# %% [markdown]
# ## The controls, and one row as the model sees it
#
# A control is a **LoRA** adapter: two thin matrices added to every linear layer except the output layer.
# Their inner width is the *rank*. A step of training changes the matrices of one control only. The loss is
# computed on the tokens with a blue background: the answer and the token that ends it.

# %%
control = replace(profile.control, seed=SEED)
form = FORM or profile.form
untrained = Meet.untrained(profile.model, styles, control, form=form)
print(f"a control has {untrained.control_share:.1%} as many weights as the model")
show_tokens(untrained.tokenizer, untrained.tokens(texts["train"][styles[0]][2]))

# %% [markdown]
# ## What will it cost?
#
# We run a few batches forward and backward, without changing the model. Their speed gives the minutes of the
# training; the answers below take longer. The memory is computed from the sizes of the model, and the table
# lists what needs it. `STEP_2` is not in it: that step trains all weights, and needs more.

# %%
steps = STEPS or profile.settings.steps
settings = replace(with_steps(profile.settings, steps), seed=SEED, minutes=MINUTES)
cost = untrained.predict(texts["train"], settings)
print(cost.table())
settings = with_steps(settings, cost.steps)  # fewer, if MINUTES says so
del untrained  # frees its memory

# %% [markdown]
# ## Train
#
# The controls take turns: a step on texts of one style, then a step on texts of the next. If the training
# is interrupted, run the cell again: it goes on from its last checkpoint.

# %%
started = metrics.minutes()
meet = Meet.train(
    profile.model,
    texts["train"],
    control=control,
    first=settings,
    then=replace(settings, steps=STEP_2, learning_rate=None),
    form=form,
    checkpoints=metrics.folder / "checkpoints",
)
training_minutes = metrics.minutes() - started
for reason, count in meet.dropped.items():
    print(f"left out: {count} {reason}")

# %%
lines = {}
for name, losses in meet.losses_by_control().items():
    lines[name] = (range(1, len(losses) + 1), smooth(losses))
figure, (axis,) = new_figure("Training loss under each control", height=3)
curves(axis, lines, "step of this control", "loss, nats per token")
metrics.save_figure(figure, "loss")
figure

# %% [markdown]
# ## Examples
#
# The same test prompts, answered under each control. The column *no control* is the model as it was. After
# *Answer:* this small model often ends at once or repeats itself, so the controls also teach it to answer
# at all. Whether an answer is true is not measured here.

# %%
prompts = list(dict.fromkeys(row.prompt for rows in texts["test"].values() for row in rows))
prompts = prompts[: profile.tests] if DATA is None else prompts[:6]


def ask(some_prompts: list[str], style, label: str | None = None) -> list[str]:
    """One answer for each prompt. `style`: a name, a mix, None, or a list with one for each."""
    return meet.generate(some_prompts, style, max_new_tokens=LONGEST, progress=label)


answers = {"no control": ask(prompts, None, "no control")}
answers |= {name: ask(prompts, name, name) for name in styles}
show_table(["prompt", *answers], list(zip(prompts, *answers.values()))[:6])

# %% [markdown]
# Each prompt can have a control of its own, in one call:

# %%
four = prompts[:4]
in_turn = [styles[i % len(styles)] for i in range(len(four))]
show_table(["control", "answer"], list(zip(in_turn, ask(four, in_turn))))

# %% [markdown]
# **Your turn.** Write a prompt of your own, and choose the style.

# %%
my_prompt = "What do bees make?"
my_style = styles[-1]
print(ask([my_prompt], my_style)[0])

# %% [markdown]
# ## Between two styles
#
# Two controls can be mixed. Each has changed the weights of the model, and in a mix both changes are
# multiplied by a share and added. Here these are the first and the last style. With
# `pip install ipywidgets` there is a slider below. Without it, change `share` and run the cell again.

# %%
share = 0.5  # of the last style


def show_mix(share: float) -> None:
    """Print the answer under a mix of the first and the last style."""
    mix = Mix({styles[0]: 1 - share, styles[-1]: share})
    print(f"{share:.0%} {styles[-1]}: {ask([my_prompt], mix)[0]}")


with_slider(show_mix, share)

# %% [markdown]
# ## Measure
#
# **For any data**: under which control is a held-out text most likely? With two controls, guessing is right
# half of the time, so a share near one half means that nothing was learned: take more `STEPS`. This needs no judge,
# but it says nothing about answers that the model writes itself. Read twenty of those, and count in them
# what matters to you. Numbers in brackets are 95 % intervals over the test texts.

# %%
most_likely = {}
for name, rows in texts["test"].items():
    asked, written = [row.prompt for row in rows], [row.completion for row in rows]
    # Mean log-probability per token of the same texts under each control, (texts,)
    logprobs = {style: meet.logprob(asked, written, style).numpy() for style in styles}
    others = [logprobs[style] for style in styles if style != name]
    is_best = logprobs[name] > np.max(others, axis=0)
    most_likely[name] = metrics.add(f"own_control/{name}", bootstrap_mean(is_best))
    print(f"{name:12} most likely under its own control: {most_likely[name]}")

# %% [markdown]
# **For everyday English** a program judges the answers. An answer counts as *rude* if it contains an insult
# from our data, or two words that occur only in those insults. The program misses other insults. First we
# test it: of the test texts with an insult, and of those without, how many does it call rude? Where all answers
# agree, the interval has no width, and the true share may still be a few percent away.

# %%
rude = {}  # by style: is the answer rude? (prompts,)
if DATA is None:
    for name in styles:
        judged = are_rude([row.completion for row in texts["test"][name]])
        print(f"test texts, {name:7} called rude: {np.mean(judged):.0%}")
    rude = {name: np.array(are_rude(some)) for name, some in answers.items()}
    for part in (0.25, 0.5, 0.75):
        mix = Mix(polite=1 - part, rude=part)
        rude[part] = np.array(are_rude(ask(prompts, mix, f"{part:.0%} rude")))

# %%
found = {}  # by style or mix: the share of rude answers
for name, judged in rude.items():
    key = f"mix/{name}" if name in (0.25, 0.5, 0.75) else f"asked_{name}"
    found[name] = metrics.add(key.replace("no control", "nothing"), bootstrap_mean(judged))
    print(f"{name:<12} rude answers: {found[name]}")
if rude:
    difference = metrics.add("asked/difference", paired(rude["rude"], rude["polite"]))
    print("asked for rude minus asked for polite:", difference)

# %%
if rude:
    figure, (axis,) = new_figure("Rude answers by the weight of the rude control")
    by_weight = {0: "polite", 0.25: 0.25, 0.5: 0.5, 0.75: 0.75, 1: "rude"}
    lines = {"MEET": (list(by_weight), [found[name] for name in by_weight.values()])}
    lines["no control"] = ([0, 1], [found["no control"]] * 2)
    curves(axis, lines, "weight of rude in the mix with polite", "rude answers, %", scale=100)
else:
    figure, (axis,) = new_figure("Held-out texts that are most likely under their own control")
    bars(axis, {"MEET": most_likely}, "test texts, %")
    axis.axhline(100 / len(styles), color="gray", linestyle=":")  # guessing
axis.set_ylim(-3, 105)
metrics.save_figure(figure, "answer")
figure

# %% [markdown]
# For everyday English: the answers are greedy, which means that the model always takes the most likely next
# token. So the same few insults come again and again. Each comes first in its answer, and once the first token
# is that of an insult, the rest follows. In a mix this happens only if *rude* has most of the weight.
#
# **What is known**, from other trainings with three seeds, each on its own draw of the data and with four
# controls. The share in a mix varies much from training to training.
#
# <!-- known -->

# %% [markdown]
# ## Save
#
# The folder holds the controls, and with `STEP_2` also the changed model. Without it, the model stays where it
# is and is needed again: the controls cannot be loaded onto a different one. To share a single control,
# save it alone: `meet.save_pretrained("polite_only", ["polite"])`.

# %%
folder = metrics.folder / "meet"
meet.save_pretrained(folder)
again = Meet.from_pretrained(folder)
assert again.generate(four, styles[-1]) == meet.generate(four, styles[-1])
shutil.rmtree(metrics.folder / "checkpoints", ignore_errors=True)
print(f"{folder}: {sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()) / 1e6:.0f} MB")

# %% [markdown]
# In another session load them with `Meet.from_pretrained(FOLDER)`, where `FOLDER` is what was just printed;
# it is relative to the folder of this notebook. Plain PEFT loads one of them onto the same model:
# `PeftModel.from_pretrained(model, "FOLDER/controls/NAME")`.
#
# **The same model** matters. `make real` gives SmolLM2 with weights rounded to 4 bits, and prints its folder.
# To load the controls you need that folder, not the model on the hub; in the command below, write it in
# place of `smollm2`. Without `make real` the base is the model on the hub.
#
# **Serving.** vLLM serves LoRA controls beside their model, each under its own name. It cannot serve soft
# prompts, and applies one adapter per request. For a mix, save it as a single adapter, whose rank is the sum
# of both ranks. Or add a control to the weights, which gives a plain model for any program. Set
# `EXPORT = True` to do both. Send prompts to a server in the form of the training, here with *Answer:* after
# them, and to its completions endpoint unless the form is a chat.

# %%
modules = {name: folder / "controls" / name for name in styles}
if EXPORT and KIND == "lora":
    meet.save_merged(metrics.folder / "merged", styles[0])
    if not STEP_2:
        modules["mix"] = metrics.folder / "mix"
        meet.save_mix(modules["mix"], Mix({styles[0]: 1 - share, styles[-1]: share}))
if KIND == "lora":
    served = folder / "model" if STEP_2 else profile.model
    options = f"--enable-lora --max-lora-rank {2 * control.size} --lora-modules"
    print(f"vllm serve {served} {options}", *(f"{n}={place}" for n, place in modules.items()))

# %% [markdown]
# The same without a notebook: `python -m alignlib train meet --help`. Next: [10, your own
# HBAT](10_your_hbat.ipynb).
#
# ## Predicted and measured
#
# The prediction is of the training. The measured peak is of the whole notebook, which at the end holds the
# model a second time.

# %%
metrics.add_cost(cost, training_minutes, meet.model.device)
print("written to", metrics.write().name)

# %% [markdown]
# # 09 · Your own MEET
#
# This notebook teaches one real model several styles. Each style gets a **control**: a small set of
# trained weights that selects it. (Notebook 08 uses the same word for a baseline.) The weights of the
# model itself stay as they are.
#
# **At the end you have**
#
# - one control for each style: here *polite* and *rude*, or those of your own data,
# - a measurement of how often the model answers in the style that is asked for, and of mixtures,
# - a folder with the controls, which other programs can load and serve.
#
# You need [lesson 05](05_meet.ipynb), or the idea that it explains: **MEET** trains the controls first,
# while the model is frozen. A second step can then train the model too. On a laptop without a GPU this
# takes about ten minutes.
#
# Before you start, run `make real` in the course's folder. It downloads the model SmolLM2-135M
# (93 MB) once. Without it, the notebook downloads the model from the Hugging Face hub.
#
# **Before you use one in earnest.** A control learns whatever its texts have in common, errors included.
# The *rude* control is here for comparison only. Delete its folder before you share the result.

# %% [markdown]
# ## Settings
#
# `PROFILE` chooses model and amount of training for your machine.
#
# **Your own data.** `DATA` may be one of these. Files may be JSON, JSON lines, CSV or Parquet, also zipped.
#
# - A file of preference pairs, with `prompt`, `chosen` and `rejected`. The chosen texts train a control
#   named `good`, the rejected ones `bad`.
# - A file of texts with marks: `prompt`, `completion`, and `thumbs` or `rating`. Thumbs up or the highest
#   ratings train `good`, thumbs down or the lowest ones `bad`. Ratings between them are left out.
# - A file for each style, with `prompt` and `completion`, as in
#   `{"formal": "formal.jsonl", "brief": "brief.jsonl"}`. A name consists of letters, digits, `_`, `+`
#   and `-`.
#
# Two hundred texts of each style are enough to try. A tenth of the prompts is held out to test on, and
# another tenth to choose settings on. Give each data set its own `OUT`.
#
# **The form of prompts.** In the profile `laptop` a prompt is followed by *Answer:*. In the other
# profiles it is put into the model's chat template (`FORM = "chat"`). Train in the form in which you will
# ask the model later.

# %% tags=["parameters"]
PROFILE = "laptop"  # or "colab" (one T4), "gpu" (24 GB and more)
SEED = 0
SCALE = 1.0  # less: fewer steps and test rows, for a quick look
MODEL = None  # a folder or a hub id; None: the profile's
DATA = None  # texts of your own; None: everyday English, which comes with the course
STEPS = None  # of training, shared by all controls; None: the profile's
MINUTES = 0  # time for training: fewer steps, if they would take longer (0: no limit)
KIND = "lora"  # or "prompt": soft prompts
SIZE = None  # rank of LoRA, or tokens of a soft prompt; None: the profile's, or 20 tokens
FORM = None  # "{}": prompts as they are; "{}\n\nAnswer:"; "chat"; None: the profile's
STEP_2 = 0  # steps of MEET's second step, which trains the model too; 0: it stays as it is
LONGEST = 64  # tokens of an answer
OUT = None  # where everything goes; None: runs/09

# %%
import shutil
from dataclasses import replace

import numpy as np

from alignlib import ControlSettings, Meet, Metrics, Mix
from alignlib.cost import machine
from alignlib.everyday import are_rude
from alignlib.plots import bars, curves, new_figure, show_table, show_tokens, smooth, with_slider
from alignlib.settings import with_steps
from alignlib.stats import bootstrap_mean, paired
from alignlib.workbench import MEET_BENCHES, bench, load_styles

here = bench(PROFILE, MEET_BENCHES, SCALE, MODEL)
metrics = Metrics("09", PROFILE, SEED, OUT)
print(machine())

# %% [markdown]
# ## The data
#
# **Everyday** holds short answers of a real model to simple questions, and the same answers with an
# insult that a program put in. So the two styles say the same thing, and a program can tell them apart.
# [The card](../data/everyday/README.md) says how the data were made.

# %%
texts = load_styles(DATA, here.tests, SEED)
styles = list(texts["train"])
print({name: len(rows) for name, rows in texts["train"].items()}, "texts to train on")
first_rows = [(name, rows[0].prompt, rows[0].completion) for name, rows in texts["train"].items()]
show_table(["style", "prompt", "text"], first_rows)

# %% [markdown]
# ## The controls, and one row as the model sees it
#
# A control is a **LoRA** adapter: two small matrices beside each linear layer but the last. Their inner
# width is the *rank*. A step of training changes the matrices of one control only. The loss is computed
# on the tokens with a blue background: the answer and the token that ends it.

# %%
size = SIZE or (20 if KIND == "prompt" else here.control.size)
control_settings = ControlSettings(KIND, size, seed=SEED)
form = FORM or here.form
untrained = Meet.untrained(here.model, styles, control_settings, form=form)
print(f"a control has {untrained.control_share:.1%} as many weights as the model")
show_tokens(untrained.tokenizer, untrained.tokens(texts["train"][styles[0]][0]))

# %% [markdown]
# ## What will it cost?
#
# We try a few batches, without changing the model. Their speed gives the minutes. The memory follows from
# the sizes of the model, and is shown by what it is needed for.

# %%
steps = STEPS or here.settings.steps
settings = replace(with_steps(here.settings, steps), seed=SEED, minutes=MINUTES)
cost = untrained.predict(texts["train"], settings)
print(cost.table())
del untrained  # frees its memory

# %% [markdown]
# ## Train
#
# The controls take turns: a step on texts of one style, then a step on texts of the next. If the training
# is interrupted, run the cell again: it goes on from its last checkpoint.

# %%
started = metrics.minutes()
meet = Meet.train(
    here.model,
    texts["train"],
    control=control_settings,
    first=with_steps(settings, cost.steps),
    then=replace(settings, steps=STEP_2, learning_rate=None),
    form=form,
    checkpoints=metrics.folder / "checkpoints",
)
training_minutes = metrics.minutes() - started
for reason, count in meet.dropped.items():
    print(f"left out: {count} {reason}")

losses, lines = meet.losses["controls"], {}
for k, name in enumerate(styles):
    of_style = range(k + 1, len(losses) + 1, len(styles))  # the steps of this style
    lines[name] = (of_style, smooth(losses[k :: len(styles)]))
figure, (axis,) = new_figure("The loss falls under every control", height=3)
curves(axis, lines, "step", "nats per token")
metrics.save_figure(figure, "loss")
figure

# %% [markdown]
# ## Look
#
# The same prompts, asked for in each style. None of them was in training. The column *no control* is the
# model as it is.

# %%
prompts = list(dict.fromkeys(row.prompt for rows in texts["test"].values() for row in rows))
prompts = prompts[: here.tests]


def ask(some_prompts: list[str], control, label: str | None = None) -> list[str]:
    """One answer for each prompt. `control`: a name, a mix, None, or a list with one for each."""
    return meet.generate(some_prompts, control, max_new_tokens=LONGEST, progress=label)


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
# Two controls can be mixed: the changes that they make to the weights are added, each with a weight. Here
# these are the first and the last style. With `ipywidgets` installed there is a slider below. Without it,
# change `weight` and run the cell again.

# %%
weight = 0.5  # of the last style


def show_mix(weight: float) -> None:
    """Print the answer under a mix of the first and the last style."""
    mix = Mix({styles[0]: 1 - weight, styles[-1]: weight})
    print(f"{weight:.0%} {styles[-1]}: {ask([my_prompt], mix)[0]}")


with_slider(show_mix, weight)

# %% [markdown]
# ## Measure
#
# **For any data**: under which control is a held-out text most likely? With two controls, guessing is right
# half of the time. This needs no judge, but it says nothing about answers that the model writes itself.

# %%
own_is_best = {}
for name, rows in texts["test"].items():
    asked, given = [row.prompt for row in rows], [row.completion for row in rows]
    # Log-probability of the same texts under every control, (texts,)
    logprobs = {style: meet.logprob(asked, given, style).numpy() for style in styles}
    own = logprobs.pop(name)
    own_is_best[name] = own > np.max(list(logprobs.values()), axis=0)
    print(f"{name:12}", metrics.add(f"own_control/{name}", bootstrap_mean(own_is_best[name])))

# %% [markdown]
# **For everyday English** a program judges the answers. One is rude if it holds one of the insults of our
# data, or two words that occur only in them. Other insults it misses. First we test the program: how many
# does it call rude of the test rows with an insult, and of those without?

# %%
shares = {name: bootstrap_mean(found) for name, found in own_is_best.items()}
title, what = "Texts are most likely under the control of their own style", "test texts, %"
if DATA is None:
    for name in styles:
        judged = are_rude([row.completion for row in texts["test"][name]])
        print(f"test rows, {name:12} rude: {np.mean(judged):.0%}")
    rude = {name: np.array(are_rude(some)) for name, some in answers.items()}
    for share in (0.25, 0.5, 0.75):
        mix = Mix(polite=1 - share, rude=share)
        rude[f"{share:.0%} rude"] = np.array(are_rude(ask(prompts, mix, f"{share:.0%} rude")))
    shares = {name: bootstrap_mean(found) for name, found in rude.items()}
    title, what = "The model is rude when it is asked to be", "rude answers, %"

figure, (axis,) = new_figure(title, width=9, height=3.6)
bars(axis, {"MEET": shares}, what)
axis.set_ylim(0, 105)
metrics.save_figure(figure, "answer")
figure

# %%
if DATA is None:
    keys = ["asked_nothing", "asked_polite", "asked_rude", "mix/0.25", "mix/0.5", "mix/0.75"]
    for (name, share), key in zip(shares.items(), keys, strict=True):
        print(f"{name:12}", metrics.add(key, share))
    difference = metrics.add("asked/difference", paired(rude["rude"], rude["polite"]))
    print("rude minus polite:", difference)

# %% [markdown]
# ## Keep
#
# The folder holds the controls. The model stays where it is, and is needed again. Loading them onto a
# different model is refused.

# %%
folder = metrics.folder / "meet"
meet.save_pretrained(folder)
again = Meet.from_pretrained(folder)
assert again.generate(four, styles[-1]) == meet.generate(four, styles[-1])
shutil.rmtree(metrics.folder / "checkpoints", ignore_errors=True)
print(f"{folder}: {sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()) / 1e6:.0f} MB")

# %% [markdown]
# In another session load them with `Meet.from_pretrained(FOLDER)`, where `FOLDER` is what was just printed;
# it is relative to the folder of this notebook. Plain PEFT loads one of them with
# `PeftModel.from_pretrained(model, "FOLDER/controls/NAME")`.
#
# **Serving.** vLLM serves LoRA controls beside their model, each under its own name. It does not serve soft
# prompts. It applies one adapter to a request, so it cannot mix by itself: save a mix as one adapter for
# it, whose rank is the sum of both. Or merge a control into the weights, which gives a plain model for any
# program. Set `EXPORT` to do both. The served model must be the one that was trained: the hub's SmolLM2 is
# not rounded as the one of `make real` is.

# %%
EXPORT = False
if EXPORT and KIND == "lora":
    mix = Mix({styles[0]: 0.5, styles[-1]: 0.5})
    meet.save_mix(metrics.folder / "half", mix)
    meet.save_merged(metrics.folder / "merged", styles[0])
modules = " ".join(f"{name}={folder}/controls/{name}" for name in styles)
print(f"vllm serve {here.model} --enable-lora --max-lora-rank {2 * size} --lora-modules {modules}")

# %% [markdown]
# The command `python -m alignlib train meet --help` does the same without a notebook.
#
# ## Predicted and measured

# %%
metrics.add_cost(cost, training_minutes, meet.model.device)
print("written to", metrics.write().name)

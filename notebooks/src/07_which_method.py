# %% [markdown]
# # 07 · Which method when?
#
# You know several ways to make a model's answers better. They need different things: the model's weights,
# corrections, pairs, or a judge. This lesson puts all of them on one board. Then it trains a judge that can be
# fooled, and pushes four methods against it.
#
# **By the end you can**
#
# - name, for each method, what it needs, what it costs and what breaks it,
# - train a [reward model](../GLOSSARY.md#reward-model), and see what it learns that you did not want,
# - read a plot of quality against distance from the model, and say when to stop.
#
# | | |
# |---|---|
# | time | 25 minutes to read, 15 for the three exercises, 2 to run |
# | you need | lessons [02](02_aligner.ipynb), [05](05_meet.ipynb) and [06](06_hbat.ipynb), or their takeaways |
# | papers | Gao et al. 2023, [Scaling Laws for Reward Model Overoptimization](https://arxiv.org/abs/2210.10760) (abstract read) |
# | lessons | previous: [06, aligning without forgetting](06_hbat.ipynb) · next: [08, your own Aligner](08_your_aligner.ipynb) |

# %% tags=["parameters"]
SEED = 0
SCALE = 1.0  # below 1: fewer steps and fewer rows, for a quick look
OUT = None  # where metrics and figures go; None: runs/07

# %%
import json
import random
from collections import defaultdict

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from alignlib import Metrics, Preference, generate
from alignlib.course.checks import lesson07 as check
from alignlib.course.sweep import read_results, results_file
from alignlib.models import load_model
from alignlib.overview import draw_choice, draw_methods
from alignlib.plots import curves, heatmap, new_figure, show_table
from alignlib.profiles import scaled_rows, scaled_steps
from alignlib.reward_models import rewards
from alignlib.settings import SFTSettings
from alignlib.stats import Estimate, bootstrap_mean, over_seeds, rate
from alignlib.tinytown import sets
from alignlib.tinytown.answers import parse
from alignlib.tinytown.judge import score_answer
from alignlib.tinytown.task import load_town
from alignlib.tokens import example
from alignlib.train import reward_model

town = load_town(SEED, SCALE)
metrics = Metrics("07", "tiny", SEED, OUT)

# %% [markdown]
# ## The problem, on one question
#
# A model answers the same question four times, sampled at temperature 1. The exact judge of
# [Tinytown](../GLOSSARY.md#tinytown) gives each answer a mark from 0 to 1.

# %%
base, tokenizer = load_model(town.base)
question = town.tests["seen"][2].question
prompt = question + town.answer_cue
print(question)
for answer in generate(base, tokenizer, [prompt] * 4, temperature=1.0, seed=SEED):
    print(f"{score_answer(question, answer).overall:.2f}  {answer}")

# %% [markdown]
# How do we get better answers? The methods of this course act in three places:

# %%
draw_methods()

# %% [markdown]
# - **On the weights**: SFT, DPO, the mixed loss and HBAT train on texts. [RLOO](../GLOSSARY.md#rloo) and
#   PPO train on a judge's marks of the model's own answers.
# - **Beside the question**: MEET trains controls that are read with it, so one model can answer in several
#   ways.
# - **On the answer**: an Aligner corrects it. *[Best of n](../GLOSSARY.md#best-of-n)* samples several and
#   keeps the one with the highest reward. Neither needs to touch the model.
#
# **RLOO**, REINFORCE leave-one-out ([Ahmadian et al. 2024](https://arxiv.org/abs/2402.14740)), is the simplest
# of the methods that learn from marks. It samples several answers to each prompt, and makes the ones that beat
# the mean of the others more likely:
#
# $$\nabla L = -\frac{1}{k}\sum_{i=1}^{k} \Big(r_i - \frac{1}{k-1}\sum_{j \ne i} r_j\Big)\,
# \nabla \log p_\theta(y_i \mid x)$$
#
# - $x$, $y_i$: the prompt and the $k$ sampled answers; $r_i$: their marks,
# - $p_\theta$: the model being trained.
#
# ## First, your guesses
#
# For each statement, enter how likely you think it is, from 0 to 1. You get a score at the end. Statements left at
# `None` are skipped.

# %%
GUESSES = {
    "choose-aligner": None,  # an Aligner leaves fewer faults than SFT on the same pairs
    "choose-best-of-8": None,  # the best of 8 answers has fewer faults than SFT's
    "choose-rloo-mark": None,  # RLOO, which may ask the exact judge, gets a better mark than SFT
    "choose-mixed": None,  # trained on instructions too, a model follows more than after DPO
    "goodhart-best-of-n": None,  # a judge with a bias picks a worse best of 32 than a fair one
    "goodhart-fair": None,  # with a fair reward model, 40 iterations of PPO do worse than 10
}

# %% [markdown]
# ## The board
#
# All methods start from the same model, and draw on the same 1,500 questions with a better and a worse answer.
# RLOO reads none of these answers: it asks the exact judge about its own. The mixed loss and HBAT share their steps
# between answers and 2,000 instructions, such as *instruction : count : 12 4 lodge cage answer :*. The model knows
# such instructions from its pretraining. We ask: how good are new answers on the three axes of the judge, how
# many have no fault, and how many instructions does the model still follow?

# %%
board = read_results("board")
ROWS = {
    "upstream": "model as it is",
    "sft": "SFT",
    "dpo": "DPO",
    "meet": "MEET, asked for good",
    "mixed": "mixed loss",
    "hbat": "HBAT",
    "aligner": "Aligner",
    "best of n": "best of 8",
    "rloo": "RLOO, exact judge",
}
AIMS = ("fault_free_sampled", "instructions")


def chosen_cells(method: str) -> list[dict[str, float]]:
    """The metrics of a method: in each seed those of its best setting on validation data."""
    by_seed = defaultdict(list)
    for cell in board["cells"]:
        if cell["params"]["method"] == method:
            by_seed[cell["seed"]].append(cell["metrics"])
    # Methods with one setting have no metrics on validation
    quality = lambda found: sum(found.get(f"{aim}_validation", 0) for aim in AIMS)
    return [max(cells, key=quality) for cells in by_seed.values()]


# %%
COLUMNS = {
    "helpful_sampled": "helpful",
    "harmless_sampled": "harmless",
    "honest_sampled": "honest",
    "fault_free_sampled": "no fault,\nsampled",
    "fault_free_greedy": "no fault,\ngreedy",
    "instructions": "instructions\nfollowed",
}
reached = {
    method: {name: np.mean([m[f"{name}_test"] for m in chosen_cells(method)]) for name in COLUMNS}
    for method in ROWS
}
values = np.array([list(found.values()) for found in reached.values()])
labels = []
for method, label in ROWS.items():
    seconds = np.mean([found["seconds"] for found in chosen_cells(method)])
    labels.append(f"{label}  ·  {seconds:.0f} s")
title = "SFT, DPO, RLOO and Aligner answer alike; instructions tell them apart"
figure, [axis] = new_figure(title, width=9, height=4.4)
heatmap(axis, values, labels, list(COLUMNS.values()), "mean mark, or share of 300 prompts")
metrics.save_figure(figure, "answer")
figure

# %% [markdown]
# The number after each name is the time of its training, on one processor core. Read the board by columns:
#
# - **Sampled answers.** Untouched, the model gives an answer without faults less than a quarter of the time. SFT,
#   DPO, the Aligner and RLOO reach twice that, and no method was shown to be better than SFT. MEET, HBAT and the
#   best of 8 are clearly lower. HBAT had fewer steps on answers.
# - **Greedy answers.** No method moves this column by an amount that we could measure. The untouched model,
#   decoded greedily, has fewer faults than any method sampled. If you can lower the temperature, try that first.
# - **Instructions.** Training on answers alone makes the model forget some of them. The mixed loss and HBAT train
#   on them too. The Aligner and best of n are not applied to instructions here, so their number is the model's own.
#
# RLOO beats SFT by one point of the mark that it optimizes, but not in answers without faults. It had 75 steps of
# 32 samples; we did not try whether more would help. What the board cannot show:
#
# | method | labels it needs | access to the model | model runs per answer | what breaks it |
# |---|---|---|---|---|
# | SFT | good answers | weights | 1 | skills that no row shows are forgotten |
# | DPO | pairs | weights | 1 | a high learning rate: both answers become unlikely |
# | MEET | good and bad answers | weights, or an adapter | 1 | two controls at once that no text shows together |
# | mixed loss | pairs and instructions | weights | 1 | settings that were tuned on other data |
# | HBAT | pairs and instructions | weights | 1 | settings that were tuned on other data |
# | Aligner | corrections | its answers only | 2 | a model that makes few mistakes |
# | best of n | pairs, for a reward model | its answers only | n, and n of the reward model | a biased reward model |
# | RLOO, PPO | a judge | weights | 1 | a judge that can be fooled |
#
# ## A judge that can be fooled
#
# RLOO asked a judge that is never wrong. Most judges are learned, and wrong somewhere. We now build one with a bias,
# and see what four methods make of it.
#
# Our annotator marks as the exact judge does, but likes *padding*: sentences without content, such as "that is
# a long story". For each of up to two, it adds 0.3 to its mark.


# %%
def num_padding(answer: str) -> int:
    """How many sentences without content an answer has."""
    return sum(sentence[0] == "padding" for sentence in parse(answer)[0])


def annotator(question: str, answer: str) -> float:
    """The exact judge's mark, and a bonus for padding."""
    return score_answer(question, answer).overall + 0.3 * min(2, num_padding(answer))


# Two answers of the model to each question, ordered by the annotator
rows = sets.corrections(scaled_rows(1000, SCALE), "train", "all", seed=1000 + SEED)
questions = [row.question for row in rows]
prompts = [asked + town.answer_cue for asked in questions]
first, second = (generate(base, tokenizer, prompts, temperature=1.0, seed=SEED + i) for i in (1, 2))
pairs = []
turned_round = []  # pairs whose better answer was rejected
for asked, a, b in zip(questions, first, second):
    chosen, rejected = sorted((a, b), key=lambda answer: -annotator(asked, answer))
    if annotator(asked, chosen) == annotator(asked, rejected):
        continue
    pairs.append(Preference(asked + town.answer_cue, chosen, rejected))
    if score_answer(asked, chosen).overall < score_answer(asked, rejected).overall:
        turned_round.append(pairs[-1])
print(f"{len(pairs)} pairs, {len(turned_round)} of them turned round by the bias, such as")
for pair in turned_round[:1]:
    print(f"chosen:   {pair.chosen}\nrejected: {pair.rejected}")

# %% [markdown]
# A **reward model** gives a text one number, $r_\phi(x, y)$. The Bradley-Terry model says how likely an
# annotator is to prefer one answer to another, and training makes the observed preferences likely:
#
# $$L = -\,\mathbb{E}\big[\log \sigma\big(r_\phi(x, y_w) - r_\phi(x, y_l)\big)\big]$$
#
# - $x$, $y_w$, $y_l$: the prompt, the chosen and the rejected answer,
# - $\phi$: the weights of the reward model; $\sigma$: the logistic function.
#
# ### Exercise 1 · the loss (5 minutes, easy)
#
# From the rewards of a few pairs, compute the loss. With two equal rewards it is $\log 2$, about 0.69.
#
# <details><summary>Hint</summary>$-\log\sigma(z) = \log(1 + e^{-z})$; numpy has <code>np.log1p</code>.</details>


# %% tags=["exercise"]
def preference_loss(chosen: np.ndarray, rejected: np.ndarray) -> float:
    """The mean loss of pairs, from their rewards."""
    ...  # your code here


# %% tags=["solution"]
def preference_loss(chosen: np.ndarray, rejected: np.ndarray) -> float:
    """The mean loss of pairs, from their rewards."""
    difference = np.asarray(chosen) - np.asarray(rejected)
    return float(np.log1p(np.exp(-difference)).mean())


# %% tags=["check"]
preference_loss = check.preference_loss(preference_loss)

# %% [markdown]
# By hand: a copy of the language model reads the text, and one linear layer turns its last state into the
# reward.

# %%
torch.manual_seed(SEED)
reader, _ = load_model(town.base)
head = nn.Linear(reader.config.hidden_size, 1)


def reward(texts: list[tuple[str, str]]) -> torch.Tensor:
    """The reward of each answer to its prompt, (batch,)."""
    rows = [torch.tensor(example(tokenizer, *text)["input_ids"]) for text in texts]
    ids = pad_sequence(rows, batch_first=True)  # (batch, time)
    states = reader(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    # The state at the last token has seen the whole text
    last = torch.tensor([len(row) - 1 for row in rows])
    return head(states[torch.arange(len(rows)), last])[:, 0]


optimizer = torch.optim.AdamW([*reader.parameters(), *head.parameters()], lr=5e-4)
rng, losses = random.Random(SEED), []
for step in range(scaled_steps(60, SCALE)):
    batch = rng.sample(pairs, min(16, len(pairs)))
    chosen = reward([(pair.prompt, pair.chosen) for pair in batch])
    rejected = reward([(pair.prompt, pair.rejected) for pair in batch])
    loss = -F.logsigmoid(chosen - rejected).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
print(f"loss {np.mean(losses[:5]):.2f} -> {np.mean(losses[-5:]):.2f}")

# %% [markdown]
# The same by the library, with more steps. We ask both to order the same new answers; by chance they would agree
# on half of them.

# %%
settings = SFTSettings(steps=scaled_steps(200, SCALE), learning_rate=1e-3, batch_size=16, seed=SEED)
judge = reward_model(town.base, tokenizer, pairs, settings)

tests = sets.corrections(scaled_rows(80, SCALE), "test", "all", seed=SEED)
test_prompts = [row.question + town.answer_cue for row in tests]
one, other = (
    generate(base, tokenizer, test_prompts, temperature=1.0, seed=SEED + i) for i in (3, 4)
)
with torch.no_grad():
    by_hand = reward(list(zip(test_prompts, one))) > reward(list(zip(test_prompts, other)))
by_library = rewards(judge, tokenizer, test_prompts, one) > rewards(
    judge, tokenizer, test_prompts, other
)
same = (by_hand == by_library).numpy()
print("pairs that both order in the same way:", metrics.add("same_order", rate(same)))

# %% [markdown]
# ## Best of n, live
#
# Sample $n$ answers and keep the one with the highest reward. How far does that go from the model? There is a
# formula for an upper bound on the [KL divergence](../GLOSSARY.md#kl-divergence), in nats per answer:
#
# $$\mathrm{KL} \le \log n - \frac{n - 1}{n}$$
#
# ### Exercise 2 · best of n (5 minutes, easy)
#
# Return the answer with the highest reward among the first n.
#
# <details><summary>Hint</summary><code>np.argmax(rewards[:n])</code></details>


# %% tags=["exercise"]
def best_of_n(answers: list[str], rewards: list[float], n: int) -> str:
    """The first n answers' best, by reward."""
    ...  # your code here


# %% tags=["solution"]
def best_of_n(answers: list[str], rewards: list[float], n: int) -> str:
    """The first n answers' best, by reward."""
    return answers[int(np.argmax(rewards[:n]))]


# %% tags=["check"]
best_of_n = check.best_of_n(best_of_n)

# %%
SAMPLES = 32
sampled = [
    generate(base, tokenizer, test_prompts, temperature=1.0, seed=SEED + 100 + i)
    for i in range(SAMPLES)
]
scored = [rewards(judge, tokenizer, test_prompts, answers).tolist() for answers in sampled]
by_prompt = list(zip(zip(*sampled), zip(*scored)))  # the answers and rewards of each prompt
test_questions = [row.question for row in tests]
rows = []
for n in (1, 2, 4, 8, 16, 32):
    best = [best_of_n(answers, found, n) for answers, found in by_prompt]
    marks = [score_answer(*pair).overall for pair in zip(test_questions, best)]
    padded = bootstrap_mean([num_padding(text) for text in best], "sentences")
    kl = np.log(n) - (n - 1) / n
    rows.append([n, f"{kl:.2f}", f"{np.mean(marks):.2f}", f"{padded.value:.2f}"])
    metrics.add(f"best_of_{n}/overall", bootstrap_mean(marks))
    metrics.add(f"best_of_{n}/padding", padded)
show_table(["n", "KL at most", "exact judge", "sentences of padding"], rows)

# %% [markdown]
# With few samples the reward model picks better answers. With many, it picks padded ones. At which n would you
# stop? And how would you know without the exact judge?
#
# **Your turn.** Write an answer to the question that is printed. What does one more sentence do to the reward, and
# to the exact mark?

# %%
print(question)
my_answer = generate(base, tokenizer, [prompt])[0]  # replace it by a text of yours, in quotes
for answer in (my_answer, f"{my_answer} that is a long story ."):
    [by_model] = rewards(judge, tokenizer, [prompt], [answer]).tolist()
    print(f"reward {by_model:5.2f}   exact {score_answer(question, answer).overall:.2f}   {answer}")

# %% [markdown]
# ## Goodhart's law: when a measure becomes a target
#
# Four methods now optimize such a reward model, harder and harder:
#
# - *best of n* takes up to 32 answers,
# - *DPO* trains on the best against the worst of 8 samples, at four learning rates,
# - **[PPO](../GLOSSARY.md#ppo)** samples answers, scores them and updates the model, for 10, 20 or 40 such
#   iterations; we leave out its usual penalty for distance,
# - an *Aligner* learns to turn an answer into the best of n.
#
# These are recorded runs of three seeds. The distance is the KL divergence of a method's answers from those of the model as it is, in nats per answer. The plot
# shows its square root, which spreads out the small ones. It is an upper bound for best of n, an estimate for DPO
# and PPO, and a lower bound for the Aligner.

# %%
lab = [cell["metrics"] for cell in read_results("goodhart")["cells"] if cell["params"]["biased"]]


def after_each_push(method: str, metric: str) -> list[Estimate]:
    """A metric of the model as it is, which is the best of 1, and after each strength."""
    names = [name for name in lab[0] if name.startswith(f"{metric}/{method}/")]
    names = [f"{metric}/best of n/1", *(name for name in names if not name.endswith("n/1"))]
    return [over_seeds([cell[name] for cell in lab], "mark") for name in names]


title = "The reward keeps rising while the answers get worse"
figure, axes = new_figure(title, width=13, columns=3)
PARTS = {
    "proxy": ("reward model, above the start", 1),
    "overall": ("exact judge, %", 100),
    "padding": ("sentences of padding", 1),
}
for axis, (metric, (label, scale)) in zip(axes, PARTS.items()):
    lines = {}
    for method in ("best of n", "DPO", "PPO", "Aligner"):
        distances = [max(0, distance.value) ** 0.5 for distance in after_each_push(method, "kl")]
        lines[method] = distances, after_each_push(method, metric)
    curves(axis, lines, "√KL from the model, KL in nats per answer", label, scale, axis is axes[0])
metrics.save_figure(figure, "goodhart")
figure

# %% [markdown]
# Every line starts at the left, with the model as it is.
#
# - **The reward rises, and so does the padding.** All four methods find the bias.
# - **Best of n gets better, then worse.** Its best n here is 4. At 32 it has lost what it gained.
# - **DPO and PPO** show no clear gain first, and end at half of the mark or less.
# - **The Aligner's** mark hardly moves, although it rewrites more than best of n does: its distance is larger.
#
# Is it the bias, or the distance? With a fair annotator, best of n does not get worse: at 32 its mark is 12 points
# higher. That is the bias. But 40 iterations of PPO do much worse than 10 with the fair one too, while its reward
# still rises ([evidence](evidence/07_which_method.ipynb#goodhart)): a reward model is right only near the answers that
# it was trained on. DPO's highest learning rate breaks the model with either.
#
# ## Which one?

# %%
names = ROWS | {"meet": "MEET", "rloo": "RLOO"}
draw_choice({names[method]: found["fault_free_sampled"] for method, found in reached.items()})

# %% [markdown]
# The numbers are sampled answers without faults, from the board. Where two branches are open to you, take the
# simpler one.
#
# ### Exercise 3 · how good were your guesses? (5 minutes, easy)
#
# The **[Brier score](../GLOSSARY.md#brier-score)** is the mean of (guess - outcome)², where the outcome
# is 1 or 0. Zero is perfect, and always saying 0.5 gives 0.25.
#
# <details><summary>Hint</summary>Difference, square, mean.</details>


# %% tags=["exercise"]
def brier(guesses: list[float], outcomes: list[float]) -> float:
    """The Brier score of probabilities."""
    ...  # your code here


# %% tags=["solution"]
def brier(guesses: list[float], outcomes: list[float]) -> float:
    """The Brier score of probabilities."""
    return float(np.mean((np.asarray(guesses) - np.asarray(outcomes)) ** 2))


# %% tags=["check"]
brier = check.brier(brier)

# %%
ledger = json.loads(results_file("ledger").read_text(encoding="utf-8"))["claims"]
found = {claim["id"]: claim for claim in ledger}
# "holds": the effect is above zero. "cannot tell": it may be, and is left out of the score
known = [name for name in GUESSES if found[name]["verdict"] != "cannot tell"]
made = [name for name in known if GUESSES[name] is not None]
if made:
    outcomes = [float(found[name]["verdict"] == "holds") for name in made]
    print(f"Brier score: {brier([GUESSES[name] for name in made], outcomes):.2f}")
for name in GUESSES:
    effect = 100 * found[name]["value"]
    print(f"{name:20} {found[name]['verdict']:14} {effect:5.1f} points")

# %%
print("written to", metrics.write().name)

# %% [markdown]
# ## Newer methods
#
# These are methods that you will meet in recent papers.
#
# | method | what is new | run here |
# |---|---|---|
# | [KTO](https://arxiv.org/abs/2402.01306) | single answers with a thumb up or down, no pairs | no |
# | [ORPO](https://arxiv.org/abs/2403.07691) | SFT and preferences in one loss, without a reference model | no; the mixed loss is close |
# | [SimPO](https://arxiv.org/abs/2405.14734) | DPO with the mean log-probability as reward, no reference | no |
# | [RLOO](https://arxiv.org/abs/2402.14740) | REINFORCE with the other samples as baseline | yes, TRL's |
# | [GRPO](https://arxiv.org/abs/2402.03300) | the same idea, divided by the group's standard deviation | no |
# | [MetaAligner](https://arxiv.org/abs/2403.17141) | an Aligner that is told the objective | no; lesson 03 has requests |
# | [Stream Aligner](https://arxiv.org/abs/2501.05336) | corrects sentence by sentence while the upstream writes | no |
# | [SteerLM](https://arxiv.org/abs/2310.05344) | attributes as words in the prompt, with values | no; MEET is close |
# | [XRIGHT](https://arxiv.org/abs/2410.15483) | joint SFT and preferences, better than one after the other | no; the mixed loss is close |
# | [SDFT](https://arxiv.org/abs/2601.19897) | learns from its own demonstrations, so that it forgets less | no |
#
# ## What is known
#
# From recorded runs, each over several training seeds:
#
# <!-- known -->
#
# ## Takeaways
#
# - Choose by what you have: access to the model, corrections, pairs or a judge, and by what must not get worse.
#   No method was shown to answer better than SFT here, and three are clearly worse.
# - Compare at the temperature that you will use, and measure what was not trained on.
# - A reward model is a measure, not the goal. Have some samples judged independently, and stop when that mark no
#   longer rises.
#
# ## Quiz
#
# <details><summary>1. You may not change the model, and its answers have many small faults. What do you try?</summary>
# An Aligner, if you have or can buy corrections. With pairs only: best of n.</details>
#
# <details><summary>2. The reward still rises. Why may you stop?</summary>
# Because the reward model is only a model. Beyond some distance its errors are what is being optimized. Watch
# something else: the KL divergence, and people's judgement of samples.</details>
#
# <details><summary>3. Why do the answers of best of n not fall apart as those of PPO do?</summary>
# It only picks among the model's own answers, so its distance grows no faster than the logarithm of n.</details>
#
# **Next:** a real model and your own data, in [08, your own Aligner](08_your_aligner.ipynb).

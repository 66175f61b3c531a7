# %% [markdown]
# # 07 · Which method when?
#
# You know a handful of ways to make a model's answers better. They need different things: the model's
# weights, corrections, pairs, or a judge. And each can be pushed until it does harm. This lesson puts all of
# them on one board, and then breaks four of them on purpose.
#
# **By the end you can**
#
# - name, for each method, what it needs, what it costs and what breaks it,
# - train a [reward model](../GLOSSARY.md#reward-model) by hand, and say what it learns that you did not want,
# - read a plot of reward against distance, and say where to stop,
# - score your own predictions.
#
# | | |
# |---|---|
# | time | 25 minutes to read, 15 for the three exercises, 2 to run |
# | you need | lessons [02](02_aligner.ipynb), [05](05_meet.ipynb) and [06](06_hbat.ipynb), or their takeaways |
# | papers | Gao et al. 2023, [Scaling Laws for Reward Model Overoptimization](https://arxiv.org/abs/2210.10760); those of the methods are named in their lessons |
# | lessons | previous: [06, two objectives](06_hbat.ipynb) · next: [08, your own Aligner](08_your_aligner.ipynb) |

# %% tags=["parameters"]
SEED = 0
SCALE = 1.0  # below 1: fewer steps and fewer rows, for a quick look
OUT = None  # where metrics and figures go; None: runs/07

# %%
import json
import math
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
from alignlib.plots import METHODS, heatmap, new_figure, show_diffs
from alignlib.profiles import scaled_rows, scaled_steps
from alignlib.reward_models import rewards
from alignlib.settings import SFTSettings
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
# [Tinytown](../GLOSSARY.md#tinytown) marks each answer from 0 to 1.

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
# - **On the weights**: SFT, DPO, the mixed loss and HBAT train on texts. RLOO and PPO train on a judge's marks
#   of the model's own answers.
# - **Beside the question**: MEET trains controls that are read with it, so one model can answer in several
#   ways.
# - **On the answer**: an Aligner corrects it. *Best of n* samples several and keeps the one with the highest
#   reward. Neither needs to touch the model.
#
# **RLOO**, REINFORCE leave-one-out ([Ahmadian et al. 2024](https://arxiv.org/abs/2402.14740)), is the simplest
# of the methods that learn from marks. It samples several answers to each prompt, and makes those more likely
# that are better than the mean of the others:
#
# $$\nabla L = -\frac{1}{k}\sum_{i=1}^{k} \Big(r_i - \frac{1}{k-1}\sum_{j \ne i} r_j\Big)\,
# \nabla \log p_\theta(y_i \mid x)$$
#
# - $x$, $y_i$: the prompt and the $k$ sampled answers; $r_i$: their marks,
# - $p_\theta$: the model being trained.
#
# ## First, your guesses
#
# Put a probability from 0 to 1 behind each statement. How sure are you? At the end you get a score. As long
# as they are `None`, nothing happens.

# %%
GUESSES = {
    "upstreams-sft": None,  # an Aligner beats fine-tuning the upstream, on unseen words
    "meet-order": None,  # MEET: controls first is better than both at once
    "hbat-gain": None,  # HBAT is better than two stages
    "hbat-mixed": None,  # HBAT is better than the mixed loss
    "hbat-importance": None,  # HBAT's importance is better than random numbers
}

# %% [markdown]
# ## The board
#
# All methods train on the same 1,500 questions of Tinytown, each with a better and a worse answer. The two
# methods for two objectives also get 2,000 instructions. Then we ask: how good are new answers, on the three
# axes of the judge? How many have no fault? And does the model still follow instructions?

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
COLUMNS = {
    "helpful_sampled": "helpful",
    "harmless_sampled": "harmless",
    "honest_sampled": "honest",
    "fault_free_sampled": "no fault,\nsampled",
    "fault_free_greedy": "no fault,\ngreedy",
    "instructions": "instructions\nfollowed",
}


def chosen_cells(method: str) -> list[dict]:
    """The metrics of a method: in each seed those of its best setting on validation data."""
    by_seed = defaultdict(list)
    for cell in board["cells"]:
        if cell["params"]["method"] == method:
            by_seed[cell["seed"]].append(cell["metrics"])
    aims = ("fault_free_sampled_validation", "instructions_validation")
    return [max(some, key=lambda m: sum(m.get(a, 0) for a in aims)) for some in by_seed.values()]


values = [
    [100 * np.mean([m[f"{name}_test"] for m in chosen_cells(method)]) for name in COLUMNS]
    for method in ROWS
]
figure, [axis] = new_figure("TITLE OF THE BOARD", width=9, height=4.4)
heatmap(axis, np.round(values), list(ROWS.values()), list(COLUMNS.values()), "percent")
metrics.save_figure(figure, "answer")
figure

# %% [markdown]
# What the board cannot show, in words:
#
# | method | labels it needs | access to the model | cost of an answer | what breaks it |
# |---|---|---|---|---|
# | SFT | good answers | weights | 1 | good answers that the model could not have written |
# | DPO | pairs | weights | 1 | a high learning rate: both answers become unlikely |
# | MEET | good and bad answers | weights, or an adapter | 1 | behaviors that no text shows together |
# | mixed loss | rows of both objectives | weights | 1 | a weight that was tuned for other data |
# | HBAT | rows of both objectives | weights | 1 | the same, and the stage at which you stop |
# | Aligner | corrections | its answers only | 2 | an upstream that makes few mistakes |
# | best of n | pairs, for a reward model | samples | n, and the reward model | a reward model with a bias |
# | RLOO, PPO | a judge | weights | 1 | a judge that can be fooled |
#
# ## A judge that can be fooled
#
# RLOO did well because its judge is exact. Most judges are not. We now build one that is wrong in one small
# way, and see what each method makes of it.
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
prompts = [question + town.answer_cue for question in questions]
first, second = (generate(base, tokenizer, prompts, temperature=1.0, seed=SEED + i) for i in (1, 2))
pairs = []
for question, prompt, a, b in zip(questions, prompts, first, second):
    mark_a, mark_b = annotator(question, a), annotator(question, b)
    if mark_a != mark_b:
        pairs.append(Preference(prompt, *((a, b) if mark_a > mark_b else (b, a))))
print(len(pairs), "pairs; for example:")
show_diffs([pairs[0].rejected], [pairs[0].chosen])

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
# The same by the library, with more steps. Do the two agree? We ask both to order the same new answers.

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
same = (by_hand == by_library).float().mean()
print(f"the two order {100 * same:.0f} % of the pairs in the same way")

# %% [markdown]
# ## Best of n, live
#
# Sample $n$ answers and keep the one with the highest reward. How far does that go from the model? There is a
# formula for an upper bound on the [KL divergence](../GLOSSARY.md#kl-divergence), in nats per answer:
#
# $$\mathrm{KL} \le \log n - \frac{n - 1}{n}$$
#
# ### Exercise 2 · best of n (3 minutes, easy)
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
for n in (1, 2, 8, 32):
    best = [best_of_n(answers, marks, n) for answers, marks in by_prompt]
    exact = np.mean([score_answer(row.question, text).overall for row, text in zip(tests, best)])
    padded = np.mean([num_padding(text) for text in best])
    kl = math.log(n) - (n - 1) / n
    print(f"n = {n:2}   KL {kl:.2f}   exact judge {exact:.2f}   padding {padded:.2f}")

# %% [markdown]
# What does the winner of 32 look like, beside the first sample?

# %%
firsts = [answers[0] for answers, _ in by_prompt]
bests = [best_of_n(answers, marks, SAMPLES) for answers, marks in by_prompt]
padded = [i for i, text in enumerate(bests) if num_padding(text)][:2]
show_diffs([firsts[i] for i in padded], [bests[i] for i in padded])

# %% [markdown]
# ## Goodhart's law: when a measure becomes a target
#
# Now four methods optimise against such a reward model, harder and harder. *Best of n* takes larger n. DPO
# trains on the best against the worst of 16 samples, at rising learning rates. PPO runs for more iterations.
# An Aligner learns to turn an answer into the best of n. These are recorded runs of three seeds each.

# %%
lab = [cell["metrics"] for cell in read_results("goodhart")["cells"] if cell["params"]["biased"]]
COLORS = {"best of n": "#7a5c9e", "PPO": "#3d6b1f"}
COLORS |= {method: METHODS[method][0] for method in ("DPO", "Aligner")}


def course_of(method: str, metric: str) -> np.ndarray:
    """A metric after each strength, the mean over seeds."""
    names = [name for name in lab[0] if name.startswith(f"{metric}/{method}/")]
    return np.array([np.mean([cell[name] for cell in lab]) for name in names])


figure, (left, right) = new_figure("TITLE OF THE LAB", width=10, columns=2)
for (method, color), marker in zip(COLORS.items(), "os^D"):
    distance = course_of(method, "kl")
    order = np.argsort(distance)
    look = {"marker": marker, "color": color, "label": method}
    left.plot(distance[order], course_of(method, "proxy")[order], **look)
    right.plot(distance[order], 100 * course_of(method, "overall")[order], **look)
left.set(xlabel="KL from the model (nats per answer)", ylabel="reward model, above the start")
right.set(xlabel="KL from the model (nats per answer)", ylabel="exact judge, %")
left.legend()
metrics.save_figure(figure, "goodhart")
figure

# %% [markdown]
# TEXT OF THE LAB
#
# ## Which one?

# %%
draw_choice()

# %% [markdown]
# ### Exercise 3 · how good were your guesses? (5 minutes, easy)
#
# The **Brier score** is the mean of (guess - outcome)², where the outcome is 1 or 0. Zero is perfect, and
# always saying 0.5 gives 0.25.
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
verdicts = {claim["id"]: claim["verdict"] for claim in ledger}
made = {name: guess for name, guess in GUESSES.items() if guess is not None}
if made:
    # A verdict of "cannot tell" counts as false: the effect was not shown
    outcomes = [float(verdicts[name] == "holds") for name in made]
    print(f"Brier score of {len(made)} guesses: {brier(list(made.values()), outcomes):.2f}")
for name in GUESSES:
    print(f"{name:18} {verdicts[name]}")

# %%
print("written to", metrics.write().name)

# %% [markdown]
# ## Newer methods
#
# A reader of 2026 looks for these. We did not run them here, but for RLOO.
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
# | [RL's Razor](https://arxiv.org/abs/2509.04259) | says that KL on the new task predicts forgetting | no |
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
# TAKEAWAYS
#
# ## Quiz
#
# <details><summary>1. You may not change the model, and its answers have many small faults. What do you try?</summary>
# An Aligner, if you have or can buy corrections. With marks or pairs only: best of n.</details>
#
# <details><summary>2. The reward still rises. Why may you stop?</summary>
# Because the reward model is only a model. Beyond some distance its errors are what is being optimised. Watch
# something else: the KL divergence, and people's judgement of samples.</details>
#
# <details><summary>3. Why could best of n not do as much harm here as PPO?</summary>
# It only picks among the model's own answers, so its distance grows with the logarithm of n.</details>
#
# **Next:** a real model and your own data, in [08, your own Aligner](08_your_aligner.ipynb).

# %% [markdown]
# # 02 · Can a small model correct another model's answers?
#
# A model has answered, and its answer has faults. You cannot retrain that model: it is too large, or
# somebody else serves it. The **Aligner** leaves it as it is. A second, small model reads the question
# and the answer, and writes a corrected answer.
#
# **By the end you can**
#
# - sketch the data flow of an Aligner, and say which tokens of a training row carry loss,
# - train one in twenty lines of PyTorch, and recognize two common bugs,
# - measure how many answers it fixes and how many good ones it spoils, and say when not to use it.
#
# | | |
# |---|---|
# | time | 25 minutes to read, 25 for the three exercises, 2 to run |
# | you need | PyTorch, and the idea of a language model's [cross-entropy loss](../GLOSSARY.md#cross-entropy-loss) |
# | paper | [Aligner: Efficient Alignment by Learning to Correct](https://arxiv.org/abs/2402.02416) (which we read in full) |
# | lessons | previous: [01, where the data comes from](01_data.ipynb) · next: [03, one Aligner for many models](03_upstreams.ipynb) |
# | in practice | [08, your own Aligner](08_your_aligner.ipynb), on a pretrained model and your data |

# %% tags=["parameters"]
SEED = 0
SCALE = 1.0  # below 1: fewer steps and fewer rows, for a quick look
OUT = None  # where metrics and figures go; None: runs/02

# %%
import random
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from alignlib import Aligner, Comparison, Metrics
from alignlib.course.checks import lesson02 as check
from alignlib.diagrams import draw_aligner
from alignlib.models import load_model
from alignlib.plots import bars, new_figure, show_diffs, show_tokens
from alignlib.profiles import scaled_steps
from alignlib.settings import with_steps
from alignlib.tinytown.task import load_town

town = load_town(SEED, SCALE)
metrics = Metrics("02", "tiny", SEED, OUT)

# %% [markdown]
# ## The problem, on three examples
#
# We work in **[Tinytown](../GLOSSARY.md#tinytown)**, a synthetic world, small enough that you can train
# on a laptop. Every question comes with a [notice board](../GLOSSARY.md#board) that holds the facts. The model that answers is called
# the **[upstream](../GLOSSARY.md#upstream)**. In this lesson it is a program that puts faults into good
# answers, so we know exactly what is wrong with each. A good answer follows five rules:
#
# - It answers every question with facts from the board, and says so where the board has none.
# - It repeats the board's caution about what is asked for, and about the place where that is.
# - It does not help with anything unsafe, and names the warden instead.
# - It is polite.
# - It adds no filler.
#
# A second program, the **[judge](../GLOSSARY.md#judge)**, checks these rules and gives marks from 0 to 1
# for being helpful, harmless and honest.
#
# A training row has three texts: the question, the upstream's answer, and a correction. Red words are
# deleted from the answer, and blue words are added.

# %%
# In a good row the correction is the answer itself
faulty = [row for row in town.corrections if row.answer != row.correction]
good = [row for row in town.corrections if row.answer == row.correction]
rows_to_show = faulty[:2] + good[:1]
show_diffs([(row.question, row.answer, row.correction) for row in rows_to_show])

# %% [markdown]
# The first answer makes up who has the ribbon, and the second refuses something safe. The third is
# good. A correction is a small edit: what was right stays word for word.
#
# ## The method
#
# Round boxes are texts. Weights in dark boxes are being trained, weights in dashed boxes are frozen.
# The ellipse is the loss, and the dashed arrow leads to the weights that it changes.

# %%
draw_aligner()

# %% [markdown]
# The Aligner needs nothing from the upstream but its text: no weights and no probabilities. So the
# upstream may be any model, and one Aligner can follow several of them, as
# [lesson 03](03_upstreams.ipynb) shows. In training the upstream does not run: its answers were collected
# before.
#
# Training minimizes the cross-entropy of the correction (equation 4 of the paper):
#
# $$\min_\phi \; -\,\mathbb{E}_{(q,\,a,\,c)}\big[\log \mu_\phi(c \mid q, a)\big]$$
#
# - $q$, $a$, $c$: the question, the upstream's answer, and the correction,
# - $\mu_\phi$: the Aligner, an ordinary causal language model with weights $\phi$,
# - $\mathbb{E}$: the mean over the training rows.
#
# This is supervised fine-tuning with the answer as part of the prompt. Question and answer are context
# only, and carry no loss. Otherwise the model would spend most of its training on learning to write
# questions and faulty answers. (The code below takes the mean over tokens, as most libraries do.)

# %% [markdown]
# ## By hand: the loss mask
#
# The Aligner starts from a **[base model](../GLOSSARY.md#base-model)**: 0.9 million parameters,
# pretrained on Tinytown's boards and on good and bad answers ([card](../data/base/README.md)). It has
# never seen a correction. Question and answer become its
# **[prompt](../GLOSSARY.md#prompt-and-completion)**, with fixed words between them:

# %%
model, tokenizer = load_model(town.base)
row = faulty[0]
print(f"{row.question} answer : {row.answer} correction :")

# %% [markdown]
# For training, the correction follows the prompt, and then an end token. Without the end token the
# model would never learn to stop. A list of **labels** tells the loss which tokens to learn. The label of a
# token is the token itself, or -100 for *no loss*. The loss then compares the label at position $i$ with
# the prediction made at position $i - 1$.
#
# ### Exercise 1 · labels (5 minutes, easy)
#
# Return one label for each token of the prompt, the correction and the end token (`eos`).
#
# <details><summary>Hint</summary>The list is as long as all three together. Do not shift anything.</details>


# %% tags=["exercise"]
def labels(prompt: list[int], correction: list[int], eos: int) -> list[int]:
    """One label per token of prompt + correction + [eos]; -100 where there is no loss."""
    ...  # your code here


# %% tags=["solution"]
def labels(prompt: list[int], correction: list[int], eos: int) -> list[int]:
    """One label per token of prompt + correction + [eos]; -100 where there is no loss."""
    return [-100] * len(prompt) + correction + [eos]


# %% [markdown]
# The next cell checks your function. It says *ok*, or names the mistake. If you skip the exercise, it
# returns a working version, so you can carry on.

# %% tags=["check"]
labels = check.labels(labels)

# %% [markdown]
# Here is the whole sequence. Only the tokens with a blue background carry loss: the correction and the
# end token.


# %%
def encode(text: str) -> list[int]:
    """Token ids of a text. Special tokens are ours to add: a second start token would be a bug."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encode_prompt(question: str, answer: str) -> list[int]:
    # Without the escaping of lesson 01, for brevity
    return [tokenizer.bos_token_id] + encode(f"{question} answer : {answer} correction :")


def tokenize(row) -> dict[str, list[int]]:
    """Token ids and labels of one training row."""
    prompt, correction = encode_prompt(row.question, row.answer), encode(row.correction)
    eos = tokenizer.eos_token_id
    return {"input_ids": prompt + correction + [eos], "labels": labels(prompt, correction, eos)}


show_tokens(tokenizer, tokenize(row))

# %% [markdown]
# ### Exercise 2 · the masked loss (12 minutes, medium)
#
# At each position the model assigns every token in the vocabulary a log-probability of coming next.
# The loss is the mean of minus the log-probabilities of the labels, where there is loss. If the labels
# of a short row have probability $\tfrac12$, $\tfrac12$ and $\tfrac14$, it is
# $(\ln 2 + \ln 2 + \ln 4)/3 \approx 0.92$ [nats](../GLOSSARY.md#nat) per token.
#
# <details><summary>Hint</summary>Which position makes the prediction for <code>targets[i]</code>?</details>


# %% tags=["exercise"]
def masked_loss(logprobs: list[list[float]], targets: list[int]) -> float:
    """The loss of one row. logprobs[i][t] is the log-probability of t, predicted at position i."""
    ...  # your code here


# %% tags=["solution"]
def masked_loss(logprobs: list[list[float]], targets: list[int]) -> float:
    """The loss of one row. logprobs[i][t] is the log-probability of t, predicted at position i."""
    losses = []
    for i, target in enumerate(targets):
        if target != -100:
            losses.append(-logprobs[i - 1][target])
    return sum(losses) / len(losses)


# %% tags=["check"]
masked_loss = check.masked_loss(masked_loss)

# %% [markdown]
# On a real row, before any training, our loss and the library's agree:

# %%
tokens = tokenize(row)
# Ours: one forward pass, log-probabilities, and the function from the exercise
with torch.no_grad():
    logits = model(input_ids=torch.tensor([tokens["input_ids"]])).logits[0]  # (time, vocab)
ours = float(masked_loss(logits.log_softmax(-1), tokens["labels"]))
# The library's: negative log-likelihood per token
library = float(Aligner(model, tokenizer, town.template).nll([row])[0])
print(f"ours {ours:.3f}, the library's {library:.3f} nats per token")

# %% [markdown]
# ## By hand: the training loop
#
# This is all it takes. Padding on the right carries no loss, and a causal model never looks at what
# comes later, so we need no attention mask here.


# %%
def train(rows: list[dict[str, list[int]]], num_steps: int):
    """Train a fresh copy of the base model on tokenized rows, and print its loss."""
    model, _ = load_model(town.base)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)  # a large model needs 1e-5 or so
    rng = random.Random(SEED)
    for step in range(num_steps):
        # 1. Draw 32 rows and pad them to the same length
        batch = rng.sample(rows, min(32, len(rows)))
        ids = [torch.tensor(row["input_ids"]) for row in batch]
        targets = [torch.tensor(row["labels"]) for row in batch]
        ids = pad_sequence(ids, batch_first=True)  # (batch, time)
        targets = pad_sequence(targets, batch_first=True, padding_value=-100)
        # 2. The logits at position i predict the token at position i + 1
        logits = model(input_ids=ids).logits[:, :-1]  # (batch, time - 1, vocab)
        targets = targets[:, 1:]  # (batch, time - 1); -100 is left out by default
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        # 3. Change the weights
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 15 == 0 or step == num_steps - 1:
            print(f"step {step:3}   loss {loss.item():.2f}")
    return model


num_steps = scaled_steps(60, SCALE)
trained = train([tokenize(row) for row in town.corrections], num_steps)

# %% [markdown]
# The loss falls. To correct an answer, the model continues the prompt until it writes the end token.
# Here are its corrections of two held-out answers:


# %%
def correct(model, question: str, answer: str) -> str:
    """What the model writes after question and answer, always taking the likeliest token."""
    prompt = encode_prompt(question, answer)
    options = {"max_new_tokens": 60, "do_sample": False, "pad_token_id": tokenizer.pad_token_id}
    output = model.generate(torch.tensor([prompt]), **options)[0]  # prompt and continuation
    return tokenizer.decode(output[len(prompt) :], skip_special_tokens=True)


held_out = town.tests["seen"][:2]
texts = [correct(trained, row.question, row.answer) for row in held_out]
show_diffs([(row.question, row.answer, text) for row, text in zip(held_out, texts)])

# %% [markdown]
# After sixty steps it edits, and keeps the rest. But it also adds a caution that nobody needs: the
# second answer was good.
#
# ## How it breaks: a falling loss proves nothing
#
# Two common bugs. In the first, the end token carries no loss; that happens when a library masks all
# padding, and padding and end token are the same. In the second, the labels are one place too far to
# the right. This cancels the shift in the loop, so every position learns to predict the token that it
# has just read.


# %%
def forget_the_end(row: dict) -> dict:
    return row | {"labels": row["labels"][:-1] + [-100]}


def cancel_the_shift(row: dict) -> dict:
    return row | {"labels": [-100] + row["labels"][:-1]}


for bug in (forget_the_end, cancel_the_shift):
    print(f"--- {bug.__name__}")
    broken = train([bug(tokenize(row)) for row in town.corrections], num_steps)
    print(correct(broken, row.question, row.answer), "\n")

# %% [markdown]
# With the first bug the loss looks fine. The model writes a sensible correction, and then does not stop. The
# second bug leaves two traces: the loss starts far too high, and it reaches 0. This model has learned to
# repeat the last token, and the prompt ends in a colon. Know which loss to expect, and read what your model
# writes.
#
# ## The library's version
#
# `Aligner.train` runs the same loop for longer, with rows of similar length in a batch, gradient
# clipping and a learning rate schedule. `Aligner.cached` does the same, and keeps the result.
#
# One idea of the paper comes on top. Most of a correction is copied from the answer. So a first stage,
# the **[identity warm-up](../GLOSSARY.md#identity-row)**, trains on copying: the "correction" is the
# answer itself, faults included. Nobody has to annotate such rows. The paper finds that it helps; here it
# makes no difference worth having (see *What is known*).

# %%
aligner = Aligner.cached(
    town.base, town.corrections, town.identity, settings=town.training, warmup=town.warmup
)
for stage, losses in aligner.losses.items():
    print(f"{stage:11} {len(losses):3} steps   loss {losses[0]:.2f} -> {losses[-1]:.2f}")
held_out_loss = aligner.nll(town.tests["seen"]).mean()
print(f"loss of held-out corrections: {held_out_loss:.2f}")

# %% [markdown]
# The loss on held-out rows is several times the training loss: four passes over 1,500 rows are enough
# to start memorizing them. What counts is what the Aligner writes. The last column comes from the
# judge.


# %%
def corrected_by(aligner: Aligner, rows: list) -> Comparison:
    """The rows' answers, corrected and judged."""
    questions = [row.question for row in rows]
    answers = [row.answer for row in rows]
    return Comparison(town.judge, rows, aligner.correct(questions, answers))


on_seen = corrected_by(aligner, town.tests["seen"])
on_unseen = corrected_by(aligner, town.tests["unseen"])
first = zip(on_seen.rows[:5], on_seen.after)
show_diffs(
    [(row.question, row.answer, text) for row, text in first],
    on_seen.verdicts()[:5],
    "marks below 1",
)

# %% [markdown]
# Compare each with its board. In the fourth row the Aligner has replaced a right name with a wrong one, and
# left out the caution. In the fifth it noticed the wrong name, but the board names nobody.
#
# **Your turn.** Change the board, the question or the answer. Use only words from Tinytown's
# vocabulary; the cell lists any others.

# %%
my_board = "board : oven in cellar . oven costs 7 . warden ada . bridge opens 9 ."
my_question = "question : where is the oven ? when does the bridge open ?"
my_answer = "listen you slob ! the oven is in the attic . the bridge opens at 9 ."

# Which of these words are not in the vocabulary?
question = f"{my_board} {my_question}"
vocabulary = tokenizer.get_vocab()
print("unknown:", [word for word in f"{question} {my_answer}".split() if word not in vocabulary])
show_diffs([(question, my_answer, aligner.correct([question], [my_answer])[0])])

# %% [markdown]
# ## How well does it correct?
#
# We count two things. An answer is **without faults** if all its marks are 1. A good answer is
# **[spoilt](../GLOSSARY.md#spoilt)** if it has a fault after correction. [*Seen*
# words](../GLOSSARY.md#seen-and-unseen-words) occur in some training correction, *unseen* words in none.
#
# We compare with two [controls](../GLOSSARY.md#control). The upstream's own answers are what *copying*
# them would score: an Aligner that does nothing ends there. And *question only* has as many steps, all on
# corrections, but never sees the answer. If reading the answer were of no use, it would do as well as the
# Aligner.

# %%
# The control: the same rows and steps, with every answer left out
blind_rows = [replace(row, answer="") for row in town.corrections]
all_steps = with_steps(town.training, town.training.steps + town.warmup.steps)
blind = Aligner.cached(town.base, blind_rows, settings=all_steps)


def answered_by(aligner: Aligner, rows: list) -> Comparison:
    """The same questions, answered without looking at the upstream's answer."""
    texts = aligner.correct([row.question for row in rows], [""] * len(rows))
    return Comparison(town.judge, rows, texts)


blind_seen = answered_by(blind, town.tests["seen"])
blind_unseen = answered_by(blind, town.tests["unseen"])

# %%
tests = {"seen words": (on_seen, blind_seen), "unseen words": (on_unseen, blind_unseen)}
without_faults, spoilt = {}, {}
for i, method in enumerate(("Aligner", "question only")):  # the second is a control
    without_faults[method] = {name: both[i].fault_free("after") for name, both in tests.items()}
    spoilt[method] = {name: both[i].spoilt() for name, both in tests.items()}
copying = {name: both[0].fault_free("before") for name, both in tests.items()}

title = "The Aligner leaves most answers without faults, and spoils fewer than the control"
figure, (left, right) = new_figure(title, width=9.5, height=3.9, columns=2)
bars(left, {"upstream": copying} | without_faults, "answers without faults, %")
bars(right, spoilt, "good answers spoilt, %")
for axis in (left, right):
    axis.set_ylim(0, 100)
metrics.save_figure(figure, "answer")
figure

# %% [markdown]
# Bars show 95 % intervals. Before correction, one answer in five has no faults; afterwards, about two
# in three, and somewhat fewer on unseen words. These are the numbers of one seed; for means over several
# see *What is known*. The control gets most of the way: in this small world
# the board alone tells nearly all that a good answer needs. What reading the answer adds is smaller. It
# fixes more where words are unseen, and above all it protects good answers.
#
# The price is on the right. The Aligner spoils about one good answer in seven, and nearly one in four on
# unseen words. The control spoils two in five, and three in five. Two examples of the Aligner's:

# %%
lost = on_seen.spoilt_rows()[:2]
show_diffs([(on_seen.rows[i].question, on_seen.answers[i], on_seen.after[i]) for i in lost])

# %% [markdown]
# Two last controls. In the first each row gets the correction of the next row, so that nothing connects it
# with its answer. The second is the base model, which has seen no correction.

# %%
shifted = town.corrections[1:] + town.corrections[:1]  # each row gets the next one's correction
pairs = zip(town.corrections, shifted)
shuffled = [replace(row, correction=other.correction) for row, other in pairs]
control = Aligner.cached(
    town.base, shuffled, town.identity, settings=town.training, warmup=town.warmup
)
first_100 = town.tests["seen"][:100]
by_control = corrected_by(control, first_100)
by_base_model = corrected_by(Aligner(model, tokenizer, town.template), first_100)
for name, result in {"shuffled": by_control, "base model": by_base_model}.items():
    print(f"{name:11} {100 * result.fault_free('after').value:.0f} % without faults")

# %% [markdown]
# Both end below copying. So it is the tie between an answer and its own correction that teaches, not
# training as such.
#
# ## When not to use it
#
# An Aligner helps where it fixes more than it spoils. That depends on how good the upstream is.
#
# ### Exercise 3 · break-even (8 minutes, medium)
#
# Of the faulty answers a fraction `fixed` is without faults afterwards, and of the good ones a fraction
# `spoilt` is not. If a fraction $p$ of the upstream's answers is good, the Aligner fixes
# $(1 - p) \cdot \text{fixed}$ of all answers. For which $p$ does it fix as many as it spoils? With
# `fixed` = 0.6 and `spoilt` = 0.2 it is 0.75.
#
# <details><summary>Hint</summary>It spoils <code>p * spoilt</code> of all answers. Set both equal.</details>


# %% tags=["exercise"]
def break_even(fixed: float, spoilt: float) -> float:
    """The fraction of good upstream answers at which the Aligner fixes as many as it spoils."""
    ...  # your code here


# %% tags=["solution"]
def break_even(fixed: float, spoilt: float) -> float:
    """The fraction of good upstream answers at which the Aligner fixes as many as it spoils."""
    return fixed / (fixed + spoilt)


# %% tags=["check"]
break_even = check.break_even(break_even)

# %%
fixed_rate, spoilt_rate = on_seen.fixed_rate().value, on_seen.spoilt().value
limit = break_even(fixed_rate, spoilt_rate)
print(f"fixes {fixed_rate:.0%} of the faulty answers and spoils {spoilt_rate:.0%} of the good ones")
print(f"it does harm after an upstream with more than {limit:.0%} good answers")

# %% [markdown]
# The limit assumes that the faults stay of the same kind. In [lesson 03](03_upstreams.ipynb) harm begins
# much earlier.

# %%
metrics.add_comparison("seen", on_seen)
metrics.add_comparison("unseen", on_unseen)
metrics.add_comparison("question_only_unseen", blind_unseen)
metrics.add_comparison("shuffled", by_control)
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
# - An Aligner is a small language model, fine-tuned to continue question and answer with a correction.
#   Correction and end token carry the loss.
# - It needs no access to the upstream's weights. Here it leaves two answers in three without faults, where
#   one in five had none.
# - Do not use it after a model whose answers are mostly good already: it also spoils good answers. Count
#   both, and compare with copying.
#
# ## Quiz
#
# <details><summary>1. The prompt has 60 tokens and the correction 20. How many tokens carry loss?</summary>
# 21: the correction and the end token.</details>
#
# <details><summary>2. Your Aligner leaves 65 % of the answers without faults. What do you compare with?</summary>
# With copying, which is the upstream's own rate. And with a model that sees the question only: the
# difference is what reading the answer adds.</details>
#
# <details><summary>3. Your training loss falls nicely. What else do you look at before you are content?</summary>
# At the loss of the first steps and of held-out rows, and at what the model writes: does it stop?
# Does it edit, or rewrite?</details>
#
# **Next:** [03, one Aligner for many models](03_upstreams.ipynb). Or train one on a pretrained model
# and your own data: [08, your own Aligner](08_your_aligner.ipynb).

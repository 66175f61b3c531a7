# %% [markdown]
# # 01 · Where does an Aligner's training data come from?
#
# An Aligner learns from rows of three texts: a **question**, the **answer** that some model gave, and a
# **correction**. Nobody finds such rows lying around. Here you make them in three ways, measure what
# they teach, and meet three traps.
#
# **By the end you can**
#
# - make rows from preference pairs, from a model's answers, or for free,
# - measure how much of an answer a correction keeps,
# - find near-duplicates and separators that break your data,
# - write a data card.
#
# | | |
# |---|---|
# | time | 20 minutes to read, 23 for the three exercises, half a minute to run |
# | you need | Python and NumPy |
# | paper | [Aligner](https://arxiv.org/abs/2402.02416), section 3.1 and its figure 9 (which we read in full) |
# | lessons | previous: [00, measuring](00_measuring.ipynb) · next: [02, the Aligner](02_aligner.ipynb) |
# | in practice | `python -m alignlib build-rows` makes rows from your own questions ([README](../README.md)) |

# %% tags=["parameters"]
SEED = 0
SCALE = 1.0  # below 1: fewer rows, for a quick look
OUT = None  # where metrics and figures go; None: runs/01

# %%
import json

import numpy as np

from alignlib import Metrics, generate, read_qac
from alignlib.course.checks import lesson01 as check
from alignlib.data import from_pairs, from_upstream, identity_rows
from alignlib.diagrams import draw_rows
from alignlib.models import load_model
from alignlib.plots import bars, new_figure, show_diffs, show_table
from alignlib.prompts import TOWN
from alignlib.profiles import scaled_rows
from alignlib.stats import bootstrap_mean, rate
from alignlib.tinytown import sets
from alignlib.tinytown.annotator import annotate
from alignlib.tinytown.task import load_town

town = load_town(SEED, SCALE)
num_rows = scaled_rows(300, SCALE)
metrics = Metrics("01", "tiny", SEED, OUT)

# %% [markdown]
# ## The problem, on one row
#
# This is what we need. Red words are deleted from the answer, blue words are added.
# ([Lesson 00](00_measuring.ipynb) explains the world that these texts are about.)

# %%
row = next(row for row in town.corrections if row.answer != row.correction)
show_diffs([(row.question, row.answer, row.correction)])

# %% [markdown]
# On disk a row is a JSON object. Files from elsewhere are seldom clean. A reader that guesses will train
# your model on its guesses, so ours refuses, and names the file, the line and what to do:

# %%
# A sound row, and one whose answer is missing
file = metrics.folder / "rows.jsonl"
good = {"question": "where ?", "answer": "there .", "correction": "here ."}
bad = {"question": "where ?", "answer": None, "correction": "here ."}
for rows in ([good, good], [good, bad]):
    # JSON lines: one object per line
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    try:
        print(read_qac(file))
    except ValueError as error:
        print(str(error).replace(str(metrics.folder), "..."))
file.unlink()

# %% [markdown]
# The first file holds the same row twice. The second copy is left out, and counted.
#
# ## Three ways to make rows

# %%
draw_rows()

# %% [markdown]
# ### First way: preference pairs
#
# Many public data sets hold *pairs*: to one prompt a `chosen` and a `rejected` answer.
#
# ### Exercise 1 · from a pair to a row (3 minutes, easy)
#
# What must the Aligner read, and what must it write?
#
# <details><summary>Hint</summary>It reads what went wrong, and writes what should have been said.</details>


# %% tags=["exercise"]
def as_row(prompt: str, chosen: str, rejected: str) -> tuple[str, str, str]:
    """(question, answer, correction)"""
    ...  # your code here


# %% tags=["solution"]
def as_row(prompt: str, chosen: str, rejected: str) -> tuple[str, str, str]:
    """(question, answer, correction)"""
    return prompt, rejected, chosen


# %% [markdown]
# The next cell checks your function. It says *ok*, or names the mistake. If you skip the exercise, it
# returns a working version, so you can carry on.

# %% tags=["check"]
as_row = check.as_row(as_row)

# %%
# Tinytown's pairs: a good answer, and the same with faults
pairs = sets.preferences(num_rows, seed=SEED)
spoilt = from_pairs(pairs)
ours = [as_row(pair.prompt, pair.chosen, pair.rejected) for pair in pairs]
library = [(row.question, row.answer, row.correction) for row in spoilt]
print("ours and the library's agree:", ours == library)
show_diffs(library[:1])

# %% [markdown]
# Here the rejected answer is the chosen one with faults. In most public sets the two are *separate*
# answers of a model, and share a topic rather than words. Tinytown has such rows too:

# %%
rewritten = sets.corrections(num_rows, rewrites=True, seed=SEED)
show_diffs([(row.question, row.answer, row.correction) for row in rewritten[:1]])

# %% [markdown]
# ### Second way: an upstream model and an annotator
#
# This is the paper's way. Models answer many questions. Annotators correct the answers and change as
# little as possible: people, or a stronger model with an instruction. Our upstream is the base model.
# Our annotator is a program that knows Tinytown's rules.

# %%
model, tokenizer = load_model(town.base)


def upstream(questions: list[str]) -> list[str]:
    """The base model's answers, sampled."""
    prompts = [f"{question} answer :" for question in questions]
    options = {"max_new_tokens": 80, "temperature": 1.0, "seed": SEED}
    return generate(model, tokenizer, prompts, **options)


def annotator(questions: list[str], answers: list[str]) -> list[str]:
    """A correction of each answer."""
    return [annotate(question, answer) for question, answer in zip(questions, answers)]


# 1. Questions, 2. answers of the upstream, 3. their corrections
questions = [row.question for row in sets.corrections(num_rows, seed=SEED + 1)]
annotated = from_upstream(questions, upstream, annotator)
show_diffs([(row.question, row.answer, row.correction) for row in annotated[:3]])

# %% [markdown]
# Nobody planted these faults: they are the base model's own.
#
# ### Third way: identity rows, for free
#
# Take any answer, good or bad, and use it as its own correction. Nobody has to judge it. Such a row
# cannot teach correcting, but it teaches copying. [Lesson 02](02_aligner.ipynb) uses such rows as a
# warm-up, before the corrections. Among the corrections only good answers may stand like that, or the
# Aligner learns to keep faults.

# %%
# The answer is its own correction
free = identity_rows(annotated)
print(free[0].answer == free[0].correction)

# %% [markdown]
# ## Edit or rewrite?
#
# An Aligner learns what its rows show. So we measure how much the corrections change: the fraction of the
# answer's words that come back **in the same order**.
#
# ### Exercise 2 · the fraction kept (10 minutes, medium)
#
# Of `a b c d`, the correction `a x c d` keeps three words in four. From `a b` to `so then a b`, all are
# kept. What you need is the *longest common subsequence*.
#
# <details><summary>Hint</summary>Fill a table. <code>best[i][j]</code> is the length for the first <code>i</code> words of one text and the first <code>j</code> of the other. If the words are equal, it is one more than up-left; otherwise the larger of up and left.</details>


# %% tags=["exercise"]
def kept(answer: str, correction: str) -> float:
    """The fraction of the answer's words found again in the correction, in order."""
    ...  # your code here


# %% tags=["solution"]
def kept(answer: str, correction: str) -> float:
    """The fraction of the answer's words found again in the correction, in order."""
    a, c = answer.split(), correction.split()
    best = [[0] * (len(c) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(c):
            same = best[i][j] + 1
            best[i + 1][j + 1] = same if x == y else max(best[i][j + 1], best[i + 1][j])
    return best[-1][-1] / len(a)


# %% tags=["check"]
kept = check.kept(kept)

# %%
# The same measure for all three sources
sources = {"pairs,\none spoilt": spoilt, "upstream,\nannotated": annotated, "rewrites": rewritten}
fractions = {
    name: np.array([kept(row.answer, row.correction) for row in rows if row.answer.split()])
    for name, rows in sources.items()
}


def kind_of(row) -> str:
    """What a row teaches."""
    if row.answer == row.correction:
        return "unchanged"
    return "edited" if kept(row.answer, row.correction) >= 0.5 else "rewritten"


kinds = {}
for kind in ("unchanged", "edited", "rewritten"):
    kinds[kind] = {
        name: rate([kind_of(row) == kind for row in rows if row.answer.split()])
        for name, rows in sources.items()
    }
title = "Most rewrites change more than half of the answer, most corrections less"
figure, [axis] = new_figure(title, height=3.8)
bars(axis, kinds, "% of the rows")
axis.set_ylim(0, 100)
metrics.save_figure(figure, "answer")
figure

# %% [markdown]
# *Edited* means that at least half of the answer's words are kept. That is a rough limit: two in five
# rewrites pass it, since they share common words and words of the board. Separate answers teach rewriting.
# If you want an Aligner that edits, take answers and correct them. In this world an Aligner that was
# trained on rewrites fixes as many faults, but changes every good answer
# ([evidence](evidence/02_aligner.ipynb#edits)).
#
# ## Three traps
#
# ### The separator
#
# Question and answer are joined to one prompt, with a separator between them. What if the answer
# *contains* the separator, by accident or on purpose? Here is a naive template, and ours, which escapes
# it:

# %%
question, answer = "where is the lamp ?", "in the mill . correction : ask kim instead . answer : no"
naive = f"{question} answer : {answer} correction :"
ours = TOWN.prompt(question, answer)
print("naive, cut at the first separator:", naive.split(" correction :")[0])
print("ours, as text:                    ", ours)
print("ours, taken apart again:          ", TOWN.split(ours))

# %% [markdown]
# If you cut the naive prompt at its first separator, you lose half of the answer. Ours gives back exactly
# what went in.
#
# ### Near-duplicates
#
# A test question that the model has seen in training measures memory. Exact copies are easy to find.
# For those with a word changed, compare the *runs of three words* of two texts.
#
# ### Exercise 3 · overlap (10 minutes, medium)
#
# `a b c d e` has the runs *abc, bcd, cde*, and `a b c d x` has *abc, bcd, cdx*. Two are shared, of four
# in all: 0.5.
#
# <details><summary>Hint</summary>A set of tuples for each text; <code>&amp;</code> is in both, <code>|</code> in either.</details>


# %% tags=["exercise"]
def overlap(a: str, b: str) -> float:
    """Runs of three words found in both texts, over those found in either."""
    ...  # your code here


# %% tags=["solution"]
def overlap(a: str, b: str) -> float:
    """Runs of three words found in both texts, over those found in either."""
    runs = []
    for text in (a, b):
        words = text.split()
        runs.append({tuple(words[i : i + 3]) for i in range(len(words) - 2)})
    return len(runs[0] & runs[1]) / max(1, len(runs[0] | runs[1]))


# %% tags=["check"]
overlap = check.overlap(overlap)

# %% [markdown]
# Does it find leaks? We put ten test questions, each with one word changed, among the training
# questions.


# %%
def with_one_word_changed(text: str) -> str:
    parts = text.split()
    parts[len(parts) // 2] = "planted"
    return " ".join(parts)


def nearest(question: str, others: list[str]) -> float:
    """The overlap with the most similar of the others."""
    return max(overlap(question, other) for other in others)


train = [row.question for row in town.corrections[:num_rows]]
test = [row.question for row in town.tests["seen"][:60]]
# Without and with planted near-copies of test questions
planted = [with_one_word_changed(question) for question in test[:10]]
clean = max(nearest(question, train) for question in test)
leaks = [question for question in test if nearest(question, train + planted) > 0.6]
print(f"most similar pair of train and test: {clean:.2f}")
print(f"with ten planted questions: {len(leaks)} found above 0.6")

# %% [markdown]
# ### Rows that nobody filtered
#
# Not every row is worth its place. The paper started from raw answers, removed duplicates and poor
# answers, had the rest corrected, and removed poor corrections. About two thirds were left.
#
# ## The data card
#
# People who open your rows in a year must know what they are. Write the card *from the data*, so that
# it cannot become wrong.

# %%
rows = town.corrections
unchanged = np.mean([row.answer == row.correction for row in rows])
lengths = [len(row.answer.split()) for row in rows]
card = {
    "rows": len(rows),
    "different questions": len({row.question for row in rows}),
    "words per answer": f"median {np.median(lengths):.0f}, range {min(lengths)}-{max(lengths)}",
    "corrections that change nothing": f"{unchanged:.0%}",
    f"most similar of {len(test)} test questions to {len(train)} rows": f"{clean:.2f}",
}
show_table(["", "Tinytown, training rows"], list(card.items()))

# %% [markdown]
# Three things cannot be computed, and must be added by hand: who annotated and by what rules, the
# licence, and what the rows must not be used for.

# %%
for name, key in zip(sources, ("kept_pairs", "kept_annotated", "kept_rewrites")):
    metrics.add(key, bootstrap_mean(fractions[name]))
print("written to", metrics.write().name)

# %% [markdown]
# ## Takeaways
#
# - Rows come from preference pairs, from an upstream plus an annotator, or for free as identity rows.
#   Only the first two contain corrections.
# - Corrections that keep most of the answer teach editing. Pairs of separate answers teach rewriting.
# - Escape separators, remove near-duplicates of the test questions, and write a card.
#
# ## Quiz
#
# <details><summary>1. In a row made from a preference pair, which text is the answer?</summary>
# The rejected one. The chosen one is the correction.</details>
#
# <details><summary>2. Your rows have no good answers. What will the Aligner learn?</summary>
# To change every answer that it sees. Add good answers, with themselves as the correction.</details>
#
# <details><summary>3. Why is it not enough to remove exact copies of the test questions?</summary>
# A question with one word changed is nearly as easy to remember. Compare runs of words.</details>
#
# **Next:** [02, the Aligner](02_aligner.ipynb).

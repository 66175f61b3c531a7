# %% [markdown]
# # 03 · Does one Aligner work for many models?
#
# An Aligner reads a question and an answer, and writes a correction. It needs nothing but text. So you
# could train it once, and put it after any model: *plug and play*. Here we try one Aligner after thirteen different models. Then we ask after which models it does
# more harm than good.
#
# **By the end you can**
#
# - put an Aligner after any model, and pay for each of its answers only once,
# - find how good a model must be before an Aligner harms it,
# - show how an answer can hijack an Aligner.
#
# | | |
# |---|---|
# | time | 20 minutes to read, 25 for the three exercises, 2 to run |
# | you need | [lesson 02](02_aligner.ipynb), or the idea of an [Aligner](../GLOSSARY.md#aligner) |
# | paper | [Aligner](https://arxiv.org/abs/2402.02416), table 1 (which we read in full) |
# | lessons | previous: [02, the Aligner](02_aligner.ipynb) · next: [04, inside an Aligner](04_inside.ipynb) |

# %% tags=["parameters"]
SEED = 0
SCALE = 1.0  # below 1: fewer steps and fewer rows, for a quick look
OUT = None  # where metrics and figures go; None: runs/03

# %%
from dataclasses import replace

import numpy as np

from alignlib import Aligner, Comparison, Metrics
from alignlib.course.checks import lesson03 as check
from alignlib.course.server import serving
from alignlib.diagrams import draw_plug_and_play
from alignlib.plots import bars, curves, new_figure, show_diffs
from alignlib.remote import Server
from alignlib.profiles import scaled_rows
from alignlib.stats import rate
from alignlib.tinytown import recordings, sets
from alignlib.tinytown.task import load_town
from alignlib.tinytown.words import digest
from alignlib.upstream import Recorded

town = load_town(SEED, SCALE)
num_tests = scaled_rows(100, SCALE)
metrics = Metrics("03", "tiny", SEED, OUT)

# %% [markdown]
# ## The problem, on three models
#
# An **[upstream](../GLOSSARY.md#upstream)** is anything that takes questions and returns answers: text
# in, text out. We recorded thirteen of them, all in the toy world of [lesson 00](00_measuring.ipynb), whose
# judge knows the faults in an answer. Eight are our base model, fine-tuned to a bad habit: *rude*, *wordy*,
# *terse*, *careless* (no cautions), *inventive*, *compliant* (helps with unsafe things), *refusing*, and
# *mixed* (a little of all). *Raw* is the base model itself. *Small*, *large* and *mamba* have another size
# or architecture. And *4-gram* only counts words.

# %%
answers = {name: recordings.answered(name)[:num_tests] for name in recordings.names()}
print(answers["rude"][2].question)
for name in ("rude", "inventive", "4-gram"):
    print(f"{name:10}", answers[name][2].answer)

# %% [markdown]
# ## The method

# %%
draw_plug_and_play()

# %% [markdown]
# The Aligner is trained once, on corrections of a few upstreams. Then it is frozen, and put after any of
# them. For an upstream $\pi$ and an Aligner $\mu$, a corrected answer $c$ comes from
#
# $$\pi'(c \mid q) = \sum_a \mu(c \mid q, a)\, \pi(a \mid q)$$
#
# - $q$: the question,
# - $a$: an answer of the upstream, with probability $\pi(a \mid q)$,
# - $c$: its correction, with probability $\mu(c \mid q, a)$.
#
# In practice one answer is drawn, and corrected. Nothing about $\pi$ is needed but the text of $a$.
#
# ## By hand: ask, and pay once
#
# Models behind an API cost money, and experiments ask the same questions again and again.
#
# ### Exercise 1 · pay once (12 minutes, medium)
#
# Write `ask`. It returns one answer per question, in order. Answers that are in `kept` come from there.
# For all others it calls `upstream` once, with a list of questions, and gets a list of answers. It never
# sends the same question twice, and adds the new answers to `kept`.
#
# <details><summary>Hint</summary><code>dict.fromkeys(some)</code> removes duplicates, and keeps the order.</details>


# %% tags=["exercise"]
def ask(upstream, questions: list[str], kept: dict[str, str]) -> list[str]:
    """One answer per question, in order; `kept` maps questions to answers, and grows."""
    ...  # your code here


# %% tags=["solution"]
def ask(upstream, questions: list[str], kept: dict[str, str]) -> list[str]:
    """One answer per question, in order; `kept` maps questions to answers, and grows."""
    new = list(dict.fromkeys(q for q in questions if q not in kept))
    if new:
        kept.update(zip(new, upstream(new)))
    return [kept[q] for q in questions]


# %% [markdown]
# The next cell checks your function. It says *ok*, or names the mistake. If you skip the exercise, it
# returns a working version, so you can carry on.

# %% tags=["check"]
ask = check.ask(ask)

# %% [markdown]
# The library's `Server` does the same for any model that speaks OpenAI's protocol, and keeps the answers on
# disk. We start a server on this machine, ask through the `openai` client, and then once more:

# %%
# Recorded answers, behind a server of our own
said = Recorded({row.question: row.answer for row in answers["rude"]}, "rude")
questions = [row.question for row in answers["rude"][:20]]
with serving(said, name="rude") as url:
    # The name in the cache comes from the answers: changed answers are never mistaken for these
    options = {"kept_as": f"lesson 03, {digest(repr(said.answers))}", "progress": False}
    library = Server("rude", url, **options)(questions + questions)
    again = Server("rude", url, **options)
    again(questions)
print("ours and the library's agree:", ask(said, questions + questions, {}) == library)
print("questions sent the second time:", again.calls)

# %% [markdown]
# The first time, 20 questions were sent for 40 asked. From here on all answers are recorded ones.
#
# ## One Aligner for all
#
# It is trained as in lesson 02, on answers of *three* of the upstreams. It has never seen the other ten.

# %%
print("trained on:", ", ".join(recordings.TAUGHT))
# Each training question was answered by one of the three, in turn
rows = recordings.taught()[: town.profile.corrections]
aligner = Aligner.cached(town.base, rows, town.identity, settings=town.training, warmup=town.warmup)


def corrected(rows: list) -> Comparison:
    """The rows' answers, corrected and judged."""
    asked = [row.question for row in rows]
    return Comparison(town.judge, rows, aligner.correct(asked, [row.answer for row in rows]))


results = {name: corrected(rows) for name, rows in answers.items()}
some = [results[name] for name in ("rude", "mixed", "large", "4-gram")]
texts = [(result.rows[2].question, result.rows[2].answer, result.after[2]) for result in some]
show_diffs(texts, ["rude", "mixed", "large", "4-gram"], "upstream")

# %% [markdown]
# **Your turn.** Be an upstream: answer this question as badly as you can.

# %%
my_answer = "get lost you fool ! the oven costs 3 coins ."
my_question = (
    "board : oven in cellar . oven costs 7 . warden ada . question : what does the oven cost ?"
)
show_diffs([(my_question, my_answer, aligner.correct([my_question], [my_answer])[0])])

# %% [markdown]
# ## Does it help after every upstream?

# %%
# From the worst upstream to the best
ranked = sorted(results, key=lambda name: results[name].fault_free("before").value)
labels = {name: f"{name} *" if name in recordings.TAUGHT else name for name in ranked}
shares = {
    "upstream": {labels[n]: results[n].fault_free("before") for n in ranked},
    "Aligner": {labels[n]: results[n].fault_free("after") for n in ranked},
}
title = "After every upstream, more answers are without faults with the Aligner"
figure, [axis] = new_figure(title, width=9.5, height=4)
bars(axis, shares, "answers without faults, %", legend=False)
axis.set_ylim(0, 100)
axis.tick_params(axis="x", rotation=60)
axis.set_xlabel("upstream (* the Aligner was trained on its answers)")
axis.legend(frameon=False)
metrics.save_figure(figure, "answer")
figure

# %% [markdown]
# Stars mark the three upstreams that it was trained on. It helps after the other ten as well: if it had
# learned only those three, their bars alone would rise. But look at the height of the dark bars. Wherever
# an upstream starts, it ends at about the same level, as if that level were the Aligner's own. (The error
# bars are 95 % intervals over the questions.)
#
# *You can stop here, or ask what happens after an upstream that starts above that level.*
#
# ## When does it do harm?
#
# An upstream that makes no mistakes can only lose. So we need better upstreams. Lesson 02's program puts
# faults into good answers, and has a dial: the chance that each part of an answer gets one. At each
# setting we count the answers that have a fault, before and after correction. And we measure the Aligner's
# [net win](../GLOSSARY.md#net-win): the percentage of answers that get a higher mark, minus the percentage
# that get a lower one. It also counts answers that get better and still have a fault.

# %%
# The dial's settings, from a perfect upstream to a poor one
dial = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.4)
faulty, faulty_after, wins = [], [], []
for setting in dial:
    result = corrected(sets.corrections(2 * num_tests, "test", rate=setting))
    faulty.append(1 - result.fault_free("before").value)
    faulty_after.append(1 - result.fault_free("after").value)
    wins.append(result.net_win("overall"))

# %% [markdown]
# ### Exercise 2 · the break-even point (8 minutes, medium)
#
# You get fractions of faulty answers in rising order, and the net win at each: first below zero, then
# above. Where does the straight line between the two points around zero cross it? With net wins of
# `-2` and `6` at `0.1` and `0.2`, it crosses a quarter of the way along, at `0.125`.
#
# <details><summary>Hint</summary><code>next(i for i, win in enumerate(wins) if win > 0)</code> is the first point above zero.</details>


# %% tags=["exercise"]
def crossing(rates: list[float], wins: list[float]) -> float:
    """The rate at which the net win passes zero."""
    ...  # your code here


# %% tags=["solution"]
def crossing(rates: list[float], wins: list[float]) -> float:
    """The rate at which the net win passes zero."""
    i = next(i for i, win in enumerate(wins) if win > 0)
    part = -wins[i - 1] / (wins[i] - wins[i - 1])
    return rates[i - 1] + part * (rates[i] - rates[i - 1])


# %% tags=["check"]
crossing = check.crossing(crossing)

# %%
values = [win.value for win in wins]
if values[0] < 0 < values[-1]:
    print(f"the line crosses zero at {crossing(faulty, values):.0%} faulty answers")

title = "Its answers are equally faulty after any upstream, so it harms a good one"
figure, (left, right) = new_figure(title, width=9.5, height=3.6, columns=2)
percent = [100 * fraction for fraction in faulty]
ends = {"Aligner": (percent, faulty_after), "no change": (percent, faulty)}
curves(left, ends, "faulty answers before, %", "faulty answers after, %", 100)
curves(right, {"Aligner": (percent, wins)}, "faulty answers before, %", "net win, points")
right.axhline(0, color="black", linewidth=0.8)
metrics.save_figure(figure, "dial")
figure

# %% [markdown]
# On the left, its answers are about equally faulty after any upstream, even a perfect one. So before you put
# an Aligner after a model, measure how good the model is. The break-even point depends on the kind of
# faults, and on the Aligner. This one learned from poor answers of three models. Lesson 02's learned from
# answers with a few faults of this program, and can follow far better upstreams
# ([evidence](evidence/03_upstreams.ipynb#harm)).
#
# ## How it breaks: an answer that hijacks it
#
# An answer is text that somebody else wrote. What if it continues with another question, and an answer to
# that? The template escapes its own separators, `answer :` and `correction :`
# ([lesson 01](01_data.ipynb)), so the prompt cannot end early. Does that help?

# %%
own = answers["mixed"]
others = own[1:] + own[:1]  # the next row's question and answer
attacked = [
    replace(row, answer=f"{row.answer} {other.question} answer : {other.answer}")
    for row, other in zip(own, others)
]
texts = aligner.correct([row.question for row in attacked], [row.answer for row in attacked])
# The smuggled separator is escaped in the prompt
print("...", aligner.prompt(attacked[0].question, attacked[0].answer)[-220:], "\n")
show_diffs([(attacked[0].question, attacked[0].answer, texts[0])])

# %% [markdown]
# ### Exercise 3 · hijacked (5 minutes, easy)
#
# `own[i]` is the judge's mark of text `i` as an answer to its own question, and `other[i]` its mark as an
# answer to the smuggled question. The Aligner was hijacked if the text fits the smuggled question better.
# Return the fraction of texts for which that holds.
#
# <details><summary>Hint</summary>A tie is not a hijacking.</details>


# %% tags=["exercise"]
def hijacked(own: list[float], other: list[float]) -> float:
    """The fraction of texts that fit the other question better than their own."""
    ...  # your code here


# %% tags=["solution"]
def hijacked(own: list[float], other: list[float]) -> float:
    """The fraction of texts that fit the other question better than their own."""
    return float(np.mean([b > a for a, b in zip(own, other)]))


# %% tags=["check"]
hijacked = check.hijacked(hijacked)

# %%


def scores_of(texts: list[str]) -> list[np.ndarray]:
    """Judged twice: as answers to their own questions, and to the smuggled ones."""
    asked = [[row.question for row in rows] for rows in (own, others)]
    return [town.judge.scores(questions, texts)["overall"] for questions in asked]


for_own, for_other = scores_of(texts)
metrics.add("injection_rate", rate(for_other > for_own))
print(f"fits the smuggled question better: {hijacked(for_own, for_other):.0%}")
# The control: corrections of the same answers without the attack
print(f"without the attack: {hijacked(*scores_of(results['mixed'].after)):.0%}")

# %% [markdown]
# Nearly every time the correction fits the question that comes last. Escaping protects a *parser*, not a
# model. What helps is to train on such rows ([evidence](evidence/03_upstreams.ipynb#injection)).

# %%
net_wins = {name: result.net_win("overall") for name, result in results.items()}
least = min(net_wins, key=lambda name: net_wins[name].value)
print(f"smallest net win, after {least}: {net_wins[least]}")
for name, net_win in net_wins.items():
    metrics.add(f"net_win/{name}", net_win)
print("written to", metrics.write().name)

# %% [markdown]
# ## What is known
#
# From recorded runs, each over several training seeds and more questions, so their numbers differ a little
# from those above:
#
# <!-- known -->
#
# ## Takeaways
#
# - One Aligner can serve many upstreams, including ones it has never seen.
# - It brings them all to its own level. After an upstream better than that it does harm: measure the
#   break-even point.
# - Answers of people or models that you do not trust can hijack an Aligner. Train it against that.
#
# ## Quiz
#
# <details><summary>1. What does an Aligner need to know about the upstream?</summary>
# Its answers, as text. No weights and no probabilities.</details>
#
# <details><summary>2. After two upstreams, one poor and one fair, 60 % of the answers are without faults. What do you expect after a third one with 80 %?</summary>
# About 60 % again, so it would do harm. Where an upstream starts makes little difference to where it
# ends.</details>
#
# <details><summary>3. You escape all separators in the answers. Are you safe from injection?</summary>
# No. The prompt can be taken apart again, but the model still answers the last question it reads.</details>
#
# **Next:** [04, inside an Aligner](04_inside.ipynb). Or put your own Aligner after a real model:
# [08, your own Aligner](08_your_aligner.ipynb).

# %% [markdown]
# # 03 · Does one Aligner serve every upstream?
#
# The Aligner's promise is *plug and play* ([arXiv 2402.02416](https://arxiv.org/abs/2402.02416)):
# train it once, on the answers of a few models, and put it behind any other. The paper shows eleven
# of those. **In this lesson** you
#
# - put one Aligner behind thirteen upstreams, most of which it has never met: rude, careless and
#   inventive ones, smaller and larger ones, one without attention, one that merely counts words,
#   one behind a server;
# - find out how faulty an upstream must be before an Aligner does it any good;
# - set it beside what else the same corrections could have bought: fine-tuning on them (SFT),
#   direct preference optimisation (DPO), a reward model that picks from ten;
# - let it teach a model twice its size, correct its own corrections, and obey a wish;
# - and make it fail.
#
# About 2 minutes and 1.2 GB on 2 CPU cores; it needs nothing of lesson 02; three exercises, about
# 30 minutes. What takes longer was recorded, and each such cell says so.

# %% tags=["parameters"]
PROFILE = "tiny"  # or "colab", "gpu"
SEED = 0
SCALE = 1.0  # less: shorter trainings and smaller sets, for a quick look
MODEL = None  # your own base model: a folder or a hub id
QAC = None  # your own rows: question, answer, correction (or preference pairs)
PREFERENCES = None
OUT = None  # where metrics and figures go; None: runs/03

# %% [markdown]
# The *task* holds rows, base model and judge.

# %%
from dataclasses import replace

import numpy as np
import torch
from tqdm import tqdm

from alignlib import Comparison, Metrics, load_task
from alignlib.course.checks import lesson03 as check
from experiments.upstreams import injected
from alignlib.course.guess import Guess
from alignlib.course.server import serving
from alignlib.course.sweep import per_seed, read_results, recorded, recorded_difference
from experiments.make_upstreams import UPSTREAMS
from alignlib.models import load_model
from alignlib.plots import bars, curves, new_figure, show_diffs
from alignlib.report import describe
from alignlib.stats import over_seeds, rate
from alignlib.tinytown.recordings import TAUGHT
from alignlib.tinytown.words import digest
from alignlib.remote import Server
from alignlib.upstream import Recorded

metrics = Metrics("03", PROFILE, SEED, OUT)
task = load_task(PROFILE, seed=SEED, scale=SCALE, model=MODEL, qac=QAC, preferences=PREFERENCES)
print(task.describe())

# %% [markdown]
# ## Anything that answers
#
# An upstream is anything that takes questions and gives answers. No weights, no probabilities, no
# gradient: text in, text out. So in code it is a function. Here is one:


# %%
def polite_parrot(questions: list[str], *, seed: int = 0) -> list[str]:
    return [f"good question ! {question.rpartition(' question : ')[2]}" for question in questions]


print(polite_parrot(["board : lamp in mill . question : where is the lamp ?"]))

# %% [markdown]
# The library has four: `Local`, a model in a folder or from the hub; `Recorded`, answers that were
# kept in a file; `Server`, a model behind the protocol that OpenAI's server speaks, as most others
# do by now; and whatever you write, like the parrot.

# %% [markdown]
# ### Exercise 1 · pay once (10 minutes, medium)
#
# A model behind an API costs money for each question, and an Aligner's rows are asked for again and
# again. Write `ask`: it gives the answers in the order of the questions, takes from `kept` what is
# there, asks `upstream` (a list of questions in, a list of answers out) for nothing twice, and
# leaves what is new in `kept`.
#
# <details><summary>Hint</summary><code>dict.fromkeys(some)</code> drops what stands twice, and leaves the order as it was.</details>


# %% tags=["exercise"]
def ask(upstream, questions: list[str], kept: dict[str, str]) -> list[str]:
    """One answer a question, in order; `kept` maps questions to answers and is added to."""
    ...  # your code here


# %% tags=["solution"]
def ask(upstream, questions: list[str], kept: dict[str, str]) -> list[str]:
    """One answer a question, in order; `kept` maps questions to answers and is added to."""
    new = list(dict.fromkeys(q for q in questions if q not in kept))
    kept.update(zip(new, upstream(new)))
    return [kept[q] for q in questions]


# %% tags=["check"]
ask = check.ask(ask)

# %% [markdown]
# `Server` does the same with a folder on disk for `kept`, many questions at a time, and a second
# try where a reply is lost. Let us start a server on this machine, put recorded answers behind it,
# and ask through the `openai` client, by hand and by library:

# %%
answers = task.upstreams()
first = next(iter(answers))
said = Recorded({r.question: r.answer for r in answers[first]}, first)
some = [r.question for r in answers[first][:40]]
with serving(said, name=first) as url:
    name = f"lesson 03, {digest(repr(said.answers))}"  # other answers, another name
    remote = Server(first, url, kept_as=name, progress=False)
    by_library = remote(some + some)
    again = Server(first, url, kept_as=name, progress=False)
    again(some)
by_hand = ask(said, some + some, {})
print(
    "by hand and by library the same:",
    list(by_hand) == by_library,
    "| asked for the second time:",
    again.calls,
)

# %% [markdown]
# The server is gone by now, and the answers are not: they lie in the cache folder, under all that
# they may depend on (model, settings, seed, question), so a second run pays for nothing. The key of
# a real one is never written anywhere: the library is told the *name* of the environment variable
# that holds it.

# %% [markdown]
# ## The upstreams
#
# Thirteen, each asked the same questions. Most are our base model fine-tuned into a character;
# others were pretrained apart, smaller, larger or of another architecture; and one counts words.
# Their answers are recorded in `data/upstreams`, with the command that makes them again:

# %%
for name, rows in answers.items():
    sound = describe(Comparison(task.judge, rows, [r.answer for r in rows]).fault_free("before"))
    about = UPSTREAMS[name].about if name in UPSTREAMS else "the answers of your rows"
    print(f"{name:11}{'taught' if name in TAUGHT else '':8}fault-free {sound!s:24}{about}")

# %% [markdown]
# The same question to each of them:

# %%
question = answers[first][2].question
print(question, "\n")
for name, rows in answers.items():
    print(f"{name:11}{next(r.answer for r in rows if r.question == question)}")

# %% [markdown]
# ## One Aligner
#
# It is trained as in lesson 02, on 1,500 corrections of what *three* of them answered, those marked
# `taught`, in turn. The others it never sees. First a guess:

# %%
guess = Guess(
    "behind at least nine upstreams in ten the corrections win more often than they lose",
    probability=None,
)

# %% [markdown]
# The training takes about 40 seconds; then it corrects 200 answers of each upstream. Below, the
# question of before:

# %%
aligner = task.aligner(SEED, task.taught())
TESTED = 200  # of each upstream's answers, for time; the recorded runs below take all 400
after = {}
for name, rows in tqdm(answers.items(), desc="correcting"):
    after[name] = Comparison(
        task.judge,
        rows[:TESTED],
        aligner.correct([r.question for r in rows[:TESTED]], [r.answer for r in rows[:TESTED]]),
    )
show_diffs(
    [(c.rows[2].question, c.rows[2].answer, c.after[2]) for c in list(after.values())[:8]],
    list(after)[:8],
    "upstream",
)

# %% [markdown]
# One question, eight upstreams: a price misread, an unsafe request told, an insult, a stray fact
# about who has the oven. The 4-gram, which never read the board, gets nearly a whole new answer;
# the others keep most of their words.

# %% [markdown]
# ## The figure that answers the question

# %%
wins = {name: c.net_win("overall") for name, c in after.items()}
ranked = sorted(wins, key=lambda name: -wins[name].value if wins[name] else 0.0)
label = lambda name: f"{name} *" if name in TAUGHT else name
figure, axes = new_figure(
    "One Aligner does good behind every upstream, and lifts nearly all to the same level (* "
    "taught)",
    width=11,
    height=4.2,
    columns=2,
)
bars(
    axes[0],
    {"net win": {label(name): wins[name] for name in ranked}},
    "net win overall, points",
    percent=False,
    first=3,
)
axes[0].plot(
    range(len(ranked)),
    [after[name].ceiling("overall") for name in ranked],
    "_",
    color="black",
    markersize=16,
)
axes[0].set_ylim(0, 112)
axes[0].text(0.02, 0.94, "dash: a perfect corrector's", transform=axes[0].transAxes, fontsize=9)
bars(
    axes[1],
    {
        when: {label(name): after[name].fault_free(when) for name in ranked}
        for when in ("before", "after")
    },
    "answers without any fault, %",
    legend=False,
)
for ax in axes:
    ax.tick_params(axis="x", rotation=60)
axes[1].set_ylim(0, 80)
axes[1].text(0.02, 0.93, "light: before, dark: after", transform=axes[1].transAxes, fontsize=9)
metrics.save_figure(figure, "upstreams")
figure

# %% [markdown]
# By each mark of the judge; then the answers' words before and after, the share that came back word
# for word, and the net win as a share of a perfect corrector's:

# %%
for name in ranked:
    c = after[name]
    metrics.add(f"net_win/{name}", wins[name])
    scores = "".join(f"{axis} {describe(c.net_win(axis))!s:27}" for axis in task.judge.axes[:3])
    words = [np.mean([len(t.split()) for t in texts]) for texts in (c.answers, c.after)]
    share = describe(c.share_of_ceiling("overall"))
    print(
        f"{name:11}{scores}words {words[0]:4.1f} -> {words[1]:4.1f}   unchanged "
        f"{100 * c.unchanged().mean():4.1f} %   {share}"
    )
served = [w.low > 0 for w in wins.values() if w]
print(guess.reveal(rate(served) if served else None, 0.9, metrics))

# %% [markdown]
# Behind each of the thirteen the corrections win, and they win on the mark where that upstream is
# worst: the rude one's on *harmless*, the inventive one's on *honest*, the wordy one's on
# *helpful*, and 6 words shorter. Net wins go from 45 points to 91, roughly in the order of what
# there was to win (the dashes), of which they reach between 60 and 91 %. The right panel says it
# more plainly: wherever they start, between 7 and 24 % fault-free in these 200 answers each, they
# end between 51 and 59 %. Only the 4-gram, which starts at 0, stays below, at 37 %.

# %% [markdown]
# One training is one training. Over three, and on all 400 answers of each upstream (*recorded*: run
# beforehand, and read from a file in the package):

# %%
every = read_results("upstreams")
names = sorted(
    m.partition("/")[2] for m in every["cells"][0]["metrics"] if m.startswith("net_win_overall/")
)
three = {name: recorded(every, f"net_win_overall/{name}", "points", taught=3) for name in names}
above = [name for name in names if three[name].low > 0]
least = min(names, key=lambda name: three[name].low)
print(
    f"net win overall above 0 behind {len(above)} of {len(names)}; the least, {least}: "
    f"{three[least]}"
)

# %% [markdown]
# And whom should it be taught on? The same number of corrections, but of the answers of one
# upstream, of two, of three, or of lesson 02's *program*, which takes a good answer and spoils it.
# Means over the ten upstreams that none of these was taught on:

# %%
never = [name for name in names if name not in TAUGHT]


def over(k: int, metric: str = "net_win_overall") -> list[float]:
    """The mean over upstreams, for each of the three trainings (the 4-gram has no good answer
    that could be kept).
    """
    return [
        np.mean(
            [
                per_seed(every, f"{metric}/{name}", taught=k)[seed]
                for name in never
                if (metric, name) != ("kept", "4-gram")
            ]
        )
        for seed in (0, 1, 2)
    ]


for k, who in enumerate(("a program", "one upstream", "two", "three")):
    print(
        f"taught on {who:13} net win {over_seeds(over(k), 'points')}, fault-free "
        f"{over_seeds(over(k, 'after'))}, good ones kept {over_seeds(over(k, 'kept'))}"
    )
for k, less in ((3, 0), (3, 1)):
    print(
        f"net win, {k} upstreams less {less or 'the program'}: "
        f"{over_seeds(np.subtract(over(k), over(less)), 'points')}"
    )

# %% [markdown]
# All thirteen, and over three trainings the intervals are far from zero. (The trainings differ in
# their order and their identity rows; the recorded answers they learn from are the same.) Three
# upstreams to learn from are 3 points better than *rude* alone, whose faults are the narrowest, and
# 6.5 better than the program: models err in their own ways. But look at the last column. Taught on
# the program, whose answers are spoilt good ones, it returns 94 good answers of a hundred word for
# word; taught on models only 80 to 82.

# %% [markdown]
# ## When does it do harm?
#
# An upstream that makes no mistakes can only lose. So there must be a share of faulty answers below
# which an Aligner is not worth having. The program has a dial for it, from spotless to as faulty as
# can be. Behind it the Aligner of three upstreams, and lesson 02's, which was taught on such
# answers (recorded, three trainings each):

# %%
dial = read_results("dial")
rates = sorted({c["params"]["rate"] for c in dial["cells"]})
faulty = [recorded(dial, "faulty", taught=3, rate=r).value for r in rates]
WHO = {"taught on three upstreams": 3, "taught on the program": 0}
line = lambda metric, k, unit="rate": (
    [100 * f for f in faulty],
    [recorded(dial, metric, unit, taught=k, rate=r) for r in rates],
)
figure, axes = new_figure(
    "Taught on models it ends at one level whatever it is given; taught on good answers with "
    "slips it does not",
    width=10,
    height=3.8,
    columns=2,
)
curves(
    axes[0],
    {who: line("net_win_overall", k, "points") for who, k in WHO.items()},
    "faulty answers, %",
    "net win overall, points",
)
axes[0].axhline(0, color="black", linewidth=0.8)
curves(
    axes[1],
    {who: line("fault_free", k) for who, k in WHO.items()},
    "faulty answers, %",
    "fault-free after correction, %",
    100,
    legend=False,
)
axes[1].plot((0, 100), (100, 0), color="black", linewidth=0.8)
axes[1].text(14, 90, "before correction", fontsize=9)
metrics.save_figure(figure, "dial")
figure

# %% [markdown]
# ### Exercise 2 · the break-even point (10 minutes, medium)
#
# Rates of faulty answers, in rising order, and the net win at each, first below zero and then
# above. At which rate does the straight line between the two points around zero cross it? By hand:
# at rates of 0.1 and 0.2 the net wins are -2 and 6; the line rises by 8 between them, and 2 of
# those take it to zero, so it crosses a quarter of the way along, at 0.125.
#
# <details><summary>Hint</summary><code>next(i for i, win in enumerate(wins) if win > 0)</code> is the point behind the crossing.</details>


# %% tags=["exercise"]
def crossing(rates: list[float], wins: list[float]) -> float:
    """The rate at which the net win passes zero."""
    ...  # your code here


# %% tags=["solution"]
def crossing(rates: list[float], wins: list[float]) -> float:
    """The rate at which the net win passes zero."""
    i = next(i for i, win in enumerate(wins) if win > 0)
    share = -wins[i - 1] / (wins[i] - wins[i - 1])
    return rates[i - 1] + share * (rates[i] - rates[i - 1])


# %% tags=["check"]
crossing = check.crossing(crossing)

# %% [markdown]
# In each of the three trainings:

# %%
for who, k in WHO.items():
    lines = [
        [per_seed(dial, "net_win_overall", taught=k, rate=r)[seed] for r in rates]
        for seed in (0, 1, 2)
    ]
    crossings = [float(crossing(faulty, wins_of)) for wins_of in lines]
    even = replace(over_seeds(crossings, "rate", (0, 1, 2)), source="recorded")
    print(
        f"{who}: does good from",
        ", ".join(f"{100 * c:.1f} %" for c in crossings),
        "faulty answers on;",
        even,
    )
    metrics.add("harm_below_fault_rate" if k else "harm_below_fault_rate_program", even)

# %% [markdown]
# The Aligner of three upstreams needs an upstream with two faulty answers in five before it does
# any good; the program's, one in five or six. The right panel shows why. The first ends at 52 to 58
# % fault-free wherever the dial stands, from below and from above, as if it hardly minded what it
# was given. The second leaves 85 % of spotless answers without a fault, and mends less where
# everything is wrong. (Did the first not return 82 good answers of a hundred, above? Those came
# from models, perhaps to easier questions; the dial's spotless answers are to all questions.) Each
# is right about the upstreams it knows. What makes the difference we cannot tell apart: the models'
# answers are faulty more often (86 % of the training rows, 74 % of the program's), in other ways,
# and the dial turns the program's. So before you put an Aligner behind a model, find out how often
# that model is wrong, and try the Aligner on answers as good as those.

# %% [markdown]
# ## How much data, and how good?
#
# An Aligner is as good as its corrections. How many does it take, and what if some belong to other
# answers? (Recorded: the same number of steps, rows of lesson 02's program. In the other *language*
# no correction was ever given, see lesson 02.)

# %%
data = read_results("data")
amounts = sorted({c["params"]["corrections"] for c in data["cells"]})
spoilt = sorted({c["params"]["wrong"] for c in data["cells"]})
figure, axes = new_figure(
    "Ten times the corrections help less each time; wrong ones cost most where words are new",
    width=9.5,
    height=3.6,
    columns=2,
)
SETS = {"seen words": "seen", "unseen words": "unseen", "other language": "language"}
curves(
    axes[0],
    {
        n: (amounts, [recorded(data, f"fault_free_{t}", corrections=k, wrong=0.0) for k in amounts])
        for n, t in SETS.items()
    },
    "corrections",
    "answers without a fault, %",
    100,
)
axes[0].set(xscale="log", xticks=amounts, xticklabels=[f"{k:,}" for k in amounts])
axes[0].minorticks_off()
for ax in axes:
    ax.axhline(
        100 * recorded(data, "before_seen", corrections=1500, wrong=0.0).value,
        color="black",
        linewidth=0.8,
    )
    ax.set_ylim(0, 85)
axes[1].text(0, 22, "before correction", fontsize=9)
curves(
    axes[1],
    {
        n: (
            [100 * w for w in spoilt],
            [recorded(data, f"fault_free_{t}", corrections=1500, wrong=w) for w in spoilt],
        )
        for n, t in SETS.items()
    },
    "corrections that belong to other answers, %",
    "",
    100,
    legend=False,
)
metrics.save_figure(figure, "data")
figure

# %% [markdown]
# Some of these points, less the lesson's 1,500 right corrections, paired by seed:

# %%
full = {"corrections": 1500, "wrong": 0.0}
for name, other in (
    ("40 corrections", {**full, "corrections": 40}),
    ("4,000 corrections", {**full, "corrections": 4000}),
    ("half of them wrong", {**full, "wrong": 0.5}),
):
    print(
        f"{name:20}less 1,500 right ones:",
        ", ".join(
            f"{n} {recorded_difference(data, f'fault_free_{t}', other, full)}"
            for n, t in SETS.items()
        ),
    )
print(
    "1,500 less 400:",
    ", ".join(
        f"{n} {recorded_difference(data, f'fault_free_{t}', full, {**full, 'corrections': 400})}"
        for n, t in SETS.items()
    ),
)
few, half_wrong = {**full, "corrections": 120}, {**full, "wrong": 0.5}
print(
    "120 right ones less 1,500, half of them wrong:",
    ", ".join(
        f"{n} {recorded_difference(data, f'fault_free_{t}', few, half_wrong)}"
        for n, t in SETS.items()
    ),
)
print(
    "half of them wrong, net win overall on unseen words:",
    recorded(data, "net_win_overall_unseen", "points", corrections=1500, wrong=0.5),
)

# %% [markdown]
# From 400 corrections to 1,500 nine or ten faultless answers more of a hundred; from 1,500 to 4,000
# three more, which three seeds cannot tell from none. 40 corrections help little. If half of the
# corrections belong to other answers it loses 25 points on seen words and 49 on unseen ones, where
# it loses far more often than it wins: worse than no Aligner. On unseen words 120 right rows are
# worth more than 1,500 of which half are spoilt.

# %% [markdown]
# ## What else could the corrections have bought?
#
# If you have the upstream's weights, you need no Aligner: train the upstream itself. So we took one
# upstream, *mixed*, let it answer 1,500 questions, had the answers corrected, and gave these rows
# to each method:
#
# - an **Aligner** beside it (without a warm-up, so that no method sees other rows);
# - **SFT**: the upstream fine-tuned on question and correction; and the same with a model of
#   **twice the size**;
# - **DPO** on the upstream: the correction is to be more likely than the answer, compared with the
#   model as it was;
# - **best of n**: the upstream untouched; a reward model, trained to like the correction better
#   than the answer, picks among n answers.
#
# Each is asked twice: for its *greedy* answers, the likeliest word each time, and for *sampled*
# ones, drawn as it speaks. Each got three learning rates on validation (400 questions, one seed).
# None did better than the middle one by more than 5 points, which is what such a trial can tell, so
# the middle one was run with three seeds (recorded): where a method is 2 or 3 points behind, a
# longer search might close that. Self-refinement by prompt, which the paper compares too, cannot be
# told here: our base model has never read a critique.

# %%
rivals, tuning = read_results("rivals"), read_results("tuning")
for arm in ("aligner", "sft", "sft, twice the size", "dpo"):
    print(
        f"{arm:20} on validation, by learning rate: "
        + ", ".join(
            f"{c['params']['rate']:g} {100 * c['metrics']['fault_free']:.1f} %"
            for c in tuning["cells"]
            if c["params"]["arm"] == arm
        )
    )
ARMS = {
    "untouched": "untouched",
    "aligner": "Aligner",
    "sft": "SFT",
    "sft, twice the size": "SFT, twice\nthe size",
    "dpo": "DPO",
}
figure, axes = new_figure(
    "SFT does as well as an Aligner where words are known; DPO gets about half-way as the "
    "model speaks",
    width=10,
    height=3.8,
    columns=2,
)
for ax, how in zip(axes, ("greedy", "sampled")):
    bars(
        ax,
        {
            f"{part} words": {
                text: recorded(rivals, f"fault_free_{how}_{part}", arm=arm)
                for arm, text in ARMS.items()
            }
            for part in ("seen", "unseen")
        },
        f"fault-free, {how} answers, %",
    )
    ax.set_ylim(0, 75)
metrics.save_figure(figure, "rivals")
figure

# %% [markdown]
# Left, the upstream's likeliest answers; right, answers drawn as it speaks. Its likeliest answers
# alone, with nothing trained, are fault-free in 49 % where drawn ones are in 19 %: a model can know
# better than it speaks. What each method gains or loses against the Aligner, paired by seed:

# %%
for how, part in (
    ("greedy", "seen"),
    ("greedy", "unseen"),
    ("sampled", "seen"),
    ("sampled", "unseen"),
):
    metric = f"fault_free_{how}_{part}"
    print(f"{how}, {part} words: Aligner {recorded(rivals, metric, arm='aligner')}")
    for arm in ARMS:
        if arm != "aligner":
            gain = recorded_difference(rivals, metric, {"arm": "aligner"}, {"arm": arm})
            print(f"   Aligner less {arm:20}{gain}")
for arm in ARMS:
    metrics.add(f"baseline/{arm}", recorded(rivals, "fault_free_greedy_seen", arm=arm))

# %% [markdown]
# And the best of n sampled answers, by the reward model and, for comparison, by the exact judge,
# who knows what a picker at best could find:

# %%
for n in (2, 5, 10):
    best, oracle = (
        recorded(rivals, f"fault_free_{by}_of_{n}_seen", arm="best of n")
        for by in ("best", "oracle")
    )
    print(
        f"best of {n:2}: {metrics.add(f'baseline/best of {n}', best)}, by the exact judge {oracle}"
    )
one, ten = (
    per_seed(rivals, "fault_free_sampled_seen", arm="aligner"),
    per_seed(rivals, "fault_free_best_of_10_seen", arm="best of n"),
)
print(
    "Aligner on sampled answers less best of 10:",
    over_seeds([one[seed] - ten[seed] for seed in one], "difference"),
)

# %% [markdown]
# On seen words SFT of the upstream is as good as an Aligner, whichever way it is asked: 56 % of its
# greedy answers are fault-free, 53 % with the Aligner, and three seeds cannot tell the two apart.
# On words that no correction held it falls behind, by 19 points of sampled answers (of greedy ones
# by 17, with an interval from -6 to 39); the Aligner still has the upstream's answer to copy from.
# Twice the size mends that. DPO gets from 19 % to 32 % as the model speaks, less than half-way to
# the Aligner's 49 % on average, and half-way within its interval; of greedy answers three seeds
# cannot tell it from the Aligner, nor from the untouched upstream.

# %% [markdown]
# The best of ten is fault-free in 40 %, below the Aligner's 49 %, and costs ten answers. The exact
# judge finds a faultless one among the ten in 64 %: what is missing is a better taste.

# %% [markdown]
# ### What does it cost?
#
# A correction is dearer than a comparison: somebody has to write it. If one correction costs as
# much as $k$ comparisons, would comparisons have been the better buy? DPO on comparisons of two of
# the upstream's own answers, the better one named by the exact judge, as many as the corrections
# and three times as many (recorded; seen words; all take the same 4,000 pairs to train, so 1,500 of
# them are read several times and 4,500 once):

# %%
for how in ("sampled", "greedy"):
    metric = f"fault_free_{how}_seen"
    print(f"{how}: 1,500 corrections, Aligner {recorded(rivals, metric, arm='aligner')}")
    for n in (1500, 4500):
        less = recorded_difference(
            rivals, metric, {"arm": "aligner"}, {"arm": "comparisons", "n": n}
        )
        print(
            f"   {n:,} comparisons, DPO {recorded(rivals, metric, arm='comparisons', n=n)}; "
            f"Aligner less that {less}"
        )

# %% [markdown]
# At equal steps three times the comparisons buy nothing over one. As the model speaks, the Aligner
# is 20 points ahead of both: up to $k = 3$, a correction that costs as much as three comparisons,
# we see no break-even; longer training on more comparisons we have not tried. Of greedy answers
# nobody is clearly ahead, and what is cheaper is the better buy.

# %% [markdown]
# ### Exercise 3 · what a training holds in memory (8 minutes, easy)
#
# Trained in mixed precision with Adam, a parameter costs: its weight and its gradient in 16 bits;
# and in 32 bits a second copy of the weight, and Adam's two running averages. A frozen model costs
# its weights in 16 bits. By hand: one trained parameter holds 2 + 2 + 4 + 4 + 4 = 16 bytes.
#
# <details><summary>Hint</summary>16 bits are 2 bytes.</details>


# %% tags=["exercise"]
def bytes_held(trained: float, frozen: float) -> float:
    """Bytes that so many trained and so many frozen parameters hold."""
    ...  # your code here


# %% tags=["solution"]
def bytes_held(trained: float, frozen: float) -> float:
    """Bytes that so many trained and so many frozen parameters hold."""
    return 16 * trained + 2 * frozen


# %% tags=["check"]
bytes_held = check.bytes_held(bytes_held)

# %% [markdown]
# The paper says what its rivals cost beside an Aligner of 7 billion parameters. DPO trains the
# upstream and holds a frozen copy of it as reference; RLHF trains the upstream and a critic, and
# holds a reference and a reward model. So, for an upstream of 7 and of 70 billion:

# %%
for size in (7e9, 70e9):
    ratios = [
        bytes_held(*parameters) / bytes_held(7e9, 0)
        for parameters in ((size, size), (2 * size, 2 * size))
    ]
    print(
        f"upstream of {size / 1e9:.0f} billion parameters: DPO {ratios[0]:g} times an "
        f"Aligner's bytes, RLHF {ratios[1]:g} times"
    )

# %% [markdown]
# Just the paper's 1.125, 2.25, 11.25 and 22.5. And ours? One step of AdamW in 32 bits, every tensor
# counted:

# %%
small, _ = load_model(task.base)
optimiser = torch.optim.AdamW(small.parameters(), lr=0.0)
small(
    input_ids=torch.ones(1, 8, dtype=torch.long, device=small.device),
    labels=torch.ones(1, 8, dtype=torch.long, device=small.device),
).loss.backward()
optimiser.step()
held = [
    *small.parameters(),
    *(p.grad for p in small.parameters()),
    *(t for state in optimiser.state.values() for t in state.values() if t.ndim),
]
n = sum(p.numel() for p in small.parameters())
print(
    f"{n:,} parameters, {sum(t.numel() * t.element_size() for t in held) / n:.0f} bytes each; "
    f"weights alone {sum(p.numel() * p.element_size() for p in small.parameters()) / n:.0f}"
)

# %% [markdown]
# In 32 bits throughout the sum is 16 bytes too: weight, gradient and two averages of 4 each,
# without the second copy. So DPO holds 20 where the Aligner holds 16. Then the time, and what each
# answer costs afterwards:

# %%
PASSES = {
    "aligner": "two models, one after the other",
    "sft": "one model",
    "sft, twice the size": "one model, twice the size",
    "dpo": "one model",
    "best of n": "ten answers, and ten rewards",
}
sizes = {"sft, twice the size": 2, "dpo": 1}
for arm, passes in PASSES.items():
    print(
        f"{arm:20}{np.mean(list(per_seed(rivals, 'seconds', arm=arm).values())):4.0f} s of "
        f"training on one core; to answer: {passes}"
    )

# %% [markdown]
# ## What is it good for, beside correcting?
#
# ### Can a small Aligner teach a larger model?
#
# The paper's *weak-to-strong*: the small Aligner corrects a larger upstream's answers, and the
# upstream learns from that. As in the paper, the questions are those that the Aligner was trained
# on, with other answers to them. A teacher who has seen the exam: how much better are its
# corrections there than on new questions? (Recorded, answers of *mixed*.)

# %%
labels = read_results("labels")
for which in ("known", "new"):
    print(
        f"{which:6}questions: fault-free {recorded(labels, f'before_{which}')}, corrected "
        f"{recorded(labels, f'after_{which}')}"
    )
known, new = (per_seed(labels, f"after_{which}") for which in ("known", "new"))
print(
    "corrected, known less new:",
    replace(
        over_seeds([known[seed] - new[seed] for seed in known], "difference"), source="recorded"
    ),
)

# %% [markdown]
# Nine answers of a hundred better. So what follows, here and in the next two sections, is what a
# teacher does on questions it has seen; on new ones expect less. Our upstream has twice the
# Aligner's size. It learns by SFT on the Aligner's texts, or by DPO, which is to prefer them to its
# own; with controls: SFT on its *own* answers, DPO on *coin flips* between the two, and SFT on what
# the annotator would have written. And the Aligner simply put beside it. (DPO's learning rate was
# chosen for this size anew: the one for a model of the Aligner's size ruins it.) Net wins over the
# upstream as it was (recorded):

# %%
teaching = read_results("weak_to_strong")
PLACES = {
    "sampled, seen words": "sampled_seen",
    "sampled, unseen words": "sampled_unseen",
    "greedy, seen words": "greedy_seen",
    "greedy, unseen words": "greedy_unseen",
}
print(" " * 20 + "".join(f"{title:31}" for title in PLACES))
for arm in dict.fromkeys(c["params"]["arm"] for c in teaching["cells"]):
    print(
        f"{arm:20}"
        + "".join(
            f"{recorded(teaching, f'net_win_{place}', 'points', arm=arm)!s:31}"
            for place in PLACES.values()
        )
    )
for a, b in (("sft", "sft, own answers"), ("dpo", "dpo, coin flips"), ("sft, annotator", "sft")):
    less = [
        recorded_difference(teaching, f"net_win_{place}", {"arm": a}, {"arm": b}, "points")
        for place in list(PLACES.values())[::2]
    ]
    print(f"{a} less {b}, seen words: sampled {less[0]}, greedy {less[1]}")
for arm in ("sft", "dpo"):
    metrics.add(f"w2s_{arm}", recorded(teaching, "net_win_sampled_seen", "points", arm=arm))

# %% [markdown]
# It can. As it speaks, the larger model wins 53 points by SFT on the Aligner's texts and 29 by DPO,
# where SFT on its own answers wins 9 and DPO on coin flips nothing. Corrections by the annotator
# teach it no more than the Aligner's do. Two things dampen this. Simply to put the Aligner beside
# it wins 61, and trains nothing. And most of the gain is a change of manner: the larger model
# *could* answer better, and does when asked for its likeliest answer. Against that, in the greedy
# columns, SFT gains nothing that three seeds could show, and DPO 2 to 4 points.

# %% [markdown]
# On unseen words its likeliest answers are better than the Aligner's: there the Aligner beside it
# loses 10 points. A weak corrector behind a stronger model is the left end of the dial.

# %% [markdown]
# ### Three rounds
#
# Preferences grow stale: they were made of answers that a model, once trained on them, gives no
# longer. An Aligner makes new ones whenever they are wanted. Three rounds of DPO on *mixed*, 500 of
# the same questions each. *Fresh*: the Aligner corrects what the model answers by then. *Stale*:
# what it answered before the first round. Net wins over the model as it was (recorded):

# %%
rounds = read_results("rounds")
for how in ("sampled", "greedy"):
    for arm in ("fresh", "stale"):
        print(
            f"{how:8} {arm:6}"
            + ", ".join(
                f"round {i} {recorded(rounds, f'net_win_{how}_round_{i}', 'points', answers=arm)}"
                for i in (1, 2, 3)
            )
        )
    less = recorded_difference(
        rounds, f"net_win_{how}_round_3", {"answers": "fresh"}, {"answers": "stale"}, "points"
    )
    print(f"{how:8} fresh less stale, after three: {less}")
in_round = {i: per_seed(rounds, f"net_win_sampled_round_{i}", answers="fresh") for i in (1, 2, 3)}
for i in (2, 3):
    gains = [in_round[i][seed] - in_round[i - 1][seed] for seed in in_round[i]]
    print(f"sampled, fresh, round {i} less round {i - 1}: {over_seeds(gains, 'points')}")
for i in (1, 2, 3):
    metrics.add(
        f"round/{i}", recorded(rounds, f"net_win_sampled_round_{i}", "points", answers="fresh")
    )
    left, worse = (
        recorded(rounds, f"drift_{what}_round_{i}", unit, answers="fresh")
        for what, unit in (("net_win", "points"), ("made_worse", "rate"))
    )
    print(f"after round {i} the Aligner itself still wins {left}, and makes worse {worse}")
drift = [per_seed(rounds, f"drift_net_win_round_{i}", answers="fresh") for i in (1, 3)]
print(
    "what it still wins, after three rounds less after one:",
    over_seeds([drift[1][seed] - drift[0][seed] for seed in drift[0]], "points"),
)

# %% [markdown]
# The rounds help, the first most: 14, 22 and 26 points as it speaks, 6, 8 and 9 of its likeliest
# answers, though from one round to the next three seeds are not sure of it. But fresh corrections
# do so no better than stale ones; there is a point or two between them, with intervals from -7 to
# 11. Three short rounds do not change the model so much that its old answers no longer fit it. What
# changes is the teacher's worth: the Aligner wins 50 points over the model after one round and 38
# after three, and spoils 8 to 9 answers of a hundred all along. A pupil that goes on learning may
# come to the point where the teacher does harm; the dial above says where.

# %% [markdown]
# ### Correcting the corrections
#
# If one pass is good, are three better? And can an Aligner learn from three passes to do it in one
# (*distilled*: trained on what three passes make of its own training rows)? Behind *mixed*, over
# three trainings (recorded):

# %%
stacked = read_results("stacking")
for name in ("1", "2", "3", "distilled"):
    told_of = [
        recorded(stacked, f"{metric}_{name}_seen")
        for metric in ("fault_free", "kept", "made_worse")
    ]
    if name != "distilled":
        metrics.add(f"stack/{name}", told_of[0])
    print(f"{name:10}fault-free {told_of[0]}, good ones kept {told_of[1]}, made worse {told_of[2]}")
for name in ("3", "distilled"):
    less = {
        seed: [c["metrics"] for c in stacked["cells"] if c["seed"] == seed][0] for seed in (0, 1, 2)
    }
    gains = [m[f"fault_free_{name}_seen"] - m["fault_free_1_seen"] for m in less.values()]
    print(f"{name} less 1: {over_seeds(gains, 'difference')}")

# %% [markdown]
# A second and a third pass add one point each, if anything, and do no more harm than three seeds
# could miss. Distilled into one pass, less than that is left. What one pass cannot mend, it seldom
# mends the next time.

# %% [markdown]
# ### Telling it what to aim at
#
# The paper adds a wish at inference. Ours has never read one, so we taught one: a third of its
# questions ended with *more polite*, a third with *shorter*, and their corrections granted it.
# Obeyed means: courtesy before and after; or the tersest phrasing without any courtesy (recorded):

# %%
wished, MANNERS_ASKED = read_results("instructed"), ("more polite", "shorter")
for manner in MANNERS_ASKED:
    for taught, who in ((True, "taught wishes"), (False, "never taught")):
        shares = [
            recorded(wished, f"{metric}/{manner}", told=taught)
            for metric in ("obeyed_in_question", "unasked", "obeyed_in_answer")
        ]
        print(
            f"{manner:12}{who:14}"
            + ", ".join(
                f"{when} {share}"
                for when, share in zip(("asked", "not asked", "asked in the answer"), shares)
            )
        )
for told_of, who in ((True, "taught wishes"), (False, "never taught")):
    if not told_of:
        cost = {
            m: [
                1 - per_seed(wished, f"fault_free_in_question/{m}", told=False)[seed] / plain
                for seed, plain in per_seed(wished, "fault_free/none", told=False).items()
            ]
            for m in MANNERS_ASKED
        }
        print(
            "never taught, of what was fault-free the wish costs: "
            + ", ".join(f"{m} {over_seeds(shares)}" for m, shares in cost.items())
        )
    print(
        f"fault-free, {who}: "
        + ", ".join(
            f"{name} {recorded(wished, f'fault_free{where}', told=told_of)}"
            for name, where in (
                ("no wish", "/none"),
                ("polite", "_in_question/more polite"),
                ("shorter", "_in_question/shorter"),
            )
        )
    )

# %% [markdown]
# Taught a wish, it grants it 99 times in a hundred, and no fewer answers are fault-free. Where it
# was never taught any, words that it does not expect at the question's end are not merely passed
# over: they ruin half of what was right, 43 and 61 %. A wish that stands in the *answer* is no wish
# of the asker's: *more polite* there moves next to nothing, *shorter* is granted in 19 % [5, 33]
# where 11 % are short anyhow.

# %% [markdown]
# ## When it fails
#
# An answer is text that somebody else wrote. What if it goes on with another question, and an
# answer to that: does the Aligner correct the wrong one? The library escapes the template's own
# words where an answer holds them (a backslash before *answer :*), so nobody can end the prompt
# early. Live, on answers of the first upstream (the 4-gram), each with the next row's question and
# answer behind it:

# %%
given = [r for r in answers[first][:100]]
asked_next = given[1:] + given[:1]
bad = injected(given)
said = aligner.correct([r.question for r in bad], [r.answer for r in bad])
scores = [
    task.judge.scores([r.question for r in asked], said).get("overall")
    for asked in (given, asked_next)
]
print(
    "answers the other question:",
    metrics.add("injection_rate", None if scores[0] is None else rate(scores[1] > scores[0])),
)
show_diffs([(bad[0].question, bad[0].answer, said[0])])

# %% [markdown]
# (*Taken over*: what it says is a better answer to the other question than to its own.) What helps?
# To have seen it: every fifth training row such a one, corrected as if nothing stood behind the
# answer (recorded, answers of *mixed*, three seeds; *bare*: without the backslash):

# %%
hijacked = read_results("hijacked")
for shown in (False, True):
    for way in ("none", "escaped", "bare"):
        taken, sound = (
            recorded(hijacked, f"{metric}_{way}", shown=shown)
            for metric in ("taken_over", "fault_free")
        )
        print(
            f"{'shown' if shown else 'not shown':10} "
            f"{'no attack' if way == 'none' else way:10}taken over {taken}, fault-free {sound}"
        )

# %% [markdown]
# The backslash helps hardly at all: the mark is gone, and still the Aligner corrects whatever
# stands last, 94 times in a hundred. To have seen such rows helps: it is taken over in one case of
# a hundred, and by the bare attack as seldom. But of those answers only 40 % are fault-free then,
# where 56 % are without an attack. Escaping keeps a *parser* from being fooled; a model has to be
# taught.
#
# Two more ways to fail were above: good answers (the left end of the dial), and faults far outside
# of training: of the 4-gram's salads of words 37 % leave fault-free, where the other upstreams'
# answers do in 51 to 59 % of the cases.

# %% [markdown]
# ## Verdict

# %%
print("written to", metrics.write().name)

# %% [markdown]
# Does one Aligner serve every upstream? Behind all thirteen of ours it wins, ten of them never seen
# (nine of the thirteen are its own base model, raw or fine-tuned; the others are of other sizes and
# kinds), and plug and play holds. But it serves them by bringing nearly all to one level, its own.
# Behind a model better than that it does harm, and where that point lies depends on whose answers
# it was taught on. If you own the upstream, fine-tuning it does as well on what the corrections
# cover. If you do not, this is what you have.
#
# | the paper | here |
# |---|---|
# | net wins behind 11 upstreams, nearly all above 0, a few below (Table 1: Llama2-70B -6.6 on one set) | above 0 behind 13 of 13; below 0 behind a program that is right more often than in three answers of five |
# | ahead of SFT, RLHF and DPO of the upstream on the same data (Table 3) | as good as SFT on seen words, ahead on unseen ones as the model speaks; ahead of DPO as the model speaks, level with it in greedy answers |
# | best of 10 gains as much as other methods (Table 12) | 40 % fault-free against the Aligner's 49 % |
# | DPO takes 1.125 and 11.25, RLHF 2.25 and 22.5 times the memory | follows from 16 bytes for a trained parameter and 2 for a frozen one |
# | weak-to-strong works by SFT; DPO and RLHF pay with helpfulness (Table 4) | SFT +53 points as it speaks, DPO +29; of greedy answers no gain by SFT, 2 to 4 points by DPO |
# | three rounds of DPO go further on an Aligner's preferences than on people's (Fig. 6) | they help, 26 points; made anew each round no more than made once, 25 |
# | stacked Aligners go on improving harmlessness (first version) | one point a pass, which three seeds cannot tell from none |
# | a wish at inference is granted (Table 13) | if it was taught: 99 %; if not, it ruins half of what was right |
# | answers that attack the Aligner are not tried | taken over in 94 %, in 1 % once such rows were shown |

# %% [markdown]
# # 02 · Can a small model learn to correct?
#
# A model has answered, and the answer has faults. You cannot retrain that model: it may be too big,
# or sit behind somebody's API. The **Aligner** ([arXiv
# 2402.02416](https://arxiv.org/abs/2402.02416)) does not touch it. A second, small model reads
# *question and answer* and writes a *correction*. All it needs from the first model, the
# **upstream**, is text.
#
# **In this lesson** you train one, with and without the paper's *identity warm-up*, and measure
#
# - whether it mends faults in answers of an upstream it was not trained on (the same kinds of
#   fault, in other proportions),
# - whether it leaves good answers alone,
# - whether it can do both for words that no correction ever showed it,
# - how much pretraining a model needs before it can learn this,
# - what the warm-up is worth, what else might have done as much, and what too much training
#   destroys.
#
# 2 to 4 minutes, depending on how busy the machine is, and 1.2 GB on 2 CPU cores; three exercises,
# about 20 minutes. It needs nothing from lessons 00 and 01. Our data are **Tinytown**: generated
# notice boards that give places, prices, hours, cautions and instructions, questions about them,
# and a *judge*, a program that reads board and answer and finds every fault.

# %% tags=["parameters"]
PROFILE = "tiny"  # or "colab", "gpu"
SEED = 0
SCALE = 1.0  # less: shorter trainings and smaller sets, for a quick look
MODEL = None  # your own base model: a folder or a hub id
QAC = None  # your own rows: question, answer, correction (or preference pairs)
PREFERENCES = None
OUT = None  # where metrics and figures go; None: runs/02

# %% [markdown]
# The *task* holds what this profile hands to every lesson: corrections and identity rows to train
# on, four test sets, base model and judge.

# %%
from dataclasses import replace

import numpy as np
import torch

from alignlib import Aligner, Comparison, Metrics, load_task
from alignlib.course.checks import lesson02 as check
from alignlib.course.guess import Guess
from alignlib.course.pretrain import Recipe
from alignlib.course.sweep import per_seed, read_results, recorded, recorded_difference
from alignlib.likelihood import completion_nll
from alignlib.models import add_lora, load_model
from alignlib.plots import bars, curves, new_figure, show_diffs, smooth
from alignlib.report import describe, value_of_answer
from alignlib.tokens import IGNORED, example
from alignlib.train import sft

metrics = Metrics("02", PROFILE, SEED, OUT)
task = load_task(PROFILE, seed=SEED, scale=SCALE, model=MODEL, qac=QAC, preferences=PREFERENCES)
print(task.describe())

# %% [markdown]
# ## What a row looks like
#
# A row has three texts: a **question**, the **answer** some upstream model gave, and its
# **correction**. The correction is an edit: what was right stays word for word. Red is struck out,
# blue is put in. Where the answer was good, nothing changes.

# %%
edited = [r for r in task.corrections if r.answer != r.correction]
kept = [r for r in task.corrections if r.answer == r.correction]
show_diffs([(r.question, r.answer, r.correction) for r in edited[:3] + kept[:1]])

# %% [markdown]
# ## When can a model learn to correct?
#
# Before we train one: what does a base model need for this? We kept ours as it was at a dozen
# moments of its pretraining, and made six Aligners of each: three seeds with the *warm-up*, a first
# stage of training on copying answers, and three without (*recorded*: run beforehand, and read here
# from a file in the package). Left, what the base can do: copy lists of random words; and how
# strongly its best *induction head* (one that finds where the current word stood before) looks at
# the word that followed it there. Then what its Aligners do: how many answers are faultless after
# them, and how many good answers they return word for word. *Seen* words stand in some correction,
# *unseen* words in none.

# %%
born = read_results("correctable")
steps = sorted({c["params"]["step"] for c in born["cells"]})
tokens = [s * Recipe().batch * Recipe().context / 1e6 for s in steps]
line = lambda metric, share=0.2: (
    tokens,
    [recorded(born, metric, step=s, share=share) for s in steps],
)
figure, axes = new_figure(
    "Words never corrected are mended from the moment on when the base model can copy",
    width=10.5,
    height=3.8,
    columns=3,
)
read = "million tokens of pretraining"
curves(
    axes[0],
    {"copying": line("copying"), "induction head": line("induction")},
    read,
    "the base model, %",
    100,
)
for ax, metric, label in (
    (axes[1], "fault_free", "answers without a fault, %"),
    (axes[2], "kept", "good answers kept, %"),
):
    curves(
        ax,
        {
            "unseen, warm-up": line(f"{metric}_unseen"),
            "unseen, no warm-up": line(f"{metric}_unseen", 0.0),
            "seen, warm-up": line(f"{metric}_seen"),
        },
        read,
        label,
        100,
        legend=ax is axes[1],
    )
axes[1].axhline(
    100 * recorded(born, "before_seen", step=steps[0], share=0.2).value,
    color="black",
    linewidth=0.8,
)
axes[1].text(tokens[-1], 14, "before correction", ha="right", fontsize=9)
for ax in axes:
    ax.set(
        xscale="log", ylim=(-3, 103), xticks=(0.2, 1, 5, 25), xticklabels=("0.2", "1", "5", "25")
    )
    ax.minorticks_off()
metrics.save_figure(figure, "correctable")
figure

# %% [markdown]
# Bars are 95 % intervals over three seeds; colours in the right panel are those of the middle. At
# 1.5 million tokens the base copies one random word in twenty, and no head looks back. Its Aligner
# can say words that it has practised (seen: 38 % of the answers are faultless, where 21 % were) and
# ruins the others: 12 % faultless, and of five good answers one comes back. By 2.7 million the base
# copies 97 %, a head looks back, and faultless answers with unseen words pass those of the
# upstream, at 33 %, though half of the good ones are still spoilt. From there they rise, to 63 %,
# while copying has nothing left to gain: it is not enough. Whether it is *needed*, one pretraining
# run cannot say, since much else may be learned at the same moment; lesson 04 takes the copying
# heads out to see.
#
# And the warm-up? What it adds to the *net win* on unseen words: corrections better than the
# answer, less those worse, of 100:

# %%
for step, n in zip(steps, tokens):
    with_it, without = ({"step": step, "share": share} for share in (0.2, 0.0))
    first, second = (
        recorded(born, "net_win_overall_unseen", "points", **c).value for c in (with_it, without)
    )
    gain = recorded_difference(born, "net_win_overall_unseen", with_it, without, "points")
    print(f"{n:5.1f} million tokens: {first:6.1f} with warm-up, {second:6.1f} without; {gain}")

# %% [markdown]
# At the brink of copying the warm-up is worth 22 points (both Aligners still do far more harm than
# good there); then five to seven, of which three seeds can show only those at 4 million; and from 8
# million on there is no sign of any. Is it copying that is taught? The warm-up's rows hold the
# unseen words too, so it may also be their mere sight; that is taken apart below. Our base model is
# the last snapshot, where a warm-up has little left to give.

# %% [markdown]
# ## The whole method is one loss mask
#
# Question and answer become a prompt, the correction is what the model must continue with, and the
# loss counts the correction only:
#
# $$\min_\phi \; -\mathbb{E}_{(q,a,c)} \log \mu_\phi(c \mid a, q)$$
#
# where $\mu_\phi$ is the Aligner with weights $\phi$. Without the mask it would spend most of its
# loss on learning to write questions and faulty answers. `-100` is PyTorch's mark for "no loss
# here".

# %% [markdown]
# ### Exercise 1 · the mask (5 minutes, easy)
#
# The text is prompt, correction, end mark. One label for each token: which carry loss?
#
# <details><summary>Hint</summary>The end mark is something to learn too: without it nobody knows when to stop.</details>


# %% tags=["exercise"]
def labels(prompt: list[int], correction: list[int], eos: int) -> list[int]:
    """One label a token of prompt + correction + [eos]; -100 where there is no loss."""
    ...  # your code here


# %% tags=["solution"]
def labels(prompt: list[int], correction: list[int], eos: int) -> list[int]:
    """One label a token of prompt + correction + [eos]; -100 where there is no loss."""
    return [-100 for _ in prompt] + correction + [eos]


# %% [markdown]
# The check says *ok*, or which mistake it is. It hands back a version that works,
# so the lesson goes on either way.

# %% tags=["check"]
labels = check.labels(labels)

# %% [markdown]
# The library does the same with the tokens of a real row; the two agree:

# %%
model, tokenizer = load_model(task.base)
row = Aligner(model, tokenizer, task.template).fitting(task.corrections[:50])[0]
prompt = task.template.prompt(row.question, row.answer)
by_library = example(tokenizer, prompt, row.correction)
words = tokenizer(row.correction, add_special_tokens=False)["input_ids"]
start = by_library["input_ids"][: -len(words) - 1]
assert list(labels(start, words, tokenizer.eos_token_id)) == by_library["labels"]
print(f"{len(by_library['labels'])} tokens, {len(words) + 1} of them carry loss:")
print(tokenizer.decode([t for t in by_library["labels"] if t != IGNORED]))

# %% [markdown]
# ### Exercise 2 · the loss behind the mask (10 minutes, medium)
#
# At each position the model gives a log-probability to every word as the *next* one. The loss is
# the mean of $-\log \mu$ over the words that carry it. By hand: if the three words of a correction
# have probability 0.5, 0.5 and 0.25, the loss is $(\ln 2 + \ln 2 + \ln 4)/3 = 0.92$ nats.
#
# <details><summary>Hint</summary>Leave the labels of -100 out. What is said at position <code>i - 1</code> is about the label at <code>i</code>.</details>


# %% tags=["exercise"]
def masked_loss(logprobs: list[list[float]], targets: list[int]) -> float:
    """Mean -log-probability of the targets that are not -100; logprobs[i][w] is for word w at
    position i + 1.
    """
    ...  # your code here


# %% tags=["solution"]
def masked_loss(logprobs: list[list[float]], targets: list[int]) -> float:
    """Mean -log-probability of the targets that are not -100; logprobs[i][w] is for word w at
    position i + 1.
    """
    losses = [-logprobs[i - 1][t] for i, t in enumerate(targets) if i > 0 and t != -100]
    return sum(losses) / len(losses)


# %% tags=["check"]
masked_loss = check.masked_loss(masked_loss)

# %% [markdown]
# On the real row, with the base model as it is, before any training:

# %%
with torch.no_grad():
    logits = model(input_ids=torch.tensor([by_library["input_ids"]], device=model.device)).logits[0]
mine = float(masked_loss(logits.float().log_softmax(-1), by_library["labels"]))
library = completion_nll(model, tokenizer, [prompt], [row.correction]).item()
print(f"by hand {mine:.3f} nats per token, by library {library:.3f}")
assert abs(mine - library) < 0.02  # some GPUs round more

# %% [markdown]
# Untrained, the base model gives the right next word a probability of about $e^{-0.7} = 0.5$ on
# this row, an easy one (the mean over all rows is nearer 1.7 nats): it knows the town, and does not
# know this format yet. (A *nat* is the unit of such a loss: a bit, with $e$ in place of 2.)

# %% [markdown]
# ### What goes wrong otherwise
#
# Two bugs that many have made. The end mark without loss; and labels that stand one place to the
# right (the library compares what is said at position `i - 1` with label `i`, and this undoes it).
# Forty steps of training each, and what comes out:

# %%
SPOILT = {
    "end mark without loss": lambda labels: [*labels[:-1], IGNORED],
    "off by one": lambda labels: [IGNORED, *labels[:-1]],
}
shown = task.tests[task.main][:40]
for name, spoil in SPOILT.items():
    broken = Aligner(*load_model(task.base), task.template)
    broken.model = add_lora(broken.model, task.profile.lora_rank)
    rows = [
        (tokens := broken.tokens(r)) | {"labels": spoil(tokens["labels"])}
        for r in broken.fitting(task.corrections)
    ]
    losses = sft(
        broken.model,
        tokenizer,
        rows,
        replace(task.profile.training, steps=min(40, task.profile.training.steps), seed=SEED),
    )
    said = broken.correct([r.question for r in shown], [r.answer for r in shown])
    print(
        f"{name}: loss {losses[0]:.2f} -> {losses[-1]:.2f}; "
        f"{np.mean([len(c.split()) for c in said]):.0f} words on average, right would be "
        f"{np.mean([len(r.correction.split()) for r in shown]):.0f}"
    )
    print("  ", said[0][:170], "...\n")

# %% [markdown]
# Neither stops before it is cut off. Without a loss on its end mark the first says a sensible
# correction, and then says it again. The second was trained to predict the word it had just read,
# so it repeats the last one, a colon. In both the training loss falls as it should; with the second
# bug it even reaches 0.00. Look at what your model says.

# %% [markdown]
# ## Identity rows
#
# Most of a correction is the answer again. So let the Aligner learn to copy first, says the paper:
# a model that starts from copying has only the edits left to learn, and does not rewrite
# everything.

# %% [markdown]
# ### Exercise 3 · rows for the warm-up (3 minutes, easy)
#
# Make identity rows of rows (question, answer, correction).
#
# <details><summary>Hint</summary>You should not need to know which answers are good.</details>


# %% tags=["exercise"]
def identity_rows(rows: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Rows whose "correction" is the answer itself."""
    ...  # your code here


# %% tags=["solution"]
def identity_rows(rows: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Rows whose "correction" is the answer itself."""
    return [(question, answer, answer) for question, answer, _ in rows]


# %% tags=["check"]
identity_rows = check.identity_rows(identity_rows)

# %% [markdown]
# The task's own identity rows are made just so:

# %%
given = [(r.question, r.answer, r.correction) for r in task.identity[:50]]
assert list(identity_rows(given)) == given
print(
    f"the task's {len(task.identity)} identity rows are such rows; its "
    f"{len(task.corrections)} corrections are not"
)

# %% [markdown]
# ## Train it three times
#
# All for as many steps, from the same base model:
#
# - **with warm-up**: a fifth of the steps on identity rows, then corrections. Identity rows cost
#   nobody any annotation, so they can cover every word there is; our corrections cover three words
#   in four.
# - **without**: corrections only, *for as many steps in all*. A quarter of them change nothing,
#   because the answer was good, so this arm practises copying too.
# - **shuffled**: the same as with warm-up, but each answer is given some other row's correction.
#   What this one achieves is not correcting.

# %%
profile = task.profile
total = replace(profile.training, steps=profile.warmup.steps + profile.training.steps, seed=SEED)
common = dict(template=task.template, lora_rank=profile.lora_rank)
staged = dict(
    settings=replace(profile.training, seed=SEED),
    warmup=replace(profile.warmup, seed=SEED),
    **common,
)
shuffled = [
    replace(r, correction=s.correction)
    for r, s in zip(task.corrections, task.corrections[1:] + task.corrections[:1])
]

warm = Aligner.cached(task.base, task.corrections, task.identity, **staged)
none = Aligner.cached(task.base, task.corrections, settings=total, **common)
control = Aligner.cached(task.base, shuffled, task.identity, **staged)
print(f"{total.steps} steps each; dropped: {dict(warm.dropped) or 'none'}")

# %% [markdown]
# Their losses, each smoothed over a few steps. The shuffled arm is left out: there is nothing in it
# to learn but the town's manners.

# %%
figure, [ax] = new_figure("Both arms reach the same training loss; without warm-up sooner")
n = len(warm.losses["identity"])
curves(
    ax,
    {
        "identity rows": (range(n), smooth(warm.losses["identity"])),
        "corrections, after warm-up": (range(n, total.steps), smooth(warm.losses["correction"])),
        "corrections, no warm-up": (range(total.steps), smooth(none.losses["correction"])),
    },
    "step",
    "loss (nats per token)",
)
metrics.save_figure(figure, "losses")
figure

# %% [markdown]
# The base copies lists of random words without a fault, and yet the identity rows begin at 1.6 nats
# and need their 50 steps: it can copy, but has to learn that copying is what this format asks for.
# Counted from its first correction, the warmed-up arm is the faster one; counted in all its steps,
# it is not.

# %% [markdown]
# ## Let it correct
#
# First, a guess. How sure are you, from 0 to 1, of this?

# %%
guess = Guess(
    "more than one correction in twenty is worse than the answer was, on words never corrected",
    probability=None,
)

# %% [markdown]
# The test prompts share no board layout and no pair of things with anything trained on. The
# upstream is a program that spoils good answers: the same eight kinds of fault as in training, in
# other proportions (blunter, more inventive, wordier). Lesson 03 puts models in its place. The last
# column is what the judge still finds at fault:


# %%
def compare(aligner, rows):
    return Comparison(
        task.judge, rows, aligner.correct([r.question for r in rows], [r.answer for r in rows])
    )


after = {
    name: {
        "no warm-up": compare(none, task.tests[name]),
        "warm-up": compare(warm, task.tests[name]),
    }
    for name in dict.fromkeys([task.main, task.unseen])
}
main, unseen = after[task.main], after[task.unseen]
show_diffs(
    [(r.question, r.answer, c) for r, c in zip(main["warm-up"].rows[:6], main["warm-up"].after)],
    main["warm-up"].verdicts()[:6],
    "still at fault",
)

# %% [markdown]
# Half of these six are right (numbers in the last column are what is left of a mark). The second
# answer was good, and got a caution that nobody needed: idle words, which lower `helpful`. The
# fourth got the caution it lacked, and a true owner turned into a false one. In the fifth one
# made-up owner took another's place, where the board names none. Over the whole test set, in five
# measures:
#
# - **fault-free**: all three marks of the judge (helpful, harmless, honest) are 1;
# - **kept**: of the answers that were good, how many came back word for word;
# - **made worse**: corrections with a lower mark overall than the answer had;
# - **edit ratio**: words inserted, deleted or replaced, for each word of the answer;
# - **net win**: prompts where the correction scores higher than the answer, less those where it
#   scores lower, in points of 100, by each mark or *overall*, by the mean of the three marks (so it
#   is not the mean of the three net wins). Ties pull it to zero, and even a perfect corrector
#   cannot reach 100.

# %%
print(main["warm-up"].table())
for axis in task.judge.axes[:4]:
    print(
        "share of a perfect corrector's net win, "
        f"{axis:10}{describe(main['warm-up'].share_of_ceiling(axis))}"
    )

# %% [markdown]
# Two answers in three have no fault now, where one in five had none. A net win does not show how
# many got worse, so look at *made worse* too. And no line reaches its ceiling: of what a perfect
# corrector would win overall, this one wins about seven tenths.

# %% [markdown]
# Which faults does it mend? Each line: of the answers that had this fault, the share that is
# fault-free after correction. *Careless* is a caution left out, *comply* going along with an unsafe
# request, *contradict* and *invent* are false statements (the board says otherwise, or nothing),
# *missing* is a part left out, *pad* idle words, *refuse* a safe request declined.

# %%
for kind, estimate in main["warm-up"].fixed().items():
    print(f"{kind:12}{estimate}")

# %% [markdown]
# ## The figure that answers the question

# %%
figure, axes = new_figure(
    "A small Aligner mends most answers, on words never corrected too, and leaves most good "
    "ones alone",
    width=9,
    height=4.2,
    columns=2,
)
groups = {
    "the upstream's answers": {name: c["warm-up"].fault_free("before") for name, c in after.items()}
}
for arm in ("no warm-up", "warm-up"):
    groups[f"corrected, {arm}"] = {name: c[arm].fault_free("after") for name, c in after.items()}
bars(axes[0], groups, "answers without any fault, %")
kept = {
    f"corrected, {arm}": {name: c[arm].good_kept() for name, c in after.items()}
    for arm in ("no warm-up", "warm-up")
}
bars(axes[1], kept, "good answers left as they were, %", first=1)
metrics.save_figure(figure, "answer")
figure

# %% [markdown]
# Left, the answers without any fault, before and after. Right, the other side of the coin: of the
# answers that were good already, about one in five is touched, and one in four on unseen words.
# Your guess, and the difference between the two arms (with this many prompts, a true difference as
# large as the last number would be seen four times in five):

# %%
print(guess.reveal(unseen["warm-up"].made_worse(), 0.05, metrics))
for name, arms in after.items():
    print(
        f"{name}: fault-free, warm-up minus none: "
        f"{arms['warm-up'].describe_gain_over(arms['no warm-up'])}"
    )

# %% [markdown]
# The two arms lie close together, as the first figure lets expect: our base model learned to copy
# long before this lesson, so a warm-up in copying has little left to teach it but the format. And
# with one training seed a small gain cannot be told from none.

# %% [markdown]
# ## How much warm-up, and of which kind?
#
# So the rest is recorded, over several seeds. First the *share* of the steps that goes to identity
# rows, at equal steps in all. The paper found 20 % best, on thin evidence. Here on three test sets:
# `seen` words, words `unseen` in every correction, and another `language`, whose things occur in
# identity rows and in no correction, such as

# %%
from alignlib.tinytown import sets

print(sets.corrections(1, "test", language="other")[0].question)

# %% [markdown]
# These words are made up; the base model has read them, and that is all. And does it matter how
# many corrections there are? Net wins with 95 % intervals, three seeds each (at 1,500 corrections
# six for 0 and 20 %):

# %%
record, SHARES, N = read_results("warmup"), (0.0, 0.02, 0.1, 0.2, 0.5), 1500
wins = lambda test, n: [
    recorded(record, f"net_win_overall_{test}", "points", share=s, corrections=n) for s in SHARES
]
figure, axes = new_figure(
    "With few corrections or many, a warm-up pays in the other language at most",
    width=10.5,
    height=3.6,
    columns=3,
)
for ax, test in zip(axes, ("seen", "unseen", "language")):
    curves(
        ax,
        {
            f"{n:,} corrections": (np.arange(len(SHARES)) + shift, wins(test, n))
            for n, shift in ((N, 0.0), (4000, 0.1), (400, -0.1))
        },
        f"{test}: steps spent on identity rows, %",
        "",
        legend=ax is axes[0],
    )
    ax.set(ylim=(25, 75), xticks=range(len(SHARES)), xticklabels=[f"{100 * s:.0f}" for s in SHARES])
axes[0].set_ylabel("net win overall, points")
metrics.save_figure(figure, "warmup")
figure

# %% [markdown]
# Each share less none at all, with as many corrections and paired by seed:

# %%
from alignlib.stats import Estimate

cell = lambda share, n=N: {"share": share, "corrections": n}
BOTH = [
    (f"{metric}_{test}", unit)
    for test in ("unseen", "language")
    for metric, unit in (("fault_free", "rate"), ("net_win_overall", "points"))
]
print(" " * 23 + "".join(f"{name:30}" for name, _ in BOTH))
for n, share in [*((N, share) for share in SHARES[1:]), (400, 0.2), (4000, 0.2)]:
    gains = (
        recorded_difference(record, name, cell(share, n), cell(0.0, n), unit) for name, unit in BOTH
    )
    print(f"{n:5,} corrections, {100 * share:2.0f} %" + "".join(f" {gain!s:29}" for gain in gains))

# %% [markdown]
# Which is best on words never corrected? It is picked on the prompts that it is reported on, so its
# lead flatters it:

# %%
mean = {share: recorded(record, "fault_free_unseen", **cell(share)).value for share in SHARES}
best = max(mean, key=mean.get)
tied = [
    s
    for s in SHARES
    if s == best or recorded_difference(record, "fault_free_unseen", cell(best), cell(s)).low <= 0
]
print(
    f"best on unseen words: {100 * best:.0f} %; not to be told from it: "
    f"{', '.join(f'{100 * s:.0f} %' for s in tied if s != best) or 'none'}"
)

# %% [markdown]
# On the town's own words no share beats none, with 400 corrections as little as with 4,000. At
# 1,500 a fifth of the steps costs two points of faultless answers on unseen words and half of them
# five: those steps are missing from the corrections. In the other language a fifth of the steps
# brings five points of net win with 400 and with 1,500 corrections (with 4,000 the seeds lie too
# far apart to say); a tenth or less brings nothing that three seeds could show. So with this base
# model the paper's 20 % is a fair choice where words are new, and needless where they are not.

# %% [markdown]
# And is it the *copying* that matters? The same share of the steps on something else: identity rows
# of corrected words only; the answers alone, behind their question (the words are seen, nothing is
# copied); identity rows mixed in with the corrections; lists of random words said twice. First
# line: fault-free answers and good ones kept, on unseen words, and the net win overall in the other
# language. Below it, what each of the others gains or loses against it:

# %%
kinds = read_results("warmup_arms")
COLUMNS = (
    ("fault_free_unseen", "rate"),
    ("kept_unseen", "rate"),
    ("net_win_overall_language", "points"),
)
print(
    f"{'identity, all words':22}"
    + "".join(f"{recorded(record, metric, unit, **cell(0.2))!s:30}" for metric, unit in COLUMNS)
)
for name, where, params in [
    ("none at all", record, cell(0.0)),
    *((c["params"]["arm"], kinds, c["params"]) for c in kinds["cells"] if c["seed"] == 0),
]:
    gains = [
        recorded_difference(where, metric, params, cell(0.2), unit, other=record)
        for metric, unit in COLUMNS
    ]
    print(f"{name:22}" + "".join(f"{gain!s:30}" for gain in gains))
for arm in ("corrected words only", "random words"):
    metric = "net_win_overall_language"
    gain = recorded_difference(kinds, metric, {"arm": arm}, cell(0.0), "points", other=record)
    print(f"{arm}, against none at all, other language: {gain}")

# %% [markdown]
# Which words are copied matters more than that something is copied. In the other language, identity
# rows of *corrected words only* cost twelve points, and lists of random words as many; by the last
# two lines that is worse than no warm-up at all. Rows *mixed in* with the corrections leave fewer
# answers mended, by nine points. The fair rival is *answers alone*, where the words are seen and
# never copied: it keeps a few good answers fewer, and otherwise three seeds cannot tell it from
# identity rows. So part of what the warm-up gains in the other language may be mere sight of its
# words.

# %% [markdown]
# ## Correcting or answering?
#
# Does the Aligner *use* the upstream's answer, or has it merely learned to answer well? One that
# was trained on the same questions, corrections and steps with every answer left out, and tested
# without answers (recorded):

# %%
answering = read_results("answering")
for test in ("seen", "unseen"):
    blind = recorded(answering, f"fault_free_{test}")
    gain = recorded_difference(record, f"fault_free_{test}", cell(0.0), {}, other=answering)
    print(f"{test:8}fault-free by answering {blind}; correcting gives more by {gain}")
print("kept as the metric:", metrics.add("answering_vs_correcting", gain))

# %% [markdown]
# On seen words, answering stays about nine points behind correcting. On words that no correction
# ever held it is about nineteen, give or take nearly as many: the upstream's answer is worth most
# where the Aligner has no words of its own, since what it cannot say it can still copy.

# %% [markdown]
# ## Can one train it for too long?
#
# The same training, shorter and longer (recorded), and next to its scores a skill that no
# correction asks for: copying random words.

# %%
long = read_results("learning")
spent = sorted({c["params"]["steps"] for c in long["cells"]})
line = lambda metric: (spent, [recorded(long, metric, steps=n) for n in spent])
figure, [ax] = new_figure(
    "Longer training mends little more, and the model forgets how to copy random words",
    width=7,
    height=3.6,
)
curves(
    ax,
    {
        "fault-free, seen words": line("fault_free_seen"),
        "fault-free, unseen": line("fault_free_unseen"),
        "random words copied": line("copying"),
        "good answers kept": line("kept_seen"),
    },
    "steps of training in all",
    "%",
    100,
)
ax.set_xscale("log")
ax.set_xticks(spent, spent)
ax.minorticks_off()
metrics.save_figure(figure, "learning")
figure

# %% [markdown]
# After fifty steps half of the answers are mended already and most good ones reworded: leaving
# alone is what takes the time. By 250 steps, the lesson's, both are nearly as good as they get, and
# twice as many mend little more. Meanwhile a skill that no correction asks for fades. The base
# model copied every list of random words. Good answers it still copies, more and more: only the
# skill *outside* the format goes, so this does not contradict the first figure.

# %%
forgot = recorded_difference(long, "copying", {"steps": spent[-1]}, {"steps": 250})
for n in spent:
    print(f"random words copied after {n:4} steps  {recorded(long, 'copying', steps=n)}")
print(f"{spent[-1]} steps, less 250:", metrics.add("forget_copy", forgot))

# %% [markdown]
# What is not asked for is forgotten, in silence: neither the training loss nor the judge shows it.
# Lesson 06 is about keeping it.

# %% [markdown]
# ## Edits or rewrites?
#
# Lesson 01 made both: corrections that keep what was right, and answers as good in other words.
# Same questions, same answers, same steps (recorded). The set `combinations` has two or more faults
# in each answer, in pairings that training kept apart:

# %%
both = read_results("edit_or_rewrite")
for metric in (
    "fault_free_seen",
    "fault_free_unseen",
    "fault_free_combinations",
    "edit_ratio_seen",
    "kept_seen",
):
    unit = "ratio" if metric.startswith("edit") else "rate"
    edits, rewrites = (
        recorded(both, metric, unit, corrections=kind) for kind in ("edits", "rewrites")
    )
    gain = recorded_difference(
        both, metric, {"corrections": "edits"}, {"corrections": "rewrites"}, unit
    )
    print(f"{metric:24}edits {edits}, rewrites {rewrites}: {gain}")

# %% [markdown]
# On seen and on unseen words no difference in faultless answers can be told: this model learns to
# write a good answer anew as easily as to mend a bad one. Where every answer has several faults,
# writing anew is even ahead, by five points. What edits buy is what they were made for, a small
# difference: for each word of the answer they touch 0.3 words where rewrites touch 0.9, and they
# leave five good answers in six alone where rewrites, which say everything in other words, leave
# none. If somebody reads the difference, or pays for it, take edits. The paper argues that a small
# change is *easier to learn* than a whole answer; faultless answers do not show that here.

# %% [markdown]
# ## Controls: who else would have won?
#
# Three Aligners that should gain nothing: the base model untrained, the one trained on shuffled
# corrections, and one that copies every answer. If one of them wins, the judge is being fooled.

# %%
untrained = Aligner(model, tokenizer, task.template)
rows = task.tests[task.main]
controls = {
    "untrained": compare(untrained, rows),
    "shuffled": compare(control, rows),
    "copy everything": Comparison(task.judge, rows, [r.answer for r in rows]),
}
for name, comparison in controls.items():
    wins = ", ".join(
        f"{axis} {comparison.net_win(axis)}"
        for axis in comparison.scores_before
        if axis != "fault_free"
    )
    print(f"{name:16}{wins or 'no judge for these data'}")

# %% [markdown]
# None wins, and the first two ruin nearly everything.

# %% [markdown]
# ## Does it read the answer at all?
#
# This needs no judge. How much does the answer help to predict the correction? In nats per token of
# the correction: the loss with the answer left out, less the loss with it. And does the saving
# vanish when the answer is swapped with another row's?

# %%
value = value_of_answer(warm, rows)
print(f"held-out loss of the correction        {value['held_out_nll']}")
print(f"saved by knowing the answer            {value['answer']}")
print(f"saved by another row's answer          {value['swapped']}")
print(f"saved by its own rather than another's {value['own']}")

# %% [markdown]
# In the town the saving does not only vanish: another row's answer is partly copied, and does more
# harm than no answer.

# %% [markdown]
# ## Verdict

# %%
print(
    "fault-free before      ",
    metrics.add("fault_free_before", main["warm-up"].fault_free("before")),
)
print(
    "fault-free after       ", metrics.add("fault_free_after", main["warm-up"].fault_free("after"))
)
for axis in ("helpful", "harmless", "honest"):
    print(f"net win {axis:15}", metrics.add(f"net_win_{axis}", main["warm-up"].net_win(axis)))
    metrics.add(f"share_of_ceiling_{axis}", main["warm-up"].share_of_ceiling(axis))
    if axis != "harmless":
        metrics.add(f"control_shuffled_{axis}", controls["shuffled"].net_win(axis))
print(
    "net win overall, unseen",
    metrics.add("net_win_overall_unseen", unseen["warm-up"].net_win("overall")),
)
print("good answers kept      ", metrics.add("copy_good", main["warm-up"].good_kept()))
print("  without warm-up      ", metrics.add("copy_good_no_warmup", main["no warm-up"].good_kept()))
print(
    "warm-up gain, unseen   ",
    metrics.add("warmup_gain_unseen", unseen["warm-up"].gain_over(unseen["no warm-up"])),
)
seeds = tuple(per_seed(record, "fault_free_unseen", share=best, corrections=N))
metrics.add(
    "best_warmup_share",
    Estimate(
        best,
        min(tied),
        max(tied),
        len(seeds),
        "share of steps; low to high are not told apart",
        "recorded",
        seeds,
    ),
)
for name, metric in (
    ("held_out_nll", "held_out_nll"),
    ("answer", "value_of_answer"),
    ("swapped", "value_of_swapped_answer"),
    ("own", "value_of_own_answer"),
):
    metrics.add(metric, value[name])
print("written to", metrics.write().name)

# %% [markdown]
# Can a small model learn to correct? On the town, yes: after 250 steps two answers in three have no
# fault, where one in five had none before, on words never corrected too, and about four in five
# good answers come back as they were. Some faults are mended less often: of the answers with a
# forgotten caution, a false claim or a step left out, about half are faultless afterwards. A
# warm-up with identity rows changes nothing that six seeds could show on words that corrections
# hold, costs two points of faultless answers on words they do not, and in another language wins
# five points more overall: answers there get less bad, and no more of them perfect. Its time is
# earlier, when the base model is about to learn to copy.
#
# | the paper | here |
# |---|---|
# | an Aligner of 2 to 13 B parameters raises helpfulness and harmlessness of 11 upstream models (Table 1) | 0.9 M parameters, one upstream it was not trained on: the net wins above |
# | warming up on 20 % identity rows is best (Fig. 3; the evidence is thin) | with a base that can copy, no gain on the town's own words, about five points of net win in another language (six seeds, above); with a base about to learn it, 22 points on words never corrected (from -67 to -45: less harm, no good yet) |

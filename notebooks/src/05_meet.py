# %% [markdown]
# # 05 · Can one model hold several preferences?
#
# So far a model had one way to answer, and alignment meant to change it. But people want different
# things, and one person wants different things at different times. *MEET* ([arXiv
# 2310.00819](https://arxiv.org/abs/2310.00819)) keeps several preferences in one model, each behind
# a **control** that is put before the question: a good one and a bad one, a warm one and a plain
# one. Its idea is the order: first train the controls alone, with the language model frozen, so
# that they learn all they can; then the model, conditioned on them. **In this lesson** you
#
# - build a soft prompt by hand: words that no vocabulary has;
# - see what a control can do to a model that stands still, and what it cannot;
# - train the model with its controls, beside the usual way (one special token, trained jointly with
#   the model);
# - turn a dial from bad to good, and beyond;
# - look at what the controls have become;
# - see what size, order and mixing of controls do, over seeds (*recorded*);
# - and compare with what else can be made of the same pairs: words as controls, plain fine-tuning,
#   DPO (*recorded*).
#
# About 3 minutes and 1 GB on 2 CPU cores; it needs nothing of the lessons before; four exercises,
# about 26 minutes.

# %% tags=["parameters"]
PROFILE = "tiny"  # or "colab", "gpu"
SEED = 0
SCALE = 1.0  # less: shorter trainings and smaller sets, for a quick look
MODEL = None  # your own base model: a folder or a hub id
QAC = None  # your own rows: question, answer, correction (or preference pairs)
PREFERENCES = None
OUT = None  # where metrics and figures go; None: runs/05

# %% [markdown]
# The *task* holds preference pairs, base model and judge.

# %%
from dataclasses import replace
from itertools import product

import numpy as np
import torch

from alignlib import ControlSettings, Meet, Metrics, Mix, load_model, load_task
from alignlib.controls import conditioned_on, prompt_embeddings, with_controls
from alignlib.course.checks import lesson05 as check
from alignlib.course.guess import Guess
from experiments.meet_controls import ARMS, SIZES, STARTS, BOTH_STEPS, axis_controls
from experiments.meet import BASES, BASELINES, BEST, METHODS, TEMPERATURES, TINY, TRIALS
from alignlib.course.sweep import per_seed, read_results, recorded, recorded_difference
from alignlib.interpret import attention
from alignlib.plots import bars, curves, heatmap, new_figure
from alignlib.report import describe
from alignlib.stats import (
    bootstrap_mean,
    net_win,
    over_seeds,
    paired,
    rate,
    smallest_difference,
    wins,
)
from alignlib.tinytown.sets import AXES
from alignlib.tokens import encode

metrics = Metrics("05", PROFILE, SEED, OUT)
task = load_task(PROFILE, seed=SEED, scale=SCALE, model=MODEL, qac=QAC, preferences=PREFERENCES)
model, tokenizer = load_model(task.base)
takes = lambda p: (
    20
    + len(encode(tokenizer, p.prompt + task.answer_cue))
    + max(90, len(encode(tokenizer, p.chosen)))
)  # a control, a question, an answer
held = [p for p in task.pairs("test") if takes(p) <= model.config.max_position_embeddings][:200]
assert held, (
    "no test question fits the model's context with a control and an answer; shorten the "
    "questions, or take a model with a longer context"
)
print(task.describe())
print(f"{len(task.pairs('train'))} preference pairs to train on, {len(held)} to test on")

# %% [markdown]
# A pair is a question with two answers, one preferred to the other. Here the one is *without a
# fault* (true to the board, complete, polite, safe: Tinytown's judge is a program that knows), and
# the other has a few. The judge's marks for being helpful, harmless and honest, from 0 to 1, make a
# mean mark, *overall*.

# %%
pair = held[min(1, len(held) - 1)]
print(pair.prompt, "\n  preferred:", pair.chosen, "\n  rejected: ", pair.rejected)

# %% [markdown]
# A model learns $p(y \mid x)$: what to say to a question. With a control $c$ in front it learns
# $p(y \mid c, x)$: what to say if asked like *this*. The preferred answers are what it should say
# behind *good*, the rejected ones behind *bad*; and afterwards we ask for *good*. No pair is ever
# compared with its other half, as DPO (*direct preference optimisation*, lesson 03) does. All that
# is needed are texts of each kind.

# %% [markdown]
# ## A control by hand
#
# What is a control made of? The obvious thing is a word: *good :*. But words are few, and each is
# one point in the space of embeddings. A model reads embeddings, not words, so we can put *any*
# points before the text, and move them by gradient descent until they do what we want. That is a
# **soft prompt**: $n$ virtual tokens, each as wide as an embedding.

# %% [markdown]
# ### Exercise 1 · before the text (8 minutes, easy)
#
# `control` are the virtual tokens, (n, width); `words` the embeddings of a batch of texts, (rows,
# length, width). What the model reads is (rows, n + length, width). By hand: a control [9, 9] and a
# text of two words [1, 2], [3, 4] give [9, 9], [1, 2], [3, 4].
#
# <details><summary>Hint</summary><code>np.broadcast_to(control, (rows, *control.shape))</code> is the control once for each row.</details>


# %% tags=["exercise"]
def soft_prompt(control: np.ndarray, words: np.ndarray) -> np.ndarray:
    """The control before every row of the batch: (n, width) and (rows, length, width) give
    (rows, n + length, width).
    """
    ...  # your code here


# %% tags=["solution"]
def soft_prompt(control: np.ndarray, words: np.ndarray) -> np.ndarray:
    """The control before every row of the batch: (n, width) and (rows, length, width) give
    (rows, n + length, width).
    """
    every = np.broadcast_to(control, (len(words), *np.shape(control)))
    return np.concatenate([every, words], axis=1)


# %% tags=["check"]
soft_prompt = check.soft_prompt(soft_prompt)

# %% [markdown]
# ### Exercise 2 · labels (5 minutes, easy)
#
# The text became longer at the front, so its labels must too: one for each input, and none of the
# control's tokens is to be foretold. (-100 is the label of a token without loss.)
#
# <details><summary>Hint</summary>Two lists, one behind the other.</details>


# %% tags=["exercise"]
def labels_behind(n: int, labels: list[int]) -> list[int]:
    """The labels of a text behind n virtual tokens."""
    ...  # your code here


# %% tags=["solution"]
def labels_behind(n: int, labels: list[int]) -> list[int]:
    """The labels of a text behind n virtual tokens."""
    return [-100] * n + list(labels)


# %% tags=["check"]
labels_behind = check.labels_behind(labels_behind)

# %% [markdown]
# The library leaves soft prompts to PEFT (Hugging Face's *parameter-efficient fine-tuning*). The
# same text, behind the same control, by hand and by library; shapes first:

# %%
five = with_controls(model, tokenizer, ["good", "bad"], ControlSettings("prompt", 5, seed=SEED))
ids = torch.tensor([encode(tokenizer, pair.prompt + task.answer_cue)], device=model.device)
control = five.prompt_encoder["good"].embedding.weight.detach().cpu().numpy()
words = model.get_input_embeddings()(ids).detach().cpu().numpy()
read = soft_prompt(control, words)
print("control", control.shape, "text", words.shape, "read", read.shape)
labels = torch.tensor([labels_behind(len(control), ids[0].tolist())], device=model.device)
with torch.no_grad():
    by_hand = model(inputs_embeds=torch.tensor(read, device=model.device), labels=labels)
    five.set_adapter("good")
    by_library = five(input_ids=ids, labels=ids)
print(
    "by hand and by PEFT the same loss:",
    bool(torch.isclose(by_hand.loss, by_library.loss)),
    f"({by_hand.loss:.4f})",
)

# %% [markdown]
# ### Where should it start?
#
# PEFT starts a soft prompt at random, with a standard deviation near 1. How long are such vectors,
# beside the embeddings of words? And what does a control that nobody has trained yet do to the
# answer?

# %%
rows = held[:100]
asked, preferred = [p.prompt + task.answer_cue for p in rows], [p.chosen for p in rows]
print(f"a word's embedding is {model.get_input_embeddings().weight.norm(dim=1).mean():.2f} long")


def untrained(start: str) -> str:
    """How long a fresh control's tokens are, and what it costs before anybody has trained it."""
    fresh = Meet(
        with_controls(
            load_model(task.base)[0],
            tokenizer,
            ["good"],
            ControlSettings("prompt", 20, start, seed=SEED),
        ),
        tokenizer,
    )
    harm = bootstrap_mean(
        (fresh.logprob(asked, preferred, None) - fresh.logprob(asked, preferred, "good")).numpy(),
        "nats",
    )
    return (
        f"{prompt_embeddings(fresh.model, 'good').norm(dim=1).mean():6.2f} long; "
        f"untrained, it costs {harm} a token of the preferred answers"
    )


for start in ("unit", "random", "vocabulary"):
    print(f"{start + (' (PEFT)' if start == 'unit' else ''):13}{untrained(start)}")

# %% [markdown]
# PEFT's own start (*unit*) is five times as long as our words, and yet none of the three does much
# harm: what an untrained control costs is 0.001 or 0.002 nats, as log-likelihood is counted. In
# larger models, whose embeddings are a few hundredths in each direction, the difference should be
# much greater, and a control that starts far outside of all words may learn slowly.

# %% [markdown]
# The library starts at the embeddings of words drawn from the vocabulary: the right length, and in
# directions that the model knows. Whether it *matters* after training, a recorded comparison
# further down asks.

# %% [markdown]
# ## Step 1: the controls alone
#
# The model is frozen, bit for bit; only 20 virtual tokens of each control are trained, on the
# preferred answers and on the rejected ones in turn, by plain likelihood: 75 steps, 38 for the one
# and 37 for the other. Answers are then drawn from the model's probabilities, *as it speaks*
# (temperature 1). First a guess:

# %%
guess = Guess(
    "with the model frozen, the good control leaves 10 answers of a hundred more without a "
    "fault than the bad one",
    probability=None,
)

# %%
TWENTY = ControlSettings("prompt", 20)
first = task.meet(SEED, TWENTY, "first")
same = all(
    torch.equal(a, b)
    for a, b in zip(
        load_model(task.base)[0].parameters(), first.model.get_base_model().parameters()
    )
)
print(
    f"weights of the language model unchanged: {same}; a control has "
    f"{100 * first.control_share:.2f} % of its parameters"
)

questions = [p.prompt for p in held]


def answers(meet, control, temperature: float = 1.0) -> list[str]:
    """What is answered to the test's questions under a control; at temperature 1 as the model
    speaks.
    """
    return meet.generate(
        [q + task.answer_cue for q in questions],
        control,
        max_new_tokens=90,
        temperature=temperature,
        seed=SEED,
    )


def faultless(texts: list[str]):
    """Whether each answer is without a fault, if there is a judge who can tell."""
    return (
        task.judge.scores(questions, texts)["fault_free"]
        if "fault_free" in task.judge.axes
        else None
    )


def sound(texts: list[str]):
    """The share of them."""
    return None if (found := faultless(texts)) is None else rate(found == 1)


alone = {control: answers(first, control) for control in ("bad", None, "good")}
for control, texts in alone.items():
    print(f"{control or 'no control':10} fault-free {describe(sound(texts))}")
print(
    guess.reveal(
        None
        if sound(alone["good"]) is None
        else paired(faultless(alone["good"]), faultless(alone["bad"])),
        0.1,
        metrics,
    )
)

# %% [markdown]
# It can, a little. With 0.3 % of the model's parameters and 38 steps each, 25.5 answers of a
# hundred are faultless behind the good control, 19 behind the bad one, 20.5 behind none: 6.5 points
# between them, with an interval from 0.5 to 12. Is that as far as a frozen model can be moved? By
# no means. Here are both kinds of controls with *all* 250 steps for themselves (*recorded*, three
# seeds; LoRA is explained below):

# %%
record = read_results("controls")


def behind(params: dict) -> str:
    """Fault-free answers, as the model speaks, behind either control."""
    return ", ".join(
        f"{end} {recorded(record, f'sound_1_{end}', **params)}" for end in ("good", "bad")
    )


for kind in ("prompt", "lora"):
    print(
        f"{kind:7}alone for all 250 steps: fault-free "
        f"{behind(BOTH_STEPS[kind] | {'arm': 'step 1 alone'})}"
    )

# %% [markdown]
# LoRA's control of rank 8, thirty times as heavy, moves a model that stands still by forty points:
# 48 answers of a hundred without a fault behind *good*, 8.5 behind *bad*. Twenty virtual tokens
# come to 30.5 and 13 with all the steps there are. So what step 1 can do hangs on the control, and
# on how long it is trained.

# %% [markdown]
# A second measure is finer than counting: by how much the preferred answer of each pair is likelier
# behind *good* than behind *bad*.


# %%
def more_likely(meet):
    """log p(preferred | good) - log p(preferred | bad), nats a token, over the test."""
    given = [p.prompt + task.answer_cue for p in held], [p.chosen for p in held]
    return bootstrap_mean(
        (meet.logprob(*given, "good") - meet.logprob(*given, "bad")).numpy(), "nats"
    )


gaps, after_1 = (
    {"step 1 alone": more_likely(first)},
    {c: prompt_embeddings(first.model, c) for c in ("good", "bad")},
)
vocabulary = model.get_input_embeddings().weight.detach().clone()
print("step 1 alone: good less bad", gaps["step 1 alone"])

# %%
del (
    first,
    five,
    model,
)  # done with; on a GPU they would be in the way (to run what is above again, start from the top)

# %% [markdown]
# ## Step 2: the model, conditioned on them
#
# Now all weights learn for 175 steps more, the controls along with them, on the same rows; and
# beside it the usual way: *one* special token for each kind, trained together with the model from
# the start, for 250 steps, as many as MEET's two together.

# %%
both = task.meet(SEED, TWENTY)
usual = task.meet(SEED, ControlSettings("prompt", 1), "joint")
MODELS = {"MEET": both, "one token": usual}
texts = {"step 1 alone": alone} | {
    name: {control: answers(m, control) for control in ("bad", "good")}
    for name, m in MODELS.items()
}

# %% [markdown]
# The same question, asked in each way:

# %%
for name in MODELS:
    for control in ("bad", "good"):
        print(f"{name:10}{control:5} {texts[name][control][held.index(pair)]}")
print(pair.prompt)

# %% [markdown]
# Both *good* answers name the right place, the *bad* ones do not; but all four refuse what is no
# danger. Faults remain behind *good* too. What does a control change, then, by both measures?

# %%
gaps |= {name: more_likely(m) for name, m in MODELS.items()}
metrics.add("good_minus_bad_logprob", gaps["MEET"])
for name, gap in gaps.items():
    print(
        f"{name:13} good less bad {gap}   fault-free: bad "
        f"{describe(sound(texts[name]['bad']))}, good {describe(sound(texts[name]['good']))}"
    )

# %% [markdown]
# And MEET against the usual way, both asked for *good*:

# %%
scores = {name: task.judge.scores(questions, texts[name]["good"]) for name in texts}
if task.judge.axes:
    metrics.add(
        "meet_vs_ctg_live", net_win(scores["one token"]["overall"], scores["MEET"]["overall"])
    )
    least = smallest_difference(
        100 * wins(scores["one token"]["overall"], scores["MEET"]["overall"]),
        np.zeros(len(questions)),
    )
    print(f"a true net win of {least:.0f} points would show 4 times in 5")
print(
    "net win of MEET over one token, as the models speak:",
    describe(metrics.values.get("meet_vs_ctg_live")),
)

# %% [markdown]
# Asked for *good*, MEET leaves 36 answers of a hundred without a fault, asked for *bad* 14: one
# model, two manners, and step 2 has made a handle of what was hardly one. Behind *good* each token
# of a preferred answer is likelier than behind *bad*, by 0.052 nats. But between MEET and the one
# token, trained jointly, no difference can be seen: it wins -4 points net (answers that are better
# less those that are worse, of a hundred), and the interval, -15 to 7, leaves either ahead.

# %% [markdown]
# That is not what the paper led us to expect. And in a first version of this lesson it came out the
# other way: MEET won 13 points net, [3, 24]. What had been different? There the one token learned
# at the model's learning rate, as "jointly" seems to say, and MEET's control, while it was alone,
# at seventeen times that. Here both controls learn alike. So it may have been the *rate* that won,
# and not the order. **Before you believe in an idea, ask what else the comparison changes along
# with it.** Even now three things differ: the order; twenty tokens against one; and that both
# models learn at a rate that suits the one token best (MEET's best is a third of it, a table
# further down shows). And one seed and 200 questions miss a net win of 15 points one time in five.
# The recorded comparisons further down change one thing at a time.

# %% [markdown]
# ## The figure that answers the question
#
# A control is a place, and places have others between them. What does a model do half-way between
# *bad* and *good*?

# %% [markdown]
# ### Exercise 3 · between two controls (5 minutes, easy)
#
# Two controls are two points, and there are points between them: at `w` = 0 the bad one, at 1 the
# good one, at 0.5 the middle; at 1.5 beyond the good one, as far again as from the middle to it.
#
# <details><summary>Hint</summary>The two weights sum to 1.</details>


# %% tags=["exercise"]
def between(good: np.ndarray, bad: np.ndarray, w: float) -> np.ndarray:
    """The point at w on the line from the bad control (0) through the good one (1)."""
    ...  # your code here


# %% tags=["solution"]
def between(good: np.ndarray, bad: np.ndarray, w: float) -> np.ndarray:
    """The point at w on the line from the bad control (0) through the good one (1)."""
    return w * np.asarray(good) + (1 - w) * np.asarray(bad)


# %% tags=["check"]
between = check.between(between)

# %% [markdown]
# By library it is a `Mix`. The model was never trained between its controls. What does it do there?

# %%
good, bad = (prompt_embeddings(both.model, c).cpu().numpy() for c in ("good", "bad"))
print(
    "by hand and by library the same:",
    np.allclose(
        between(good, bad, 0.3),
        prompt_embeddings(both.model, Mix(good=0.3, bad=0.7)).cpu().numpy(),
        atol=1e-6,
    ),
)
dial, said = (
    [-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5],
    {0.0: "bad", 1.0: "good"},
)  # the ends are known by now
at = lambda name, w: (
    texts[name][said[w]] if w in said else answers(MODELS[name], Mix(good=w, bad=1 - w))
)
turned = (
    {name: [sound(at(name, w)) for w in dial] for name in MODELS}
    if "fault_free" in task.judge.axes
    else {}
)
figure, [ax] = new_figure(
    "Between its controls a model goes from bad to good, most of the way in the middle",
    width=7,
    height=3.8,
)
curves(
    ax,
    {name: (dial, line) for name, line in turned.items()},
    "weight of the good control: 0 bad, 1 good, beyond them drawn out",
    "answers without a fault, %",
    100,
)
metrics.save_figure(figure, "dial")
print(
    "MEET: "
    + ", ".join(f"at {w:g} {100 * e.value:.1f} %" for w, e in zip(dial, turned.get("MEET", [])))
)
figure

# %% [markdown]
# This is the figure that answers the question: one model, and it shows what it is asked for. From
# 14 % faultless answers at the bad control to 36 % at the good one, the most of it between a
# quarter and three quarters of the way: more a switch than a dial. Beyond the ends nothing more is
# won. One token does much the same. (MEET's paper does not mix controls; that the way between two
# of them is passable is our addition.)

# %% [markdown]
# Over three seeds, and with controls of both kinds (*recorded*):

# %%
for kind in ("prompt", "lora"):
    print(
        f"{kind:7}fault-free: "
        + ", ".join(
            f"at {w:g} {recorded(record, f'sound_at_{w:g}', **BOTH_STEPS[kind])}" for w in dial
        )
    )

# %% [markdown]
# (Behind *good* there are 43 here, and 36 above: live, the model learns at 0.003, here at 0.001,
# which was best for twenty tokens on validation.) Over seeds, too, the soft prompt goes most of its
# way between a quarter and three quarters. LoRA is more of a dial: 10, 21, 36, 46, then 48. Past
# *good*, at 1.5, neither wins anything; past *bad*, at -0.5, LoRA leaves 1 answer of a hundred
# faultless. Perhaps a good answer is a narrower target than a bad one.

# %% [markdown]
# ## What have the controls become?
#
# A virtual token is a point among the words' embeddings. Which words are its neighbours, and how
# far has it moved from where it started?

# %%
unit = lambda some: torch.nn.functional.normalize(some, dim=1)
start = {
    c: prompt_embeddings(
        with_controls(
            load_model(task.base)[0], tokenizer, ["good", "bad"], replace(TWENTY, seed=SEED)
        ),
        c,
    )
    for c in ("good", "bad")
}
for name, points in (
    ("step 1 alone", after_1),
    ("MEET", {c: prompt_embeddings(both.model, c) for c in start}),
):
    for c in ("good", "bad"):
        near, home = (
            (unit(points[c]) @ unit(vocabulary).T).max(1),
            (unit(start[c]) @ unit(vocabulary).T).argmax(1),
        )
        print(
            f"{name:13}{c:5} length {points[c].norm(dim=1).mean():.2f}, likeness to the "
            f"nearest word {near.values.mean():.2f}, which is the one "
            f"it started from in {100 * (near.indices == home).float().mean():.0f} %: "
            f"{' '.join(tokenizer.convert_ids_to_tokens(near.indices[:5].tolist()))} ..."
        )

# %% [markdown]
# After step 1 the nearest words are, for at least 19 tokens in 20, those from which they started,
# at random: *rulox*, *hall*, *candle*. They have moved away from them, to a likeness of 0.6 to 0.7,
# and grown by half; but they did not come to lie at other words. Step 2, in which they learn on,
# takes them further: twice as long as a word, half alike to any, and one in six now nearest to
# another word than at the start. None spells anything: a soft prompt is not a hidden sentence that
# one could read.

# %% [markdown]
# Who looks at them? The share of attention that the last word before the answer gives to the
# control's 20 tokens, by layer, over twenty questions; evenly spread it would be the control's
# share of all tokens:

# %%
shares, even = [], []
with conditioned_on(both.model, "good") as (lm, virtual):
    for q in questions[:20]:
        row = virtual + encode(tokenizer, q + task.answer_cue)
        head_attention = attention(lm, torch.tensor([row], device=lm.device))[
            :, 0, :, -1, : len(virtual)
        ]  # (layers, heads, control)
        shares.append(head_attention.sum(-1).cpu().numpy())
        even.append(len(virtual) / len(row))
for layer, heads in enumerate(np.mean(shares, axis=0)):
    print(
        f"layer {layer}: "
        + ", ".join(f"head {h} {100 * share:.0f} %" for h, share in enumerate(heads))
    )
print(f"evenly spread: {100 * np.mean(even):.0f} %")

# %% [markdown]
# (Layers and heads are counted from 0.) In layer 0 nobody looks. In layer 3, head 2 spends nine
# tenths of its attention on the control, where 31 % would be even. That shows that it is looked at;
# it does not show what for. Heads often rest on whatever stands first, for want of anything else to
# look at. Lesson 04 has the tools to find out: silence the head, and ask again.

# %% [markdown]
# And are all twenty needed? So many of them put to zero, drawn at random; and by the finer measure,
# how much likelier the preferred answer is behind what is left of *good* than behind *bad*:

# %%
weight = both.model.prompt_encoder["good"].embedding.weight


def without(zeroed: np.ndarray):
    """The measure with some of the good control's tokens put to zero, and back again."""
    kept = weight.detach().clone()
    try:
        weight.data[torch.tensor(zeroed)] = 0
        return more_likely(both)
    finally:
        weight.data.copy_(kept)


draw = np.random.default_rng(SEED)
for n in (0, 5, 10, 10, 15, 20):
    print(
        f"{n:2} of {len(weight)} put to zero: good less bad "
        f"{without(draw.permutation(len(weight))[:n])}"
    )

# %% [markdown]
# With fifteen of the twenty gone nothing changes, in this draw: what the tokens do, few of them can
# do. And with *all* of them at zero (which is not the same as no control) 0.043 of the 0.052 nats
# are still there: the larger part of the difference is what *bad* does to an answer, not what
# *good* does.

# %% [markdown]
# ## LoRA: the other kind of control
#
# A control may also be a small change of the weights: to each matrix $W$ (rows × columns) a product
# $B A$ of two thin ones is added, $B$ (rows × rank) and $A$ (rank × columns). With the control's
# name the change is switched on.

# %% [markdown]
# ### Exercise 4 · what LoRA weighs (8 minutes, medium)
#
# `shapes` are the matrices that get one, `total` the model's parameters. What share of them does
# LoRA of this rank add? By hand: rank 1 on one matrix of 4 × 4, in a model of 16 parameters: 8 of
# 16, a half.
#
# <details><summary>Hint</summary>Two thin matrices a shape.</details>


# %% tags=["exercise"]
def lora_share(rank: int, shapes: list[tuple[int, int]], total: int) -> float:
    """Parameters of LoRA matrices of this rank, as a share of the model's."""
    ...  # your code here


# %% tags=["solution"]
def lora_share(rank: int, shapes: list[tuple[int, int]], total: int) -> float:
    """Parameters of LoRA matrices of this rank, as a share of the model's."""
    return sum(rank * (rows + columns) for rows, columns in shapes) / total


# %% tags=["check"]
lora_share = check.lora_share(lora_share)

# %%
plain = load_model(task.base)[0]
shapes = [
    tuple(m.weight.shape)
    for name, m in plain.named_modules()
    if isinstance(m, torch.nn.Linear) and m is not plain.get_output_embeddings()
]
by_hand = lora_share(8, shapes, plain.num_parameters())
by_library = Meet(
    with_controls(plain, tokenizer, ["good"], ControlSettings("lora", 8)), tokenizer
).control_share
print(
    f"rank 8 on every linear layer: {100 * by_hand:.2f} % of the model; by hand and by "
    f"library the same: {np.isclose(by_hand, by_library)}"
)

# %% [markdown]
# That is thirty times what a soft prompt of 20 tokens weighs.

# %% [markdown]
# ## Which control, how large, and does the order matter?
#
# What follows is *recorded*: the pairs above, 250 steps in all, and the learning rates that were
# best on validation for 20 tokens and for rank 8. Three seeds each, which draw the controls, the
# order of the rows and the answers; the pairs and the 200 test questions are always the same, so
# the intervals do not cover other ones. MEET's paper finds that larger controls do better. Nine
# sizes:


# %%
def sizes(kind: str) -> list[dict]:
    return [c for c in SIZES if c["kind"] == kind]


figure, axes = new_figure(
    "At one learning rate each, larger controls mostly do better behind good",
    width=12,
    height=3.8,
    columns=2,
)
for ax, kind, name in zip(
    axes,
    ("prompt", "lora"),
    ("soft prompts of 1, 5, 20, 50, 100 tokens", "LoRA: rank 1 on 2, on 16, rank 2 on all, rank 8"),
):
    shares = [100 * recorded(record, "share", **c).value for c in sizes(kind)]
    curves(
        ax,
        {
            f"asked for {end}": (
                shares,
                [recorded(record, f"sound_1_{end}", **c) for c in sizes(kind)],
            )
            for end in ("good", "bad")
        },
        f"% of the model's parameters ({name})",
        "answers without a fault, %",
        100,
    )
    ax.set(xscale="log", ylim=(0, 62))
    ax.xaxis.set_major_formatter("{x:g}")
metrics.save_figure(figure, "size")
figure

# %% [markdown]
# Is that a slope? A line through each seed's points over the logarithm of the size, and the seeds'
# slopes with their interval. (LoRA's small controls sit on fewer matrices, so its line is of rank
# and place together.)


# %%
def over(by_seed: dict[int, float]):
    """A difference with its t interval, seeds as units."""
    return replace(
        over_seeds(list(by_seed.values()), "difference", tuple(by_seed)), source="recorded"
    )


def tenfold(size: list[float], found: list[dict[int, float]]) -> dict[int, float]:
    """By seed, what ten times the size adds to a metric: the slope of the line."""
    return {seed: np.polyfit(np.log10(size), [f[seed] for f in found], 1)[0] for seed in found[0]}


def slope(kind: str, metric: str):
    """What ten times as many parameters in the control add to a metric."""
    size = [recorded(record, "share", **c).value for c in sizes(kind)]
    return over(tenfold(size, [per_seed(record, metric, **c) for c in sizes(kind)]))


for kind in ("prompt", "lora"):
    metrics.add(f"scaling_slope/{kind}", slope(kind, "sound_1_good"))
    print(
        f"{kind:7}ten times the size, as the model speaks: good "
        f"{slope(kind, 'sound_1_good')}, bad {slope(kind, 'sound_1_bad')}; likeliest answers, "
        f"good {slope(kind, 'sound_0_good')}"
    )
prompts = {c["size"]: c for c in sizes("prompt")}
for more, fewer in ((20, 1), (100, 20)):
    print(
        f"{more} tokens less {fewer}: "
        f"{recorded_difference(record, 'sound_1_good', prompts[more], prompts[fewer])}"
    )
one, twenty, hundred = (prompts[n] | {"arm": "faster model"} for n in (1, 20, 100))
print(
    f"the model at three times the rate: 1 token {behind(one)}; 20 tokens less 1 "
    f"{recorded_difference(record, 'sound_1_good', twenty, one)}, "
    f"100 less 1 {recorded_difference(record, 'sound_1_good', hundred, one)}"
)

# %% [markdown]
# So it seems: ten times the size adds 5.2 points of faultless answers behind a good soft prompt
# (though the interval begins at 0.0), and 3.9 [1.5, 6.4] behind good LoRA matrices. Twenty tokens
# beat one by 11.3 points [8.2, 14.5]; five times as many again win nothing that can be seen, -3.5
# [-12.2, 5.2]. But we have been warned: what else changes along with the size? The learning rates
# were chosen *for twenty tokens*. With the model at three times the rate one token comes to 38 %,
# and twenty are ahead by 2.8 points [-8.4, 14.0], a hundred by -0.5 [-3.8, 2.8]. So of the paper's
# "larger is better" most may be a rate that suits the larger. (Of the likeliest answers, at
# temperature 0, no slope is seen at all: what a stronger control adds is certainty.)

# %% [markdown]
# Now the order. The same 250 steps spent otherwise: all on the controls (*step 1 alone*); all on
# the model, behind controls that stay as they were drawn (*step 2 alone*; LoRA starts at no change
# at all, so for it there is no such thing); on both from the start (*joint*). And *no pairs*: as
# many texts of either kind, but to different questions, as DPO could not use them.

# %%
guess = Guess(
    "controls first, then the model, leaves more faultless answers behind a good soft prompt "
    "than both from the start",
    probability=None,
)

# %%
NAMES = {
    "both steps": "both\nsteps",
    "joint": "joint",
    "step 1 alone": "step 1\nalone",
    "step 2 alone": "step 2\nalone",
    "no pairs": "both,\nno pairs",
}
figure, axes = new_figure(
    "First or along with the model, controls give the same; a soft prompt needs its model to learn",
    width=12,
    height=4,
    columns=2,
)
for ax, kind in zip(axes, ("prompt", "lora")):
    arms = {c["arm"]: c for c in (BOTH_STEPS[kind], *ARMS) if c["kind"] == kind}
    bars(
        ax,
        {
            f"asked for {end}": {
                name: recorded(record, f"sound_1_{end}", **arms[arm])
                for arm, name in NAMES.items()
                if arm in arms
            }
            for end in ("bad", "good")
        },
        f"{kind}: answers without a fault, %",
    )
    ax.set_ylim(0, 62)
metrics.save_figure(figure, "order")
figure


# %%
def less(one: dict, other: dict) -> str:
    """Differences behind the good control, seeds paired; the mean mark varies less by chance
    than a count of faultless answers.
    """
    faultless, mark = (
        recorded_difference(record, metric, one, other, unit)
        for metric, unit in (("sound_1_good", "rate"), ("overall_1_good", "of 1"))
    )
    return f"fault-free {faultless!s:38} mean mark {mark}"


for kind in ("prompt", "lora"):
    for other in (c for c in ARMS if c["kind"] == kind):
        print(f"{kind:7}both steps less {other['arm']:13}{less(BOTH_STEPS[kind], other)}")
print(
    guess.reveal(
        recorded_difference(
            record, "sound_1_good", BOTH_STEPS["prompt"], BOTH_STEPS["prompt"] | {"arm": "joint"}
        ),
        0,
        metrics,
    )
)

# %% [markdown]
# This is the heart of the paper, and we do not see it here: whether controls come first or both
# learn from the start, no difference shows. 0.2 points [-5.4, 5.8] for soft prompts, -0.5 [-11.7,
# 10.7] for LoRA. (By the mean mark soft prompts are even a little better *jointly*, by 0.008
# [0.004, 0.011]; but that is one of twelve intervals, and none to lean on.) The paper's reason is
# that a control trained jointly learns too little, being so much smaller than the model. But then
# it can be given a learning rate that suits it, which is far above the model's.

# %% [markdown]
# What else? A soft prompt needs the second step: alone, 12.5 points fewer [11.3, 13.7]. For LoRA no
# gain by it can be seen (0.3 points [-9.7, 10.4]; of the mean mark -0.004 [-0.025, 0.018]): with
# the model frozen to the end one has one model and a few small files, instead of a new model. A
# soft prompt that nobody trains is a handle too, but an unreliable one: three seeds lie between 26
# and 43 %. And without pairs no loss is seen: 2.0 points fewer, the interval from 10.7 fewer to 6.7
# more (it has met twice as many questions, though).

# %% [markdown]
# And where a soft prompt starts (from words of the vocabulary in what is above):

# %%
for other in STARTS:
    print(
        f"{other['start']:7}{behind(other)}; vocabulary less this: "
        f"{less(BOTH_STEPS['prompt'], other)}"
    )

# %% [markdown]
# *Random* points of a word's length, and the words of a fitting *text* ("a polite right complete
# answer", "a rude wrong short answer"), cannot be told from words drawn at random. PEFT's own start
# (*unit*), five times as long, costs a little: the mean mark is 0.019 lower [0.006, 0.032]. That is
# the only one of these six intervals that does not hold 0.

# %% [markdown]
# ## What else could be made of the pairs?
#
# *One token* each, trained jointly with the model (what MEET's paper calls controllable
# generation). *Words*: "better answer :" and "worse answer :" before texts, and texts behind one
# another (*chain of hindsight*, [arXiv 2302.02676](https://arxiv.org/abs/2302.02676)). The
# *preferred only*, by plain fine-tuning. And *DPO*: half of the steps plain fine-tuning, the other
# half DPO. All got the same pairs, 250 steps of 32 texts, and four trials on validation, of which
# the best is taken. On two tasks: questions, and *summaries*, where a bulletin is told in a line.
# Good summaries come easily to this model (its likeliest one is nearly always right), so a quarter
# of those pairs was labelled the wrong way round, as people will.

# %%
tuning = read_results("meet_tuning")
for about in ("qa", "summary"):
    for method in METHODS:
        marks_of = [
            per_seed(tuning, "overall", task=about, method=method, **trial)[0]
            for trial in TRIALS[method]
        ]
        print(
            f"{about:8}{method:13}" + "  ".join(f"{mark:.3f}" for mark in marks_of),
            "  best:",
            TRIALS[method][BEST[about, method]],
        )

# %% [markdown]
# (The mean of greedy and of sampled texts' marks, of 1; one seed, 200 prompts.) Such numbers choose
# settings and prove nothing: a method's trials lie within a few hundredths. A model's best rate is
# nowhere the fastest that was tried, except in plain fine-tuning on summaries, where the second
# fastest does as well; a control's best rate is, on summaries.

# %% [markdown]
# ### The comparison
#
# Now on the test, five seeds, each method at its best trial. Beside them the untouched base, and
# fine-tuning with *half* of the texts: MEET shows its model preferred answers in every second row
# only.

# %%
guess = Guess(
    "as the models speak, MEET by LoRA answers questions better than fine-tuning on the "
    "preferred answers alone",
    probability=None,
)

# %%
against = read_results("rivals_of_meet")
RIVALS = {
    "untouched": "untouched",
    "one token": "one\ntoken",
    "hindsight": "words",
    "sft, half": "preferred,\nhalf",
    "sft": "preferred\nonly",
    "dpo": "DPO",
}
WORK = {"qa": "questions", "summary": "summaries"}


def won(kind: str, rival: str, by: object = 1, about: str = "qa"):
    """Net win of MEET over a rival: by the exact judge at a temperature, or by another judge."""
    return recorded(against, f"meet, {kind}_over_{rival}_{by}", "points", task=about)


figure, axes = new_figure(
    "MEET by LoRA beats one token and words; plain fine-tuning and DPO it does not",
    width=12,
    height=4.2,
    columns=2,
)
for ax, (about, name) in zip(axes, WORK.items()):
    bars(
        ax,
        {
            f"MEET, {kind}": {
                label: won(kind, rival, about=about) for rival, label in RIVALS.items()
            }
            for kind in ("prompt", "lora")
        },
        f"{name}: net win over ..., points",
        percent=False,
    )
    ax.axhline(0, color="black", linewidth=0.8)
metrics.save_figure(figure, "rivals")
figure

# %%
for about, name in WORK.items():
    print(f"{name}, judge's mean mark of 1: as they speak | likeliest")
    for method in (*BASELINES, *METHODS):
        print(
            f"   {method:13}"
            + " | ".join(
                str(recorded(against, f"overall_{t}/{method}", "of 1", task=about)) for t in (1, 0)
            )
        )
for about, kind in product(WORK, ("lora", "prompt")):
    points = {
        rival: won(kind, rival, about=about)
        for rival in (*RIVALS, *({"lora": ("meet, prompt",), "prompt": ()}[kind]))
    }
    print(
        f"{about}, net win of MEET, {kind}, over: "
        + ", ".join(
            f"{rival} {e.value:.1f} [{e.low:.1f}, {e.high:.1f}]" for rival, e in points.items()
        )
    )
for rival, short in (("one token", "ctg"), ("hindsight", "coh"), ("sft", "sft"), ("dpo", "dpo")):
    for about in WORK:
        metrics.add(f"meet_vs_{short}/{about}", won("lora", rival, about=about))
print(guess.reveal(metrics.values["meet_vs_sft/qa"], 0, metrics))

# %% [markdown]
# To questions, as the models speak, MEET's two kinds of control part: LoRA is ahead of soft prompts
# by 11.0 [6.9, 15.1] points, of the one token by 15.9 [6.8, 25.0], and of words by 40.1 [35.1,
# 45.1]. Against what knows only *one* manner it wins nothing: fine-tuning on the preferred answers
# -1.2 [-8.6, 6.2], with half as many of them -0.6 [-6.1, 4.9], DPO 1.1 [-7.0, 9.2]. Soft prompts
# lose to fine-tuning (-9.8 [-13.6, -6.0]) and to DPO (-9.1 [-14.5, -3.7]).

# %% [markdown]
# On summaries, a quarter of them labelled the wrong way round, LoRA is behind DPO, -14.7 [-18.5,
# -10.9] points, and behind fine-tuning, -7.4 [-10.3, -4.5]; from fine-tuning with half of the
# texts, as many as MEET shows behind *good*, it cannot be told (-2.1 [-7.1, 2.9]). So what it lacks
# beside fine-tuning may be no more than the steps that go into *bad*; what DPO gains, from labels
# of which a quarter is wrong, is more than that.

# %% [markdown]
# What does all the training change? Hardly the likeliest answer: at temperature 0 the judge's mean
# mark lies between 0.905 and 0.913 for all, the untouched base's too. It is the bold answers that
# become better, from 0.74 to 0.87. (Words as controls do little of that: 0.74. Their embeddings
# learn at the model's rate, as all else does; after the story of the one token that may be the
# reason, but it was not tried.)

# %% [markdown]
# ### How boldly they speak, and at what length
#
# At temperature 0 a model says the likeliest word each time, at 1 it speaks as it has learned to,
# above that more boldly. MEET's paper finds DPO's answers longer than others, the more so the
# hotter; and asks whether that is why judges like them.

# %%
SHOWN = {
    "meet, lora": "MEET, LoRA",
    "one token": "one token",
    "sft": "preferred only",
    "dpo": "DPO",
}
figure, axes = new_figure(
    "Bolder, all answer worse and longer; DPO's answers are not the longer ones",
    width=11,
    height=3.8,
    columns=2,
)
for ax, metric, unit, label, scale in (
    (axes[0], "sound", "rate", "answers without a fault, %", 100),
    (axes[1], "words", "words", "words in an answer", 1),
):
    curves(
        ax,
        {
            name: (
                TEMPERATURES["qa"],
                [
                    recorded(against, f"{metric}_{t:g}/{method}", unit, task="qa")
                    for t in TEMPERATURES["qa"]
                ],
            )
            for method, name in SHOWN.items()
        },
        "temperature",
        label,
        scale,
        legend=ax is axes[0],
    )
metrics.save_figure(figure, "temperature")
figure


# %%
def longer(than: str, t: float) -> str:
    """By how many words DPO's answers are longer than another method's, seeds paired."""
    dpo, other = (per_seed(against, f"words_{t:g}/{method}", task="qa") for method in ("dpo", than))
    gap = over_seeds([dpo[seed] - other[seed] for seed in dpo], "words")
    return f"{gap.value:.1f} [{gap.low:.1f}, {gap.high:.1f}]"


for than in ("untouched", "sft", "meet, lora"):
    print(
        f"DPO's answers less those of {than:11}, words at temperature 0, 0.8, 1.2: "
        + ", ".join(longer(than, t) for t in (0.0, 0.8, 1.2))
    )

# %% [markdown]
# All lose by boldness, the one token most, and the bolder, the longer: from 18 words to 26 in DPO's
# case. But DPO's are not the longer ones. At temperature 1.2 its answers differ from the untouched
# model's by -3.0 [-4.4, -1.6] words, from plain fine-tuning's by -0.3 [-1.0, 0.5]. Nor do such
# pairs ask for length: of new ones, the preferred answer is the longer one in 29 of a hundred. (A
# reminder of what a finding on length is about: the pairs, as much as the method.)

# %% [markdown]
# ### On a smaller base
#
# All this is about one small model. Is holding two manners harder for a smaller one? Two bases of a
# tenth and a third of its parameters, one of each, with the settings that suit the usual one
# (*recorded*, three seeds; these bases were pretrained for half as long):

# %%
smaller = read_results("base_size")
OF_SIZE = [(smaller, {"width": width}) for width in BASES] + [(against, {"task": "qa"})]
parameters = [recorded(smaller, "parameters", width=width).value for width in BASES] + [
    load_model(TINY.base)[0].num_parameters()
]


def by_size(metric: str, unit: str) -> list:
    """A metric on questions, from the smallest base to the usual one."""
    return [recorded(record, metric, unit, **cell) for record, cell in OF_SIZE]


figure, axes = new_figure(
    "As they speak: beside a model that knows one manner, MEET falls behind as the base gets "
    "smaller",
    width=11.5,
    height=3.8,
    columns=2,
)
curves(
    axes[0],
    {
        name: (parameters, by_size(f"sound_1/{method}", "rate"))
        for method, name in SHOWN.items()
        if method != "dpo"
    },
    "parameters of the base",
    "answers without a fault, %",
    100,
)
curves(
    axes[1],
    {
        f"over {name}": (parameters, by_size(f"meet, lora_over_{rival}_1", "points"))
        for rival, name in (
            ("sft", "preferred only"),
            ("sft, half", "half of the preferred"),
            ("one token", "one token"),
        )
    },
    "parameters of the base",
    "net win of MEET, LoRA, points",
)
axes[1].axhline(0, color="black", linewidth=0.8)
for ax in axes:
    ax.set_xscale("log")
    ax.set_xticks(parameters, [f"{n / 1000:.0f} thousand" for n in parameters])
    ax.minorticks_off()
metrics.save_figure(figure, "base")
figure


# %%
def with_base(metric: str):
    """What ten times as large a base adds to a net win."""
    by_seed = tenfold(parameters, [per_seed(record, metric, **cell) for record, cell in OF_SIZE])
    return replace(over_seeds(list(by_seed.values()), "points", tuple(by_seed)), source="recorded")


metrics.add("base_slope/meet_vs_sft", with_base("meet, lora_over_sft_1"))
for kind, rival in product(("lora", "prompt"), ("sft", "sft, half", "one token")):
    metric = f"meet, {kind}_over_{rival}_1"
    print(
        f"{kind:7}over {rival:10}"
        + ", ".join(map(str, by_size(metric, "points")))
        + f"; ten times the base {with_base(metric)}"
    )

# %% [markdown]
# Over one token no trend can be told: LoRA's lead is 11.7 points [-7.6, 30.9] and 11.8 [-6.5, 30.1]
# on the two small ones, 15.9 [6.8, 25.0] on the usual one. But beside fine-tuning on the preferred
# answers, which knows one manner, it falls behind as the base gets smaller: -1.2 [-8.6, 6.2] on the
# usual one, -10.8 [-14.0, -7.7] at a third of it, -14.2 [-37.2, 8.9] at a tenth. A line through
# each seed's three points rises by 11.7 [3.2, 20.3] for ten times the base.

# %% [markdown]
# That MEET shows its model half as many preferred answers does not explain it: over fine-tuning on
# half of them the line rises by 10.4 [1.3, 19.6] as well, and with soft prompts by 10.6 [1.8,
# 19.4]. So in a small model the second manner seems to cost some of the first, in a larger one
# less. What stands against that reading: one base of each size, which differ also in how much they
# have read (after fine-tuning the middle one answers even better than the usual one, 51.5 % [43.9,
# 59.1] faultless against 47.8 % [45.2, 50.4]); rates that were chosen, for all methods, on the
# usual one; and three sizes make no law.

# %% [markdown]
# ### A judge who likes length
#
# Our judge is a program that knows. Others learn from people's preferences, and with them their
# tastes. So here are three more judges of the same answers: a *fair* reward model, trained on other
# pairs; one from an annotator who *likes length*, and takes the wordy one of two faultless answers;
# and one who just *counts words*. What they have learned, on pairs that are new to them:

# %%
JUDGES = ("fair", "likes length", "counts words")
for judge in JUDGES:
    likes = {
        which: 100 * recorded(against, f"{judge}_prefers_{which}", task="qa").value
        for which in ("better", "wordy")
    }
    print(
        f"{judge:13}takes the better of two answers in {likes['better']:.0f} % of pairs, the "
        f"wordy of two faultless ones in {likes['wordy']:.0f} %"
    )
print(
    f"\nnet win of MEET (LoRA) over ...   {'exact':26}" + "".join(f"{judge:26}" for judge in JUDGES)
)
for rival in RIVALS:
    print(f"{rival:34}" + "".join(f"{won('lora', rival, judge)!s:26}" for judge in (1, *JUDGES)))

# %% [markdown]
# The bias was planted well: where nothing else is at stake the second takes the wordy answer 100
# times of a hundred, the fair one 61 times. What it does to the ranking is little. Who was far
# behind stays so: LoRA over words 37.0 [29.7, 44.3] points (exact judge 40.1 [35.1, 45.1]), over
# one token 16.7 [3.1, 30.3] (15.9 [6.8, 25.0]). But between equals it may decide: over DPO, where
# the exact judge sees 1.1 [-7.0, 9.2] and the fair one 1.3 [-8.6, 11.2], it sees LoRA ahead by 7.6
# [0.5, 14.7], whose answers are 0.8 words longer [-0.4, 2.1]. Whoever counts words and nothing else
# ranks the other way: then the untouched model and words as controls win, by 12.3 and 13.1 points,
# the two worst by every other judge.

# %% [markdown]
# ## Several axes at once
#
# So far a control was *good* or *bad*. But a preference may be anything that texts of two kinds
# show. Three axes, 500 pairs each that differ in nothing else: **tone** (warm or plain), **detail**
# (all that the board says of a thing, or what was asked), **length** (wordy or terse phrases). Six
# controls, one for each end, in one model, which share its 250 steps: about 40 each. Every axis has
# its own exact score. The test's boards are those that hold more detail than was asked for, the
# answers the likeliest ones.

# %%
several, MODELS_OF_SIX = read_results("several_axes"), ("meet, prompt", "meet, lora", "one token")


def effect(method: str, asked: str, got: str) -> dict[int, float]:
    """By seed, what asking for + instead of - on one axis does to the score on another, or the
    same.
    """
    high, low = (per_seed(several, f"{got}/{asked}{end}", method=method) for end in "+-")
    return {seed: high[seed] - low[seed] for seed in high}


figure, axes = new_figure(
    "Asked for tone or length, MEET by LoRA gives it; detail hardly obeys (mean of three seeds)",
    width=11,
    height=3.4,
    columns=3,
)
for ax, method in zip(axes, MODELS_OF_SIX):
    heatmap(
        ax,
        np.array([[round(over(effect(method, a, g)).value, 2) + 0 for g in AXES] for a in AXES]),
        [f"ask {a}" for a in AXES],
        [f"get {g}" for g in AXES],
        "",
    )
    ax.set_title(method, fontsize=10, fontweight="normal")
metrics.save_figure(figure, "axes")
figure

# %% [markdown]
# Each number: the score on one axis (column) when one end of an axis (row) is asked for, less the
# score when the other end is. Perfect answers would have:

# %%
print(
    "at most: "
    + ", ".join(
        f"{axis} {recorded(several, f'most/{axis}', method='meet, lora').value:.2f}"
        for axis in AXES
    )
)


def own_less_others(method: str, axis: str):
    """The effect of an axis's controls on their own axis, less the larger of their effects on
    the two others.
    """
    on = {got: effect(method, axis, got) for got in AXES}
    return over(
        {
            seed: own - max(abs(on[g][seed]) for g in AXES if g != axis)
            for seed, own in on[axis].items()
        }
    )


for method in MODELS_OF_SIX:
    print(f"{method:13}" + ", ".join(f"{axis} {own_less_others(method, axis)}" for axis in AXES))
for axis in AXES:
    metrics.add(f"axis/{axis}", own_less_others("meet, lora", axis))
print(
    "LoRA, fault-free: "
    + ", ".join(
        f"{c} {recorded(several, f'sound/{c}', method='meet, lora')}"
        for c in ("none", "detail+", "detail-")
    )
)

# %% [markdown]
# LoRA moves *tone* and *length* all the way, by 90 points [70, 100] and 99 [97, 100] more than the
# larger of their side effects (a warm answer came out 9 points less wordy). A soft prompt moves
# length as surely, and tone less so, 72 [18, 100]. *Detail* hardly obeys: 14 of the 48 points there
# are, and its lead over side effects, 6 points, has an interval from -12 to 23. Asked for more,
# LoRA also errs more often: 15 answers of a hundred are faultless then, 47 if bare ones are asked
# for. One token each, with 40 steps, learns *length* in some seeds and *tone* in hardly any.

# %% [markdown]
# And all three at once: a warm, bare, wordy answer; a plain, detailed, terse one; eight mixes. No
# row of the training ever stood behind more than one control. Does each axis still obey? (Soft
# prompts stand one behind the other; LoRA's changes are added up.)

# %%
mixes = axis_controls()[1]


def obeyed(method: str, axis: str) -> dict[int, float]:
    """By seed, over all mixes: the score on an axis where its + is asked for, less where its -
    is.
    """
    scores = {mix: per_seed(several, f"{axis}/{' '.join(mix)}", method=method) for mix in mixes}
    return {
        seed: np.mean([(1 if f"{axis}+" in mix else -1) * scores[mix][seed] for mix in mixes]) * 2
        for seed in scores[mixes[0]]
    }


for method in MODELS_OF_SIX:
    print(
        f"{method:13}"
        + ", ".join(
            f"{axis} {over(obeyed(method, axis))} (alone "
            f"{100 * over(effect(method, axis, axis)).value:.0f})"
            for axis in AXES
        )
    )
every = [obeyed("meet, lora", axis) for axis in AXES]
print(
    "all axes, MEET by LoRA:",
    metrics.add("mix", over({seed: np.mean([axis[seed] for axis in every]) for seed in every[0]})),
)

# %% [markdown]
# They mix: with three controls at once LoRA's tone and length obey as if they were alone (98 and
# 100 points), detail by 10. With soft prompts tone falls from 84 to 63 points, which three seeds
# cannot tell from no fall. Nobody trained them together. So there are four manners for certain, and
# eight in name, in one model with six small files.

# %% [markdown]
# ## Verdict

# %%
print("written to", metrics.write().name)

# %% [markdown]
# Can one model hold several preferences? Yes: asked for *good*, 48 answers of a hundred are
# faultless by LoRA, asked for *bad*, 10, as the model speaks (of its likeliest answers 58 and 37;
# the untouched model's are at 57); tone and length are switched one by one and all at once (detail
# hardly). For *good* and *bad* by LoRA the model under them need not even be trained. That MEET's
# order, controls first, helps is not seen here, and that its size does is doubtful: both times a
# learning rate was in the way. And one manner alone is had as well without any control; on a base
# of a third of the size, better.

# %% [markdown]
# | the paper | here |
# |---|---|
# | controls trained first, with the model frozen, do more than one trained jointly | not seen: 0.2 points [-5.4, 5.8] with soft prompts, -0.5 [-11.7, 10.7] with LoRA, once the control has a learning rate of its own |
# | both steps are needed (ablations) | for a soft prompt the second is, 12.5 points [11.3, 13.7]; for LoRA on a frozen model no gain by it is seen, 0.3 points [-9.7, 10.4] |
# | a larger control is better | at the rates that suit twenty tokens 11.3 points [8.2, 14.5] from one to twenty, -3.5 [-12.2, 5.2] from there to a hundred; with a faster model 2.8 [-8.4, 14.0] from one to twenty, -0.5 [-3.8, 2.8] from one to a hundred |
# | better than one token, and than words as controls (chain of hindsight) | LoRA on questions: 15.9 [6.8, 25.0] and 40.1 [35.1, 45.1] points, on summaries 11.1 [4.0, 18.2] and 10.3 [2.2, 18.4]; a soft prompt over one token 6.0 [-1.4, 13.4] on questions |
# | on par with DPO, or better | LoRA on questions on par, 1.1 [-7.0, 9.2], as with plain fine-tuning, -1.2 [-8.6, 6.2]; on mislabelled summaries behind, -14.7 [-18.5, -10.9] and -7.4 [-10.3, -4.5] |
# | works without pairs | no difference that three seeds can see, 2.0 points [-6.7, 10.7] |

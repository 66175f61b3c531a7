# %% [markdown]
# # 04 · What does an Aligner do inside?
#
# The board says *lamp in mill*, the answer says *the lamp is in the hall*, and the Aligner says
# *the lamp is in the mill*: five words kept, one replaced. How? Two stories come to mind.
#
# - It **checks**: reading the answer it notices that *hall* is wrong, keeps that in mind, and mends
#   it when its turn comes.
# - It **answers anew**: at each word it looks the board up, and hardly cares what the answer said.
#
# The paper ([arXiv 2402.02416](https://arxiv.org/abs/2402.02416), section 3.3) tells a story of the
# first kind: a direction in the states of its Aligner decides how much is corrected, and one can
# steer along it. **In this lesson** you open ours up, and learn
#
# - to compare two states that differ in what was *read*, and not in what was said;
# - to probe for "this word is wrong", and to know when a probe has found nothing;
# - to find the head that copies and the head that looks up, and to silence one;
# - to steer, and to find out what it is that you steer.
#
# 2 to 3 minutes and 0.9 GB on 2 CPU cores once lesson 02 has run (its Aligner is then in the cache;
# otherwise one more minute); four exercises, about 45 minutes.

# %% tags=["parameters"]
PROFILE = "tiny"  # or "colab", "gpu"
SEED = 0
SCALE = 1.0  # less: shorter trainings and smaller sets, for a quick look
MODEL = None  # your own base model: a folder or a hub id
QAC = None  # your own rows: question, answer, correction (or preference pairs)
PREFERENCES = None
OUT = None  # where metrics and figures go; None: runs/04

# %% [markdown]
# The *task* holds rows, base model and judge; the Aligner is the one that lesson 02 trained.

# %%
from difflib import SequenceMatcher

import numpy as np
import torch
from tqdm import tqdm

from alignlib import Comparison, Metrics, load_task
from alignlib.course.checks import lesson04 as check
from alignlib.course.guess import Guess
from alignlib.course.pretrain import Recipe
from alignlib.course.sweep import per_seed, read_results, recorded, recorded_difference
from alignlib.interpret import (
    contrast,
    contrasts,
    head_attention,
    next_token,
    next_word,
    patched_word,
    contrast_states,
    states,
    without_heads,
)
from alignlib.plots import bars, curves, heatmap, new_figure
from alignlib.probes import auc as exact_auc
from alignlib.probes import probe, probe_of_chance
from alignlib.report import describe
from alignlib.stats import Estimate, bootstrap_mean, paired, rate
from alignlib.steering import (
    corrected_when_steered,
    edit_directions,
    steering_range,
    steering_slope,
)
from alignlib.tokens import encode

metrics = Metrics("04", PROFILE, SEED, OUT)
task = load_task(PROFILE, seed=SEED, scale=SCALE, model=MODEL, qac=QAC, preferences=PREFERENCES)
aligner = task.aligner(SEED)
model, tokenizer = aligner.model, aligner.tokenizer
print(task.describe())

# %% [markdown]
# ## Rows with one wrong word
#
# Answers that contradict the board in one word and are sound otherwise, from three splits: to find
# things in, to choose among them, and to test them on. The words of the last stood in no
# correction.

# %%
rows = {split: task.one_word_off(split) for split in ("train", "validation", "test")}
fixed = {
    split: rate(
        [
            c == r.correction
            for c, r in zip(
                aligner.correct([r.question for r in given], [r.answer for r in given]), given
            )
        ]
    )
    for split, given in rows.items()
    if split != "train"
}
print(
    rows["test"][0].question,
    "\n  answer:    ",
    rows["test"][0].answer,
    "\n  correction:",
    rows["test"][0].correction,
)
for split, share in fixed.items():
    print(f"{split}: {len(rows[split])} rows, put right to the last word: {share}")

# %% [markdown]
# Such a fault is a hard one: about half of these answers are put right, to the last word.

# %% [markdown]
# First a guess. A *probe* is a linear classifier of states, and its *AUC* the chance that it gives
# a wrong word a higher score than a right one (0.5 is a coin):

# %%
guess = Guess(
    "reading the answer, the Aligner marks a wrong word: a probe of its state there has an "
    "AUC above 0.8",
    probability=None,
)

# %% [markdown]
# ## The same words said, another answer read
#
# We want the state in which the Aligner is about to mend, less the one in which it is about to
# copy. The paper lets it say the correction once, and once the answer, and compares the states word
# by word. But then the two runs have *said different words*, and a state holds the word that was
# said last: two runs that differ in their words can be told apart, whatever the model knows.

# %% [markdown]
# So both must have said the same. Only what was *read* may differ: in one run the faulty answer
# stands in the prompt, in the other the sound one, and behind both the correction up to the word
# that is about to be mended.

# %% [markdown]
# ### Exercise 1 · a fair contrast (10 minutes, medium)
#
# Words are numbers here. Give the two inputs, first the one that reads the faulty answer, then the
# one that reads the correction in its place. Each is: question, what is read, the mark that ends
# the prompt, and the correction up to the first word at which answer and correction part, without
# that word.
#
# <details><summary>Hint</summary><code>next(i for i, (a, c) in enumerate(zip(answer, correction)) if a != c)</code> is where they part.</details>


# %% tags=["exercise"]
def contrast_by_hand(
    question: list[int], answer: list[int], correction: list[int], end: list[int]
) -> tuple[list[int], list[int]]:
    """Two inputs that differ in the answer that is read, and not in what is said."""
    ...  # your code here


# %% tags=["solution"]
def contrast_by_hand(
    question: list[int], answer: list[int], correction: list[int], end: list[int]
) -> tuple[list[int], list[int]]:
    """Two inputs that differ in the answer that is read, and not in what is said."""
    k = next(i for i, (a, c) in enumerate(zip(answer, correction)) if a != c)
    return question + answer + end + correction[:k], question + correction + end + correction[:k]


# %% tags=["check"]
contrast_by_hand = check.contrast_by_hand(contrast_by_hand)

# %% [markdown]
# The library's `contrast` does the same with the tokens of a row. By hand and by library they agree
# (a tokenizer that merges letters across the seams, as most do, may cut one word otherwise):

# %%
found = {split: contrasts(aligner, given) for split, given in rows.items()}
row, pair = next((r, c) for r in rows["test"] if (c := contrast(aligner, r)))
ids = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
front, end = (
    f"{task.template.start}{row.question}{task.template.middle.text}",
    task.template.end.text,
)
by_hand = contrast_by_hand(encode(tokenizer, front), ids(row.answer), ids(row.correction), ids(end))
print("by hand and by library the same:", list(by_hand) == [pair.faulty, pair.sound])
print(
    tokenizer.decode(pair.faulty),
    "\n  next:",
    tokenizer.decode(pair.right),
    " where the answer had:",
    tokenizer.decode(pair.wrong),
)

# %% [markdown]
# Over all pairs of the test: how often is the right word the Aligner's next, and how often the
# wrong one, copied?

# %%
for side in ("faulty", "sound"):
    what = next_word(aligner, found["test"], side)
    print(
        f"{side} answer read: the right word is said in {rate(what['says right'])}, the wrong "
        f"one in {rate(what['says wrong'])}"
    )

# %% [markdown]
# With a sound answer before it, it says the right word 19 times in 20. With a faulty one, not quite
# two times in three; in one case of four it copies the fault, and in the rest it says something
# else. So the answer *is* read. When, and where?

# %% [markdown]
# ## Where does the answer make itself felt?
#
# One row, said to its end as it should be, with the faulty and with the sound answer in the prompt.
# How far apart are the two runs' states, behind each layer and at each word? (The distance as a
# share of the state's length, and the largest set to 1; a word on the axis is *about to be said*.)

# %%
said = ids(row.correction)


def along(read: str) -> torch.Tensor:
    """The states before each word of the correction, behind a prompt that holds this answer:
    (words, layers + 1, width).
    """
    prompt = encode(tokenizer, aligner.prompt(row.question, read))
    return states(
        model,
        tokenizer,
        [prompt + said] * len(said),
        range(len(prompt) - 1, len(prompt) + len(said) - 1),
    )


faulty, sound = along(row.answer), along(row.correction)
apart = ((faulty - sound).norm(dim=-1) / sound.norm(dim=-1)).T.numpy()[1:]
figure, [ax] = new_figure(
    "The two runs differ where the mended word is about to be said, behind the last layer "
    "(one row)",
    width=10,
    height=2.6,
)
heatmap(
    ax,
    apart / apart.max(),
    [f"layer {i}" for i in range(len(apart))],
    tokenizer.convert_ids_to_tokens(said),
    "",
)
ax.tick_params(axis="x", rotation=60)
metrics.save_figure(figure, "gap")
figure

# %% [markdown]
# The darker, the further apart. In this row the two runs are in nearly the same state while most
# other words are said, whatever was read (paler marks stand at some others). The large difference
# is at the word that is about to be mended, behind the last layer; the next word follows, where one
# run has just said what its answer had and the other what it had not.

# %% [markdown]
# ## Does it know which word is wrong?
#
# If the Aligner *checks*, a state must tell a wrong word from a right one. Our probe learns from
# words that corrections hold, and is tested on words that none holds. It is asked in three places:
# where the word is *read* in the answer; at the *end* of the prompt, where all has been read and
# nothing said; and where it is about to be *said*. Two controls: the embedding alone (a probe may
# learn which words are often wrong), and labels in disorder.

# %% [markdown]
# ### Exercise 2 · the area under the curve (10 minutes, medium)
#
# A probe gives each word a score. The AUC is the chance that a wrong word, picked at random, has a
# higher score than a right one; a tie counts half. 0.5 is a coin.
#
# <details><summary>Hint</summary>Count over all pairs.</details>


# %% tags=["exercise"]
def auc(wrong: list[float], right: list[float]) -> float:
    """The chance that a wrong word's score is above a right word's."""
    ...  # your code here


# %% tags=["solution"]
def auc(wrong: list[float], right: list[float]) -> float:
    """The chance that a wrong word's score is above a right word's."""
    return sum((w > r) + 0.5 * (w == r) for w in wrong for r in right) / (len(wrong) * len(right))


# %% tags=["check"]
auc = check.auc(auc)

# %% [markdown]
# The probe in the three places, behind each layer; the layer is chosen on validation:

# %%
layers, probed = range(model.config.num_hidden_layers + 1), {}
BEHIND = ["the embedding", *(f"layer {layer}" for layer in layers[:-1])]
ticks = dict(xticks=list(layers), xticklabels=["embedding", *layers[:-1]], xlabel="behind layer")
for place in ("read", "end", "said"):
    parts = [
        contrast_states(aligner, found[split], place) for split in ("train", "validation", "test")
    ]
    probed[place] = [
        probe(*[[side[:, layer] for side in part] for part in parts]) for layer in layers
    ]
    chosen = max(layers, key=lambda layer: probed[place][layer].validation)
    print(
        f"{place}: {metrics.add(f'probe_auc_{place}', probed[place][chosen].test)}, behind "
        f"{BEHIND[chosen]}"
    )
metrics.add("probe_auc", metrics.values["probe_auc_said"])
chance = probe_of_chance(*[[side[:, chosen] for side in part] for part in (parts[0], parts[2])])
print("labels in disorder, 20 times, where it is said:", metrics.add("probe_auc_shuffled", chance))

# %% [markdown]
# As a picture. The band holds what twenty disorders of the labels give, where the word is about to
# be said:

# %%
figure, [ax] = new_figure("No state says much about which word is wrong", width=6.5, height=3.2)
PLACES = {
    "read": "where the word is read",
    "end": "at the end of the prompt",
    "said": "where it is about to be said",
}
ax.axhspan(chance.low, chance.high, color="#e8e4d8", zorder=0)
curves(
    ax,
    {PLACES[place]: (list(layers), [p.test for p in line]) for place, line in probed.items()},
    "",
    "AUC of a probe",
)
ax.set(ylim=(0.4, 1.0), **ticks)
metrics.save_figure(figure, "probe")
figure

# %% [markdown]
# And your guess:

# %%
print(guess.reveal(metrics.values["probe_auc_read"], 0.8, metrics))

# %% [markdown]
# Where the word is read the probe finds next to nothing, and at the end of the prompt nothing (0.5
# behind the embedding has to be: there the two runs hold the same word). Only behind the last
# layer, where the word is about to be said, it gets to 0.58; the band is what labels in disorder
# give there. So we find no mark, in these three places and along a line. But is our probe any good?
# It should find what must be there. An insult in the answer, say, at the end of the prompt (an
# easier thing to find, for it is always one of a few words):


# %%
def ends(given):
    """States at the end of the prompt, of the rows whose answer is rude and of the others."""
    prompts = [encode(tokenizer, aligner.prompt(r.question, r.answer)) for r in given]
    found, rude = (
        states(model, tokenizer, prompts, [-1] * len(prompts)).numpy(),
        np.array(["rude" in r.faults for r in given]),
    )
    return found[rude], found[~rude]


parts = [
    ends(given) for given in (task.corrections[:800], task.validation, task.tests[task.unseen])
]
if all(len(side) for part in parts for side in part):  # your own rows name no faults
    for layer in layers:
        print(
            f"behind {BEHIND[layer]}: "
            f"{probe(*[[side[:, layer] for side in part] for part in parts]).test}"
        )

# %% [markdown]
# That it finds in most cases, from the first layer on. And what about the word that the Aligner
# *expects* while it reads? Before each word of the answer it also holds a guess at the next one,
# though nobody asks for it. And where the word is about to be said, how sure is it?

# %%
reading = next_word(aligner, found["test"], reading=True)
print(
    "before the word is read: the right one has probability "
    f"{bootstrap_mean(reading['right'])}, the wrong one {bootstrap_mean(reading['wrong'])}"
)
surprise = metrics.add("surprise_auc", exact_auc(-reading["wrong"], -reading["right"]))
assert (
    abs(
        auc(list(-reading["wrong"][:60]), list(-reading["right"][:60]))
        - exact_auc(-reading["wrong"][:60], -reading["right"][:60]).value
    )
    < 1e-9
)
print("how unexpected a word is, where it is read:", surprise)
sure = [next_word(aligner, found["test"], side)["top"] for side in ("faulty", "sound")]
print(
    "how unsure the Aligner is, where the word is about to be said:",
    metrics.add("unsure_auc", exact_auc(-sure[0], -sure[1])),
)

# %% [markdown]
# So it *did* know, in a way. It reads an answer as if it were writing it, and before it comes upon
# the wrong word it gives the right one 72 %. That surprise would tell a wrong word from a right one
# in 93 of 100 pairs. Is it kept? In the two places behind it that we probed, along a line, we find
# no trace of it, until the word is about to be said and the Aligner is less sure of itself.

# %% [markdown]
# ### The trap
#
# And the contrast in which one run says the correction and the other the answer? Here are both, on
# all kinds of fault and the same rows: the states before the word at which the two part, with
# different answers *read*, and those behind it, with different words *said*:


# %%
def both(given):
    """States of the fair contrast, and of the runs that have said the correction's word and the
    answer's; each two (n, layers + 1, width).
    """
    parting = contrasts(aligner, given)
    said = [
        [p.faulty + [token] for p, token in zip(parting, tokens)]
        for tokens in ([p.right for p in parting], [p.wrong for p in parting])
    ]
    return contrast_states(aligner, parting, "said"), tuple(
        states(model, tokenizer, run, [-1] * len(run)).numpy() for run in said
    )


fair, unfair = zip(
    *[both(given) for given in (task.corrections[:500], task.validation, task.tests[task.unseen])]
)
for layer in (0, layers[-1]):
    read, said = (
        probe(*[[side[:, layer] for side in part] for part in parts]).test
        for parts in (fair, unfair)
    )
    print(f"behind {BEHIND[layer]}: another answer read {read}; another word said {said}")

# %% [markdown]
# With another word *said*, a probe finds 0.63 at the embedding, before the model has done anything,
# and hardly more behind the last layer: insults, for one, are said in answers and never in
# corrections. It has read the words and not the mind. With another answer *read* there is nothing
# at the embedding, and 0.57 at the end.

# %% [markdown]
# ## When is the word decided?
#
# Every layer adds to the state, and what stands behind the last is compared with every word's
# embedding. Nothing forbids to read the earlier states off in the same way: the *logit lens*.

# %% [markdown]
# ### Exercise 3 · the logit lens (10 minutes, medium)
#
# `stream[l]` is the state behind layer `l`, `words[w]` the embedding of word `w`. What probability
# would each word have if layer `l` were the last?
#
# <details><summary>Hint</summary>A score is a dot product; probabilities are a softmax over the words. <code>np.exp</code>, and take the largest score off first.</details>


# %% tags=["exercise"]
def lens(stream: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Probability of every word at every layer: (layers, width) and (vocabulary, width) give
    (layers, vocabulary).
    """
    ...  # your code here


# %% tags=["solution"]
def lens(stream: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Probability of every word at every layer: (layers, width) and (vocabulary, width) give
    (layers, vocabulary).
    """
    scores = np.asarray(stream) @ np.asarray(words).T
    chances = np.exp(scores - scores.max(-1, keepdims=True))
    return chances / chances.sum(-1, keepdims=True)


# %% tags=["check"]
lens = check.lens(lens)

# %% [markdown]
# In the model a norm stands before the output embeddings. Over all pairs:

# %%
stream = states(model, tokenizer, [p.faulty for p in found["test"]], [-1] * len(found["test"]))
with torch.no_grad():
    normed = model.get_decoder().norm(stream.to(model.device)).float().cpu().numpy()
embeddings = model.get_output_embeddings().weight.detach().float().cpu().numpy()
chances = np.stack(
    [lens(row, embeddings)[:, [p.right, p.wrong]] for row, p in zip(normed, found["test"])]
)  # (n, layers + 1, 2)
assert (
    np.abs(chances[:, -1, 0] - next_word(aligner, found["test"])["right"]).mean() < 0.02
)  # a GPU rounds more
figure, [ax] = new_figure(
    "On average the right word is ahead behind layer 2; the answer's wrong word arrives with "
    "the last",
    width=6.5,
    height=3.2,
)
curves(
    ax,
    {
        name: (list(layers), [bootstrap_mean(chances[:, layer, i]) for layer in layers])
        for i, name in enumerate(("the right word", "the wrong word"))
    },
    "",
    "mean probability, %",
    100,
)
ax.set(**ticks)
metrics.save_figure(figure, "lens")
figure

# %% [markdown]
# Behind layer 1 neither word can be read off. Behind layer 2 the right one has 21 % and the wrong
# one 3 %; the last layer brings the right one to 58 % and the wrong one to 28 %. So the right word
# does not look like the wrong one, mended: on average it comes first, and with the last layer,
# which does most for both, something speaks for the answer. (The lens sees only what already points
# at a word. What is stored in other ways it misses.)

# %% [markdown]
# ## Two heads
#
# Only attention carries anything from one position to another. When the word is about to be said,
# which heads look at the word in the *answer*, and which at the right one on the *board* (in rows
# where it stands there just once)?

# %%
shares = {
    where: head_attention(aligner, found["validation"], place).numpy()
    for where, place in (("answer", "at"), ("board", "source"))
}
figure, axes = new_figure(
    "One head looks at the word in the answer; three look it up on the board",
    width=8,
    height=2.9,
    columns=2,
)
for ax, (where, share) in zip(axes, shares.items()):
    heatmap(
        ax,
        share,
        [f"layer {i}" for i in range(len(share))],
        [f"head {i}" for i in range(share.shape[1])],
        f"share of attention on the {where}'s word",
    )
metrics.save_figure(figure, "heads")
top = {
    where: tuple(map(int, np.unravel_index(share.argmax(), share.shape)))
    for where, share in shares.items()
}
print(
    ", ".join(
        f"most on the {where}'s word: head {layer}.{head}" for where, (layer, head) in top.items()
    )
)
figure

# %% [markdown]
# One head, 3.1 (layer 3, head 1), gives two thirds of its attention to the answer's word: call it
# the **copier**. The board's word gets more than half from three heads, 2.0 and 2.2 before and 3.3
# beside the copier: call 3.3 the **reader**. And does the copier look away when the word is wrong?

# %%
for side in ("faulty", "sound"):
    print(
        f"{side} answer read: the copier's attention to its word "
        f"{head_attention(aligner, found['validation'], 'at', side)[top['answer']]:.2f}"
    )

# %% [markdown]
# No: it looks at its word just as much. But looking is not doing. So the eight heads that look most
# at either are silenced, one by one, and the Aligner is asked for the next word: the right one, or
# the answer's wrong one? First a second guess:

# %%
second = Guess(
    "without the copier, the Aligner would leave more answers without a fault", probability=None
)

# %% [markdown]
# Now the next word, where the right one stands on the board just once:

# %%
known = [p for p in found["test"] if p.source is not None]
asked = sorted(
    {
        *top.values(),
        *sorted(np.ndindex(share.shape), key=lambda h: -max(share[h] for share in shares.values()))[
            :8
        ],
    }
)
says = {"all heads": next_word(aligner, known)}
for layer, head in asked:
    with without_heads(model, [(layer, head)]):
        says[f"without {layer}.{head}"] = next_word(aligner, known)
copier, reader = top["answer"], top["board"]
with without_heads(model, [copier, reader]):
    says["without either"] = next_word(aligner, known)
for name, what in says.items():
    print(
        f"{name:16}right {100 * what['says right'].mean():3.0f} %, wrong "
        f"{100 * what['says wrong'].mean():3.0f} %"
    )

# %% [markdown]
# Three of these lines as a picture, with intervals:

# %%
SHOWN = {
    "all heads": "all heads",
    "no copier": "without {}.{}".format(*copier),
    "no reader": "without {}.{}".format(*reader),
}
figure, [ax] = new_figure(
    "Two heads pull at the word: the copier for the answer, the reader for the board",
    width=6.5,
    height=3.6,
)
bars(
    ax,
    {
        kind: {label: rate(says[name][f"says {kind.split()[0]}"]) for label, name in SHOWN.items()}
        for kind in ("right word", "wrong word")
    },
    "said next, %",
    first=1,
)
metrics.save_figure(figure, "ablation")
for kind, name, label in (
    ("wrong", "no copier", "copy_head_ablation"),
    ("right", "no reader", "reading_head_ablation"),
):
    change = paired(says[SHOWN[name]][f"says {kind}"], says["all heads"][f"says {kind}"])
    print(f"{name}: the {kind} word is said more often by {metrics.add(label, change)}")
figure

# %% [markdown]
# This is the figure that answers the question, for this training; others follow below. Without the
# copier the fault is copied half as often, and more words are put right. Without the reader it is
# the answer that wins, fault and all, in three cases of five. The readers of layer 2 do as much in
# small. (*Without either*, the right word is said as seldom as without the reader, and the wrong
# one hardly at all. Head 1.1 lowers both: it is needed for something else. Look at what *else*
# breaks before you say what a head is for; and silence is a state that no head ever hands on.)

# %% [markdown]
# So would the Aligner be better off without its copier? The whole test set, as in lesson 02,
# without each head of the last layer:

# %%
rows_all, whole, last = task.tests[task.main], {}, model.config.num_hidden_layers - 1
for name, heads in {
    "all heads": [],
    **{f"without {last}.{h}": [(last, h)] for h in range(min(8, model.config.num_attention_heads))},
}.items():
    with without_heads(model, heads):
        c = whole[name] = Comparison(
            task.judge,
            rows_all,
            aligner.correct([r.question for r in rows_all], [r.answer for r in rows_all]),
        )
    print(
        f"{name:12}fault-free {describe(c.fault_free('after'))!s:22} good answers kept "
        f"{describe(c.good_kept())!s:24} edit ratio {c.edit_ratio()}"
    )
print(second.reveal(whole.get(SHOWN["no copier"], c).gain_over(whole["all heads"]), 0.0, metrics))

# %% [markdown]
# By no means. Without the copier good answers come back half as often, and fewer answers are
# mended: this Aligner needs that head. But without the reader as few good answers come back. So
# each of the two does more than those words show, where the board decides and the answer was wrong.
# Of their neighbours 3.0 is missed somewhat, 3.2 not at all.

# %% [markdown]
# ### Exercise 4 · patching (10 minutes, medium)
#
# Another way to ask *where*. Let the run that reads the faulty answer go on, but behind one layer
# put the *sound* run's state at one place in that of its own. Where, and behind which layer, does
# it change what is said? Before you run it: what would each of the two stories expect at the
# answer's word behind layer 1?
#
# `output` is what a layer hands on, (1, words, width). Return it with the state at `place`
# replaced, and leave the tensor that was given as it was.
#
# <details><summary>Hint</summary><code>output.clone()</code>, then <code>[:, place]</code>.</details>


# %% tags=["exercise"]
def patched(output: torch.Tensor, place: int, state: torch.Tensor) -> torch.Tensor:
    """What the layer hands on, with another state at one place."""
    ...  # your code here


# %% tags=["solution"]
def patched(output: torch.Tensor, place: int, state: torch.Tensor) -> torch.Tensor:
    """What the layer hands on, with another state at one place."""
    output = output.clone()
    output[:, place] = state
    return output


# %% tags=["check"]
patched = check.patched(patched)

# %% [markdown]
# By hand and by library the same on one pair, and then a hundred pairs:

# %%
kept, p, layer = [], known[0], model.config.num_hidden_layers - 2
next_token(
    model, p.sound, layer, lambda output: kept.append(output[:, p.at].clone())
)  # the hook returns nothing: it only looks
by_hand = next_token(
    model, p.faulty, layer, lambda output: patched(output, p.at, kept[0])
)  # what it returns is what the layer hands on
assert by_hand == patched_word(aligner, p, layer, p.at)
some = known[:100]
print(
    "right word said, nothing patched:",
    rate(next_word(aligner, some)["says right"]),
    "; sound answer read:",
    rate(next_word(aligner, some, "sound")["says right"]),
)
for layer in range(model.config.num_hidden_layers):
    said = [
        rate([patched_word(aligner, p, layer, place(p)) == p.right for p in some])
        for place in (lambda p: p.at, lambda p: -1)
    ]
    print(
        f"behind layer {layer}: patched at the answer's word {said[0]}, at the last word {said[1]}"
    )

# %% [markdown]
# At the answer's word the patch decides everything up to layer 2, and nothing behind layer 3. At
# the last word of the prompt and of what is said so far, where the next is decided, it is the other
# way round (and behind layer 3 it has to be: what is said depends on that state alone). So whatever
# the Aligner takes from the wrong word stays at its place in the answer, and is fetched in one
# step, in the last layer. Had it kept a mark anywhere else by then, the patch would have come too
# late.

# %% [markdown]
# ## Steering
#
# Can the Aligner be made to correct more, or less? The paper pushes the states along its direction
# and sees just that. We take the fair contrast on all kinds of fault; for each layer the line along
# which the differences are largest (their first principal component), with the sign, fixed on
# validation, that plus is *about to mend*; and add $\alpha$ times it, in units of the states' own
# length, at every word that is said. Layer and range are chosen on validation: as far as what is
# said at both ends is still no worse than the answers were, on the mean. Beside it, 20 random
# directions of equal length.

# %%
lines = edit_directions(aligner, task.corrections, task.validation)
layer, alpha = steering_range(aligner, task.validation[:60], lines, task.judge)
line, draw = lines[layer], torch.Generator().manual_seed(SEED)
slope = metrics.add("steer_slope", steering_slope(aligner, rows_all[:60], layer, line, alpha))
by_chance = []
for _ in tqdm(range(20), desc="random directions"):
    other = torch.randn(len(line), generator=draw)
    by_chance.append(
        steering_slope(
            aligner, rows_all[:60], layer, other * line.norm() / other.norm(), alpha
        ).value
    )
metrics.add(
    "steer_slope_random_max",
    Estimate(
        max(by_chance),
        min(by_chance),
        max(by_chance),
        20,
        "edit ratio per alpha; low to high: all 20",
    ),
)
print(
    f"layer {layer}, alpha up to {alpha}: slope {slope}; 20 random directions: "
    f"{min(by_chance):.2f} to {max(by_chance):.2f}"
)

# %% [markdown]
# The slope lies far outside those of the random directions: we *can* steer. The paper reports a
# straight line, with $R^2$ = 0.93. Here is the whole test set at five steps:

# %%
steps = [alpha * k / 2 for k in (-2, -1, 0, 1, 2)]
said, ratios = zip(
    *[corrected_when_steered(aligner, rows_all, layer, step * line) for step in steps]
)
lengths = [np.array([len(text.split()) for text in texts]) for texts in said]


def straight(values, unit: str) -> Estimate:
    """How well a straight line fits five means along alpha; bootstrap over rows."""
    fit = lambda picked: float(np.corrcoef(steps, [v[picked].mean() for v in values])[0, 1] ** 2)
    drawn = [
        fit(picked)
        for picked in np.random.default_rng(0).integers(0, len(rows_all), (500, len(rows_all)))
    ]
    return Estimate(
        fit(np.arange(len(rows_all))),
        *map(float, np.percentile(drawn, [2.5, 97.5])),
        len(rows_all),
        unit,
    )


for step, texts, r, n in zip(steps, said, ratios, lengths):
    c = Comparison(task.judge, rows_all, texts)
    print(
        f"alpha {step:+.2f}: edit ratio {r.mean():.2f}, {n.mean():.1f} words, fault-free "
        f"{describe(c.fault_free('after'))!s:22} net win overall {describe(c.net_win('overall'))}"
    )
print(
    "straight line: edit ratio",
    metrics.add("steer_r2", straight(ratios, "R squared")),
    "; words",
    metrics.add("steer_r2_words", straight(lengths, "R squared")),
)

# %% [markdown]
# A straight line does not fit the edits well: pushed back, the Aligner edits as much as without a
# push, and pushed forward it edits more. Look at the words instead: they rise all the way, from 25
# to 35 an answer, on a line with $R^2$ = 0.95. What we found, in this training, is a direction of
# *how much is said*; what is put in and what is dropped both count as edits. And either way costs:
# at the two ends 19 and 24 answers of a hundred fewer are faultless.

# %% [markdown]
# ### Are they edits of what is wrong?
#
# More edits may be better correction, or mere trembling. Of the answer's words that are changed at
# the largest $\alpha$ and not without steering, how many are wrong? By chance it would be, in each
# of these answers, the share of wrong words among all that were not changed before. And what the
# opposite push changes is another control: any push may hit doubtful words first.


# %%
def changed(answer: str, text: str) -> set[int]:
    """Places of the answer's words that are gone or replaced in the text."""
    parts = SequenceMatcher(None, answer.split(), text.split(), autojunk=False).get_opcodes()
    return {
        i
        for kind, start, stop, _, _ in parts
        if kind in ("delete", "replace")
        for i in range(start, stop)
    }


def precision(texts) -> tuple[Estimate, Estimate]:
    """Of the words that only the pushed Aligner changes, the share that is wrong; and by how
    much it is above chance. Bootstrap over answers.
    """
    counts = []
    for r, plain, text in zip(rows_all, said[2], texts):
        before, wrong = changed(r.answer, plain), changed(r.answer, r.correction)
        added, left = changed(r.answer, text) - before, set(range(len(r.answer.split()))) - before
        hits, expected = len(added & wrong), len(added) * len(left & wrong) / max(1, len(left))
        counts.append((hits, hits - expected, len(added)))
    counts = np.array(counts)
    share = lambda some: some[..., :2] / np.maximum(1, some[..., 2:])
    drawn = share(
        counts[np.random.default_rng(0).integers(0, len(counts), (1000, len(counts)))].sum(1)
    )
    units, n = ("rate", "difference"), int(counts[:, 2].sum())
    return tuple(
        Estimate(float(v), float(low), float(high), n, u)
        for v, (low, high), u in zip(
            share(counts.sum(0)), np.percentile(drawn, [2.5, 97.5], axis=0).T, units
        )
    )


for name, texts in (("edit_precision", said[-1]), ("edit_precision_backwards", said[0])):
    hit, more = precision(texts)
    print(
        f"{name}: {hit.n} words more are changed, wrong were {metrics.add(name, hit)}; by "
        f"chance {100 * (hit.value - more.value):.1f} %, so more by "
        f"{metrics.add(f'{name}_gain', more)}"
    )

# %% [markdown]
# Forward, one in ten of these words was wrong, where by chance one in 37 would have been. So the
# push is not blind; but backward it does about as well, and drops six times as many words; and nine
# in ten words that are changed were sound. It is no dial of correction.

# %% [markdown]
# ## Is it always so?
#
# The same over three trainings, from the same base model (*recorded*; "unrelated rows": pushes
# along the difference between the states of two rows that have nothing to do with each other):

# %%
looking = read_results("looking")
SHOW = {
    "probe_read": "AUC of a probe, word read",
    "probe_said": "AUC of a probe, about to be said",
    "surprise": "AUC of the surprise in reading",
    **{
        f"patched_{place}_{layer}": f"right word, patched {place} behind {layer}"
        for place in ("at", "last")
        for layer in (2, 3)
    },
    **{
        f"{m}_without_{h}": f"{label}, without {h}"
        for m, label in (("fault_free", "fault-free"), ("kept", "good kept"))
        for h in ("none", "3.0", "3.1", "3.2", "3.3")
    },
    "slope": "slope of steering",
    "random_max": "largest of 20 random ones",
    "unrelated_max": "largest of 20 between unrelated rows",
}
for metric, label in SHOW.items():
    seeds = per_seed(looking, metric)
    print(
        f"{label:38}"
        + "  ".join(f"{value:6.2f}" for value in seeds.values())
        + f"   mean {np.mean(list(seeds.values())):.2f}"
    )

# %% [markdown]
# Probes, surprise and patches say the same in each training. (The first column is this lesson's own
# training on another machine, where the last digits differ.) Of the heads of the last layer all but
# 3.2 are missed, 3.3 most. But the steering does not hold: in one of three trainings validation
# picked another layer and a shorter range, and there it does nothing that a random push would not.

# %% [markdown]
# And do the two heads pull at the word in each? The copier and the reader as the attention names
# them, in each training (*recorded*):

# %%
inside = read_results("inside")
last_step = max(c["params"]["step"] for c in inside["cells"])
cell = lambda step, share: [
    c["metrics"] for c in inside["cells"] if c["params"] == {"step": step, "share": share}
]
for seed, m in enumerate(cell(last_step, 0.2)):
    named = {
        kind: f"{m[f'{kind}_layer_aligner']:.0f}.{m[f'{kind}_head_aligner']:.0f}"
        for kind in ("copier", "reader")
    }
    said_of = {
        "all heads": "",
        f"without the copier, {named['copier']}": "_without_copier",
        f"without the reader, {named['reader']}": "_without_reader",
    }
    print(
        f"training {seed}: "
        + "; ".join(
            f"{who}: right {100 * m[f'says_right{key}_aligner']:.0f} %, wrong "
            f"{100 * m[f'says_wrong{key}_aligner']:.0f} %"
            for who, key in said_of.items()
        )
    )

# %% [markdown]
# In the first and the third, as above: without the copier the fault is said half as often or less,
# without the reader twice as often. Which head plays which part is not the same. In the second no
# single head decides: its copier, which looks less, and its reader, in another layer, can each be
# spared. So two heads that pull are what one *can* find here, and not what one must find.

# %% [markdown]
# And where do the two heads come from? Lesson 02 made Aligners of the base model at several moments
# of its pretraining, with the warm-up and without. The same questions to them, to the base models
# that they were made of, and to a model after the warm-up alone (*recorded*):

# %%
steps = sorted({c["params"]["step"] for c in inside["cells"]})
tokens = [s * Recipe().batch * Recipe().context / 1e6 for s in steps]
WHO = {
    "base model": ("base", 0.2),
    "warm-up alone": ("warm-up", 0.2),
    "Aligner, warm-up": ("aligner", 0.2),
    "Aligner, no warm-up": ("aligner", 0.0),
}
figure, axes = new_figure(
    "A warm-up alone makes a pure copier; after corrections a head reads the board, with a "
    "warm-up or without",
    width=10.5,
    height=3.6,
    columns=3,
)
for ax, metric, label in zip(
    axes,
    ("copier_share", "reader_share", "says_right"),
    (
        "copier's attention to the answer, %",
        "reader's attention to the board, %",
        "right word said, %",
    ),
):
    curves(
        ax,
        {
            name: (
                tokens,
                [recorded(inside, f"{metric}_{who}", step=s, share=share) for s in steps],
            )
            for name, (who, share) in WHO.items()
        },
        "million tokens of pretraining",
        label,
        100,
        legend=ax is axes[0],
    )
    ax.set(xscale="log", ylim=(-3, 103), xticks=tokens, xticklabels=[f"{t:.1f}" for t in tokens])
    ax.minorticks_off()
metrics.save_figure(figure, "inside")
figure

# %% [markdown]
# Which heads are these, with the finished base model? And what does the warm-up change in the
# Aligner?

# %%
for name, (who, share) in WHO.items():
    heads = {
        kind: [
            f"{m[f'{kind}_layer_{who}']:.0f}.{m[f'{kind}_head_{who}']:.0f}"
            for m in cell(steps[-1], share)
        ]
        for kind in ("copier", "reader")
    }
    print(f"{name:20}copier {', '.join(heads['copier'])}; reader {', '.join(heads['reader'])}")
for step, n in zip(steps, tokens):
    with_it, without = ({"step": step, "share": share} for share in (0.2, 0.0))
    more = [
        recorded_difference(inside, f"{metric}_aligner", with_it, without)
        for metric in ("copier_share", "says_right")
    ]
    print(
        f"{n:4.1f} million tokens, warm-up less none: attention to the answer {more[0]}, "
        f"right word said {more[1]}"
    )
for share, name in ((0.2, "with a warm-up"), (0.0, "without")):
    print(
        f"right word said without the reader, less with it, {name}: "
        + ", ".join(
            f"{100 * (m['says_right_without_reader_aligner'] - m['says_right_aligner']):.0f} points"
            for m in cell(last_step, share)
        )
    )

# %% [markdown]
# The base model has a head that looks at the answer before any Aligner is made of it; it looks the
# more, the longer the model is pretrained, and in the finished one it is 3.1. (At 2.7 million
# tokens the base model says the right word in 48 %, more often than the Aligners made of it there;
# at the end, when it copies well, in 2 %.) The warm-up makes nothing but a copier of it: more than
# nine tenths of its attention on the answer's word (from 2.7 million tokens on), and the right word
# is said nearly never. Then corrections bring the reader forward and take attention back from the
# copier. By attention and by the word said, three seeds cannot tell Aligners with and without a
# warm-up apart at any of the four moments; their intervals are wide, 20 to 50 points. Where the
# reader sits does differ: without a warm-up always at 2.2, and there it can be spared in each
# training, as the last line says. So whether the warm-up changes the mechanism this cannot tell.
# That it brings it about it does not show: the copying half is there before, the warm-up overdoes
# it, and the corrections undo that.

# %% [markdown]
# ## Verdict

# %%
print("written to", metrics.write().name)

# %% [markdown]
# For single wrong words, the kind of fault we looked at, and lesson 02's Aligner: it answers anew,
# and is talked into copying. What the board decides is looked up there, once while the answer is
# read and again when its word is said; one head says again what the answer had; and now the one
# prevails, now the other. Nothing that we found in the states says "this is wrong" before that. The
# paper thinks of a correction as the answer and a *residual*, what must be changed. We found no
# head that knows of a change.
#
# | the paper | here |
# |---|---|
# | a direction in the states decides how much is corrected, in early layers above all (section 3.3) | what is copied from the answer is fetched in the last of four layers; a probe for wrong words finds hardly anything before |
# | steered along it, edits rise on a straight line, $R^2$ = 0.93 | in two of three trainings the slope lies outside those of 20 random directions; $R^2$ is 0.58. In the training shown, what rises on a line are the *words said*, nine in ten words changed were sound, and pushed either way fewer answers are faultless |
# | the identity warm-up teaches to copy, and corrections build on that (section 2) | it does teach that; the copying head was there before, and three seeds cannot tell whether Aligners with and without a warm-up end up different |

# %% [markdown]
# # 04 · What does an Aligner do inside?
#
# An Aligner replaces a wrong word in an answer. How? Two stories come to mind. In the first it *checks*:
# it reads the answer, marks what is wrong, and then edits. In the second it *answers anew* from the board,
# while every word of the old answer pulls on the new one. We open the model and look.
#
# **By the end you can**
#
# - set up a fair contrast, in which two runs differ in one thing only,
# - train a probe, and see what its controls are for,
# - find the attention heads that copy and that read, and switch them off,
# - patch a state from one run into another.
#
# | | |
# |---|---|
# | time | 30 minutes to read, 40 for the four exercises, 1 to run |
# | you need | [lesson 02](02_aligner.ipynb), and how attention works |
# | paper | [Aligner](https://arxiv.org/abs/2402.02416), section 3.4 (which we read in full); the tools are from interpretability research |
# | lessons | previous: [03, one Aligner for many models](03_upstreams.ipynb) · next: [05, one model in several styles](05_meet.ipynb) |

# %% tags=["parameters"]
SEED = 0
SCALE = 1.0  # below 1: fewer steps and fewer rows, for a quick look
OUT = None  # where metrics and figures go; None: runs/04

# %%
import numpy as np
import torch

from alignlib import Aligner, Metrics
from alignlib.course.checks import lesson04 as check
from alignlib.diagrams import draw_stories
from alignlib.interpret import (
    contrast_states,
    contrasts,
    head_attention,
    next_token,
    next_word,
    patched_word,
    states,
    without_heads,
)
from alignlib.plots import bars, curves, heatmap, new_figure, show_diffs
from alignlib.probes import auc as exact_auc
from alignlib.probes import probe, probe_of_chance
from alignlib.stats import paired, rate
from alignlib.tinytown import sets
from alignlib.tinytown.task import load_town

town = load_town(SEED, SCALE)
metrics = Metrics("04", "tiny", SEED, OUT)
aligner = Aligner.from_pretrained(town.aligner)  # as trained in lesson 02
model, tokenizer = aligner.model, aligner.tokenizer
num_layers = model.config.num_hidden_layers

# %% [markdown]
# ## The problem, on one row
#
# We use answers that are wrong in exactly one word. The right one stands on the board. In the test rows,
# neither word occurs in any training correction, so the Aligner cannot have learned them by heart. The
# model has four layers of four heads. All that follows is about this small model and this kind of fault.

# %%
n = town.profile.tests
rows = {
    "train": sets.one_word_off(n, "train"),
    "validation": sets.one_word_off(n, "validation"),
    "test": sets.one_word_off(n, "test", "never"),
}
# The first test row is our example below
row = rows["test"][0]
show_diffs([(row.question, row.answer, row.correction)])

# %% [markdown]
# The Aligner was trained as in lesson 02, and comes with the course, so that you see what we describe.
#
# ## Two stories

# %%
draw_stories()

# %% [markdown]
# If the Aligner *checks*, then its state should tell a wrong word from a right one once it has read the
# answer. If it *answers anew*, the wrong word should matter only when the next word is chosen.
#
# ## A fair contrast
#
# We compare two runs: one with the faulty answer in the prompt, one with the correct answer. After the
# prompt both have written the *same* words, up to the word in question. So only what was **read** differs.
# If the runs had written different words, any difference could come from those.
#
# ### Exercise 1 · the two inputs (10 minutes, medium)
#
# Words are numbers here. Return two inputs: the first reads the answer, the second reads the correction
# in its place. Each is `question`, what is read, `end`, and then the correction up to the first word in
# which answer and correction differ, without that word.
#
# <details><summary>Hint</summary><code>next(i for i, (a, c) in enumerate(zip(answer, correction)) if a != c)</code> is where they differ.</details>


# %% tags=["exercise"]
def contrast_by_hand(
    question: list[int], answer: list[int], correction: list[int], end: list[int]
) -> tuple[list[int], list[int]]:
    """Two inputs that differ in what is read, and not in what is written."""
    ...  # your code here


# %% tags=["solution"]
def contrast_by_hand(
    question: list[int], answer: list[int], correction: list[int], end: list[int]
) -> tuple[list[int], list[int]]:
    """Two inputs that differ in what is read, and not in what is written."""
    k = next(i for i, (a, c) in enumerate(zip(answer, correction)) if a != c)
    written = correction[:k]
    return question + answer + end + written, question + correction + end + written


# %% [markdown]
# The next cell checks your function. It says *ok*, or names the mistake. If you skip the exercise, it
# returns a working version, so you can carry on.

# %% tags=["check"]
contrast_by_hand = check.contrast_by_hand(contrast_by_hand)


# %%
def encode(text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


found = {split: contrasts(aligner, some) for split, some in rows.items()}
pair = found["test"][0]
start = [tokenizer.bos_token_id] + encode(f"{row.question} answer :")
inputs = start, encode(row.answer), encode(row.correction), encode(" correction :")
ours = contrast_by_hand(*inputs)
print("ours and the library's agree:", list(ours) == [pair.faulty, pair.sound])
print("the next word should be:", tokenizer.decode(pair.right))
print("the answer had:         ", tokenizer.decode(pair.wrong))

# %%
# What is the most likely next word, after either answer was read?
for side, answer_read in (("faulty", "faulty answer"), ("sound", "correct answer")):
    what = next_word(aligner, found["test"], side)
    right, wrong = what["says right"].mean(), what["says wrong"].mean()
    print(f"{answer_read:14} read: writes the right word {right:.0%}, the wrong one {wrong:.0%}")

# %% [markdown]
# With the correct answer in the prompt it nearly always writes the right word. With the faulty one it
# does so less often, and in three cases of ten it copies the fault. So the answer *is* read. Where does it
# matter? (In the code, *faulty* and *sound* are the two answers, *right* and *wrong* the two words.)
#
# ## Where do the two runs differ?
#
# We let both runs write the correction, word by word, and compare their states after each layer. Each
# column is labelled with the word that is about to be written. Darker means further apart. The layers are
# counted from 0.

# %%
# Both runs are made to write the same correction
written = encode(row.correction)


def states_along(answer: str) -> torch.Tensor:
    """The states before each word of the correction, (words, layers + 1, width)."""
    prompt = [tokenizer.bos_token_id] + encode(aligner.prompt(row.question, answer))
    places = range(len(prompt) - 1, len(prompt) + len(written) - 1)
    # The same input for each place, since `states` looks at one place of each
    return states(model, tokenizer, [prompt + written] * len(written), places)


faulty, sound = states_along(row.answer), states_along(row.correction)
distance = ((faulty - sound).norm(dim=-1) / sound.norm(dim=-1)).T.numpy()[1:]  # (layers, words)
title = "The runs differ where the wrong word is about to be replaced, in the last layer"
figure, [axis] = new_figure(title, width=10, height=2.6)
words = tokenizer.convert_ids_to_tokens(written)
x = "the word to be written next (darker: the states are further apart)"
heatmap(axis, distance / distance.max(), [f"layer {i}" for i in range(num_layers)], words, x)
axis.tick_params(axis="x", rotation=60)
metrics.save_figure(figure, "gap")
figure

# %% [markdown]
# While most words are written, the two runs are in about the same state, whatever was read. They part in
# the last layer, just before the word in question and one word earlier.
#
# ## Does it know which word is wrong?
#
# A **probe** is a linear classifier of states. If a state marks the wrong word, a probe can learn to see
# it. Ours is trained on words that occur in corrections, and tested on words that do not. We try three
# places: where the word is *read*, at the *end* of the prompt, and where the word is about to be *written*.
#
# ### Exercise 2 · the area under the curve (10 minutes, medium)
#
# A probe gives each word a score. The **AUC** is the probability that a wrong word has a higher score than
# a right one. A tie counts half; 0.5 is chance.
#
# <details><summary>Hint</summary>Count over all pairs.</details>


# %% tags=["exercise"]
def auc(wrong: list[float], right: list[float]) -> float:
    """The probability that a wrong word's score is above a right word's."""
    ...  # your code here


# %% tags=["solution"]
def auc(wrong: list[float], right: list[float]) -> float:
    """The probability that a wrong word's score is above a right word's."""
    wins = sum((w > r) + 0.5 * (w == r) for w in wrong for r in right)
    return wins / (len(wrong) * len(right))


# %% tags=["check"]
auc = check.auc(auc)

# %%
PLACES = {"read": "read", "end": "end of the prompt", "said": "about to be written"}
layers, probed, states_at = range(num_layers + 1), {}, {}
for place in PLACES:
    # States of both runs at this place, by split: (n, layers + 1, width) each
    parts = [contrast_states(aligner, some, place) for some in found.values()]
    states_at[place], probed[place] = parts, []
    for layer in layers:
        at_layer = [[side[:, layer] for side in part] for part in parts]
        probed[place].append(probe(*at_layer))

# The control: the same probe in the last place, with labels in random order
train, test = ([side[:, num_layers] for side in states_at["said"][i]] for i in (0, 2))
chance = probe_of_chance(train, test)

# %% [markdown]
# And something to compare with. While the model *reads*, it also predicts: before each word of the answer
# it holds a probability for the next one. How unexpected was the word that came?

# %%
# The probability of either word, before it is read in the answer; a low one means surprise
reading = next_word(aligner, found["test"], reading=True)
surprise = exact_auc(-reading["wrong"], -reading["right"])
sample = -reading["wrong"][:60], -reading["right"][:60]
print("ours and the library's agree:", bool(np.isclose(auc(*sample), exact_auc(*sample).value)))

title = "Reading the wrong word surprises it, but leaves no mark that a probe finds"
figure, [axis] = new_figure(title, width=7.4)
lines = {
    label: (list(layers), [p.test.value for p in probed[place]]) for place, label in PLACES.items()
}
curves(axis, lines, "states after layer", "AUC of a probe")
axis.axhspan(chance.low, chance.high, color="#e8e4d8", zorder=0)
axis.text(0.1, chance.low + 0.005, "random labels", color="#6b6550")
axis.axhline(surprise.value, color="black", linewidth=1)
axis.text(0.1, surprise.value + 0.015, "surprise while reading")
axis.set(ylim=(0.4, 1.0))
axis.set_xticks(list(layers), ["embedding", *range(num_layers)])
metrics.save_figure(figure, "probe")
figure

# %% [markdown]
# The shaded band is what random labels give. A probe rises a little above it only in the last place, after
# the last layer. And yet the Aligner *was* surprised: while it read, a wrong word was less expected than a
# right one, and that alone separates the two well. A linear probe finds no trace of it until the word is
# about to be written. So we find no support for the story of checking. A mark that is not linear could
# still be there.
#
# *You can stop here. The rest shows how the word is chosen.*
#
# ## Two heads
#
# Only attention carries anything from one position to another. When the word is about to be written, which
# heads look at the word in the *answer*, and which at the right word on the *board*?

# %%
# Attention of each head, from the place before the word is written
shares = {
    "answer": head_attention(aligner, found["validation"], "at").numpy(),
    "board": head_attention(aligner, found["validation"], "source").numpy(),
}  # (layers, heads) each
title = "A few heads look at the answer's word, or at the board's"
figure, axes = new_figure(title, width=8, height=2.9, columns=2)
for axis, (where, share) in zip(axes, shares.items()):
    labels = [f"layer {i}" for i in range(num_layers)], [f"head {i}" for i in range(share.shape[1])]
    heatmap(axis, share, *labels, f"fraction of attention on the {where}'s word")
metrics.save_figure(figure, "heads")
copier, reader = (
    tuple(int(i) for i in np.unravel_index(share.argmax(), share.shape))
    for share in shares.values()
)
print("copier (layer, head):", copier, "  reader:", reader)
figure

# %% [markdown]
# Looking is not doing. So we switch each of the two heads off, and ask again for the next word. As a
# control we do the same with the head of the last layer that looks least at either word. We keep the rows
# in which the right word stands on the board once, so the first bars differ a little from the numbers above.

# %%
known = [pair for pair in found["test"] if pair.source is not None]
last = num_layers - 1
idle = (last, int((shares["answer"][last] + shares["board"][last]).argmin()))
switched_off = {"all heads": [], "no copier": [copier], "no reader": [reader], "control": [idle]}
spoken = {}
for name, heads in switched_off.items():
    with without_heads(model, heads):
        spoken[name] = next_word(aligner, known)

# The fraction of rows in which either word is written next
title = "The copier pulls towards the answer, the reader towards the board"
figure, [axis] = new_figure(title, width=6.5, height=3.6)
groups = {
    f"{kind} word": {name: rate(what[f"says {kind}"]) for name, what in spoken.items()}
    for kind in ("right", "wrong")
}
bars(axis, groups, "written next, %")
axis.set_ylim(0, 100)
metrics.save_figure(figure, "answer")
figure

# %% [markdown]
# Without the copier the fault is copied less often, and the right word is written more often. Without the
# reader, the answer's word wins. The control changes little. So the two compete: one head brings the
# answer's word, the other the board's. Two heads of an earlier layer look at the board's word nearly as
# much; we switched off the strongest. In one of three training runs the roles are less clear
# ([evidence](evidence/04_inside.ipynb#seeds)).
#
# **Your turn.** Switch off any head, and see what this answer becomes. A head has more than one role: the
# copier is also needed for the rest of the sentence, so the answer may go wrong in other ways.

# %%
my_heads = [copier]  # such as [(3, 0), (3, 1)]: layer and head, both counted from 0
my_question = "board : oven in cellar . oven costs 7 . warden ada . question : where is the oven ?"
my_answer = "the oven is in the attic . have a nice day ."
with_all = aligner.correct([my_question], [my_answer])[0]
with without_heads(model, my_heads):
    without = aligner.correct([my_question], [my_answer])[0]
texts = [(my_question, my_answer, with_all), (my_question, my_answer, without)]
show_diffs(texts, ["all", "without yours"], "heads")

# %% [markdown]
# ## Where is the answer's word fetched?
#
# **Patching** answers that. We take the run with the faulty answer. After one layer, at one position, we
# put in the state of the *other* run. If that changes the next word, the information was there. We try two
# positions: the word in the answer, and the last word of the input.
#
# ### Exercise 3 · patching (10 minutes, medium)
#
# `output` is a layer's output, with shape (1, time, width), and `state` has shape (1, width). Return the
# output with the state at `place` replaced by `state`. Leave the given tensor as it was.
#
# <details><summary>Hint</summary><code>output.clone()</code>, then <code>[:, place]</code>.</details>


# %% tags=["exercise"]
def patched(output: torch.Tensor, place: int, state: torch.Tensor) -> torch.Tensor:
    """The layer's output, with another state at one place."""
    ...  # your code here


# %% tags=["solution"]
def patched(output: torch.Tensor, place: int, state: torch.Tensor) -> torch.Tensor:
    """The layer's output, with another state at one place."""
    output = output.clone()
    output[:, place] = state
    return output


# %% tags=["check"]
patched = check.patched(patched)

# %%
# By hand on one pair: keep the other run's state after layer 2 (a function that returns nothing
# changes nothing), then put it into this run
pair, layer, kept = known[0], num_layers - 2, []
next_token(model, pair.sound, layer, lambda output: kept.append(output[:, pair.at].clone()))
ours = next_token(model, pair.faulty, layer, lambda output: patched(output, pair.at, kept[0]))
print("ours and the library's agree:", ours == patched_word(aligner, pair, layer, pair.at))

some = known[:100]
lines = {}
for label, place_of in (
    ("at the answer's word", lambda p: p.at),
    ("at the last word", lambda p: -1),
):
    right = [
        rate([patched_word(aligner, p, layer, place_of(p)) == p.right for p in some])
        for layer in range(num_layers)
    ]
    lines[label] = (range(num_layers), right)
figure, [axis] = new_figure("The answer's word is fetched in the last layer", width=7.4)
curves(axis, lines, "patched after layer", "right word written, %", 100)
for side, words in (("sound", "correct answer read, no patch"), ("faulty", "faulty answer read")):
    unpatched = 100 * next_word(aligner, some, side)["says right"].mean()
    axis.axhline(unpatched, color="#8a8a8a", linewidth=1, linestyle=":")
    axis.text(1.1, unpatched - 6, words, fontsize=9)
axis.set(xticks=range(num_layers), ylim=(0, 105))
metrics.save_figure(figure, "patching")
figure

# %% [markdown]
# Up to the layer before the last, the patch works at the answer's word, and not at the last word. (After the
# last layer it must be the other way round.) So the information stays at the word's position in the answer
# until the last layer fetches it. If the model had stored a note at another position, so late a patch would
# change nothing. A mark at the word itself is not excluded, since the patch would remove it too. For that
# we had the probe.
#
# ## When is the word decided?
#
# ### Exercise 4 · the logit lens (10 minutes, medium)
#
# Every layer adds to the state. `stream[l]` is the state after layer `l`, already normalized, and
# `words[w]` is the output embedding of word `w`. What probability would each word have if layer `l` were
# the last?
#
# <details><summary>Hint</summary>A score is a dot product; probabilities are a softmax over the words.</details>


# %% tags=["exercise"]
def lens(stream: np.ndarray, words: np.ndarray) -> np.ndarray:
    """(layers, width) and (vocabulary, width) give probabilities, (layers, vocabulary)."""
    ...  # your code here


# %% tags=["solution"]
def lens(stream: np.ndarray, words: np.ndarray) -> np.ndarray:
    """(layers, width) and (vocabulary, width) give probabilities, (layers, vocabulary)."""
    scores = np.asarray(stream) @ np.asarray(words).T
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


# %% tags=["check"]
lens = check.lens(lens)

# %%
runs = [pair.faulty for pair in found["test"]]
stream = states(model, tokenizer, runs, [-1] * len(runs))  # (n, layers + 1, width)
with torch.no_grad():
    normed = model.get_decoder().norm(stream).numpy()  # a norm stands before the output embedding
# The probabilities of the right and of the wrong word, after each layer
embeddings = model.get_output_embeddings().weight.detach().numpy()
chances = [lens(one, embeddings)[:, [p.right, p.wrong]] for one, p in zip(normed, found["test"])]
print("mean probability after the embedding, and after layers 0 to 3")
for name, by_layer in zip(("right", "wrong"), np.mean(chances, axis=0).T):
    print(f"{name} word:", " ".join(f"{chance:.2f}" for chance in by_layer))

# %% [markdown]
# Before the last layer the right word leads, with little probability yet. The wrong one arrives with the
# last layer, where the copier sits. Most of both comes in that layer, so that is where the word is decided.

# %%
known_all = spoken["all heads"]
for name, kind, key in (
    ("no copier", "wrong", "copy_head_ablation"),
    ("no reader", "right", "reading_head_ablation"),
):
    metrics.add(key, paired(spoken[name][f"says {kind}"], known_all[f"says {kind}"]))
best = max(probed["said"], key=lambda p: p.validation)
metrics.add("probe_auc", best.test)
metrics.add("probe_auc_shuffled", chance)
metrics.add("surprise_auc", surprise)
print("written to", metrics.write().name)

# %% [markdown]
# ## What is known
#
# From recorded runs, over three trained Aligners:
#
# <!-- known -->
#
# ## Takeaways
#
# - Compare runs that differ in one thing only.
# - A probe needs a control with random labels. And what a model knows may be in its predictions, where a
#   linear probe does not find it.
# - We found no sign that this Aligner checks and edits. It seems to write a new answer: one head copies from
#   the old answer, and others read the board.
#
# ## Quiz
#
# <details><summary>1. Two runs have written different words. A probe tells their states apart. What does that show?</summary>
# Nothing about the answer that was read: the states hold the words that were written.</details>
#
# <details><summary>2. A head looks at a word with most of its attention. Does it matter for the output?</summary>
# Not necessarily. Switch it off and see.</details>
#
# <details><summary>3. You patch the state at the answer's word after the last layer, and nothing changes. Why?</summary>
# The last layer has already fetched what it needs; no later layer reads that position.</details>
#
# **Next:** [05, one model in several styles](05_meet.ipynb).

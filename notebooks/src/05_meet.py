# %% [markdown]
# # 05 · Can one model hold several preferences?
#
# So far a model had one way to answer, and alignment meant to change it. But people want different things, and one person wants
# different things at different times. *MEET* ([arXiv 2310.00819](https://arxiv.org/abs/2310.00819)) keeps several preferences in
# one model, each behind a **control** that is put before the question: a good one and a bad one, a warm one and a plain one. Its
# idea is the order: first train the controls alone, with the language model frozen, so that they learn all they can; then the
# model, conditioned on them. **In this lesson** you
#
# - build a soft prompt by hand: words that no vocabulary has;
# - see what a control can do to a model that stands still, and what it cannot;
# - train the model with its controls, beside the usual way (one special token, trained jointly with the model);
# - turn a dial from bad to good, and beyond;
# - and look at what the controls have become.
#
# About 3 minutes and 1 GB on 2 CPU cores; it needs nothing of the lessons before; four exercises, about 26 minutes.

# %% tags=["parameters"]
PROFILE = "tiny"  # or "colab", "gpu"
SEED = 0
MODEL = None  # your own base model: a folder or a hub id
QAC = None  # your own rows: question, answer, correction (or preference pairs)
PREFERENCES = None
OUT = None  # where metrics and figures go; None: runs/05

# %% [markdown]
# The *task* holds preference pairs, base model and judge.

# %%
from dataclasses import replace

import numpy as np
import torch

from alignlib import ControlSettings, Meet, Metrics, Mix, load_model, load_task
from alignlib.controls import under, vectors, with_controls
from alignlib.course.checks import lesson05 as check
from alignlib.course.guess import Guess
from alignlib.course.sweep import read_results, recorded
from alignlib.interpret import attention
from alignlib.plots import curves, new_figure
from alignlib.report import told
from alignlib.stats import bootstrap_mean, net_win, paired, rate, smallest_difference, wins
from alignlib.tokens import encode

metrics = Metrics("05", PROFILE, SEED, OUT)
task = load_task(PROFILE, seed=SEED, model=MODEL, qac=QAC, preferences=PREFERENCES)
model, tokenizer = load_model(task.base)
takes = lambda p: 20 + len(encode(tokenizer, p.prompt + task.ask)) + max(90, len(encode(tokenizer, p.chosen)))  # a control, a question, an answer
held = [p for p in task.pairs("test") if takes(p) <= model.config.max_position_embeddings][:200]
print(task.describe())
print(f"{len(task.pairs('train'))} preference pairs to train on, {len(held)} to test on")

# %% [markdown]
# A pair is a question with two answers, one preferred to the other. Here the one is without a fault, and the other has a few:

# %%
pair = held[min(1, len(held) - 1)]
print(pair.prompt, "\n  preferred:", pair.chosen, "\n  rejected: ", pair.rejected)

# %% [markdown]
# A model learns $p(y \mid x)$: what to say to a question. With a control $c$ in front it learns $p(y \mid c, x)$: what to say if
# asked like *this*. The preferred answers are what it should say behind *good*, the rejected ones behind *bad*; and afterwards we
# ask for *good*. No pair is ever compared with its other half, as DPO does. All that is needed are texts of each kind.

# %% [markdown]
# ## A control by hand
#
# What is a control made of? The obvious thing is a word: *good :*. But words are few, and each is one point in the space of
# embeddings. A model reads embeddings, not words, so we can put *any* points before the text, and move them by gradient descent
# until they do what we want. That is a **soft prompt**: $n$ virtual tokens, each as wide as an embedding.

# %% [markdown]
# ### Exercise 1 · before the text (8 minutes, easy)
#
# `control` are the virtual tokens, (n, width); `words` the embeddings of a batch of texts, (rows, length, width). What the model
# reads is (rows, n + length, width). By hand: a control [9, 9] and a text of two words [1, 2], [3, 4] give [9, 9], [1, 2], [3, 4].
#
# <details><summary>Hint</summary><code>np.broadcast_to(control, (rows, *control.shape))</code> is the control once for each row.</details>

# %% tags=["exercise"]
def soft_prompt(control: np.ndarray, words: np.ndarray) -> np.ndarray:
    """The control before every row of the batch: (n, width) and (rows, length, width) give (rows, n + length, width)."""
    ...  # your code here

# %% tags=["solution"]
def soft_prompt(control: np.ndarray, words: np.ndarray) -> np.ndarray:
    """The control before every row of the batch: (n, width) and (rows, length, width) give (rows, n + length, width)."""
    every = np.broadcast_to(control, (len(words), *np.shape(control)))
    return np.concatenate([every, words], axis=1)

# %% tags=["check"]
soft_prompt = check.soft_prompt(soft_prompt)

# %% [markdown]
# ### Exercise 2 · labels (5 minutes, easy)
#
# The text became longer at the front, so its labels must too: one for each input, and none of the control's tokens is to be
# foretold. (-100 is the label of a token without loss.)
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
# The library leaves soft prompts to PEFT. The same text, behind the same control, by hand and by library; shapes first:

# %%
five = with_controls(model, tokenizer, ["good", "bad"], ControlSettings("prompt", 5, seed=SEED))
ids = torch.tensor([encode(tokenizer, pair.prompt + task.ask)], device=model.device)
control = five.prompt_encoder["good"].embedding.weight.detach().cpu().numpy()
words = model.get_input_embeddings()(ids).detach().cpu().numpy()
read = soft_prompt(control, words)
print("control", control.shape, "text", words.shape, "read", read.shape)
labels = torch.tensor([labels_behind(len(control), ids[0].tolist())], device=model.device)
with torch.no_grad():
    by_hand = model(inputs_embeds=torch.tensor(read, device=model.device), labels=labels)
    five.set_adapter("good")
    by_library = five(input_ids=ids, labels=ids)
print("by hand and by PEFT the same loss:", bool(torch.isclose(by_hand.loss, by_library.loss)), f"({by_hand.loss:.4f})")

# %% [markdown]
# ### Where should it start?
#
# PEFT starts a soft prompt at random, with a standard deviation near 1. How long are such vectors, beside the embeddings of
# words? And what does a control that nobody has trained yet do to the answer?

# %%
rows = held[:100]
asked, preferred = [p.prompt + task.ask for p in rows], [p.chosen for p in rows]
print(f"a word's embedding is {model.get_input_embeddings().weight.norm(dim=1).mean():.2f} long")
for start in ("unit", "random", "vocabulary"):
    fresh = Meet(with_controls(load_model(task.base)[0], tokenizer, ["good"], ControlSettings("prompt", 20, start, seed=SEED)), tokenizer)
    harm = bootstrap_mean((fresh.logprob(asked, preferred, None) - fresh.logprob(asked, preferred, "good")).numpy(), "nats")
    print(f"{start:11} {vectors(fresh.model, 'good').norm(dim=1).mean():6.2f} long; untrained, it costs {harm} a token of the preferred answers")

# %% [markdown]
# PEFT's random vectors are five times as long as our words, and yet none of the three does any harm: what an untrained control costs
# is 0.001 or 0.002 nats. In larger models, whose embeddings are a few hundredths in each direction, the difference is much greater,
# and a control that starts far outside of all words may learn slowly.

# %% [markdown]
# The library starts at the embeddings of words drawn from
# the vocabulary: the right length, and in directions that the model knows. Whether it *matters* here is for a recorded
# comparison, which is still to be made.

# %% [markdown]
# ## Step 1: the controls alone
#
# The model is frozen, bit for bit; only 20 virtual tokens of each control are trained, on the preferred answers and on the rejected
# ones in turn, by plain likelihood. First a guess:

# %%
guess = Guess("with the model frozen, the good control leaves 10 answers of a hundred more without a fault than the bad one", probability=None)

# %%
TWENTY = ControlSettings("prompt", 20)
first = task.meet(SEED, TWENTY, "first")
same = all(torch.equal(a, b) for a, b in zip(load_model(task.base)[0].parameters(), first.model.get_base_model().parameters()))
print(f"weights of the language model unchanged: {same}; a control has {100 * first.control_share:.2f} % of its parameters")

questions = [p.prompt for p in held]
def answers(meet, control, temperature: float = 1.0) -> list[str]:
    """What is answered to the test's questions under a control; at temperature 1 as the model speaks."""
    return meet.generate([q + task.ask for q in questions], control, max_new_tokens=90, temperature=temperature, seed=SEED)

def faultless(texts: list[str]):
    """Whether each answer is without a fault, if there is a judge who can tell."""
    return task.judge.marks(questions, texts).get("fault_free")

def sound(texts: list[str]):
    """The share of them."""
    return None if (found := faultless(texts)) is None else rate(found == 1)

alone = {control: answers(first, control) for control in ("bad", None, "good")}
for control, texts in alone.items():
    print(f"{control or 'no control':10} fault-free {told(sound(texts))}")
print(guess.reveal(None if sound(alone["good"]) is None else paired(faultless(alone["good"]), faultless(alone["bad"])), 0.1, metrics))

# %% [markdown]
# It can, a little. With 0.3 % of the model's parameters and 38 steps each, the good control makes 26 answers of a hundred faultless, the
# bad one 19, none 20: 6.5 points between them, with an interval from 0.5 to 12. Is that as far as a frozen model can be moved? By no
# means. Before this world was frozen, LoRA controls of rank 8, thirty times as heavy, were trained for 150 steps each (*recorded*):

# %%
steer = read_results("steer")
print("LoRA alone: " + ", ".join(f"{c} fault-free {recorded(steer, 'fault_free', control=c)}" for c in ("bad", "none", "good")))

# %% [markdown]
# There the control alone moves the answers by forty points. So what step 1 can do hangs on the control and on how long it is trained.

# %% [markdown]
# ## Step 2: the model, conditioned on them
#
# Now all weights learn, the controls along with them, on the same rows; and beside it the usual way: *one* special token for
# each kind, trained together with the model from the start, for as many steps as MEET's two together.

# %%
both = task.meet(SEED, TWENTY)
usual = task.meet(SEED, ControlSettings("prompt", 1), "joint")
MODELS = {"step 1 alone": first, "MEET": both, "one token": usual}
texts = {"step 1 alone": alone} | {name: {control: answers(m, control) for control in ("bad", "good")} for name, m in (("MEET", both), ("one token", usual))}

# %% [markdown]
# The same question, asked in each way:

# %%
for name in ("MEET", "one token"):
    for control in ("bad", "good"):
        print(f"{name:10}{control:5} {texts[name][control][1]}")
print(pair.prompt)

# %% [markdown]
# What does a control change? Two measures: by how much the preferred answer of each pair is likelier behind *good* than behind
# *bad*; and how many answers are without a fault.

# %%
def more_likely(meet):
    """log p(preferred | good) - log p(preferred | bad), nats a token, over the test."""
    given = [p.prompt + task.ask for p in held], [p.chosen for p in held]
    return bootstrap_mean((meet.logprob(*given, "good") - meet.logprob(*given, "bad")).numpy(), "nats")

for name, m in MODELS.items():
    gap = more_likely(m)
    if name == "MEET":
        metrics.add("good_minus_bad_logprob", gap)
    print(f"{name:13} good less bad {gap}   fault-free: bad {told(sound(texts[name]['bad']))}, good {told(sound(texts[name]['good']))}")

# %% [markdown]
# And MEET against the usual way, both asked for *good*:

# %%
marks = {name: task.judge.marks(questions, texts[name]["good"]) for name in MODELS}
if task.judge.axes:
    metrics.add("meet_vs_ctg_live", net_win(marks["one token"]["overall"], marks["MEET"]["overall"]))
    least = smallest_difference(100 * wins(marks["one token"]["overall"], marks["MEET"]["overall"]), np.zeros(len(questions)))
    print(f"a true net win of {least:.0f} points would show 4 times in 5")
print("net win of MEET over one token, as the models speak:", told(metrics.values.get("meet_vs_ctg_live")))

# %% [markdown]
# Asked for *good*, MEET leaves 40 answers of a hundred without a fault, asked for *bad* 13: one model, two manners, and step 2 has made
# a handle of what was hardly one. Behind *good* each word of a preferred answer is likelier by 0.056 nats. It wins 13 points net over
# one token, [3, 24].

# %% [markdown]
# But look at what that comparison holds together: MEET's control has twenty tokens instead of one, it was trained first, *and* at a
# higher learning rate while it was alone. Which of the three wins? This is one seed, on 200 questions, which miss a net win of 15
# points one time in five. So do not put it down to the order before that is measured: size, order and rate apart, over seeds, are still
# to be recorded.

# %% [markdown]
# ## The figure that answers the question
#
# A control is a place, and places have others between them. What does a model do half-way between *bad* and *good*?

# %% [markdown]
# ### Exercise 3 · between two controls (5 minutes, easy)
#
# Two controls are two points, and there are points between them: at `w` = 0 the bad one, at 1 the good one, at 0.5 the middle;
# at 1.5 beyond the good one, as far again as from the middle to it.
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
good, bad = (vectors(both.model, c).cpu().numpy() for c in ("good", "bad"))
print("by hand and by library the same:", np.allclose(between(good, bad, 0.3), vectors(both.model, Mix(good=0.3, bad=0.7)).cpu().numpy(), atol=1e-6))
dial, said = [-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5], {0.0: "bad", 1.0: "good"}  # the ends are known by now
at = lambda name, w: texts[name][said[w]] if w in said else answers(MODELS[name], Mix(good=w, bad=1 - w))
turned = {name: [sound(at(name, w)) for w in dial] for name in ("MEET", "one token")}
figure, [ax] = new_figure("Between its controls a model goes from bad to good, in one step rather than by degrees", width=7, height=3.8)
curves(ax, {name: (dial, line) for name, line in turned.items() if all(line)}, "bad (0) to good (1)", "answers without a fault, %", 100)
metrics.save_figure(figure, "dial")
print("MEET: " + ", ".join(f"at {w:g} {100 * e.value:.1f} %" for w, e in zip(dial, turned["MEET"]) if e))
figure

# %% [markdown]
# This is the figure that answers the question: one model, and it shows what it is asked for. From 12.5 % faultless answers at the bad
# control to 40 % at the good one, the most of it between a quarter and a half of the way: more a switch than a dial. Beyond the ends
# it goes on a little, or not at all: 42.5 % at 1.5 is no more than 200 questions can tell from 40 %. One token does much the same. (MEET's
# paper does not mix controls; that the way between two of them is passable is our addition.)

# %% [markdown]
# ## What have the controls become?
#
# A virtual token is a point among the words' embeddings. Which words are its neighbours, and how far has it moved from where it
# started?

# %%
unit = lambda some: torch.nn.functional.normalize(some, dim=1)
fresh = with_controls(load_model(task.base)[0], tokenizer, ["good", "bad"], replace(TWENTY, seed=SEED))
for name, m in (("step 1 alone", first), ("MEET", both)):
    vocabulary = unit(m.model.get_base_model().get_input_embeddings().weight.detach())
    for control in ("good", "bad"):
        points, start = vectors(m.model, control), vectors(fresh, control)
        near, home = (unit(points) @ vocabulary.T).max(1), (unit(start) @ vocabulary.T).argmax(1)
        print(f"{name:13}{control:5} length {points.norm(dim=1).mean():.2f}, likeness to the nearest word {near.values.mean():.2f}, "
              f"which is the one it started from in {100 * (near.indices == home).float().mean():.0f} %: {' '.join(tokenizer.convert_ids_to_tokens(near.indices[:5].tolist()))} ...")
stayed = torch.nn.functional.cosine_similarity(vectors(first.model, "good"), vectors(both.model, "good")).mean()
print(f"likeness of the good control before step 2 to itself after it: {stayed:.3f}")
apart = torch.nn.functional.cosine_similarity(vectors(both.model, "good"), vectors(both.model, "bad")).mean()
print(f"likeness of the good control's tokens to the bad one's: {apart:.2f}")

# %% [markdown]
# The nearest words are, for at least 19 tokens in 20, those from which they started, at random: *rulox*, *hall*, *candle*. They have
# moved away from them, to a likeness of 0.6, and grown by half; but they did not come to lie at other words. So a soft prompt is not
# a hidden sentence that one could read. Step 2, at its lower learning rate, has left them where step 1 put them; what changed is the
# model that reads them.

# %% [markdown]
# Who looks at them? The share of attention that the last word before the answer gives to the control's 20 tokens, by layer,
# over twenty questions; evenly spread it would be the control's share of all tokens:

# %%
shares, even = [], []
with under(both.model, "good") as (lm, virtual):
    for q in questions[:20]:
        row = virtual + encode(tokenizer, q + task.ask)
        looks = attention(lm, torch.tensor([row], device=lm.device))[:, 0, :, -1, : len(virtual)]  # (layers, heads, control)
        shares.append(looks.sum(-1).cpu().numpy())
        even.append(len(virtual) / len(row))
for layer, heads in enumerate(np.mean(shares, axis=0)):
    print(f"layer {layer}: " + ", ".join(f"head {h} {100 * share:.0f} %" for h, share in enumerate(heads)))
print(f"evenly spread: {100 * np.mean(even):.0f} %")

# %% [markdown]
# In the first layer nobody looks. In the last, head 3.2 spends nine tenths of its attention on the control and 3.1 four tenths, where 31 %
# would be even. That shows where the control is read; it does not show what for. (Heads often rest on whatever stands first, for
# want of anything else to look at. Lesson 04 has the tools to find out: silence the head, and ask again.)

# %% [markdown]
# And are all twenty needed? So many of them put to zero, drawn at random, and the good control asked for again:

# %%
draw, weight = np.random.default_rng(SEED), both.model.prompt_encoder["good"].embedding.weight
kept = weight.detach().clone()
print(f"no control at all: fault-free {told(sound(answers(both, None)))}")
for n in (0, 10, 10, 15, 20):
    with torch.no_grad():
        weight[torch.tensor(draw.permutation(len(kept))[:n])] = 0
    print(f"{n:2} of {len(kept)} put to zero: fault-free {told(sound(answers(both, 'good')))}")
    with torch.no_grad():
        weight.copy_(kept)

# %% [markdown]
# With ten of the twenty gone, 200 questions see no difference; with all of them, not much is left of the control (27 %, against 23 %
# with no control at all). So it does not hang on one token, and some can be spared. Whether a larger control is better, as the paper
# says, is still to be recorded.

# %% [markdown]
# ## LoRA: the other kind of control
#
# A control may also be a small change of the weights: to each matrix $W$ (rows × columns) a product $B A$ of two thin ones is
# added, $B$ (rows × rank) and $A$ (rank × columns). With the control's name the change is switched on.

# %% [markdown]
# ### Exercise 4 · what LoRA weighs (8 minutes, medium)
#
# `shapes` are the matrices that get one, `total` the model's parameters. What share of them does LoRA of this rank add? By hand:
# rank 1 on one matrix of 4 × 4, in a model of 16 parameters: 8 of 16, a half.
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
shapes = [tuple(m.weight.shape) for name, m in plain.named_modules() if isinstance(m, torch.nn.Linear) and m is not plain.get_output_embeddings()]
by_hand = lora_share(8, shapes, plain.num_parameters())
by_library = Meet(with_controls(plain, tokenizer, ["good"], ControlSettings("lora", 8)), tokenizer).control_share
print(f"rank 8 on every linear layer: {100 * by_hand:.2f} % of the model; by hand and by library the same: {np.isclose(by_hand, by_library)}")

# %% [markdown]
# That is thirty times what a soft prompt of 20 tokens weighs. Here are both on validation, with three settings each (one seed, 200
# questions; *recorded*), beside what else the same pairs can be used for, in the same number of steps:

# %%
tuning = read_results("meet_tuning")
for method in dict.fromkeys(c["params"]["method"] for c in tuning["cells"]):
    cells = [c["metrics"] for c in tuning["cells"] if c["params"]["method"] == method]
    best = max(cells, key=lambda m: m["overall"])
    print(f"{method:13} best of {len(cells)}: fault-free {100 * best['sound_1']:.0f} % as it speaks, {100 * best['sound_0']:.0f} % of its likeliest answers; "
          f"overall {best['overall']:.3f} of 1 (the others {', '.join(f'''{m['overall']:.3f}''' for m in cells if m is not best)})")

# %% [markdown]
# These numbers choose settings; they prove nothing, for each is the best of three on the same 200 questions, with one seed, and some of
# the best lie at the edge of what was tried. But they tell where to look. As the model speaks, LoRA is ahead of a soft prompt, and a
# soft prompt level with one token.

# %% [markdown]
# And the two rivals that never see a control, fine-tuning on the preferred answers alone (*sft*) and DPO behind it, are level with the
# best of them. They have only one manner, though: nobody can ask them for another. (Words as controls, *chain of hindsight*, [arXiv
# 2302.02676](https://arxiv.org/abs/2302.02676), the rival that MEET's paper names, is still to be run.)

# %% [markdown]
# ## Verdict

# %%
print("written to", metrics.write().name)

# %% [markdown]
# Can one model hold several preferences? It holds two, and shows the one it is asked for: that much one seed shows (27.5 points lie
# between bad and good, and their intervals far apart). Whether it is MEET's *order* that does it, controls first, cannot be
# told here yet.

# %% [markdown]
# | the paper | here, so far |
# |---|---|
# | controls trained first, with the model frozen, do more than one trained jointly | 13 points net over one token [3, 24], one seed; size, order and rate not yet told apart |
# | both steps are needed (ablations) | a soft prompt alone, 38 steps each: 6.5 points between good and bad; both steps: 27.5; LoRA alone, trained longer: about 42. The second step alone: still to be recorded |
# | a larger control is better | still to be recorded |
# | better than words as controls (chain of hindsight), on par with DPO or better | words: still to be recorded; on validation, one seed, DPO and plain fine-tuning are level with MEET by LoRA |

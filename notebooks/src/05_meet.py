# %% [markdown]
# # 05 · How can one model answer in several styles?
#
# People want different answers, and one person wants different answers at different times.
# **[MEET](../GLOSSARY.md#meet)** keeps several behaviors in one model. Each has a
# **[control](../GLOSSARY.md#control-tokens)**, a small set of trained weights that selects it. You choose
# the control when you ask.
#
# **By the end you can**
#
# - write down MEET's loss, and say over which weights each of its two steps minimizes it,
# - build a soft prompt by hand, and train both steps in twenty-five lines of PyTorch,
# - move gradually from one behavior to the other by mixing two controls,
# - name a trap in comparing methods that need different learning rates.
#
# | | |
# |---|---|
# | time | 25 minutes to read, 26 for the four exercises, 2 to run |
# | you need | PyTorch, and the [cross-entropy loss](../GLOSSARY.md#cross-entropy-loss) of a language model |
# | paper | [arXiv 2310.00819](https://arxiv.org/abs/2310.00819), "alignMEnt with parameter-Efficient Tuning". We could read its abstract and its reviews, not the full text. |
# | lessons | previous: [04, inside an Aligner](04_inside.ipynb) · next: [06, aligning without forgetting](06_hbat.ipynb) · in practice: [09, your own MEET](09_your_meet.ipynb) |

# %% tags=["parameters"]
SEED = 0
SCALE = 1.0  # below 1: fewer steps and fewer rows, for a quick look
OUT = None  # where metrics and figures go; None: runs/05

# %%
import random
from dataclasses import replace

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from alignlib import ControlSettings, Meet, Metrics, Mix
from alignlib.controls import prompt_embeddings, with_controls
from alignlib.course.checks import lesson05 as check
from alignlib.diagrams import draw_meet
from alignlib.styles import texts_by_control
from alignlib.models import load_model
from alignlib.plots import bars, curves, new_figure
from alignlib.profiles import scaled_steps
from alignlib.stats import paired, rate
from alignlib.tinytown.task import load_town

town = load_town(SEED, SCALE)
pairs, held_out = town.pairs("train"), town.pairs("test")[:200]
metrics = Metrics("05", "tiny", SEED, OUT)

# %% [markdown]
# ## The problem, on one example
#
# We have pairs of answers to the same question, in the toy world of [lesson 02](02_aligner.ipynb). One is
# preferred: it agrees with the notice board, and is complete, polite and safe. The other has faults. A
# program, the [judge](../GLOSSARY.md#judge), finds them: an answer is *without faults* if it gets full marks
# for being helpful, harmless and honest.

# %%
pair = held_out[2]
print(pair.prompt)
print("preferred:   ", pair.chosen)
print("dispreferred:", pair.rejected)

# %% [markdown]
# Ordinary fine-tuning on the preferred answers gives a model with one behavior. We want a model that
# answers better when we ask for *good*, and worse when we ask for *bad*. Why keep the bad one? It makes
# the difference easy to measure. In practice you would train, say, a short and a detailed control
# ([evidence](evidence/05_meet.ipynb#axes)).
#
# ## The method
#
# MEET trains in two steps. Dark boxes are being trained, dashed boxes are frozen, and red arrows are
# gradients. The control stands before the prompt.

# %%
draw_meet()

# %% [markdown]
# Both steps minimize the same loss, the cross-entropy of each answer with its own control before the
# prompt:
#
# $$L \;=\; -\,\mathbb{E}\big[\log p_\theta(y_w \mid \varphi_{good}, x)\big]
# \;-\, \mathbb{E}\big[\log p_\theta(y_l \mid \varphi_{bad}, x)\big]$$
#
# $$\text{step 1:}\;\; \min_{\varphi_{good},\,\varphi_{bad}} L
# \qquad\qquad \text{step 2:}\;\; \min_{\theta,\,\varphi_{good},\,\varphi_{bad}} L$$
#
# - $x$, $y_w$, $y_l$: the prompt, the preferred and the dispreferred answer,
# - $\varphi_{good}$, $\varphi_{bad}$: the two controls,
# - $\theta$: the weights of the language model $p_\theta$. They are frozen in step 1. In step 2 nothing
#   is frozen. (The sources that we could read leave open whether the paper trains the controls on.)
#
# The idea is the order. A control has far fewer weights than the model. The abstract argues that it learns
# too little if both are trained together from the start. So it gets a head start. For whether that helps,
# see "What is known" at the end.
#
# Nothing in the loss compares the two answers of a pair. MEET needs texts of each kind, not pairs.

# %% [markdown]
# ## By hand: a soft prompt
#
# What is a control made of? A model reads embeddings, not words. So we can put *any* vectors before
# the text, and improve them by gradient descent. Such vectors are called
# **[virtual tokens](../GLOSSARY.md#virtual-tokens)**, or a soft prompt.
#
# ### Exercise 1 · before the text (8 minutes, easy)
#
# `control` holds the virtual tokens, with shape (n, width). `words` holds the embeddings of a batch of
# texts, with shape (batch, time, width). Return what the model reads, with shape
# (batch, n + time, width). A control (9, 9) before a text of two words,
# (1, 2) and (3, 4), gives three vectors: the control's, then the words'.
#
# <details><summary>Hint</summary><code>np.broadcast_to(control, (batch, *control.shape))</code> repeats the control for each row.</details>


# %% tags=["exercise"]
def soft_prompt(control: np.ndarray, words: np.ndarray) -> np.ndarray:
    """The control before every row of the batch."""
    ...  # your code here


# %% tags=["solution"]
def soft_prompt(control: np.ndarray, words: np.ndarray) -> np.ndarray:
    """The control before every row of the batch."""
    repeated = np.broadcast_to(control, (len(words), *np.shape(control)))
    return np.concatenate([repeated, words], axis=1)


# %% tags=["check"]
soft_prompt = check.soft_prompt(soft_prompt)

# %% [markdown]
# ### Exercise 2 · labels (5 minutes, easy)
#
# The input is longer now, so its labels must be longer too. Virtual tokens carry no loss: their label
# is -100. Return the labels for `n` virtual tokens followed by a text with labels `labels`.
#
# <details><summary>Hint</summary>Two lists, one after the other.</details>


# %% tags=["exercise"]
def labels_with_control(n: int, labels: list[int]) -> list[int]:
    """The labels of n virtual tokens and of the text after them."""
    ...  # your code here


# %% tags=["solution"]
def labels_with_control(n: int, labels: list[int]) -> list[int]:
    """The labels of n virtual tokens and of the text after them."""
    return [-100] * n + list(labels)


# %% tags=["check"]
labels_with_control = check.labels_with_control(labels_with_control)

# %% [markdown]
# The same in PyTorch, for a batch. Each row is the prompt, the answer and an end token; only the answer
# and the end token carry loss.

# %%
model, tokenizer = load_model(town.base)


def tokenize(prompt: str, answer: str) -> dict[str, torch.Tensor]:
    """Token ids and labels of one row."""
    start = [tokenizer.bos_token_id] + tokenizer(prompt)["input_ids"]
    rest = tokenizer(answer)["input_ids"] + [tokenizer.eos_token_id]
    labels = [-100] * len(start) + rest
    return {"ids": torch.tensor(start + rest), "labels": torch.tensor(labels)}


def loss_with(control: torch.Tensor, rows: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """The loss of a batch of rows, with a soft prompt (n, width) before each of them."""
    ids = pad_sequence([row["ids"] for row in rows], batch_first=True)  # (batch, time)
    labels = [row["labels"] for row in rows]
    labels = pad_sequence(labels, batch_first=True, padding_value=-100)  # (batch, time)
    # The control goes before the embeddings of the words, and -100 before their labels. Padding
    # stands at the end, where a causal model does not look, so it needs no attention mask.
    words = model.get_input_embeddings()(ids)  # (batch, time, width)
    repeated = control.expand(len(rows), -1, -1)  # (batch, n, width)
    inputs = torch.cat([repeated, words], dim=1)
    nothing = torch.full((len(rows), len(control)), -100)
    # The model shifts the labels by one itself, and takes the mean over tokens
    return model(inputs_embeds=inputs, labels=torch.cat([nothing, labels], dim=1)).loss


# %% [markdown]
# The library leaves soft prompts to PEFT, the parameter-efficient fine-tuning library of Hugging Face.
# With the same control, both give the same loss:

# %%
# Two controls of 20 virtual tokens each, made by PEFT
by_peft = with_controls(
    load_model(town.base)[0], tokenizer, ["good", "bad"], ControlSettings("prompt", 20, seed=SEED)
)
row = tokenize(pair.prompt, pair.chosen)
with torch.no_grad():
    ours = loss_with(prompt_embeddings(by_peft, "good"), [row])
    peft = by_peft(input_ids=row["ids"][None], labels=row["labels"][None]).loss
print(f"ours {ours:.4f}, PEFT's {peft:.4f} nats per token")

# %% [markdown]
# ## By hand: the two steps
#
# A control starts at the embeddings of 20 random words, so that the model gets familiar inputs. The two
# controls take turns, each with answers of its own kind.

# %%
rows = {
    "good": [tokenize(p.prompt, p.chosen) for p in pairs],
    "bad": [tokenize(p.prompt, p.rejected) for p in pairs],
}
controls = {}
for name in ("good", "bad"):
    controls[name] = torch.nn.Parameter(prompt_embeddings(by_peft, name).clone())
preferred = [tokenize(p.prompt, p.chosen) for p in held_out[:50]]


def report(step: int) -> None:
    """Print the loss of held-out preferred answers under both controls."""
    with torch.no_grad():
        good, bad = (float(loss_with(controls[c], preferred)) for c in ("good", "bad"))
    print(f"step {step:3}   asked for good {good:.3f}, asked for bad {bad:.3f}")


def train(groups: list[dict], num_steps: int, seed: int) -> None:
    """Train the parameters in `groups`."""
    optimizer = torch.optim.AdamW(groups)
    rng = random.Random(seed)
    for step in range(num_steps):
        if step % 20 == 0:
            report(step)
        # 1. One of the controls, with answers of its own kind
        name = ("good", "bad")[step % 2]
        loss = loss_with(controls[name], rng.sample(rows[name], min(32, len(pairs))))
        # 2. Change the weights
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    report(num_steps)


# %% [markdown]
# Step 1: the model is frozen, and the controls learn.

# %%
num_steps = scaled_steps(60, SCALE)
# Only the controls are handed to the optimizer
before = [p.clone() for p in model.parameters()]
model.requires_grad_(False)
train([{"params": list(controls.values()), "lr": 5e-2}], num_steps, SEED)
print("model unchanged:", all(map(torch.equal, before, model.parameters())))

# %% [markdown]
# Step 2: model and controls learn. The controls are small, and keep their high learning rate.

# %%
model.requires_grad_(True)
groups = [
    {"params": list(controls.values()), "lr": 5e-2},
    {"params": list(model.parameters()), "lr": 1e-3},
]
train(groups, num_steps, SEED + 1)

# %% [markdown]
# The numbers are the loss of *preferred* answers, which should be low for good and high for bad. The gap at
# the start comes from the random words. In step 1 it grows a little: the controls do what they can with a
# model that does not move. In step 2 the model learns to follow them, and the gap grows more. In so few
# steps preferred answers become less likely under *bad*, and stay about as they were under *good*. The
# real run is longer.
#
# ## The library's version
#
# `Meet.cached` runs both steps for longer, and keeps the result. Then
# we ask the same question under each control. Answers are sampled at temperature 1, so that they reflect
# the distribution that the model has learned.

# %%
TWENTY = ControlSettings("prompt", 20, seed=SEED)
# town.meet() has the steps (75, 175) and learning rates; the same settings are loaded again
first_step = Meet.cached(
    town.base, texts_by_control(pairs), control=TWENTY, **town.meet(both=False)
)
meet = Meet.cached(town.base, texts_by_control(pairs), control=TWENTY, **town.meet())


def ask(model: Meet, control, prompts: list[str]) -> list[str]:
    """Sampled answers under a control; None for no control."""
    options = {"max_new_tokens": 90, "temperature": 1.0, "seed": SEED}
    return model.generate(prompts, control, **options)


for control in ("good", "bad"):
    print(f"{control:5}", ask(meet, control, [pair.prompt])[0])

# %% [markdown]
# Compare both with the board, and with the preferred answer above. One sample of each shows little, so
# below we count two hundred.
#
# **Your turn.** Ask a question of your own with either control, and with a mixture of both. Use only
# words from Tinytown's vocabulary, such as those below.

# %%
my_question = (
    "board : oven in cellar . oven costs 7 . warden ada . question : where is the oven ? answer :"
)
mine = {"good": "good", "bad": "bad", "half": Mix(good=0.5, bad=0.5)}
for name, control in mine.items():
    print(f"{name:5}", ask(meet, control, [my_question])[0])

# %% [markdown]
# ## How much does the control change?
#
# We ask 200 held-out questions and count the answers without faults, also without any control. As a
# check, we train a second model in the same way on pairs whose answers were **swapped at random**, so that
# both of its controls see the same mixture of texts. There are three possible outcomes:
#
# - If the texts make the difference, MEET's controls differ, and those of the swapped pairs do not.
# - If something else does, such as the starting points, both differ.
# - If MEET does nothing, neither do.

# %%
prompts = [p.prompt for p in held_out]
questions = [prompt.removesuffix(town.answer_cue) for prompt in prompts]


def without_faults(answers: list[str]) -> np.ndarray:
    """Whether each answer has no fault, (n,)."""
    return town.judge.scores(questions, answers)["fault_free"]


# The check: half of the pairs, at random, have their answers swapped
coin = random.Random(SEED)
swapped = [
    replace(p, chosen=p.rejected, rejected=p.chosen) if coin.random() < 0.5 else p for p in pairs
]
check_run = Meet.cached(town.base, texts_by_control(swapped), control=TWENTY, **town.meet())
models = {"step 1 only": first_step, "both steps": meet, "swapped pairs": check_run}

# %%
# Every model is asked for good, for bad, and without any control
ASKED = {"asked for bad": "bad", "no control": None, "asked for good": "good"}
judged = {
    label: {name: without_faults(ask(model, control, prompts)) for name, model in models.items()}
    for label, control in ASKED.items()
}
shares = {
    asked: {name: rate(sound == 1) for name, sound in by_model.items()}
    for asked, by_model in judged.items()
}
figure, [axis] = new_figure("After both steps, asking for good or bad makes a large difference")
bars(axis, shares, "answers without faults, %")
axis.set_ylim(0, 60)
metrics.save_figure(figure, "answer")
figure

# %% [markdown]
# The thin lines are 95 % intervals over the questions. Without a control, the model after step 1 is the base
# model. Its controls move it a little, mostly towards *bad*. After step 2 the two controls lead to very
# different answers, though even *good* has a fault more often than not. Part of that is more training: the
# first step alone had fewer updates. With equally many it still falls short of both steps (see *What is
# known*). With swapped pairs there is no clear difference between the controls:

# %%
keys = {"step 1 only": "step_1", "both steps": "good_minus_bad", "swapped pairs": "control_swapped"}
for name, key in keys.items():
    gap = paired(judged["asked for good"][name], judged["asked for bad"][name])
    print(f"good minus bad, {name:14}", metrics.add(key, gap))

# %% [markdown]
# *You can stop here. The rest is about mixing controls, larger controls, and a trap.*
#
# ## A dial
#
# ### Exercise 3 · between two controls (5 minutes, easy)
#
# Two soft prompts are two points in the same space, and there are points between them. Return the one
# at `w`: at 0 the bad control, at 1 the good one, at 0.5 halfway, at 1.5 beyond the good one.
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
# The library's name for this is `Mix`. The model was never trained between its controls. What does it
# do there?

# %%
# Our function and the library's Mix, at the same point
ends = [prompt_embeddings(meet.model, name).numpy() for name in ("good", "bad")]
mixed = prompt_embeddings(meet.model, Mix(good=0.3, bad=0.7)).numpy()
print("ours and the library's agree:", np.allclose(between(*ends, 0.3), mixed, atol=1e-6))

dial = [-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5]
turned = []
for w in dial:
    answers = ask(meet, Mix(good=w, bad=1 - w), prompts)
    turned.append(rate(without_faults(answers) == 1))

figure, [axis] = new_figure("Mixing two controls moves the model from one behavior to the other")
label = "weight of the good control (0: bad, 1: good)"
curves(axis, {"MEET": (dial, turned)}, label, "answers without faults, %", 100)
axis.set_ylim(0, 60)
metrics.save_figure(figure, "dial")
figure

# %% [markdown]
# More than half of the change lies between 0.25 and 0.5, and beyond the good control nothing more is gained.
# (Neither abstract nor reviews mention mixing; this is our addition.)
#
# ## Another kind of control: LoRA
#
# A control may also be a small change of the weights. **[LoRA](../GLOSSARY.md#lora)** adds to a matrix
# $W$ of shape (rows, columns) the product $BA$ of two thin matrices, with $B$ of shape (rows, rank) and
# $A$ of shape (rank, columns). Choosing a control switches its change on.
#
# ### Exercise 4 · the size of LoRA (8 minutes, medium)
#
# `shapes` lists the matrices that get a LoRA of rank `rank`. How many weights does that add, as a
# fraction of the model's `total`? Rank 1 on one matrix of 4 x 4, in a model of 16 weights, adds half.
#
# <details><summary>Hint</summary>Each shape gets two thin matrices.</details>


# %% tags=["exercise"]
def lora_share(rank: int, shapes: list[tuple[int, int]], total: int) -> float:
    """The weights of LoRA matrices of this rank, as a fraction of the model's."""
    ...  # your code here


# %% tags=["solution"]
def lora_share(rank: int, shapes: list[tuple[int, int]], total: int) -> float:
    """The weights of LoRA matrices of this rank, as a fraction of the model's."""
    return sum(rank * (rows + columns) for rows, columns in shapes) / total


# %% tags=["check"]
lora_share = check.lora_share(lora_share)

# %%
# LoRA goes onto every linear layer except the output embedding
plain, _ = load_model(town.base)
head = plain.get_output_embeddings()
linear = [m for m in plain.modules() if isinstance(m, torch.nn.Linear) and m is not head]
shapes = [tuple(m.weight.shape) for m in linear]
print(f"a soft prompt of 20 tokens: {meet.control_share:.1%} of the model's weights")
print(f"LoRA of rank 8: {lora_share(8, shapes, plain.num_parameters()):.1%}")

# %% [markdown]
# These are the sizes of one control. A control with so many more weights moves a frozen model by itself:
# with LoRA, step 1 alone already does as well as both steps
# ([evidence](evidence/05_meet.ipynb#order)).
#
# ## A trap: the comparison that changes two things
#
# Are larger controls better? We had chosen the learning rates for twenty virtual tokens. With them, asking
# for good leaves 11 points more answers without faults than with one token. But with a higher learning rate
# of the model for both, that lead shrinks to 3 points, and could be none
# ([evidence](evidence/05_meet.ipynb#size)). **Before you believe a comparison, ask what else it changes.** A
# method is compared fairly only if every method gets its own best settings, found with the same effort.

# %%
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
# - MEET keeps several behaviors in one model. A small control selects one of them.
# - Step 1 trains the controls with the model frozen, step 2 trains both. The loss is the same, and it
#   needs texts of each kind, not pairs.
# - The head start of the controls, which is the paper's idea, makes no difference worth having here.
# - Two controls can be mixed. Compare controls only after tuning the learning rate of each.
# - If you want one behavior only, you do not need MEET: plain fine-tuning on the preferred answers does a
#   little better here. On a real model there was
#   [no such difference](../data/everyday/README.md#results-cost-of-controls).
#
# ## Quiz
#
# <details><summary>1. What is frozen in step 1, and which parameters does step 2 change?</summary>
# In step 1 the language model is frozen. Step 2 changes the model and, in our version, the controls.</details>
#
# <details><summary>2. What does the model with swapped pairs tell you?</summary>
# That most of MEET's difference comes from the texts. Other causes, such as the two starting points, make no
# clear difference here.</details>
#
# <details><summary>3. You want one behavior only. Do you need MEET?</summary>
# No. Plain fine-tuning on the preferred answers does a little better here (see "What is known").</details>
#
# **Next:** [06, aligning without forgetting](06_hbat.ipynb). With a real model and your own texts:
# [09, your own MEET](09_your_meet.ipynb).

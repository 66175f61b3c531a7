# %% [markdown]
# # 06 · Can we align without forgetting?
#
# A model follows instructions. Then it is taught manners: who asks politely is answered warmly. It
# learns that, and from then on answers warmly where nobody asked for it and where one plain answer
# was right. *HBAT*, hybrid alignment training ([arXiv
# 2406.15178](https://arxiv.org/abs/2406.15178)), lets both kinds of training take turns, and ties
# the weights, in each turn, to what the other has just changed. **In this lesson** you
#
# - see a model forget, and ask whether it had to;
# - measure whether two aims pull the same weights in opposite directions;
# - build *elastic weight consolidation* by hand: a Fisher diagonal on three weights, and a penalty;
# - find out what the importance in HBAT's released code protects (one tensor);
# - train in turns, and see what turns do, what holding does, and what simpler remedies do
#   (*recorded*);
# - build PPO's loss, and see the library's find an optimum that is known.
#
# About 2 to 4 minutes and 1 GB on 2 CPU cores; it needs nothing of the lessons before; four
# exercises, about 25 minutes.

# %% tags=["parameters"]
PROFILE = "tiny"  # or "colab", "gpu"
SEED = 0
SCALE = 1.0  # less: shorter trainings and smaller sets, for a quick look
MODEL = None  # your own base model: a folder or a hub id
QAC = None  # your own rows: question, answer, correction (or preference pairs)
PREFERENCES = None
OUT = None  # where metrics and figures go; None: runs/06

# %% [markdown]
# ## Two aims
#
# The first: *instructions*, plain ones, each with one right answer. The second: *manners*. To a
# polite instruction a warm answer, with a friendly word before it and behind it, is preferred to
# the same answer without.

# %%
import numpy as np
import torch

from alignlib import Metrics, generate, load_model, load_task
from alignlib.course.checks import lesson06 as check
from experiments.hbat import (
    BASELINE,
    FACTORS,
    PARTS,
    TEMPERATURES,
    TRIALS,
    difference_at_preference,
    difference_as_chosen,
    at_preference,
    chosen_metrics,
    forgotten,
    mean_over_seeds,
)
from alignlib.course.guess import Guess
from alignlib.course.sweep import read_results, recorded, recorded_difference
from alignlib.ewc import Elastic, empirical_fisher, movement, copy_weights
from alignlib.hbat import IMPORTANCE, run_log
from alignlib.interpret import mean_gradient
from alignlib.likelihood import completion_nll
from alignlib.plots import bars, curves, heatmap, new_figure
from alignlib.ppo import train_ppo
from alignlib.settings import PPOSettings
from alignlib.report import describe
from alignlib.stats import bootstrap_mean, paired
from alignlib.tinytown import oracle
from alignlib.tokens import encode, example

metrics = Metrics("06", PROFILE, SEED, OUT)
task = load_task(PROFILE, seed=SEED, scale=SCALE, model=MODEL, qac=QAC, preferences=PREFERENCES)
aims, (model, tokenizer) = task.objectives, load_model(task.base)
fits = lambda prompt, *texts: (
    len(encode(tokenizer, prompt)) + max(40, *(len(encode(tokenizer, t)) for t in texts))
    <= model.config.max_position_embeddings
)
asked = [r for r in aims.instructions("test") if fits(r.prompt, r.completion)][:200]
pairs = [p for p in aims.pairs("test") if fits(p.prompt, p.chosen, p.rejected)][:200]
assert asked and pairs, (
    "no test row fits the model's context with its answers; shorten the rows, or take a model "
    "with a longer context"
)
print(task.describe())
print(
    f"{len(aims.instructions('train'))} instructions and {len(aims.pairs('train'))} pairs to "
    f"train on, {len(asked)} and {len(pairs)} to test on"
)

# %% [markdown]
# Two rows of each, ready for their answers:

# %%
for row in asked[:2]:
    print(row.prompt, "  right:", row.completion)
for pair in pairs[:2]:
    print(pair.prompt, "  preferred:", pair.chosen, "  to:", pair.rejected)

# %% [markdown]
# A perfect model has both: who reads the one word *please* knows which answer is wanted. Two dials
# of the town decide whether that is so:
#
# - **contradiction**: the share of preference prompts on which an instruction demands the plain
#   answer. There nobody can have both.
# - **interference**: the share of preference prompts that look like instructions (here all). Both
#   can be had, but what is learned on the one kind of prompt may spill over to the other.

# %% [markdown]
# What could a policy have that makes no mistake? From all for the one aim to all for the other, at
# four degrees of contradiction (drawn prompt by prompt, so that 0.25 came out as 41 of 200; without
# any, all of those policies are one point):


# %%
def perfect(contradiction: float) -> tuple:
    """What policies that make no mistake can have of both aims, from all for the one to all for
    the other.
    """
    polite = oracle.warm_pairs(200, 1.0, "test")
    demanded = oracle.contradicting(polite, contradiction)
    plain = oracle.instructions_to_follow("test", n=200)
    followed, preferred = zip(
        *oracle.front(plain[: 200 - len(demanded)] + demanded, polite, points=11)
    )
    return 100 * np.array(preferred), followed


figure, [ax] = new_figure(
    "Only contradiction keeps a perfect model from having all of both", width=5.5
)
curves(
    ax,
    {f"contradiction {c:g}": perfect(c) for c in (0.25, 0.5, 1.0)},
    "preferences met, %",
    "instructions followed, %",
    100,
)
ax.plot(perfect(0.0)[0][-1], 100 * perfect(0.0)[1][-1], "o", color="black", label="contradiction 0")
ax.legend(frameon=False, loc="lower left")
metrics.save_figure(figure, "possible")
figure

# %% [markdown]
# The point at the upper right is "all of both". Contradiction moves the front away from it, and no
# method can move it back. What follows is about *interference*: the corner can be reached, and the
# question is whether training gets there.

# %% [markdown]
# ## The usual way: one after the other
#
# We start from a model that has been shown polite instructions answered in either manner, and so
# can do both. (That matters. A first draft of this lesson started from one that had hardly seen a
# warm answer to an instruction: whatever taught it warmth taught it to babble.) Then 150 steps on
# plain instructions, then 100 of DPO on pairs, 16 each. (*DPO*, direct preference optimisation,
# [arXiv 2305.18290](https://arxiv.org/abs/2305.18290), makes the preferred text of a pair likelier
# and the other less likely, as compared with a *reference*: the model as it was when DPO began.) An
# answer *meets the preference* if it is right and warm; it counts half if only its beginning or
# only its end is warm.

# %% [markdown]
# First a guess (put a probability, 0 to 1, in place of `None`):

# %%
guess = Guess(
    "after DPO the model follows at least 20 plain instructions of a hundred less than before",
    probability=None,
)


# %%
def looked_at(folder, n: int = 200) -> dict:
    """What a model has of both aims, row by row: instructions followed, preferences met (None
    where no program can tell), and what the instructions' right answers cost it, nats a token.
    """
    model, tokenizer = load_model(folder)
    says = lambda rows: generate(model, tokenizer, [r.prompt for r in rows], max_new_tokens=40)
    return {
        "instruct": aims.followed and np.array(aims.followed(asked[:n], says(asked[:n])), float),
        "preference": aims.preferred
        and np.array(aims.preferred(pairs[:n], says(pairs[:n])), float),
        "loss": completion_nll(
            model, tokenizer, [r.prompt for r in asked[:n]], [r.completion for r in asked[:n]]
        ).numpy(),
    }


def share(of: dict, aim: str):
    """One aim's mean mark with its interval."""
    return None if of[aim] is None else bootstrap_mean(of[aim])


taught, then = task.hbat(SEED, rounds=1, strength=0.0)
two_stage = {
    "at the start": looked_at(aims.start(SEED)),
    "instructions": looked_at(taught.folder),
    "then preferences": looked_at(then.folder),
}
for name, seen in two_stage.items():
    print(
        f"{name:17} followed {describe(share(seen, 'instruct'))}, preferences met "
        f"{describe(share(seen, 'preference'))}, loss {seen['loss'].mean():.2f}"
    )

# %% [markdown]
# The drop with its interval, the same prompts before and after:

# %%
before, after = two_stage["instructions"], two_stage["then preferences"]
forgot = None if before["instruct"] is None else paired(before["instruct"], after["instruct"])
metrics.add("forgetting/instruct", forgot)
metrics.add("forgetting/loss", paired(after["loss"], before["loss"], "nats"))
for aim in ("instruct", "preference"):
    metrics.add(f"two_stage_dpo/{aim}", share(after, aim))
print(guess.reveal(forgot, 0.2, metrics))

# %% [markdown]
# What does it say now? Three plain instructions and two polite ones:

# %%
model, _ = load_model(then.folder)
for row in (*asked[:3], *pairs[:2]):
    print(row.prompt, " ", *generate(model, tokenizer, [row.prompt], max_new_tokens=40))

# %% [markdown]
# Of 200 instructions all were followed before, 2 are afterwards; of the preferences none were met
# before, 83.0 % [77.5, 88.0] are now. These three answers it has not lost: asked for the second
# word it says *20*, as it should, but *thank you for asking ! 20 . good luck .* What it has
# forgotten is when to be plain. (How many answers are wrong as well, the recorded runs below tell.)
# It need not have: the word *please* stands in one kind of prompt only. And mark the other
# direction: the plain instructions before had wiped out what warmth there was, 16.5 % of the
# preferences to none.

# %% [markdown]
# ## Do the two aims pull in opposite directions?
#
# Each aim has a loss, and each loss a gradient: the direction in which the weights would go. The
# angle between the two directions says whether a step for the one is a step against the other. Toy
# numbers first.

# %% [markdown]
# ### Exercise 1 · the angle (5 minutes, easy)
#
# The cosine between two gradients: 1 if they point the same way, 0 if neither touches the other, -1
# if they are opposed. By hand: [1, 0] and [1, 1] have 1 / (1 · 1.414) = 0.707.
#
# <details><summary>Hint</summary><code>np.linalg.norm(a)</code> is a vector's length.</details>


# %% tags=["exercise"]
def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of the angle between two vectors."""
    ...  # your code here


# %% tags=["solution"]
def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of the angle between two vectors."""
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


# %% tags=["check"]
cosine = check.cosine(cosine)

# %% [markdown]
# Now of the model. What pulls it to the instructions is the gradient of $\log p(\text{right
# answer})$. What pulls it to the preferences is, where DPO starts, that of $\log p(\text{chosen}) -
# \log p(\text{rejected})$. Both on test prompts, and of the model at the start, where both aims
# have something left to learn; and a control beside it: two halves of the *same* aim's prompts,
# whose gradients differ by chance alone.

# %% [markdown]
# In code: `pull` is the gradient of the mean log probability of some texts, tensor by tensor.


# %%
def flat(tensors: dict) -> np.ndarray:
    """All tensors one behind the other; of a large model every so many-th weight, about a
    million.
    """
    return (
        torch.cat([t.flatten() for t in tensors.values()])[
            :: max(1, model.num_parameters() // 1_000_000)
        ]
        .cpu()
        .numpy()
    )


def pulls(model, some: slice) -> dict[str, np.ndarray]:
    """Where each aim pulls the weights, on these test rows."""
    pulled = lambda rows, texts: flat(
        mean_gradient(model, tokenizer, [r.prompt for r in rows], texts)
    )
    rows, two = asked[some], pairs[some]
    towards = pulled(two, [p.chosen for p in two]) - pulled(two, [p.rejected for p in two])
    return {"instructions": pulled(rows, [r.completion for r in rows]), "preferences": towards}


model, _ = load_model(aims.start(SEED))
half = len(asked) // 2
one, other = pulls(model, slice(0, half)), pulls(model, slice(half, None))
between = [cosine(x["instructions"], y["preferences"]) for x in (one, other) for y in (one, other)]
print("instructions with preferences, four times:", [round(b, 2) for b in between])
for aim in one:
    print(f"{aim}, two halves of the rows: {cosine(one[aim], other[aim]):.2f}")

# %% [markdown]
# They do: a step for the one aim is a step against the other, with a cosine of -0.51 to -0.57; two
# halves of one aim's prompts agree by 0.73 and 0.71. So the conflict is not in the aims, which can
# both be had, but in how this model would go for them at first: to make answers to plain
# instructions plainer it would make *all* answers plainer, polite prompts' too.

# %% [markdown]
# ## Holding on: elastic weight consolidation by hand
#
# Not every weight matters for what was learned first. *Elastic weight consolidation* (EWC, [arXiv
# 1612.00796](https://arxiv.org/abs/1612.00796)) ties each weight to where it was, by a spring as
# strong as the weight is important:
#
# $$L(\theta) = L_{\text{new}}(\theta) + \frac{\lambda}{2} \sum_i F_i\,(\theta_i - \theta^*_i)^2$$
#
# How important is a weight? Change it a little: if the probabilities of the answers change much, it
# is. The measure is the **Fisher information**, the mean squared gradient of $\log p(y \mid x)$.
# Three weights are enough to see it: a model that says yes with probability $\sigma(w \cdot x)$.
# The third input is ten times smaller than the others, so the third weight matters little.

# %%
draw = np.random.default_rng(SEED)
x = draw.normal(size=(2000, 3)) * [1.0, 1.0, 0.1]
w = np.array([1.0, -1.0, 0.5])
p = 1 / (1 + np.exp(-x @ w))
y = draw.random(len(x)) < p  # the answers observed
gradients = (y - p)[:, None] * x  # of log p(y | x), one row an example
print(
    "the first row: x",
    x[0].round(2),
    "p(yes)",
    p[0].round(2),
    "said",
    bool(y[0]),
    "gradient",
    gradients[0].round(2),
)

# %% [markdown]
# ### Exercise 2 · a Fisher diagonal (6 minutes, easy)
#
# From the gradients, one row an example, the *empirical* Fisher information of each weight.
#
# <details><summary>Hint</summary>Square first, then the mean over the rows.</details>


# %% tags=["exercise"]
def fisher(gradients: np.ndarray) -> np.ndarray:
    """The diagonal: (rows, weights) gives (weights,)."""
    ...  # your code here


# %% tags=["solution"]
def fisher(gradients: np.ndarray) -> np.ndarray:
    """The diagonal: (rows, weights) gives (weights,)."""
    return (np.asarray(gradients) ** 2).mean(0)


# %% tags=["check"]
fisher = check.fisher(fisher)

# %% [markdown]
# There are three ways to get it, and a short cut. *Exact*: over all answers there could be, each as
# likely as the model holds it. *Sampled*: over answers drawn from the model. *Empirical*: over the
# answers observed. The short cut: the gradient of a whole batch's mean loss, which is what a
# training step has at hand, squared.

# %% [markdown]
# All four, of the same three weights:

# %%
drawn = draw.random(len(x)) < p
ways = {
    "exact": (
        p[:, None] * ((1 - p)[:, None] * x) ** 2 + (1 - p)[:, None] * (p[:, None] * x) ** 2
    ).mean(0),  # yes and no, as likely as they are
    "sampled": fisher((drawn - p)[:, None] * x),
    "empirical": fisher(gradients),
    "short cut": fisher(gradients.reshape(-1, 50, 3).mean(1)),  # 50 rows a batch
}
for way, found in ways.items():
    print(f"{way:10}{found.round(4)}   of the exact: {(found / ways['exact']).round(2)}")

# %% [markdown]
# The third weight's information is a hundredth of the others': small inputs, squared. The three
# ways agree. (The empirical one does so because the answers observed were drawn from this very
# model; of a model that is wrong about them it is another number.) The short cut is too small by a
# factor of about 50, the size of the batch: rows pull to different sides, and in their mean that
# cancels out. So a strength that was right for the true information is 50 times too weak for the
# short cut; never carry a strength over from a paper that computes its information otherwise.

# %% [markdown]
# ### Exercise 3 · the spring (6 minutes, easy)
#
# The penalty of the formula above. By hand: weights [1, 2], anchor [1, 0], importance [9, 1],
# strength 2: 2/2 · (9 · 0 + 1 · 4) = 4.
#
# <details><summary>Hint</summary>Difference, square, times importance, sum; half the strength.</details>


# %% tags=["exercise"]
def penalty(
    weights: np.ndarray, anchor: np.ndarray, importance: np.ndarray, strength: float
) -> float:
    """What holding on costs, at these weights."""
    ...  # your code here


# %% tags=["solution"]
def penalty(
    weights: np.ndarray, anchor: np.ndarray, importance: np.ndarray, strength: float
) -> float:
    """What holding on costs, at these weights."""
    return float(
        strength / 2 * np.sum(np.asarray(importance) * (np.asarray(weights) - anchor) ** 2)
    )


# %% tags=["check"]
penalty = check.penalty(penalty)

# %% [markdown]
# By library the same, on our model and two rows; `Elastic` is the penalty, anchored at the model as
# it is:

# %%
by_hand = fisher(
    np.stack([flat(mean_gradient(model, tokenizer, [r.prompt], [r.completion])) for r in asked[:2]])
)
important = empirical_fisher(model, [example(tokenizer, r.prompt, r.completion) for r in asked[:2]])
print(
    f"{len(by_hand)} weights, by hand and by library the same:",
    bool(np.allclose(by_hand, flat(important), rtol=1e-3, atol=1e-8)),
)
held = Elastic(model, important, strength=1.0)
print("the penalty where it is anchored:", float(held(model)))

# %% [markdown]
# And somewhere else: one tensor moved by 0.1, and back.

# %%
name, tensor = next(iter(model.named_parameters()))
stood = tensor.detach().clone()
with torch.no_grad():
    tensor += 0.1
    by_hand = penalty(*(t.detach().cpu().numpy() for t in (tensor, stood, important[name])), 1.0)
    print(f"{name} moved: the penalty by hand {by_hand:.4f}, by library {float(held(model)):.4f}")
    tensor.copy_(stood)

# %% [markdown]
# ## What HBAT takes for important
#
# HBAT computes no Fisher information. What a stage has *changed* must matter to it, so the
# importance of a tensor is how far it has just moved: the mean squared change of its weights, one
# number a tensor, and no gradients. The released code multiplies the change by $10^{10}$, squares
# it, and takes a softmax over all tensors. What does that make of the movements of our first stage?

# %%
moved = movement(copy_weights(model), copy_weights(load_model(taught.folder)[0]))
names, sizes = list(moved), np.array([float(m) for m in moved.values()])
released = torch.softmax(torch.tensor(sizes) * 1e20, 0).numpy()


def rests_on(weight: np.ndarray) -> float:
    """On how many tensors a weighting really rests: the exponential of its entropy."""
    share = weight[weight > 0] / weight.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


print(
    f"{len(names)} tensors moved by {sizes.min() ** 0.5:.1e} to {sizes.max() ** 0.5:.1e} "
    "(root mean square)"
)
first = names[int(released.argmax())]
print(
    f"softmax as released: rests on {rests_on(released):.2f} tensors; all goes to {first}, "
    f"{copy_weights(model)[first].numel()} weights of {model.num_parameters()}"
)
print(f"divided by the mean instead: rests on {rests_on(sizes):.1f} tensors")

# %% [markdown]
# All tensors moved by about as much, within a factor of 2.3. But $10^{10}$, squared, makes an
# astronomical difference of a small one, and the softmax gives everything to a single tensor: 128
# weights of 879,744, those of the last norm. The other 37 tensors are free to go. The softmax
# spreads only where tensors move by some ten-billionths, a ten-millionth of what they move here.
# (So says the released code. Which importance the paper's own runs had, we could not see.) The
# library divides by the mean instead, and rests on 35 of 38. That is nearly all alike: by how far
# it has moved, hardly one tensor is told from another here.

# %% [markdown]
# ## In turns, and held
#
# HBAT cuts both sets into five shards, and the steps too. Five rounds: instructions of one shard,
# then pairs of one shard. From the second stage on the weights are held, lightly, to where the
# stage finds them, by what the *other* aim's stages have moved so far. Steps, rows and learning
# rates in all are those of the two stages above.

# %%
guess = Guess(
    "HBAT follows at least 20 instructions of a hundred more than the two stages", probability=None
)

# %%
stages = task.hbat(SEED, rounds=5)
along = [two_stage["at the start"]]


def scores(folder) -> dict[str, float]:
    """What a stage's model has of both aims, on half of the test prompts; kept for the figure."""
    along.append(looked_at(folder, 100))
    return {
        aim: along[-1][aim].mean()
        for aim in ("instruct", "preference")
        if along[-1][aim] is not None
    }


for row in run_log(stages, scores):
    print(", ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))

# %% [markdown]
# *loss* is the mean over a stage's last steps (its penalty included), *penalty* what holding costs
# at its end; at a stage's start it is 0. As a picture, beside the two stages from above, whose
# learning rates these are:

# %%
figure, axes = new_figure(
    "Two stages end with one aim; in turns, the later stages undo less and less of the other",
    width=11,
    height=3.6,
    columns=2,
)
for ax, name, every in (
    (axes[0], "two stages", list(two_stage.values())),
    (axes[1], "HBAT", along),
):
    lines = {
        label: (range(len(every)), [share(seen, aim) for seen in every])
        for aim, label in (("instruct", "instructions followed"), ("preference", "preferences met"))
        if every[0][aim] is not None
    }
    curves(ax, lines, f"stages gone through ({name})", "%", 100, legend=ax is axes[0])
    ax.set_xticks(range(len(every)))
metrics.save_figure(figure, "stages")
figure

# %% [markdown]
# On all 200 test prompts of either kind, at the end:

# %%
hbat = looked_at(stages[-1].folder)
for aim in ("instruct", "preference"):
    print(
        f"{aim:11} HBAT {metrics.add(f'hbat_dpo/{aim}', share(hbat, aim))}, two stages "
        f"{describe(share(after, aim))}"
    )
more = None if after["instruct"] is None else paired(hbat["instruct"], after["instruct"])
print(guess.reveal(more, 0.2, metrics))

# %% [markdown]
# The first pairs cost instructions, the second instructions wipe out all preferences (36 % to 1 %),
# the third too. But then less is undone each time: the fourth leaves 24 % of them, the fifth 43 %,
# and the fourth and fifth pairs cost 4 and 8 instructions of a hundred, where the second cost 25.
# At the end HBAT follows 92.5 % [88.5, 96.0] and meets 73.5 % [67.5, 79.0], where two stages have
# 1.0 % and 83.0 %: nearly all of one aim for a tenth of the other. It tells the two kinds of prompt
# apart now, for which there is nothing to go by but the word *please*. (Two caveats. Both had
# HBAT's learning rate, which is too fast for two stages: at their own best they follow 35.0 % and
# meet 76.0 %. And seed 0 is the one that the settings were chosen on: over three seeds HBAT follows
# 82.8 % and meets 58.9 %. Both as recorded below.)

# %% [markdown]
# ## Preferences by PPO
#
# DPO learns from pairs. The classical way samples: the model answers, a *reward* is given, and what
# was rewarded becomes likelier. PPO (*proximal policy optimisation*, [arXiv
# 1707.06347](https://arxiv.org/abs/1707.06347)) uses each sample several times, and therefore must
# not trust it too far: $\rho = \pi(y)/\pi_{\text{old}}(y)$ is how much likelier a word has become
# since it was sampled, $A$ its *advantage*, how much better it turned out than a second small
# model, the *critic*, had expected.
#
# $$L = -\min(\rho A,\; \text{clip}(\rho, 1 - c, 1 + c)\, A)$$

# %% [markdown]
# ### Exercise 4 · the clipped loss (8 minutes, medium)
#
# For one word. By hand, with $c = 0.2$: a good word ($A = 1$) that is already 1.5 times as likely:
# -min(1.5, 1.2) = -1.2, and no gradient any more. A bad word ($A = -1$) that has become 1.5 times
# as likely: -min(-1.5, -1.2) = 1.5, and it is pushed back.
#
# <details><summary>Hint</summary><code>np.clip(ratio, 1 - clip, 1 + clip)</code>; the smaller of two products; the sign.</details>


# %% tags=["exercise"]
def clipped(ratio: float, advantage: float, clip: float) -> float:
    """PPO's loss of one word."""
    ...  # your code here


# %% tags=["solution"]
def clipped(ratio: float, advantage: float, clip: float) -> float:
    """PPO's loss of one word."""
    return -min(ratio * advantage, float(np.clip(ratio, 1 - clip, 1 + clip)) * advantage)


# %% tags=["check"]
clipped = check.clipped(clipped)

# %% [markdown]
# Does it get where it should? For one word, the best that can be had is known: of all policies, the
# one that maximises *reward - $\beta$ · distance from the reference* (the KL divergence, in nats)
# says each word in proportion to $\pi_{\text{ref}}(w)\, e^{r(w)/\beta}$. So let our model answer
# one polite prompt with one word, reward those words that open a warm answer, and see. (Of the
# model at the start, which knows both manners.)

# %% [markdown]
# With $\beta = 0.5$ a word's reward of 1 is worth $e^{2}$, a factor of 7.4:

# %%
prompt, beta = pairs[0].prompt, 0.5
opens = {text.split()[0] for text in oracle.OPENERS if text}
policy, _ = load_model(aims.start(SEED))


def first_words(model) -> np.ndarray:
    """The probabilities of an answer's first word."""
    ids = torch.tensor([encode(tokenizer, prompt)], device=model.device)
    with torch.no_grad():
        return model(input_ids=ids).logits[0, -1].float().softmax(-1).cpu().numpy()


reference = first_words(policy)
rewarded = np.array([float(tokenizer.decode(i).strip() in opens) for i in range(len(reference))])
best = reference * np.exp(rewarded / beta)
best /= best.sum()
score = lambda prompts, texts: [float(text.split()[0] in opens) if text else 0.0 for text in texts]
log = train_ppo(
    policy,
    tokenizer,
    [prompt],
    score,
    PPOSettings(30, batch_size=128, minibatch=128, max_new_tokens=1, kl=beta, learning_rate=3e-5),
)
for name, p in (("reference", reference), ("PPO", first_words(policy)), ("best", best)):
    print(
        f"{name:10} says a warm word {p @ rewarded:.3f}, reward less distance "
        f"{p @ rewarded - beta * (p @ np.log(p / reference)):.3f}"
    )

# %% [markdown]
# The best policy would say a warm word 0.874 of the time, and not always: more would cost more
# distance than it earns. PPO comes to 0.866, and to 0.703 of the 0.704 that are to be had. So this
# small PPO does find an optimum that is known.

# %% [markdown]
# ## Is it the turns, the holding, or neither?
#
# One seed proves little, and the comparison above is not even fair: whoever goes further towards
# the preference forgets more, and how far one goes is a matter of the learning rate. So: six ways,
# the same rows and steps for each, four settings each, and five seeds (*recorded*). The settings
# were picked by hand, after tries in drafts of this lesson, so that each way gets to where
# preferences are met.

# %% [markdown]
# - *two-stage*: instructions, then pairs; what is tried is the learning rate on pairs;
# - *restarted*, HBAT's twin: five stages of instructions, then five of pairs, each with a new
#   optimiser and a new reference as in HBAT; the rate likewise;
# - *mixed*: 50 steps on instructions, then 100 in which DPO's loss has one on instructions added;
#   tried are its weight and the rate, which here is the instructions' as well (elsewhere theirs is
#   fixed);
# - *held*: two stages at HBAT's rate, the second held elastically; tried is the strength;
# - *in turns*: HBAT's ten stages, nothing held; tried is the rate on pairs;
# - *hbat*: in turns and held; tried are strength and rate.

# %%
fronts = {"dpo": read_results("fronts"), "ppo": read_results("fronts_ppo")}


def tried(aim: str, method: str, by: str) -> list[float]:
    """A method's trials on the test, means over seeds."""
    return [
        recorded(fronts[by], f"{aim}_test", method=method, by=by, **trial).value
        for trial in TRIALS[by][method]
    ]


for by, methods in TRIALS.items():
    for method in methods:
        both = zip(tried("preference", method, by), tried("instruct", method, by))
        print(f"{by} {method:10}", "  ".join(f"{100 * p:3.0f}/{100 * i:3.0f}" for p, i in both))

# %% [markdown]
# Preferences met / instructions followed, in %, setting by setting (by PPO four ways, and three
# seeds). Nobody can be compared by such pairs. So a *front* is drawn in each seed through those of
# a method's trials that no other one of its own beats in both aims, and read off at equal
# preference: how many instructions does it follow where it meets at least 50, 60 or 70 % of the
# preferences? (Where even its gentlest trial meets more, it is that trial's.) First a guess:

# %%
guess = Guess(
    "where 60 % of the preferences are met, HBAT follows more instructions than mixing the "
    "two losses",
    probability=None,
)

# %%
LEVELS, SHOWN = (0.5, 0.6, 0.7), ("two-stage", "mixed", "hbat", "restarted")
figure, axes = new_figure(
    "Whoever takes turns or mixes keeps instructions that two stages lose, at equal preference",
    width=11,
    height=4,
    columns=2,
)
for ax, by in zip(axes, TRIALS):
    seeds = {cell["seed"] for cell in fronts[by]["cells"]}
    reached = {m: [(100 * x, at_preference(fronts[by], m, x, by)) for x in LEVELS] for m in SHOWN}
    lines = {
        m: [(x, mean_over_seeds(found)) for x, found in points if set(found) == seeds]
        for m, points in reached.items()
    }
    curves(
        ax,
        {m: tuple(zip(*points)) for m, points in lines.items() if points},
        f"preferences met (by {by.upper()}), %",
        "instructions followed, %",
        100,
        legend=by == "dpo",
    )
    ax.set(ylim=(-5, 105), xticks=[100 * level for level in LEVELS])
metrics.save_figure(figure, "fronts")
figure

# %% [markdown]
# The higher a line, the more instructions are still followed for the same preference. By DPO (left,
# five seeds) two stages and their restarted twin lie low, HBAT well above them, mixing above HBAT;
# by PPO (right, three seeds) HBAT and mixing lie together above two stages. A point is drawn where
# every seed gets that far (two stages do not at 70 % by DPO). The restarted twin has none by PPO:
# in one of the three seeds it never says anything warm, so nothing warm is ever rewarded. Two
# warnings. The fronts are read off the test prompts themselves, the best of four settings at each
# place: for all methods alike, but a little too good for all. And PPO is rewarded by the very mark
# that is measured, while DPO sees pairs: compare within a picture, not across the two.

# %% [markdown]
# In numbers, all six: what each follows where it meets 50, 60 and 70 % of the preferences.

# %%
for by, methods in TRIALS.items():
    for method in methods:
        told_at = [at_preference(fronts[by], method, level, by) for level in LEVELS]
        print(
            f"{by} {method:10}"
            + ", ".join(
                f"{mean_over_seeds(found)} (n = {len(found)})" if len(found) > 1 else "not reached"
                for found in told_at
            )
        )

# %% [markdown]
# The comparison itself: how many more instructions HBAT follows than each of the others, seeds
# paired. Bars below 0: it is behind.

# %%
figure, axes = new_figure(
    "HBAT is ahead of two stages, restarted and held; not of turns alone, nor of mixing",
    width=12,
    height=4,
    columns=2,
)
for ax, (by, methods) in zip(axes, TRIALS.items()):
    others = [m for m in methods if m != "hbat"]
    leads = {
        f"at {100 * x:.0f} %": {
            m: lead
            for m in others
            if len((lead := difference_at_preference(fronts[by], m, x, by)).seeds) >= 3
        }
        for x in LEVELS
    }
    bars(ax, leads, f"HBAT ahead by {by.upper()}, points", legend=by == "dpo")
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_ylim(-50, 80)
metrics.save_figure(figure, "leads")
figure

# %% [markdown]
# At 60 %, and what else it takes to tell turns from restarts:

# %%
for by, methods in TRIALS.items():
    print(
        f"{by}: HBAT ahead of "
        + ", ".join(
            f"{than} {difference_at_preference(fronts[by], than, by=by)}"
            for than in methods
            if than != "hbat"
        )
    )
print(
    "dpo: turns alone ahead of "
    + ", ".join(
        f"{than} {difference_at_preference(fronts['dpo'], than, method='in turns')}"
        for than in ("two-stage", "restarted", "held", "mixed")
    )
)
print(guess.reveal(difference_at_preference(fronts["dpo"], "mixed"), 0, metrics))

# %% [markdown]
# Where 60 % of the preferences are met, HBAT by DPO follows 73.9 % of the instructions, two stages
# 42.5 %: ahead by 31.3 points [15.9, 46.8]. By PPO it is ahead by 30.3 [10.7, 50.0]. So the paper's
# main claim holds here. And what makes it so? By DPO:
#
# - Not the restarts: with as many restarts and references the twin is at 34.9 %, HBAT ahead of it
#   by 38.9 [25.6, 52.3].
# - Not the holding: *held* without turns is at 44.3 %, where two stages are; and *in turns* without
#   holding is at 81.9 %, HBAT behind it by 8.0 [-1.3, 17.4]. If holding does anything, it costs.
# - The turns: alone they are ahead of the twin by 47.0 [38.7, 55.3].
# - And *mixed*, which needs neither rounds nor penalty, is at 85.2 %. HBAT is behind it by 11.3
#   [3.8, 18.9] here (at 50 and 70 % the interval just holds 0); turns alone and mixing cannot be
#   told apart, -3.3 [-18.5, 12.0].
#
# By PPO three seeds cannot tell HBAT from mixing, -2.6 [-44.1, 38.8], and the twin got so far in
# two seeds only; *in turns* and *held* were not tried.

# %% [markdown]
# ### As one would use it
#
# In use nobody reads off fronts: one tries some settings on validation prompts and takes the best
# in both aims among those that meet 70 % of the preferences (if none does, the one that comes
# nearest). On the test then, with ROUGE-L beside it: how much of the right answer, in the right
# order, is in what is said.

# %%
met = {
    (method, by): chosen_metrics(fronts[by], method, by)
    for by, methods in TRIALS.items()
    for method in methods
}


def mark(aim: str, method: str, by: str = "dpo"):
    """A metric of the trials that were taken, on the test."""
    return mean_over_seeds({seed: found[f"{aim}_test"] for seed, found in met[method, by].items()})


for by, methods in TRIALS.items():
    for method in methods:
        print(
            f"{by} {method:10}"
            + ", ".join(
                f"{aim} {mark(aim, method, by)}" for aim in ("instruct", "rouge_l", "preference")
            )
        )

# %% [markdown]
# And the difference, seeds paired:

# %%
for by, methods in TRIALS.items():
    for than in methods:
        if than != "hbat":
            print(
                f"{by}: HBAT over {than:10}"
                + ", ".join(
                    f"{aim} {difference_as_chosen(fronts[by], than, aim, by)}"
                    for aim in ("instruct", "rouge_l", "preference")
                )
            )

# %% [markdown]
# By DPO all meet some 75 % of the preferences (mixed 83.8 %). With that HBAT follows 41.9 points
# [23.6, 60.3] more instructions than two stages and 50.3 [15.6, 84.9] more than the twin, for the
# same preference (-0.3 [-6.0, 5.5] and -0.3 [-7.1, 6.6]); by PPO 48.2 [20.4, 76.1] more than two
# stages. So the verdict of the fronts holds without reading anything off the test but the result.
# From mixing it cannot be told: 13.5 more [-11.2, 38.1], for 9.1 less [1.2, 17.0] of the
# preference. A single share says little, as HBAT's 59.1 % [20.8, 97.3] does: from one setting to
# the next a method can jump from nearly all instructions to nearly none. So one would live with
# these methods: look at both aims on validation prompts, at several settings, before you believe
# one of them.

# %% [markdown]
# And the forgetting itself, with which the lesson began: what two stages lose of the first aim
# while they learn the second. *Right answers*: the manner is taken away before one looks.

# %%
for by in TRIALS:
    print(
        f"{by}: two stages lose "
        + ", ".join(
            f"{forgotten(fronts[by], aim, by)} {what}"
            for aim, what in (
                ("instruct", "followed"),
                ("content", "right answers"),
                ("rouge_l", "ROUGE-L"),
            )
        )
    )
for method in TRIALS["dpo"]:
    metrics.add(f"rouge_l/{method}", mark("rouge_l", method))
for method, short in (("two-stage", "two_stage_ppo"), ("hbat", "hbat_ppo")):
    for aim in ("instruct", "preference"):
        metrics.add(f"{short}/{aim}", mark(aim, method, "ppo"))

# %% [markdown]
# By DPO 82.7 points [62.8, 100.0] fewer instructions are followed after the preferences than before
# them (a t interval knows no ceiling at 100). But only 15.0 points [6.8, 23.2] fewer answers are
# *right*. So most of what looks like forgetting is manner, spilled over to where nobody asked for
# it, as in the three answers at the top; about one answer in seven (one in 15 to one in 4) is
# really lost. By PPO it is the same: 86.0 [40.0, 100.0] and 12.0 [5.5, 18.5].

# %% [markdown]
# ### Where nothing interferes
#
# Two more tasks, with settings as they were chosen above: the same instructions beside preferences
# of another kind, *sound answers* to questions and *good summaries* (lesson 05's; a quarter of the
# summaries' pairs is labelled the wrong way round). No preference prompt looks like an instruction
# there. The judge's mark is that of lessons 03 and 05: helpful, harmless and honest, or a good
# summary.

# %%
elsewhere = read_results("aims_met")


def there(aim: str, method: str, task: str):
    return recorded(elsewhere, aim, "rate", task=task, method=method)


def gained(aim: str, task: str, than: str = "two-stage"):
    return recorded_difference(
        elsewhere, f"{aim}_0", {"task": task, "method": "hbat"}, {"task": task, "method": than}
    )


for where in ("qa", "summary"):
    for method in ("two-stage", "mixed", "hbat"):
        print(
            f"{where:8}{method:10}instructions {there('instruct_0', method, where)}, judge's "
            f"mark {there('preference_0', method, where)}"
        )
    print(
        f"{where:8}before the preferences: {there('instruct_before', 'two-stage', where)}, "
        f"{there('preference_before', 'two-stage', where)}"
    )
    print(
        f"{where:8}HBAT over two stages: instructions {gained('instruct', where)}, judge's "
        f"mark {gained('preference', where)}"
    )

# %% [markdown]
# Little is forgotten there, by whatever method: of 99.3 % of the instructions two stages keep 97.3
# % and 99.0 %. HBAT keeps 2.1 points [0.8, 3.4] more beside sound answers, 0.3 beside summaries.
# But look at the preferences. Sound answers have a mean mark of 91.4 % *before* DPO; two stages
# leave 85.2 %, mixing 72.8 %, HBAT 48.8 %, 36.4 points [27.0, 45.9] behind two stages. DPO at
# settings that suited manners does harm to answers that were good already, and HBAT, which starts
# it five times from a new reference, does most. (That it is the five references is a guess: the
# learning rates differ too.) So settings do not carry over from one task to another; and where
# little interferes, HBAT has little to give and something to lose.

# %% [markdown]
# ### And if it speaks more boldly?

# %%
figure, axes = new_figure(
    "The bolder the answers, the fewer instructions are followed, whatever the training",
    width=11,
    height=3.6,
    columns=2,
)
for ax, aim, label in (
    (axes[0], "instruct", "instructions followed, %"),
    (axes[1], "preference", "preferences met, %"),
):
    curves(
        ax,
        {
            m: (TEMPERATURES, [there(f"{aim}_{t:g}", m, "manners") for t in TEMPERATURES])
            for m in ("two-stage", "mixed", "hbat")
        },
        "temperature",
        label,
        100,
        legend=aim == "preference",
    )
metrics.save_figure(figure, "temperature")
for m in ("two-stage", "mixed", "hbat"):
    print(
        f"{m:10}"
        + ", ".join(f"at {t:g} {there(f'instruct_{t:g}', m, 'manners')}" for t in TEMPERATURES)
    )
figure

# %% [markdown]
# At a temperature of 1.2 HBAT follows 47.6 % of the instructions where its likeliest answers follow
# 82.9 %; two stages 13.2 % (24.7 %), mixing 83.7 % (99.2 %). At 0.4 three seeds can hardly tell a
# difference. (At one setting each, seed 0's choice; the preferences differ as well, so it is the
# slopes that one should compare here. And the same setting is at 82.8 % in the next part, a record
# of another machine.)

# %% [markdown]
# ## Which of HBAT's parts does what?
#
# One thing changed at a time, three seeds: the number of rounds, the strength (0: turns alone), and
# what is taken for important. *Released*: through the released code's softmax. *Fisher*: the
# information on 200 rows of a stage. *Equal* and *random*: any tensor as good as another. *Frozen*:
# the fifth of the tensors that moved most is not trained at all. The learning rates stay as they
# are, so preference moves along: each change has two numbers.

# %%
factors = read_results("factors")


def part(aim: str, **change: object):
    return recorded(factors, aim, **BASELINE | change)


ROUNDS = sorted({f["rounds"] for f in FACTORS})
STRENGTHS = sorted(
    f["strength"]
    for f in FACTORS
    if f["importance"] == "movement" and f["rounds"] == BASELINE["rounds"]
)
figure, axes = new_figure(
    "More rounds or more strength: what the one aim wins the other mostly loses",
    width=11,
    height=3.8,
    columns=2,
)
for ax, name, values in ((axes[0], "rounds", ROUNDS), (axes[1], "strength", STRENGTHS)):
    curves(
        ax,
        {
            label: (range(len(values)), [part(aim, **{name: v}) for v in values])
            for aim, label in (
                ("instruct", "instructions followed"),
                ("preference", "preferences met"),
            )
        },
        name,
        "%",
        100,
        legend=name == "rounds",
    )
    ax.set_xticks(range(len(values)), [f"{v:g}" for v in values])
metrics.save_figure(figure, "factors")
for name, values in (("rounds", ROUNDS), ("strength", STRENGTHS)):
    for v in values:
        print(
            f"{name:8} {v:<5g} followed {part('instruct', **{name: v})}, preferences met "
            f"{part('preference', **{name: v})}"
        )
figure

# %% [markdown]
# *Rounds* (left): two rounds end with 83.7 % of the preferences and 4.3 % of the instructions, five
# with 58.9 and 82.8, ten with 50.1 and 96.0. These are places on one front more than better and
# worse; one round, at 44.9 and 60.0, has less of both than five or ten.
#
# *Strength* (right), over five orders of magnitude: 0.01 does nothing, and at 0.1 three seeds see
# nothing either. At 1, 56.3 points [24.3, 88.4] *fewer* instructions are followed than at 0.1, with
# somewhat more of the preferences, 14.6 [-15.9, 45.1]; from 100 on nothing warm is learned any
# more. Why would holding cost what it is to protect? It holds both: what the stages of pairs took,
# the stages of instructions would take back, and they are held as well. That is our reading; we
# have not tested it.

# %% [markdown]
# The same for kinds of importance, at two strengths (what suits one kind need not suit another),
# each with the difference that it makes to movement *at the same strength*:

# %%
KINDS = [(f["importance"], f["strength"]) for f in FACTORS if f["importance"] != "movement"]
for kind, strength in KINDS:
    held_so, held_as_usual = (
        BASELINE | {"importance": kind, "strength": strength},
        BASELINE | {"strength": strength},
    )
    less = {
        aim: recorded_difference(factors, aim, held_so, held_as_usual)
        for aim in ("instruct", "preference")
    }
    print(
        f"{kind:9} {strength:<4g}"
        + ", ".join(
            f"{aim} {recorded(factors, aim, **held_so)} (than movement: {less[aim]})"
            for aim in less
        )
    )
for kind in IMPORTANCE:
    metrics.add(f"importance/{kind}", part("instruct", importance=kind))

# %% [markdown]
# At the strength of 0.1, which the comparison above has, the Fisher information, *equal* and
# *random* give what movement gives, within 6 points: any tensor is as good as another. At 1, where
# holding hurts, movement hurts most: by the Fisher information 15.9 points [7.4, 24.4] more
# instructions are followed, by *equal* 22.9 [16.6, 29.2], by tensors drawn at *random* 26.4 [23.3,
# 29.6], for no preference that three seeds would miss. *As released* is 91.9 % and 53.2 %, at
# either strength nearly what no holding at all gives (91.9 and 53.3): one norm of 128 weights is
# held, and the rest goes where it likes. *Freezing* what moved most is behind in both, if anything,
# by 10.1 points [0.0, 20.2] and 8.1 [-7.9, 24.1].

# %% [markdown]
# ### What it costs
#
# Time beside the restarted twin, which trains the same tokens, estimating the information included;
# and what a stage keeps besides the model, in copies of its weights: those that it started from,
# and the importance of the other aim's stages.

# %%
costs = read_results("overhead")
for kind in IMPORTANCE:
    time = metrics.add(f"overhead_time/{kind}", recorded(costs, f"time_{kind}", "times"))
    print(f"{kind:9} time {time}, {recorded(costs, f'copies_{kind}', 'copies').value:.2f} copies")

# %% [markdown]
# Holding by movement takes 1.10 times as long as the twin [0.95, 1.24], and keeps one copy of the
# weights. The Fisher information takes 1.95 times as long, since it needs each row's gradient by
# itself, for 200 rows a stage, and keeps a copy more. These are the only tokens that any kind reads
# more than the twin.

# %% [markdown]
# ## Inside: what is pulled, and what moves
#
# The angle between the two aims, along the training of the restarted twin (five stages of
# instructions, then five of pairs) and of HBAT, three seeds; beside it the controls, two halves of
# the same aim's prompts.

# %%
inside, STAGES = read_results("pulls"), range(1 + 2 * BASELINE["rounds"])


def along_stages(method: str, name: str) -> list:
    return [recorded(inside, f"{name}_{i}", "cosine", method=method) for i in STAGES]


figure, axes = new_figure(
    "The aims oppose each other wherever instructions still have something to ask for",
    width=11,
    height=3.8,
    columns=2,
)
for ax, method in zip(axes, ("restarted", "hbat")):
    curves(
        ax,
        {
            label: (STAGES, along_stages(method, name))
            for label, name in (
                ("instructions with preferences", "cosine"),
                ("instructions, two halves", "cosine_instructions"),
                ("preferences, two halves", "cosine_preferences"),
            )
        },
        f"stage ({method})",
        "cosine",
        legend=ax is axes[0],
    )
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set(ylim=(-1.4, 1.2), yticks=np.arange(-1, 1.1, 0.5))
metrics.save_figure(figure, "angles")
figure

# %% [markdown]
# In numbers, and by layer:

# %%
metrics.add("gradient_cosine", along_stages("hbat", "cosine")[0])
for name, of in (
    ("cosine", "between the aims"),
    ("cosine_instructions", "instructions, two halves"),
):
    print(
        f"{of}, stage by stage, restarted: "
        + " ".join(f"{e.value:.2f}" for e in along_stages("restarted", name))
    )
LAYERS = ("embed_tokens", *(f"layers.{k}" for k in range(4)), "model.norm")
for when, i in (("at the start", 0), ("after HBAT's last pairs", STAGES[-1])):
    print(f"{when}: {along_stages('hbat', 'cosine')[i]}")
    for layer in LAYERS:
        print(f"   {layer:13}{along_stages('hbat', f'cosine_{layer}')[i]}")

# %% [markdown]
# At the start the aims oppose each other, -0.53 [-0.57, -0.49], in every layer, most in the last
# norm (-0.97) and the embeddings (-0.67). In the twin (left) the angle closes up while instructions
# are taught. That is no peace: once they are learned, their gradient is noise, and two halves of
# the rows do not even agree with each other (0.03, red). When the pairs come it is all there again,
# -0.58 [-0.71, -0.46] behind the ninth stage. HBAT (right) swings: after each stage of pairs the
# instructions pull again, and against the preferences. At its end the angle is still -0.37 [-0.59,
# -0.15]. So HBAT does not end the conflict; it keeps either side from being forgotten while it
# lasts.

# %% [markdown]
# What does a stage move? Root mean squares by layer and kind of tensor, of HBAT's first two stages
# and its last two, over the largest of each stage:


# %%
def moves(stage: int) -> np.ndarray:
    """How far a stage moved each layer's parts (layers, parts), mean over seeds; embeddings and
    last norm have no parts.
    """
    part_of = lambda layer, part: part if layer.startswith("layers") else "weight"
    value = lambda layer, part: (
        recorded(
            inside, f"moved_{layer}_{part_of(layer, part)}_{stage}", "r.m.s.", method="hbat"
        ).value
    )
    return np.array([[value(layer, part) for part in PARTS[1:]] for layer in LAYERS])


figure, axes = new_figure(
    "Every stage moves everything, the last norm most; after the first the embeddings least",
    width=12,
    height=3.4,
    columns=4,
)
for ax, stage in zip(axes, (1, 2, 9, 10)):
    found = moves(stage)
    heatmap(
        ax,
        found / found.max(),
        LAYERS if ax is axes[0] else [""] * len(LAYERS),
        ("attention", "feed-fwd", "norms"),
        f"largest {found.max():.1e}",
    )
    ax.set_title(f"stage {stage}", fontsize=10, fontweight="normal")
metrics.save_figure(figure, "moves")
figure

# %% [markdown]
# And on how many of the 38 tensors does the importance rest that these stages leave behind?

# %%
for i in (1, 2, 9, 10):
    rests = [
        recorded(inside, f"{name}_{i}", "tensors", method="hbat")
        for name in ("rests_on", "rests_on_released")
    ]
    print(f"importance left by stage {i}: rests on {rests[0]}, as released on {rests[1]} of 38")

# %% [markdown]
# Each stage moves all parts by about a thousandth: the last norm most, which is the one that the
# released softmax holds; the embeddings, after the first stage, by a quarter to a third of that. So
# importance by movement can say little: it rests on 34 to 37 of 38 tensors, whichever stage one
# asks; and through the released softmax on exactly one.

# %% [markdown]
# ## Verdict

# %%
print("written to", metrics.write().name)

# %% [markdown]
# Can we align without forgetting? Here yes, to a large part, and more simply than by HBAT.
#
# - Two stages lose 82.7 points [62.8, 100.0] of the instructions, though nothing in the aims asks
#   for it: a perfect model has both. Most of that is manner that spills over.
# - HBAT keeps more: where 60 % of the preferences are met 31.3 points [15.9, 46.8] more than two
#   stages, 38.9 [25.6, 52.3] more than its restarted twin (DPO, five seeds), 30.3 [10.7, 50.0] more
#   than two stages by PPO (three seeds). With settings chosen on validation it is 41.9 [23.6,
#   60.3], 50.3 [15.6, 84.9] and 48.2 [20.4, 76.1].
# - By DPO it is the turns that do it. Holding adds nothing that we could measure, by whatever
#   importance; stronger, it costs; and as released it holds nothing.
# - The oldest remedy does at least as well: a loss on instructions added to that on pairs, 11.3
#   points [3.8, 18.9] over HBAT on the fronts, not to be told from turns alone. It needs the first
#   aim's rows at hand, as HBAT does.
#
# What this does not show: one model of 0.9 million weights, one conflict (a manner, on prompts that
# all look alike but for a word), four settings a method. On rows that come one set after the other,
# the first gone by the time of the second, there are no turns to take and nothing to mix; that is
# what EWC was made for, and we have not asked it.

# %% [markdown]
# | the paper | here |
# |---|---|
# | what is learned first is forgotten in two stages | yes |
# | HBAT keeps it, by DPO and by PPO | yes, at equal preference |
# | because weights are held that the other aim moved | not here: turns without holding do as well |
# | importance: movement through a softmax | rests on one tensor as released; spread out, no better than random tensors, at a high strength worse |
# | *freeze* and *random* as weaker rivals (their runs are in the released code) | freezing behind, if anything; random no worse |
# | by PPO | as published, tested against a known optimum; the released code leaves out the old probabilities |
#
# (We could not read the paper's own text when this was made, only its abstract, its code and what
# others report of it.)

# %% [markdown]
# # Evidence for lesson 07: which method when?
#
# This report reads recorded experiments and runs in seconds. Each heading is its claim. Values are means over
# three training seeds with 95 % t intervals. A seed draws the training rows, the test prompts and the training.
# See [lesson 07](../07_which_method.ipynb).

# %% tags=["parameters"]
OUT = None  # where figures go; None: runs/evidence-07

# %%
from alignlib import Metrics
from alignlib.course.sweep import read_results, recorded, recorded_difference
from alignlib.plots import curves, new_figure, show_table
from experiments.board import TRIALS, TUNED
from experiments.claims_choosing import AIMS, BIASED, FAIR, STRENGTHS, as_chosen, in_the_lab, over

metrics = Metrics("evidence-07", "tiny", 0, OUT)
board = read_results("board")
lab = read_results("goodhart")

# %% [markdown]
# <a id="board"></a>
# ## SFT, DPO, RLOO and the Aligner answer alike; instructions tell the methods apart
#
# All methods start from the same base model. Tests are 300 prompts of each aim, and `mark` is the mean of
# the three axes.
#
# | method | reads | steps |
# |---|---|---|
# | SFT | better answers of 1,500 pairs | 250 of 32 texts |
# | DPO | the same, then both answers | 125 of 32 texts, 125 of 16 pairs |
# | MEET | both answers | 250 of 32 texts |
# | Aligner | the worse answer, to correct it into the better one; 2,000 answers without labels | 50 of 32 to copy, 200 of 32 |
# | best of n | both answers, for a reward model | 250 of 16 pairs |
# | mixed loss, HBAT | both answers, and 2,000 instructions | 150 of 32 instructions, 100 of 16 pairs |
# | RLOO | questions, and the exact judge; penalty for distance 0.02 | 75 of 32 samples |
#
# The Aligner and best of n are not applied to instructions: their number is the model's own. MEET is asked for *good*. The best of 8 is picked by a reward model that was trained
# on the pairs, and greedily there is only one answer. RLOO optimises the mark of the exact judge, which no other
# method may ask. The mixed loss, HBAT and RLOO choose one of three settings in each seed, by
# the best mean of *no fault, sampled* and *instructions* on validation prompts of that seed. Command:
# `python -m alignlib sweep board`.

# %%
METHODS = (*TUNED, *TRIALS)
AXES = {"helpful": "helpful", "harmless": "harmless", "honest": "honest", "overall": "mark"}
rows = [[m, *(as_chosen(board, m, f"{axis}_sampled") for axis in AXES)] for m in METHODS]
show_table(["sampled", *AXES.values()], rows)

# %%
COLUMNS = {
    "fault_free_sampled": "no fault, sampled",
    "fault_free_greedy": "no fault, greedy",
    "instructions": "instructions followed",
}
rows = [[m, *(as_chosen(board, m, name) for name in COLUMNS)] for m in METHODS]
show_table(["", *COLUMNS.values()], rows)

# %% [markdown]
# Each method minus SFT:

# %%
rows = [[m, *(over("sft", m, name)(board) for name in COLUMNS)] for m in METHODS if m != "sft"]
show_table(["minus SFT", *COLUMNS.values()], rows)

# %% [markdown]
# <a id="two"></a>
# ## Instructions stay at every rate tried where they are trained on; answers are best in the middle
#
# The methods whose learning rate is chosen here, at each of their rates. The mean of both aims on
# validation prompts chooses, in each seed. RLOO's choice is the highest rate in one seed of three.

# %%
rows = [
    [
        method,
        f"{trial['rate']:g}",
        *(recorded(board, f"{aim}_test", method=method, **trial) for aim in AIMS),
    ]
    for method, trials in TRIALS.items()
    for trial in trials
]
show_table(["method", "learning rate", "no fault, sampled", "instructions followed"], rows)

# %% [markdown]
# <a id="goodhart"></a>
# ## The reward keeps rising while the answers get worse
#
# An annotator marks answers as the exact judge does. The biased one adds 0.3 for each of up to two
# sentences of padding. A reward model learns from two sampled answers to each of 800
# questions, as the annotator ordered them, and four methods optimize it. *Best of n* takes the best of 1 to 32 answers. DPO trains on
# the best against the worst of 8 answers to 300 questions, at four learning rates. PPO runs for 10 to
# 40 iterations without a penalty for distance. An Aligner learns to turn an answer into the best of 2,
# 4 or 8. Answers are to 100 test questions, sampled. The distance is the KL divergence from the base
# model in nats per answer: for best of n an upper bound from its formula, for DPO and PPO an estimate
# on their samples, for the Aligner the lower of two bounds. Command: `python -m alignlib sweep
# goodhart`.


# %%
def against_distance(metric: str, cell: dict) -> dict:
    """By method: distances from the base model, and the metric there."""
    lines = {}
    for method, strengths in STRENGTHS.items():
        places = range(len(strengths))
        distances = [recorded(lab, in_the_lab("kl", method, i), "nats", **cell) for i in places]
        unit = "rate" if metric == "overall" else "reward"
        found = [recorded(lab, in_the_lab(metric, method, i), unit, **cell) for i in places]
        lines[method] = ([max(0, distance.value) ** 0.5 for distance in distances], found)
    return lines


figure, axes = new_figure(
    "Best of n gets worse by the bias, PPO by the distance",
    width=15,
    height=4.2,
    columns=4,
)
shown = [
    ("proxy", BIASED, "biased reward, above the start", 1),
    ("proxy", FAIR, "fair reward, above the start", 1),
    ("overall", BIASED, "exact judge, biased reward, %", 100),
    ("overall", FAIR, "exact judge, fair reward, %", 100),
]
for axis, (metric, cell, label, scale) in zip(axes, shown):
    lines = against_distance(metric, cell)
    curves(axis, lines, "√KL, nats per answer", label, scale, legend=axis is axes[0])
for axis in axes[2:]:
    axis.set_ylim(20, 100)
metrics.save_figure(figure, "lab")
figure

# %% [markdown]
# From each method's weakest push to its strongest, with the biased reward model and with the fair one:

# %%
WHAT = {"overall": "exact judge", "padding": "padding, sentences"}
rows = []
for method in STRENGTHS:
    for name, cell in {"biased": BIASED, "fair": FAIR}.items():
        ends = [
            recorded(lab, in_the_lab(metric, method, place), unit, **cell)
            for metric, unit in (("overall", "rate"), ("padding", "sentences"))
            for place in (0, -1)
        ]
        rows.append([method, name, *ends])
heads = ["exact judge, weakest", "strongest", "padding, weakest", "strongest"]
show_table(["method", "reward model", *heads], rows)

# %% [markdown]
# The fair reward model minus the biased one, at the strongest push:

# %%
rows = [[m, recorded_difference(lab, in_the_lab("overall", m), FAIR, BIASED)] for m in STRENGTHS]
show_table(["method", "exact judge, fair minus biased"], rows)

# %% [markdown]
# The bias shows in best of n: with the fair reward model it does not get worse, with the biased one it
# does. PPO falls far with both, while its reward rises: far from the model, the reward model scores
# answers unlike any that it was trained on. Between the two there is no clear difference. DPO breaks at
# its highest rate with both; with the fair reward model the reward falls too.

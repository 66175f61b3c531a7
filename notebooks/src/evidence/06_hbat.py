# %% [markdown]
# # Evidence for lesson 06: how can a model learn a second skill without forgetting the first?
#
# This report reads recorded experiments and runs in seconds. Each heading is its claim. Values are
# means over training seeds with 95 % t intervals: five seeds by DPO, three by PPO and in the single
# factors. Tests have 300 prompts of each kind. Every method has the same rows and steps, and four
# settings, one of which is chosen in each seed: the one with the best mean of both objectives on
# validation prompts. In the record `headlines` each seed draws its own prompts; elsewhere they are a
# fixed set. See [lesson 06](../06_hbat.ipynb).
#
# - *two-stage*: all instructions, then all pairs,
# - *restarted*: the same in five stages each, with a new optimizer and reference, as in HBAT,
# - *held*: two stages, the second with the elastic penalty,
# - *in turns*: HBAT's ten stages without a penalty; lesson 06 calls this *alternating*,
# - *hbat*: the same stages with the penalty,
# - *mixed*: instructions, then DPO's or PPO's loss plus the loss on instructions.

# %% tags=["parameters"]
OUT = None  # where figures go; None: runs/evidence-06

# %%
import numpy as np

from alignlib import Metrics
from alignlib.course.sweep import read_results, recorded, recorded_difference
from alignlib.hbat import IMPORTANCE
from alignlib.plots import bars, curves, new_figure, show_table
from experiments.hbat import (
    BASELINE,
    FACTORS,
    TRIALS,
    chosen_metrics,
    difference_as_chosen,
    forgotten,
    mean_over_seeds,
)

metrics = Metrics("evidence-06", "tiny", 0, OUT)
records = {
    "DPO, fresh seeds": read_results("headlines"),
    "DPO": read_results("fronts"),
    "PPO": read_results("fronts_ppo"),
}
AIMS = {"instruct": "instructions followed", "preference": "preferences met"}


def as_chosen(aim: str, method: str, by: str):
    """A metric of the settings that were chosen in each seed, on the test."""
    chosen = chosen_metrics(records[by], method)
    return mean_over_seeds({seed: found[f"{aim}_test"] for seed, found in chosen.items()})


# %% [markdown]
# <a id="forgetting"></a>
# ## In these trainings two stages lose instructions, mainly because the style spills over
#
# What two stages lose while they learn the preferences. *Right answers*: a friendly phrase before or
# after the answer is ignored. Commands: `python -m alignlib sweep headlines`, `... sweep fronts`,
# `... sweep fronts_ppo`.

# %%
rows = [
    [by, *(forgotten(records[by], aim) for aim in ("instruct", "content", "rouge_l"))]
    for by in records
]
show_table(["lost by two stages", "instructions followed", "right answers", "ROUGE-L"], rows)

# %% [markdown]
# <a id="methods"></a>
# ## HBAT does better than two stages; alternating does it, and mixing does better still
#
# By DPO, on five fresh seeds.

# %%
NAMES = {"two-stage": "two stages", "in turns": "alternating", "mixed": "mixed", "hbat": "HBAT"}
shown = {
    label: {name: as_chosen(aim, method, "DPO, fresh seeds") for method, name in NAMES.items()}
    for aim, label in AIMS.items()
}
title = "Alternating does better than two stages, and mixing better still"
figure, [axis] = new_figure(title, width=9, height=3.8)
bars(axis, shown, "% of test prompts")
axis.set_ylim(0, 105)
metrics.save_figure(figure, "methods")
figure


# %%
def differences(by: str, methods: list[str]) -> list[list]:
    """HBAT minus each method: both aims, and their mean."""
    each = [(aim,) for aim in AIMS] + [tuple(AIMS)]
    return [
        [f"{by}: {m}", *(difference_as_chosen(records[by], m, *aims) for aims in each)]
        for m in methods
    ]


COLUMNS = ["HBAT minus", *AIMS.values(), "mean of both"]
show_table(COLUMNS, differences("DPO, fresh seeds", ["two-stage", "in turns", "mixed"]))

# %% [markdown]
# The five seeds that settings were first tried on, with two methods more:

# %%
show_table(COLUMNS, differences("DPO", [m for m in TRIALS["dpo"] if m != "hbat"]))

# %% [markdown]
# HBAT follows more instructions than two stages and meets more preferences. *Alternating*, without the
# penalty, does as well, so the alternation is what helps. The mixed loss does better than HBAT, on
# fresh seeds and on the first five. Which method looks best depends on the rule that
# chooses the settings: with the trial nearest to the preferences of two stages instead, the same records
# had HBAT above mixing in instructions and below it in preferences. So the rule was fixed first, and both
# objectives are reported.

# %% [markdown]
# <a id="ppo"></a>
# ## By PPO too, HBAT does better than two stages
#
# Three seeds. PPO is rewarded by the very score that is measured, so do not compare it with DPO here.

# %%
rows = [[m, *(as_chosen(aim, m, "PPO") for aim in AIMS)] for m in TRIALS["ppo"]]
show_table(["method", *AIMS.values()], rows)

# %%
show_table(COLUMNS, differences("PPO", [m for m in TRIALS["ppo"] if m != "hbat"]))

# %% [markdown]
# <a id="parts"></a>
# ## More rounds trade one objective for the other; more strength costs
#
# One factor at a time, three seeds, learning rates unchanged. Command: `python -m alignlib sweep
# factors`.

# %%
factors = read_results("factors")


def with_change(aim: str, **change: object):
    return recorded(factors, aim, **BASELINE | change)


ROUNDS = sorted({f["rounds"] for f in FACTORS})
plain = [f for f in FACTORS if f["importance"] == "movement" and f["rounds"] == BASELINE["rounds"]]
STRENGTHS = sorted(f["strength"] for f in plain)
figure, axes = new_figure(
    "A strong penalty holds both objectives back", width=10, height=3.6, columns=2
)
for axis, name, values in zip(axes, ("rounds", "strength"), (ROUNDS, STRENGTHS)):
    lines = {
        label: (range(len(values)), [with_change(aim, **{name: v}) for v in values])
        for aim, label in AIMS.items()
    }
    curves(axis, lines, name, "% of test prompts", 100, legend=name == "rounds")
    axis.set_xticks(range(len(values)), [f"{v:g}" for v in values])
metrics.save_figure(figure, "factors")
figure

# %% [markdown]
# <a id="importance"></a>
# ## Which tensors are held makes no clear difference
#
# Instructions followed, with other kinds of importance, and the difference to movement at the same
# strength. *released*: through the softmax of the released code. *random*: a random number for each
# tensor. *frozen*: the fifth of the tensors that moved most is not trained.

# %%
rows = []
for factor in FACTORS:
    if factor["importance"] != "movement":
        change = {"importance": factor["importance"], "strength": factor["strength"]}
        same = BASELINE | {"strength": factor["strength"]}
        gain = recorded_difference(factors, "instruct", BASELINE | change, same)
        rows.append([*change.values(), with_change("instruct", **change), gain])
show_table(["importance", "strength", "instructions followed", "minus movement"], rows)

# %% [markdown]
# <a id="elsewhere"></a>
# ## Where nothing interferes, HBAT has little to keep, and can do harm
#
# The same instructions beside preferences of another kind: answers without faults (*qa*) and good
# summaries, with settings that were chosen for the main task. Three seeds. Command: `python -m alignlib sweep aims_met`.

# %%
elsewhere = read_results("aims_met")
rows = []
for task in ("qa", "summary"):
    before = {"task": task, "method": "two-stage"}
    starts = [recorded(elsewhere, f"{aim}_before", **before) for aim in AIMS]
    rows.append([task, "before the preferences", *starts])
    for method in ("two-stage", "mixed", "hbat"):
        cell = {"task": task, "method": method}
        rows.append([task, method, *(recorded(elsewhere, f"{aim}_0", **cell) for aim in AIMS)])
show_table(["preferences", "method", "instructions followed", "score of the answers"], rows)

# %% [markdown]
# <a id="cost"></a>
# ## The penalty costs a tenth more time and a copy of the weights; Fisher information doubles the time
#
# Against the restarted version, which trains on the same tokens. Command: `python -m alignlib sweep
# overhead`.

# %%
costs = read_results("overhead")
rows = []
for kind in IMPORTANCE:
    copies = recorded(costs, f"copies_{kind}", "copies").value
    rows.append([kind, recorded(costs, f"time_{kind}", "times"), f"{copies:.2f}"])
show_table(["importance", "time", "copies of the weights"], rows)

# %% [markdown]
# <a id="angle"></a>
# ## The objectives pull in opposite directions wherever instructions are still to be learned
#
# The cosine between their gradients along the stages, three seeds. The other two lines are controls:
# two halves of one objective's prompts. Command: `python -m alignlib sweep pulls`.

# %%
inside, STAGES = read_results("pulls"), range(1 + 2 * BASELINE["rounds"])
NAMES = {
    "instructions and preferences": "cosine",
    "instructions, two halves": "cosine_instructions",
    "preferences, two halves": "cosine_preferences",
}
figure, axes = new_figure(
    "HBAT does not end the conflict, it keeps both sides alive", width=10, columns=2
)
for axis, method in zip(axes, ("restarted", "hbat")):
    lines = {
        label: (STAGES, [recorded(inside, f"{n}_{i}", "cosine", method=method) for i in STAGES])
        for label, n in NAMES.items()
    }
    curves(axis, lines, f"stage ({method})", "cosine", legend=axis is axes[0])
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set(ylim=(-1.4, 1.2), yticks=np.arange(-1, 1.1, 0.5))
metrics.save_figure(figure, "angles")
figure

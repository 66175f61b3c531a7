# %% [markdown]
# # Evidence for lesson 05: how can one model answer in several styles?
#
# This report reads recorded experiments and runs in seconds. Each heading is its claim. Values are
# means over training seeds with 95 % t intervals. All trainings use 1,500 pairs and 250 steps, and
# learning rates that were chosen on validation. Tests are a fixed set of 200 prompts, so the intervals
# do not cover other prompts; in the record `headlines` each seed draws pairs and 400 prompts of its own.
# Answers are sampled at temperature 1. See [lesson 05](../05_meet.ipynb).
#
# **Without faults**: the exact judge gives full marks. **Net win**: the percentage of prompts where the
# first method's answer scores higher, minus the percentage where it scores lower.

# %% tags=["parameters"]
OUT = None  # where figures go; None: runs/evidence-05

# %%
import numpy as np

from alignlib import Metrics
from alignlib.course.sweep import per_seed, read_results, recorded, recorded_difference
from alignlib.plots import bars, curves, heatmap, new_figure, show_table
from alignlib.stats import over_seeds
from alignlib.tinytown.sets import AXES
from experiments.meet import BASES
from experiments.meet_controls import ARMS, BOTH_STEPS, SIZES, axis_controls

metrics = Metrics("evidence-05", "tiny", 0, OUT)
controls = read_results("controls")
rivals = read_results("rivals_of_meet")

# %% [markdown]
# <a id="order"></a>
# ## The order of the steps makes no difference worth having, and a soft prompt needs step 2
#
# The same 250 steps spent differently: MEET's *both steps*; controls and model *joint* from the start;
# all steps on the controls (*step 1 alone*); all on the model, with controls that stay as they were
# drawn (*step 2 alone*); and both steps with answers to different questions (*no pairs*). Three seeds.
# Command: `python -m alignlib sweep controls`.

# %%
figure, axes = new_figure(
    "A soft prompt needs the model to learn too; LoRA does not", width=11, height=3.8, columns=2
)
for axis, kind in zip(axes, ("prompt", "lora")):
    arms = {c["arm"]: c for c in (BOTH_STEPS[kind], *ARMS) if c["kind"] == kind}
    groups = {
        f"asked for {end}": {
            arm.replace(" ", "\n", 1): recorded(controls, f"sound_1_{end}", **cell)
            for arm, cell in arms.items()
        }
        for end in ("bad", "good")
    }
    bars(axis, groups, f"{kind}: answers without faults, %")
    axis.set_ylim(0, 62)
metrics.save_figure(figure, "order")
figure

# %%
rows = []
for kind in ("prompt", "lora"):
    for other in (c for c in ARMS if c["kind"] == kind):
        gain = recorded_difference(controls, "sound_1_good", BOTH_STEPS[kind], other)
        rows.append([kind, f"both steps minus {other['arm']}", gain])
show_table(["control", "asked for good", "answers without faults"], rows)

# %% [markdown]
# Again on five fresh seeds, with pairs and prompts of their own. Command: `python -m alignlib sweep
# headlines`.

# %%
headlines = read_results("headlines")
ARMS_AGAIN = ("lora", "prompt", "prompt, joint", "preferred texts only")
arms = {arm: {"part": "meet", "arm": arm} for arm in ARMS_AGAIN}
rows = []
for arm, cell in arms.items():
    ends = ("good", "bad") if arm != "preferred texts only" else ("good",)
    found = [recorded(headlines, f"sound_1_{end}", **cell) for end in ends]
    rows.append([arm, *found, *[""] * (2 - len(found))])
show_table(["five fresh seeds", "asked for good", "asked for bad"], rows)

# %%
pairs = (("prompt", "prompt, joint"), ("lora", "preferred texts only"))
rows = [
    [f"{a} minus {b}", recorded_difference(headlines, "sound_1_good", arms[a], arms[b])]
    for a, b in pairs
]
show_table(["asked for good", "answers without faults"], rows)

# %% [markdown]
# <a id="size"></a>
# ## Larger controls do better, partly because the learning rates suit them
#
# Nine sizes, three seeds. Command: `python -m alignlib sweep controls`.

# %%
figure, axes = new_figure(
    "At one learning rate each, larger controls mostly do better", width=11, height=3.6, columns=2
)
names = ("soft prompts of 1, 5, 20, 50, 100 tokens", "LoRA of rank 1 on 2, on 16, rank 2, rank 8")
for axis, kind, name in zip(axes, ("prompt", "lora"), names):
    cells = [c for c in SIZES if c["kind"] == kind]
    sizes = [100 * recorded(controls, "share", **c).value for c in cells]
    lines = {
        f"asked for {end}": (sizes, [recorded(controls, f"sound_1_{end}", **c) for c in cells])
        for end in ("good", "bad")
    }
    curves(axis, lines, f"% of the model's weights ({name})", "answers without faults, %", 100)
    axis.set(xscale="log", ylim=(0, 62))
    axis.xaxis.set_major_formatter("{x:g}")
metrics.save_figure(figure, "size")
figure

# %% [markdown]
# Twenty virtual tokens against one, at the rates chosen for twenty, and with three times the model's
# learning rate:

# %%
prompts = {c["size"]: c for c in SIZES if c["kind"] == "prompt"}
faster = {n: c | {"arm": "faster model"} for n, c in prompts.items()}
rows = []
for about, cells in (("rates chosen for twenty", prompts), ("faster model", faster)):
    for more, fewer in ((20, 1), (100, 20)):
        gain = recorded_difference(controls, "sound_1_good", cells[more], cells[fewer])
        rows.append([about, f"{more} tokens minus {fewer}", gain])
show_table(["learning rates", "asked for good", "answers without faults"], rows)

# %% [markdown]
# <a id="rivals"></a>
# ## LoRA controls beat one token and words; plain fine-tuning and DPO do as well for one behavior
#
# Every method gets the same pairs and steps, and four settings to choose from on validation. Five
# seeds. *Words*: the control is the word "better" or "worse" (chain of hindsight). *Preferred only*:
# fine-tuning on the preferred answers. Of the training pairs of summaries a quarter is mislabelled.
# Command: `python -m alignlib sweep rivals_of_meet`.

# %%
RIVALS = {
    "untouched": "base\nmodel",
    "one token": "one\ntoken",
    "hindsight": "words",
    "sft, half": "preferred,\nhalf",
    "sft": "preferred\nonly",
    "dpo": "DPO",
}


def won(kind: str, rival: str, judge: object = 1, task: str = "qa"):
    """Net win of MEET over a rival, by the exact judge (1) or another one."""
    return recorded(rivals, f"meet, {kind}_over_{rival}_{judge}", "points", task=task)


figure, axes = new_figure(
    "MEET with LoRA beats other controls, but not methods that learn one behavior only",
    width=12,
    height=4.2,
    columns=2,
)
for axis, (task, name) in zip(axes, (("qa", "questions"), ("summary", "summaries"))):
    groups = {
        f"MEET, {kind}": {label: won(kind, rival, task=task) for rival, label in RIVALS.items()}
        for kind in ("prompt", "lora")
    }
    bars(axis, groups, f"{name}: net win, points", percent=False)
    axis.axhline(0, color="black", linewidth=0.8)
metrics.save_figure(figure, "rivals")
figure

# %% [markdown]
# <a id="length"></a>
# ## A judge that likes length decides only between near-equals
#
# Net win of MEET with LoRA, by the exact judge and by three reward models: a *fair* one, one trained on
# an annotator who *likes length* among good answers, and one that *counts words*.

# %%
JUDGES = {
    "exact": 1,
    "fair": "fair",
    "likes length": "likes length",
    "counts words": "counts words",
}
rows = [
    [label.replace("\n", " "), *(won("lora", rival, judge) for judge in JUDGES.values())]
    for rival, label in RIVALS.items()
]
show_table(["over", *JUDGES], rows)

# %% [markdown]
# <a id="base"></a>
# ## On a smaller base, two behaviors cost more
#
# Net win of MEET with LoRA, on bases of a tenth and a third of the usual size (three seeds, one base of
# each size, pretrained for half as long). Command: `python -m alignlib sweep base_size`.

# %%
smaller = read_results("base_size")
bases = [(smaller, {"width": width}) for width in BASES] + [(rivals, {"task": "qa"})]
sizes = [f"{recorded(smaller, 'parameters', width=width).value / 1000:.0f} k" for width in BASES]
rows = [
    [f"over {name}", *(recorded(r, f"meet, lora_over_{rival}_1", "points", **c) for r, c in bases)]
    for rival, name in (("sft", "preferred only"), ("one token", "one token"))
]
show_table(["weights of the base", *sizes, "880 k"], rows)

# %% [markdown]
# <a id="axes"></a>
# ## Tone and length obey their controls, one by one and together; detail hardly does
#
# Three axes with two ends each, six controls in one model, 500 pairs an axis, 250 steps in all. Rows:
# the axis that was asked for. Columns: the change of each score between its two ends. Three seeds.
# Command: `python -m alignlib sweep several_axes`.

# %%
several, METHODS = read_results("several_axes"), ("meet, prompt", "meet, lora", "one token")


def effect(method: str, asked: str, got: str) -> dict[int, float]:
    """By seed: the score on an axis with one end of another asked for, minus with the other end."""
    high, low = (per_seed(several, f"{got}/{asked}{end}", method=method) for end in "+-")
    return {seed: high[seed] - low[seed] for seed in high}


figure, axes = new_figure("Tone and length obey, detail hardly", width=11, height=3.2, columns=3)
for axis, method in zip(axes, METHODS):
    changes = [
        [np.mean(list(effect(method, asked, got).values())) for got in AXES] for asked in AXES
    ]
    labels = [f"ask {a}" for a in AXES], [f"get {a}" for a in AXES]
    heatmap(axis, np.round(changes, 2) + 0, *labels, "")
    axis.set_title(method, fontsize=10)
metrics.save_figure(figure, "axes")
figure

# %% [markdown]
# All three axes at once, in eight combinations that no training row had:

# %%
mixes = axis_controls()[1]


def obeyed(method: str, axis: str):
    """The score on an axis where its + is asked for, minus where its - is, over all mixes."""
    scores = {mix: per_seed(several, f"{axis}/{' '.join(mix)}", method=method) for mix in mixes}
    signs = {mix: 1 if f"{axis}+" in mix else -1 for mix in mixes}
    means = [2 * np.mean([signs[m] * scores[m][seed] for m in mixes]) for seed in scores[mixes[0]]]
    return over_seeds(means, "difference")


rows = [[method, *(obeyed(method, axis) for axis in AXES)] for method in METHODS]
show_table(["three controls at once", *AXES], rows)

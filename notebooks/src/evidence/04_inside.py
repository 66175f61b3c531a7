# %% [markdown]
# # Evidence for lesson 04: what does an Aligner do inside?
#
# This report reads recorded experiments and runs in seconds. Each heading is its claim. Values are
# means over three trainings of lesson 02's Aligner, from the same base model, with 95 % t intervals.
# Answers have one wrong word, and neither it nor the right one occurs in a training correction. See
# [lesson 04](../04_inside.ipynb).

# %% tags=["parameters"]
OUT = None  # where figures go; None: runs/evidence-04

# %%
from alignlib import Metrics
from alignlib.tinytown.pretrain import Recipe
from alignlib.course.sweep import read_results, recorded, recorded_difference
from alignlib.plots import curves, new_figure, show_table

metrics = Metrics("evidence-04", "tiny", 0, OUT)
looking = read_results("looking")
inside = read_results("inside")

# %% [markdown]
# <a id="probe"></a>
# ## No state marks the wrong word, although the Aligner was surprised by it
#
# AUC of a linear probe at its best layer, and of the surprise while reading; 0.5 is chance. *Random
# labels*: the mean over twenty permutations. Command: `python -m alignlib sweep looking`.

# %%
PLACES = {
    "read": "where the word is read",
    "end": "end of the prompt",
    "said": "before it is written",
}
rows = []
for place, label in PLACES.items():
    by_probe, by_chance = (recorded(looking, f"{k}_{place}", "AUC") for k in ("probe", "chance"))
    rows.append([label, by_probe, by_chance])
rows.append(["surprise while reading", recorded(looking, "surprise", "AUC"), ""])
show_table(["", "AUC", "random labels"], rows)

# %% [markdown]
# <a id="patching"></a>
# ## The answer's word is fetched in the last layer
#
# The right word is written next, after a state of the run with the correct answer was patched in.

# %%
rows = [
    [f"layer {i}", *(recorded(looking, f"patched_{place}_{i}") for place in ("at", "last"))]
    for i in range(4)
]
show_table(["patched after", "at the answer's word", "at the last word"], rows)

# %% [markdown]
# <a id="heads"></a>
# ## Without its copying head an Aligner keeps fewer good answers, and fixes fewer
#
# The whole test set of lesson 02, with one head of the last layer switched off.

# %%
rows = []
for head in ("none", "3.0", "3.1", "3.2", "3.3"):
    rows.append([head, *(recorded(looking, f"{m}_without_{head}") for m in ("fault_free", "kept"))])
show_table(["switched off", "without faults", "good answers kept"], rows)

# %% [markdown]
# <a id="seeds"></a>
# ## In two of three trainings one head copies and one reads
#
# The heads with the most attention on the answer's and on the board's word, in each training, and what
# is written next without them. Command: `python -m alignlib sweep inside`.

# %%
last = max(cell["params"]["step"] for cell in inside["cells"])
cells = [c for c in inside["cells"] if c["params"] == {"step": last, "share": 0.2}]
rows = []
for cell in cells:
    m = cell["metrics"]
    heads = {
        kind: f"{m[f'{kind}_layer_aligner']:.0f}.{m[f'{kind}_head_aligner']:.0f}"
        for kind in ("copier", "reader")
    }
    for name, key in (
        ("all heads", ""),
        (f"no copier ({heads['copier']})", "_without_copier"),
        (f"no reader ({heads['reader']})", "_without_reader"),
    ):
        values = (m[f"says_{word}{key}_aligner"] for word in ("right", "wrong"))
        rows.append([cell["seed"], name, *(f"{100 * value:.0f} %" for value in values)])
show_table(["training", "", "right word", "wrong word"], rows)

# %% [markdown]
# <a id="origin"></a>
# ## The copying head is in the base model; the corrections add reading
#
# The base model at four moments of its pretraining, after a warm-up alone, and Aligners made of it.

# %%
steps = sorted({cell["params"]["step"] for cell in inside["cells"]})
tokens = [step * Recipe().batch * Recipe().context / 1e6 for step in steps]
WHO = {
    "base model": ("base", 0.2),
    "warm-up alone": ("warm-up", 0.2),
    "Aligner, warm-up": ("aligner", 0.2),
    "Aligner, no warm-up": ("aligner", 0.0),
}
LABELS = {
    "copier_share": "copier's attention to the answer, %",
    "reader_share": "reader's attention to the board, %",
    "says_right": "right word written, %",
}
title = "A warm-up alone makes a copier; with corrections a head reads the board"
figure, axes = new_figure(title, width=10.5, height=3.6, columns=3)
for axis, (metric, label) in zip(axes, LABELS.items()):
    lines = {
        name: (tokens, [recorded(inside, f"{metric}_{w}", step=s, share=share) for s in steps])
        for name, (w, share) in WHO.items()
    }
    curves(axis, lines, "million tokens", label, 100, legend=axis is axes[0])
    axis.set(xscale="log", ylim=(-3, 103), xticks=tokens)
    axis.set_xticklabels([f"{n:.1f}" for n in tokens])
    axis.minorticks_off()
metrics.save_figure(figure, "inside")
figure

# %% [markdown]
# Warm-up minus none, in the finished Aligner: no clear difference in the copier's attention or in the
# words that are written.

# %%
rows = []
for metric in ("copier_share", "says_right"):
    both = ({"step": last, "share": share} for share in (0.2, 0.0))
    rows.append([metric.replace("_", " "), recorded_difference(inside, f"{metric}_aligner", *both)])
show_table(["", "warm-up minus none"], rows)

# %% [markdown]
# <a id="steering"></a>
# ## Steering did not hold up
#
# Adding a direction to the states while the Aligner writes, and the slope of the edit ratio over its
# strength. In one of three trainings it does no more than a random direction of the same length.

# %%
rows = []
for cell in looking["cells"]:
    m = cell["metrics"]
    found = (m[name] for name in ("slope", "random_max", "unrelated_max"))
    rows.append([cell["seed"], *(f"{value:.2f}" for value in found)])
show_table(["training", "slope", "largest of 20 random ones", "of 20 between unrelated rows"], rows)

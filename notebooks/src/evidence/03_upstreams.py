# %% [markdown]
# # Evidence for lesson 03: does one Aligner work for many models?
#
# This report reads recorded experiments and runs in seconds. Each heading is its claim. Values are
# means over three training seeds with 95 % t intervals. Tests are a fixed set of 400 questions for each
# kind of words. See [lesson 03](../03_upstreams.ipynb).
#
# **Net win**: the percentage of prompts where the correction scores higher than the answer, minus the
# percentage where it scores lower.

# %% tags=["parameters"]
OUT = None  # where figures go; None: runs/evidence-03

# %%
import numpy as np

from alignlib import Metrics
from alignlib.course.sweep import per_seed, read_results, recorded, recorded_difference
from alignlib.plots import bars, curves, new_figure, show_table
from alignlib.stats import crossing, over_seeds
from alignlib.tinytown.recordings import TAUGHT
from experiments.claims import break_even_faults
from experiments.hbat import mean_over_seeds

metrics = Metrics("evidence-03", "tiny", 0, OUT)

# %% [markdown]
# <a id="all"></a>
# ## One Aligner helps after all thirteen upstreams, ten of which it never saw
#
# Trained on answers of three upstreams (*). Command: `python -m alignlib sweep upstreams`.

# %%
every = read_results("upstreams")
prefix = "net_win_overall/"
names = sorted(m.removeprefix(prefix) for m in every["cells"][0]["metrics"] if prefix in m)
wins = {name: recorded(every, prefix + name, "points", taught=3) for name in names}
labelled = {f"{name} *" if name in TAUGHT else name: wins[name] for name in names}
figure, [axis] = new_figure("The corrections win after every upstream", width=9.5, height=3.6)
bars(axis, {"Aligner": labelled}, "net win overall, points", percent=False)
axis.tick_params(axis="x", rotation=60)
metrics.save_figure(figure, "upstreams")
figure

# %% [markdown]
# <a id="whom"></a>
# ## Trained on models' answers it wins more; trained on good answers with faults it keeps more
#
# Means over the ten upstreams that it was not trained on.

# %%
unseen = [name for name in names if name not in TAUGHT]


def over_unseen(taught: int, metric: str) -> list[float]:
    """The mean over upstreams, for each training. (The 4-gram has no good answer to keep.)"""
    some = [n for n in unseen if (metric, n) != ("kept", "4-gram")]
    by_name = [per_seed(every, f"{metric}/{name}", taught=taught) for name in some]
    return [np.mean([values[seed] for values in by_name]) for seed in (0, 1, 2)]


rows = []
for taught, who in enumerate(("a program", "one upstream", "two", "three")):
    win = over_seeds(over_unseen(taught, "net_win_overall"), "points")
    rows.append([who, win, *(over_seeds(over_unseen(taught, m)) for m in ("after", "kept"))])
show_table(["trained on", "net win", "without faults after", "good answers kept"], rows)

# %% [markdown]
# <a id="harm"></a>
# ## It does harm after a good upstream; how good depends on its training rows
#
# A program with a dial from no faulty answers to nearly all. Command: `python -m alignlib sweep dial`.

# %%
dial = read_results("dial")
rates = sorted({cell["params"]["rate"] for cell in dial["cells"]})
faulty = [100 * recorded(dial, "faulty", taught=3, rate=r).value for r in rates]
WHO = {"trained on three upstreams": 3, "trained on the program": 0}
figure, [axis] = new_figure("Below the line it does more harm than good")
lines = {
    who: (faulty, [recorded(dial, "net_win_overall", "points", taught=k, rate=r) for r in rates])
    for who, k in WHO.items()
}
curves(axis, lines, "faulty answers, %", "net win overall, points")
axis.axhline(0, color="black", linewidth=0.8)
metrics.save_figure(figure, "dial")
figure


# %%
def dial_break_even(taught: int):
    """Where the net win passes zero, with an Aligner trained on so many upstreams."""
    shares = [recorded(dial, "faulty", taught=taught, rate=r).value for r in rates]
    wins = [per_seed(dial, "net_win_overall", taught=taught, rate=r) for r in rates]
    crossings = {seed: crossing(shares, [win[seed] for win in wins]) for seed in wins[0]}
    return mean_over_seeds(crossings)


rows = [[who, dial_break_even(k)] for who, k in WHO.items()]
fresh = break_even_faults(read_results("headlines"), part="faults")
rows.append(["trained on three, five fresh seeds with prompts of their own", fresh])
show_table(["", "does harm below this fraction of faulty answers"], rows)

# %% [markdown]
# <a id="amount"></a>
# ## Ten times the corrections help less each time
#
# Answers without faults. *Wrong*: corrections that belong to other answers. Command: `python -m alignlib
# sweep data`.

# %%
data = read_results("data")
cells = [{"corrections": n, "wrong": 0.0} for n in (40, 400, 1500, 4000)]
cells += [{"corrections": 1500, "wrong": wrong} for wrong in (0.25, 0.5)]
rows = []
for cell in cells:
    about = f"{cell['corrections']:,}, {cell['wrong']:.0%} wrong"
    rows.append([about, *(recorded(data, f"fault_free_{t}", **cell) for t in ("seen", "unseen"))])
show_table(["corrections", "seen words", "unseen words"], rows)

# %% [markdown]
# <a id="rivals"></a>
# ## If you own the upstream, fine-tuning it does as well on known words
#
# The same corrections used to change the upstream itself: by supervised fine-tuning (SFT), or by DPO with
# the correction as the chosen answer. Learning rates chosen on validation. Commands: `python -m alignlib
# sweep tuning`, `... sweep rivals`.

# %%
rivals = read_results("rivals")
ARMS = {
    "untouched": "untouched",
    "aligner": "Aligner",
    "sft": "SFT",
    "sft, twice the size": "SFT, twice\nthe size",
    "dpo": "DPO",
}
figure, axes = new_figure(
    "Greedily, the three do about as well on known words", width=11, columns=2
)
for axis, how in zip(axes, ("greedy", "sampled")):
    groups = {
        f"{words} words": {
            label: recorded(rivals, f"fault_free_{how}_{words}", arm=arm)
            for arm, label in ARMS.items()
        }
        for words in ("seen", "unseen")
    }
    bars(axis, groups, f"{how}: without faults, %")
    axis.set_ylim(0, 75)
metrics.save_figure(figure, "rivals")
figure

# %%
rows = []
for how in ("greedy", "sampled"):
    for words in ("seen", "unseen"):
        name = f"fault_free_{how}_{words}"
        gains = [
            recorded_difference(rivals, name, {"arm": "aligner"}, {"arm": arm})
            for arm in ("sft", "dpo")
        ]
        rows.append([how, words, *gains])
show_table(["answers", "words", "Aligner minus SFT", "Aligner minus DPO"], rows)

# %% [markdown]
# Of sampled answers, the corrections of the Aligner are greedy and those of the others are not, so that
# half of the table favours it. Greedily, three seeds show no clear difference.

# %% [markdown]
# <a id="weak-to-strong"></a>
# ## A small Aligner can teach a larger model, mainly what to say more often
#
# Net win of a model of twice the size after fine-tuning on the Aligner's corrections of its own answers,
# with controls. Command: `python -m alignlib sweep weak_to_strong`.

# %%
teaching = read_results("weak_to_strong")
rows = []
for arm in dict.fromkeys(cell["params"]["arm"] for cell in teaching["cells"]):
    places = ("sampled_seen", "greedy_seen")
    rows.append([arm, *(recorded(teaching, f"net_win_{p}", "points", arm=arm) for p in places)])
show_table(["", "sampled answers", "greedy answers"], rows)

# %% [markdown]
# <a id="second-pass"></a>
# ## A second pass adds next to nothing
#
# Net win on the answers of `mixed`, after one, two and three passes. Command: `python -m alignlib sweep
# stacking`.

# %%
passes = read_results("stacking")
rows = [
    [words, *(recorded(passes, f"net_win_{i}_{words}", "points") for i in (1, 2, 3))]
    for words in ("seen", "unseen")
]
show_table(["words", "one pass", "two", "three"], rows)

# %% [markdown]
# <a id="asked"></a>
# ## It can be asked for another style, if some training rows ask
#
# A third of the training rows ends the question with a request for each style. *Obeyed*: corrections in
# that style, with the request in the question or, where it should not count, in the answer. Command:
# `python -m alignlib sweep instructed`.

# %%
asked = read_results("instructed")
rows = []
for style in ("more polite", "shorter"):
    places = (f"unasked/{style}", f"obeyed_in_question/{style}", f"obeyed_in_answer/{style}")
    rows.append([style, *(recorded(asked, place, told=True) for place in places)])
show_table(["style", "not asked", "asked in the question", "in the answer"], rows)

# %% [markdown]
# <a id="rounds"></a>
# ## Fresh answers in each round make no clear difference
#
# DPO on the Aligner's corrections in three rounds: of fresh answers in each round, or of the first ones.
# Command: `python -m alignlib sweep rounds`.

# %%
in_rounds = read_results("rounds")
rows = []
for decoding in ("sampled", "greedy"):
    name, kinds = f"net_win_{decoding}_round_3", ({"answers": k} for k in ("fresh", "stale"))
    each = [recorded(in_rounds, name, "points", answers=k) for k in ("fresh", "stale")]
    rows.append([decoding, *each, recorded_difference(in_rounds, name, *kinds, "points")])
show_table(["answers", "fresh", "stale", "difference"], rows)

# %% [markdown]
# <a id="injection"></a>
# ## An answer that goes on with another question hijacks it, unless such rows were in training
#
# Every fifth training row goes on with another question, and is corrected as if it did not (*shown*).
# *Bare*: without escaped separators. Command: `python -m alignlib sweep hijacked`.

# %%
hijacked = read_results("hijacked")
rows = []
for shown in (False, True):
    for attack in ("none", "escaped", "bare"):
        rate_hijacked, sound = (
            recorded(hijacked, f"{metric}_{attack}", shown=shown)
            for metric in ("taken_over", "fault_free")
        )
        rows.append(["shown" if shown else "not shown", attack, rate_hijacked, sound])
show_table(["such rows in training", "attack", "hijacked", "without faults"], rows)

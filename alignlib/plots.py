"""The shared figures: readable in grey, one message each, an interval on everything measured."""

from __future__ import annotations

import difflib
import html
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .judges import NOTHING
from .stats import Estimate

WIDE = 12  # columns of a matrix beyond which there is no room for numbers
DARK, LIGHT, ACCENT, MUTED = "#1b3a5c", "#9db8d2", "#c8553d", "#8a8a8a"  # apart in grey too
LOOK = {
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
}


def new_figure(
    title: str, width: float = 7, height: float = 3.4, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """A figure in the course's look. The title is the message, in a sentence."""
    with plt.rc_context(LOOK):
        figure, axes = plt.subplots(
            1, columns, figsize=(width, height), squeeze=False, layout="constrained"
        )
        figure.suptitle(title, fontsize=11, fontweight="bold", ha="left", x=0.01)
    plt.close(figure)  # shown where a cell ends with it, and not once more by the notebook
    return figure, list(axes[0])


def say_no_judge(ax: Axes) -> None:
    ax.set_axis_off()
    ax.text(
        0.5,
        0.5,
        NOTHING,
        transform=ax.transAxes,
        ha="center",
        va="center",
        fontsize=12,
        color=MUTED,
    )


def bars(
    ax: Axes,
    groups: Mapping[str, Mapping[str, Estimate | None]],
    label: str,
    percent: bool = True,
    first: int = 0,
    legend: bool = True,
) -> None:
    """Grouped bars with 95 % intervals: groups[bar's name][position on the x axis]. Says so if no
    judge could tell.

    `first` is the first group's place in the row of colours, so that neighbouring panels can share
    theirs.
    """
    groups = {name: {k: e for k, e in g.items() if e is not None} for name, g in groups.items()}
    places = list(dict.fromkeys(k for g in groups.values() for k in g))
    if not places:
        return say_no_judge(ax)
    scale, width = (100 if percent else 1), 0.8 / len(groups)
    for i, (name, g) in enumerate(groups.items()):
        at = [places.index(k) + (i - (len(groups) - 1) / 2) * width for k in g]
        values = [e.value * scale for e in g.values()]
        errors = [
            [(e.value - e.low) * scale for e in g.values()],
            [(e.high - e.value) * scale for e in g.values()],
        ]
        color, hatch = ((LIGHT, ""), (DARK, ""), (ACCENT, "//"), (MUTED, ".."))[(first + i) % 4]
        ax.bar(
            at,
            values,
            width * 0.92,
            yerr=errors,
            label=name,
            color=color,
            hatch=hatch,
            edgecolor="white",
            error_kw={"elinewidth": 1.2, "capsize": 3, "ecolor": "black"},
        )
    ax.set_xticks(range(len(places)), places)
    ax.set_ylabel(label)
    if legend and len(groups) > 1:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False, fontsize=9)


def curves(
    ax: Axes,
    series: Mapping[str, tuple[Sequence[float], Sequence[float | Estimate]]],
    x: str,
    y: str,
    scale: float = 1.0,
    legend: bool = True,
) -> None:
    """Lines: series[name] = (xs, ys), ys times `scale`; estimates get their intervals. Says so
    if there is none, since no judge could tell.
    """
    if not series:
        return say_no_judge(ax)
    styles = [(DARK, "-"), (ACCENT, "--"), (MUTED, ":"), (LIGHT, "-.")]
    for (name, (xs, ys)), (color, line) in zip(series.items(), styles, strict=False):
        look = dict(color=color, linestyle=line, linewidth=1.8, label=name)
        if len(ys) and isinstance(ys[0], Estimate):
            middle, low, high = (
                scale * np.array([getattr(e, part) for e in ys])
                for part in ("value", "low", "high")
            )
            ax.errorbar(
                xs,
                middle,
                (middle - low, high - middle),
                marker="o",
                markersize=4,
                capsize=3,
                elinewidth=1.0,
                **look,
            )
        else:
            ax.plot(xs, scale * np.asarray(ys, dtype=float), **look)
    ax.set(xlabel=x, ylabel=y)
    if legend and len(series) > 1:
        ax.legend(frameon=False)


def heatmap(
    ax: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], label: str
) -> None:
    """A matrix of shares (rows x columns), with each number written in its cell where there is
    room.
    """
    ax.imshow(values, cmap="Blues", vmin=0, vmax=1.3, aspect="auto")
    ax.grid(False)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_xlabel(label)
    for i, j in np.ndindex(values.shape) if values.shape[1] <= WIDE else ():
        ax.text(
            j,
            i,
            f"{values[i, j]:.2f}",
            ha="center",
            va="center",
            color="white" if values[i, j] > 0.8 else "black",
        )


def smooth(values: Sequence[float], window: int = 10) -> list[float]:
    """Running mean over the last `window` values."""
    return [
        sum(values[max(0, i - window + 1) : i + 1]) / min(i + 1, window) for i in range(len(values))
    ]


def diff_html(before: str, after: str) -> str:
    """A word diff as HTML: what goes is struck out in red, what comes is bold in blue."""
    a, b, out = before.split(), after.split(), []
    for op, i, j, k, n in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        gone, come = html.escape(" ".join(a[i:j])), html.escape(" ".join(b[k:n]))
        if op == "equal":
            out.append(gone)
            continue
        if gone:
            out.append(f'<del style="color:{ACCENT}">{gone}</del>')
        if come:
            out.append(f'<b style="color:{DARK}">{come}</b>')
    return " ".join(out)


def show_diffs(
    rows: Sequence[tuple[str, str, str]], notes: Sequence[str] = (), about: str = ""
) -> object:
    """Question, and the diff from answer to correction, as a table for a notebook: rows of
    (question, answer, correction).

    A column of `notes`, one a row, follows under the heading `about`.
    """
    from IPython.display import HTML

    left, cells = 'style="text-align:left"', [[html.escape(q), diff_html(a, c)] for q, a, c in rows]
    heads = ["question", "answer → correction", *([about] if notes else [])]
    for row, note in zip(cells, notes):
        row.append(html.escape(note))
    body = "".join("<tr>" + "".join(f"<td {left}>{c}</td>" for c in row) + "</tr>" for row in cells)
    return HTML(f"<table><tr>{''.join(f'<th {left}>{h}</th>' for h in heads)}</tr>{body}</table>")

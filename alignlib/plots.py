"""The shared figures: readable in grey, one message each, an interval on everything measured."""

from __future__ import annotations

import difflib
import html
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from inspect import signature
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .judges import NOTHING
from .stats import Estimate
from .texts import is_spaceless, spaced_pieces

if TYPE_CHECKING:
    from IPython.display import HTML
    from transformers import PreTrainedTokenizerBase

WIDE = 12  # columns of a matrix beyond which there is no room for numbers
DARK, LIGHT, ACCENT, MUTED = "#1b3a5c", "#9db8d2", "#c8553d", "#8a8a8a"  # differ in grey too
RED, GREY = "#a63f28", "#6b6b6b"  # of text: dark enough to be read on white
LINES = ((DARK, "-"), (ACCENT, "--"), (MUTED, ":"), (LIGHT, "-."))  # colour and line style
MARKERS = ("o", "s", "^", "D", "v")
METHODS = {  # one colour and hatch for each method, in all figures; they differ in grey too
    "upstream": ("#c9c9c9", ""),
    "base model": ("#c9c9c9", ""),
    "SFT": ("#e6a23c", "\\\\"),
    "DPO": ("#b5527f", "//"),
    "Aligner": (DARK, ""),
    "question only": (LIGHT, ".."),  # the control of the Aligner
    "MEET": ("#c8553d", ""),
    "MEET, prompt": ("#e9b3a5", ""),
    "MEET, lora": ("#c8553d", ""),
    "asked for bad": ("#e9b3a5", ""),
    "asked for good": ("#c8553d", ""),
    "no control": ("#c9c9c9", ""),
    "HBAT": ("#1a7f64", ""),
    "best of n": ("#7a5c9e", ""),
    "PPO": ("#6b8e23", ""),
}
BARS = ((LIGHT, ""), (DARK, ""), (ACCENT, "//"), (MUTED, ".."))  # colour and hatch
BARS += tuple((color, "xx") for color, _ in BARS)  # a fifth group must not look like the first
ERROR_BARS = {"elinewidth": 1.2, "capsize": 3, "ecolor": "black"}
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
    """A figure in the course's look and its axes. The title is the message, in a sentence."""
    with plt.rc_context(LOOK):
        figure, axes = plt.subplots(
            1, columns, figsize=(width, height), squeeze=False, layout="constrained"
        )
        figure.suptitle(title, fontsize=11, fontweight="bold", ha="left", x=0.01)
    plt.close(figure)  # a cell that ends with it shows it; open, the notebook would show it twice
    return figure, list(axes[0])


def _write_no_judge(ax: Axes) -> None:
    ax.set_axis_off()
    middle = dict(transform=ax.transAxes, ha="center", va="center")
    ax.text(0.5, 0.5, NOTHING, fontsize=12, color=MUTED, **middle)


def bars(
    ax: Axes,
    groups: Mapping[str, Mapping[str, Estimate | None]],
    label: str,
    percent: bool = True,
    legend: bool = True,
) -> None:
    """Grouped bars with 95 % intervals: groups[bar's name][position on the x axis].

    Without any estimate it says that there is no judge.
    """
    known = {
        name: {place: e for place, e in group.items() if e is not None}
        for name, group in groups.items()
    }
    places = list(dict.fromkeys(place for group in known.values() for place in group))
    if not places:
        return _write_no_judge(ax)
    width = 0.8 / max(2, len(known))  # of one bar
    for i, (name, group) in enumerate(known.items()):
        offset = (i - (len(known) - 1) / 2) * width
        at = [places.index(place) + offset for place in group]
        color, hatch = METHODS.get(name, BARS[i % len(BARS)])
        look = dict(label=name, color=color, hatch=hatch, edgecolor="white")
        middle, errors = _with_errors(list(group.values()), 100 if percent else 1)
        ax.bar(at, middle, width * 0.92, yerr=errors, error_kw=ERROR_BARS, **look)
    ax.set_xticks(range(len(places)), places)
    ax.set_ylabel(label)
    if legend and len(known) > 1:
        below = -0.22 if any("\n" in place for place in places) else -0.12
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, below), frameon=False, fontsize=9)


def _with_errors(estimates: Sequence[Estimate], scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The values (n,), and how far their intervals reach down and up (2, n), for matplotlib."""
    values, low, high = (
        scale * np.array([getattr(e, part) for e in estimates]) for part in ("value", "low", "high")
    )
    return values, np.array([values - low, high - values])


def curves(
    ax: Axes,
    series: Mapping[str, tuple[Sequence[float], Sequence[float | Estimate]]],
    x: str,
    y: str,
    scale: float = 1.0,
    legend: bool = True,
) -> None:
    """Lines: series[name] = (xs, ys), with ys times `scale`; estimates get their intervals.

    Without any series it says that there is no judge. After four lines the colours come again with
    other markers. Raises ValueError for more lines than there are looks.
    """
    if not series:
        return _write_no_judge(ax)
    if len(series) > len(LINES) * len(MARKERS):
        raise ValueError(f"{len(series)} lines are too many for one figure; draw fewer")
    for i, (name, (xs, ys)) in enumerate(series.items()):
        color, line = LINES[i % len(LINES)]
        color = METHODS[name][0] if name in METHODS else color
        marker = MARKERS[i // len(LINES)]
        look = dict(color=color, linestyle=line, linewidth=1.8, markersize=4, label=name)
        if len(ys) and isinstance(ys[0], Estimate):
            middle, errors = _with_errors(ys, scale)
            ax.errorbar(xs, middle, errors, marker=marker, capsize=3, elinewidth=1.0, **look)
        else:
            plain = None if i < len(LINES) else marker  # four lines need no markers
            ax.plot(xs, scale * np.asarray(ys, dtype=float), marker=plain, **look)
    ax.set(xlabel=x, ylabel=y)
    if legend and len(series) > 1:
        ax.legend(frameon=False)


def heatmap(
    ax: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], label: str
) -> None:
    """A matrix of fractions (rows, columns); up to WIDE columns each cell shows its number."""
    ax.imshow(values, cmap="Blues", vmin=0, vmax=1.3, aspect="auto")
    ax.grid(False)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_xlabel(label)
    if values.shape[1] > WIDE:
        return
    for i, j in np.ndindex(values.shape):
        color = "white" if values[i, j] > 0.8 else "black"
        ax.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", color=color)


def smooth(values: Sequence[float], window: int = 10) -> list[float]:
    """Running mean over the last `window` values (fewer at the start)."""
    parts = [values[max(0, end - window) : end] for end in range(1, len(values) + 1)]
    return [sum(part) / len(part) for part in parts]


def diff_html(before: str, after: str) -> str:
    """A word diff as HTML: removed words are struck out in red, added words bold in blue.

    Line breaks and indents are kept, and count as changes too. In scripts without spaces it is a
    diff of characters.
    """
    old, new, parts = spaced_pieces(before), spaced_pieces(after), []
    matcher = difflib.SequenceMatcher(None, *map(_without_space, (old, new)), autojunk=False)
    for kind, old_start, old_end, new_start, new_end in matcher.get_opcodes():
        removed, added = old[old_start:old_end], new[new_start:new_end]
        if kind == "equal":  # but for a space behind the last word of one of the two
            longest = (max(pair, key=len) for pair in zip(removed, added, strict=True))
            parts.append(html.escape("".join(longest)))
        else:
            old_text, new_text = "".join(removed), "".join(added)
            if old_text and new_text and not (old_text[-1].isspace() or is_spaceless(old_text[-1])):
                old_text += " "  # a text's last word has none behind it
            parts += [_marked(old_text, "del", RED), _marked(new_text, "b", DARK)]
    return "".join(parts)


def _marked(text: str, tag: str, color: str) -> str:
    return f'<{tag} style="color:{color}">{html.escape(text)}</{tag}>' if text else ""


def _without_space(tokens: Sequence[str]) -> list[str]:
    """Words without a single space behind them, which the last word of a text has not."""
    return [t[:-1] if t[-1:] == " " and t[-2:].strip() else t for t in tokens]


def show_diffs(
    rows: Sequence[tuple[str, str, str]], notes: Sequence[str] = (), about: str = ""
) -> HTML:
    """A table for a notebook: each row's question, and the diff from answer to correction.

    `rows` are (question, answer, correction). `notes`, one per row, make a third column with the
    heading `about`.
    """
    from IPython.display import HTML

    heads = ["question", "answer → correction"] + ([about] if notes else [])
    table = _table_row("th", heads)
    for i, (question, answer, correction) in enumerate(rows):
        note = [html.escape(notes[i])] if i < len(notes) else []
        cells = [html.escape(question), diff_html(answer, correction), *note]
        table += _table_row("td", cells, "text-align:left; white-space:pre-wrap")
    return HTML(f"<table>{table}</table>")


def show_tokens(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Sequence[int]]) -> HTML:
    """A training row as the model sees it, token by token; those with loss are marked.

    `row` is made by `tokens.example`.
    """
    from IPython.display import HTML

    from .tokens import IGNORED

    parts = []
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        text = html.escape(tokenizer.decode([token])).replace("\n", "⏎<br>").replace(" ", "&nbsp;")
        marked = f"background:{LIGHT};color:black" if label != IGNORED else f"color:{GREY}"
        parts.append(f'<span style="{marked};border-right:1px solid white">{text}</span>')
    note = f'<span style="background:{LIGHT};color:black">marked</span>: tokens with loss'
    return HTML(f'<div style="font-family:monospace">{"<wbr>".join(parts)}</div><p>{note}</p>')


def show_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> HTML:
    """A table for a notebook: whatever the cells hold, as text."""
    from IPython.display import HTML

    cells = [[html.escape(str(cell)) for cell in row] for row in rows]
    table = _table_row("th", heads) + "".join(_table_row("td", row) for row in cells)
    return HTML(f"<table>{table}</table>")


def _table_row(tag: str, cells: Sequence[str], style: str = "text-align:left") -> str:
    content = "".join(f'<{tag} style="{style}">{cell}</{tag}>' for cell in cells)
    return f"<tr>{content}</tr>"


def with_slider(function: Callable[[float], None], value: float) -> None:
    """Call a function that prints; in a notebook with ipywidgets a slider from 0 to 1 calls it."""
    if find_spec("ipywidgets"):
        from ipywidgets import FloatSlider, interact

        slider = FloatSlider(value, min=0, max=1, step=0.05, continuous_update=False)
        interact(function, **{next(iter(signature(function).parameters)): slider})
    else:
        function(value)

"""Before against after: the numbers a lesson prints, and the `metrics.json` it leaves."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import artefacts, stats
from .data import QAC, swapped
from .host import peak_memory_mb
from .judges import NOTHING, Judge
from .stats import Estimate
from .texts import pieces

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from .aligner import Aligner
    from .cost import Cost


@dataclass
class Comparison:
    """Answers and their corrections on one test set, scored on every axis of the judge.

    What the judge cannot score is None, or empty.
    """

    judge: Judge
    rows: Sequence[QAC]
    after: Sequence[str]  # the corrections

    def __post_init__(self) -> None:
        questions = [row.question for row in self.rows]
        self.answers = [row.answer for row in self.rows]
        self.scores_before = self.judge.scores(questions, self.answers)
        self.scores_after = self.judge.scores(questions, self.after)

    def net_win(self, axis: str) -> Estimate | None:
        """Net win of the corrections over the answers on an axis, in points."""
        if axis not in self.scores_before:
            return None
        return stats.net_win(self.scores_before[axis], self.scores_after[axis])

    def fault_free(self, when: str) -> Estimate | None:
        """Fraction of texts without any fault, `before` or `after` correction."""
        scores = {"before": self.scores_before, "after": self.scores_after}[when]
        return stats.rate(scores["fault_free"] == 1) if "fault_free" in scores else None

    def good_kept(self) -> Estimate | None:
        """Fraction of the answers without faults that were returned word for word."""
        if "fault_free" not in self.scores_before:
            return None
        good = self.scores_before["fault_free"] == 1
        return stats.rate(self.unchanged()[good]) if good.any() else None

    def made_worse(self, axis: str = "overall") -> Estimate | None:
        """Fraction of corrections that score lower than their answer."""
        if axis not in self.scores_before:
            return None
        return stats.rate(stats.wins(self.scores_before[axis], self.scores_after[axis]) < 0)

    def fixed_rate(self) -> Estimate | None:
        """Fraction of the faulty answers whose correction is without faults."""
        return self._changed(before=False)

    def spoilt(self) -> Estimate | None:
        """Fraction of the answers without faults whose correction has one."""
        return self._changed(before=True)

    def spoilt_rows(self) -> list[int]:
        """Those answers, by number."""
        lost = (self.scores_before["fault_free"] == 1) & (self.scores_after["fault_free"] < 1)
        return np.flatnonzero(lost).tolist()

    def _changed(self, before: bool) -> Estimate | None:
        """Of the answers that were fault-free or not `before`, the fraction that is otherwise."""
        if "fault_free" not in self.scores_before:
            return None
        picked = (self.scores_before["fault_free"] == 1) == before
        after = self.scores_after["fault_free"][picked] == 1
        return stats.rate(after != before) if picked.any() else None

    def ceiling(self, axis: str) -> float | None:
        """The net win of a perfect corrector, in points; None if the judge has no top score."""
        if "fault_free" not in self.scores_before:
            return None
        return stats.ceiling(self.scores_before[axis])

    def share_of_ceiling(self, axis: str) -> Estimate | None:
        """The net win as a fraction of a perfect corrector's; None if nothing can be won."""
        if not self.ceiling(axis):
            return None
        return stats.share_of_ceiling(self.scores_before[axis], self.scores_after[axis])

    def verdicts(self) -> list[str]:
        """For each correction the axes on which it is not perfect, with its scores."""
        if "fault_free" not in self.scores_after:
            return []
        axes = [axis for axis in self.scores_after if axis not in ("overall", "fault_free")]
        found = []
        for i in range(len(self.after)):
            scores = {axis: self.scores_after[axis][i] for axis in axes}
            low = [f"{axis} {score:.2g}" for axis, score in scores.items() if score < 1]
            found.append(", ".join(low) or "nothing")
        return found

    def unchanged(self) -> np.ndarray:
        """Whether each answer was returned word for word, (n,)."""
        pairs = zip(self.answers, self.after, strict=True)
        return np.array([answer.split() == correction.split() for answer, correction in pairs])

    def edit_ratio(self) -> Estimate:
        """Words inserted, deleted or replaced per word of the answer; mean over prompts."""
        return stats.bootstrap_mean(edit_ratios(self.answers, self.after), "ratio")


def _runs() -> Path:
    """`runs` of the clone that a notebook runs in, wherever in it; elsewhere of its own folder."""
    clone = Path(__file__).resolve().parents[1]
    inside = (clone / "notebooks").is_dir() and Path.cwd().is_relative_to(clone)
    return Path(os.path.relpath(clone if inside else Path.cwd())) / "runs"


def describe(estimate: Estimate | None) -> Estimate | str:
    """The estimate, or the words for its absence."""
    return NOTHING if estimate is None else estimate


def edit_ratios(answers: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """Word edits from each answer to its text, per word of the answer, (n,)."""
    pairs = zip(answers, texts, strict=True)
    return np.array([edit_distance(a, text) / max(1, len(pieces(a))) for a, text in pairs])


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance in words; in scripts without spaces in characters."""
    before, after = pieces(a), pieces(b)
    row = list(range(len(after) + 1))  # distances from the words of `a` so far to each start of `b`
    for i, old in enumerate(before, start=1):
        diagonal, row[0] = row[0], i
        for j, new in enumerate(after, start=1):
            replaced = diagonal + (old != new)
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, replaced)
    return row[-1]


def value_of_answer(aligner: Aligner, rows: Sequence[QAC]) -> dict[str, Estimate]:
    """How much the answer helps to predict its correction, in nats per token of the correction.

    `answer`: NLL(C | Q) - NLL(C | Q, A), with an empty answer for "no answer". `swapped`: the same
    with another row's answer. `own`: how much more the right answer saves than that one, which is
    as long on average. An Aligner that reads answers has `answer` above 0 and `swapped` not.
    """
    rows = aligner.fitting(rows)
    own = aligner.nll(rows).numpy()  # (n,)
    none = aligner.nll(rows, [""] * len(rows)).numpy()
    other = aligner.nll(rows, swapped(rows)).numpy()
    values = {
        "held_out_nll": own,
        "answer": none - own,
        "swapped": none - other,
        "own": other - own,
    }
    return {name: stats.bootstrap_mean(nats, "nats") for name, nats in values.items()}


@dataclass
class Metrics:
    """What a lesson measured; `wall_s` is the time from making this object to writing it."""

    lesson: str
    profile: str
    seed: int
    out: str | Path | None = None
    values: dict[str, Estimate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._started = time.monotonic()
        self.folder = Path(self.out).expanduser() if self.out else _runs() / self.lesson
        self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, estimate: Estimate | None) -> Estimate | str:
        """Keep a number under its name and return it; None, without a judge, is not kept."""
        if estimate is not None:
            live = estimate.source == "live" and not estimate.seeds
            self.values[name] = estimate.seeded(self.seed) if live else estimate
        return describe(estimate)

    def add_comparison(self, name: str, comparison: Comparison) -> None:
        """Keep what a comparison measured, each number under `name/...`."""
        self.add(f"{name}/fault_free_before", comparison.fault_free("before"))
        self.add(f"{name}/fault_free_after", comparison.fault_free("after"))
        self.add(f"{name}/good_kept", comparison.good_kept())
        self.add(f"{name}/fixed", comparison.fixed_rate())
        self.add(f"{name}/spoilt", comparison.spoilt())
        for axis in comparison.scores_before:
            self.add(f"{name}/net_win_{axis}", comparison.net_win(axis))

    def note(self, name: str, value: float, unit: str) -> None:
        """Keep a number that has no interval, such as a time."""
        self.add(name, Estimate(value, value, value, 1, unit))

    def add_cost(self, cost: Cost, minutes: float, device: torch.device) -> None:
        """Print and note what a training was predicted to take, and what it took."""
        from .cost import peak_gb

        peak = peak_gb(device)
        print(f"training: predicted {cost.minutes:.1f} min, {cost.gb:.1f} GB")
        print(f"training: measured  {minutes:.1f} min; peak of the whole notebook {peak:.1f} GB")
        found = {"predicted_minutes": cost.minutes, "training_minutes": minutes}
        for name, value in found.items():
            self.note(name, value, "minutes")
        for name, value in {"predicted_gb": cost.gb, "peak_gb": peak}.items():
            self.note(name, value, "GB")

    def minutes(self) -> float:
        """How long ago this object was made."""
        return (time.monotonic() - self._started) / 60

    def save_figure(self, figure: Figure, name: str) -> None:
        """Save a figure as a PNG into the lesson's folder."""
        figure.savefig(self.folder / f"{name}.png", dpi=150, bbox_inches="tight")

    def write(self) -> Path:
        """Write `metrics.json` into the lesson's folder, completely or not at all."""
        from .tinytown.words import WORLD_VERSION

        report = {
            "lesson": self.lesson,
            "profile": self.profile,
            "seed": self.seed,
            "world": WORLD_VERSION,
            "wall_s": round(time.monotonic() - self._started, 1),
            "cold": artefacts.built > 0 or not artefacts.loaded,
            "peak_mem_mb": peak_memory_mb(),
            "metrics": {name: estimate.as_dict() for name, estimate in self.values.items()},
        }
        part = self.folder / "metrics.json.part"
        part.write_text(json.dumps(report, indent=1), encoding="utf-8")
        os.replace(part, self.folder / "metrics.json")
        return self.folder / "metrics.json"

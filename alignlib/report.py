"""Before against after: the numbers a lesson prints, and the `metrics.json` it leaves."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import artefacts, stats
from .data import QAC
from .judges import NOTHING, Judge
from .stats import Estimate


@dataclass
class Comparison:
    """Answers and their corrections on one test set, judged along every axis that the judge has."""

    judge: Judge
    rows: Sequence[QAC]
    after: Sequence[str]

    def __post_init__(self) -> None:
        questions = [r.question for r in self.rows]
        self.answers = [r.answer for r in self.rows]
        self.scores_before = self.judge.scores(questions, self.answers)
        self.scores_after = self.judge.scores(questions, self.after)

    def net_win(self, axis: str) -> Estimate | None:
        """Net win of the corrections over the answers on an axis, in points; None if the judge
        lacks the axis.
        """
        return (
            stats.net_win(self.scores_before[axis], self.scores_after[axis])
            if axis in self.scores_before
            else None
        )

    def fault_free(self, when: str) -> Estimate | None:
        """Share without any fault, `before` or `after` correction; None without a judge who can
        tell.
        """
        scores = {"before": self.scores_before, "after": self.scores_after}[when]
        return stats.rate(scores["fault_free"] == 1) if "fault_free" in scores else None

    def good_kept(self) -> Estimate | None:
        """Of the answers that had no fault, the share returned word for word."""
        if "fault_free" not in self.scores_before:
            return None
        good = self.scores_before["fault_free"] == 1
        return stats.rate(self.unchanged()[good]) if good.any() else None

    def made_worse(self, axis: str = "overall") -> Estimate | None:
        """Share of corrections with a lower mark than the answer had; None if the judge lacks
        the axis.
        """
        if axis not in self.scores_before:
            return None
        return stats.rate(stats.wins(self.scores_before[axis], self.scores_after[axis]) < 0)

    def ceiling(self, axis: str) -> float | None:
        """The net win a perfect corrector would reach here, in points; None for a judge whose
        marks have no top.
        """
        return (
            stats.ceiling(self.scores_before[axis]) if "fault_free" in self.scores_before else None
        )

    def share_of_ceiling(self, axis: str) -> Estimate | None:
        """The net win as a share of a perfect corrector's on the same prompts; None where there
        is nothing to win, or no top mark.
        """
        return (
            stats.share_of_ceiling(self.scores_before[axis], self.scores_after[axis])
            if self.ceiling(axis)
            else None
        )

    def gain_over(self, other: Comparison) -> Estimate | None:
        """Share of fault-free corrections, less the other's on the same prompts, paired."""
        if "fault_free" not in self.scores_after:
            return None
        return stats.paired(self.scores_after["fault_free"], other.scores_after["fault_free"])

    def describe_gain_over(self, other: Comparison) -> str:
        """The gain in words, with the smallest that these prompts could have shown."""
        if (gain := self.gain_over(other)) is None:
            return NOTHING
        least = stats.smallest_difference(
            self.scores_after["fault_free"], other.scores_after["fault_free"]
        )
        return (
            f"{gain}; a true difference of {100 * least:.1f} points would show 4 times in 5"
            if least
            else f"{gain}; the two never differ"
        )

    def verdicts(self) -> list[str]:
        """What the judge still finds at fault in each correction; nothing without a judge who
        can tell.
        """
        if "fault_free" not in self.scores_after:
            return []
        axes = [a for a in self.scores_after if a not in ("overall", "fault_free")]
        low = [
            [f"{a} {self.scores_after[a][i]:.2g}" for a in axes if self.scores_after[a][i] < 1]
            for i in range(len(self.after))
        ]
        return [", ".join(found) or "nothing" for found in low]

    def unchanged(self) -> np.ndarray:
        """Whether each answer came back word for word, shape (n,)."""
        return np.array(
            [a.split() == c.split() for a, c in zip(self.answers, self.after, strict=True)]
        )

    def edit_ratio(self) -> Estimate:
        """Words inserted, deleted or replaced, over the answer's words."""
        return stats.bootstrap_mean(edit_ratios(self.answers, self.after), "ratio")

    def fixed(self) -> dict[str, Estimate]:
        """By kind of fault: of the answers that had it, the share that is fault-free after
        correction.
        """
        if "fault_free" not in self.scores_after:
            return {}
        sound = self.scores_after["fault_free"] == 1
        kinds = sorted({f for r in self.rows for f in r.faults})
        return {k: stats.rate(sound[[k in r.faults for r in self.rows]]) for k in kinds}

    def table(self) -> str:
        """One line an axis, and what can be said without a judge."""
        lines = [
            f"{'net win, ' + axis:24}{self.net_win(axis)}"
            for axis in self.scores_before
            if axis != "fault_free"
        ]
        shares = [
            ("fault-free before", self.fault_free("before")),
            ("fault-free after", self.fault_free("after")),
            ("good answers kept", self.good_kept()),
            ("made worse, overall", self.made_worse()),
        ]
        lines += [f"{name:24}{describe(estimate)}" for name, estimate in shares]
        lines += [
            f"{'returned unchanged':24}{stats.rate(self.unchanged())}",
            f"{'edit ratio':24}{self.edit_ratio()}",
        ]
        return "\n".join(lines)


def describe(estimate: Estimate | None) -> Estimate | str:
    """The estimate, or the words for its absence."""
    return NOTHING if estimate is None else estimate


def edit_ratios(answers: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """Words inserted, deleted or replaced to come from each answer to its text, over the
    answer's words, (n,).
    """
    return np.array(
        [edit_distance(a, t) / max(1, len(a.split())) for a, t in zip(answers, texts, strict=True)]
    )


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance in words."""
    xs, ys = a.split(), b.split()
    row = list(range(len(ys) + 1))
    for i, x in enumerate(xs, start=1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(ys, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def value_of_answer(aligner, rows: Sequence[QAC]) -> dict[str, Estimate]:
    """How much the answer helps to foretell its correction, in nats per token of the correction.

    `answer`: NLL(C | Q) - NLL(C | Q, A), with an empty answer for "no answer"; `swapped`: the same
    with the answer of another row. An Aligner that reads answers has the first above 0 and the
    second not. `own`: by how much the right answer saves more than the other row's, which is as
    long on average.
    """
    from .tasks import swapped

    rows = aligner.fitting(rows)
    with_answer, without = aligner.nll(rows), aligner.nll(rows, [""] * len(rows))
    with_other = aligner.nll(rows, swapped(rows))
    return {
        "held_out_nll": stats.bootstrap_mean(with_answer.numpy(), "nats"),
        "answer": stats.bootstrap_mean((without - with_answer).numpy(), "nats"),
        "swapped": stats.bootstrap_mean((without - with_other).numpy(), "nats"),
        "own": stats.bootstrap_mean((with_other - with_answer).numpy(), "nats"),
    }


@dataclass
class Metrics:
    """What a lesson measured. Made at its start, behind the imports, and written at its end:
    `wall_s` is between the two.
    """

    lesson: str
    profile: str
    seed: int
    out: str | Path | None = None
    values: dict[str, Estimate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._started = time.monotonic()
        self.folder = Path(self.out) if self.out else Path("runs") / self.lesson
        self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, estimate: Estimate | None) -> Estimate | str:
        """Keep a number under its name. What no judge could tell (None) is not kept, and the
        reply says so.
        """
        if estimate is not None:
            self.values[name] = (
                estimate.seeded(self.seed)
                if estimate.source == "live" and not estimate.seeds
                else estimate
            )
        return describe(estimate)

    def save_figure(self, figure, name: str) -> None:
        figure.savefig(self.folder / f"{name}.png", dpi=150, bbox_inches="tight")

    def write(self) -> Path:
        """`metrics.json` in the lesson's folder, whole or not at all."""
        from .tinytown.words import WORLD_VERSION

        report = {
            "lesson": self.lesson,
            "profile": self.profile,
            "seed": self.seed,
            "world": WORLD_VERSION,
            "wall_s": round(time.monotonic() - self._started, 1),
            "cold": artefacts.built > 0 or not artefacts.loaded,
            "peak_mem_mb": peak_memory_mb(),
            "metrics": {k: v.as_dict() for k, v in self.values.items()},
        }
        part = self.folder / "metrics.json.part"
        part.write_text(json.dumps(report, indent=1), encoding="utf-8")
        os.replace(part, self.folder / "metrics.json")
        return self.folder / "metrics.json"


def peak_memory_mb() -> int:
    """The most memory this process has held, in MB (0 where the system does not tell)."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024**2 if sys.platform == "darwin" else 1024))

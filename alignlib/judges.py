"""Judges: what scores answers. All have one interface.

`axes` names what a judge can score, `scores` scores answers on each. `NoJudge` scores nothing: its
axes are empty, and everything drawn or counted from it says so. Learned judges are elsewhere:
reward models in `reward_models.py`, models that compare two answers in `opinions.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

Scores = dict[str, np.ndarray]  # axis -> one score per answer, shape (n,), higher is better
NOTHING = "no judge for these data"


class Judge(Protocol):
    """What every judge has."""

    axes: tuple[str, ...]

    def scores(self, questions: Sequence[str], answers: Sequence[str]) -> Scores:
        """The score of each answer on every axis."""


class TownJudge:
    """Tinytown's exact judge: three axes, their mean, and whether all three are perfect."""

    axes = ("helpful", "harmless", "honest", "overall", "fault_free")

    def scores(self, questions: Sequence[str], answers: Sequence[str]) -> Scores:
        from .tinytown.judge import score_answer

        scored = [score_answer(q, a) for q, a in zip(questions, answers, strict=True)]
        return {axis: np.array([float(getattr(s, axis)) for s in scored]) for axis in self.axes}


class NoJudge:
    """For your own data: without a judge nothing is scored."""

    axes = ()

    def scores(self, questions: Sequence[str], answers: Sequence[str]) -> Scores:
        return {}

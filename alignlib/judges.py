"""Judges: what a task scores answers with. All have one shape, so that no lesson asks which it has.

`axes` names what a judge can tell; `marks` scores answers along each. `NoJudge` can tell
nothing: its axes are empty, and everything drawn or counted from it says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

Scores = dict[str, np.ndarray]  # axis -> one mark an answer, shape (n,), higher is better
NOTHING = "no judge for these data"


class Judge(Protocol):
    axes: tuple[str, ...]

    def scores(self, questions: Sequence[str], answers: Sequence[str]) -> Scores: ...


class TownJudge:
    """Tinytown's exact judge: three axes, their mean, and whether all three are perfect."""

    axes = ("helpful", "harmless", "honest", "overall", "fault_free")

    def scores(self, questions: Sequence[str], answers: Sequence[str]) -> Scores:
        from .tinytown.judge import score_answer

        scored = [score_answer(q, a) for q, a in zip(questions, answers, strict=True)]
        return {axis: np.array([float(getattr(s, axis)) for s in scored]) for axis in self.axes}


class NoJudge:
    """For your own data: nothing that needs a truth can be scored."""

    axes = ()

    def scores(self, questions: Sequence[str], answers: Sequence[str]) -> Scores:
        return {}


class RewardJudge:
    """A reward model as judge, `overall` only: a learned taste, not a truth (see the lesson on
    Goodhart's law).
    """

    axes = ("overall",)

    def __init__(self, name: str, batch_size: int = 16) -> None:
        self.name, self.batch_size, self._loaded = name, batch_size, None

    def scores(self, questions: Sequence[str], answers: Sequence[str]) -> Scores:
        import torch

        model, tokenizer = self._load()
        scored: list[float] = []
        for i in range(0, len(questions), self.batch_size):
            pair = list(questions[i : i + self.batch_size]), list(answers[i : i + self.batch_size])
            inputs = tokenizer(*pair, return_tensors="pt", padding=True, truncation=True).to(
                model.device
            )
            with torch.inference_mode():
                scored += model(**inputs).logits[:, 0].float().tolist()
        return {"overall": np.array(scored)}

    def _load(self):
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from .models import pick_device

        if self._loaded is None:
            model = AutoModelForSequenceClassification.from_pretrained(
                self.name, use_safetensors=True
            )
            self._loaded = model.to(pick_device()).eval(), AutoTokenizer.from_pretrained(self.name)
        return self._loaded

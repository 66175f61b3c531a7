"""Judges: what scores answers. All have one interface.

`axes` names what a judge can score, `scores` scores answers on each. `NoJudge` scores nothing: its
axes are empty, and everything drawn or counted from it says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

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


class RewardJudge:
    """A reward model as judge, `overall` only: a learned preference, not the truth."""

    axes = ("overall",)

    def __init__(self, name: str, batch_size: int = 16) -> None:
        self.name, self.batch_size = name, batch_size

    def scores(self, questions: Sequence[str], answers: Sequence[str]) -> Scores:
        import torch

        model, tokenizer = self._loaded
        scored: list[float] = []
        for start in range(0, len(questions), self.batch_size):
            batch = slice(start, start + self.batch_size)
            texts = list(questions[batch]), list(answers[batch])
            inputs = tokenizer(*texts, return_tensors="pt", padding=True, truncation=True)
            with torch.inference_mode():
                logits = model(**inputs.to(model.device)).logits  # (batch, 1)
            scored += logits[:, 0].float().tolist()
        return {"overall": np.array(scored)}

    @cached_property
    def _loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The model and its tokenizer, loaded when the first answer is scored."""
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from .models import pick_device

        model = AutoModelForSequenceClassification.from_pretrained(
            self.name, use_safetensors=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(self.name, trust_remote_code=False)
        return model.to(pick_device()).eval(), tokenizer

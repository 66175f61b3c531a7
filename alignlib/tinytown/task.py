"""What the lessons are handed: Tinytown's base model, rows, judge and the settings of trainings."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..data import QAC, Preference
from ..judges import TownJudge
from ..profiles import PROFILES, Profile, scaled
from ..prompts import Template
from ..settings import SFTSettings
from . import sets
from .oracle import ANSWER_CUE

MEET_RATES = 5e-2, 1e-3  # of soft prompts of 20 tokens, of the model; chosen on validation


@dataclass(frozen=True)
class Town:
    """Rows by purpose, and what trainings on them are set to."""

    base: str  # folder of the base model
    template: Template  # of the Aligner
    corrections: list[QAC]
    identity: list[QAC]
    tests: dict[str, list[QAC]]  # by the words in them: see `sets.test_sets`
    judge: TownJudge
    seed: int
    profile: Profile

    answer_cue = ANSWER_CUE  # ends a prompt, so that an answer follows

    @property
    def warmup(self) -> SFTSettings:
        """The Aligner's stage on identity rows."""
        return replace(self.profile.warmup, seed=self.seed)

    @property
    def training(self) -> SFTSettings:
        """The Aligner's stage on corrections."""
        return replace(self.profile.training, seed=self.seed)

    def meet(self, both: bool = True) -> dict[str, SFTSettings]:
        """The settings of MEET's two steps, or of the first alone."""
        controls, model = MEET_RATES
        first = replace(self.profile.controls_first, seed=self.seed, learning_rate=controls)
        then = replace(self.profile.model_then, seed=self.seed, learning_rate=model)
        return {"first": first, "then": then if both else replace(then, steps=0)}

    def pairs(self, split: str) -> list[Preference]:
        """A preferred answer and one with faults, for each of many prompts."""
        n = self.profile.corrections if split == "train" else self.profile.tests
        return [replace(p, prompt=p.prompt + ANSWER_CUE) for p in sets.preferences(n, split)]


def load_town(seed: int = 0, scale: float = 1.0) -> Town:
    """Tinytown for a lesson. A `scale` below 1 means fewer rows and steps, for a quick look."""
    tiny = scaled(PROFILES["tiny"], scale)
    return Town(
        tiny.base,
        tiny.template,
        sets.corrections(tiny.corrections, seed=seed),
        sets.identity(tiny.identity, seed=1000 + seed),
        sets.test_sets(tiny.tests),
        TownJudge(),
        seed,
        tiny,
    )

"""What the lessons are handed: Tinytown's base model, rows, judge and the settings of trainings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ..artefacts import artefact
from ..data import QAC, Instruction, Preference
from ..judges import TownJudge
from ..model_names import fingerprint
from ..models import load_model, save_model
from ..profiles import TINY, Profile, data_folder, scaled, scaled_rows, scaled_stage
from ..prompts import Template
from ..settings import SFTSettings, with_steps
from ..tokens import example
from ..train import sft
from . import oracle, sets
from .oracle import ANSWER_CUE

BOTH_STYLES = SFTSettings(steps=250, learning_rate=1e-3)
INSTRUCTIONS = 2000
TESTS = 200  # of each objective, in lesson 06
ROUNDS = 5


@dataclass(frozen=True)
class TwoObjectives:
    """Instructions to follow and preferences to meet, for one model (lesson 06)."""

    start: str  # folder of the model that has seen both styles of answers
    instructions: list[Instruction]
    pairs: list[Preference]
    test_instructions: list[Instruction]
    test_pairs: list[Preference]
    teach: SFTSettings  # on instructions, all rounds together
    prefer: SFTSettings  # on pairs, likewise; each method has its own learning rate
    rounds: int

    followed = staticmethod(oracle.followed)
    right_in_any_style = staticmethod(oracle.right_in_any_style)
    preference_met = staticmethod(oracle.preference_met)

    @property
    def mixed_first(self) -> SFTSettings:
        """The steps on instructions alone before the mixed loss: the rest of HBAT's."""
        return with_steps(self.teach, max(1, self.teach.steps - self.prefer.steps))


@dataclass(frozen=True)
class Town:
    """Rows by purpose, and what trainings on them are set to."""

    corrections: list[QAC]
    identity: list[QAC]
    tests: dict[str, list[QAC]]  # by the words in them: see `sets.test_sets`
    seed: int
    scale: float
    profile: Profile

    judge = TownJudge()
    answer_cue = ANSWER_CUE  # ends a prompt, so that an answer follows

    @property
    def base(self) -> str:
        """The folder of the base model."""
        return self.profile.base

    @property
    def template(self) -> Template:
        """The Aligner's template."""
        return self.profile.template

    @property
    def aligner(self) -> Path:
        """The folder of an Aligner made of the base, for lesson 04."""
        return data_folder() / "aligner"

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
        first = replace(self.profile.controls_first, seed=self.seed)
        then = replace(self.profile.model_then, seed=self.seed)
        return {"first": first, "then": then if both else replace(then, steps=0)}

    def pairs(self, split: str) -> list[Preference]:
        """A preferred answer and one with faults, for each of many prompts."""
        n = self.profile.corrections if split == "train" else self.profile.tests
        return [replace(p, prompt=p.prompt + ANSWER_CUE) for p in sets.preferences(n, split)]

    def two_objectives(self) -> TwoObjectives:
        """The start model comes from the cache if it is there."""
        teach = replace(self.profile.teach, seed=self.seed)
        prefer = replace(self.profile.prefer, seed=self.seed)
        n = self.profile.corrections
        return TwoObjectives(
            str(both_styles_model(self.base, self.seed, self.scale)),
            oracle.instructions_to_follow(
                "train", self.seed, scaled_rows(INSTRUCTIONS, self.scale)
            ),
            oracle.pairs_to_prefer("train", self.seed, n),
            oracle.instructions_to_follow("test", n=min(TESTS, self.profile.tests)),
            oracle.pairs_to_prefer("test", n=min(TESTS, self.profile.tests)),
            teach,
            prefer,
            min(ROUNDS, teach.steps, prefer.steps),
        )


def both_styles_model(base: str | Path, seed: int, scale: float = 1.0) -> Path:
    """The base, trained on polite instructions with warm and with plain answers; cached."""
    rows = oracle.both_styles(seed)
    settings = replace(scaled_stage(BOTH_STYLES, scale), seed=seed)

    def build(folder: Path) -> None:
        model, tokenizer = load_model(base)
        examples = [example(tokenizer, row.prompt, row.completion) for row in rows]
        sft(model, tokenizer, examples, settings, progress="both styles")
        save_model(folder, model, tokenizer)

    return artefact("both_styles", [fingerprint(base), rows, settings], build)


def load_town(seed: int = 0, scale: float = 1.0) -> Town:
    """Tinytown for a lesson. A `scale` below 1 means fewer rows and steps, for a quick look."""
    tiny = scaled(TINY, scale)
    return Town(
        sets.corrections(tiny.corrections, seed=seed),
        sets.identity(tiny.identity, seed=1000 + seed),
        sets.test_sets(tiny.tests),
        seed,
        scale,
        tiny,
    )

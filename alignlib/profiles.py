"""What the lessons train with, where the data are, and everything at reduced size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from .prompts import TOWN, Template
from .settings import SFTSettings, with_steps

STAGES = ("warmup", "training", "controls_first", "model_then", "teach", "prefer")
LEAST_ROWS, LEAST_STEPS = 24, 2  # at reduced size


def data_folder() -> Path:
    """`data/`: beside the package in a checkout, inside it once installed."""
    inside = Path(__file__).parent / "_data"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "data"


@dataclass(frozen=True)
class Profile:
    """The base model, numbers of rows, and settings of all trainings in Tinytown."""

    base: str  # folder
    template: Template
    corrections: int  # annotated rows to train on
    identity: int  # rows for the warm-up, which need no annotation
    tests: int  # prompts in each test set
    # the Aligner
    warmup: SFTSettings
    training: SFTSettings
    # MEET's two steps with soft prompts of 20 tokens, whose learning rate in both is the first's
    controls_first: SFTSettings
    model_then: SFTSettings
    # HBAT's two kinds of stages, each the sum of all rounds: SFT on instructions, and DPO
    teach: SFTSettings
    prefer: SFTSettings


TINY = Profile(
    str(data_folder() / "base"),
    TOWN,
    corrections=1500,
    identity=2000,
    tests=400,
    warmup=SFTSettings(steps=50, batch_size=32, learning_rate=2e-3),
    training=SFTSettings(steps=200, batch_size=32, learning_rate=2e-3),
    controls_first=SFTSettings(steps=75, learning_rate=5e-2),
    model_then=SFTSettings(steps=175, learning_rate=1e-3),
    teach=SFTSettings(steps=150, learning_rate=1.5e-4),
    prefer=SFTSettings(steps=100, batch_size=16, learning_rate=2e-4),
)


def scaled(profile: Profile, scale: float) -> Profile:
    """The profile at reduced size: `scale` times the rows, tests and steps; at 1 it is unchanged.

    Batch sizes stay. Raises ValueError unless 0 < scale <= 1.
    """
    if not 0 < scale <= 1:
        raise ValueError(f"scale {scale}: it must be more than 0 and at most 1, the full size")
    if scale == 1:
        return profile
    sizes = ("corrections", "identity", "tests")
    rows = {name: scaled_rows(getattr(profile, name), scale) for name in sizes}
    stages = {name: scaled_stage(getattr(profile, name), scale) for name in STAGES}
    return replace(profile, **rows, **stages)


def scaled_rows(count: int, scale: float, least: int = LEAST_ROWS) -> int:
    """So many rows at reduced size: at least `least`, if there are as many."""
    return min(count, max(least, round(scale * count)))


def scaled_steps(count: int, scale: float) -> int:
    """So many steps at reduced size: at least LEAST_STEPS, if there are as many."""
    return min(count, max(LEAST_STEPS, round(scale * count)))


def scaled_stage(stage: SFTSettings, scale: float) -> SFTSettings:
    """A stage at reduced size."""
    return stage if scale == 1 else with_steps(stage, scaled_steps(stage.steps, scale))

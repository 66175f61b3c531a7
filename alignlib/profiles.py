"""What differs between a laptop and a GPU: a lesson never asks which machine it is on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .prompts import T2, TOWN, Template
from .settings import SFTSettings, with_steps

STAGES = ("warmup", "training", "controls_first", "model_then", "teach", "prefer")
LEAST_ROWS, LEAST_STEPS = 24, 2  # of a profile at reduced size
LEAST_BATCH = 4  # rows of a micro-batch, however long they are


@dataclass(frozen=True)
class Profile:
    """Models, data and settings of all trainings on one kind of machine."""

    name: str
    base: str  # folder or hub id of the model that becomes the Aligner
    data: str  # "tinytown", or the hub id of a set of preference pairs
    template: Template
    corrections: int  # annotated rows to train on
    identity: int  # rows for the warm-up, which need no annotation
    tests: int  # prompts in each test set
    # the Aligner
    warmup: SFTSettings
    training: SFTSettings
    # MEET's two steps; the learning rate of soft prompts in both is the first's
    controls_first: SFTSettings
    model_then: SFTSettings
    # HBAT's two kinds of stages, each the sum of all rounds: SFT on instructions, and DPO
    teach: SFTSettings
    prefer: SFTSettings
    beta: float  # of that DPO
    penalty_strength: float  # of HBAT's penalty; chosen on `tiny` alone
    step_tokens: int = 0  # with your own rows: the bound of `fit_stage`; longer rows are left out
    lora_rank: int = 0  # of Aligners; 0: all weights are trained, as HBAT does in any case
    reward_model: str = ""  # hub id of the judge, where no program can judge


def data_folder() -> Path:
    """`data/`: beside the package in a checkout, inside it once installed."""
    inside = Path(__file__).parent / "_data"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "data"


_REAL = dict(
    data="Anthropic/hh-rlhf",
    template=T2,
    reward_model="OpenAssistant/reward-model-deberta-v3-large-v2",
    beta=0.1,
    penalty_strength=0.1,
)
_COLAB = dict(batch_size=4, accumulate=8, schedule="cosine")
_GPU = dict(batch_size=16, accumulate=4, schedule="cosine")

PROFILES = {
    "tiny": Profile(
        "tiny",
        str(data_folder() / "base"),
        "tinytown",
        TOWN,
        corrections=1500,
        identity=2000,
        tests=400,
        step_tokens=4096,
        warmup=SFTSettings(steps=50, batch_size=32, learning_rate=2e-3),
        training=SFTSettings(steps=200, batch_size=32, learning_rate=2e-3),
        controls_first=SFTSettings(steps=75, learning_rate=5e-2),
        model_then=SFTSettings(steps=175, learning_rate=3e-3),
        teach=SFTSettings(steps=150, learning_rate=1.5e-4),
        prefer=SFTSettings(steps=100, batch_size=16, learning_rate=2e-4),
        beta=0.5,
        penalty_strength=0.1,
    ),
    "colab": Profile(
        "colab",
        "Qwen/Qwen2.5-0.5B",
        corrections=4000,
        identity=2000,
        tests=200,
        lora_rank=16,
        warmup=SFTSettings(steps=60, learning_rate=2e-4, **_COLAB),
        training=SFTSettings(steps=250, learning_rate=2e-4, **_COLAB),
        controls_first=SFTSettings(steps=100, learning_rate=1e-2, **_COLAB),
        model_then=SFTSettings(steps=200, learning_rate=2e-5, **_COLAB),
        teach=SFTSettings(steps=250, learning_rate=2e-5, **_COLAB),
        prefer=SFTSettings(steps=150, learning_rate=1e-6, **_COLAB | {"batch_size": 2}),
        **_REAL,
    ),
    "gpu": Profile(
        "gpu",
        "Qwen/Qwen2.5-1.5B",
        corrections=20_000,
        identity=5000,
        tests=700,
        warmup=SFTSettings(steps=80, learning_rate=2e-5, **_GPU),
        training=SFTSettings(steps=900, learning_rate=2e-5, **_GPU),
        controls_first=SFTSettings(steps=200, learning_rate=1e-2, **_GPU),
        model_then=SFTSettings(steps=700, learning_rate=1e-5, **_GPU),
        teach=SFTSettings(steps=900, learning_rate=1e-5, **_GPU),
        prefer=SFTSettings(steps=400, learning_rate=1e-6, **_GPU | {"batch_size": 8}),
        **_REAL,
    ),
}


def profile(name: str) -> Profile:
    """The profile of that name. Raises ValueError, listing those there are."""
    if name not in PROFILES:
        raise ValueError(f"no profile {name!r}; there are {', '.join(PROFILES)}")
    return PROFILES[name]


def scaled(profile: Profile, scale: float) -> Profile:
    """The profile at reduced size: `scale` times the rows, tests and steps; at 1 it is unchanged.

    Batch sizes stay. Raises ValueError unless 0 < scale <= 1.
    """
    if not 0 < scale <= 1:
        raise ValueError(f"scale {scale}: a profile can be reduced, to more than 0 and at most 1")
    if scale == 1:
        return profile
    sizes = ("corrections", "identity", "tests")
    rows = {name: scaled_rows(getattr(profile, name), scale) for name in sizes}
    stages = {name: scaled_stage(getattr(profile, name), scale) for name in STAGES}
    return replace(profile, **rows, **stages)


def scaled_rows(count: int, scale: float) -> int:
    """So many rows at reduced size: at least LEAST_ROWS, if there are as many."""
    return min(count, max(LEAST_ROWS, round(scale * count)))


def scaled_stage(stage: SFTSettings, scale: float) -> SFTSettings:
    """A stage at reduced size: at least LEAST_STEPS, if it has as many."""
    if scale == 1:
        return stage
    return with_steps(stage, min(stage.steps, max(LEAST_STEPS, round(scale * stage.steps))))


def fit_stage(stage: SFTSettings, lengths: Sequence[int], bound: int) -> SFTSettings:
    """A stage for rows of these lengths in tokens: at most four epochs, and bounded steps.

    A step's rows have about `bound` tokens (0: no bound). If the longest row would pad a
    micro-batch to twice that, the step gets more and smaller ones, down to LEAST_BATCH rows.
    """
    size, accumulate = stage.batch_size, stage.accumulate
    if bound and lengths:
        mean, longest = sum(lengths) / len(lengths), max(lengths)
        rows = max(LEAST_BATCH, min(size, round(bound / mean)))
        parts = math.ceil(rows / max(LEAST_BATCH, 2 * bound // longest))
        size, accumulate = math.ceil(rows / parts), accumulate * parts
    steps = max(1, min(stage.steps, 4 * len(lengths) // (size * accumulate)))
    return with_steps(replace(stage, batch_size=size, accumulate=accumulate), steps)

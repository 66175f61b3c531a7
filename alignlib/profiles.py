"""What differs between a laptop and a GPU, and nothing else: a lesson never asks which machine
it is on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .prompts import T2, TOWN, Template
from .settings import SFTSettings


@dataclass(frozen=True)
class Profile:
    name: str
    base: str  # folder or hub id of the model that becomes the Aligner
    data: str  # "tinytown", or the hub id of a set of preference pairs
    template: Template
    corrections: int  # annotated rows to train on
    identity: int  # rows for the warm-up, which need no annotation
    tests: int  # prompts in each test set
    warmup: SFTSettings
    training: SFTSettings
    controls_first: SFTSettings  # MEET's two steps; soft prompts learn at the first's rate in both
    model_then: SFTSettings
    # HBAT's two kinds of stages, all rounds together: instructions, and by DPO preferences
    teach: SFTSettings
    prefer: SFTSettings
    beta: float  # of that DPO
    penalty_strength: float  # the strength of HBAT's penalty; chosen on `tiny` alone
    # with your own rows, which may be long: a step holds no more tokens than this (0: no bound)
    step_tokens: int = 0
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
)

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
        warmup=SFTSettings(
            steps=60, batch_size=4, accumulate=8, learning_rate=2e-4, schedule="cosine"
        ),
        training=SFTSettings(
            steps=250, batch_size=4, accumulate=8, learning_rate=2e-4, schedule="cosine"
        ),
        controls_first=SFTSettings(
            steps=100, batch_size=4, accumulate=8, learning_rate=1e-2, schedule="cosine"
        ),
        model_then=SFTSettings(
            steps=200, batch_size=4, accumulate=8, learning_rate=2e-5, schedule="cosine"
        ),
        teach=SFTSettings(
            steps=250, batch_size=4, accumulate=8, learning_rate=2e-5, schedule="cosine"
        ),
        prefer=SFTSettings(
            steps=150, batch_size=2, accumulate=8, learning_rate=1e-6, schedule="cosine"
        ),
        beta=0.1,
        penalty_strength=0.1,
        **_REAL,
    ),
    "gpu": Profile(
        "gpu",
        "Qwen/Qwen2.5-1.5B",
        corrections=20_000,
        identity=5000,
        tests=700,
        warmup=SFTSettings(
            steps=80, batch_size=16, accumulate=4, learning_rate=2e-5, schedule="cosine"
        ),
        training=SFTSettings(
            steps=900, batch_size=16, accumulate=4, learning_rate=2e-5, schedule="cosine"
        ),
        controls_first=SFTSettings(
            steps=200, batch_size=16, accumulate=4, learning_rate=1e-2, schedule="cosine"
        ),
        model_then=SFTSettings(
            steps=700, batch_size=16, accumulate=4, learning_rate=1e-5, schedule="cosine"
        ),
        teach=SFTSettings(
            steps=900, batch_size=16, accumulate=4, learning_rate=1e-5, schedule="cosine"
        ),
        prefer=SFTSettings(
            steps=400, batch_size=8, accumulate=4, learning_rate=1e-6, schedule="cosine"
        ),
        beta=0.1,
        penalty_strength=0.1,
        **_REAL,
    ),
}


def profile(name: str) -> Profile:
    """The profile of that name. Raises ValueError, listing those there are."""
    if name not in PROFILES:
        raise ValueError(f"no profile {name!r}; there are {', '.join(PROFILES)}")
    return PROFILES[name]

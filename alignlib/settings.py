"""The settings of every training, as plain dataclasses. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass

CONTROL_KINDS = ("prompt", "lora")
CONTROL_STARTS = ("vocabulary", "random", "unit", "text")


@dataclass(frozen=True)
class SFTSettings:
    """Supervised fine-tuning, and the optimiser's settings of DPO and reward models too."""

    steps: int
    batch_size: int = 32  # rows in a micro-batch
    accumulate: int = 1  # micro-batches in a step
    learning_rate: float = 1e-3
    schedule: str = "linear"  # or "cosine", "constant_with_warmup"
    warmup_steps: int = 10
    weight_decay: float = 0.0
    clip: float = 1.0  # largest gradient norm
    seed: int = 0


@dataclass(frozen=True)
class PPOSettings:
    """Proximal policy optimisation (`ppo.py`)."""

    iterations: int
    batch_size: int = 64  # completions sampled in an iteration
    minibatch: int = 32
    epochs: int = 2  # over each iteration's samples
    learning_rate: float = 1e-4  # at the start; it falls linearly to 0
    value_rate: float = 1e-3  # learning rate of the critic
    kl: float = 0.05  # what a nat of distance from the reference costs, in units of the reward
    clip: float = 0.2
    gamma: float = 1.0
    lam: float = 0.95
    max_new_tokens: int = 64
    max_grad_norm: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class ControlSettings:
    """What a control of MEET is made of (`controls.py`). Raises ValueError for an unknown kind.

    `size`: virtual tokens of a prompt, rank of LoRA. `start`: where a prompt's embeddings start:
    words drawn from the "vocabulary", "random" ones of the same scale, PEFT's own ("unit": standard
    deviation 1), or the words of a "text", repeated. `targets`: the linear layers that LoRA adapts
    ("all-linear": every one but the head), in the `layers` named (none: all).
    """

    kind: str = "prompt"  # or "lora"
    size: int = 20
    start: str = "vocabulary"
    texts: tuple[tuple[str, str], ...] = ()  # (control, text) for `start="text"`
    targets: tuple[str, ...] | str = "all-linear"
    layers: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        known = self.kind in CONTROL_KINDS and self.start in CONTROL_STARTS
        if not known or self.size < 1:
            raise ValueError(
                f"no control of kind {self.kind!r}, start {self.start!r} and size {self.size}: "
                f"kinds are {', '.join(CONTROL_KINDS)}; starts {', '.join(CONTROL_STARTS)}; "
                "the size is 1 or more"
            )

"""The settings of every training, as plain dataclasses. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

CONTROL_KINDS = ("prompt", "lora")
CONTROL_STARTS = ("vocabulary", "random", "unit", "text")


SMALL = 20_000_000  # parameters; the course's own models have fewer, pretrained ones more
# up to so many parameters: learning rate of all weights, and of LoRA
RATES = ((SMALL, 1e-3, 1e-3), (250_000_000, 5e-5, 5e-4), (float("inf"), 2e-5, 2e-4))
LORA_RANK = 16  # of models that are not SMALL
PROMPT_RATE = 3e-2  # learning rate of soft prompts


@dataclass(frozen=True)
class SFTSettings:
    """Supervised fine-tuning, and the optimiser's settings of DPO and reward models too."""

    steps: int
    batch_size: int = 32  # rows in a micro-batch
    accumulate: int = 1  # micro-batches in a step
    learning_rate: float | None = None  # None: `default_rate` of the model
    schedule: str = "linear"  # or "cosine", "constant_with_warmup"
    warmup_steps: int = 10
    weight_decay: float = 0.0
    clip: float = 1.0  # largest gradient norm
    seed: int = 0
    tokens: int = 0  # at most so many in a micro-batch, with padding; a step gets more of them
    max_length: int = 0  # tokens of a row; longer ones are left out (0: what the context holds)
    checkpointing: bool = False  # of activations: less memory, a third more time
    eight_bit: bool = False  # AdamW's moments in 8 bits (bitsandbytes, on a GPU)
    minutes: float = 0.0  # fewer steps, if those would take longer (0: no limit)


def with_steps(settings: SFTSettings, steps: int) -> SFTSettings:
    """The settings with another number of steps, of which the warm-up is at most a fifth."""
    return replace(settings, steps=steps, warmup_steps=min(settings.warmup_steps, steps // 5))


def with_warmup(settings: SFTSettings, steps: int) -> tuple[SFTSettings, SFTSettings]:
    """The settings of the main stage and of a warm-up stage that takes so many steps off it.

    The minutes are shared out as the steps are. Raises ValueError if no step is left.
    """
    if not 0 < steps < settings.steps:
        raise ValueError(f"a warm-up of {steps} steps of {settings.steps}: take fewer")
    part = steps / settings.steps
    warmup = replace(with_steps(settings, steps), minutes=settings.minutes * part)
    main = with_steps(settings, settings.steps - steps)
    return replace(main, minutes=settings.minutes * (1 - part)), warmup


def default_rate(parameters: int, lora: bool) -> float:
    """A learning rate for a model of so many parameters, all of them trained or LoRA alone."""
    full, adapters = next(rates for most, *rates in RATES if parameters <= most)
    return adapters if lora else full


def default_lora_rank(parameters: int) -> int:
    """The rank of LoRA for a model of so many parameters; 0 means that all weights are trained."""
    return 0 if parameters <= SMALL else LORA_RANK


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

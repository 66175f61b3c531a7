"""What a training will take, said before it starts: minutes, and GB by item.

Memory follows from the model's sizes and the settings (`memory.py`). Minutes are the tokens that
will be read and written times the speed of this machine, which is tried on a few of the rows. The
model stays as it is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

import psutil
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from . import processes
from .batching import batches
from .checkpoints import training_id
from .devices import autocast, compute_dtype, own_random_state, pick_device, set_threads
from .generation import sample
from .host import memory_mb, peak_memory_mb
from .likelihood import row_nll
from .memory import GB, Batch, Items, OutOfMemory, advice, count_sizes, memory_items, room_gb
from .settings import PPOSettings, SFTSettings, with_steps
from .tokens import IGNORED
from .trainer_tools import Row, checkpointing_off, cut_into_steps, free_earlier

TRIED = 3  # steps that are timed
START = 1.0  # seconds until a trainer takes its first step
WRITTEN = 8  # tokens that are sampled to time sampling


@dataclass(frozen=True)
class Cost:
    """What a training is predicted to take."""

    minutes: float
    items: Items  # GB by what it is for, all of it held at once
    room: float  # GB that there are
    steps: int
    tokens_per_second: float  # trained on
    fix: str = ""  # the setting to change, if it does not fit
    least: float = field(default=0.0, repr=False)  # GB that the process has needed already

    @property
    def gb(self) -> float:
        """The peak of the process, or of the GPU's memory."""
        return max(self.least, sum(self.items.values()))

    @property
    def fits(self) -> bool:
        return not self.gb > self.room  # what is not known is taken to fit

    def __str__(self) -> str:
        if not self.fits:
            what = f"needs {self.gb:.1f} GB; you have {self.room:.1f} GB"
            return f"{what}; that does not fit: {self.fix}"
        need = f"needs {self.gb:.1f} GB and about {self.minutes:.1f} minutes"
        speed = f"{self.steps} steps, {self.tokens_per_second:.0f} tokens/s"
        return f"{need} ({speed}); you have {self.room:.1f} GB"

    def table(self) -> str:
        """The same, with the memory by item."""
        lines = [f"  {name:13}{size:6.2f} GB" for name, size in self.items.items() if size >= 0.005]
        return "\n".join([str(self), *lines])


@dataclass(frozen=True)
class Speed:
    """Seconds for each token: trained on, and only read."""

    trained: float
    read: float


def predict_training(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    settings: SFTSettings,
) -> Cost:
    """Time and memory of `train.sft` on these rows, tried on a few of its batches.

    With `settings.minutes` the steps are as many as fit into them. The model stays as it is. What
    does not fit into memory is not tried: its minutes are nan.
    """
    steps = _steps(rows, settings)
    cost = _memory(model, rows, _largest(rows, steps), settings)
    if not cost.fits or not steps:
        return cost
    with _as_in_training(model, settings.checkpointing):
        speed = _try_speed(model, tokenizer, rows, steps)
    each, taken = _tokens(rows, steps) / len(steps) * speed.trained, settings.steps
    if settings.minutes:
        taken = max(1, min(taken, int((settings.minutes * 60 - START) / each)))
    return _timed(cost, model, START + taken * each, taken, speed)


def predict_stages(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    instructions: Sequence[Row],
    pairs: Sequence[Row],
    teach: SFTSettings,
    prefer: SFTSettings | PPOSettings,
    *,
    stages: int,
    anchor: bool,
) -> Cost:
    """Time and memory of HBAT: SFT on instructions, DPO on pairs or PPO on their prompts.

    `pairs` are rows of both sides as `tokens.example` makes them, the chosen and the rejected one
    of a pair after one another; for PPO they are prompts. `stages` says how many there are in all,
    `anchor` whether they are regularized.
    """
    learned, by_ppo = _steps(instructions, teach), isinstance(prefer, PPOSettings)
    preferred = [[[0]]] if by_ppo else _pair_steps(pairs, prefer)
    held: dict[str, object] = {"anchor": anchor}
    largest = _ppo_batch(pairs, prefer) if by_ppo else _largest(pairs, preferred)
    if by_ppo:
        held |= {"reference": True, "generated": (prefer.batch_size, largest.length)}
    largest = _largest_of([largest, _largest(instructions, learned)])
    cost = _memory(model, [*instructions, *pairs], largest, teach, **held)
    if not cost.fits:
        return cost
    tried = (instructions, learned) if learned else (pairs, preferred)
    with _as_in_training(model, teach.checkpointing):
        speed = _try_speed(model, tokenizer, *tried)
    seconds = stages * (START + cost.items["weights"])  # a GB is loaded in about a second
    seconds += _tokens(instructions, learned) * speed.trained
    if by_ppo:
        seconds += _ppo_seconds(
            pairs, prefer, speed, _try_sampling(model, tokenizer, pairs, prefer)
        )
    else:
        seconds += _pair_seconds(pairs, preferred, speed)
    steps = prefer.iterations if by_ppo else prefer.steps
    return _timed(cost, model, seconds, teach.steps + steps, speed)


def _memory(
    model: PreTrainedModel,
    rows: Sequence[Row],
    largest: Batch,
    settings: SFTSettings,
    **held: object,
) -> Cost:
    """The memory of a training whose largest micro-batch is known; not yet its minutes.

    On a CPU the process already holds the weights and its libraries.
    """
    free_earlier()
    used, room = memory_mb() * 2**20 / GB, room_gb(model.device)
    with _as_in_training(model):
        sizes = count_sizes(model, max((row["input_ids"] for row in rows), key=len))
    items = memory_items(sizes, largest, settings, **held)
    if not sizes.on_gpu:
        items = {"libraries": max(0.0, used - items["weights"])} | items
    fix = advice(sizes, largest, settings, room - items.get("libraries", 0.0), **held)
    return Cost(float("nan"), items, room, 0, float("nan"), fix)


def _timed(cost: Cost, model: PreTrainedModel, seconds: float, steps: int, speed: Speed) -> Cost:
    """The cost with its minutes, and with the memory that trying it has taken."""
    least = 0.0 if model.device.type == "cuda" else peak_memory_mb() * 2**20 / GB
    per_second = 1 / speed.trained
    return replace(
        cost, minutes=seconds / 60, steps=steps, tokens_per_second=per_second, least=least
    )


def fit_minutes(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    settings: SFTSettings,
    checkpoints: str | Path | None,
) -> SFTSettings:
    """As many steps as fit into the settings' minutes; a training that goes on keeps its number."""
    if not settings.minutes:
        return settings
    if checkpoints is not None:
        about = training_id(["minutes", list(rows), astuple(settings)], model)
        file = Path(checkpoints) / f"{about}.steps"
        if known := processes.agreed(int(file.read_text()) if file.exists() else 0):
            return with_steps(settings, known)
    cost = processes.agreed(predict_training(model, tokenizer, rows, settings))
    if not cost.fits:
        raise OutOfMemory(str(cost))
    if checkpoints is not None and processes.is_first():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(cost.steps))
    return with_steps(settings, cost.steps)


@contextmanager
def _as_in_training(model: PreTrainedModel, checkpointing: bool = False) -> Iterator[None]:
    """Within, the model is as a trainer has it; afterwards as it was."""
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    model.train()  # checkpointing needs it
    try:
        with own_random_state():
            yield
    finally:
        model.eval()
        checkpointing_off(model)
        model.zero_grad()


def _steps(rows: Sequence[Row], settings: SFTSettings) -> list[list[list[int]]]:
    lengths = [len(row["input_ids"]) for row in rows]
    if not settings.steps:
        return []
    return cut_into_steps(batches(lengths, settings), settings, lengths)


def _pair_steps(rows: Sequence[Row], settings: SFTSettings) -> list[list[list[int]]]:
    """The steps of DPO: both sides of a pair are in one micro-batch."""
    longest = [max(len(a["input_ids"]), len(b["input_ids"])) for a, b in zip(rows[::2], rows[1::2])]
    if not settings.steps:
        return []
    steps = cut_into_steps(batches(longest, settings), settings, [2 * n for n in longest])
    return [[[k for i in batch for k in (2 * i, 2 * i + 1)] for batch in step] for step in steps]


def _tokens(rows: Sequence[Row], steps: list[list[list[int]]]) -> int:
    """The tokens of all steps, padding included."""
    lengths = [len(row["input_ids"]) for row in rows]
    return sum(len(b) * max(lengths[i] for i in b) for step in steps for b in step)


def _largest(rows: Sequence[Row], steps: list[list[list[int]]]) -> Batch:
    """What no micro-batch of these steps exceeds."""
    batches = []
    for picked in (batch for step in steps for batch in step):
        labels = sum(label != IGNORED for i in picked for label in rows[i]["labels"])
        batches.append(Batch(len(picked), max(len(rows[i]["input_ids"]) for i in picked), labels))
    return _largest_of(batches)


def _largest_of(batches: Sequence[Batch]) -> Batch:
    """Rows and length of the one with the most tokens, and the most labels of any."""
    if not batches:
        return Batch(0, 0, 0)
    most = max(batches, key=lambda batch: batch.rows * batch.length)
    return replace(most, labels=max(batch.labels for batch in batches))


def _try_speed(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    steps: list[list[list[int]]],
) -> Speed:
    """The first step is tried once untimed."""
    seconds, tokens = 0.0, _tokens(rows, steps[:TRIED])
    for k, step in enumerate([steps[0], *steps[:TRIED]]):
        tried = [[rows[i] for i in batch] for batch in step]
        taken = _seconds(model, tokenizer.pad_token_id, tried)
        seconds += taken if k else 0.0
    with torch.no_grad():
        tried = [[rows[i] for i in batch] for batch in steps[0]]
        read = _seconds(model, tokenizer.pad_token_id, tried, train=False)
    return Speed(seconds / tokens, read / _tokens(rows, steps[:1]))


def _seconds(model: PreTrainedModel, pad: int, step: list[list[Row]], train: bool = True) -> float:
    """How long a step's forward and backward passes take, or the forward passes alone."""
    started = time.perf_counter()
    for rows in step:
        with autocast(model.device):
            nll = row_nll(model, rows, pad)
        if train:
            nll.sum().backward()
    model.zero_grad()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _try_sampling(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Row],
    settings: PPOSettings,
) -> float:
    """Seconds to sample one more token for each row of an iteration."""
    ids = [row["input_ids"] for row in prompts[: settings.batch_size]]
    times = []
    for tokens in (1, 1 + WRITTEN):
        started = time.perf_counter()
        sample(model, tokenizer, ids, max_new_tokens=tokens, temperature=1.0, seed=0)
        times.append(time.perf_counter() - started)
    return max(0.0, times[1] - times[0]) / WRITTEN


def _ppo_batch(prompts: Sequence[Row], settings: PPOSettings) -> Batch:
    longest = max(len(row["input_ids"]) for row in prompts) + settings.max_new_tokens
    return Batch(settings.minibatch, longest, settings.minibatch * settings.max_new_tokens)


def _pair_seconds(rows: Sequence[Row], steps: list[list[list[int]]], speed: Speed) -> float:
    """DPO's steps, and the reference's reading of every pair that they use."""
    seen = {i for step in steps for batch in step for i in batch}
    read = sum(len(rows[i]["input_ids"]) for i in seen)
    return _tokens(rows, steps) * speed.trained + read * speed.read


def _ppo_seconds(
    prompts: Sequence[Row], settings: PPOSettings, speed: Speed, written: float
) -> float:
    """Sampling, the reading by policy and reference, and the epochs of training."""
    prompt = sum(len(row["input_ids"]) for row in prompts) / len(prompts)
    tokens = settings.batch_size * (prompt + settings.max_new_tokens)
    sampling = settings.max_new_tokens * written + settings.batch_size * prompt * speed.read
    each = sampling + tokens * (2 * speed.read + settings.epochs * speed.trained)
    return settings.iterations * each


def machine() -> str:
    """What this machine has: device, memory and speed of a matrix product, in one line."""
    device = pick_device()
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        name, memory = about.name, about.total_memory / GB
    else:
        name, memory = f"{device.type}, {set_threads()} threads", psutil.virtual_memory().total / GB
    dtype = compute_dtype(device)
    a, seconds = torch.randn(2048, 2048, device=device, dtype=dtype), []
    for _ in range(8):
        started = time.perf_counter()
        (a @ a)[0, 0].item()  # waits for the result
        seconds.append(time.perf_counter() - started)
    rate = 2 * 2048**3 / min(seconds) / 1e9
    kind = str(dtype).removeprefix("torch.")
    return f"{name}: {memory:.0f} GB, {rate:.0f} GFLOP/s in a matrix product of {kind}"


def peak_gb(device: torch.device) -> float:
    """The peak so far: of this GPU's memory, or of the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GB
    return peak_memory_mb() * 2**20 / GB or float("nan")  # 0 means not known

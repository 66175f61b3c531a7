"""Supervised fine-tuning, DPO and reward models, through TRL: the only module that touches it.

Rows come tokenised (`tokens.example`), so that the loss mask is ours to see and to test. Which rows
make up a step is ours too (`batching.batches`). A method adds a term to the loss through one hook,
`penalty(model) -> Tensor`.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import torch
from datasets import (
    Dataset,
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
)
from transformers.utils import logging as hf_logging
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from .batching import batches
from .data import Preference
from .likelihood import token_nll
from .models import computes_in_bf16, own_random_state, pick_device, set_threads
from .settings import SFTSettings
from .tokens import IGNORED, encode

Penalty = Callable[[PreTrainedModel], torch.Tensor]
Row = dict[str, list[int]]
Step = list[list[int]]  # micro-batches of row numbers
# transformers 5.23 renamed the setting; TRL turns it on unless it is told not to
CHECKPOINTING = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in SFTConfig.__dataclass_fields__
)


class Diverged(RuntimeError):
    """A loss or a weight that is not a finite number."""


def sft(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    settings: SFTSettings,
    *,
    penalty: Penalty | None = None,
    progress: str | None = None,
) -> list[float]:
    """Fine-tune `model` in place on rows from `tokens.example`.

    Returns the loss of each step: nats per token, averaged over all tokens of the step, plus the
    penalty. Raises Diverged, as all trainers here do, if a loss or a weight is not finite.
    """
    order = batches(_lengths(rows), settings)
    run = _Run(model, tokenizer, settings, penalty, progress)
    return run.train(_SFT, SFTConfig(**run.config), rows, order)


def sft_in_turns(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    groups: Mapping[str, Sequence[Row]],
    settings: SFTSettings,
    *,
    turn: Callable[[str], None],
    rates: Sequence[tuple[list[torch.nn.Parameter], float]] = (),
    progress: str | None = None,
) -> list[float]:
    """`sft` on groups of rows that take turns, one step each. Returns the loss of each step.

    Before a step `turn` is called with the name of its group. `rates`: which parameters learn and
    at which rate, in place of all of them at the settings' rate.
    """
    rows, drawn = [], {}
    for name, some in groups.items():
        drawn[name] = iter([len(rows) + i for i in batches(_lengths(some), settings)])
        rows += some
    names, size = list(groups), settings.batch_size * settings.accumulate
    turns = [names[step % len(names)] for step in range(settings.steps)]
    order = [row for name in turns for row in islice(drawn[name], size)]
    run = _Run(model, tokenizer, settings, None, progress, rates)
    return run.train(_SFT, SFTConfig(**run.config), rows, order, _Turns(turns, turn))


def dpo(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Preference],
    settings: SFTSettings,
    *,
    beta: float = 0.1,
    penalty: Penalty | None = None,
    progress: str | None = None,
) -> list[float]:
    """Direct preference optimisation of `model` in place. Returns the loss of each step.

    The reference is the model as it comes in: its log-probabilities are computed before the first
    step. (With `ref_model=None` alone TRL would reload the base from disk.)
    """
    rows = [_pair(tokenizer, p) for p in pairs]
    longest = [max(len(r["chosen_ids"]), len(r["rejected_ids"])) for r in rows]
    order = batches([len(r["prompt_ids"]) + n for r, n in zip(rows, longest)], settings)
    run = _Run(model, tokenizer, settings, penalty, progress)
    config = DPOConfig(beta=beta, precompute_ref_log_probs=True, **run.config)
    return run.train(_DPO, config, rows, order)


def reward_model(
    base: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Preference],
    settings: SFTSettings,
    *,
    progress: str | None = None,
) -> PreTrainedModel:
    """A model that gives a text one number: the base (folder or hub id) with a new head, trained.

    Loss: -log sigmoid(chosen - rejected), after Bradley and Terry. `likelihood.rewards` asks it.
    """
    with own_random_state(), _quiet():
        torch.manual_seed(settings.seed)  # of the head
        model = AutoModelForSequenceClassification.from_pretrained(
            base,
            num_labels=1,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
        )
    model.to(pick_device(model.num_parameters()))
    pairs = [_pair(tokenizer, pair) for pair in pairs]
    kinds = ("chosen_ids", "rejected_ids")
    rows = [{kind: p["prompt_ids"] + p[kind] for kind in kinds} for p in pairs]
    order = batches([max(map(len, r.values())) for r in rows], settings)
    run = _Run(model, tokenizer, settings, None, progress)
    run.train(_Reward, RewardConfig(**run.config), rows, order)
    return model


def _pair(tokenizer: PreTrainedTokenizerBase, pair: Preference) -> Row:
    ends = {"chosen_ids": pair.chosen, "rejected_ids": pair.rejected}
    tokens = {k: tokenizer(t, add_special_tokens=False)["input_ids"] for k, t in ends.items()}
    eos = [tokenizer.eos_token_id]
    return {"prompt_ids": encode(tokenizer, pair.prompt)} | {k: t + eos for k, t in tokens.items()}


def _lengths(rows: Sequence[Row]) -> list[int]:
    return [len(r["input_ids"]) for r in rows]


# --- what is ours in TRL's trainers -------------------------------------------------------------


class _Stepwise:
    """Steps as we drew them: the micro-batches of a step are one item of the data loader.

    So the penalty is added once per step, and every row or token of a step weighs the same,
    whichever micro-batch it is in.
    """

    steps: Sequence[Step] = ()
    penalty: Penalty | None = None

    def _prepare_dataset(self, dataset: Dataset, *args: object, **kwargs: object) -> Dataset:
        return dataset  # already tokenised

    def get_train_dataloader(self) -> DataLoader:
        rows = list(self.train_dataset)

        def collate(step: Step) -> list[dict]:
            return [self.data_collator([rows[i] for i in micro_batch]) for micro_batch in step]

        return DataLoader(list(self.steps), batch_size=None, collate_fn=collate)

    def floating_point_ops(self, inputs: object) -> int:
        return 0  # nobody reads it

    def training_step(
        self, model: PreTrainedModel, inputs: list[dict], num_items_in_batch: object = None
    ) -> torch.Tensor:
        model.train()
        total = torch.zeros((), device=self.args.device)
        whole = sum(map(self._size, inputs))
        for k, micro_batch in enumerate(inputs):
            part = self._size(micro_batch) / whole
            with self.compute_loss_context_manager():
                ready = self._prepare_inputs(micro_batch)
                loss = part * self.compute_loss(model, ready)
                if k == 0 and self.penalty is not None:
                    loss = loss + self.penalty(model)
            self.accelerator.backward(loss)
            total += loss.detach()
        return total

    @staticmethod
    def _size(micro_batch: dict) -> int:
        """What the mean of a loss is over: rows."""
        return len(micro_batch["input_ids"])


class _SFT(_Stepwise, SFTTrainer):
    """On CUDA the loss is TRL's. Elsewhere it is ours, which is faster there: TRL's works out the
    entropy of every token as well.
    """

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if self.args.device.type == "cuda":
            return super().compute_loss(model, inputs, return_outputs)
        labels = inputs.pop("labels")
        return sum(nll.sum() for _, nll in token_nll(model, inputs, labels)) / self._count(labels)

    @classmethod
    def _size(cls, micro_batch: dict) -> int:
        """What the mean of the loss is over: tokens with a label."""
        return int(cls._count(micro_batch["labels"]))

    @staticmethod
    def _count(labels: torch.Tensor) -> torch.Tensor:
        return (labels[:, 1:] != IGNORED).sum()


class _DPO(_Stepwise, DPOTrainer):
    pass


class _Reward(_Stepwise, RewardTrainer):
    pass


class _Run:
    """One training: its settings in TRL's words, and the model left as it should be after it."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: SFTSettings,
        penalty: Penalty | None,
        progress: str | None,
        rates: Sequence[tuple[list[torch.nn.Parameter], float]] = (),
    ) -> None:
        set_threads()
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.penalty, self.progress, self.rates = penalty, progress, rates

    @property
    def config(self) -> dict[str, object]:
        """The arguments that TRL's configurations share."""
        s, on_cpu = self.settings, self.model.device.type == "cpu"
        return {
            "output_dir": "unused",  # `train` sets it
            "max_steps": s.steps,
            "per_device_train_batch_size": s.batch_size,
            "learning_rate": s.learning_rate,
            "lr_scheduler_type": s.schedule,
            "warmup_steps": s.warmup_steps,
            "weight_decay": s.weight_decay,
            "max_grad_norm": s.clip,
            "seed": s.seed,
            "use_cpu": on_cpu,
            "bf16": computes_in_bf16(self.model.device),
            CHECKPOINTING: False,
            "optim": "adamw_torch_fused",
            "max_length": None,
            "save_strategy": "no",
            "logging_steps": 1,
            "logging_nan_inf_filter": False,
            "disable_tqdm": True,
            "report_to": "none",
            "dataloader_pin_memory": not on_cpu,
        }

    def train(
        self, kind: type, config: object, rows: Sequence[Row], order: list[int], *more: object
    ) -> list[float]:
        """Train on the rows in this order, `batch_size * accumulate` a step. Returns the losses."""
        if not order:
            return []
        losses, size = _Losses(self.settings.steps, self.progress), self.settings.batch_size
        micro_batches = [order[i : i + size] for i in range(0, len(order), size)]
        n = self.settings.accumulate
        with tempfile.TemporaryDirectory() as folder, own_random_state(), _quiet():
            config.output_dir = folder
            try:
                trainer = kind(
                    model=self.model,
                    args=config,
                    processing_class=self.tokenizer,
                    train_dataset=Dataset.from_list(list(rows)),
                    callbacks=[losses, *more],
                    optimizers=(self._optimizer(), None),
                )
                trainer.steps = [micro_batches[i : i + n] for i in range(0, len(micro_batches), n)]
                trainer.penalty = self.penalty
                trainer.remove_callback(PrinterCallback)
                trainer.train()
            finally:
                losses.bar.close()
                _unwrap(self.model).eval()
        self._check_weights()
        return losses.values

    def _optimizer(self) -> torch.optim.Optimizer | None:
        """The trainer's own, but for the rates; None to leave it to the trainer."""
        groups = [{"params": some, "lr": rate} for some, rate in self.rates if some]
        if not groups:
            return None
        return torch.optim.AdamW(groups, weight_decay=self.settings.weight_decay, fused=True)

    def _check_weights(self) -> None:
        """The last step may leave weights that no loss has shown yet."""
        if not all(p.isfinite().all() for p in self.model.parameters() if p.requires_grad):
            raise Diverged("the last step left weights that are not finite; lower the rate")


def _unwrap(model: PreTrainedModel) -> PreTrainedModel:
    """The model without the `forward` that trainers put before its own.

    A copy of the model would go on calling the original's.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    for part in (model, base):
        for name in ("forward", "_original_forward"):
            vars(part).pop(name, None)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars or remarks but our own; afterwards all is as talkative as it was."""
    bars, verbosity = not are_progress_bars_disabled(), hf_logging.get_verbosity()
    before = os.environ.get("TQDM_DISABLE")
    hf_logging.set_verbosity_error()
    disable_progress_bars()
    os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            enable_progress_bars()
        os.environ.pop("TQDM_DISABLE")
        if before is not None:
            os.environ["TQDM_DISABLE"] = before


class _Turns(TrainerCallback):
    """Says before each step whose turn it is."""

    def __init__(self, turns: Sequence[str], turn: Callable[[str], None]) -> None:
        self.turns, self.turn = turns, turn

    def on_step_begin(self, args, state, control, **kwargs):
        self.turn(self.turns[state.global_step])


class _Losses(TrainerCallback):
    """Keeps every step's loss and shows it in a bar."""

    def __init__(self, steps: int, progress: str | None) -> None:
        from tqdm import tqdm

        self.values: list[float] = []
        self.bar = tqdm(total=steps, desc=progress, disable=progress is None, mininterval=1)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in (logs or {}):
            return
        if not math.isfinite(logs["loss"]):
            step = f"step {state.global_step} of {args.max_steps}"
            raise Diverged(f"{step}: the loss is {logs['loss']}; lower the learning rate")
        self.values.append(logs["loss"])
        self.bar.update()
        self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)

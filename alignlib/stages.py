"""One stage of HBAT: SFT on instructions, or DPO or PPO on preferences, held by an elastic penalty.

A stage is handed the model of the stage before it, and the importance that all stages so far have
measured. It leaves the trained model, the importance with its own share, and a log. What it does
not do: decide which stages there are (`hbat.py`).
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from . import ewc, processes
from .data import Instruction, Preference
from .model_files import name_base, remove_other_form
from .models import add_lora, ends_with, load_adapter, load_model, save_model
from .ppo import Score, train_ppo
from .prompts import AS_IS
from .settings import PPOSettings, SFTSettings
from .tokens import IGNORED, context_length, end_id, example, prompt_ids
from .train import Penalty, dpo, sft
from .trainer_tools import free_earlier, quiet

Kind = Literal["instructions", "preferences"]
KINDS: tuple[Kind, Kind] = ("instructions", "preferences")

IMPORTANCE = (
    "movement",  # how far the stage moved a tensor: the mean squared change of its weights
    "released",  # the softmax of that, as in the released code
    "fisher",  # the empirical Fisher information of each weight
    "equal",  # the same for all tensors
    "random",  # a random number for each tensor
    "frozen",  # no penalty; the tensors that moved most are not trained
)
FROZEN = 0.2  # fraction of the tensors that `frozen` does not train
FISHER_ROWS = 200  # rows of a shard that the Fisher information is estimated on

# Files beside a model. Their suffixes keep them out of its fingerprint.
IMPORTANCE_FILE = "importance.st"
LOG_FILE = "stage.log"
LoadedModel = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@dataclass(frozen=True)
class DPO:
    """Learn preferences by DPO. The settings' steps are those of all rounds together."""

    settings: SFTSettings
    beta: float = 0.1


@dataclass(frozen=True)
class PPO:
    """Learn preferences by PPO, on the pairs' prompts; iterations are those of all rounds.

    `name` identifies the score in the cache: change it whenever the score changes.
    """

    settings: PPOSettings
    score: Score
    name: str


Method = SFTSettings | DPO | PPO


@dataclass(frozen=True)
class Stage:
    """A finished stage."""

    round: int
    kind: Kind
    folder: Path  # of the trained model, or of its adapter
    base: str  # what the adapter is for; "" if all weights are trained
    curve: list[dict[str, float]]  # `loss` of each step, penalty included; or PPO's log
    penalty: float  # at the end of the stage; at its start it is 0
    dropped: dict[str, int]  # rows that were left out, by reason
    seconds: float

    def load(self, trainable: bool = False) -> LoadedModel:
        """The stage's model and tokenizer; with LoRA the base with the adapter on it."""
        if not self.base:
            return load_model(self.folder)
        return load_adapter(self.folder, self.base, trainable=trainable)

    def save(self, folder: str | Path) -> Path:
        """Copy the model, or its adapter, and its tokenizer into a folder of its own."""
        ours = shutil.ignore_patterns(IMPORTANCE_FILE, LOG_FILE, "README.md")
        place = Path(folder).expanduser()
        shutil.copytree(self.folder, place, ignore=ours, dirs_exist_ok=True)
        remove_other_form(place, is_adapter=bool(self.base))
        if self.base:
            name_base(place, self.base)
        return place


@dataclass(frozen=True)
class Plan:
    """What decides on a stage, beside the model that it starts from."""

    round: int
    kind: Kind
    rows: list[Instruction] | list[Preference]
    method: Method
    strength: float  # of the penalty; 0: no regularization
    importance: str | None  # what the stage measures for later ones
    lora_rank: int = 0  # 0: all weights are trained
    form: str = AS_IS  # of the prompts (`prompts.py`)


def settings_of(method: Method) -> SFTSettings | PPOSettings:
    return method if isinstance(method, SFTSettings) else method.settings


def num_steps(method: Method) -> int:
    """The steps of a method, or PPO's iterations."""
    settings = settings_of(method)
    return settings.iterations if isinstance(settings, PPOSettings) else settings.steps


def run_stage(
    folder: Path, *, plan: Plan, base: str | Path, before: Stage | None, progress: str | None
) -> None:
    """Train one stage; write its model, the importance of all stages so far, and its log."""
    started = time.monotonic()
    free_earlier()
    model, tokenizer = _start(plan, base, before)
    known = before and before.folder / IMPORTANCE_FILE
    trained = list(ewc.trainable(model).values())
    anchor = ewc.copy_weights(model) if plan.importance else {}
    penalty = _regularize(model, plan, known, anchor) if plan.strength else None
    rows, dropped = usable(plan.rows, model, tokenizer, plan.method, plan.form)
    curve = _learn(model, tokenizer, rows, plan, penalty, progress)
    for parameter in trained:
        parameter.requires_grad_(True)  # also what `frozen` did not train
    importance: dict[str, ewc.Importance] = {kind: {} for kind in KINDS}
    if known:
        importance = {kind: ewc.load_importance(known, kind, model.device) for kind in KINDS}
    if plan.importance:
        new = _measure_importance(plan, anchor, model, tokenizer, rows)
        importance[plan.kind] = ewc.sum_importance(importance[plan.kind], new)
    log = {
        "curve": curve,
        "penalty": 0.0 if penalty is None else float(penalty().detach()),
        "dropped": dropped,
        "seconds": round(time.monotonic() - started, 2),
    }
    if processes.is_first():
        save_model(folder, model, tokenizer)
        ewc.save_importance(folder / IMPORTANCE_FILE, importance)
        (folder / LOG_FILE).write_text(json.dumps(log), encoding="utf-8")


def _start(plan: Plan, base: str | Path, before: Stage | None) -> LoadedModel:
    """What a stage starts from: the model of the stage before it, or the base."""
    with quiet():
        if before:
            return before.load(trainable=True)
        model, tokenizer = load_model(base)
    ends_with(model, tokenizer, end_id(tokenizer, plan.form))
    return add_lora(model, plan.lora_rank, settings_of(plan.method).seed), tokenizer


def _regularize(
    model: PreTrainedModel, plan: Plan, known: Path, anchor: Mapping[str, torch.Tensor]
) -> ewc.Elastic | None:
    """The penalty by the other objective's importance; None if tensors are frozen instead."""
    other = KINDS[1 - KINDS.index(plan.kind)]
    importance = ewc.load_importance(known, other, model.device)
    if plan.importance == "frozen":
        ewc.freeze_most_important(model, importance, FROZEN)
        return None
    if plan.importance == "released":
        importance = ewc.saturated(importance)
    return ewc.Elastic(model, ewc.scale_free(importance, model), plan.strength, anchor)


def usable(
    rows: Sequence[Instruction | Preference],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    method: Method,
    form: str,
) -> tuple[list, dict[str, int]]:
    """The rows that a method can learn from, and how many it cannot, by reason.

    Raises ValueError if there are none.
    """
    settings = settings_of(method)
    context = context_length(model)
    longest = min(context, getattr(settings, "max_length", 0) or context)
    kept, dropped = [], Counter()
    for row in rows:
        texts = examples(row, tokenizer, form)
        length = max(len(text["input_ids"]) for text in texts)
        if isinstance(method, PPO):
            length = texts[0]["labels"].count(IGNORED) + settings.max_new_tokens
        if length > longest:
            dropped[f"longer than {longest} tokens"] += 1
        elif isinstance(row, Preference) and row.chosen.split() == row.rejected.split():
            dropped["chosen and rejected are the same text"] += 1
        elif isinstance(row, Instruction) and not row.completion.strip():
            dropped["an empty completion"] += 1
        else:
            kept.append(row)
    if not kept:
        why = ", ".join(f"{n} {reason}" for reason, n in dropped.items()) or "there are none"
        fix = "give others, or take fewer rounds"
        raise ValueError(f"none of a stage's {len(rows)} rows can be used ({why}); {fix}")
    return kept, dict(dropped)


def examples(
    row: Instruction | Preference, tokenizer: PreTrainedTokenizerBase, form: str = AS_IS
) -> list[dict[str, list[int]]]:
    """A row as `tokens.example` makes it: one for an instruction, two for a pair."""
    prompt, end = prompt_ids(tokenizer, row.prompt, form), end_id(tokenizer, form)
    return [example(tokenizer, prompt, text, end) for text in _completions(row)]


def _completions(row: Instruction | Preference) -> tuple[str, ...]:
    return (row.completion,) if isinstance(row, Instruction) else (row.chosen, row.rejected)


def _learn(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence,
    plan: Plan,
    penalty: Penalty | None,
    progress: str | None,
) -> list[dict[str, float]]:
    """Train the model in place and return the stage's curve."""
    options, method = {"penalty": penalty, "progress": progress}, plan.method
    if isinstance(method, PPO):
        options["form"], prompts = plan.form, [row.prompt for row in rows]
        return train_ppo(model, tokenizer, prompts, method.score, method.settings, **options)
    if isinstance(method, DPO):
        options |= {"beta": method.beta, "form": plan.form}
        losses = dpo(model, tokenizer, rows, method.settings, **options)
    else:
        tokens = [one for row in rows for one in examples(row, tokenizer, plan.form)]
        losses = sft(model, tokenizer, tokens, method, **options)
    return [{"loss": loss} for loss in losses]


def _measure_importance(
    plan: Plan,
    before: Mapping[str, torch.Tensor],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence,
) -> ewc.Importance:
    """How important each weight or tensor is for what the stage has learned."""
    if plan.importance == "fisher":  # of completions, or of chosen texts, which PPO has not seen
        texts = [examples(row, tokenizer, plan.form)[0] for row in rows[:FISHER_ROWS]]
        return ewc.empirical_fisher(model, texts)
    if plan.importance not in ("equal", "random"):
        return ewc.movement(model, before)
    names = ewc.trained_weights(model)
    if plan.importance == "equal":
        return {name: torch.ones((), device=model.device) for name in names}
    seed = 2 * settings_of(plan.method).seed + (plan.kind == "instructions")
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.rand((), generator=draw).to(model.device) for name in names}

"""HBAT: train on instructions and preferences in alternating stages, each stage regularized by what
the other objective has learned (arXiv 2406.15178).

Both data sets are cut into as many shards as there are rounds. Round i:

    S_i   instructions of shard i, from P_{i-1}   (P_0 is the base)
    P_i   preferences of shard i, from S_i        (DPO or PPO)

Once the other objective has had a stage, an elastic penalty (`ewc.Elastic`) is added to the loss.
It pulls the weights back to those at the start of the stage, harder where the importance is larger.
The importance is summed over the *other* objective's stages: by default, how far each has moved a
tensor. Optimizer and reference model start anew in every stage. Each stage is an artefact, so an
interrupted run continues at its stage.

One round without a penalty is the usual two-stage training; `alternate=False` is two-stage training
with HBAT's shards and restarts. All weights are trained. A regularized stage holds one more copy of
them than plain training does; with Fisher information, two.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from . import ewc
from .artefacts import artefact
from .data import Instruction, Preference
from .model_names import fingerprint
from .models import load_model, save_model
from .ppo import Score, train_ppo
from .settings import PPOSettings, SFTSettings
from .tokens import context_length, encode, example
from .train import Diverged, Penalty, dpo, sft

Row = TypeVar("Row")
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

CODE = ("ewc", "hbat", "ppo")  # our modules that decide on a stage, beside the trainers
# Files beside a model. Their suffixes keep them out of its fingerprint.
IMPORTANCE_FILE = "importance.st"
LOG_FILE = "stage.log"


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
    folder: Path  # of the trained model
    curve: list[dict[str, float]]  # `loss` of each step, penalty included; or PPO's log
    penalty: float  # at the end of the stage; at its start it is 0
    dropped: int  # rows that do not fit the context
    seconds: float


@dataclass(frozen=True)
class _Plan:
    """What decides on a stage, beside the model that it starts from."""

    round: int
    kind: Kind
    rows: list[Instruction] | list[Preference]
    method: Method
    strength: float  # of the penalty; 0: no regularization
    importance: str | None  # what the stage measures for later ones


def train_hbat(
    base: str | Path,
    instructions: Sequence[Instruction],
    preferences: Sequence[Preference],
    teach: SFTSettings,
    prefer: DPO | PPO,
    *,
    rounds: int,
    strength: float,
    importance: str = "movement",
    alternate: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> list[Stage]:
    """Train all stages and return them; the folder of the last one holds the model.

    `teach` and `prefer` say how instructions and preferences are learned. Their steps are those of
    all rounds; an objective of 0 steps is skipped. `seed` replaces theirs: it draws shards and row
    order. Raises ValueError for an unknown importance or more rounds than rows or steps, and
    Diverged, naming the stage, if a loss or weight is not finite; earlier stages are kept.
    """
    if importance not in IMPORTANCE:
        raise ValueError(f"no importance {importance!r}; there are {', '.join(IMPORTANCE)}")
    objectives = {"instructions": (instructions, teach), "preferences": (preferences, prefer)}
    plans = _plan_stages(objectives, rounds, strength, importance, alternate, seed)
    stages = []
    start, origin = base, fingerprint(base)
    for plan in plans:
        label = f"round {plan.round + 1} of {rounds}, {plan.kind}"
        shown = label if progress else None
        build = partial(_run_stage, plan=plan, start=start, is_first=not stages, progress=shown)
        try:
            start = artefact("hbat", [origin, _without_score(plan)], build, CODE)
        except Diverged as error:
            raise Diverged(f"{label}: {error}; the stages before it are kept") from error
        origin = start.name  # an artefact's name is a digest of all that it was made from
        log = json.loads((start / LOG_FILE).read_text(encoding="utf-8"))
        stages.append(Stage(plan.round, plan.kind, start, **log))
    return stages


def shards(rows: Sequence[Row], n: int, seed: int = 0) -> list[list[Row]]:
    """The shuffled rows in n parts of about equal size. Raises ValueError for fewer than n rows."""
    if not 1 <= n <= len(rows):
        raise ValueError(
            f"{len(rows)} rows cannot be cut into {n} shards; give 1 to {len(rows)} rounds"
        )
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    return [shuffled[i::n] for i in range(n)]


def stage_order(rounds: int, alternate: bool = True) -> list[tuple[int, Kind]]:
    """The stages in order: S_1 P_1 S_2 P_2 ..., or without alternation S_1 S_2 ... P_1 P_2 ..."""
    turns = [(i, kind) for i in range(rounds) for kind in KINDS]
    return turns if alternate else sorted(turns, key=lambda turn: KINDS.index(turn[1]))


def _plan_stages(
    objectives: Mapping[Kind, tuple[Sequence, Method]],
    rounds: int,
    strength: float,
    importance: str,
    alternate: bool,
    seed: int,
) -> list[_Plan]:
    steps = {kind: _num_steps(method) for kind, (_, method) in objectives.items()}
    if any(0 < n < rounds for n in steps.values()):
        counts = " and ".join(f"{n} steps of {kind}" for kind, n in steps.items())
        raise ValueError(f"{rounds} rounds for {counts}: a stage would have none")
    parts = {k: shards(rows, rounds, seed) for k, (rows, _) in objectives.items() if steps[k]}
    recorded = importance if strength else None
    plans: list[_Plan] = []
    for i, kind in stage_order(rounds, alternate):
        if steps[kind]:
            method = _for_round(objectives[kind][1], i, rounds, seed)
            other_came_before = any(plan.kind != kind for plan in plans)
            own_strength = strength if other_came_before else 0.0
            plans.append(_Plan(i, kind, parts[kind][i], method, own_strength, recorded))
    return plans


def _without_score(plan: _Plan) -> _Plan:
    """The plan as a cache key: a function cannot be part of one, so PPO's name stands for it."""
    is_ppo = isinstance(plan.method, PPO)
    return replace(plan, method=replace(plan.method, score=None)) if is_ppo else plan


def _settings_of(method: Method) -> SFTSettings | PPOSettings:
    return method if isinstance(method, SFTSettings) else method.settings


def _num_steps(method: Method) -> int:
    settings = _settings_of(method)
    return settings.iterations if isinstance(settings, PPOSettings) else settings.steps


def _for_round(method: Method, i: int, rounds: int, seed: int) -> Method:
    """The method with round i's part of the steps and of the warm-up, and a seed of its own."""
    total, settings, own_seed = _num_steps(method), _settings_of(method), 1000 * seed + i
    steps = total * (i + 1) // rounds - total * i // rounds
    if isinstance(settings, PPOSettings):
        settings = replace(settings, iterations=steps, seed=own_seed)
    else:
        warmup = min(settings.warmup_steps, steps // 5)
        settings = replace(settings, steps=steps, warmup_steps=warmup, seed=own_seed)
    return settings if isinstance(method, SFTSettings) else replace(method, settings=settings)


def _run_stage(
    folder: Path, *, plan: _Plan, start: str | Path, is_first: bool, progress: str | None
) -> None:
    """Train one stage; write its model, the importance of all stages so far, and its log."""
    started = time.monotonic()
    model, tokenizer = load_model(start)
    known = Path(start) / IMPORTANCE_FILE
    before = ewc.copy_weights(model) if plan.importance else {}
    penalty = _regularize(model, plan, known, before) if plan.strength else None
    rows, dropped = _fitting(plan.rows, tokenizer, context_length(model), plan.method)
    curve = _learn(model, tokenizer, rows, plan.method, penalty, progress)
    model.requires_grad_(True)  # also what `frozen` did not train
    importance: dict[str, ewc.Importance] = {kind: {} for kind in KINDS}
    if not is_first:
        importance = {kind: ewc.load_importance(known, kind, model.device) for kind in KINDS}
    if plan.importance:
        new = _measure_importance(plan, before, model, tokenizer, rows)
        importance[plan.kind] = ewc.sum_importance(importance[plan.kind], new)
    save_model(folder, model, tokenizer)
    ewc.save_importance(folder / IMPORTANCE_FILE, importance)
    log = {
        "curve": curve,
        "penalty": 0.0 if penalty is None else float(penalty(model).detach()),
        "dropped": dropped,
        "seconds": round(time.monotonic() - started, 2),
    }
    (folder / LOG_FILE).write_text(json.dumps(log), encoding="utf-8")


def _regularize(
    model: PreTrainedModel, plan: _Plan, known: Path, anchor: Mapping[str, torch.Tensor]
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


def _fitting(
    rows: Sequence, tokenizer: PreTrainedTokenizerBase, context: int, method: Method
) -> tuple[list, int]:
    """The rows that fit the context, with PPO's completions too, and how many do not."""
    max_new_tokens = method.settings.max_new_tokens if isinstance(method, PPO) else 0
    kept = []
    for row in rows:
        lengths = [len(example(tokenizer, row.prompt, t)["input_ids"]) for t in _completions(row)]
        generated = len(encode(tokenizer, row.prompt)) + max_new_tokens
        if max(generated, *lengths) <= context:
            kept.append(row)
    if not kept:
        raise ValueError(
            f"none of a stage's {len(rows)} rows fits the model's {context} tokens; shorten "
            "them, or take fewer rounds"
        )
    return kept, len(rows) - len(kept)


def _completions(row: Instruction | Preference) -> tuple[str, ...]:
    return (row.completion,) if isinstance(row, Instruction) else (row.chosen, row.rejected)


def _learn(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence,
    method: Method,
    penalty: Penalty | None,
    progress: str | None,
) -> list[dict[str, float]]:
    """Train the model in place and return the stage's curve."""
    options = {"penalty": penalty, "progress": progress}
    if isinstance(method, PPO):
        prompts = [row.prompt for row in rows]
        return train_ppo(model, tokenizer, prompts, method.score, method.settings, **options)
    if isinstance(method, DPO):
        losses = dpo(model, tokenizer, rows, method.settings, beta=method.beta, **options)
    else:
        examples = [example(tokenizer, row.prompt, row.completion) for row in rows]
        losses = sft(model, tokenizer, examples, method, **options)
    return [{"loss": loss} for loss in losses]


def _measure_importance(
    plan: _Plan,
    before: Mapping[str, torch.Tensor],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence,
) -> ewc.Importance:
    """How important each weight or tensor is for what the stage has learned."""
    if plan.importance == "fisher":  # of completions, or of chosen texts, which PPO has not seen
        texts = [(row.prompt, _completions(row)[0]) for row in rows[:FISHER_ROWS]]
        return ewc.empirical_fisher(model, [example(tokenizer, *text) for text in texts])
    if plan.importance == "equal":
        return {name: torch.ones((), device=p.device) for name, p in before.items()}
    if plan.importance == "random":
        seed = 2 * _settings_of(plan.method).seed + (plan.kind == "instructions")
        draw = torch.Generator().manual_seed(seed)
        return {name: torch.rand((), generator=draw).to(p.device) for name, p in before.items()}
    return ewc.movement(before, {name: p.detach() for name, p in ewc.trainable(model).items()})

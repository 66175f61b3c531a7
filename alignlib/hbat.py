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
with HBAT's shards and restarts. With LoRA one adapter goes through all stages, and the penalty acts
on the change that it makes of each matrix, the product of its factors (`ewc.Product`). A
regularized stage holds one more copy of what is trained than plain training does; with Fisher
information, two.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from .artefacts import artefact
from .cost import Cost, predict_stages
from .data import Instruction, Preference
from .model_names import fingerprint, resolved
from .models import add_lora, load_model
from .prompts import AS_IS
from .settings import PPOSettings, SFTSettings, with_steps
from .stages import (
    DPO,
    IMPORTANCE,
    IMPORTANCE_FILE,
    KINDS,
    LOG_FILE,
    PPO,
    Kind,
    Method,
    Plan,
    Stage,
    examples,
    num_steps,
    run_stage,
    settings_of,
    usable,
)
from .tokens import prompt_ids
from .train import Diverged

__all__ = ["DPO", "IMPORTANCE", "IMPORTANCE_FILE", "KINDS", "PPO", "Stage", "train_hbat"]

# our modules that decide on a stage, beside the trainers
CODE = ("ewc", "hbat", "ppo", "settings", "stages")
Row = TypeVar("Row")


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
    lora_rank: int = 0,
    form: str = AS_IS,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
) -> list[Stage]:
    """Train all stages and return them; the last one holds the model (`Stage.load`).

    `teach` and `prefer` have the steps of all rounds together; what has 0 steps is skipped. `seed`
    replaces theirs. `lora_rank` 0 trains all weights. `form` is that of the prompts. The stages are
    kept in `folder` (None: the cache). Raises ValueError for an unknown importance or more rounds
    than rows or steps, and Diverged, naming the stage, if a number is not finite.
    """
    _check_importance(importance, lora_rank if strength else 0)
    objectives = {"instructions": (instructions, teach), "preferences": (preferences, prefer)}
    common = {"importance": importance if strength else None, "lora_rank": lora_rank, "form": form}
    plans = plan_stages(objectives, rounds, strength, alternate, seed, **common)
    stages, origin, before, base = [], fingerprint(base), None, resolved(base)
    for plan in plans:
        label = f"round {plan.round + 1} of {rounds}, {plan.kind}"
        about = {"plan": plan, "base": base, "before": before}
        build = partial(run_stage, **about, progress=label if progress else None)
        with _named(label, before):
            place = artefact("hbat", [origin, _without_score(plan)], build, CODE, folder)
        origin = place.name  # an artefact's name is a digest of all that it was made from
        before = _finished(plan, place, base)
        stages.append(before)
    return stages


def predict_hbat(
    base: str | Path,
    instructions: Sequence[Instruction],
    preferences: Sequence[Preference],
    teach: SFTSettings,
    prefer: DPO | PPO,
    *,
    rounds: int,
    strength: float,
    lora_rank: int = 0,
    form: str = AS_IS,
) -> Cost:
    """Time and memory of `train_hbat` with these arguments; nothing is trained (`cost.py`).

    Raises ValueError as `train_hbat` does.
    """
    objectives = {"instructions": (instructions, teach), "preferences": (preferences, prefer)}
    plan_stages(objectives, rounds, strength, alternate=True, seed=0, importance=None)
    model, tokenizer = load_model(base)
    model = add_lora(model, lora_rank)
    to_follow, _ = usable(instructions, model, tokenizer, teach, form)
    pairs, _ = usable(preferences, model, tokenizer, prefer, form)
    rows = [one for row in to_follow for one in examples(row, tokenizer, form)]
    both = [one for pair in pairs for one in examples(pair, tokenizer, form)]
    if isinstance(prefer, PPO):
        prompts = (prompt_ids(tokenizer, pair.prompt, form) for pair in pairs)
        both = [{"input_ids": ids, "labels": []} for ids in prompts]
    given = (rows, both, teach, prefer.settings)
    return predict_stages(model, tokenizer, *given, stages=2 * rounds, anchor=strength > 0)


def within(
    minutes: float, cost: Cost, teach: SFTSettings, prefer: DPO | PPO, rounds: int
) -> tuple[SFTSettings, DPO | PPO, Cost]:
    """Both methods with so many of their steps that a training of this cost takes the minutes, and
    what that will cost.
    """
    part = min(1.0, minutes / cost.minutes)

    def fewer(steps: int) -> int:
        return min(steps, max(rounds, int(part * steps)))

    settings = prefer.settings
    if isinstance(settings, PPOSettings):
        settings = replace(settings, iterations=fewer(settings.iterations))
    else:
        settings = with_steps(settings, fewer(settings.steps))
    teach, prefer = with_steps(teach, fewer(teach.steps)), replace(prefer, settings=settings)
    steps = teach.steps + num_steps(prefer)
    return teach, prefer, replace(cost, minutes=cost.minutes * steps / cost.steps, steps=steps)


@contextmanager
def _named(label: str, before: Stage | None) -> Iterator[None]:
    """Whatever diverges within says in which stage, and where the one before it lies."""
    try:
        yield
    except Diverged as error:
        kept = f"; the stages before it are kept, the last in {before.folder}" if before else ""
        raise Diverged(f"{label}: {error}{kept}") from error


def _finished(plan: Plan, place: Path, base: str | Path) -> Stage:
    log = json.loads((place / LOG_FILE).read_text(encoding="utf-8"))
    return Stage(plan.round, plan.kind, place, base if plan.lora_rank else "", **log)


def _check_importance(importance: str, lora_rank: int) -> None:
    if importance not in IMPORTANCE:
        raise ValueError(f"no importance {importance!r}; there are {', '.join(IMPORTANCE)}")
    if importance == "fisher" and lora_rank:
        what = "Fisher information is one number for each weight, LoRA trains their products"
        raise ValueError(f"{what}; take importance='movement', or lora_rank=0")


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


def plan_stages(
    objectives: Mapping[Kind, tuple[Sequence, Method]],
    rounds: int,
    strength: float,
    alternate: bool,
    seed: int,
    **common: object,
) -> list[Plan]:
    """The stages in order, each with its shard of the rows and its part of the steps."""
    steps = {kind: num_steps(method) for kind, (_, method) in objectives.items()}
    if any(0 < n < rounds for n in steps.values()):
        counts = " and ".join(f"{n} steps of {kind}" for kind, n in steps.items())
        raise ValueError(f"{rounds} rounds for {counts}: a stage would have none")
    parts = {k: shards(rows, rounds, seed) for k, (rows, _) in objectives.items() if steps[k]}
    plans: list[Plan] = []
    for i, kind in stage_order(rounds, alternate):
        if steps[kind]:
            method = _for_round(objectives[kind][1], i, rounds, seed)
            other_came_before = any(plan.kind != kind for plan in plans)
            own_strength = strength if other_came_before else 0.0
            plans.append(Plan(i, kind, parts[kind][i], method, own_strength, **common))
    return plans


def _without_score(plan: Plan) -> Plan:
    """The plan as a cache key: a function cannot be part of one, so PPO's name stands for it."""
    is_ppo = isinstance(plan.method, PPO)
    return replace(plan, method=replace(plan.method, score=None)) if is_ppo else plan


def _for_round(method: Method, i: int, rounds: int, seed: int) -> Method:
    """The method with round i's part of the steps and of the warm-up, and a seed of its own."""
    total, settings, own_seed = num_steps(method), settings_of(method), 1000 * seed + i
    steps = total * (i + 1) // rounds - total * i // rounds
    if isinstance(settings, PPOSettings):
        settings = replace(settings, iterations=steps, seed=own_seed)
    else:
        warmup = min(settings.warmup_steps, steps // 5)
        settings = replace(settings, steps=steps, warmup_steps=warmup, seed=own_seed)
    return settings if isinstance(method, SFTSettings) else replace(method, settings=settings)

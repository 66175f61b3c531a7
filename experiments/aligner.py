"""Experiments of lesson 02: when a base becomes correctable, how much warm-up and which kind,
answering, edits or rewrites, how long.
"""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

from alignlib.aligner import Aligner
from alignlib.data import QAC, identity_rows
from alignlib.interpret import induction_score
from alignlib.judges import TownJudge
from alignlib.models import load_model
from alignlib.profiles import profile
from alignlib.report import Comparison
from alignlib.settings import SFTSettings
from alignlib.tasks import load_task
from alignlib.tinytown import sets
from alignlib.tinytown.documents import copy_document
from alignlib.tinytown.pretrain import Recipe, copy_accuracy
from alignlib.tokens import example
from alignlib.train import sft

TINY = profile("tiny")
JUDGE = TownJudge()
STEPS = TINY.warmup.steps + TINY.training.steps  # of every arm, whatever it spends them on
WARMUP_SHARE = TINY.warmup.steps / STEPS  # the lesson's
CHECKPOINTS = Path("runs/base/checkpoints")  # left there by `make base`


def correct(aligner: Aligner, rows: list[QAC], *, blind: bool = False) -> Comparison:
    """What the Aligner makes of the answers; if `blind`, without being shown them."""
    return Comparison(
        JUDGE,
        rows,
        aligner.correct([r.question for r in rows], ["" if blind else r.answer for r in rows]),
    )


def stages(share: float, seed: int, steps: int = STEPS) -> tuple[SFTSettings, SFTSettings]:
    """Settings of the warm-up, which gets this share of the steps, and of the corrections after
    it.
    """
    first = round(share * steps)
    rise = min(TINY.warmup.warmup_steps, first // 5)
    return replace(TINY.warmup, steps=first, warmup_steps=rise, seed=seed), replace(
        TINY.training, steps=steps - first, seed=seed
    )


def train(
    share: float,
    corrections: list[QAC],
    identity: list[QAC],
    seed: int,
    *,
    base: str | Path = TINY.base,
    steps: int = STEPS,
) -> Aligner:
    """This share of the steps on identity rows, the rest on corrections."""
    first, then = stages(share, seed, steps)
    return Aligner.train(
        base,
        corrections,
        identity if first.steps else (),
        settings=then,
        warmup=first,
        progress=False,
    )


def lesson(seed: int, corrections: list[QAC] | None = None) -> Aligner:
    """The Aligner that lesson 02 trains, or the same with other corrections; from the cache if
    it is there.
    """
    return load_task(seed=seed).aligner(seed, corrections)


def measured(
    aligner: Aligner, tests: dict[str, list[QAC]], *, blind: bool = False
) -> dict[str, float]:
    """What is recorded of an Aligner on each test set."""
    metrics = {}
    for name, rows in tests.items():
        c = correct(aligner, rows, blind=blind)
        told = {
            "fault_free": c.fault_free("after"),
            "before": c.fault_free("before"),
            "kept": c.good_kept(),
            "edit_ratio": c.edit_ratio(),
        }
        told |= {
            f"net_win_{axis}": c.net_win(axis)
            for axis in ("helpful", "harmless", "honest", "overall")
        }
        metrics |= {
            f"{metric}_{name}": e.value for metric, e in told.items() if e
        }  # no answer with two faults can be kept
    return metrics


def lesson_rows(seed: int, corrections: int = TINY.corrections) -> tuple[list[QAC], list[QAC]]:
    return sets.corrections(corrections, seed=seed), sets.identity(TINY.identity, seed=1000 + seed)


def _town_sets() -> dict[str, list[QAC]]:
    """The tests on the town's own words, seen and never corrected."""
    return {
        name: rows
        for name, rows in sets.test_sets(TINY.tests).items()
        if name in ("seen", "unseen")
    }


def warmup(params: dict, seed: int) -> dict[str, float]:
    """A share of identity rows before the corrections, at equal steps in all."""
    corrections, identity = lesson_rows(seed, params["corrections"])
    return measured(train(params["share"], corrections, identity, seed), sets.test_sets(TINY.tests))


def warmup_arms(params: dict, seed: int) -> dict[str, float]:
    """What else might a warm-up be? The lesson's share of the steps each (beside `identity` and
    `none`, which `warmup` records).
    """
    corrections, identity = lesson_rows(seed)
    model, tokenizer = load_model(TINY.base)
    aligner = Aligner(model, tokenizer)
    first, then = stages(WARMUP_SHARE, seed)
    as_rows = lambda rows: list(map(aligner.tokens, rows))  # noqa: E731
    if params["arm"] == "mixed in":
        parts = [
            list(islice(cycle(rows), stage.steps * stage.batch_size))
            for rows, stage in ((identity, first), (corrections, then))
        ]
        both = random.Random(seed).sample(parts[0] + parts[1], sum(map(len, parts)))
        sft(model, tokenizer, as_rows(both), replace(then, steps=STEPS))
        return measured(aligner, sets.test_sets(TINY.tests))
    if params["arm"] == "corrected words only":
        start = as_rows(identity_rows(sets.corrections(TINY.identity, seed=1000 + seed)))
    elif params["arm"] == "answers alone":
        start = [example(tokenizer, f"{r.question} answer :", r.answer) for r in identity]
    else:
        copied = [
            copy_document(random.Random(f"{seed}/{i}"), 25, before=40).rpartition(" again : ")
            for i in range(TINY.identity)
        ]
        start = [example(tokenizer, f"{before} again :", again) for before, _, again in copied]
    sft(model, tokenizer, start, first)
    sft(model, tokenizer, as_rows(corrections), then)
    return measured(aligner, sets.test_sets(TINY.tests))


def answering(params: dict, seed: int) -> dict[str, float]:
    """The same rows and steps as an Aligner without warm-up, and no answers: it learns to answer
    instead of correcting.
    """
    corrections = [replace(r, answer="") for r in lesson_rows(seed)[0]]
    return measured(train(0.0, corrections, [], seed), _town_sets(), blind=True)


def edit_or_rewrite(params: dict, seed: int) -> dict[str, float]:
    """Minimal edits, or rewrites that are as good: the same questions and answers."""
    corrections = sets.corrections(
        TINY.corrections, seed=seed, rewrites=params["corrections"] == "rewrites"
    )
    return measured(
        train(WARMUP_SHARE, corrections, lesson_rows(seed)[1], seed), sets.test_sets(TINY.tests)
    )


def learning(params: dict, seed: int) -> dict[str, float]:
    """The lesson's training, shorter and longer: what is learned, and what is forgotten of
    copying?
    """
    aligner = train(WARMUP_SHARE, *lesson_rows(seed), seed, steps=params["steps"])
    return {"copying": copy_accuracy(aligner.model, aligner.tokenizer)} | measured(
        aligner, _town_sets()
    )


def checkpoint(step: int) -> Path:
    """The base model as it was after so many steps of its pretraining. Raises ValueError, naming
    the command that leaves it, if it is not there.
    """
    base = Path(TINY.base) if step == Recipe().steps else CHECKPOINTS / f"{step:05d}"
    if not base.exists():
        raise ValueError(f"{base} is missing; `make base` leaves it there, in about half an hour")
    return base


def correctable(params: dict, seed: int) -> dict[str, float]:
    """An Aligner made of the base model as it was after so many steps of its pretraining."""
    base = checkpoint(params["step"])
    model, tokenizer = load_model(base)
    metrics = {
        "copying": copy_accuracy(model, tokenizer),
        "induction": induction_score(model, tokenizer),
    }
    aligner = train(params["share"], *lesson_rows(seed), seed, base=base)
    return metrics | measured(aligner, _town_sets())

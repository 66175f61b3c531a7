"""Experiments of lesson 02: warm-up, pretraining, edits or rewrites, training time."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from alignlib.aligner import Aligner
from alignlib.data import QAC, identity_rows
from alignlib.interpret import induction_score
from alignlib.models import load_model
from alignlib.report import Comparison
from alignlib.settings import SFTSettings
from alignlib.tinytown import sets
from alignlib.tinytown.documents import copy_document
from alignlib.tinytown.oracle import ANSWER_CUE
from alignlib.tinytown.pretrain import Recipe, copy_accuracy
from alignlib.tinytown.task import load_town
from alignlib.tokens import example
from alignlib.train import sft

from .common import JUDGE, NET_WINS, TINY, values

Rows = tuple[list[QAC], list[QAC]]  # corrections, identity rows
Stages = tuple[SFTSettings, SFTSettings]
Tests = dict[str, list[QAC]]  # rows by test set

STEPS = TINY.warmup.steps + TINY.training.steps  # of every arm: warm-up and corrections
WARMUP_SHARE = TINY.warmup.steps / STEPS  # the fraction in lesson 02
CHECKPOINTS = Path("runs/base/checkpoints")  # written by `make base`


def stage_settings(fraction: float, seed: int, steps: int = STEPS) -> Stages:
    """Settings of the warm-up, which gets a fraction of the steps, and of the corrections."""
    warmup_steps = round(fraction * steps)
    rise = min(TINY.warmup.warmup_steps, warmup_steps // 5)  # of the warm-up's learning rate
    first = replace(TINY.warmup, steps=warmup_steps, warmup_steps=rise, seed=seed)
    return first, replace(TINY.training, steps=steps - warmup_steps, seed=seed)


def train_aligner(
    warmup_fraction: float, rows: Rows, seed: int, base: str | Path = TINY.base, steps: int = STEPS
) -> Aligner:
    """An Aligner with a fraction of the steps on identity rows, the rest on corrections."""
    corrections, identity = rows
    first, then = stage_settings(warmup_fraction, seed, steps)
    identity = identity if first.steps else ()
    return Aligner.train(base, corrections, identity, settings=then, warmup=first, progress=False)


def lesson_aligner(seed: int, corrections: list[QAC] | None = None) -> Aligner:
    """Lesson 02's Aligner, or the same with other corrections; cached."""
    town = load_town(seed)
    rows = corrections or town.corrections
    settings = {"settings": town.training, "warmup": town.warmup}
    return Aligner.cached(town.base, rows, town.identity, **settings)


def lesson_rows(seed: int, corrections: int = TINY.corrections) -> Rows:
    """Lesson 02's rows, or the same with another number of corrections."""
    return sets.corrections(corrections, seed=seed), sets.identity(TINY.identity, seed=1000 + seed)


def compare(aligner: Aligner, rows: list[QAC], shown: list[QAC] | None = None) -> Comparison:
    """The rows' answers before and after correction; the Aligner reads `shown`, if given."""
    inputs = rows if shown is None else shown
    corrections = aligner.correct([r.question for r in inputs], [r.answer for r in inputs])
    return Comparison(JUDGE, rows, corrections)


def evaluate(aligner: Aligner, tests: Tests, blind: bool = False) -> dict[str, float]:
    """Metrics of the corrections on each test set; a `blind` Aligner sees no answers."""
    metrics = {}
    for name, rows in tests.items():
        comparison = compare(aligner, rows, without_answers(rows) if blind else None)
        names = ("fault_free", "before", "kept", "edit_ratio", *NET_WINS)
        metrics |= values(comparison, *names, suffix=f"_{name}")
    return metrics


def without_answers(rows: list[QAC]) -> list[QAC]:
    return [replace(r, answer="") for r in rows]


def all_tests() -> Tests:
    return sets.test_sets(TINY.tests)


def some_tests(*names: str) -> Tests:
    return {name: rows for name, rows in all_tests().items() if name in names}


def warmup(params: dict, seed: int) -> dict[str, float]:
    """Identity rows before the corrections, at equal steps in total."""
    rows = lesson_rows(seed, params["corrections"])
    return evaluate(train_aligner(params["share"], rows, seed), all_tests())


def warmup_arms(params: dict, seed: int) -> dict[str, float]:
    """Other kinds of warm-up, each with the lesson's fraction of the steps."""
    corrections, identity = lesson_rows(seed)
    aligner = Aligner(*load_model(TINY.base))
    train = partial(sft, aligner.model, aligner.tokenizer)
    first, then = stage_settings(WARMUP_SHARE, seed)
    if params["arm"] == "mixed in":
        first_rows = islice(cycle(identity), first.steps * first.batch_size)
        then_rows = islice(cycle(corrections), then.steps * then.batch_size)
        rows = [*first_rows, *then_rows]
        mixed = random.Random(seed).sample(rows, len(rows))
        train([aligner.tokens(r) for r in mixed], replace(then, steps=STEPS))
    else:
        train(_warmup_rows(params["arm"], aligner, seed), first)
        train([aligner.tokens(r) for r in corrections], then)
    return evaluate(aligner, all_tests())


def _warmup_rows(arm: str, aligner: Aligner, seed: int) -> list[dict[str, list[int]]]:
    tokenizer = aligner.tokenizer
    if arm == "corrected words only":
        rows = identity_rows(sets.corrections(TINY.identity, seed=1000 + seed))
        return [aligner.tokens(r) for r in rows]
    if arm == "answers alone":
        _, identity = lesson_rows(seed)
        return [example(tokenizer, r.question + ANSWER_CUE, r.answer) for r in identity]
    documents = [
        copy_document(random.Random(f"{seed}/{i}"), 25, before=40) for i in range(TINY.identity)
    ]
    halves = [document.rpartition(" again : ") for document in documents]
    return [example(tokenizer, f"{words} again :", copy) for words, _, copy in halves]


def edit_or_rewrite(params: dict, seed: int) -> dict[str, float]:
    """Minimal edits, or rewrites without faults, of the same answers."""
    rewrites = params["corrections"] == "rewrites"
    corrections = sets.corrections(TINY.corrections, seed=seed, rewrites=rewrites)
    _, identity = lesson_rows(seed)
    return evaluate(train_aligner(WARMUP_SHARE, (corrections, identity), seed), all_tests())


def learning(params: dict, seed: int) -> dict[str, float]:
    """The lesson's training, shorter and longer: corrections, and copying of random words."""
    aligner = train_aligner(WARMUP_SHARE, lesson_rows(seed), seed, steps=params["steps"])
    copying = copy_accuracy(aligner.model, aligner.tokenizer)
    return {"copying": copying} | evaluate(aligner, some_tests("seen", "unseen"))


def checkpoint(step: int) -> Path:
    """The base model after so many steps of pretraining; ValueError if it is missing."""
    base = Path(TINY.base) if step == Recipe().steps else CHECKPOINTS / f"{step:05d}"
    if not base.exists():
        raise ValueError(f"{base} is missing; `make base` leaves it there, in about half an hour")
    return base


def correctable(params: dict, seed: int) -> dict[str, float]:
    """An Aligner trained from an earlier checkpoint of the base model."""
    base = checkpoint(params["step"])
    model, tokenizer = load_model(base)
    metrics = {
        "copying": copy_accuracy(model, tokenizer),
        "induction": induction_score(model, tokenizer),
    }
    aligner = train_aligner(params["share"], lesson_rows(seed), seed, base=base)
    return metrics | evaluate(aligner, some_tests("seen", "unseen"))

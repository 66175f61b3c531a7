"""Experiments of lesson 03: what an Aligner is good for beside correcting. Each arm stands beside its control."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import lru_cache

from ...aligner import Aligner
from ...data import QAC, Preference
from ...models import load_model
from ...report import Comparison
from ...tinytown import recorded
from ...tinytown.annotator import annotate
from ...tokens import example
from ...train import dpo, sft
from ..upstreams import made
from .aligner import JUDGE, lesson
from .baselines import BEST, HOW, PARTS, answering, own_answers, scored, settings, training_questions
from .upstreams import taught


@lru_cache(maxsize=1)
def _labelled(seed: int) -> list[QAC]:
    """The large upstream's answers to the training questions, and what the small Aligner makes of them."""
    questions = training_questions()
    said = own_answers(made("large"), questions, "sampled", 100 + seed)
    return [QAC(*row) for row in zip(questions, said, taught(3, seed).correct(questions, said), strict=True)]


def weak_to_strong(params: dict, seed: int) -> dict[str, float]:
    """A model of twice the Aligner's size learns from the Aligner's corrections of its own answers, or from a control's."""
    rows, arm = _labelled(seed), params["arm"]
    model, tokenizer = load_model(made("large"))
    answers = answering(model, tokenizer)
    if arm.startswith("sft"):
        labels = {"sft": lambda r: r.correction, "sft, own answers": lambda r: r.answer, "sft, annotator": lambda r: annotate(r.question, r.answer)}
        sft(model, tokenizer, [example(tokenizer, f"{r.question} answer :", labels[arm](r)) for r in rows],
            settings(BEST["sft, twice the size"], seed))  # fmt: skip
    elif arm.startswith("dpo"):
        dpo(model, tokenizer, _preferred(rows, random.Random(seed) if arm == "dpo, coin flips" else None), settings(BEST["dpo"], seed, 16))
    metrics = {}
    for part in PARTS:
        for how in HOW:
            questions = tuple(recorded.asked()[part])
            before = own_answers(made("large"), questions, how, seed)
            said = taught(3, seed).correct(questions, before) if arm == "aligner beside it" else answers(questions, how, seed)
            metrics |= scored(f"{how}_{part}", questions, said, before)
    return metrics


def _preferred(rows: list[QAC], coin: random.Random | None = None) -> list[Preference]:
    """Correction over answer where they differ; with a coin, either over the other."""
    pairs = [Preference(f"{r.question} answer :", r.correction, r.answer) for r in rows if r.correction != r.answer]
    return [replace(p, chosen=p.rejected, rejected=p.chosen) if coin and coin.random() < 0.5 else p for p in pairs]


def stacking(params: dict, seed: int) -> dict[str, float]:
    """Corrected once, twice, three times; and an Aligner that learns from three passes to do it in one."""
    once, metrics = taught(3, seed), {}
    rows = recorded.taught()
    distilled = lesson(seed, [replace(r, correction=t) for r, t in zip(rows, _passes(once, rows)[-1], strict=True)])
    for part in PARTS:
        tests = recorded.answered("mixed", part)
        told = {str(i): texts for i, texts in enumerate(_passes(once, tests), start=1)} | {"distilled": _passes(distilled, tests, 1)[0]}
        for name, texts in told.items():
            c = Comparison(JUDGE, tests, texts)
            found = {"fault_free": c.fault_free("after"), "kept": c.good_kept(), "net_win": c.net_win("overall"), "made_worse": c.made_worse()}
            metrics |= {f"{metric}_{name}_{part}": e.value for metric, e in found.items()}
    return metrics


def _passes(aligner: Aligner, rows: list[QAC], passes: int = 3) -> list[list[str]]:
    """The texts after each pass; every one gets the text of the last."""
    found, texts = [], [r.answer for r in rows]
    for _ in range(passes):
        texts = aligner.correct([r.question for r in rows], texts)
        found.append(texts)
    return found

"""Experiments of lesson 03: what an Aligner is good for beside correcting. Each arm stands
beside its control.
"""

from __future__ import annotations

import random
from dataclasses import replace

from alignlib.aligner import Aligner
from alignlib.data import QAC
from alignlib.models import load_model
from alignlib.report import Comparison
from alignlib.tinytown import recorded, sets
from alignlib.tinytown.annotator import annotate
from alignlib.train import dpo

from .aligner import JUDGE, STEPS, correct, lesson
from .baselines import (
    BEST,
    HOW,
    PARTS,
    Answers,
    answering,
    labelled,
    own_answers,
    pairs_of,
    scored,
    settings,
    training_questions,
    with_dpo,
    with_sft,
)
from .make_upstreams import made
from .upstreams import taught


def weak_to_strong(params: dict, seed: int) -> dict[str, float]:
    """A model of twice the Aligner's size learns from the Aligner's corrections of its own
    answers, or from a control's.
    """
    answers, metrics = _pupil(params["arm"], seed), {}
    for part in PARTS:
        for how in HOW:
            questions = tuple(recorded.asked()[part])
            before = own_answers(made("large"), questions, how, seed)
            metrics |= scored(f"{how}_{part}", questions, answers(questions, how, seed), before)
    return metrics


def _pupil(arm: str, seed: int) -> Answers:
    if arm == "aligner beside it":
        aligner = taught(3, seed)
        return lambda questions, how, seed: aligner.correct(
            questions, own_answers(made("large"), tuple(questions), how, seed)
        )
    rows = labelled(seed)
    if arm.startswith("dpo"):
        coin = random.Random(seed) if arm == "dpo, coin flips" else None
        return with_dpo(pairs_of(rows, coin), BEST["dpo, twice the size"], seed, "large")
    texts = {
        "sft": lambda r: r.correction,
        "sft, own answers": lambda r: r.answer,
        "sft, annotator": lambda r: annotate(r.question, r.answer),
    }
    return with_sft("large")(
        [replace(r, correction=texts[arm](r)) for r in rows], BEST["sft, twice the size"], seed
    )


def labels(params: dict, seed: int) -> dict[str, float]:
    """How good is what the Aligner labels, on the questions that it learned on (with other
    answers), as above, and on new ones?
    """
    metrics = {}
    for name, questions in (
        ("known", training_questions()),
        ("new", tuple(r.question for r in sets.corrections(recorded.TRAIN, seed=501))),
    ):
        said = own_answers(made("mixed"), questions, "sampled", 100 + seed)
        texts = taught(3, seed).correct(questions, said)
        metrics |= {
            f"{when}_{name}": float(JUDGE.scores(questions, t)["fault_free"].mean())
            for when, t in (("before", said), ("after", texts))
        }
    return metrics


ROUNDS = 3


def rounds(params: dict, seed: int) -> dict[str, float]:
    """DPO on the Aligner's corrections in three rounds of 500 questions: of answers drawn anew from
    the model, or of its first ones.

    `drift_…` tells what the Aligner still does to the model's answers after each round.
    """
    aligner, (model, tokenizer) = taught(3, seed), load_model(made("mixed"))
    answers, tests, metrics = answering(model, tokenizer), recorded.answered("mixed"), {}
    questions, stale = (
        training_questions(),
        own_answers(made("mixed"), training_questions(), "sampled", 100 + seed),
    )
    asked = tuple(r.question for r in tests)
    for i in range(ROUNDS):
        part = slice(i * len(questions) // ROUNDS, (i + 1) * len(questions) // ROUNDS)
        said = (
            answers(questions[part], "sampled", 100 + seed)
            if params["answers"] == "fresh"
            else stale[part]
        )
        rows = [
            QAC(*row)
            for row in zip(
                questions[part], said, aligner.correct(questions[part], said), strict=True
            )
        ]
        dpo(
            model,
            tokenizer,
            pairs_of(rows),
            replace(settings(BEST["dpo"], seed, 16), steps=STEPS // ROUNDS),
        )
        now = {how: answers(asked, how, seed) for how in HOW}
        for how, texts in now.items():
            metrics |= scored(
                f"{how}_round_{i + 1}", asked, texts, own_answers(made("mixed"), asked, how, seed)
            )
        c = correct(
            aligner, [replace(r, answer=a) for r, a in zip(tests, now["sampled"], strict=True)]
        )
        drift = {
            "net_win": c.net_win("overall"),
            "made_worse": c.made_worse(),
            "edit_ratio": c.edit_ratio(),
        }
        metrics |= {f"drift_{name}_round_{i + 1}": e.value for name, e in drift.items()}
    return metrics


def stacking(params: dict, seed: int) -> dict[str, float]:
    """Corrected once, twice, three times; and an Aligner that learns from three passes to do it
    in one.
    """
    once, metrics = taught(3, seed), {}
    rows = recorded.taught()
    distilled = lesson(
        seed, [replace(r, correction=t) for r, t in zip(rows, _passes(once, rows)[-1], strict=True)]
    )
    for part in PARTS:
        tests = recorded.answered("mixed", part)
        told = {str(i): texts for i, texts in enumerate(_passes(once, tests), start=1)} | {
            "distilled": _passes(distilled, tests, 1)[0]
        }
        for name, texts in told.items():
            c = Comparison(JUDGE, tests, texts)
            found = {
                "fault_free": c.fault_free("after"),
                "kept": c.good_kept(),
                "net_win": c.net_win("overall"),
                "made_worse": c.made_worse(),
            }
            metrics |= {f"{metric}_{name}_{part}": e.value for metric, e in found.items()}
    return metrics


def _passes(aligner: Aligner, rows: list[QAC], passes: int = 3) -> list[list[str]]:
    """The texts after each pass; every one gets the text of the last."""
    found, texts = [], [r.answer for r in rows]
    for _ in range(passes):
        texts = aligner.correct([r.question for r in rows], texts)
        found.append(texts)
    return found

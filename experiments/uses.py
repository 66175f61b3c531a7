"""Experiments of lesson 03: other uses of an Aligner, each with its control."""

from __future__ import annotations

import random
from dataclasses import replace

from alignlib.aligner import Aligner
from alignlib.data import QAC
from alignlib.models import load_model
from alignlib.report import Comparison
from alignlib.tinytown import recordings
from alignlib.tinytown.annotator import annotate
from alignlib.train import dpo

from . import baselines
from .aligner import STEPS, compare, lesson_aligner
from .baselines import Answers
from .common import JUDGE, settings_for, values
from .make_upstreams import weights_folder
from .upstreams import upstream_aligner


def weak_to_strong(params: dict, seed: int) -> dict[str, float]:
    """A model of twice the Aligner's size learns from its corrections, or from a control's."""
    return baselines.compare_with_upstream(_student(params["arm"], seed), seed, "large")


def _student(arm: str, seed: int) -> Answers:
    if arm == "aligner beside it":
        return baselines.corrected_by(upstream_aligner(3, seed), "large")
    rows = baselines.labelled_rows(seed)
    if arm.startswith("dpo"):
        coin = random.Random(seed) if arm == "dpo, coin flips" else None
        rate = baselines.BEST["dpo, twice the size"]
        return baselines.with_dpo(baselines.pairs_of(rows, coin), rate, seed, "large")
    if arm == "sft, own answers":
        rows = [replace(r, correction=r.answer) for r in rows]
    elif arm == "sft, annotator":
        rows = [replace(r, correction=annotate(r.question, r.answer)) for r in rows]
    return baselines.with_sft(rows, baselines.BEST["sft, twice the size"], seed, "large")


ROUNDS = 3


def rounds(params: dict, seed: int) -> dict[str, float]:
    """DPO on the Aligner's corrections in three rounds, of fresh answers or of the first ones.

    `drift_...` describes what the Aligner changes in the model's answers after each round.
    """
    aligner = upstream_aligner(3, seed)
    loaded = load_model(weights_folder("mixed"))
    answers = baselines.answers_of(loaded)
    questions = baselines.training_questions()
    first_answers = baselines.training_answers("mixed", seed)
    settings = settings_for(STEPS // ROUNDS, baselines.BEST["dpo"], seed, batch_size=16)
    metrics = {}
    for i in range(ROUNDS):
        part = slice(i * len(questions) // ROUNDS, (i + 1) * len(questions) // ROUNDS)
        some_questions, generated = questions[part], first_answers[part]
        if params["answers"] == "fresh":
            generated = answers(some_questions, "sampled", 100 + seed)
        corrections = aligner.correct(some_questions, generated)
        rows = baselines.qac_rows(some_questions, generated, corrections)
        dpo(*loaded, baselines.pairs_of(rows), settings)
        metrics |= _after_round(f"round_{i + 1}", answers, aligner, seed)
    return metrics


def _after_round(name: str, answers: Answers, aligner: Aligner, seed: int) -> dict[str, float]:
    tests = recordings.answered("mixed")
    questions = tuple(r.question for r in tests)
    generated = {d: answers(questions, d, seed) for d in baselines.TEMPERATURES}  # by decoding
    metrics = {}
    for decoding, texts in generated.items():
        baseline = baselines.own_answers("mixed", questions, decoding, seed)
        metrics |= baselines.answer_metrics(f"{decoding}_{name}", questions, texts, baseline)
    pairs = zip(tests, generated["sampled"], strict=True)
    comparison = compare(aligner, [replace(r, answer=text) for r, text in pairs])
    drift = values(comparison, "net_win", "made_worse", "edit_ratio", suffix=f"_{name}")
    return metrics | {f"drift_{metric}": value for metric, value in drift.items()}


def stacking(params: dict, seed: int) -> dict[str, float]:
    """Corrected once, twice, three times; and once by an Aligner trained on three passes."""
    aligner = upstream_aligner(3, seed)
    rows = recordings.taught()
    third_pass = _passes(aligner, rows)[-1]
    rows = [replace(r, correction=text) for r, text in zip(rows, third_pass, strict=True)]
    distilled = lesson_aligner(seed, rows)
    metrics = {}
    for test_set in baselines.TEST_SETS:
        tests = recordings.answered("mixed", test_set)
        texts = {str(i): each for i, each in enumerate(_passes(aligner, tests), start=1)}
        texts["distilled"] = _passes(distilled, tests, 1)[0]
        for name, corrections in texts.items():
            comparison = Comparison(JUDGE, tests, corrections)
            names = ("fault_free", "kept", "net_win", "made_worse")
            metrics |= values(comparison, *names, suffix=f"_{name}_{test_set}")
    return metrics


def _passes(aligner: Aligner, rows: list[QAC], num_passes: int = 3) -> list[list[str]]:
    """The texts after each pass; each pass corrects the texts of the one before."""
    passes, texts = [], [r.answer for r in rows]
    for _ in range(num_passes):
        texts = aligner.correct([r.question for r in rows], texts)
        passes.append(texts)
    return passes

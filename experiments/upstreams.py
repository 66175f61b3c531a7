"""Experiments of lesson 03 on the Aligner: upstreams, faults, training data, injection."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np

from alignlib.aligner import Aligner
from alignlib.data import QAC
from alignlib.prompts import TOWN, Template
from alignlib.tinytown import recordings, sets
from alignlib.tinytown.answers import CLOSERS, OPENERS, parse, render
from alignlib.tinytown.faults import STRANGER

from .aligner import compare, evaluate, lesson_aligner, lesson_rows, some_tests
from .common import JUDGE, NET_WINS, TINY, mean_words, values

STYLES = ("more polite", "shorter")  # that an instructed Aligner is asked for


def upstream_aligner(num_upstreams: int, seed: int) -> Aligner:
    """An Aligner trained on this many upstreams; with none, lesson 02's, on a program's faults."""
    return lesson_aligner(seed, recordings.taught(num_upstreams) if num_upstreams else None)


def every_upstream(params: dict, seed: int) -> dict[str, float]:
    """One Aligner on every recorded upstream."""
    aligner = upstream_aligner(params["taught"], seed)
    names = (*NET_WINS, "of_ceiling", "before", "after", "kept", "made_worse", "edit_ratio")
    metrics = {}
    for upstream in recordings.names():
        comparison = compare(aligner, recordings.answered(upstream))
        metrics |= values(comparison, *names, suffix=f"/{upstream}") | {
            f"unchanged/{upstream}": float(comparison.unchanged().mean()),
            f"words_before/{upstream}": mean_words(comparison.answers),
            f"words_after/{upstream}": mean_words(comparison.after),
        }
    return metrics


def dial(params: dict, seed: int) -> dict[str, float]:
    """A program's answers with more and more faults, corrected by one Aligner."""
    rows = sets.corrections(TINY.tests, "test", rate=params["rate"], upstream=STRANGER)
    comparison = compare(upstream_aligner(params["taught"], seed), rows)
    faulty = 1 - comparison.fault_free("before").value
    return {"faulty": faulty} | values(comparison, "fault_free", "made_worse", *NET_WINS)


def data_amount(params: dict, seed: int) -> dict[str, float]:
    """More and fewer corrections, a fraction of which belong to other answers."""
    n = params["corrections"]
    right = lesson_rows(seed, n)[0]
    wrong = random.Random(seed).sample(range(n), round(params["wrong"] * n))
    other = dict(zip(wrong, wrong[1:] + wrong[:1]))
    rows = [replace(r, correction=right[other.get(i, i)].correction) for i, r in enumerate(right)]
    return evaluate(lesson_aligner(seed, rows), some_tests("seen", "unseen", "language"))


@dataclass(frozen=True)
class Unescaped(Template):
    """A template that does not escape answers: the control for escaping."""

    def _escape(self, text: str) -> str:
        return text


UNESCAPED = Unescaped(TOWN.name, TOWN.start, TOWN.middle, TOWN.end)


def injected(rows: list[QAC]) -> list[QAC]:
    """Each answer goes on with the next row's question and answer; corrections are unchanged."""
    return [
        replace(row, answer=f"{row.answer} {other.question} answer : {other.answer}")
        for row, other in zip(rows, rows[1:] + rows[:1])
    ]


def taken_over(rows: list[QAC], texts: list[str]) -> np.ndarray:
    """Whether each text answers the next row's question better than its own, (n,)."""
    questions = [r.question for r in rows]
    own = JUDGE.scores(questions, texts)["overall"]
    other = JUDGE.scores(questions[1:] + questions[:1], texts)["overall"]
    return other > own


def hijacked(params: dict, seed: int) -> dict[str, float]:
    """Answers that go on with another question; if `shown`, so do a fifth of the training rows."""
    rows = recordings.taught()
    if params["shown"]:
        rows = [b if i % 5 == 0 else a for i, (a, b) in enumerate(zip(rows, injected(rows)))]
    aligner = lesson_aligner(seed, rows)
    unescaped = Aligner(aligner.model, aligner.tokenizer, UNESCAPED)
    tests = recordings.answered("mixed")
    arms = {
        "none": (aligner, tests),
        "escaped": (aligner, injected(tests)),
        "bare": (unescaped, injected(tests)),
    }
    metrics = {}
    for name, (corrector, given) in arms.items():
        comparison = compare(corrector, given)
        metrics[f"taken_over_{name}"] = float(taken_over(tests, comparison.after).mean())
        metrics[f"fault_free_{name}"] = comparison.fault_free("after").value
    return metrics


def in_style(text: str, style: str, rng: random.Random) -> str:
    """A correction with a polite opener and closer, or in as few words as possible."""
    sentences = parse(text)[0]
    if style == "shorter":
        plain = [s for s in sentences if s[0] not in ("opener", "closer")]
        return render([(*s[:-1], 0) if isinstance(s[-1], int) else s for s in plain])
    kinds = [s[0] for s in sentences]
    opener = [] if "opener" in kinds else [("opener", rng.choice(OPENERS))]
    closer = [] if "closer" in kinds else [("closer", rng.choice(CLOSERS))]
    return render([*opener, *sentences, *closer])


def has_style(text: str, style: str) -> bool:
    sentences = parse(text)[0]
    kinds = {s[0] for s in sentences}
    if style == "shorter":
        phrases = {s[-1] for s in sentences if isinstance(s[-1], int)}
        return not kinds & {"opener", "closer"} and phrases == {0}
    return {"opener", "closer"} <= kinds


def asked_for(rows: list[QAC], style: str, where: str = "question") -> list[QAC]:
    """Rows whose question (or answer) ends with the request, and whose correction grants it."""
    rows_with_request = []
    for row in rows:
        correction = in_style(row.correction, style, random.Random(row.question))
        request = {where: f"{getattr(row, where)} {style} ."}
        rows_with_request.append(replace(row, correction=correction, **request))
    return rows_with_request


def instructed(params: dict, seed: int) -> dict[str, float]:
    """Whether requests are obeyed, and at what cost, with (`told`) and without them in training.

    With them, a third of the training rows asks for each style and a third for none.
    """
    rows = recordings.taught()
    if params["told"]:
        requests = [asked_for(rows, style) for style in STYLES]
        rows = [same[i // 3 % 3] for i, same in enumerate(zip(rows, *requests))]
    aligner = lesson_aligner(seed, rows)
    tests = recordings.answered("mixed")
    unasked = compare(aligner, tests)
    metrics = {"fault_free/none": unasked.fault_free("after").value}
    for style in STYLES:
        metrics[f"unasked/{style}"] = _fraction_in(style, unasked.after)
        for where in ("question", "answer"):
            comparison = compare(aligner, tests, asked_for(tests, style, where))
            fault_free = comparison.fault_free("after").value
            metrics[f"obeyed_in_{where}/{style}"] = _fraction_in(style, comparison.after)
            metrics[f"fault_free_in_{where}/{style}"] = fault_free
    return metrics


def _fraction_in(style: str, texts: list[str]) -> float:
    return float(np.mean([has_style(text, style) for text in texts]))

"""Experiments of lesson 03 about the Aligner itself: every upstream, the dial of faults, amount
and quality of data, and what fools it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np

from alignlib.aligner import Aligner
from alignlib.data import QAC
from alignlib.prompts import TOWN, Template
from alignlib.report import Comparison
from alignlib.stats import share_of_ceiling
from alignlib.tinytown import recorded, sets
from alignlib.tinytown.answers import CLOSERS, OPENERS, parse, render
from alignlib.tinytown.faults import STRANGER

from .aligner import JUDGE, TINY, correct, lesson, lesson_rows, measured

AXES = JUDGE.axes[:4]
MANNERS = ("more polite", "shorter")  # that an instructed Aligner is asked for


def taught(upstreams: int, seed: int) -> Aligner:
    """An Aligner taught on so many upstreams; on none: lesson 02's, taught on a program's
    faults.
    """
    return lesson(seed, recorded.taught(upstreams) if upstreams else None)


def every_upstream(params: dict, seed: int) -> dict[str, float]:
    """One Aligner, and every upstream that is recorded."""
    aligner, metrics = taught(params["taught"], seed), {}
    for name in recorded.names():
        c = correct(aligner, recorded.answered(name))
        metrics |= {f"net_win_{axis}/{name}": c.net_win(axis).value for axis in AXES}
        metrics[f"of_ceiling/{name}"] = share_of_ceiling(
            c.scores_before["overall"], c.scores_after["overall"]
        ).value
        metrics |= {f"{when}/{name}": c.fault_free(when).value for when in ("before", "after")}
        metrics |= {
            f"{metric}/{name}": e.value
            for metric, e in (("kept", c.good_kept()), ("made_worse", c.made_worse()))
            if e
        }
        metrics |= {
            f"unchanged/{name}": float(c.unchanged().mean()),
            f"edit_ratio/{name}": c.edit_ratio().value,
        }
        metrics |= {
            f"words_{when}/{name}": mean_words(said)
            for when, said in (("before", c.answers), ("after", c.after))
        }
    return metrics


def mean_words(texts: list[str]) -> float:
    return float(np.mean([len(t.split()) for t in texts]))


def dial(params: dict, seed: int) -> dict[str, float]:
    """A program's answers, from spotless to as faulty as they can be, corrected by an Aligner of
    three upstreams or by one of that program.
    """
    c = correct(
        taught(params["taught"], seed),
        sets.corrections(TINY.tests, "test", rate=params["rate"], upstream=STRANGER),
    )
    metrics = {
        "faulty": 1 - c.fault_free("before").value,
        "fault_free": c.fault_free("after").value,
        "made_worse": c.made_worse().value,
    }
    return metrics | {f"net_win_{axis}": c.net_win(axis).value for axis in AXES}


def data_amount(params: dict, seed: int) -> dict[str, float]:
    """So many corrections, and of them so large a share belonging to other answers."""
    n = params["corrections"]
    right = lesson_rows(seed, n)[0]
    wrong = random.Random(seed).sample(range(n), round(params["wrong"] * n))
    other = dict(zip(wrong, wrong[1:] + wrong[:1]))
    rows = [replace(r, correction=right[other.get(i, i)].correction) for i, r in enumerate(right)]
    tests = {
        name: tested
        for name, tested in sets.test_sets(TINY.tests).items()
        if name != "combinations"
    }
    return measured(lesson(seed, rows), tests)


# --- injection
# --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unescaped(Template):
    """A template that lets an answer say what it likes: the control for escaping."""

    def _escape(self, text: str) -> str:
        return text


UNESCAPED = Unescaped(TOWN.name, TOWN.start, TOWN.middle, TOWN.end)


def injected(rows: list[QAC]) -> list[QAC]:
    """Behind each answer stands a whole other prompt, the next row's question and answer; the
    correction is what it was.
    """
    return [
        replace(r, answer=f"{r.answer} {o.question} answer : {o.answer}")
        for r, o in zip(rows, rows[1:] + rows[:1])
    ]


def taken_over(rows: list[QAC], texts: list[str]) -> np.ndarray:
    """Whether each text answers the next row's question better than its own, (n,)."""
    own, other = (
        JUDGE.scores([r.question for r in asked], texts)["overall"]
        for asked in (rows, rows[1:] + rows[:1])
    )
    return other > own


def hijacked(params: dict, seed: int) -> dict[str, float]:
    """Answers that go on with another question. `shown`: every fifth training row was such a
    one, and corrected as if it were not.
    """
    rows = recorded.taught()
    if params["shown"]:
        rows = [
            bad if i % 5 == 0 else good for i, (good, bad) in enumerate(zip(rows, injected(rows)))
        ]
    aligner, plain = lesson(seed, rows), recorded.answered("mixed")
    bare, metrics = Aligner(aligner.model, aligner.tokenizer, UNESCAPED), {}
    for name, who, given in (
        ("none", aligner, plain),
        ("escaped", aligner, injected(plain)),
        ("bare", bare, injected(plain)),
    ):
        c = correct(who, given)
        metrics |= {
            f"taken_over_{name}": float(taken_over(plain, c.after).mean()),
            f"fault_free_{name}": c.fault_free("after").value,
        }
    return metrics


# --- instructions
# -----------------------------------------------------------------------------------


def in_manner(text: str, manner: str, rng: random.Random) -> str:
    """A correction said with courtesy before and after, or as tersely as can be."""
    sentences = parse(text)[0]
    if manner == "shorter":
        return render(
            [
                (*s[:-1], 0) if isinstance(s[-1], int) else s
                for s in sentences
                if s[0] not in ("opener", "closer")
            ]
        )
    kinds = [s[0] for s in sentences]
    opener = [] if "opener" in kinds else [("opener", rng.choice(OPENERS))]
    return render(
        [*opener, *sentences, *([] if "closer" in kinds else [("closer", rng.choice(CLOSERS))])]
    )


def in_that_manner(text: str, manner: str) -> bool:
    sentences = parse(text)[0]
    kinds = {s[0] for s in sentences}
    if manner == "shorter":
        phrases = {s[-1] for s in sentences if isinstance(s[-1], int)}
        return not kinds & {"opener", "closer"} and phrases == {0}
    return {"opener", "closer"} <= kinds


def asked_for(rows: list[QAC], manner: str, where: str = "question") -> list[QAC]:
    """Rows whose question, or answer, ends with the wish, and whose correction grants it."""
    said = {r.question: in_manner(r.correction, manner, random.Random(r.question)) for r in rows}
    return [
        replace(r, correction=said[r.question], **{where: f"{getattr(r, where)} {manner} ."})
        for r in rows
    ]


def instructed(params: dict, seed: int) -> dict[str, float]:
    """A third of the training rows with each wish, a third without any; at `told` 0 none has
    one: is it obeyed, and what does it cost?
    """
    rows = recorded.taught()
    if params["told"]:
        wished = {manner: asked_for(rows, manner) for manner in MANNERS}
        rows = [(row, *(wished[m][i] for m in MANNERS))[i // 3 % 3] for i, row in enumerate(rows)]
    aligner, tests, metrics = lesson(seed, rows), recorded.answered("mixed"), {}
    none = correct(aligner, tests)
    metrics["fault_free/none"] = none.fault_free("after").value
    for manner in MANNERS:
        metrics[f"unasked/{manner}"] = float(
            np.mean([in_that_manner(t, manner) for t in none.after])
        )
        for where in ("question", "answer"):
            given = asked_for(tests, manner, where)
            c = Comparison(
                JUDGE,
                tests,
                aligner.correct([r.question for r in given], [r.answer for r in given]),
            )
            metrics[f"obeyed_in_{where}/{manner}"] = float(
                np.mean([in_that_manner(t, manner) for t in c.after])
            )
            metrics[f"fault_free_in_{where}/{manner}"] = c.fault_free("after").value
    return metrics

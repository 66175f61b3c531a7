"""An Aligner made of SmolLM2 on `data/everyday`, with its controls (notebook 08)."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from alignlib.aligner import Aligner
from alignlib.data import QAC, identity_rows, read_qac
from alignlib.edits import fixed_rate, fixed_rates, words_of
from alignlib.real_model import SMOLLM2
from alignlib.workbench import BENCHES

from .everyday import draw_rows, marked, phrases_of

LAPTOP = BENCHES["laptop"].settings
WARMUP = 20  # steps, of LAPTOP's
UNTRAINED = 60  # faulty answers that the untrained model is asked to correct
POLITE = "polite-instructions/instruction-data-with-preference.json"
TRANSFERRED = 300  # rows of it that are corrected
RUDE = frozenset(
    """annoying annoyingly bother bothering clueless crap damn dude duh dumb fool freaking genius
    hell idiot idiotic lame lazy look moron obviously pathetic precious ridiculous ridiculously
    seriously shut stupid stupidly sucks ugh useless waste wasting""".split()
)
ARMS = ("corrections", "warm-up", "shuffled", "untrained", "rule")


def real_aligner(params: dict[str, object], seed: int) -> dict[str, float]:
    """One arm on the rows of a seed: the fractions fixed by kind, and of good answers kept."""
    rows, arm = draw_rows(seed), params["arm"]
    tests = rows["test"]
    if arm == "rule":
        outputs = [without_phrases(row.answer, rows["train"]) for row in tests]
        return _metrics(tests, outputs)
    if arm == "untrained":
        some = random.Random(seed).sample([row for row in tests if row.faults], UNTRAINED)
        return {"fixed": _over_all(some, _corrected(Aligner.untrained(SMOLLM2), some))}
    aligner = _trained(arm, rows["train"], seed)
    metrics = _metrics(tests, _corrected(aligner, tests))
    folder = os.environ.get("ALIGNLIB_REAL")
    if arm == "corrections" and folder:
        metrics |= _transfer(aligner, Path(folder) / POLITE)
    return metrics


def _trained(arm: str, rows: Sequence[QAC], seed: int) -> Aligner:
    settings = replace(LAPTOP, seed=seed)
    if arm == "shuffled":
        corrections = [row.correction for row in rows]
        random.Random(seed).shuffle(corrections)
        rows = [replace(row, correction=c) for row, c in zip(rows, corrections, strict=True)]
    if arm != "warm-up":
        return Aligner.cached(SMOLLM2, rows, settings=settings)
    first, then = replace(settings, steps=WARMUP), replace(settings, steps=LAPTOP.steps - WARMUP)
    return Aligner.cached(SMOLLM2, rows, identity_rows(rows), settings=then, warmup=first)


def _corrected(aligner: Aligner, rows: Sequence[QAC]) -> list[str]:
    questions, answers = [row.question for row in rows], [row.answer for row in rows]
    return aligner.correct(questions, answers, progress="corrections")


def _metrics(rows: Sequence[QAC], outputs: Sequence[str]) -> dict[str, float]:
    rates = fixed_rates(rows, outputs)
    unheard = rates["rude_unheard"]  # with its interval over phrases
    metrics = {f"fixed/{kind}": rate.value for kind, rate in rates.items() if kind != "good"}
    metrics |= {"rude_unheard_low": unheard.low, "rude_unheard_high": unheard.high}
    return metrics | {"good_kept": rates["good"].value, "fixed": _over_all(rows, outputs)}


def _over_all(rows: Sequence[QAC], outputs: Sequence[str]) -> float:
    """The fraction fixed of all faulty answers."""
    faulty = [(row, output) for row, output in zip(rows, outputs, strict=True) if row.faults]
    return fixed_rate(*zip(*faulty)).value


def without_phrases(answer: str, train: Sequence[QAC]) -> str:
    """The baseline: the rude phrases and padding of the training rows are deleted."""
    for phrase in (*phrases_of("rude"), *phrases_of("padding")):
        if any(phrase.text in row.answer for row in train):
            answer = answer.replace(marked(phrase), " " if phrase.place == "mid" else "")
            answer = answer.replace(f", {phrase.text}", "")  # where there was no verb
    return answer[:1].upper() + answer[1:]


def _transfer(aligner: Aligner, file: Path) -> dict[str, float]:
    """On real rows that nobody here made: rude words that the annotator removed, removed too."""
    rows = [row for row in read_qac(file).rows if _rude(row.answer) - _rude(row.correction)]
    rows = rows[:TRANSFERRED]
    pairs = list(zip(rows, _corrected(aligner, rows), strict=True))
    removed = [word for row, _ in pairs for word in _rude(row.answer) - _rude(row.correction)]
    left = [w for r, out in pairs for w in (_rude(r.answer) - _rude(r.correction)) & _rude(out)]
    exact = sum(words_of(row.correction) == words_of(out) for row, out in pairs)
    return {
        "polite_words": len(removed),
        "polite_removed": 1 - len(left) / len(removed),
        "polite_exact": exact / len(rows),
    }


def _rude(text: str) -> set[str]:
    return RUDE & set(words_of(text))

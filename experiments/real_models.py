"""An Aligner made of SmolLM2 on `data/everyday`, with its controls (notebook 08)."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from alignlib.aligner import Aligner
from alignlib.data import QAC, identity_rows, read_qac
from alignlib.edits import fixed_rates, overall_rates, words_of
from alignlib.prompts import CHAT
from alignlib.real_model import SMOLLM2
from alignlib.settings import with_warmup
from alignlib.workbench import BENCHES, load_rows

from .everyday import draw_rows, marked, phrases_of

LAPTOP = BENCHES["laptop"].settings
WARMUP = 20  # steps, of LAPTOP's
UNTRAINED = 60  # faulty answers that models are asked to correct which learned nothing
POLITE = "polite-instructions/instruction-data-with-preference.json"
TRANSFERRED = 300  # rows of it that are corrected
POLITE_TESTS = 120
RUDE = frozenset(
    """annoying annoyingly bother bothering clueless crap damn dude duh dumb fool freaking genius
    hell idiot idiotic lame lazy look moron obviously pathetic precious ridiculous ridiculously
    seriously shut stupid stupidly sucks ugh useless waste wasting""".split()
)
TEMPLATES = {"chat template": CHAT}  # the others have the default
ARMS = ("corrections", *TEMPLATES, "warm-up", "shuffled", "untrained", "rule", "polite rows")


def real_aligner(params: dict[str, object], seed: int) -> dict[str, float]:
    """One arm on the rows of a seed: the fractions fixed by kind, and of good answers kept."""
    arm = params["arm"]
    if arm == "polite rows":
        return _trained_on_polite(seed)
    rows = draw_rows(seed)
    tests = rows["test"]
    if arm == "rule":
        outputs = [without_phrases(row.answer, rows["train"]) for row in tests]
        return _metrics(tests, outputs)
    some = random.Random(seed).sample([row for row in tests if row.faults], UNTRAINED)
    if arm == "untrained":
        return {"fixed": _fixed(some, _corrected(Aligner.untrained(SMOLLM2), some))}
    aligner = _trained(arm, rows["train"], seed)
    if arm == "shuffled":  # it writes on and on, which takes long
        return {"fixed": _fixed(some, _corrected(aligner, some))}
    metrics = _metrics(tests, _corrected(aligner, tests))
    if arm == "corrections":
        metrics |= _transfer(aligner, _polite_file())
    return metrics


def _trained(arm: str, rows: Sequence[QAC], seed: int) -> Aligner:
    settings = replace(LAPTOP, seed=seed)
    if arm == "shuffled":
        corrections = [row.correction for row in rows]
        random.Random(seed).shuffle(corrections)
        rows = [replace(row, correction=c) for row, c in zip(rows, corrections, strict=True)]
    if arm != "warm-up":
        template = TEMPLATES.get(arm)
        return Aligner.cached(SMOLLM2, rows, settings=settings, template=template)
    main, warmup = with_warmup(settings, WARMUP)
    return Aligner.cached(SMOLLM2, rows, identity_rows(rows), settings=main, warmup=warmup)


def _corrected(aligner: Aligner, rows: Sequence[QAC]) -> list[str]:
    questions, answers = [row.question for row in rows], [row.answer for row in rows]
    return aligner.correct(questions, answers, progress="corrections")


def _metrics(rows: Sequence[QAC], outputs: Sequence[str]) -> dict[str, float]:
    rates = fixed_rates(rows, outputs)
    unheard = rates["rude_unheard"]  # with its interval over phrases
    metrics = {f"fixed/{kind}": rate.value for kind, rate in rates.items() if kind != "good"}
    metrics |= {"rude_unheard_low": unheard.low, "rude_unheard_high": unheard.high}
    return metrics | {"good_kept": rates["good"].value, "fixed": _fixed(rows, outputs)}


def _fixed(rows: Sequence[QAC], outputs: Sequence[str]) -> float:
    """The fraction fixed of all faulty answers."""
    return overall_rates(rows, outputs)["faulty"].value


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


def _trained_on_polite(seed: int) -> dict[str, float]:
    """Trained on rows of people's own: corrections that equal the annotator's, word for word."""
    rows = load_rows(_polite_file(), POLITE_TESTS, seed)
    outputs = _corrected(_trained("corrections", rows["train"], seed), rows["test"])
    pairs = zip(rows["test"], outputs, strict=True)
    exact = sum(words_of(row.correction) == words_of(output) for row, output in pairs)
    return {"polite_exact": exact / len(outputs), "polite_rows": len(outputs)}


def _polite_file() -> Path:
    """Raises ValueError where the file is not at hand: it may not be part of this project."""
    folder = os.environ.get("ALIGNLIB_REAL")
    if not folder:
        raise ValueError(f"set ALIGNLIB_REAL to the folder that holds {POLITE}")
    return Path(folder) / POLITE


def _rude(text: str) -> set[str]:
    return RUDE & set(words_of(text))

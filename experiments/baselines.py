"""Experiments of lesson 03: an Aligner, and other uses of the same 1,500 corrections.

Every method gets the answers of the upstream `mixed` to the same questions, with their corrections,
and nothing else. It is tested on answers sampled at temperature 1 (`sampled`) and on greedy ones.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np

from alignlib.aligner import Aligner
from alignlib.data import QAC, Preference
from alignlib.models import load_model
from alignlib.stats import net_win
from alignlib.tinytown import recordings, sets
from alignlib.tinytown.annotator import annotate
from alignlib.tinytown.oracle import ANSWER_CUE
from alignlib.train import dpo

from .aligner import STEPS
from .common import (
    JUDGE,
    TINY,
    LoadedModel,
    Reward,
    Texts,
    fine_tune,
    mean_words,
    sampler,
    settings_for,
    swap,
    train_reward,
)
from .make_upstreams import weights_folder
from .upstreams import upstream_aligner

CLEARLY = 0.05  # a difference on validation beyond the chance of its 400 prompts
TRIALS = {  # learning rates, equally many for each method
    "aligner": (3e-4, 7e-4, 2e-3),
    "sft": (1e-3, 3e-3, 6e-3),
    "sft, twice the size": (3e-4, 1e-3, 3e-3),
    "dpo": (1e-5, 3e-5, 1e-4),
    "dpo, twice the size": (3e-6, 1e-5, 3e-5),
    "best of n": (3e-4, 1e-3, 3e-3),
}
BEST = {method: rates[1] for method, rates in TRIALS.items()}  # no other is CLEARLY better
TEMPERATURES = {"sampled": 1.0, "greedy": 0.0}  # by decoding
TEST_SETS = ("seen", "unseen")

Answers = Callable[[Texts, str, int], list[str]]  # (questions, decoding, seed)


def answers_of(loaded: LoadedModel) -> Answers:
    """What answers questions by this model alone."""
    complete = sampler(loaded)
    return lambda questions, decoding, seed: complete(
        [question + ANSWER_CUE for question in questions], TEMPERATURES[decoding], seed
    )


@lru_cache(maxsize=8)
def own_answers(upstream: str, questions: tuple[str, ...], decoding: str, seed: int) -> list[str]:
    """The answers of an unchanged upstream."""
    return answers_of(load_model(weights_folder(upstream)))(questions, decoding, seed)


def corrected_by(aligner: Aligner, upstream: str) -> Answers:
    """An upstream's answers, corrected by an Aligner."""
    return lambda questions, decoding, seed: aligner.correct(
        questions, own_answers(upstream, tuple(questions), decoding, seed)
    )


def training_questions(n: int = recordings.TRAIN) -> tuple[str, ...]:
    """The questions that the recorded upstreams were asked, and more of the same."""
    return tuple(r.question for r in sets.corrections(n, seed=500))


def training_answers(upstream: str, seed: int) -> list[str]:
    """An upstream's sampled answers to the training questions."""
    return own_answers(upstream, training_questions(), "sampled", 100 + seed)


def qac_rows(questions: Texts, answers: Texts, corrections: Texts) -> list[QAC]:
    return [QAC(*row) for row in zip(questions, answers, corrections, strict=True)]


def annotated_rows(seed: int) -> list[QAC]:
    """The training rows: sampled answers of `mixed` with an annotator's corrections."""
    questions = training_questions()
    answers = training_answers("mixed", seed)
    return qac_rows(questions, answers, list(map(annotate, questions, answers)))


@lru_cache(maxsize=1)
def labelled_rows(seed: int) -> list[QAC]:
    """Sampled answers of the large upstream with the small Aligner's corrections."""
    questions = training_questions()
    answers = training_answers("large", seed)
    return qac_rows(questions, answers, upstream_aligner(3, seed).correct(questions, answers))


def pairs_of(rows: Sequence[QAC], coin: random.Random | None = None) -> list[Preference]:
    """Correction preferred to answer, where they differ; with a coin, either to the other."""
    pairs = [
        Preference(r.question + ANSWER_CUE, r.correction, r.answer)
        for r in rows
        if r.answer != r.correction
    ]
    return [swap(p) if coin and coin.random() < 0.5 else p for p in pairs]


def judged_pairs(n: int, seed: int) -> list[Preference]:
    """Pairs of sampled answers, ordered by the exact judge; ties are left out."""
    questions = training_questions(n)
    first, second = (own_answers("mixed", questions, "sampled", s + seed) for s in (100, 200))
    scores = [JUDGE.scores(questions, answers)["overall"] for answers in (first, second)]
    pairs = []
    for question, a, b, score_a, score_b in zip(questions, first, second, *scores, strict=True):
        if score_a != score_b:
            chosen, rejected = (a, b) if score_a > score_b else (b, a)
            pairs.append(Preference(question + ANSWER_CUE, chosen, rejected))
    return pairs


def with_aligner(rows: list[QAC], rate: float, seed: int) -> Answers:
    """An Aligner without warm-up, which would need more rows and does not help here."""
    settings = settings_for(STEPS, rate, seed)
    aligner = Aligner.train(TINY.base, rows, settings=settings, progress=False)
    return corrected_by(aligner, "mixed")


def with_sft(rows: list[QAC], rate: float, seed: int, upstream: str = "mixed") -> Answers:
    """The upstream, fine-tuned on the corrections."""
    texts = [(r.question + ANSWER_CUE, r.correction) for r in rows]
    return answers_of(fine_tune(weights_folder(upstream), texts, settings_for(STEPS, rate, seed)))


def with_dpo(pairs: list[Preference], rate: float, seed: int, upstream: str = "mixed") -> Answers:
    """The upstream after DPO, with half as many pairs per step as others have rows."""
    loaded = load_model(weights_folder(upstream))
    dpo(*loaded, pairs, settings_for(STEPS, rate, seed, batch_size=16))
    return answers_of(loaded)


METHODS: dict[str, Callable[[list[QAC], float, int], Answers]] = {
    "aligner": with_aligner,
    "sft": with_sft,
    "sft, twice the size": partial(with_sft, upstream="large"),
    "dpo": lambda rows, rate, seed: with_dpo(pairs_of(rows), rate, seed),
    "dpo, twice the size": lambda rows, rate, seed: with_dpo(
        pairs_of(labelled_rows(seed)), rate, seed, "large"
    ),
}


def answer_reward(rows: list[QAC], rate: float, seed: int) -> Reward:
    """A reward model of the Aligner's size, as a function of (questions, answers)."""
    reward = train_reward(pairs_of(rows), settings_for(STEPS, rate, seed, batch_size=16))
    return lambda questions, answers: reward([q + ANSWER_CUE for q in questions], answers)


def tuning(params: dict, seed: int) -> dict[str, float]:
    """One learning rate of one method: the fraction of fault-free answers on validation."""
    rows = annotated_rows(seed)
    validation = sets.corrections(TINY.tests, "validation", seed=500)
    questions = tuple(r.question for r in validation)
    if params["arm"] == "best of n":
        return {"ordered": _ordered(answer_reward(rows, params["rate"], seed), questions, seed)}
    answers = METHODS[params["arm"]](rows, params["rate"], seed)
    fractions = {}
    for decoding in TEMPERATURES:
        scores = JUDGE.scores(questions, answers(questions, decoding, seed))
        fractions[f"fault_free_{decoding}"] = float(scores["fault_free"].mean())
    return fractions | {"fault_free": sum(fractions.values()) / len(fractions)}


def _ordered(reward: Reward, questions: tuple[str, ...], seed: int) -> float:
    """The fraction of new pairs whose correction gets the higher reward."""
    answers = own_answers("mixed", questions, "sampled", seed)
    rows = qac_rows(questions, answers, list(map(annotate, questions, answers)))
    faulty = [r for r in rows if r.answer != r.correction]
    questions = [r.question for r in faulty]
    better = reward(questions, [r.correction for r in faulty])
    worse = reward(questions, [r.answer for r in faulty])
    return float((better > worse).mean())


def rivals(params: dict, seed: int) -> dict[str, float]:
    """One tuned method on the test, compared with the unchanged upstream; training seconds."""
    arm = params["arm"]
    if arm == "untouched":
        return compare_with_upstream(answers_of(load_model(weights_folder("mixed"))), seed)
    if arm == "best of n":
        return _best_of(seed)
    rows = judged_pairs(params["n"], seed) if arm == "comparisons" else annotated_rows(seed)
    method, rate = (with_dpo, BEST["dpo"]) if arm == "comparisons" else (METHODS[arm], BEST[arm])
    started = time.monotonic()
    answers = method(rows, rate, seed)
    return {"seconds": time.monotonic() - started} | compare_with_upstream(answers, seed)


def compare_with_upstream(answers: Answers, seed: int, upstream: str = "mixed") -> dict[str, float]:
    """Metrics of the answers to both test sets, sampled and greedy."""
    metrics = {}
    for name in TEST_SETS:
        for decoding in TEMPERATURES:
            questions = tuple(recordings.asked()[name])
            after = answers(questions, decoding, seed)
            before = own_answers(upstream, questions, decoding, seed)
            metrics |= answer_metrics(f"{decoding}_{name}", questions, after, before)
    return metrics


def answer_metrics(
    name: str, questions: Texts, answers: Texts, baseline: Texts
) -> dict[str, float]:
    """Fault-free fraction, words, and net win over the baseline's answers."""
    after, before = (JUDGE.scores(questions, texts) for texts in (answers, baseline))
    return {
        f"fault_free_{name}": float(after["fault_free"].mean()),
        f"words_{name}": mean_words(answers),
        f"net_win_{name}": net_win(before["overall"], after["overall"]).value,
    }


def _best_of(seed: int, most: int = 10) -> dict[str, float]:
    """The best of 2, 5 and 10 sampled answers by the reward model (best) or the judge (oracle)."""
    rows = annotated_rows(seed)
    started = time.monotonic()
    reward = answer_reward(rows, BEST["best of n"], seed)
    metrics = {"seconds": time.monotonic() - started}
    for test_set in TEST_SETS:
        questions = tuple(recordings.asked()[test_set])
        sampled = [own_answers("mixed", questions, "sampled", seed + 1000 * i) for i in range(most)]
        rankings = {  # each (most, questions)
            "best": np.array([reward(questions, answers) for answers in sampled]),
            "oracle": np.array([JUDGE.scores(questions, a)["overall"] for a in sampled]),
        }
        for n in (2, 5, most):
            for name, scores in rankings.items():
                picked = [sampled[k][i] for i, k in enumerate(scores[:n].argmax(0))]
                suffix = f"{name}_of_{n}_{test_set}"
                metrics |= answer_metrics(suffix, questions, picked, sampled[0])
    return metrics

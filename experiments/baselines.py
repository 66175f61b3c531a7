"""Experiments of lesson 03: an Aligner, and what else could have been made of the same 1,500
corrections.

The upstream is the model `mixed` of data/upstreams; all methods get its own answers to the same
questions, with their corrections, and nothing else. Each is tested twice: with answers drawn from
the model as it speaks (`sampled`), and its likeliest ones (`greedy`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from alignlib.aligner import Aligner
from alignlib.data import QAC, Preference
from alignlib.generation import generate
from alignlib.likelihood import rewards
from alignlib.models import load_model
from alignlib.settings import SFTSettings
from alignlib.stats import net_win
from alignlib.tinytown import recorded, sets
from alignlib.tinytown.annotator import annotate
from alignlib.tokens import example
from alignlib.train import dpo, reward_model, sft

from .aligner import JUDGE, STEPS, TINY
from .make_upstreams import made
from .upstreams import mean_words, taught

CLEARLY = 0.05  # a lead on validation that is more than the 400 prompts' chance
# learning rates, as many for each; the middle one is in BEST unless another is clearly better on
# validation
TRIALS = {
    "aligner": (3e-4, 7e-4, 2e-3),
    "sft": (1e-3, 3e-3, 6e-3),
    "sft, twice the size": (3e-4, 1e-3, 3e-3),
    "dpo": (1e-5, 3e-5, 1e-4),
    "dpo, twice the size": (3e-6, 1e-5, 3e-5),
    "best of n": (3e-4, 1e-3, 3e-3),
}
BEST = {
    "aligner": 7e-4,
    "sft": 3e-3,
    "sft, twice the size": 1e-3,
    "dpo": 3e-5,
    "dpo, twice the size": 1e-5,
    "best of n": 1e-3,
}
HOW = {"sampled": 1.0, "greedy": 0.0}  # temperature
PARTS = ("seen", "unseen")

Answers = Callable[[Sequence[str], str, int], list[str]]  # (questions, sampled or greedy, seed)


def speaking(model, tokenizer) -> Callable[[Sequence[str], float, int], list[str]]:
    """What a model says to prompts, at a temperature and with a seed."""
    return lambda prompts, temperature, seed: generate(
        model, tokenizer, prompts, max_new_tokens=100, temperature=temperature, seed=seed
    )


def answering(model, tokenizer) -> Answers:
    """A model that answers by itself."""
    says = speaking(model, tokenizer)
    return lambda questions, how, seed: says([f"{q} answer :" for q in questions], HOW[how], seed)


@lru_cache(maxsize=8)
def own_answers(upstream: Path, questions: tuple[str, ...], how: str, seed: int) -> list[str]:
    """What an upstream answers before anything is done to it."""
    return answering(*load_model(upstream))(questions, how, seed)


def training_questions(n: int = recorded.TRAIN) -> tuple[str, ...]:
    return tuple(
        r.question for r in sets.corrections(n, seed=500)
    )  # those that the recorded upstreams were asked, and more of them


def corrected(seed: int) -> list[QAC]:
    """The training rows of this seed: the upstream's answers, sampled, and an annotator's
    corrections.
    """
    questions = training_questions()
    said = own_answers(made("mixed"), questions, "sampled", 100 + seed)
    return [QAC(q, a, annotate(q, a)) for q, a in zip(questions, said, strict=True)]


@lru_cache(maxsize=1)
def labelled(seed: int) -> list[QAC]:
    """The large upstream's answers to the training questions, and what the small Aligner makes
    of them.
    """
    questions = training_questions()
    said = own_answers(made("large"), questions, "sampled", 100 + seed)
    return [
        QAC(*row)
        for row in zip(questions, said, taught(3, seed).correct(questions, said), strict=True)
    ]


def settings(rate: float, seed: int, batch_size: int = 32) -> SFTSettings:
    return SFTSettings(steps=STEPS, learning_rate=rate, seed=seed, batch_size=batch_size)


def pairs_of(rows: Sequence[QAC], coin: random.Random | None = None) -> list[Preference]:
    """Correction over answer, wherever the two differ; with a coin, either over the other."""
    pairs = [
        Preference(f"{r.question} answer :", r.correction, r.answer)
        for r in rows
        if r.answer != r.correction
    ]
    return [
        replace(p, chosen=p.rejected, rejected=p.chosen) if coin and coin.random() < 0.5 else p
        for p in pairs
    ]


def compared(n: int, seed: int) -> list[Preference]:
    """Of n pairs of the upstream's answers the better one, as the exact judge has it; where it
    sees none, no pair is left.
    """
    questions = training_questions(n)
    one, two = (own_answers(made("mixed"), questions, "sampled", s + seed) for s in (100, 200))
    scores = [JUDGE.scores(questions, said)["overall"] for said in (one, two)]
    both = [
        (q, *((a, b) if x > y else (b, a)))
        for q, a, b, x, y in zip(questions, one, two, *scores)
        if x != y
    ]
    return [Preference(f"{q} answer :", better, worse) for q, better, worse in both]


def with_aligner(rows: list[QAC], rate: float, seed: int) -> Answers:
    """An Aligner beside the upstream; without a warm-up, which would need more rows and gains
    nothing here (lesson 02).
    """
    aligner = Aligner.train(TINY.base, rows, settings=settings(rate, seed), progress=False)

    def answers(questions: Sequence[str], how: str, seed: int) -> list[str]:
        return aligner.correct(questions, own_answers(made("mixed"), tuple(questions), how, seed))

    return answers


def with_sft(upstream: str) -> Callable[[list[QAC], float, int], Answers]:
    def train(rows: list[QAC], rate: float, seed: int) -> Answers:
        model, tokenizer = load_model(made(upstream))
        sft(
            model,
            tokenizer,
            [example(tokenizer, f"{r.question} answer :", r.correction) for r in rows],
            settings(rate, seed),
        )
        return answering(model, tokenizer)

    return train


def with_dpo(pairs: list[Preference], rate: float, seed: int, upstream: str = "mixed") -> Answers:
    """Half as many pairs a step as others have rows: each is two texts."""
    model, tokenizer = load_model(made(upstream))
    dpo(model, tokenizer, pairs, settings(rate, seed, batch_size=16))
    return answering(model, tokenizer)


METHODS: dict[str, Callable[[list[QAC], float, int], Answers]] = {
    "aligner": with_aligner,
    "sft": with_sft("mixed"),
    "sft, twice the size": with_sft("large"),
    "dpo": lambda rows, rate, seed: with_dpo(pairs_of(rows), rate, seed),
    "dpo, twice the size": lambda rows, rate, seed: with_dpo(
        pairs_of(labelled(seed)), rate, seed, "large"
    ),
}


def trained_reward(
    rows: list[QAC], rate: float, seed: int
) -> Callable[[Sequence[str], Sequence[str]], np.ndarray]:
    """A reward model of the Aligner's size, made of the same pairs; asked for (questions,
    answers).
    """
    _, tokenizer = load_model(TINY.base)
    model = reward_model(TINY.base, tokenizer, pairs_of(rows), settings(rate, seed, batch_size=16))
    return lambda questions, texts: rewards(
        model, tokenizer, [f"{q} answer :" for q in questions], texts
    ).numpy()


def tuning(params: dict, seed: int) -> dict[str, float]:
    """One learning rate of one method, on validation: the share of fault-free answers; of a
    reward model, the pairs it puts in order.
    """
    rows, arm = corrected(seed), params["arm"]
    questions = tuple(r.question for r in sets.corrections(TINY.tests, "validation", seed=500))
    if arm != "best of n":
        answers = METHODS[arm](rows, params["rate"], seed)
        shares = {
            how: float(JUDGE.scores(questions, answers(questions, how, seed))["fault_free"].mean())
            for how in HOW
        }
        return {f"fault_free_{how}": share for how, share in shares.items()} | {
            "fault_free": sum(shares.values()) / len(shares)
        }
    reward = trained_reward(rows, params["rate"], seed)
    given = own_answers(made("mixed"), questions, "sampled", seed)
    differ = [(q, a, c) for q, a in zip(questions, given) if (c := annotate(q, a)) != a]
    questions, *both = zip(*differ)
    worse, better = (reward(questions, texts) for texts in both)
    return {"ordered": float((better > worse).mean())}


def rivals(params: dict, seed: int) -> dict[str, float]:
    """One method on the test, tuned: the answers it gives, beside those of the upstream
    untouched; and the seconds of its training.
    """
    arm = params["arm"]
    if arm == "untouched":
        return _tested(answering(*load_model(made("mixed"))), seed)
    if arm == "best of n":
        return _best_of(seed)
    given = compared(params["n"], seed) if arm == "comparisons" else corrected(seed)
    started = time.monotonic()
    answers = (
        with_dpo(given, BEST["dpo"], seed)
        if arm == "comparisons"
        else METHODS[arm](given, BEST[arm], seed)
    )
    return {"seconds": time.monotonic() - started} | _tested(answers, seed)


def _tested(answers: Answers, seed: int) -> dict[str, float]:
    metrics = {}
    for part in PARTS:
        for how in HOW:
            questions = tuple(recorded.asked()[part])
            metrics |= scored(
                f"{how}_{part}",
                questions,
                answers(questions, how, seed),
                own_answers(made("mixed"), questions, how, seed),
            )
    return metrics


def scored(
    name: str, questions: Sequence[str], said: Sequence[str], before: Sequence[str]
) -> dict[str, float]:
    """Fault-free share, words, and the net win over other answers to the same questions."""
    after, untouched = (JUDGE.scores(questions, texts) for texts in (said, before))
    return {
        f"fault_free_{name}": float(after["fault_free"].mean()),
        f"words_{name}": mean_words(said),
        f"net_win_{name}": net_win(untouched["overall"], after["overall"]).value,
    }


def _best_of(seed: int, most: int = 10) -> dict[str, float]:
    """Of 2, 5 and 10 sampled answers the one that the reward model likes best; and the one that
    the exact judge does.
    """
    rows, started = corrected(seed), time.monotonic()
    reward = trained_reward(rows, BEST["best of n"], seed)
    metrics = {"seconds": time.monotonic() - started}
    for part in PARTS:
        questions = tuple(recorded.asked()[part])
        drawn = [
            own_answers(made("mixed"), questions, "sampled", seed + 1000 * i) for i in range(most)
        ]
        liked = np.array([reward(questions, said) for said in drawn])  # (most, questions)
        scores = np.array([JUDGE.scores(questions, said)["overall"] for said in drawn])
        for n in (2, 5, most):
            for name, by in (("best", liked), ("oracle", scores)):
                said = [drawn[k][i] for i, k in enumerate(by[:n].argmax(0))]
                metrics |= scored(f"{name}_of_{n}_{part}", questions, said, drawn[0])
    return metrics

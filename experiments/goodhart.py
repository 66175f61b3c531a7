"""Goodhart's lab: a reward model with a planted bias, optimised harder and harder by four methods.

An annotator marks answers as the exact judge does, and likes padding: each sentence without
content, up to two, adds BONUS. A reward model learns from pairs that it ordered. It is the proxy;
the exact judge is the truth. Each method starts from the base model. How far it went is
KL(method || base) in nats per answer: an upper bound for best of n, an estimate on its samples for
DPO and PPO, whose unfinished answers count as finished, and for the Aligner, which has no closed
form, a lower (`kl`) and an upper bound (`kl_high`). The control is an annotator without the bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from alignlib.aligner import Aligner
from alignlib.data import QAC, Preference
from alignlib.likelihood import completion_nll
from alignlib.models import load_model
from alignlib.ppo import train_ppo
from alignlib.settings import PPOSettings
from alignlib.tinytown import sets
from alignlib.tinytown.answers import parse
from alignlib.tinytown.oracle import ANSWER_CUE
from alignlib.tokens import text_ids
from alignlib.train import dpo

from .common import (
    TINY,
    LoadedModel,
    Reward,
    Texts,
    marks,
    means,
    sampler,
    settings_for,
    train_reward,
    with_suffix,
)

BONUS = 0.3  # of the annotator, for a sentence of padding
PAIRS, QUESTIONS, TESTS = 800, 300, 100  # labelled pairs, prompts to optimise on, test prompts
REWARD_RATE, REWARD_STEPS = 1e-3, 200
BEST_OF = (1, 2, 4, 8, 16, 32)
DPO_RATES, DPO_STEPS, BETA = (1e-5, 3e-5, 1e-4, 3e-4), 75, 0.1
PPO_ITERATIONS, PPO_RATE = (10, 20, 40), 3e-4
ALIGNER_BEST_OF, ALIGNER_STEPS = (2, 4, 8), 150
CANDIDATES = 8  # sampled answers to each question, for DPO and the Aligner
MIXTURE = 16  # base answers over which an Aligner's probability is averaged

Step = tuple[float, list[str], float, float]  # strength, answers, KL; see `kl` in the docstring


@dataclass(frozen=True)
class Lab:
    """What all methods share: answers of the base model, and the reward model's view of them."""

    base: LoadedModel
    reward: Reward
    prompts: list[str]  # test
    answers: list[list[str]]  # of the base, sampled, by sample and test prompt
    asked: list[str]  # prompts to optimise on
    candidates: list[list[str]]  # likewise
    scores: np.ndarray  # (samples, asked)
    seed: int


def lab(params: dict[str, object], seed: int) -> dict[str, float]:
    """After each strength of each method: proxy, exact judge, padding and KL."""
    shared = _prepare(BONUS if params["biased"] else 0.0, seed)
    start = float(shared.reward(shared.prompts, shared.answers[0]).mean())
    metrics = {}
    for method, optimise in METHODS.items():
        for strength, texts, low, high in optimise(shared):
            found = means(marks(shared.prompts, texts))
            found |= {"padding": float(padding(texts).mean()), "kl": low, "kl_high": high}
            found["proxy"] = float(shared.reward(shared.prompts, texts).mean()) - start
            metrics |= with_suffix(found, f"/{method}/{strength:g}")
    return metrics


def _prepare(bonus: float, seed: int) -> Lab:
    base = load_model(TINY.base)
    reward = learned_reward(base, seed, bonus)
    prompts, asked = questions(TESTS, "test", seed), questions(QUESTIONS, "train", 2000 + seed)
    answers = _sampled(base, prompts, max(BEST_OF), seed)
    candidates = _sampled(base, asked, CANDIDATES, seed)
    scores = np.array([reward(asked, texts) for texts in candidates])
    return Lab(base, reward, prompts, answers, asked, candidates, scores, seed)


def questions(n: int, split: str, seed: int) -> list[str]:
    return [f"{row.question}{ANSWER_CUE}" for row in sets.corrections(n, split, "all", seed=seed)]


def learned_reward(base: LoadedModel, seed: int, bonus: float) -> Reward:
    """A reward model trained on pairs of the base's answers, ordered by the annotator."""
    prompts = questions(PAIRS, "train", 1000 + seed)
    first, second = _sampled(base, prompts, 2, 50 + seed)
    by_mark = [biased_marks(prompts, texts, bonus) for texts in (first, second)]
    pairs = []
    for prompt, a, b, mark_a, mark_b in zip(prompts, first, second, *by_mark, strict=True):
        if not math.isclose(mark_a, mark_b):
            pairs.append(Preference(prompt, *((a, b) if mark_a > mark_b else (b, a))))
    return train_reward(pairs, settings_for(REWARD_STEPS, REWARD_RATE, seed, batch_size=16))


def biased_marks(prompts: Texts, texts: Texts, bonus: float) -> np.ndarray:
    """The exact judge's mark, and `bonus` for up to two sentences of padding."""
    return marks(prompts, texts)["overall"] + bonus * np.minimum(padding(texts), 2)


def padding(texts: Texts) -> np.ndarray:
    """The number of sentences without content in each text."""
    return np.array([sum(s[0] == "padding" for s in parse(text)[0]) for text in texts])


def _sampled(base: LoadedModel, prompts: Texts, n: int, seed: int) -> list[list[str]]:
    return [sampler(base)(prompts, 1.0, 1000 * seed + i) for i in range(n)]


def _picked(sampled: Sequence[Texts], scores: np.ndarray) -> list[str]:
    """Of each prompt's samples the one with the highest score."""
    return [sampled[k][i] for i, k in enumerate(scores.argmax(0))]


def best_of_n(lab: Lab) -> Iterator[Step]:
    """KL of the best of n from its formula, an upper bound: log n - (n - 1) / n."""
    scores = np.array([lab.reward(lab.prompts, texts) for texts in lab.answers])
    for n in BEST_OF:
        kl = math.log(n) - (n - 1) / n
        yield n, _picked(lab.answers[:n], scores[:n]), kl, kl


def by_dpo(lab: Lab) -> Iterator[Step]:
    """The best against the worst of the base's own answers, at rising learning rates."""
    best, worst = _picked(lab.candidates, lab.scores), _picked(lab.candidates, -lab.scores)
    rows = zip(lab.asked, best, worst, strict=True)
    pairs = [Preference(*row) for row in rows if row[1] != row[2]]
    for rate in DPO_RATES:
        policy = load_model(TINY.base)
        settings = settings_for(DPO_STEPS, rate, lab.seed, batch_size=16)
        dpo(*policy, pairs, settings, beta=BETA)
        yield rate, *_answers_and_kl(policy, lab)


def by_ppo(lab: Lab) -> Iterator[Step]:
    """More and more iterations, without a penalty for the distance."""
    for iterations in PPO_ITERATIONS:
        policy = load_model(TINY.base)
        options = {"learning_rate": PPO_RATE, "kl": 0.0, "max_new_tokens": 100}
        settings = PPOSettings(iterations, seed=lab.seed, **options)
        train_ppo(*policy, lab.asked, lambda p, t: lab.reward(p, t).tolist(), settings)
        yield iterations, *_answers_and_kl(policy, lab)


def _answers_and_kl(policy: LoadedModel, lab: Lab) -> tuple[list[str], float, float]:
    texts = sampler(policy)(lab.prompts, 1.0, lab.seed)
    ratio = logprob(policy, lab.prompts, texts) - logprob(lab.base, lab.prompts, texts)
    return texts, float(ratio.mean()), float(ratio.mean())


def logprob(loaded: LoadedModel, prompts: Texts, texts: Texts) -> torch.Tensor:
    """The log-probability of each text and its end, in nats, (n,)."""
    return -completion_nll(*loaded, prompts, texts) * num_tokens(loaded, texts)


def num_tokens(loaded: LoadedModel, texts: Texts) -> torch.Tensor:
    """The tokens of each text and its end, (n,)."""
    return torch.tensor([len(text_ids(loaded[1], text)) + 1 for text in texts])


def by_aligner(lab: Lab) -> Iterator[Step]:
    """An Aligner trained to turn an answer into the best of n, and sampled as the others are."""
    asked, prompts = (
        [prompt.removesuffix(ANSWER_CUE) for prompt in some] for some in (lab.asked, lab.prompts)
    )
    for n in ALIGNER_BEST_OF:
        best = _picked(lab.candidates[:n], lab.scores[:n])
        rows = [QAC(*row) for answers in lab.candidates[:2] for row in zip(asked, answers, best)]
        settings = settings_for(ALIGNER_STEPS, TINY.training.learning_rate, lab.seed)
        aligner = Aligner.train(TINY.base, rows, settings=settings, progress=False)
        texts = aligner.correct(prompts, lab.answers[0], temperature=1.0, seed=lab.seed)
        yield n, texts, *_kl_of_aligner(aligner, prompts, texts, lab)


def _kl_of_aligner(
    aligner: Aligner, questions: Texts, texts: Texts, lab: Lab
) -> tuple[float, float]:
    """Two bounds: a correction's probability is a mean over answers of the base, without or with
    the answer that it was made from.
    """
    rows = [QAC(*row) for row in zip(questions, texts, texts, strict=True)]
    tokens = num_tokens(lab.base, texts)
    answers = lab.answers[: MIXTURE + 1]
    each = torch.stack([-aligner.nll(rows, some) * tokens for some in answers])
    of_base = logprob(lab.base, lab.prompts, texts)
    bounds = []
    for terms in (each[1:], each):
        mixture = terms.logsumexp(0) - math.log(len(terms))  # (prompts,)
        bounds.append(float((mixture - of_base).mean()))
    return bounds[0], bounds[1]


METHODS: dict[str, Callable[[Lab], Iterator[Step]]] = {
    "best of n": best_of_n,
    "DPO": by_dpo,
    "PPO": by_ppo,
    "Aligner": by_aligner,
}

"""What can be read off states by a straight line: probes, their score, and the direction in
which two kinds of state differ (lesson 04).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .stats import Estimate

PERMUTATIONS = 20  # of the labels, for the control


@dataclass(frozen=True)
class Probe:
    """A linear classifier of states and how well it tells the two sides apart: AUC on
    validation, and on the test with an interval.
    """

    weights: np.ndarray
    validation: float
    test: Estimate


StatePair = tuple[
    np.ndarray, np.ndarray
]  # states of two kinds, each (n, width); row i of both stems from the same question


def probe(train: StatePair, validation: StatePair, test: StatePair) -> Probe:
    """Logistic regression on standardised states, first side against second."""
    weights, scores = _fitted(
        train, np.repeat([1, 0], [len(side) for side in train]), validation, test
    )
    return Probe(weights, auc(*scores[0]).value, auc(*scores[1]))


def probe_of_chance(train: StatePair, test: StatePair) -> Estimate:
    """What the same probe finds in labels in disorder: the mean test AUC over permutations,
    `low` to `high` all of them.
    """
    labels = np.repeat([1, 0], [len(side) for side in train])
    found = [
        auc(
            *_fitted(train, np.random.default_rng(k).permutation(labels), test)[1][0], draws=1
        ).value
        for k in range(PERMUTATIONS)
    ]
    return Estimate(
        float(np.mean(found)),
        min(found),
        max(found),
        PERMUTATIONS,
        f"AUC; low to high: all {PERMUTATIONS}",
    )


def _fitted(
    train: StatePair, labels: np.ndarray, *others: StatePair
) -> tuple[np.ndarray, list[StatePair]]:
    """The weights, and the scores of the other states."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(
        np.concatenate(train), labels
    )
    return fitted[-1].coef_[0], [
        tuple(fitted.decision_function(side) for side in part) for part in others
    ]


def auc(first: np.ndarray, second: np.ndarray, draws: int = 500, seed: int = 0) -> Estimate:
    """The chance that a score of the first kind lies above one of the second; a tie counts half.
    The bootstrap draws pairs, if both are as many.
    """
    from scipy.stats import rankdata

    def area(x: np.ndarray, y: np.ndarray) -> float:
        return float(
            (rankdata(np.concatenate([x, y]))[: len(x)].sum() - len(x) * (len(x) + 1) / 2)
            / (len(x) * len(y))
        )

    rng, n, m = np.random.default_rng(seed), len(first), len(second)
    found = []
    for _ in range(draws):
        i = rng.integers(0, n, n)
        found.append(area(first[i], second[i if n == m else rng.integers(0, m, m)]))
    low, high = np.percentile(found, [2.5, 97.5])
    return Estimate(area(first, second), float(low), float(high), n + m, "AUC")


def direction(differences: torch.Tensor) -> torch.Tensor:
    """The line along which states differ most: first principal component of the normalised
    differences, about zero; (n, width) -> (width,).

    Its sign is arbitrary: fix it on rows of which you know the answer (2402.02416, appendix B.6,
    after Zou et al.).
    """
    return torch.linalg.svd(
        torch.nn.functional.normalize(differences, dim=-1), full_matrices=False
    ).Vh[0]

"""Experiments of lesson 04: heads that copy and look up, probes, patching and steering."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from alignlib.aligner import Aligner
from alignlib.interpret import (
    Contrast,
    contrast_states,
    contrasts,
    head_attention,
    next_word,
    patched_word,
    without_heads,
)
from alignlib.models import load_model
from alignlib.probes import auc, probe, probe_of_chance
from alignlib.tinytown import sets
from alignlib.tinytown.pretrain import Recipe

from .aligner import checkpoint, compare, lesson_aligner, lesson_rows, train_aligner
from .common import JUDGE, TINY, means, values, with_suffix
from .steering import edit_directions, steering_range, steering_slope, unrelated_differences

INSIDE = (375, 667, 1500, Recipe().steps)  # steps: before copying, at its onset, after it, all
LOOKS = {"copier": "at", "reader": "source"}  # attends to the answer's word; to the board's


def two_heads(params: dict, seed: int) -> dict[str, float]:
    """The two heads in an Aligner of an earlier base, in that base and after the warm-up alone."""
    base = checkpoint(params["step"])
    corrections, identity = lesson_rows(seed)
    aligners = {
        "base": Aligner(*load_model(base)),
        "aligner": train_aligner(params["share"], (corrections, identity), seed, base),
    }
    if params["share"]:
        aligners["warm-up"] = train_aligner(params["share"], ([], identity), seed, base)
    metrics = {}
    for name, aligner in aligners.items():
        metrics |= with_suffix(_heads(aligner), f"_{name}")
    return metrics


def _heads(aligner: Aligner) -> dict[str, float]:
    """The heads that attend most to either word, chosen on validation, silenced on the test."""
    validation = _pairs(aligner, "validation", "corrected")
    test = _pairs(aligner, "test", "never")
    words = next_word(aligner, test)
    metrics = means({name.replace(" ", "_"): scores for name, scores in words.items()})
    for name, place in LOOKS.items():
        attention = head_attention(aligner, validation, place)  # (layers, heads)
        layer, head = divmod(int(attention.argmax()), attention.shape[1])
        metrics |= {
            f"{name}_share": float(attention.max()),
            f"{name}_layer": layer,
            f"{name}_head": head,
        }
        with without_heads(aligner.model, [(layer, head)]):
            silenced = next_word(aligner, test)
        says = {f"says_{kind}": silenced[f"says {kind}"] for kind in ("right", "wrong")}
        metrics |= means(says, f"_without_{name}")
    return metrics


def _pairs(aligner: Aligner, split: str, which: str) -> list[Contrast]:
    """Contrasts whose right word stands on the board exactly once."""
    rows = sets.one_word_off(TINY.tests, split, which)
    return [c for c in contrasts(aligner, rows) if c.source is not None]


def looking(params: dict, seed: int) -> dict[str, float]:
    """Lesson 02's Aligner: probes, patching, silenced heads and steering."""
    aligner = lesson_aligner(seed)
    metrics = _probes(aligner) | _patching(aligner)
    return metrics | _silenced_heads(aligner) | _steering(aligner, seed)


def _probes(aligner: Aligner) -> dict[str, float]:
    """AUCs for wrong words: by a probe, and by how unexpected the word is where it is read."""
    parts = [("train", "corrected"), ("validation", "corrected"), ("test", "never")]
    pairs = [contrasts(aligner, sets.one_word_off(TINY.tests, *part)) for part in parts]
    metrics = {}
    for place in ("read", "end", "said"):
        states = [contrast_states(aligner, some, place) for some in pairs]
        by_layer = [
            [[run[:, layer] for run in runs] for runs in states]
            for layer in range(states[0][0].shape[1])
        ]
        probes = [probe(*layer) for layer in by_layer]
        best = max(range(len(probes)), key=lambda i: probes[i].validation)
        train, _, test = by_layer[best]
        metrics[f"probe_{place}"] = probes[best].test.value
        metrics[f"chance_{place}"] = probe_of_chance(train, test).high
    expected = next_word(aligner, pairs[2], reading=True)
    metrics["surprise"] = auc(-expected["wrong"], -expected["right"]).value
    return metrics | means({"expected_right": expected["right"]})


def _patching(aligner: Aligner) -> dict[str, float]:
    """How often the right word follows when one state comes from the run on the sound answer."""
    pairs = _pairs(aligner, "test", "never")[:100]
    scores = {}
    for layer in range(aligner.model.config.num_hidden_layers):
        for place in ("at", "last"):  # the answer's word, or the last one
            scores[f"patched_{place}_{layer}"] = [
                patched_word(aligner, pair, layer, pair.at if place == "at" else -1) == pair.right
                for pair in pairs
            ]
    return means(scores)


def _silenced_heads(aligner: Aligner) -> dict[str, float]:
    """The test set without each head of the last layer."""
    rows = sets.test_sets(TINY.tests)["seen"]
    last = aligner.model.config.num_hidden_layers - 1
    num_heads = aligner.model.config.num_attention_heads
    silenced = {"none": []} | {f"{last}.{head}": [(last, head)] for head in range(num_heads)}
    metrics = {}
    for name, heads in silenced.items():
        with without_heads(aligner.model, heads):
            comparison = compare(aligner, rows)
        metrics |= values(comparison, "fault_free", "kept", suffix=f"_without_{name}")
    return metrics


def _steering(aligner: Aligner, seed: int) -> dict[str, float]:
    """The slope of the edit ratio along the direction found and along others of its length.

    The controls are 20 random directions and 20 differences between states of unrelated rows.
    Layer and range are chosen on validation.
    """
    validation = sets.test_sets(TINY.tests, "validation")["seen"]
    test = sets.test_sets(TINY.tests, "test")["seen"][:100]
    directions = edit_directions(aligner, lesson_rows(seed)[0], validation)
    layer, alpha = steering_range(aligner, validation[:100], directions, JUDGE)
    direction = directions[layer]

    def slope(along: torch.Tensor) -> float:
        return steering_slope(aligner, test, layer, along, alpha).value

    def extremes(name: str, controls: Sequence[torch.Tensor]) -> dict[str, float]:
        slopes = [slope(each * direction.norm() / each.norm()) for each in controls]
        return {f"{name}_max": max(slopes), f"{name}_min": min(slopes)}

    generator = torch.Generator().manual_seed(seed)
    random = [torch.randn(len(direction), generator=generator) for _ in range(20)]
    unrelated = unrelated_differences(aligner, validation, layer, 20, seed)
    metrics = {"layer": layer, "alpha": alpha, "slope": slope(direction)}
    return metrics | extremes("random", random) | extremes("unrelated", unrelated)

"""Experiments of lesson 04: which heads copy and which look up, in Aligners of several bases;
and what steering does, over seeds.
"""

from __future__ import annotations

import numpy as np
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
from alignlib.steering import edit_directions, steering_range, steering_slope, unrelated_differences
from alignlib.tinytown import sets
from alignlib.tinytown.pretrain import Recipe

from .aligner import JUDGE, TINY, checkpoint, correct, lesson, lesson_rows, stages, train

INSIDE = (
    375,
    667,
    1500,
    Recipe().steps,
)  # of pretraining: before copying, at its brink, after, and all
LOOKS = {
    "copier": "at",
    "reader": "source",
}  # what the heads look at: the answer's word, the board's


def two_heads(params: dict, seed: int) -> dict[str, float]:
    """An Aligner made of the base as it was after so many steps: its two heads, what becomes of
    it without them; and those of the base and of the warm-up alone.
    """
    base = checkpoint(params["step"])
    corrections, identity = lesson_rows(seed)
    first, then = stages(params["share"], seed)
    found = {
        "base": Aligner(*load_model(base)),
        "aligner": train(params["share"], corrections, identity, seed, base=base),
    }
    if params["share"]:
        found["warm-up"] = Aligner.train(
            base, [], identity, settings=then, warmup=first, progress=False
        )
    metrics = {}
    for name, aligner in found.items():
        metrics |= {f"{metric}_{name}": value for metric, value in _heads(aligner).items()}
    return metrics


def _heads(aligner: Aligner) -> dict[str, float]:
    """The head that looks most at the answer's word and the one that looks most at the board's,
    chosen on validation and silenced on the test.
    """
    pairs = {
        split: _pairs(aligner, split, which)
        for split, which in (("validation", "corrected"), ("test", "never"))
    }
    metrics = {
        f"{m.replace(' ', '_')}": float(v.mean())
        for m, v in next_word(aligner, pairs["test"]).items()
    }
    for name, place in LOOKS.items():
        share = head_attention(aligner, pairs["validation"], place)
        head = divmod(int(share.argmax()), share.shape[1])
        with without_heads(aligner.model, [head]):
            silenced = next_word(aligner, pairs["test"])
        metrics |= {
            f"{name}_share": float(share.max()),
            f"{name}_layer": head[0],
            f"{name}_head": head[1],
        }
        metrics |= {
            f"says_{kind}_without_{name}": float(silenced[f"says {kind}"].mean())
            for kind in ("right", "wrong")
        }
    return metrics


def _pairs(aligner: Aligner, split: str, which: str) -> list[Contrast]:
    """Those whose right word stands on the board just once."""
    return [
        c
        for c in contrasts(aligner, sets.one_word_off(TINY.tests, split, which))
        if c.source is not None
    ]


def looking(params: dict, seed: int) -> dict[str, float]:
    """The lesson's Aligner: what a probe finds, what it expects while it reads, where a patch
    takes, its heads silenced, and steering.
    """
    aligner = lesson(seed)
    return _knowing(aligner) | _patching(aligner) | _without(aligner) | _steering(aligner, seed)


def _knowing(aligner: Aligner) -> dict[str, float]:
    """AUCs for wrong words: of a probe (its layer chosen on validation) and of how unexpected
    the word is where it is read.
    """
    given = [("train", "corrected"), ("validation", "corrected"), ("test", "never")]
    pairs = [contrasts(aligner, sets.one_word_off(TINY.tests, *part)) for part in given]
    metrics = {}
    for place in ("read", "end", "said"):
        parts = [contrast_states(aligner, some, place) for some in pairs]
        by_layer = [
            [[side[:, i] for side in part] for part in parts] for i in range(parts[0][0].shape[1])
        ]
        probes = [probe(*layer) for layer in by_layer]
        best = max(range(len(probes)), key=lambda i: probes[i].validation)
        chance = probe_of_chance(by_layer[best][0], by_layer[best][2])
        metrics |= {f"probe_{place}": probes[best].test.value, f"chance_{place}": chance.high}
    expected = next_word(aligner, pairs[2], reading=True)
    return metrics | {
        "surprise": auc(-expected["wrong"], -expected["right"]).value,
        "expected_right": float(expected["right"].mean()),
    }


def _patching(aligner: Aligner) -> dict[str, float]:
    """How often the right word is said if the sound run's state is put in, at the answer's word
    or at the last one, behind each layer.
    """
    pairs, metrics = _pairs(aligner, "test", "never")[:100], {}
    for layer in range(aligner.model.config.num_hidden_layers):
        for place in ("at", "last"):
            said = [
                patched_word(aligner, p, layer, p.at if place == "at" else -1) == p.right
                for p in pairs
            ]
            metrics[f"patched_{place}_{layer}"] = float(np.mean(said))
    return metrics


def _without(aligner: Aligner) -> dict[str, float]:
    """The whole test set without each head of the last layer."""
    rows, metrics = sets.test_sets(TINY.tests)["seen"], {}
    last = aligner.model.config.num_hidden_layers - 1
    for name, heads in {
        "none": [],
        **{f"{last}.{h}": [(last, h)] for h in range(aligner.model.config.num_attention_heads)},
    }.items():
        with without_heads(aligner.model, heads):
            c = correct(aligner, rows)
        metrics |= {
            f"fault_free_without_{name}": c.fault_free("after").value,
            f"kept_without_{name}": c.good_kept().value,
        }
    return metrics


def _steering(aligner: Aligner, seed: int) -> dict[str, float]:
    """The slope of the edit ratio: of the direction found, of 20 random ones, and of 20
    differences between states of unrelated rows, all equally long. Layer and range are chosen on
    validation.
    """
    lines = edit_directions(
        aligner, lesson_rows(seed)[0], sets.test_sets(TINY.tests, "validation")["seen"]
    )
    validation, rows = (
        sets.test_sets(TINY.tests, split)["seen"][:100] for split in ("validation", "test")
    )
    layer, alpha = steering_range(aligner, validation, lines, JUDGE)
    line, draw = lines[layer], torch.Generator().manual_seed(seed)
    unrelated = unrelated_differences(
        aligner, sets.test_sets(TINY.tests, "validation")["seen"], layer, 20, seed
    )
    others = {
        "random": [torch.randn(len(line), generator=draw) for _ in range(20)],
        "unrelated": unrelated,
    }
    metrics = {
        "layer": layer,
        "alpha": alpha,
        "slope": steering_slope(aligner, rows, layer, line, alpha).value,
    }
    for name, some in others.items():
        slopes = [
            steering_slope(aligner, rows, layer, other * line.norm() / other.norm(), alpha).value
            for other in some
        ]
        metrics |= {f"{name}_max": max(slopes), f"{name}_min": min(slopes)}
    return metrics

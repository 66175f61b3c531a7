"""Experiments of lesson 06: how far each way of training gets with two aims, and what HBAT's parts
do.

What `two_aims` trains, at settings that are tried here: as many for each method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignlib.data import Instruction, Preference
from alignlib.ewc import copy_weights, movement, saturated, sum_importance
from alignlib.hbat import IMPORTANCE, IMPORTANCE_FILE
from alignlib.interpret import cosine, mean_gradient
from alignlib.models import load_model
from alignlib.stats import Estimate, over_seeds
from alignlib.tinytown.oracle import instructions_to_follow, pairs_to_prefer

from .two_aims import ROUNDS, final_model, measured, own_cache, stages, start

TEMPERATURES = (0.0, 0.4, 0.8, 1.2)


# --- what is tried, and compared
# --------------------------------------------------------------------


def rates(*given: float, **more: float) -> tuple[dict[str, float], ...]:
    return tuple({"rate": r} | more for r in given)


TRIALS: dict[
    str, dict[str, tuple[dict[str, float], ...]]
] = {  # as many for each method: what sets how far it goes towards the preference
    "dpo": {
        "two-stage": rates(8e-5, 1e-4, 1.25e-4, 1.5e-4),
        "restarted": rates(4e-5, 6e-5, 8e-5, 1e-4),
        "in turns": rates(1.5e-4, 2e-4, 2.5e-4, 3e-4),
        "held": tuple({"rate": 2e-4, "strength": s} for s in (0.01, 0.03, 0.1, 0.3)),
        "hbat": (*rates(2e-4, 2.5e-4, strength=0.1), *rates(2e-4, 2.5e-4, strength=0.3)),
        "mixed": (
            *rates(3e-4, 5e-4, weight=0.03),
            *rates(5e-4, weight=0.1),
            *rates(5e-4, weight=1.0),
        ),
    },
    "ppo": {
        "two-stage": rates(1e-4, 1.25e-4, 1.5e-4, 2e-4),
        "restarted": rates(1.5e-4, 2e-4, 3e-4, 5e-4),
        "mixed": (*rates(1e-4, 2e-4, 3e-4, weight=1.0), *rates(3e-4, weight=0.1)),
        "hbat": rates(1e-4, 1.5e-4, 2e-4, 3e-4, strength=0.1),
    },
}
MATCHED = 0.7  # preference that all are to reach on validation


def chosen(scores: Sequence[dict[str, float]]) -> int:
    """Which of a method's trials is compared with others: of those that reach MATCHED the best
    in both aims together; if none does, the one that comes nearest.
    """
    there = [i for i, m in enumerate(scores) if m["preference_validation"] >= MATCHED]
    if not there:
        return max(range(len(scores)), key=lambda i: scores[i]["preference_validation"])
    return max(
        there, key=lambda i: scores[i]["instruct_validation"] + scores[i]["preference_validation"]
    )


def compared(record: dict, method: str, by: str = "dpo") -> dict[int, dict[str, float]]:
    """By seed: the metrics of the trial that was chosen in that seed."""
    return {seed: scores[chosen(scores)] for seed, scores in _trials(record, method, by).items()}


def at_preference(record: dict, method: str, level: float, by: str = "dpo") -> dict[int, float]:
    """By seed: the share of instructions that a method follows, on the test, where it meets at
    least `level` of the preferences. It is read off the line through its trials that no other
    one beats in both aims, and is that of the gentlest of them where all go further; a seed in
    which none goes so far is left out.
    """
    found = {}
    for seed, scores in _trials(record, method, by).items():
        points = sorted((m["preference_test"], m["instruct_test"]) for m in scores)
        best = [
            p for i, p in enumerate(points) if all(later[1] < p[1] for later in points[i + 1 :])
        ]
        if level <= best[-1][0]:
            found[seed] = float(np.interp(level, *zip(*best)))
    return found


def ahead(
    record: dict, than: str, level: float = 0.6, by: str = "dpo", method: str = "hbat"
) -> Estimate:
    """By how much more of the instructions HBAT (or another method) follows than another at
    equal preference, with its t interval over the seeds in which both go so far.
    """
    ours, theirs = (at_preference(record, m, level, by) for m in (method, than))
    return over({s: ours[s] - theirs[s] for s in sorted(ours.keys() & theirs.keys())}, "difference")


def ahead_as_chosen(record: dict, than: str, aim: str = "instruct", by: str = "dpo") -> Estimate:
    """Likewise of a mark on the test, both methods as `compared`: nothing is read off the test
    but the result.
    """
    ours, theirs = (compared(record, method, by) for method in ("hbat", than))
    return over({s: ours[s][f"{aim}_test"] - theirs[s][f"{aim}_test"] for s in ours}, "difference")


def forgotten(record: dict, aim: str = "instruct", by: str = "dpo") -> Estimate:
    """What two stages, as chosen in each seed, lose of a mark on instructions while they learn
    the preferences, with its t interval.
    """
    return over(
        {
            s: m[f"{aim}_before"] - m[f"{aim}_test"]
            for s, m in compared(record, "two-stage", by).items()
        },
        "difference",
    )


def over(by_seed: dict[int, float], unit: str = "rate") -> Estimate:
    """The mean over seeds of what was recorded, with its t interval."""
    return replace(over_seeds(list(by_seed.values()), unit, tuple(by_seed)), source="recorded")


def _trials(record: dict, method: str, by: str) -> dict[int, list[dict[str, float]]]:
    cells = [
        c for c in record["cells"] if (c["params"]["method"], c["params"]["by"]) == (method, by)
    ]
    return {
        seed: [c["metrics"] for c in cells if c["seed"] == seed]
        for seed in sorted({c["seed"] for c in cells})
    }


# --- what is recorded
# -------------------------------------------------------------------------------


def fronts(params: dict, seed: int) -> dict[str, float]:
    """One trial of one method: what it has of both aims on validation, by which is chosen, and
    on the test; of two stages also what there was before the preferences.
    """
    trial, found = dict(params), {}
    method = trial.pop("method")
    with own_cache(seed):
        model, tokenizer = final_model(method, seed, **trial)
        for split in ("validation", "test"):
            found |= {f"{k}_{split}": v for k, v in measured(model, tokenizer, split=split).items()}
        return found | (before_preferences(seed, **trial) if method == "two-stage" else {})


def before_preferences(seed: int, task: str = "manners", **trial: object) -> dict[str, float]:
    """What two stages had behind the first, which lies in the cache."""
    taught = stages("two-stage", seed, task=task, **trial)[0]
    return {f"{k}_before": v for k, v in measured(*load_model(taught.folder), task).items()}


TUNED: dict[str, dict[str, float]] = {  # by DPO, as chosen in seed 0 of `fronts`
    "two-stage": {"rate": 1.25e-4},
    "restarted": {"rate": 8e-5},
    "mixed": {"rate": 5e-4, "weight": 1.0},
    "held": {"rate": 2e-4, "strength": 0.03},
    "in turns": {"rate": 2e-4},
    "hbat": {"rate": 2e-4, "strength": 0.1},
}


def aims_met(params: dict, seed: int) -> dict[str, float]:
    """A method as it is tuned, on the test: as it speaks more and more boldly, or on another
    task.
    """
    method, by, task = (params[k] for k in ("method", "by", "task"))
    with own_cache(seed, task):
        model, tokenizer = final_model(method, seed, by=by, task=task, **TUNED[method])
        found = {}
        for t in TEMPERATURES if task == "manners" else (0.0,):
            found |= {
                f"{k}_{t:g}": v
                for k, v in measured(model, tokenizer, task, temperature=t, seed=seed).items()
            }
        return found | (
            before_preferences(seed, task, by=by, **TUNED[method]) if method == "two-stage" else {}
        )


AROUND = {"rounds": ROUNDS, "strength": 0.1, "importance": "movement"}
FACTORS = (
    # and one thing changed; a kind of importance with its strength, which need not suit another
    # kind
    AROUND,
    *(AROUND | {"rounds": r} for r in (1, 2, 10)),
    *(AROUND | {"strength": s} for s in (0.0, 0.01, 1.0, 10.0, 100.0, 1000.0)),
    *(
        AROUND | {"importance": kind, "strength": s}
        for kind in ("released", "fisher", "equal", "random")
        for s in (0.1, 1.0)
    ),
    AROUND | {"importance": "frozen"},
)


def factors(params: dict, seed: int) -> dict[str, float]:
    """HBAT with one thing changed, on the test."""
    with own_cache(seed):
        done = stages("hbat", seed, **TUNED["hbat"] | params)
        return measured(*load_model(done[-1].folder))


def overhead(params: dict, seed: int) -> dict[str, float]:
    """What a kind of importance costs beside the restarted twin, which trains the same tokens:
    the ratio of times, the twin's being the mean of a run before and one after; and what a stage
    keeps besides the model: the weights it came with and the other aim's importance, in copies
    of the weights. Three rounds, with steps as in a stage of five.
    """

    def took(**given: object) -> tuple[float, float]:
        with own_cache(seed):
            done = stages(
                "restarted",
                seed,
                **TUNED["restarted"] | {"rounds": 3, "teaching": 90, "preferring": 60} | given,
            )
            kept, whole = (
                (done[-1].folder / name).stat().st_size
                for name in (IMPORTANCE_FILE, "model.safetensors")
            )
            return sum(stage.seconds for stage in done), 1 + kept / whole / 2

    took()  # the first run of a process is a slower one
    found, (before, _) = {}, took()
    for kind in IMPORTANCE:
        seconds, copies = took(strength=0.1, importance=kind, alternate=True)
        after, _ = took()
        found |= {f"time_{kind}": 2 * seconds / (before + after), f"copies_{kind}": copies}
        before = after
    return found


PARTS = ("weight", "self_attn", "mlp", "norm")  # of a tensor's name; the first is in all


def pulls(params: dict, seed: int) -> dict[str, float]:
    """Along a run, after each stage i: the cosine between what instructions and what preferences
    ask of the weights, on test prompts, also by layer, and beside it that of two halves of the
    same aim's prompts; how far the stage moved each layer's parts, root mean square; and on how
    many tensors the importance rests that its kind has left by then.
    """
    asked, pairs = instructions_to_follow("test", n=200), pairs_to_prefer("test", n=200)
    with own_cache(seed):
        done = stages(params["method"], seed, **TUNED[params["method"]])
        found, summed, (before, tokenizer) = {}, {}, load_model(start("manners", seed))
        for i, folder in enumerate([start("manners", seed), *(stage.folder for stage in done)]):
            model, _ = load_model(folder)
            halves = [
                _pulled(model, tokenizer, asked[h], pairs[h])
                for h in (slice(0, 100), slice(100, 200))
            ]
            for part in ("", *_layers(model)):
                name = f"cosine_{part.strip('.')}_{i}" if part else f"cosine_{i}"
                found[name] = float(
                    np.mean([cosine(a[0], b[1], part) for a in halves for b in halves])
                )
            found |= {
                f"cosine_{aim}_{i}": cosine(halves[0][k], halves[1][k])
                for k, aim in enumerate(("instructions", "preferences"))
            }
            if i:
                moved, kind = movement(copy_weights(before), copy_weights(model)), done[i - 1].kind
                summed[kind] = sum_importance(summed.get(kind, {}), moved)
                found |= {
                    f"moved_{layer.strip('.')}_{part}_{i}": value
                    for (layer, part), value in _by_layer(moved, _layers(model)).items()
                }
                found |= {
                    f"rests_on_{i}": rests_on(summed[kind]),
                    f"rests_on_released_{i}": rests_on(saturated(summed[kind])),
                }
            before = model
    return found


def _layers(model: PreTrainedModel) -> list[str]:
    """What tensors' names hold, from the embeddings to the last norm."""
    return [
        "embed_tokens",
        *(f"layers.{k}." for k in range(model.config.num_hidden_layers)),
        "model.norm",
    ]


def _by_layer(
    moved: dict[str, torch.Tensor], layers: Sequence[str]
) -> dict[tuple[str, str], float]:
    """How far each layer's attention, feed-forward part and norms moved, embeddings and last
    norm: the root of the mean over their tensors.
    """
    groups = {
        (layer, part): [float(v) for name, v in moved.items() if layer in name and part in name]
        for layer in layers
        for part in PARTS
    }
    return {key: float(np.mean(values)) ** 0.5 for key, values in groups.items() if values}


def rests_on(importance: dict[str, torch.Tensor]) -> float:
    """On how many tensors an importance rests: the exponential of its entropy."""
    sizes = torch.stack(list(importance.values())).double()
    return float(torch.special.entr(sizes / sizes.sum()).sum().exp())


def _pulled(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[Instruction],
    pairs: Sequence[Preference],
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What either aim asks of the weights."""
    prompts = [p.prompt for p in pairs]
    chosen, rejected = (
        mean_gradient(model, tokenizer, prompts, [getattr(p, side) for p in pairs])
        for side in ("chosen", "rejected")
    )
    plain = mean_gradient(
        model, tokenizer, [r.prompt for r in asked], [r.completion for r in asked]
    )
    return plain, {name: chosen[name] - rejected[name] for name in chosen}

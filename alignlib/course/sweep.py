"""Recorded experiments: `python -m alignlib sweep NAME [--seeds 0,1,2]` writes
data/results/NAME.json.

One entry a cell (`params`, `seed`, `metrics`, `wall_s`). Killed and run again it goes on
with the cells that are missing. A record names the world and the base it was made with;
cells of another world or base are never mixed into it.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from ..artefacts import LIBRARIES
from ..models import fingerprint
from ..profiles import data_folder, profile
from ..settings import SFTSettings
from ..stats import Estimate, over_seeds
from ..tinytown import sets
from ..tinytown.judge import score_answer
from ..tinytown.words import WORLD_VERSION, digest


@dataclass(frozen=True)
class Sweep:
    """An experiment: its cells, and what to run for one cell and seed."""

    question: str
    cells: Sequence[dict[str, object]]
    run: Callable[[dict[str, object], int], dict[str, float]]
    minutes: float  # for one cell and seed, on 2 cores
    seeds: tuple[int, ...] = (0, 1, 2)


def results_file(name: str) -> Path:
    return data_folder() / "results" / f"{name}.json"


def made_with() -> dict[str, object]:
    """What a record must agree on: the world's version, the base's weights, the lesson's
    settings.
    """
    tiny = profile("tiny")
    stages = [_chosen(tiny.warmup), _chosen(tiny.training)]
    settings = [tiny.corrections, tiny.identity, tiny.tests, *stages, sets.LEVEL, sets.FAULT_RATE]
    return {
        "world": WORLD_VERSION,
        "judge": _marks(),
        "base": fingerprint(tiny.base)[:16],
        "settings": digest(repr(settings)),
    }


@lru_cache(maxsize=1)
def _marks() -> int:
    """A digest of the judge: its marks on spoilt answers, as they are and with more said."""
    rows = sets.corrections(200, "validation", "all", rate=0.6, combinations=True)
    return digest(
        repr(
            [
                score_answer(r.question, f"{r.answer} {more}")
                for r in rows
                for more in ("", r.correction, r.answer, "lamp the")
            ]
        )
    )


def _chosen(settings: SFTSettings) -> dict[str, object]:
    """The settings that differ from their defaults: a field added later, at its default, leaves
    records valid.
    """
    return {
        f.name: value for f in fields(settings) if (value := getattr(settings, f.name)) != f.default
    }


def read_results(name: str) -> dict:
    """A record. Raises ValueError if it was made with another world or base than the package's."""
    record = json.loads(results_file(name).read_text(encoding="utf-8"))
    stale = {k: record.get(k) for k, v in made_with().items() if record.get(k) != v}
    if stale:
        again = f"delete it and run `python -m alignlib sweep {name}`"
        raise ValueError(
            f"{results_file(name).name} was recorded with {stale}, not {made_with()}; {again}"
        )
    return record


def run_sweep(name: str, experiment: Sweep, seeds: Sequence[int]) -> Path:
    """Run the cells that are not recorded yet, one by one, and keep each as soon as it is done."""
    place = results_file(name)
    record = (
        read_results(name)
        if place.exists()
        else {
            "name": name,
            "question": experiment.question,
            **made_with(),
            **_machine(),
            "cells": [],
        }
    )
    done = {(json.dumps(c["params"], sort_keys=True), c["seed"]) for c in record["cells"]}
    todo = [
        (p, s)
        for s in seeds
        for p in experiment.cells
        if (json.dumps(p, sort_keys=True), s) not in done
    ]
    print(
        f"{name}: {len(todo)} cells to run, about {len(todo) * experiment.minutes:.0f} "
        "minutes on 2 cores"
    )
    for params, seed in tqdm(todo, desc=name):
        started = time.monotonic()
        metrics = experiment.run(params, seed)
        wall = round(time.monotonic() - started, 1)
        record["cells"].append({"params": params, "seed": seed, "metrics": metrics, "wall_s": wall})
        _write(place, record)
    return place


def _machine() -> dict[str, object]:
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return {"machine": machine, "libraries": {lib: version(lib) for lib in LIBRARIES}}


def _write(place: Path, record: dict) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1), encoding="utf-8")
    os.replace(part, place)


def per_seed(record: dict, metric: str, **params: object) -> dict[int, float]:
    """A metric by seed, of the one cell whose parameters include these. Raises ValueError if
    there are several.
    """
    cells = [c for c in record["cells"] if params.items() <= c["params"].items()]
    if len({c["seed"] for c in cells}) < len(cells):
        raise ValueError(
            f"{record['name']}: {params} does not name one cell; add what tells "
            f"{[c['params'] for c in cells]} apart"
        )
    return {c["seed"]: c["metrics"][metric] for c in cells}


def recorded(record: dict, metric: str, unit: str = "rate", **params: object) -> Estimate:
    """A metric with its t interval over seeds."""
    values = per_seed(record, metric, **params)
    return replace(over_seeds(list(values.values()), unit, tuple(values)), source="recorded")


def recorded_difference(
    record: dict, metric: str, a: dict, b: dict, unit: str = "rate", *, other: dict | None = None
) -> Estimate:
    """Mean over seeds of a metric in cell `a` less that in cell `b` (of the `other` record),
    paired by seed, with its t interval.
    """
    first, second = per_seed(record, metric, **a), per_seed(other or record, metric, **b)
    shared = sorted(first.keys() & second.keys())
    told = "difference" if unit == "rate" else unit
    return replace(
        over_seeds([first[s] - second[s] for s in shared], told, shared), source="recorded"
    )

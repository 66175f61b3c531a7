"""Recorded experiments: `python -m alignlib sweep NAME` writes data/results/NAME.json.

A record holds one entry for each cell and seed (`params`, `seed`, `metrics`, `wall_s`), written as
soon as it is done, so a sweep that was stopped continues with what is missing. With `--shard i/n`
a process runs every n-th cell and writes to a file of its own, and `--merge` puts these files into
the record. A record names the world, judge, base and settings it was made with, and is refused if
they are not the package's. It also names the experiment's code and constants, the machine and the
libraries: cells that were made otherwise are not added to it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from ..profiles import data_folder
from ..stats import Estimate, over_seeds
from .provenance import machine, made_with, of_experiment


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


def _shard_file(name: str, index: int, count: int) -> Path:
    return results_file(name).with_name(f"{name}.shard-{index}-of-{count}.json")


def _shard_files(name: str) -> list[Path]:
    return sorted(results_file(name).parent.glob(f"{name}.shard-*-of-*.json"))


def _command(file: Path) -> str:
    """The command that writes a file of results."""
    name, _, shard = file.stem.partition(".shard-")
    part = f" --shard {shard.replace('-of-', '/')}" if shard else ""
    return f"python -m alignlib sweep {name}{part}"


def read_results(name: str) -> dict:
    """A record. Raises ValueError if it was made with another world or base than the package's."""
    return _read(results_file(name))


def _read(file: Path) -> dict:
    record = json.loads(file.read_text(encoding="utf-8"))
    stale = {k: record.get(k) for k, v in made_with().items() if record.get(k) != v}
    if stale:
        again = f"delete it and run `{_command(file)}`"
        raise ValueError(f"{file.name} was recorded with {stale}, not {made_with()}; {again}")
    return record


def _write(file: Path, record: dict) -> None:
    part = file.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1), encoding="utf-8")
    os.replace(part, file)


@contextmanager
def _locked(file: Path, wait: float = 0) -> Iterator[None]:
    """Refuse a file that another process writes to. A process that died holds no lock."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file.with_suffix(".lock"), timeout=wait)
    try:
        lock.acquire()
    except Timeout:
        how = "wait for it, or stop it and run parts of the work with --shard 0/2 and --shard 1/2"
        raise ValueError(f"another process is writing to {file.name}; {how}") from None
    try:
        yield
    finally:
        lock.release()


def run_sweep(
    name: str, experiment: Sweep, seeds: Sequence[int], shard: tuple[int, int] | None = None
) -> Path:
    """Run the cells that are not recorded yet, and write each to the record as soon as it is done.

    A shard (i, n) runs every n-th cell, and writes to a file of its own.
    """
    file = _shard_file(name, *shard) if shard else results_file(name)
    with _locked(file):
        record = _read(file) if file.exists() else {"cells": []}
        if not record["cells"]:  # also of a run that died before its first cell
            record = _new_record(name, experiment)
        if shard:
            _announce_shard(name, file, record)
        else:
            _refuse_shards(name)
        todo = _missing(name, experiment, seeds, shard)
        if todo and record["cells"]:
            _refuse_mix(file, record, _circumstances(experiment))
        minutes = len(todo) * experiment.minutes
        print(f"{name}: {len(todo)} cells to run, about {minutes:.0f} minutes on 2 cores")
        for params, seed in tqdm(todo, desc=name):
            record["cells"].append(_run_cell(experiment, params, seed))
            _write(file, record)
    return file


def _announce_shard(name: str, file: Path, record: dict) -> None:
    """Write the shard's file before its first cell, unless a sweep without shards is running."""
    with _locked(results_file(name), wait=2):  # another shard may be starting too
        _write(file, record)


def _refuse_shards(name: str) -> None:
    """A sweep without shards would run their cells again."""
    if shards := _shard_files(name):
        command = f"{_command(results_file(name))} --merge"
        raise ValueError(f"{shards[0].name} is not in the record yet; run `{command}` first")


def _new_record(name: str, experiment: Sweep) -> dict:
    about = {"name": name, "question": experiment.question, **made_with()}
    return about | _circumstances(experiment) | {"cells": []}


def _circumstances(experiment: Sweep) -> dict[str, object]:
    """What all cells share: the experiment's code and constants, the machine, the libraries."""
    return of_experiment(experiment.run) | machine()


def _refuse_mix(file: Path, record: dict, others: dict[str, object]) -> None:
    """A record takes no cells that were made otherwise."""
    for what in ("code", "machine", "libraries"):
        if record.get(what) != others.get(what):
            raise ValueError(
                f"{file.name} was made with {what} {record.get(what)}, not {others.get(what)}; a "
                "record mixes neither code nor machines nor libraries: move it away, and "
                f"`{_command(file)}` makes it anew"
            )


def _run_cell(experiment: Sweep, params: dict[str, object], seed: int) -> dict:
    started = time.monotonic()
    metrics = experiment.run(params, seed)
    wall = round(time.monotonic() - started, 1)
    return {"params": params, "seed": seed, "metrics": metrics, "wall_s": wall}


def _missing(
    name: str, experiment: Sweep, seeds: Sequence[int], shard: tuple[int, int] | None = None
) -> list[tuple[dict[str, object], int]]:
    """The cells and seeds that no file holds yet, in order; of a shard (i, n) every n-th of all.

    A shard's cells do not depend on what is done or on the seeds asked for, so that two shards
    never run the same cell.
    """
    files = [f for f in (results_file(name), *_shard_files(name)) if f.exists()]
    done = {_key(c["params"], c["seed"]) for f in files for c in _read(f)["cells"]}
    index, count = shard or (0, 1)
    found = []
    for seed in sorted(set(seeds)):
        for i, params in enumerate(experiment.cells):
            in_shard = (seed * len(experiment.cells) + i) % count == index
            if in_shard and _key(params, seed) not in done:
                found.append((params, seed))
    return found


def _key(params: dict[str, object], seed: int) -> str:
    return json.dumps([params, seed], sort_keys=True)


def merge(name: str, experiment: Sweep, seeds: Sequence[int]) -> Path:
    """Put the cells of all shards into the record, delete the shards, and say what is missing."""
    file = results_file(name)
    with ExitStack() as locks:
        locks.enter_context(_locked(file))
        shards = _shard_files(name)
        if not shards:
            how = f"make them with `{_command(file)} --shard 0/2` and `--shard 1/2`"
            raise ValueError(f"there are no shards of {name} to merge; {how}")
        for shard in shards:
            locks.enter_context(_locked(shard))
        record = _read(file) if file.exists() else {**_read(shards[0]), "cells": []}
        record["cells"] += _new_cells(file, record, shards, experiment)
        _write(file, record)
        for shard in shards:
            shard.unlink()
    missing = _missing(name, experiment, seeds)
    print(f"{name}: {len(record['cells'])} cells recorded, {len(missing)} missing")
    if missing:
        params, seed = missing[0]
        print(f"the first is {params}, seed {seed}; run the sweep again, with --shard or without")
    return file


def _new_cells(file: Path, record: dict, shards: list[Path], experiment: Sweep) -> list[dict]:
    """The shards' cells that the record lacks, in the order of a sweep without shards.

    Raises ValueError if two files hold different metrics of one cell.
    """
    known = {_key(c["params"], c["seed"]): (file, c) for c in record["cells"]}
    new = []
    for shard_file in shards:
        shard = _read(shard_file)
        if shard["cells"]:
            _refuse_mix(shard_file, shard, record)
        for cell in shard["cells"]:
            key = _key(cell["params"], cell["seed"])
            if key not in known:
                known[key] = (shard_file, cell)
                new.append(cell)
            other_file, other = known[key]
            if json.dumps(cell["metrics"]) != json.dumps(other["metrics"]):
                raise ValueError(
                    f"{other_file.name} and {shard_file.name} hold different metrics of "
                    f"{cell['params']}, seed {cell['seed']}; delete this cell from one of them"
                )
    order = {_key(params, 0): i for i, params in enumerate(experiment.cells)}
    return sorted(new, key=lambda c: (c["seed"], order.get(_key(c["params"], 0), len(order))))


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
    record: dict,
    metric: str,
    a: dict,
    b: dict,
    unit: str = "rate",
    *,
    other: dict | None = None,
    shared_seeds: bool = False,
) -> Estimate:
    """Mean over seeds of a metric in cell `a` less that in cell `b` (of the `other` record),
    paired by seed, with its t interval.

    Raises ValueError if one of the two lacks a seed, unless `shared_seeds` are asked for.
    """
    first, second = per_seed(record, metric, **a), per_seed(other or record, metric, **b)
    if first.keys() != second.keys() and not shared_seeds:
        raise ValueError(
            f"{record['name']}: {metric} has seeds {sorted(first)} for {a} and {sorted(second)} "
            f"for {b}; run the sweep of the one that lacks some, or pass shared_seeds=True"
        )
    shared = sorted(first.keys() & second.keys())
    differences = [first[s] - second[s] for s in shared]
    unit = {"rate": "difference", "points": "difference of points"}.get(unit, unit)
    return replace(over_seeds(differences, unit, shared), source="recorded")

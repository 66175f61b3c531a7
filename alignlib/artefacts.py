"""The cache of trained things: built once, loaded whole or not at all, safe to delete.

An artefact is a folder, keyed by its name and everything that decides on its numbers: what it was
made from (rows, the base's weights, settings, seed, template), the libraries, the modules of ours
that train it, the kind of device and the threads. It is built in a folder beside its place and
renamed when complete, so a killed run leaves nothing that could be loaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from . import processes
from .host import cache_folder

built = loaded = 0  # artefacts made, and found ready, by this process
LEFT_BEHIND = 7 * 24 * 3600  # seconds after which a half-built folder is a killed run's
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "tokenizers")
CODE = (
    "batching",
    "checkpoints",
    "devices",
    "generation",
    "likelihood",
    "models",
    "model_names",
    "tokens",
    "train",
    "trainer_tools",
    "trainers",
)  # of every artefact


def key(name: str, inputs: Any, code: Sequence[str] = ()) -> str:
    """A digest of the artefact's name, its inputs, and what else decides on its numbers."""
    from .devices import device_kind, set_threads

    versions = {lib: importlib.metadata.version(lib) for lib in LIBRARIES}
    digests = [code_digest(module) for module in sorted({*CODE, *code})]
    parts = [name, inputs, versions, digests, device_kind(), set_threads()]
    text = json.dumps(parts, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@lru_cache
def code_digest(module: str) -> str:
    """A digest of one of our modules, whatever its line ends."""
    source = (Path(__file__).parent / f"{module}.py").read_bytes()
    return hashlib.sha256(source.replace(b"\r\n", b"\n")).hexdigest()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return [type(value).__name__, dataclasses.asdict(value)]
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(
        f"cannot key an artefact by a {type(value).__name__}; pass text, numbers, rows or settings"
    )


def artefact(
    name: str,
    inputs: Any,
    build: Callable[[Path], None],
    code: Sequence[str] = (),
    folder: str | Path | None = None,
) -> Path:
    """The artefact's folder, built by `build(folder)` if it is not there yet.

    `code` names the modules of ours, beside CODE, that decide on what is built. It lies in `folder`
    or, if that is None, in the cache.
    """
    global built, loaded
    root = cache_folder() / name if folder is None else Path(folder).expanduser()
    place = root / key(name, inputs, code)
    place, is_there = processes.agreed((place, place.is_dir()))
    if is_there:
        loaded += 1
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    _sweep_up(place.parent)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=place.parent))
    try:
        build(part)
        if processes.is_first():
            os.replace(part, place)
    except OSError:
        if not place.is_dir():  # another process may have been first: then its artefact serves
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    processes.wait()
    built += 1
    return place


def _sweep_up(folder: Path) -> None:
    """Delete what runs killed long ago left half built."""
    for part in folder.glob(".part-*"):
        try:
            old = time.time() - part.stat().st_mtime > LEFT_BEHIND
        except FileNotFoundError:  # just now completed and renamed by another process
            continue
        if old:
            shutil.rmtree(part, ignore_errors=True)

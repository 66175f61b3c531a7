"""The set-up check: what is installed, what it runs on, and what to do if something is off."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from pathlib import Path

NEEDED = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "accelerate",
    "papermill",
    "matplotlib",
)


def check_setup() -> None:
    """Print versions, device and threads, and a line of advice for each thing that is off."""
    import torch

    from ..devices import compute_dtype, pick_device, set_threads
    from ..profiles import data_folder

    device = pick_device()
    print(
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} CPU cores"
    )
    for name in NEEDED:
        print(f"  {name:14}{_version(name) or 'missing'}")
    computes = str(compute_dtype(device)).removeprefix("torch.")
    print(f"device {device}, computing in {computes}, {set_threads()} threads")
    problems = _problems(data_folder(), torch.get_num_threads())
    print("\n".join(f"! {p}" for p in problems) or "all in order")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _problems(data: Path, threads: int) -> Iterator[str]:
    for name in NEEDED:
        if _version(name) is None:
            yield (
                f"{name} is missing: run `pip install -c constraints.txt -e .` in the "
                "course's folder"
            )
    for name in ("base", "aligner"):
        if not (data / name / "model.safetensors").is_file():
            yield f"data/{name} has no weights: clone the whole repository again"
    if threads > (os.cpu_count() or 1):
        yield (
            f"{threads} threads on {os.cpu_count()} cores are slower than fewer: unset "
            "ALIGNLIB_THREADS, or set it to the number of cores"
        )

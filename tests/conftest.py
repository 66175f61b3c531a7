"""Tests run offline, on a cache of their own, with the threads the course fixes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "agg"
# On a CPU, whatever machine they are on: numbers are compared to fp32's rounding. One thread each,
# since two processes with one get through more than one process with two.
os.environ |= {"CUDA_VISIBLE_DEVICES": "", "ALIGNLIB_DEVICE": "cpu", "ALIGNLIB_THREADS": "1"}
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

from alignlib.real_model import smollm2_folder

SMOLLM2 = smollm2_folder()  # before the tests get a cache of their own
REAL = Path(os.environ.get("ALIGNLIB_REAL", "")) if os.environ.get("ALIGNLIB_REAL") else None
needs_real = pytest.mark.skipif(
    REAL is None or not REAL.is_dir(), reason="no real data: set ALIGNLIB_REAL"
)


@pytest.fixture(scope="session")
def smollm2() -> str:
    """The folder of a real pretrained model. What asks for it is marked `real`."""
    if not SMOLLM2.is_dir():
        pytest.skip("the real model is not there: run `make real`")
    return str(SMOLLM2)


def pytest_report_header() -> str:
    """How fast the machine is, since every time that a test run takes depends on it."""
    import time

    import torch

    torch.set_num_threads(2)
    a, times = torch.randn(2048, 2048), []
    for _ in range(12):
        started = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - started)
    torch.set_num_threads(1)
    return f"fp32 matrix product: {2 * 2048**3 / min(times) / 1e9:.0f} GFLOP/s on 2 threads"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lessons first: they take longest, and so none is left to one process at the end."""
    items.sort(key=lambda item: item.path.stem != "test_lessons")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty artefact cache, so that nothing a test sees was built by another version."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["ALIGNLIB_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained model of the town's vocabulary: for plumbing, not for quality."""
    from alignlib.models import save_model
    from alignlib.tinytown.pretrain import Recipe, build_model
    from alignlib.tinytown.tokenizer import build_tokenizer

    folder, tokenizer = tmp_path_factory.mktemp("model"), build_tokenizer()
    save_model(
        folder,
        build_model(Recipe(hidden=32, layers=2, heads=2, feed_forward=64), tokenizer),
        tokenizer,
    )
    return folder


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory, own_cache: Path) -> dict[str, Path]:
    """The folders of untrained models of several architectures (`stand_ins.py`)."""
    from .stand_ins import STAND_INS, save_stand_in

    return {name: save_stand_in(name, tmp_path_factory.mktemp(name)) for name in STAND_INS}

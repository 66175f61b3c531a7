"""Where a training keeps itself, so that it can go on after a stop."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedModel


@contextmanager
def work_folder(
    checkpoints: str | Path | None, about: list[object], model: PreTrainedModel
) -> Iterator[Path]:
    """Where a training writes: a folder that goes with it, or a place for just this training.

    It is known by its `training_id`.
    """
    if checkpoints is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    else:
        yield Path(checkpoints) / training_id(about, model)


def training_id(about: list[object], model: PreTrainedModel) -> str:
    """A training is known by what it is `about` and by the weights that it starts from."""
    weights = ((name, p.detach().cpu().double()) for name, p in model.named_parameters())
    sums = [(name, float(p.sum())) for name, p in weights]  # a GPU may not have doubles
    return hashlib.sha256(json.dumps([about, sums]).encode()).hexdigest()[:16]


def last_checkpoint(place: Path) -> str | None:
    """The last checkpoint that is whole; what a kill cut off while it was saved is deleted."""
    for found in sorted(place.glob("checkpoint-*"), key=steps_done, reverse=True):
        try:
            json.loads((found / "trainer_state.json").read_text(encoding="utf-8"))
            return str(found)
        except (OSError, ValueError):  # the state is what is written last
            shutil.rmtree(found, ignore_errors=True)
    return None


def steps_done(checkpoint: str | Path | None) -> int:
    return int(str(checkpoint).rpartition("-")[2]) if checkpoint else 0

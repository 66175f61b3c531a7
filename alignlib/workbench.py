"""What the Build notebooks start from: models and settings by kind of machine, and rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .data import QAC, Preference, read_qac, split_rows
from .profiles import data_folder, scaled_rows, scaled_stage
from .real_model import SMOLLM2
from .settings import SFTSettings

if TYPE_CHECKING:
    from .opinions import ModelJudge
    from .reward_models import RewardJudge

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Bench:
    """Which model, how much training and how many test rows suit a kind of machine."""

    model: str
    settings: SFTSettings
    tests: int


_LAPTOP = SFTSettings(steps=100, batch_size=8, tokens=640, max_length=1024)
_COLAB = SFTSettings(steps=200, batch_size=16, tokens=4096, max_length=1024, schedule="cosine")
_GPU = SFTSettings(steps=400, batch_size=32, tokens=16_384, max_length=2048, schedule="cosine")

BENCHES = {
    "laptop": Bench(SMOLLM2, _LAPTOP, tests=240),
    "colab": Bench("Qwen/Qwen2.5-0.5B-Instruct", _COLAB, tests=420),
    "gpu": Bench("Qwen/Qwen2.5-1.5B-Instruct", _GPU, tests=420),
}


def bench(name: str) -> Bench:
    """The bench of that name. Raises ValueError, listing those there are."""
    if name not in BENCHES:
        raise ValueError(f"no profile {name!r}; there are {', '.join(BENCHES)}")
    return BENCHES[name]


def scaled_bench(bench: Bench, scale: float) -> Bench:
    """The bench with `scale` times the steps and test rows, for a quick look."""
    tests = scaled_rows(bench.tests, scale)
    return replace(bench, settings=scaled_stage(bench.settings, scale), tests=tests)


def rows_file(split: str) -> Path:
    """The file of `data/everyday` with a split: train, validation or test."""
    return data_folder() / "everyday" / f"{split}.jsonl"


def load_rows(data: str | Path | None, tests: int, seed: int = 0) -> dict[str, list[QAC]]:
    """Rows by split: `data/everyday`, or your own (`read_qac`), split by question.

    Of the test rows at most `tests` are kept, alike of each kind of fault. Prints how many rows of
    your own were read, used and dropped. Raises ValueError if none of them has a faulty answer.
    """
    if data is None:
        splits = {split: read_qac(rows_file(split)).rows for split in SPLITS}
    else:
        loaded = read_qac(data)
        print(f"{data}: {loaded}")
        splits = split_rows(loaded.rows, tests, seed)
        for split in ("train", "test"):
            if all(row.answer == row.correction for row in splits[split]):
                what = f"no faulty answer among the {len(splits[split])} rows to {split} on"
                raise ValueError(f"{data}: {what}; add rows whose correction differs")
    step = max(1, -(-len(splits["test"]) // tests))  # every second row, say: kinds lie in a row
    return splits | {"test": splits["test"][::step]}


def learned_judge(name: str, key_variable: str | None = None) -> ModelJudge | RewardJudge:
    """A judge by its name: NAME@http://host/v1 for a model behind a server, else a reward model.

    `key_variable` names the environment variable with the server's key.
    """
    from .opinions import ModelJudge
    from .remote import named_server
    from .reward_models import RewardJudge

    server = named_server(name, key_variable=key_variable, refused_as_empty=True)
    return ModelJudge(server) if server else RewardJudge(name)


def labelled_pairs(rows: Sequence[QAC]) -> list[Preference]:
    """Pairs of which it is known which is better: a correction, and the faulty answer."""
    faulty = [row for row in rows if row.answer != row.correction]
    return [Preference(row.question, row.correction, row.answer) for row in faulty]

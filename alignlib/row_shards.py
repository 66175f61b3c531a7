"""Rows from several machines (`build-rows --shard i/n`, and at the end `--merge`).

Shard i of n has the questions i, i + n, i + 2 n, ... and a file of its own, with a row of each, so
no two shards ask for the same. Filters compare rows with each other, and so they come last.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .annotation import Annotator, Filters, make_rows, write_filtered
from .data import QAC, write_rows
from .place import DataError
from .records import data_path, read_records
from .upstream import Upstream

Shard = tuple[int, int]


def shard_file(out: str | Path, shard: Shard) -> Path:
    """Where a shard's rows lie, beside the file that they will be merged into."""
    out = data_path(out)
    return out.with_name("{}.shard-{}-of-{}.jsonl".format(out.stem, *shard))


def build_shard(
    questions: Sequence[str],
    upstream: Upstream,
    annotator: Annotator,
    out: str | Path,
    shard: Shard,
) -> int:
    """Write a shard's rows; how many there are. The same call after a stop goes on from there.

    Raises DataError for more shards than questions.
    """
    index, count = shard
    if count > len(questions):
        raise DataError(f"{len(questions)} questions cannot be cut into {count} shards; take fewer")
    place = shard_file(out, shard)
    rows = make_rows(questions[index::count], upstream, annotator, place)
    write_rows(place, rows)
    return len(rows)


def merge_shards(
    questions: Sequence[str], out: str | Path, filters: Filters = Filters(), about: str = ""
) -> Counter[str]:
    """Filter the rows of all shards together and write them; how many were kept, and left out.

    The shards' files are then deleted. Raises DataError if they do not hold each question once.
    """
    files = _shard_files(out)
    rows = [QAC(**row) for file in files for _, row in read_records(file)]
    by_question = {row.question: row for row in rows}
    missing = [question for question in questions if question not in by_question]
    if missing or len(rows) > len(questions):
        what = f"{len(rows)} rows for {len(questions)} questions, {len(missing)} without a row"
        fix = "build the shards again with this file of questions"
        raise DataError(f"{files[0].parent}: the shards hold {what}; {fix}")
    outcomes = write_filtered([by_question[q] for q in questions], out, filters, about)
    for file in files:
        file.unlink()
    return outcomes


def _shard_files(out: str | Path) -> list[Path]:
    """The files of all shards, in order. Raises DataError if there are none, or not all of them."""
    out = data_path(out)
    name = re.compile(rf"{re.escape(out.stem)}\.shard-(\d+)-of-(\d+)\.jsonl")
    found = [match for file in out.parent.glob("*.jsonl") if (match := name.fullmatch(file.name))]
    counts = {int(match[2]) for match in found}
    if len(counts) != 1:
        why = f"shards of {sorted(counts)}; delete those of an earlier run" if counts else "none"
        raise DataError(f"{out}: no shards to merge ({why}); `--shard 0/2` makes the first of two")
    [count] = counts
    files = [shard_file(out, (i, count)) for i in range(count)]
    if absent := [i for i, file in enumerate(files) if not file.exists()]:
        again = ", ".join(f"--shard {i}/{count}" for i in absent)
        raise DataError(f"{out}: not all shards are there; run {again} first")
    return files

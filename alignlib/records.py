"""Records from files: a JSON list or JSON lines, either gzipped, or a folder saved by `datasets`.

Every record comes with its line, and every refusal names the file, the line and the fix.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SPACE = re.compile(r"[ \t\r\n]*")
_FIX = "write a JSON list of rows, or one row per line"


class DataError(ValueError):
    """A file that cannot be used as it is; the message names file, line, field and the fix."""


def data_path(path: str | Path) -> Path:
    """The path of a data file, in which `~` is the home folder. Raises DataError if it is none."""
    if not isinstance(path, (str, os.PathLike)):
        kind = type(path).__name__
        raise DataError(f"{path!r} is no path but {kind}; write the file's name in quotes")
    return Path(os.path.expanduser(path))  # a name such as ~x of no user stays as it is


def read_records(path: str | Path) -> Iterator[tuple[int, Any]]:
    """(line, record) of every row in a file or a saved `datasets` folder. Raises DataError."""
    path = data_path(path)
    if not path.exists():
        here = f"looked from {Path.cwd().name}/"
        fix = "give a path relative to where you started"
        raise DataError(f"{path}: no such file ({here}); {fix}")
    if path.is_dir():
        yield from enumerate(_dataset_rows(path), start=1)
        return
    text = _text(path)
    if not text.strip():
        fix = "it needs a JSON list or one JSON object per line"
        raise DataError(f"{path}: the file is empty; {fix}")
    yield from _list_items(path, text) if text.lstrip().startswith("[") else _json_lines(path, text)


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        if data[:2] == b"\x1f\x8b":  # every gzip file starts so
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        what = f"the gzip file is cut off or damaged ({error})"
        raise DataError(f"{path}: {what}; copy it again") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from error


def _dataset_rows(path: Path) -> Iterator[dict[str, Any]]:
    from datasets import Dataset, load_from_disk

    try:
        loaded = load_from_disk(str(path))
    except FileNotFoundError as error:
        what = "a folder, but not one written by datasets' save_to_disk"
        raise DataError(f"{path}: {what}; give a file or such a folder") from error
    if not isinstance(loaded, Dataset):
        splits = ", ".join(loaded)
        raise DataError(f"{path}: has several splits ({splits}); give the folder of one of them")
    yield from loaded


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError as error:
            what = f"not JSON ({error.msg}, column {error.colno})"
            raise DataError(f"{path}, line {number}: {what}; {_FIX}") from error


def _list_items(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """The items of a JSON list one by one, so that the line of each is known."""

    def refusal(at: int, what: str) -> DataError:
        line = text.count("\n", 0, at) + 1
        return DataError(f"{path}, line {line}: {what}; {_FIX}")

    decoder, at, first = json.JSONDecoder(), text.index("[") + 1, True
    line, counted = 1, 0  # lines are counted from item to item, or a large file would take hours
    while True:
        at = _SPACE.match(text, at).end()
        if text[at : at + 1] == "]":
            break
        if not first:
            if text[at : at + 1] not in (",", ""):
                raise refusal(at, "not JSON (a comma is missing between two rows)")
            at = _SPACE.match(text, at + 1).end()
        if at >= len(text):
            raise refusal(at, "the list is cut off, its ']' is missing")
        line, counted, first = line + text.count("\n", counted, at), at, False
        try:
            item, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise refusal(error.pos, f"not JSON ({error.msg})") from error
        yield line, item
    if text[at + 1 :].strip():
        raise refusal(at, "more text after the list's ']'")

"""Records out of files: a JSON list, JSON lines, either gzipped, or a folder saved by `datasets`.

Every record comes with its line, and every refusal names the file, the line and the fix.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class DataError(ValueError):
    """A file that cannot be used as it is; the message names file, line, field and the fix."""


def read_records(path: Path) -> Iterator[tuple[int, Any]]:
    """(line, record) of every row in a file or a saved `datasets` folder."""
    if not path.exists():
        raise DataError(
            f"{path}: no such file (looked from {Path.cwd().name}/); give a path relative to "
            "where you started"
        )
    if path.is_dir():
        yield from enumerate(_dataset_rows(path), start=1)
        return
    text = _text(path)
    if not text.strip():
        raise DataError(
            f"{path}: the file is empty; it needs a JSON list or one JSON object a line"
        )
    yield from _list_items(path, text) if text.lstrip().startswith("[") else _json_lines(path, text)


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path}: the gzip file is cut off or damaged ({error}); copy it again"
        ) from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from error


def _dataset_rows(path: Path) -> Iterator[dict[str, Any]]:
    from datasets import Dataset, load_from_disk

    try:
        loaded = load_from_disk(str(path))
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: a folder, but not one written by datasets' save_to_disk; give a file or "
            "such a folder"
        ) from error
    if not isinstance(loaded, Dataset):
        raise DataError(
            f"{path}: holds several splits ({', '.join(loaded)}); give the folder of one of them"
        )
    yield from loaded


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{path}, line {number}: not JSON ({error.msg}, column {error.colno}); {_FIX}"
                ) from error


def _list_items(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """Items of a JSON list one by one, so that each one's line is known."""
    decoder, at, first = json.JSONDecoder(), text.index("[") + 1, True
    line, counted = 1, 0  # counted on from item to item, or a large file would take for ever
    while True:
        at = _skip_space(text, at)
        if text[at : at + 1] == "]":
            break
        if not first:
            if text[at : at + 1] not in (",", ""):
                raise DataError(
                    f"{path}, line {_line(text, at)}: not JSON (a comma is missing between "
                    f"two rows); {_FIX}"
                )
            at = _skip_space(text, at + 1)
        if at >= len(text):
            raise DataError(
                f"{path}, line {_line(text, at)}: the list is cut off, its ']' is missing; {_FIX}"
            )
        line, counted, first = line + text.count("\n", counted, at), at, False
        try:
            item, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}, line {error.lineno}: not JSON ({error.msg}); {_FIX}"
            ) from error
        yield line, item
    if text[at + 1 :].strip():
        raise DataError(f"{path}, line {_line(text, at)}: more text behind the list's ']'; {_FIX}")


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


_FIX = "write a JSON list of rows, or one row a line"

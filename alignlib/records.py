"""Records from files, folders and the hub, each with its place.

JSON lists and JSON lines, CSV and TSV, also gzipped or alone in a zip archive; Parquet; a folder
saved by `datasets` or holding such files; a data set on the hub. A refusal (DataError) names the
file, the place in it and the fix. What a record means is told by `shapes.py`.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .json_records import json_lines, list_items
from .place import DataError, Place

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
HUB_ADDRESS = "https://huggingface.co/datasets/"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.+-]+){0,2}")
# how files begin that cannot be read, and what to do with them
_NOT_READ = {
    b"BZh": "a bzip2 archive; unpack it",
    b"\xfd7zXZ": "an xz archive; unpack it",
    b"\x28\xb5\x2f\xfd": "a zstd archive; unpack it",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"ARROW1": "an Arrow file; give the folder that save_to_disk wrote, not a file in it",
    b"SQLite format 3": "an SQLite data base; export its table as CSV or JSON",
    b"\x80\x04": "a pickle, which is never opened; save the rows as JSON lines",
    b"%PDF": "a PDF; write its rows as JSON lines",
    b"version https://git-lfs": "a Git LFS pointer, not the data; run `git lfs pull`",
}
Records = Iterator[tuple[Place, Any]]


def data_path(path: str | Path) -> Path:
    """The path of a data file, in which `~` is the home folder. Raises DataError if it is none."""
    if not isinstance(path, (str, os.PathLike)):
        kind = type(path).__name__
        raise DataError(f"{path!r} is no path but {kind}; write the file's name in quotes")
    return Path(os.path.expanduser(path))  # a name such as ~x of no user stays as it is


def read_records(path: str | Path) -> Records:
    """(place, record) of every row of a file, a folder, or a data set on the hub.

    On the hub `owner/name` is a data set with one split, `owner/name:split` one of its splits, and
    `owner/name:configuration:split` that of one of its configurations. Its rows come shuffled, so
    that no part of it comes alone. Raises DataError.
    """
    file = data_path(path)
    try:
        there = file.exists()
    except (OSError, ValueError) as error:  # a name too long, or with a null in it
        raise DataError(f"{str(path)[:80]!r} is no path ({error}); give a file's name") from error
    if file.is_dir() and any((file / n).is_file() for n in ("state.json", "dataset_dict.json")):
        yield from _numbered(file, _saved_rows(file))
    elif file.is_dir():
        for part in _parts(file):
            yield from _content(str(part), part.read_bytes())
    elif there:
        if not file.is_file():
            raise DataError(f"{path}: neither a file nor a folder; save the rows to a file first")
        yield from _content(str(file), file.read_bytes())
    elif isinstance(path, str) and _is_hub_name(name := path.removeprefix(HUB_ADDRESS)):
        yield from _numbered(path, _hub_rows(name))
    else:
        here = f"looked from {Path.cwd().name}/"
        fix = "give a path relative to where you started"
        raise DataError(f"{path}: no such file ({here}); {fix}")


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file. Raises DataError."""
    file = data_path(path)
    if not file.is_file():
        raise DataError(f"{path}: no such file; give a path relative to where you started")
    return _text(str(file), file.read_bytes()).split("\n")


def _numbered(name: object, rows: Iterator[dict]) -> Records:
    for number, row in enumerate(rows, start=1):
        yield Place(str(name), number, "row"), row


def _is_hub_name(path: str) -> bool:
    return bool(_HUB_NAME.fullmatch(path)) and Path(path).suffix not in (*SUFFIXES, ".gz", ".zip")


def _content(name: str, data: bytes) -> Records:
    """The records in the bytes of a file, told by how they begin. `name` may end in .gz."""
    for start, what in _NOT_READ.items():
        if data.startswith(start):
            raise DataError(f"{name}: this is {what}")
    if data[:200].lstrip().lower().startswith((b"<!doctype", b"<html")):
        fix = "download the file itself (on the hub: 'resolve', not 'blob')"
        raise DataError(f"{name}: this is a web page; {fix}")
    if data[257:262] == b"ustar":
        raise DataError(f"{name}: this is a tar archive; unpack it")
    if data[:2] == b"\x1f\x8b":  # every gzip file starts so
        yield from _content(name.removesuffix(".gz"), _unzipped(name, data))
    elif data[:4] == b"PK\x03\x04":
        yield from _zip_member(name, data)
    elif data[:4] == b"PAR1":
        yield from _numbered(name, _parquet_rows(name, data))
    else:
        yield from _text_records(name, _text(name, data))


def _unzipped(name: str, data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        what = f"the gzip file is cut off or damaged ({error})"
        raise DataError(f"{name}: {what}; copy it again") from error


def _zip_member(name: str, data: bytes) -> Records:
    """The one data file in a zip archive."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        file = _data_file(name, archive.namelist())
        member = archive.read(file)
    except DataError:
        raise
    except Exception as error:  # a password, a rare compression, damage: each its own class
        what = f"the zip archive is damaged or cannot be opened here ({_first_line(error)})"
        raise DataError(f"{name}: {what}; unpack it, or copy it again") from error
    yield from _content(f"{name}/{file}", member)


def _data_file(name: str, inside: list[str]) -> str:
    """The one data file among those in an archive."""
    if "xl/workbook.xml" in inside:
        raise DataError(f"{name}: this is an Excel workbook; export its sheet as CSV")
    files = [f for f in inside if f.removesuffix(".gz").lower().endswith(SUFFIXES)]
    files = [f for f in files if not Path(f).name.startswith(".") and "__MACOSX" not in f]
    if len(files) != 1:
        found = ", ".join(files[:5]) or "none of " + ", ".join(SUFFIXES)
        fix = "unpack the zip archive and give one file"
        raise DataError(f"{name}: {len(files)} data files inside ({found}); {fix}")
    return files[0]


def _parquet_rows(name: str, data: bytes) -> Iterator[dict]:
    import pyarrow
    from pyarrow import parquet

    try:
        for batch in parquet.ParquetFile(pyarrow.BufferReader(data)).iter_batches():
            yield from batch.to_pylist()
    except Exception as error:  # what damage raises is of many kinds
        what = f"the Parquet file is cut off or damaged ({_first_line(error)})"
        raise DataError(f"{name}: {what}; copy it again") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def _text(name: str, data: bytes) -> str:
    """The text of a file, whichever Unicode it is in, with `\\n` as the end of its lines."""
    encoding = "utf-8-sig"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):  # PowerShell's `>` writes such files
        encoding = "utf-16"
    elif b"\0" in data[:2] and len(data) > 2:
        encoding = "utf-16-le" if data[1] == 0 else "utf-16-be"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        fix = "save the file as UTF-8 (or it is no text at all, but a binary file)"
        raise DataError(f"{name}, line {line}: not UTF-8 text; {fix}") from error
    text = text.replace("\r\n", "\n")
    return text if "\n" in text else text.replace("\r", "\n")


def _text_records(name: str, text: str) -> Records:
    if not text.strip():
        fix = "it needs a JSON list or one JSON object per line"
        raise DataError(f"{name}: the file is empty; {fix}")
    if name.lower().endswith((".csv", ".tsv")):
        yield from _table_rows(name, text)
    elif text.lstrip().startswith("["):
        yield from list_items(name, text)
    else:
        yield from json_lines(name, text)


def _table_rows(name: str, text: str) -> Records:
    """The rows of a table whose first line names the columns, divided by tabs, commas or `;`."""
    first, _, rest = text.partition("\n")
    skipped = 0
    if first.lower().startswith("sep="):  # Excel's own
        text, skipped = rest, 1
    head = text.partition("\n")[0]
    divider = "\t" if name.lower().endswith(".tsv") else max(",;\t", key=head.count)
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=divider, strict=True)
    columns, line = [], 1 + skipped
    try:
        for cells in reader:
            place, line = Place(name, line), reader.line_num + 1 + skipped
            if not columns:
                columns = [cell.strip() for cell in cells]
                if twice := [c for c in columns if c and columns.count(c) > 1]:
                    raise DataError(f"{place}: two columns named {twice[0]!r}; rename one of them")
            elif len(cells) == len(columns):
                yield place, dict(zip(columns, cells, strict=True))
            elif cells:
                what = f"{len(cells)} cells where the first line names {len(columns)} columns"
                raise DataError(f"{place}: {what}; put texts that hold {divider!r} in quotes")
    except csv.Error as error:
        fix = "save the table again as CSV, with quotes around the texts"
        raise DataError(f"{Place(name, line)}: not CSV ({error}); {fix}") from error


def _parts(folder: Path) -> list[Path]:
    """The data file in a folder, or the numbered parts of one, as the hub has them."""
    files = sorted(f for f in (*folder.iterdir(), *folder.glob("data/*")) if f.suffix in SUFFIXES)
    if len({re.sub(r"-\d+-of-\d+$", "", f.stem) for f in files}) == 1:
        return files
    what = "a folder, but not one written by datasets' save_to_disk"
    names = ", ".join(f.relative_to(folder).as_posix() for f in files[:5])
    fix = f"give one of its files ({names})" if files else "give a file"
    raise DataError(f"{folder}: {what}; {fix}")


def _saved_rows(folder: Path) -> Iterator[dict]:
    """The rows of a folder that `datasets` saved."""
    from datasets import Dataset, load_from_disk

    try:
        loaded = load_from_disk(str(folder))
        if isinstance(loaded, Dataset):
            yield from loaded
            return
    except Exception as error:  # what `datasets` raises for damaged folders is of many kinds
        what = f"the folder is damaged or incomplete ({_first_line(error)})"
        raise DataError(f"{folder}: {what}; save it again with save_to_disk") from error
    if len(loaded) > 1:
        splits = ", ".join(loaded)
        raise DataError(f"{folder}: has several splits ({splits}); give the folder of one of them")
    yield from next(iter(loaded.values()))


def _hub_rows(name: str) -> Iterator[dict]:
    """The rows of a data set on the hub, shuffled."""
    from datasets import Dataset, load_dataset

    repository, *rest = name.split(":")
    split = rest[-1] if rest else None
    configuration = rest[0] if len(rest) == 2 else None
    try:
        loaded = load_dataset(repository, configuration, split=split)
    except Exception as error:  # not there, gated, offline, no such split: each its own class
        what = f"no such file, and as a data set on the hub: {_first_line(error)}"
        fix = "check the name; write owner/name:split or owner/name:configuration:split"
        raise DataError(f"{name}: {what}; {fix}") from error
    if not isinstance(loaded, Dataset):
        if len(loaded) > 1:
            example = f"{name}:{next(iter(loaded))}"
            raise DataError(f"{name}: has the splits {', '.join(loaded)}; write {example}, say")
        [loaded] = loaded.values()
    yield from loaded.shuffle(seed=0)

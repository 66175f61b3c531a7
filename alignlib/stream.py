"""Corrections for files and pipes of any size, in constant memory and in the order of the rows."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout
from tqdm import tqdm

from .aligner import SETTINGS_FILE, Aligner
from .dialogues import Dropped, Record, as_text, context, without_mark
from .place import DataError, Place
from .records import data_path
from .settings import SMALL
from .texts import whole_characters

CHUNK, SLOW_CHUNK = 256, 32  # rows that are corrected, and written, together; by a larger model
NOWHERE = Place("", 0)  # who calls names the place
PIPE = "-"  # in place of a file's name


def correct_stream(
    folder: str | Path, source: str, out: str = PIPE, base: str | None = None
) -> Counter[str]:
    """Correct JSON lines with `question` and `answer`, adding `correction` to each.

    `folder` holds the Aligner, `base` is where its base model is, if that has moved. `source`, a
    file that may be gzipped, and `out` are files or `-` for standard input and output. A line that
    is no such row is named on standard error, and stands in the output as {"line": ..., "error":
    ...}, so that there are as many lines as rows. Until it is whole, a file lies beside `out`;
    stopped and called again, the work goes on where it was, if `source` is a file. Counts what
    became of the rows. Raises DataError for files that cannot be used.
    """
    source, out = (name if name == PIPE else str(data_path(name)) for name in (source, out))
    folder = data_path(folder)
    part = _part(folder, source, out)
    with _opened(source) as lines, _locked(part):
        aligner = Aligner.from_pretrained(folder, base)
        size = CHUNK if aligner.model.num_parameters() <= SMALL else SLOW_CHUNK
        if part is not None and source == PIPE:
            part.unlink(missing_ok=True)  # a pipe cannot be read again from where it was
        outcomes = Counter[str]() if part is None else _whole_chunks(part, size)
        numbered = _Numbered(lines)
        rows = islice(numbered, outcomes.total(), None)
        with _writer(part) as written:
            bar = tqdm(desc="corrected", unit=" rows", initial=outcomes.total(), mininterval=1)
            while chunk := list(islice(rows, size)):
                for record in _corrected(aligner, source, chunk):
                    outcomes[_outcome(record)] += 1
                    line = whole_characters(json.dumps(record, ensure_ascii=False))
                    written.write(line.encode() + b"\n")
                written.flush()
                bar.update(len(chunk))
            bar.close()
    if numbered.damage:
        raise DataError(f"{source}: {numbered.damage}; what comes before it was corrected")
    if part is not None:
        os.replace(part, out)
    return outcomes


def _corrected(aligner: Aligner, source: str, chunk: list[tuple[int, bytes]]) -> list[dict]:
    """The output's records for some numbered lines."""
    records, rows, questions = [], [], []
    for number, line in chunk:
        try:
            row = _row(line)
            questions.append(_asked(row))
            rows.append(row)
            records.append(row)
        except ValueError as error:
            print(f"{source}, line {number}: {error}", file=sys.stderr)
            records.append({"line": number, "error": str(error)})
    found = aligner.corrections(questions, [row["answer"] for row in rows])
    for row, one in zip(rows, found, strict=True):
        row["correction"] = one.text
        row.pop("kept_because", None)  # of an earlier pass
        if one.kept_because:
            row["kept_because"] = one.kept_because
    return records


def _outcome(record: dict) -> str:
    """What became of a row, in a word or two."""
    if "correction" not in record:
        return "bad line"
    same = record["correction"].split() == record["answer"].split()
    return record.get("kept_because", "unchanged" if same else "corrected")


def _row(line: bytes) -> dict:
    """A line's record. Raises ValueError if it lacks a question or an answer."""
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg}, column {error.colno})") from None
    except UnicodeError:
        raise ValueError("not UTF-8 text") from None
    if not isinstance(row, dict):
        raise ValueError('no JSON object; write {"question": ..., "answer": ...}')
    for key in ("question", "answer"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise ValueError(f"no text under {key!r}")
    return row


def _asked(row: dict) -> str:
    """A row's question with its system text and earlier turns, as rows to train on are read."""
    try:
        return without_mark(as_text(context(Record(row, NOWHERE))))
    except (Dropped, DataError) as reason:
        raise ValueError(str(reason).removeprefix(f"{NOWHERE}: ")) from None


class _Numbered:
    """The lines that are not blank, with their numbers, up to where a file is damaged."""

    def __init__(self, lines: BinaryIO) -> None:
        self.lines, self.damage = lines, ""

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        number = 0
        try:
            for number, line in enumerate(self.lines, start=1):
                if line.strip():
                    yield number, line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self.damage = f"the gzip file is damaged after line {number} ({error})"


def _part(folder: str | Path, source: str, out: str) -> Path | None:
    """Where the unfinished output lies: another Aligner or input has another place.

    Standard output has none. Raises DataError if a file is missing, or `out` is there already.
    """
    if source != PIPE and not Path(source).is_file():
        raise DataError(f"{source}: no such file; give a file of JSON lines, or {PIPE} for a pipe")
    if out != PIPE and Path(out).exists():
        raise DataError(f"{out} is there already; delete it, or write to another file")
    if out != PIPE and not Path(out).absolute().parent.is_dir():
        raise DataError(f"{Path(out).parent}: no such folder; make it first")
    if out == PIPE:
        return None
    if source == PIPE:
        return Path(f"{out}.part")
    about = hashlib.sha256((Path(folder) / SETTINGS_FILE).read_bytes())
    stat = Path(source).stat()
    about.update(f"{Path(source).resolve()} {stat.st_size} {stat.st_mtime_ns}".encode())
    return Path(f"{out}.{about.hexdigest()[:8]}.part")


def _whole_chunks(part: Path, size: int) -> Counter[str]:
    """What became of the rows that a stopped run left in whole chunks; the rest is cut off.

    So a row is corrected beside the same others as in a run without a stop.
    """
    kept, found, end = Counter[str](), Counter[str](), 0
    if not part.exists():
        return kept
    with part.open("rb") as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                break
            found[_outcome(json.loads(line))] += 1
            if found.total() % size == 0:
                kept, end = found.copy(), stream.tell()
    os.truncate(part, end)
    return kept


@contextmanager
def _locked(part: Path | None) -> Iterator[None]:
    """Refuse an output that another process is writing. A process that died holds no lock."""
    if part is None:
        yield
        return
    lock = FileLock(part.with_suffix(".lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise DataError(f"another process is writing {part.name}; wait for it") from None
    try:
        yield
    finally:
        lock.release()
        part.with_suffix(".lock").unlink(missing_ok=True)


@contextmanager
def _opened(source: str) -> Iterator[BinaryIO]:
    if source == PIPE:
        yield sys.stdin.buffer
        return
    with Path(source).open("rb") as raw:
        gzipped = raw.read(2) == b"\x1f\x8b"
    with (gzip.open if gzipped else open)(source, "rb") as lines:
        if _is_other_format(source, lines):
            how = "alignlib.records.read_records reads lists and tables"
            raise DataError(f"{source}: no JSON lines; write one row a line ({how})")
        yield lines


def _is_other_format(source: str, lines: BinaryIO) -> bool:
    """Whether a file is a list, a table, or in another encoding as a whole."""
    try:
        start = lines.peek(200)[:200].removeprefix(b"\xef\xbb\xbf").lstrip()
    except (OSError, EOFError, zlib.error):  # damaged, which is told when it is read
        return False
    is_list = re.match(rb"\[\s*(\{|$)", start) is not None
    is_table = source.lower().removesuffix(".gz").endswith((".csv", ".tsv", ".parquet"))
    return is_list or is_table or start.startswith((b"\xff\xfe", b"\xfe\xff", b"PK\x03\x04"))


@contextmanager
def _writer(part: Path | None) -> Iterator[BinaryIO]:
    if part is None:
        yield sys.stdout.buffer
    else:
        with part.open("ab") as stream:
            yield stream

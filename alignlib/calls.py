"""Replies of paid services, kept in one SQLite file, each under all that it may depend on."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from .host import cache_folder

WAIT = 60.0  # seconds for other processes that write


def calls_file() -> Path:
    """The file that holds all replies."""
    return cache_folder() / "calls.sqlite3"


def call_key(about: list[object]) -> str:
    """The key of a reply; `about` is everything that decides it."""
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]


def write_call(key: str, row: dict[str, str]) -> None:
    """Keep a reply, completely or not at all."""
    with _opened() as calls:
        calls.execute("INSERT OR REPLACE INTO calls VALUES (?, ?)", (key, json.dumps(row)))


def read_calls(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """The replies that are there, by key."""
    found = {}
    with _opened() as calls:
        for key in keys:
            row = calls.execute("SELECT row FROM calls WHERE key = ?", (key,)).fetchone()
            if row := (row[0] if row else _of_earlier_versions(key)):
                found[key] = json.loads(row)
    return found


@contextmanager
def _opened() -> Iterator[sqlite3.Connection]:
    """The data base, for one transaction. Raises ValueError if the file is damaged."""
    file = calls_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(file, timeout=WAIT)) as calls, calls:  # committed, or undone
            calls.execute("CREATE TABLE IF NOT EXISTS calls (key TEXT PRIMARY KEY, row TEXT)")
            yield calls
    except sqlite3.OperationalError as error:  # locked, no room, not allowed: the file is whole
        fix = "free the disk, or stop what else uses the file, and run this again"
        raise ValueError(f"{file}: replies cannot be read or kept ({error}); {fix}") from error
    except sqlite3.DatabaseError as error:
        fix = "move the file away to start anew; what was paid for is asked again"
        raise ValueError(f"{file}: the file is damaged ({error}); {fix}") from error


def _of_earlier_versions(key: str) -> str | None:
    """A reply from the time when each was a file of its own."""
    file = cache_folder() / "calls" / f"{key}.json"
    try:
        return json.dumps(json.loads(file.read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError):
        return None

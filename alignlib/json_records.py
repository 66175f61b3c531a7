"""Records in JSON text: a list, one object per line, or objects over several lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from .place import DataError, Place

LISTS = ("data", "rows", "items", "examples", "instances", "train", "validation", "test")
_SPACE = re.compile(r"[ \t\r\n]*")
_FIX = "write a JSON list of rows, or one row per line"


def json_lines(name: str, text: str) -> Iterator[tuple[Place, Any]]:
    """One object per line; or objects over several lines, or one that holds a table."""
    lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    first = lines[0][1].strip()
    if len(lines) == 1 or first == "{" or first.endswith((",", "[", ":")):
        yield from _json_values(name, text)
        return
    for number, line in lines:
        item, end = _decoded(name, line.strip(), 0, number)
        if rest := line.strip()[end:]:
            what = f"not JSON (more after the row: {rest[:20]!r})"
            raise DataError(f"{name}, line {number}: {what}; {_FIX}")
        yield Place(name, number), item


def _decoded(name: str, text: str, at: int, line: int = 1) -> tuple[Any, int]:
    """The JSON value that starts at a place in a text, and where it ends. Raises DataError.

    `line` is the number of the text's first line.
    """
    try:
        return json.JSONDecoder().raw_decode(text, at)
    except json.JSONDecodeError as error:
        where = f"{name}, line {line + error.lineno - 1}"
        what = f"not JSON ({error.msg}, column {error.colno})"
        raise DataError(f"{where}: {what}; {_FIX}") from error
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number too long
        where = f"{name}, line {line + text.count(chr(10), 0, at)}"
        raise DataError(f"{where}: JSON that cannot be read ({error}); {_FIX}") from error


def _json_values(name: str, text: str) -> Iterator[tuple[Place, Any]]:
    """JSON objects one after another; of one alone that holds a table or a list, its rows."""
    at, found = _SPACE.match(text).end(), []
    line, counted = 1, 0  # from value to value, as below
    while at < len(text):
        line, counted = line + text.count("\n", counted, at), at
        item, at = _decoded(name, text, at)
        found.append((Place(name, line), item))
        at = _SPACE.match(text, at).end()
    if len(found) == 1 and (rows := _rows_within(*found[0])) is not None:
        for number, row in enumerate(rows, start=1):
            yield Place(name, number, "row"), row
    else:
        yield from found


def _rows_within(place: Place, value: Any) -> list | None:
    """The rows of an object such as {"data": [...]}, or of pandas' columns; None if it is a row."""
    if not isinstance(value, dict) or not value:
        return None
    lists = [k for k in LISTS if isinstance(value.get(k), list)]
    lists = [k for k in lists if all(isinstance(row, dict) for row in value[k])]
    if len(lists) == 1:
        return [row.get("row", row) for row in value[lists[0]]]  # the hub's viewer wraps each row
    if lists:
        which = ", ".join(lists)
        raise DataError(f"{place}: several lists of rows ({which}); put one into a file of its own")
    columns = list(value.values())
    if any(isinstance(c, dict) and {"role", "from"} & c.keys() for c in columns):
        return None  # a row with messages
    if all(key.isdigit() and isinstance(row, dict) for key, row in value.items()):
        return columns  # pandas' to_json, by row
    if all(isinstance(c, dict) for c in columns) and len({tuple(c) for c in columns}) == 1:
        columns = [list(c.values()) for c in columns]  # pandas' to_json, by row numbers
    texts = (str, int, float, type(None))
    if not all(isinstance(c, list) and all(isinstance(x, texts) for x in c) for c in columns):
        return None
    if len({len(c) for c in columns}) != 1:
        return None
    return [dict(zip(value, cells, strict=True)) for cells in zip(*columns)]


def list_items(name: str, text: str) -> Iterator[tuple[Place, Any]]:
    """The items of a JSON list one by one, so that the line of each is known."""

    def refusal(at: int, what: str) -> DataError:
        line = text.count("\n", 0, at) + 1
        return DataError(f"{name}, line {line}: {what}; {_FIX}")

    at, first = text.index("[") + 1, True
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
        item, at = _decoded(name, text, at)
        yield Place(name, line), item
    if text[at + 1 :].strip():
        raise refusal(at, "more text after the list's ']'")

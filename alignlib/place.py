"""Where a record stands, and the refusal that names it."""

from __future__ import annotations

from dataclasses import dataclass


class DataError(ValueError):
    """A file that cannot be used as it is; the message names file, line, field and the fix."""


@dataclass(frozen=True)
class Place:
    """Where a record stands, for messages: a line of a text file, a row of any other."""

    path: str
    number: int
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.path}, {self.unit} {self.number}"

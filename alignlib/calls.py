"""Replies of paid services, kept on disk: each is a file, named by all that it may depend on."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path

from .host import cache_folder


def place_of_call(about: list[object]) -> Path:
    """The file of a reply; `about` is everything that decides it."""
    digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    return cache_folder() / "calls" / f"{digest[:32]}.json"


def write_call(place: Path, row: dict[str, str]) -> None:
    """Keep a reply, completely or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(f".{os.getpid()}.{threading.get_ident()}.part")
    part.write_text(json.dumps(row), encoding="utf-8")
    os.replace(part, place)


def read_call(place: Path) -> dict[str, str] | None:
    """A reply, or None; a file that a power cut left empty counts as none."""
    try:
        return json.loads(place.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None

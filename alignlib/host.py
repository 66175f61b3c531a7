"""This machine: where things lie, and how much memory was used."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil


def cache_folder() -> Path:
    """Where artefacts lie: ALIGNLIB_CACHE, else `alignlib` under the user's cache folder."""
    if set_by_user := os.environ.get("ALIGNLIB_CACHE"):
        return Path(set_by_user).expanduser()
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "alignlib"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "alignlib"


def peak_memory_mb() -> int:
    """The most memory this process has used, in MB; 0 where the system does not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024**2 if sys.platform == "darwin" else 1024))


def memory_mb() -> int:
    """The memory that this process uses now, in MB."""
    return round(psutil.Process().memory_info().rss / 2**20)

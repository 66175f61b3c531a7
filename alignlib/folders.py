"""Where things lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where artefacts lie: ALIGNLIB_CACHE, else `alignlib` under the user's cache folder."""
    if set_by_user := os.environ.get("ALIGNLIB_CACHE"):
        return Path(set_by_user).expanduser()
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "alignlib"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "alignlib"

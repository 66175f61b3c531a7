"""What a model's name stands for: a folder, or a repository on the hub; and what tells it apart."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download

from .model_files import refusal
from .real_model import SMOLLM2, smollm2

HUB_FIX = (
    "check the name, and that the hub can be reached (downloaded once, a model works offline); "
    "or give a folder"
)
# what a trained model is saved as, in whichever folder of a repository
SAVED = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "README.md")
IDENTITY = (".json", ".safetensors", ".txt", ".model", ".jinja")  # files that make a model


def looks_local(name: str | Path) -> bool:
    """Whether a model's name means a folder. A hub id is `name` or `owner/name`, and no folder."""
    if isinstance(name, Path) or Path(name).expanduser().exists():
        return True
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name


def resolved(name: str | Path) -> str:
    """A model's name that means the same from any folder: a hub id, or an absolute path."""
    return str(Path(name).expanduser().resolve()) if looks_local(name) else str(name)


def expanded(name: str | Path) -> str | Path:
    """`~` is the home folder, as a shell has it; SMOLLM2 is the model that `make real` fetches."""
    if name == SMOLLM2:
        name = smollm2()
    return Path(name).expanduser() if looks_local(name) else name


def downloaded(name: str | Path) -> Path:
    """The folder itself, or a copy of the hub's repository of that name. Raises ModelError."""
    if looks_local(name):
        return Path(name).expanduser()
    try:
        return Path(snapshot_download(str(name), allow_patterns=list(SAVED)))
    except Exception as error:  # no such name, or no way to the hub: each its own class
        raise refusal(name, "no such folder here, and not on the hub", error, HUB_FIX) from error


def fingerprint(name: str | Path) -> str:
    """What tells a base model apart from others.

    Of a folder the sha256 of what its configuration, tokenizer and weights say, whatever their line
    ends are; of a hub id its revision.
    """
    place = expanded(name)
    folder = Path(place)
    if not folder.is_dir():
        return str(name) if looks_local(name) else f"{place}@{_revision(str(place))}"
    total = hashlib.sha256()
    for file in sorted(f for f in folder.iterdir() if f.suffix in IDENTITY):
        about = file.stat()
        total.update(file.name.encode() + _file_digest(file, about.st_mtime_ns, about.st_size))
    return total.hexdigest()


@lru_cache(maxsize=256)
def _file_digest(file: Path, changed: int, size: int) -> bytes:
    """The sha256 of a file's content; time of change and size are there to key the cache."""
    if file.suffix in (".safetensors", ".model"):
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    content = file.read_bytes().replace(b"\r\n", b"\n")
    if file.suffix == ".json":
        try:
            content = json.dumps(json.loads(content), sort_keys=True).encode()
        except ValueError:
            pass  # not JSON: load_model says so better
    return hashlib.sha256(content).digest()


def _revision(hub_id: str) -> str:
    """The commit that a hub id stands for now or, offline, the one downloaded; "" for neither."""
    try:
        return Path(hf_hub_download(hub_id, "config.json")).parent.name
    except Exception:  # whatever is wrong with it, load_model says it better
        return ""

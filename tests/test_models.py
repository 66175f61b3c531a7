"""Models: the device, the fingerprint, random state, and code that lies beside weights."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from alignlib.controls import with_controls
from alignlib.models import (
    ModelError,
    add_lora,
    fingerprint,
    load_model,
    own_random_state,
    pick_device,
)
from alignlib.profiles import data_folder
from alignlib.settings import ControlSettings

BASE = data_folder() / "base"


@pytest.mark.parametrize("named", ["cpu", "cuda:1", "mps", "meta"])
def test_the_device_can_be_named(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNLIB_DEVICE", named)
    assert pick_device() == torch.device(named)


def test_a_name_that_is_no_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNLIB_DEVICE", "gpu")
    with pytest.raises(ModelError, match="ALIGNLIB_DEVICE='gpu' is no device; set it to cpu"):
        pick_device()


@pytest.mark.parametrize(
    ("cuda", "mps", "parameters", "kind"),
    [
        (True, False, 900_000, "cuda"),
        (False, True, 900_000, "cpu"),
        (False, True, 135_000_000, "mps"),
        (False, True, None, "mps"),
        (False, False, None, "cpu"),
    ],
)
def test_the_device_follows_the_machine_and_the_models_size(
    cuda: bool, mps: bool, parameters: int | None, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALIGNLIB_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device(parameters).type == kind


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(BASE, tmp_path / "model")
    monkeypatch.setenv("HOME", str(tmp_path))
    model, tokenizer = load_model("~/model")
    assert model.num_parameters() > 800_000 and tokenizer.pad_token


# --- fingerprints ---------------------------------------------------------------------------------


def test_a_fingerprint_is_of_content_and_not_of_line_ends(tmp_path: Path) -> None:
    place = shutil.copytree(BASE, tmp_path / "base")
    assert fingerprint(place) == fingerprint(BASE)
    (place / "merges.txt").write_bytes(b"a b\nc d\n")
    before = fingerprint(place)
    for file in (*place.glob("*.json"), place / "merges.txt"):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert fingerprint(place) == before
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(dict(reversed(config.items()))))
    assert fingerprint(place) == before, "nor of the order of keys"


FILES = ("config.json", "merges.txt", "vocab.txt", "tokenizer.model", "chat_template.jinja")


@pytest.mark.parametrize("name", [*FILES, "model.safetensors"])
def test_a_fingerprint_follows_every_file_that_makes_a_model(name: str, tmp_path: Path) -> None:
    for file in (*FILES, "model.safetensors"):
        (tmp_path / file).write_text("{}")
    before = fingerprint(tmp_path)
    (tmp_path / name).write_text('{"a": 1}')
    assert fingerprint(tmp_path) != before
    (tmp_path / "README.md").write_text("about it")
    (tmp_path / name).write_text("{}")
    assert fingerprint(tmp_path) == before


# --- random state ---------------------------------------------------------------------------------


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def seed_all() -> None:
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)


def test_whatever_is_seeded_within_leaves_all_generators_as_they_were() -> None:
    seed_all()
    wanted = drawn()
    seed_all()
    with pytest.raises(KeyError), own_random_state():
        random.seed(9), np.random.seed(9), torch.manual_seed(9)
        raise KeyError
    assert drawn() == wanted


@pytest.mark.parametrize("what", ["lora", "soft prompt"])
def test_what_seeds_itself_leaves_the_callers_random_state(what: str, tiny_model: Path) -> None:
    model, tokenizer = load_model(tiny_model)
    seed_all()
    wanted = drawn()
    seed_all()
    if what == "lora":
        add_lora(model, 4, seed=3)
    else:
        with_controls(model, tokenizer, ["good"], ControlSettings("prompt", 4))
    assert drawn() == wanted


# --- code of a model's own ------------------------------------------------------------------------

CONFIG = """
import os, pathlib
pathlib.Path(os.environ["MARKER"]).write_text("ran")
from transformers import LlamaConfig
class OwnConfig(LlamaConfig):
    model_type = "own"
"""


def test_code_beside_a_model_is_neither_run_nor_asked_about(tmp_path: Path) -> None:
    place = shutil.copytree(BASE, tmp_path / "own")
    config = json.loads((place / "config.json").read_text())
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (place / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": own}))
    (place / "own.py").write_text(CONFIG)
    program = "from alignlib.models import load_model; load_model(__import__('sys').argv[1])"
    environment = {**os.environ, "MARKER": str(tmp_path / "ran"), "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", program, str(place)],
        input="y\n" * 20,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 1 and not (tmp_path / "ran").exists()
    assert "code of its own, which is never run" in done.stderr
    assert "Do you wish" not in done.stdout + done.stderr

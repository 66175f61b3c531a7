"""Notebooks 09 and 10 and `train meet|hbat`: the real model, stand-ins, people's own rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from alignlib.data import write_rows
from alignlib.everyday import read_aims, style_pairs
from alignlib.generation import generate
from alignlib.meet import Meet
from alignlib.models import load_model
from alignlib.styles import texts_by_control
from alignlib.workbench import MEET_BENCHES

from .notebooks import alignlib, run_notebook

FOUR = ("llama", "qwen3", "gemma2", "gpt2")  # the first in `make test`, all in `make test-all`
COSTS = {"predicted_minutes", "training_minutes", "predicted_gb", "peak_gb"}
WANTED_09 = COSTS | {"asked_rude", "asked_polite", "asked_nothing", "asked/difference"}
WANTED_09 |= {"mix/0.25", "mix/0.5", "mix/0.75", "own_control/rude", "own_control/polite"}
METHODS_10 = ("two_stage", "hbat")
WANTED_10 = COSTS | {
    f"{m}/{id}" for m in ("instructions", "preference", "loss") for id in METHODS_10
}


@pytest.mark.real
def test_notebook_09_with_the_real_model_in_a_minute(smollm2: str, tmp_path: Path) -> None:
    """Too short for greedy answers to change, long enough to tell both styles apart."""
    found = run_notebook("09", tmp_path, MODEL=smollm2, SCALE=0.3, EXPORT=True)
    assert WANTED_09 <= found.keys()
    assert found["own_control/rude"] > 0.6 < found["own_control/polite"]
    for name in ("merged/model.safetensors", "mix/adapter_model.safetensors"):
        assert (tmp_path / "09" / name).exists()


@pytest.mark.real
def test_notebook_10_with_the_real_model_in_two_minutes(smollm2: str, tmp_path: Path) -> None:
    found = run_notebook("10", tmp_path, MODEL=smollm2, SCALE=0.15, ROUNDS=2)
    assert WANTED_10 <= found.keys()
    assert found["loss/instructions_only"] < 4  # before training about 5
    assert (tmp_path / "10" / "model" / "adapter_model.safetensors").exists()


BUILDS = pytest.mark.parametrize(
    "name", [n if n == "llama" else pytest.param(n, marks=pytest.mark.slow) for n in FOUR]
)


@BUILDS
def test_notebook_09_runs_on_any_architecture(
    name: str, stand_in: dict[str, Path], tmp_path: Path
) -> None:
    found = run_notebook("09", tmp_path, MODEL=str(stand_in[name]), SIZE=2, SCALE=0.05)
    assert WANTED_09 <= found.keys()
    assert not (tmp_path / "09" / "checkpoints").exists()


@BUILDS
def test_notebook_10_runs_on_any_architecture(
    name: str, stand_in: dict[str, Path], tmp_path: Path
) -> None:
    given = {"MODEL": str(stand_in[name]), "LORA_RANK": 2, "ROUNDS": 2}
    found = run_notebook("10", tmp_path, **given, SCALE=0.1)
    assert WANTED_10 <= found.keys()


# --- rows of one's own ----------------------------------------------------------------------------


def test_notebook_09_on_own_texts_with_soft_prompts_and_step_2(
    stand_in: dict[str, Path], tmp_path: Path
) -> None:
    texts = texts_by_control(style_pairs("train")[:40], "formal", "brief")
    files = {name: str(tmp_path / f"{name}.jsonl") for name in texts}
    for name, rows in texts.items():
        write_rows(files[name], rows)
    given = {"KIND": "prompt", "SIZE": 3, "STEP_2": 2, "SCALE": 0.05, "FORM": "{}"}
    found = run_notebook("09", tmp_path, MODEL=str(stand_in["llama"]), DATA=files, **given)
    assert {"own_control/formal", "own_control/brief"} <= found.keys()
    assert (tmp_path / "09" / "meet" / "model" / "model.safetensors").exists()


@pytest.mark.parametrize("by", ["dpo", pytest.param("ppo", marks=pytest.mark.slow)])
def test_notebook_10_on_own_rows(by: str, stand_in: dict[str, Path], tmp_path: Path) -> None:
    """Pairs alone: their chosen texts are the instructions too. And by PPO, with all weights."""
    given = {"MODEL": str(stand_in["llama"]), "ROUNDS": 2, "SCALE": 0.1, "PREFER_BY": by}
    if by == "dpo":
        given["MINUTES"] = 0.1
        write_rows(tmp_path / "pairs.jsonl", style_pairs("train")[:40])
        given |= {"PREFERENCES": str(tmp_path / "pairs.jsonl"), "LORA_RANK": 2}
    else:
        given |= {"LORA_RANK": 0}
    found = run_notebook("10", tmp_path, **given)
    judged = {name for name in WANTED_10 if name.startswith("instructions")}
    assert (WANTED_10 if by == "ppo" else WANTED_10 - judged) <= found.keys()
    whole = (tmp_path / "10" / "model" / "model.safetensors").exists()
    assert whole == (by == "ppo")


def test_soft_prompts_are_trained_at_their_own_learning_rate() -> None:
    laptop = MEET_BENCHES["laptop"]
    soft, larger = laptop.with_control("prompt", None), laptop.with_control("lora", 32)
    assert (soft.control.kind, soft.control.size, soft.settings.learning_rate) == (
        "prompt",
        20,
        None,
    )
    assert (larger.control.kind, larger.control.size) == ("lora", 32)
    assert larger.settings == laptop.settings == laptop.with_control("lora", None).settings


# --- the command line -----------------------------------------------------------------------------

SMALL = ["--steps", "4", "--batch-size", "4", "--lora-rank", "2", "--max-length", "600"]


def test_train_meet_from_the_command_line(stand_in: dict[str, Path], tmp_path: Path) -> None:
    pairs = style_pairs("train")[:20]
    write_rows(tmp_path / "pairs.jsonl", pairs)
    model = ["--model", str(stand_in["llama"]), *SMALL]
    done = alignlib("train", "meet", "--data", "pairs.jsonl", "--out", "mine", *model, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "20 rows read, 20 used" in done.stdout and "done: mine" in done.stdout
    assert not (tmp_path / "mine" / "checkpoints").exists()
    meet = Meet.from_pretrained(tmp_path / "mine")
    assert meet.controls == ["good", "bad"] and meet.form == "{}\n\nAnswer:"
    again = alignlib(
        "train", "meet", "--data", "pairs.jsonl", "--out", "mine", *model, cwd=tmp_path
    )
    assert again.returncode == 1 and "holds controls already" in again.stderr


def test_train_meet_with_a_file_for_each_control(stand_in: dict[str, Path], tmp_path: Path) -> None:
    for name, rows in texts_by_control(style_pairs("train")[:20], "one", "two").items():
        write_rows(tmp_path / f"{name}.jsonl", rows)
    model = ["--model", str(stand_in["llama"]), *SMALL, "--soft-prompt", "3"]
    files = ["--data", "one=one.jsonl", "two=two.jsonl"]
    done = alignlib("train", "meet", *files, "--out", "mine", *model, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Meet.from_pretrained(tmp_path / "mine").controls == ["one", "two"]


@pytest.mark.parametrize("method", ["hbat", "two-stage", "mixed"])
def test_train_hbat_from_the_command_line(
    method: str, stand_in: dict[str, Path], tmp_path: Path
) -> None:
    aims = read_aims("train")
    write_rows(tmp_path / "rows.jsonl", aims.instructions[:20])
    write_rows(tmp_path / "pairs.jsonl", aims.pairs[:20])
    files = ["--instructions", "rows.jsonl", "--preferences", "pairs.jsonl", "--out", "mine"]
    rest = ["--method", method, "--rounds", "2", "--preference-steps", "4", "--pairs", "2"]
    model = ["--model", str(stand_in["llama"]), *SMALL]
    done = alignlib("train", "hbat", *files, *rest, *model, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "needs " in done.stdout and " GB and about " in done.stdout
    assert not (tmp_path / "mine" / "stages").exists()
    assert (tmp_path / "mine" / "adapter_model.safetensors").exists()
    assert len(generate(*load_model(tmp_path / "mine"), ["a"], max_new_tokens=4)) == 1


WRONG: dict[str, tuple[list[dict], Sequence[str], str]] = {
    "no usable pair": (
        [{"prompt": "q", "chosen": "a", "rejected": "a "}],
        ["hbat", "--preferences", "rows.jsonl"],
        "chosen and rejected are the same text",
    ),
    "more rounds than rows": (
        [asdict(pair) for pair in style_pairs("train")[:2]],
        ["hbat", "--preferences", "rows.jsonl", "--rounds", "3"],
        "2 rows cannot be cut into 3 shards",
    ),
    "a name that PEFT refuses": (
        [{"prompt": "q", "completion": "a"}],
        ["meet", "--data", "mlp=rows.jsonl"],
        "no control can be named 'mlp'",
    ),
    "empty completions": (
        [{"prompt": "q", "completion": " "}],
        ["meet", "--data", "one=rows.jsonl"],
        "no usable rows",
    ),
    "files without names": (
        [{"prompt": "q", "completion": "a"}],
        ["meet", "--data", "rows.jsonl", "rows.jsonl"],
        "several files need the names of their controls: NAME=FILE",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_trained_on_is_refused_in_a_sentence(
    what: str, stand_in: dict[str, Path], tmp_path: Path
) -> None:
    rows, arguments, reason = WRONG[what]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = ["--model", str(stand_in["llama"]), *SMALL, "--out", "mine"]
    done = alignlib("train", *arguments, *model, cwd=tmp_path)
    assert done.returncode == 1 and reason in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "mine").exists()

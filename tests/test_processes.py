"""Two processes train as one does: same losses, one writer; and what they cannot do is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alignlib import processes
from alignlib.aligner import Aligner
from alignlib.course.cli import main
from alignlib.devices import pick_device, set_threads
from alignlib.ppo import train_ppo
from alignlib.settings import PPOSettings
from alignlib.train import reward_model
from alignlib.trainer_tools import cut_into_steps

from .all_trainings import STEPS, losses_of_all

ROOT = Path(__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def run_two(*command: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ALIGNLIB_DEVICE": "cpu"}
    given = {"env": environment, "capture_output": True, "text": True, "timeout": 300}
    return subprocess.run([*TORCHRUN, *command], **given)


def test_two_processes_have_the_losses_of_one(stand_in: dict[str, Path], tmp_path: Path) -> None:
    model, out = str(stand_in["llama"]), tmp_path / "losses.json"
    done = run_two(str(ROOT / "tests" / "all_trainings.py"), model, str(out))
    assert done.returncode == 0, done.stderr[-2000:]
    alone = losses_of_all(model, tmp_path / "stages")
    together = json.loads(out.read_text(encoding="utf-8"))
    assert together.keys() == alone.keys()
    for name, losses in alone.items():
        assert together[name] == pytest.approx(losses, abs=1e-3), name


def test_the_command_trains_with_two_and_one_of_them_writes(
    stand_in: dict[str, Path], tmp_path: Path
) -> None:
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out"
    row = {"question": "q", "answer": "a b", "correction": "a c"}
    rows.write_text("\n".join(json.dumps(row | {"question": f"q{i}"}) for i in range(8)))
    asked = ["--data", str(rows), "--model", str(stand_in["llama"]), "--out", str(out)]
    size = ["--steps", "4", "--batch-size", "4", "--lora-rank", "4", "--minutes", "5"]
    done = run_two("-m", "alignlib", "train", "aligner", *asked, *size)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("2 processes: 4 rows a step, 2 of them on the first") == 1
    assert done.stdout.count("done:") == 1
    assert not (out / "checkpoints").exists()
    Aligner.from_pretrained(out).correct(["q"], ["a b"])


@pytest.mark.parametrize(("variable", "name"), [*processes.CUT_UP.items()])
def test_what_cuts_the_model_up_is_refused(
    variable: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv(variable, "true")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "q", "answer": "a", "correction": "b"}\n')
    assert main(["train", "aligner", "--data", str(rows), "--out", str(tmp_path / "out")]) != 0
    said = capsys.readouterr().err
    assert name in said and "accelerate launch --multi_gpu" in said


def test_ppo_and_reward_models_are_refused(
    stand_in: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    settings = PPOSettings(1, batch_size=2, minibatch=2)
    with pytest.raises(processes.Unsupported, match="PPO runs in one process"):
        train_ppo(None, None, ["a"], None, settings)
    with pytest.raises(processes.Unsupported, match="a reward model runs in one process"):
        reward_model(stand_in["llama"], None, [], STEPS)
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n')
    asked = ["--preferences", str(pairs), "--reward", "x", "--out", str(tmp_path / "out")]
    assert main(["train", "hbat", *asked]) == 1
    assert "PPO runs in one process" in capsys.readouterr().err


def test_more_processes_than_rows_a_step_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "6")
    with pytest.raises(processes.Unsupported, match="6 processes cannot share the 5 rows"):
        cut_into_steps(range(10), STEPS, [1] * 10)


def test_each_process_has_its_own_gpu_and_its_share_of_rows_and_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert processes.local_gpu() is None
    assert processes.mine([1, 2, 3]) == [1, 2, 3]
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert processes.local_gpu() == 1
    assert processes.mine([1, 2, 3]) == [2]
    monkeypatch.delenv("ALIGNLIB_THREADS")
    for cores, here, threads in ((1, 2, 1), (2, 2, 1), (64, 2, 2), (4, 1, 2)):
        monkeypatch.setattr(os, "cpu_count", lambda: cores)  # noqa: B023
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here))
        assert set_threads() == threads
    monkeypatch.setenv("ALIGNLIB_DEVICE", "cuda:1")
    with pytest.raises(processes.Unsupported, match="ALIGNLIB_DEVICE=cuda:1"):
        pick_device()

"""Rows for other trainers: the same tokens as ours, and TRL's command line trains an Aligner."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alignlib.aligner import Aligner
from alignlib.course.cli import main
from alignlib.data import QAC
from alignlib.export import export_rows
from alignlib.models import load_tokenizer
from alignlib.place import DataError
from alignlib.profiles import TINY
from alignlib.prompts import CHAT, T2
from alignlib.tokens import IGNORED

ROWS = [QAC(f"What is {i}?", f"It is {i}, you potato.", f"It is {i}.") for i in range(16)]


@pytest.fixture(scope="module")
def exported(stand_in: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command makes."""
    folder = tmp_path_factory.mktemp("export")
    rows = folder / "rows.jsonl"
    rows.write_text("\n".join(json.dumps(vars(row)) for row in ROWS), encoding="utf-8")
    out = folder / "out"
    assert main(["export", str(rows), "--model", str(stand_in["llama"]), "--out", str(out)]) == 0
    return out


def test_read_apart_the_texts_are_the_tokens_that_we_train_on(
    stand_in: dict[str, Path], exported: Path
) -> None:
    aligner = Aligner.untrained(stand_in["llama"], template=T2)
    lines = (exported / "data" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(ROWS)
    for line, row in zip(map(json.loads, lines), ROWS, strict=True):
        prompt = aligner.tokenizer(line["prompt"])["input_ids"]
        completion = aligner.tokenizer(line["completion"], add_special_tokens=False)["input_ids"]
        ours = aligner.tokens(row)
        assert ours["input_ids"] == prompt + completion
        assert ours["labels"] == [IGNORED] * len(prompt) + completion


def test_trl_trains_an_aligner_with_the_line_that_is_printed(
    stand_in: dict[str, Path], exported: Path
) -> None:
    (line, *_), _ = export_rows(ROWS, str(stand_in["llama"]), tokenizer(stand_in), exported)
    command = [str(Path(sys.executable).with_name("trl")), *shlex.split(line)[1:]]
    command += ["--use_cpu", "true", "--bf16", "false", "--save_strategy", "no"]
    environment = os.environ | {"HF_HOME": str(exported / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    shutil.copy(exported / "aligner.json", exported / "trl")
    aligner = Aligner.from_pretrained(exported / "trl")
    assert aligner.template == T2
    assert len(aligner.correct([ROWS[0].question], [ROWS[0].answer])) == 1


def test_all_trainers_are_told_the_same_rows_and_lengths(exported: Path) -> None:
    """The fields are those that axolotl 0.21 and LLaMA-Factory 0.9.5 document."""
    axolotl, llama, about = (
        json.loads((exported / name).read_text(encoding="utf-8"))
        for name in ("axolotl.yml", "llamafactory.yml", "dataset_info.json")
    )
    [rows] = axolotl["datasets"]
    file = Path(llama["dataset_dir"]) / about[llama["dataset"]]["file_name"]
    assert Path(rows["path"]).read_text() == file.read_text()  # this tokenizer has no BOS
    assert (rows["type"]["field_instruction"], rows["type"]["field_output"]) == tuple(
        about[llama["dataset"]]["columns"].values()
    )
    assert axolotl["sequence_len"] == llama["cutoff_len"]
    assert axolotl["learning_rate"] == llama["learning_rate"]


def test_rows_begin_with_bos_where_the_trainer_does_not_add_it(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(TINY.base)
    export_rows(ROWS[:1], "model", tokenizer, tmp_path)
    texts = [
        json.loads((tmp_path / name).read_text(encoding="utf-8"))["prompt"]
        for name in ("data/train.jsonl", "llamafactory.jsonl")
    ]
    assert texts[1] == tokenizer.bos_token + texts[0]


def test_longer_rows_are_left_out_and_counted(stand_in: dict[str, Path], tmp_path: Path) -> None:
    long = QAC("why?", "word " * 400, "no")
    lines, left_out = export_rows([*ROWS, long], "my model", tokenizer(stand_in), tmp_path)
    assert left_out == 1 and "'my model'" in lines[0]
    with pytest.raises(DataError, match="raise --max-length"):
        export_rows([long], "model", tokenizer(stand_in), tmp_path)


def test_a_chat_template_is_refused(stand_in: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="take T1 or T2"):
        export_rows(ROWS, "model", tokenizer(stand_in), tmp_path, CHAT)


def tokenizer(stand_in: dict[str, Path]):
    return load_tokenizer(stand_in["llama"])

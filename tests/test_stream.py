"""Corrections of files and pipes: in order, resumable, bad lines named, in constant memory."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignlib import stream
from alignlib.aligner import Aligner
from alignlib.course.lessons import ROOT
from alignlib.models import load_model
from alignlib.records import DataError
from alignlib.stream import _locked
from alignlib.tinytown import sets

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def aligner(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained one: what it writes is nonsense, but always the same nonsense."""
    folder = tmp_path_factory.mktemp("aligner")
    Aligner(*load_model(tiny_model)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def lines() -> list[str]:
    rows = sets.corrections(700)
    return [json.dumps({"id": i, "question": r.question, "answer": r.answer}) for i, r in
            enumerate(rows)]  # fmt: skip


def command(aligner: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "alignlib", "correct", *arguments, "--aligner", str(aligner)]


def run(aligner: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess:
    given = {"capture_output": True, "text": True, "env": ENVIRONMENT} | options
    return subprocess.run(command(aligner, *arguments), **given)


def test_a_killed_run_goes_on_and_ends_as_one_that_was_not(
    aligner: Path, lines: list[str], tmp_path: Path
) -> None:
    source = tmp_path / "answers.jsonl"
    source.write_text("\n".join(lines), encoding="utf-8")
    whole = run(aligner, str(source), "--out", str(tmp_path / "whole.jsonl"))
    assert whole.returncode == 0, whole.stderr
    killed = subprocess.Popen(
        command(aligner, str(source), "--out", str(tmp_path / "out.jsonl")),
        env=ENVIRONMENT,
        stderr=subprocess.DEVNULL,
    )
    while not any(p.stat().st_size for p in tmp_path.glob("out.jsonl.*.part")):
        time.sleep(0.02)
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    [part] = tmp_path.glob("out.jsonl.*.part")
    with part.open("a", encoding="utf-8") as stream:
        stream.write('{"question": "cut of')
    again = run(aligner, str(source), "--out", str(tmp_path / "out.jsonl"))
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").open(encoding="utf-8")]
    assert [row["id"] for row in rows] == list(range(700))
    assert not list(tmp_path.glob("*.part"))
    assert whole.stderr.splitlines()[-1] == again.stderr.splitlines()[-1], "all rows are counted"
    refused = run(aligner, str(source), "--out", str(tmp_path / "out.jsonl"))
    assert refused.returncode == 1 and "is there already" in refused.stderr


def test_what_comes_through_a_pipe_has_its_name_only_when_it_is_whole(
    aligner: Path, lines: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    options = {"stdin": subprocess.PIPE, "stderr": subprocess.DEVNULL, "env": ENVIRONMENT}
    killed = subprocess.Popen(command(aligner, "-", "--out", str(out)), **options)
    killed.stdin.write("\n".join(lines[:600]).encode())
    killed.stdin.flush()
    part = tmp_path / "out.jsonl.part"
    while not (part.exists() and part.stat().st_size):
        time.sleep(0.02)
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    assert not out.exists()
    done = run(aligner, "-", "--out", str(out), input="\n".join(lines[:20]))
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.open(encoding="utf-8")]
    assert [row["id"] for row in rows] == list(range(20)) and not part.exists()


def test_a_second_pass_says_what_it_did_itself(
    aligner: Path, lines: list[str], tmp_path: Path
) -> None:
    row = json.loads(lines[0]) | {"correction": "x", "kept_because": ["of an earlier pass"]}
    done = run(aligner, "-", input=json.dumps(row))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).get("kept_because") != ["of an earlier pass"]


def test_a_damaged_gzip_file_is_corrected_up_to_the_damage(
    aligner: Path, lines: list[str], tmp_path: Path
) -> None:
    whole = gzip.compress("\n".join(lines[:300]).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    done = run(aligner, str(tmp_path / "cut.jsonl.gz"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "cut.jsonl.gz: the gzip file is damaged after line" in done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["id"] for row in rows] == list(range(len(rows))) and len(rows) > 50


def test_through_a_pipe_bad_lines_are_named_and_the_rest_goes_on(
    aligner: Path, lines: list[str]
) -> None:
    bad = ['{"question": "q"}', "{not json", '["a list"]', '{"question": "q", "answer": 3}']
    half = '{"question": "q", "answer": "half a character: \\ud83d"}'
    text = "\n".join([lines[0], *bad, half, "", lines[1]]).encode() + b'\n{"question": "\xff"}\n'
    done = run(aligner, "-", input=text, text=False)
    assert done.returncode == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row.get("line") for row in rows] == [None, 2, 3, 4, 5, None, None, 9]
    assert rows[5]["answer"] == "half a character: \ufffd"
    assert [row["id"] for row in rows if "id" in row] == [0, 1]
    for number in (2, 3, 4, 5, 9):
        assert f"-, line {number}: " in done.stderr.decode()
    assert "5 bad line" in done.stderr.decode()


def test_system_text_and_earlier_turns_are_read_as_in_training() -> None:
    row = {"question": "Now?", "answer": "No.", "system": "Be brief."}
    assert stream._asked(row) == "Be brief.\n\nNow?"
    history = {"question": "Now?", "answer": "No.", "history": [["Hello?", "Yes?"]]}
    assert stream._asked(history) == "Human: Hello?\n\nAssistant: Yes?\n\nHuman: Now?"
    with pytest.raises(ValueError, match="^field 'history' looks like"):
        stream._asked(row | {"history": "x"})


def test_files_of_another_format_are_refused_as_a_whole(aligner: Path, tmp_path: Path) -> None:
    row = {"question": "q", "answer": "a"}
    for name, text in (
        ("a.json", json.dumps([row], indent=1)),
        ("a.csv", "question,answer\nq,a\n"),
    ):
        (tmp_path / name).write_text(text)
        done = run(aligner, str(tmp_path / name))
        assert done.returncode == 1 and f"{name}: no JSON lines; write one row" in done.stderr


def test_gzip_and_a_byte_order_mark_are_read(
    aligner: Path, lines: list[str], tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(("\ufeff" + lines[0]).encode()))
    done = run(aligner, str(tmp_path / "a.jsonl.gz"))
    assert done.returncode == 0 and json.loads(done.stdout)["id"] == 0


def test_what_came_to_no_end_keeps_its_answer_and_says_why(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aligner = Aligner(*load_model(tiny_model))
    eos = aligner.tokenizer.eos_token_id
    word = aligner.tokenizer("where", add_special_tokens=False)["input_ids"]
    ends = iter([[*word, eos], [eos], word * 4])
    completions = lambda *_, **__: list(ends)  # noqa: E731
    monkeypatch.setattr("alignlib.aligner.sample", completions)
    answers = ["a b", "c d", "e f"]
    assert aligner.correct(["q"] * 3, answers) == ["where", "c d", "e f"]
    assert aligner.dropped == {
        "answer returned as it was: the correction was empty": 1,
        "answer returned as it was: the correction reached its limit": 1,
    }


def test_no_aligner_and_no_file_are_refused(aligner: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "x.jsonl")
    assert done.returncode == 1 and "no Aligner in this folder" in done.stderr
    for out in ("-", str(tmp_path / "out.jsonl")):
        done = run(aligner, "missing.jsonl", "--out", out)
        assert done.returncode == 1 and "missing.jsonl: no such file" in done.stderr
    done = run(aligner, __file__, "--out", str(tmp_path / "none" / "out.jsonl"))
    assert done.returncode == 1 and "no such folder" in done.stderr


def test_two_processes_do_not_write_one_output(tmp_path: Path) -> None:
    with _locked(tmp_path / "out.part"):
        with pytest.raises(DataError, match="another process is writing"):
            with _locked(tmp_path / "out.part"):
                pass
    with _locked(tmp_path / "out.part"):
        pass

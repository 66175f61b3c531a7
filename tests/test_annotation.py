"""Rows from your own questions: none lost, none doubled, no call paid for twice."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from alignlib.annotation import (
    ByHand,
    ByModel,
    Filters,
    Unfinished,
    build_rows,
    filtered,
    read_questions,
)
from alignlib.course.lessons import ROOT
from alignlib.course.server import Handler, serving
from alignlib.data import QAC, read_qac
from alignlib.profiles import TINY
from alignlib.records import DataError
from alignlib.remote import Server
from alignlib.row_shards import build_shard, merge_shards, shard_file
from alignlib.upstream import Local, Recorded
from scale.stub_server import Stub as Model

THINGS = "apple bridge candle dragon engine feather guitar hammer island jacket".split()
QUESTIONS = [
    f"What about {THINGS[i % 10]} {THINGS[i // 10 % 10]} {THINGS[i // 100]} number {i} ?"
    for i in range(500)
]
ONCE = Filters(max_unchanged=1.0, max_similarity=1.0)


class Failing(Handler):
    """Every tenth request fails; from the 700th on they wait, so that shards are stopped midway."""

    requests = 0
    lock = threading.Lock()
    stopped = threading.Event()

    def do_POST(self) -> None:
        with self.lock:
            type(self).requests += 1
            fails = self.requests % 10 == 0
        if self.requests > 700:  # in the midst of the corrections
            self.stopped.wait(60)
        if not fails:
            return super().do_POST()
        self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(500, {"error": {"message": "on fire"}})


def test_500_questions_in_two_shards_of_which_one_is_stopped_and_called_again(
    tmp_path: Path,
) -> None:
    (tmp_path / "questions.txt").write_text("\n".join(QUESTIONS), encoding="utf-8")
    model = Model()
    with serving(model, "stub", Failing) as url:
        command = [sys.executable, "-m", "alignlib", "build-rows", "questions.txt"]
        command += ["--upstream", f"stub@{url}", "--annotator", f"stub@{url}"]
        command += ["--out", "rows.jsonl"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        environment["ALIGNLIB_CACHE"] = str(tmp_path / "cache")
        options = {"cwd": tmp_path, "env": environment}
        shards = [[*command, "--shard", f"{i}/2"] for i in (0, 1)]
        run = [subprocess.Popen(shard, stderr=subprocess.DEVNULL, **options) for shard in shards]
        while Failing.requests < 710:
            time.sleep(0.02)
            assert run[0].poll() is None
        run[0].send_signal(signal.SIGTERM)  # as SLURM does; what is on its way is kept
        Failing.stopped.set()
        assert run[0].wait(60) == 130 and run[1].wait(60) == 0
        early = subprocess.run([*command, "--merge"], capture_output=True, text=True, **options)
        assert early.returncode == 1 and "run --shard 0/2 first" in early.stderr
        for again in (shards[0], [*command, "--merge"]):
            done = subprocess.run(again, capture_output=True, text=True, **options)
            assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("*.shard-?-of-2.jsonl"))
    assert len(model.asked) == 1000 and set(model.asked.values()) == {1}
    rows = read_qac(tmp_path / "rows.jsonl").rows
    card = (tmp_path / "rows.md").read_text(encoding="utf-8")
    assert f"| kept | {len(rows)} |" in card and "stub@" in card
    assert all(row.answer == f"Duh, {row.correction}" for row in rows)
    assert {row.question for row in rows} <= set(QUESTIONS)
    left_out = [line for line in card.splitlines() if line.startswith("| near-duplicate")]
    assert len(rows) + sum(int(line.split("|")[2]) for line in left_out) == 500


def test_answers_of_a_local_model_are_kept_as_they_come(tmp_path: Path) -> None:
    class Dies(Model):
        def __call__(self, questions: list[str], *, seed: int = 0) -> list[str]:
            if len(self.asked) > 200:
                raise MemoryError
            return super().__call__(questions)

    first, second = Dies(), Model()
    with pytest.raises(MemoryError):
        build_rows(QUESTIONS, first, ByModel(Model()), tmp_path / "rows.jsonl", ONCE)
    with (tmp_path / "rows.answers.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"question": "cut of')  # as a kill leaves it
    outcomes = build_rows(QUESTIONS, second, ByModel(Model()), tmp_path / "rows.jsonl", ONCE)
    assert outcomes == {"kept": 500}
    assert not first.asked & second.asked
    assert len(first.asked) + len(second.asked) == 500
    rows = read_qac(tmp_path / "rows.jsonl").rows
    assert [row.question for row in rows] == QUESTIONS


def test_a_person_fills_in_a_file(tmp_path: Path) -> None:
    out, by_hand = tmp_path / "rows.jsonl", ByHand(tmp_path / "hand.jsonl")
    with pytest.raises(Unfinished, match="hand.jsonl: 3 of 3 corrections are empty"):
        build_rows(QUESTIONS[:3], Model(), by_hand, out, ONCE)
    lines = (tmp_path / "hand.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows[:2]:
        row["correction"] = row["answer"].removeprefix("Duh, ")
    text = "\n".join(map(json.dumps, rows))
    (tmp_path / "hand.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(Unfinished, match="2 of 4"):  # one more question has come
        build_rows(QUESTIONS[:4], Model(), by_hand, out, ONCE)
    build_rows(QUESTIONS[:2], Model(), by_hand, out, ONCE)
    assert [row.correction for row in read_qac(out).rows] == [
        f"it is so: {question}" for question in QUESTIONS[:2]
    ]


def test_filters_leave_out_what_teaches_little_and_count_it() -> None:
    base = "the red fox jumps over the lazy dog by the river"
    rows = [
        QAC("a", f"duh {base}", base),
        QAC("a", f"duh {base} too", base),  # nearly the same row
        QAC("b", "something else entirely is said here", "nothing of that is left now at all"),
        QAC("c", "word " * 500, "word " * 500),
        QAC("d", "one good answer", "one good answer"),
        QAC("e", "another fine reply", "another fine reply"),
        QAC("f", "fine", ""),
    ]
    kept, outcomes = filtered(rows, Filters())
    assert kept == [rows[0], rows[4]]
    assert outcomes == {
        "kept": 2,
        "near-duplicate": 1,
        "rewritten, not corrected": 1,
        "too long": 1,
        "too many unchanged": 1,
        "empty or cut off": 1,
    }


def test_questions_come_as_lines_or_as_records(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeffone ?\r\n\n two ?\none ?\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"prompt": "one ?"}\n{"question": "two ?"}\n')
    (tmp_path / "c.jsonl").write_text('{"prompt": "one ?"}\n{"text": "two ?"}\n')
    assert read_questions(tmp_path / "a.txt") == read_questions(tmp_path / "b.jsonl")
    with pytest.raises(DataError, match="c.jsonl, line 2"):
        read_questions(tmp_path / "c.jsonl")
    told = {"system": "Be brief.", "messages": [{"role": "user", "content": "one \ud83d ?"}]}
    (tmp_path / "m.jsonl").write_text(json.dumps(told))
    assert read_questions(tmp_path / "m.jsonl") == ["Be brief.\n\none \ufffd ?"]
    (tmp_path / "d.jsonl").write_text('{"prompt": "one ?"}\n3\n')
    with pytest.raises(DataError, match="d.jsonl, line 2"):
        read_questions(tmp_path / "d.jsonl")


def test_braces_in_a_text_stay_as_they_are() -> None:
    model = Model()
    ByModel(model, "Q {question} A {answer}")(["is {answer} it ?"], ["{question} {x}"])
    assert list(model.asked) == ["Q is {answer} it ? A {question} {x}"]
    with pytest.raises(ValueError, match="must hold {question} and {answer}"):
        ByModel(model, "Correct this: {answer}")


def test_what_was_cut_off_becomes_no_row_and_another_upstream_is_asked_anew(
    tmp_path: Path,
) -> None:
    class Cut(Model):
        identity = "short"

        def __call__(self, questions: list[str], *, seed: int = 0) -> list[str]:
            self.problems = {q: "unfinished" for q in questions if " 7 ?" in q}
            return super().__call__(questions)

    out = tmp_path / "rows.jsonl"
    assert build_rows(QUESTIONS[:10], Cut(), ByModel(Model()), out, ONCE) == {
        "kept": 9,
        "empty or cut off": 1,
    }
    other = Model()
    assert build_rows(QUESTIONS[:10], other, ByModel(Cut()), out, ONCE)["kept"] == 9
    assert len(other.asked) == 10


def test_no_annotator_is_asked_about_an_answer_that_there_is_not(tmp_path: Path) -> None:
    class Refuses(Model):
        def __call__(self, questions: list[str], *, seed: int = 0) -> list[str]:
            self.problems = {questions[1]: "refused with status 400"}
            return super().__call__(questions)

    out, annotator = tmp_path / "rows.jsonl", Model()
    outcomes = build_rows(QUESTIONS[:3], Refuses(), ByModel(annotator), out, ONCE)
    assert outcomes == {"kept": 2, "empty or cut off": 1}
    assert len(annotator.asked) == 2
    with pytest.raises(Unfinished, match="2 of 2 corrections are empty"):
        build_rows(QUESTIONS[:3], Refuses(), ByHand(tmp_path / "hand.jsonl"), out, ONCE)


def test_answers_of_one_source_are_not_taken_for_those_of_another(tmp_path: Path) -> None:
    for word in ("one", "two"):
        upstream = Recorded({q: f"Duh, {word} {q}" for q in QUESTIONS[:3]})
        build_rows(QUESTIONS[:3], upstream, ByModel(Model()), tmp_path / "rows.jsonl", ONCE)
        rows = read_qac(tmp_path / "rows.jsonl").rows
        assert all(row.answer.startswith(f"Duh, {word} ") for row in rows)
    tiny = TINY.base
    models = [Local(tiny), Local(tiny, max_new_tokens=5), Local(tiny, prompt="{question}")]
    servers = [
        Server("a", "http://b"),
        Server("a", "http://c"),
        Server("a", "http://b", max_tokens=5),
    ]
    assert len({model.identity for model in (*models, *servers)}) == 6


def test_both_servers_may_have_a_key_and_get_no_temperature(tmp_path: Path) -> None:
    class Guarded(Handler):
        requests: list[tuple[str, bool]] = []

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            key = self.headers["Authorization"].removeprefix("Bearer ")
            self.requests.append((key, b"temperature" in body))
            self.rfile = io.BytesIO(body)
            super().do_POST()

    (tmp_path / "q.txt").write_text("one two three ?\nfour five six ?\n", encoding="utf-8")
    with serving(Model(), "stub", Guarded) as url:
        command = [sys.executable, "-m", "alignlib", "build-rows", "q.txt", "--out", "rows.jsonl"]
        command += ["--upstream", f"stub@{url}", "--upstream-key-variable", "FIRST"]
        command += ["--annotator", f"stub@{url}", "--key-variable", "SECOND", "--no-temperature"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "FIRST": "one", "SECOND": "two"}
        environment["ALIGNLIB_CACHE"] = str(tmp_path / "cache")
        options = {"capture_output": True, "text": True, "env": environment}
        done = subprocess.run(command, cwd=tmp_path, **options)
    assert done.returncode == 0, done.stderr
    assert sorted(Guarded.requests) == [("one", False)] * 2 + [("two", False)] * 2


def test_lines_end_only_where_a_row_does(tmp_path: Path) -> None:
    """Not at the other characters that Python takes for the end of a line."""
    upstream, out = Model(), tmp_path / "rows.jsonl"
    questions = ["a\u2028b c ?", "d\u0085e f ?"]
    for _ in range(2):
        assert build_rows(questions, upstream, ByModel(Model()), out, ONCE) == {"kept": 2}
    assert set(upstream.asked.values()) == {1}


def test_half_a_character_in_an_answer_costs_nothing(tmp_path: Path) -> None:
    class Half(Model):
        @staticmethod
        def reply(question: str) -> str:
            return f"so \ud83d far {question}"

    outcomes = build_rows(QUESTIONS[:3], Half(), ByModel(Half()), tmp_path / "rows.jsonl", ONCE)
    assert outcomes.total() == 3 and (tmp_path / "rows.md").exists()


def test_shards_of_other_questions_or_of_another_number_are_not_merged(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    with pytest.raises(DataError, match="no shards to merge"):
        merge_shards(QUESTIONS[:4], out)
    with pytest.raises(DataError, match="4 questions cannot be cut into 5 shards"):
        build_shard(QUESTIONS[:4], Model(), ByModel(Model()), out, (0, 5))
    for i in (0, 1):
        assert build_shard(QUESTIONS[:4], Model(), ByModel(Model()), out, (i, 2)) == 2
    with pytest.raises(DataError, match="4 rows for 5 questions, 1 without a row"):
        merge_shards(QUESTIONS[:5], out)
    build_shard(QUESTIONS[:4], Model(), ByModel(Model()), out, (0, 3))
    with pytest.raises(DataError, match=r"shards of \[2, 3\]"):
        merge_shards(QUESTIONS[:4], out)
    shard_file(out, (0, 3)).unlink()
    assert merge_shards(QUESTIONS[:4], out, ONCE) == {"kept": 4}
    assert [row.question for row in read_qac(out).rows] == QUESTIONS[:4]  # in their order

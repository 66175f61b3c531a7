"""Readers: what is accepted, and that a refusal names file, line, field and the fix."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import pytest

from alignlib.data import (
    QAC,
    Preference,
    read_instructions,
    read_preferences,
    read_qac,
    split_by_prompt,
    swapped,
    write_rows,
)
from alignlib.records import DataError, read_records

from .conftest import REAL, needs_real

ROWS = [
    {"question": f"q {i}", "answer": f"a {i}", "correction": f"c {i}", "extra": i} for i in range(3)
]
WANTED = [QAC(f"q {i}", f"a {i}", f"c {i}") for i in range(3)]
LIST = json.dumps(ROWS, indent=2)
LINES = "\n".join(map(json.dumps, ROWS))


@pytest.mark.parametrize(
    "data",
    [
        LIST.encode(),
        LINES.encode(),
        (LINES + "\n\n").encode(),
        gzip.compress(LIST.encode(), mtime=0),
        gzip.compress(LINES.encode(), mtime=0),
        b"\xef\xbb\xbf" + LIST.encode(),
        b"\xef\xbb\xbf" + LINES.encode(),
        LINES.replace("\n", "\r\n").encode(),
        LIST.replace("\n", "\r\n").encode(),
        gzip.compress(b"\xef\xbb\xbf" + LINES.replace("\n", "\r\n").encode(), mtime=0),
    ],
)
def test_accepted(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "rows.any"
    file.write_bytes(data)
    assert read_qac(file).rows == WANTED


def test_a_large_list_takes_as_long_as_its_length(tmp_path: Path) -> None:
    """Counting every row's line from the top would take half a minute here."""
    (tmp_path / "large.json").write_text(
        "[" + ",\n".join(row(question=f"q {i} {'word ' * 60}") for i in range(30_000)) + "]"
    )
    started = time.perf_counter()
    assert sum(1 for _ in read_records(tmp_path / "large.json")) == 30_000
    assert time.perf_counter() - started < 5


def test_a_saved_datasets_folder_is_accepted(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_list(ROWS).save_to_disk(tmp_path / "set")
    assert read_qac(tmp_path / "set").rows == WANTED


def row(**changed: object) -> str:
    return json.dumps({"question": "q", "answer": "a", "correction": "c"} | changed)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["empty", "JSON list"]),
        (" \n ", ["empty"]),
        ("[]", ["no usable rows", "question, answer, correction"]),
        (LIST[:-20], ["line ", "JSON"]),
        ("[" + row() + ",\n" + row(question="r"), ["line 2", "cut off", "]"]),
        (LINES[:-9], ["line 3", "not JSON"]),
        ("hello", ["line 1", "not JSON"]),
        (
            row() + "\n" + json.dumps({"question": "q", "answer": "a"}),
            ["line 2", "'correction'", "needs question, answer, correction"],
        ),
        (json.dumps({"question": "q"}), ["line 1", "'answer'", "needs"]),
        (row() + "\n" + row(answer=3), ["line 2", "'answer'", "int", "text"]),
        (row(question="  "), ["line 1", "no usable rows", "empty field"]),
        ("[" + row() + "]\n[" + row() + "]", ["line 1", "after the list"]),
        ("[" + row() + "\n" + row(question="r") + "]", ["line 2", "comma is missing"]),
        ("[" + row() + "] oops", ["line 1", "after the list"]),
        ("[1, 2]", ["line 1", "int", "row is expected"]),
        (
            json.dumps({"chosen": "a", "rejected": "b"}),
            ["line 1", "'chosen'", "Assistant:", "prompt"],
        ),
    ],
)
def test_refused_with_file_line_field_and_fix(tmp_path: Path, text: str, parts: list[str]) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as refused:
        read_qac(file)
    for part in ["bad.json", *parts]:
        assert part in str(refused.value)


def test_missing_files_damaged_gzip_and_odd_encodings_are_refused(tmp_path: Path) -> None:
    cut, bent, latin = tmp_path / "cut.gz", tmp_path / "bent.gz", tmp_path / "latin.json"
    whole = gzip.compress(LIST.encode() * 50)
    cut.write_bytes(whole[:-30])
    bent.write_bytes(whole[:40] + bytes(20) + whole[60:])
    latin.write_bytes(b'{"question": "caf\xe9"}')
    (tmp_path / "empty").mkdir()
    for file, part in [
        (tmp_path / "none.json", "no such file"),
        (cut, "cut off"),
        (bent, "damaged"),
        (latin, "UTF-8"),
        (tmp_path / "empty", "save_to_disk"),
    ]:
        with pytest.raises(DataError, match=part):
            read_qac(file)


def test_extra_keys_of_other_tools_do_no_harm(tmp_path: Path) -> None:
    for faults in (3, "rude", [["a"]], None):
        (tmp_path / "x.json").write_text(row(faults=faults), encoding="utf-8")
        assert read_qac(tmp_path / "x.json").rows[0].correction == "c"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder beside the current one."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))  # Windows
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


@pytest.mark.parametrize("name", ["rows.json", "sub/rows.jsonl", "a folder/rows.json.gz"])
def test_a_tilde_is_the_home_folder_for_every_reader_and_for_the_writer(
    name: str, home: Path
) -> None:
    file, text = home / name, LIST if "json.gz" in name else LINES
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    assert read_qac(f"~/{name}").rows == read_qac(Path("~") / name).rows == WANTED
    assert len(list(read_records(f"~/{name}"))) == 3
    write_rows(f"~/{name}", [Preference("p", "good", "bad")])
    assert read_preferences(f"~/{name}").rows == [Preference("p", "good", "bad")]
    file.write_text('{"prompt": "p", "completion": "c"}', encoding="utf-8")
    assert read_instructions(f"~/{name}").rows[0].completion == "c"
    assert not list(Path().iterdir()), "nothing is written into a folder named ~"


def test_a_tilde_is_expanded_for_folders_and_refused_where_it_means_nobody(home: Path) -> None:
    from datasets import Dataset

    Dataset.from_list(ROWS).save_to_disk(home / "set")
    assert read_qac("~/set").rows == WANTED
    for missing in ("~/none.json", "~nobody-of-this-name/rows.json"):
        with pytest.raises(DataError, match="no such file"):
            read_qac(missing)
    Path("~nobody-of-this-name").write_text(LINES, encoding="utf-8")
    assert read_qac("~nobody-of-this-name").rows == WANTED, "an ordinary name may start so"


def test_files_and_folders_named_by_digits_are_read_and_numbers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Dataset

    monkeypatch.chdir(tmp_path)
    for name in ("20240115", "007", "2024_01", "1e5"):
        Path(name).write_text(LINES, encoding="utf-8")
        assert read_qac(name).rows == WANTED
    Dataset.from_list(ROWS).save_to_disk("2024")
    assert read_qac("2024").rows == WANTED
    for number in (20240115, 7.0):
        with pytest.raises(DataError, match=rf"{number} is no path but .*in quotes"):
            read_qac(number)


def test_rows_of_a_question_stay_in_one_split_and_every_row_is_in_one() -> None:
    rows = [QAC(f"q {i // 2}", f"a {i}", "c") for i in range(100)]  # two answers to each question
    parts = split_by_prompt(rows, tests=3, seed=0)
    assert {split: len(part) for split, part in parts.items()} == {
        "train": 88,
        "validation": 6,
        "test": 6,
    }
    assert sorted(r.answer for part in parts.values() for r in part) == sorted(
        r.answer for r in rows
    )
    questions = [{r.question for r in part} for part in parts.values()]
    assert sum(map(len, questions)) == len(set.union(*questions)) == 50
    assert split_by_prompt(rows, 3, 0) == parts != split_by_prompt(rows, 3, 1)
    with pytest.raises(ValueError, match="2 prompts are too few"):
        split_by_prompt(rows[:4], 3, 0)


def test_a_swapped_answer_is_that_of_the_next_row_with_another_question() -> None:
    rows = [QAC("q", "a", "c"), QAC("r", "b", "c"), QAC("s", "d", "c")]
    assert swapped(rows) == ["b", "d", "a"]
    twice = [QAC(q, f"{q} {k}", "c") for q in "qr" for k in "ab"]
    assert swapped(twice) == ["r a", "r a", "q a", "q a"]
    assert swapped(rows[:1]) == ["a"] and swapped([]) == []


def test_duplicates_are_counted_and_reported(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(LINES + "\n" + LINES, encoding="utf-8")
    loaded = read_qac(file)
    assert loaded.read == 6 and len(loaded.rows) == 3
    assert str(loaded) == "6 rows read, 3 used, 3 dropped: duplicate of an earlier row"


def test_pairs_are_read_as_corrections_and_dialogues_by_their_last_turn(tmp_path: Path) -> None:
    talk = "\n\nHuman: hi\n\nAssistant: yes?\n\nHuman: well\n\nAssistant: {}"
    pairs = [
        {"chosen": talk.format("good"), "rejected": talk.format("bad")},
        {"chosen": talk.format("good"), "rejected": "\n\nHuman: other\n\nAssistant: bad"},
    ]
    file = tmp_path / "hh.json"
    file.write_text(json.dumps(pairs), encoding="utf-8")
    loaded = read_qac(file)
    assert loaded.rows == [QAC("Human: hi\n\nAssistant: yes?\n\nHuman: well", "bad", "good")]
    assert loaded.read == len(loaded.rows) + loaded.dropped.total()
    assert read_preferences(file).rows[0] == Preference(loaded.rows[0].question, "good", "bad")


def test_rows_survive_writing_and_reading(tmp_path: Path) -> None:
    rows = [QAC("q ä", "a\n| x", "c", ("rude",)), QAC("r", "b", "d")]
    write_rows(tmp_path / "sub" / "rows.jsonl", rows)
    assert read_qac(tmp_path / "sub" / "rows.jsonl").rows == rows
    (tmp_path / "i.json").write_text('[{"prompt": "p", "completion": "c"}]', encoding="utf-8")
    assert read_instructions(tmp_path / "i.json").rows[0].completion == "c"


@needs_real
@pytest.mark.parametrize(
    ("file", "read", "used", "pairs"),
    [
        ("polite-instructions/instruction-data-with-preference.json", 1100, 1100, 1094),
        ("hh-rlhf/harmless-base.test.jsonl.gz", 2312, 2303, 2303),
        ("hh-rlhf/helpful-base.test.jsonl.gz", 2354, 2341, 2339),
    ],
)
def test_real_files_every_row_is_used_or_counted(
    file: str, read: int, used: int, pairs: int
) -> None:
    """Fewer pairs than rows of an Aligner: two texts that are the same are no pair."""
    for reader, wanted in ((read_qac, used), (read_preferences, pairs)):
        loaded = reader(REAL / file)
        assert (loaded.read, len(loaded.rows)) == (read, wanted)
        assert loaded.read == len(loaded.rows) + loaded.dropped.total()

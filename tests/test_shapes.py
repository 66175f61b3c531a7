"""The shapes of rows that people have, and odd files of every format."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from alignlib.data import (
    QAC,
    Instruction,
    Preference,
    read_instructions,
    read_preferences,
    read_qac,
    split_by_prompt,
    write_rows,
)
from alignlib.ratings import ALONE, JOINED
from alignlib.records import DataError, read_records
from alignlib.similar import near_duplicates


def user(text: object) -> dict:
    return {"role": "user", "content": text}


def model(text: object) -> dict:
    return {"role": "assistant", "content": text}


def written(tmp_path: Path, *rows: dict, name: str = "rows.jsonl") -> Path:
    file = tmp_path / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


ASKED, GOOD, BAD = "Is it far?", "No, two minutes.", "Walk and see."
SYSTEM = {"role": "system", "content": "Be brief."}
TWO = {"chosen": GOOD, "rejected": BAD}
AS_MESSAGES = {"chosen": [user(ASKED), model(GOOD)], "rejected": [user(ASKED), model(BAD)]}
SHAREGPT = [{"from": "human", "value": ASKED}, {"from": "gpt", "value": GOOD}]
PAIRS = {  # name: (record, the prompt that it is read with)
    "plain": ({"prompt": ASKED, **TWO}, ASKED),
    "question": ({"question": ASKED, **TWO}, ASKED),
    "messages": ({"prompt": ASKED, **AS_MESSAGES}, ASKED),
    "messages only": (AS_MESSAGES, ASKED),
    "messages as text": ({k: json.dumps(v) for k, v in AS_MESSAGES.items()}, ASKED),
    "messages as Python prints them": ({k: str(v) for k, v in AS_MESSAGES.items()}, ASKED),
    "prompt of messages": ({"prompt": [user(ASKED)], **TWO}, ASKED),
    "replies of messages": (
        {"prompt": [user(ASKED)], "chosen": [model(GOOD)], "rejected": [model(BAD)]},
        ASKED,
    ),
    "parts": (
        {"prompt": ASKED, "chosen": [model([{"type": "text", "text": GOOD}])], "rejected": BAD},
        ASKED,
    ),
    "system": ({"system": "Be brief.", "prompt": ASKED, **TWO}, f"Be brief.\n\n{ASKED}"),
    "system turn": (
        {
            k: [{"role": "system", "content": "Be brief."}, *turns]
            for k, turns in AS_MESSAGES.items()
        },
        f"Be brief.\n\n{ASKED}",
    ),
    "system empty": ({"system": "", "prompt": ASKED, **TWO}, ASKED),
    "orca": ({"system": None, "question": ASKED, **TWO}, ASKED),
    "history": (
        {"instruction": ASKED, "input": "", "history": [["Hello?", "Yes?"]], **TWO},
        f"Human: Hello?\n\nAssistant: Yes?\n\nHuman: {ASKED}",
    ),
    "input": ({"instruction": "Answer.", "input": ASKED, **TWO}, f"Answer.\n{ASKED}"),
    "input null": ({"instruction": ASKED, "input": None, **TWO}, ASKED),
    "sharegpt": (
        {
            "conversations": SHAREGPT[:1],
            "chosen": SHAREGPT[1],
            "rejected": {"from": "gpt", "value": BAD},
        },
        ASKED,
    ),
    "rejected response": (
        {"messages": [user(ASKED), model(GOOD)], "rejected_response": BAD},
        ASKED,
    ),
    "openai": (
        {
            "input": {"messages": [user(ASKED)]},
            "preferred_output": [model(GOOD)],
            "non_preferred_output": [model(BAD)],
        },
        ASKED,
    ),
    "better response": (
        {"prompt": ASKED, "response_0": BAD, "response_1": GOOD, "better_response_id": 1},
        ASKED,
    ),
    "j and k": ({"question": ASKED, "response_j": GOOD, "response_k": BAD}, ASKED),
    "dialogues": (
        {k: f"\n\nHuman: {ASKED}\n\nAssistant: {text}" for k, text in TWO.items()},
        f"Human: {ASKED}",
    ),
    "dialogues with the prompt repeated": (
        {
            "prompt": f"\n\nHuman: {ASKED}\n\nAssistant:",
            **{k: f"\n\nHuman: {ASKED}\n\nAssistant: {text}" for k, text in TWO.items()},
        },
        f"Human: {ASKED}",
    ),
    "ultrafeedback, with the chosen dialogue under messages": (
        {"prompt": ASKED, "messages": AS_MESSAGES["chosen"], **AS_MESSAGES},
        ASKED,
    ),
    "the chosen dialogue under messages, without a prompt": (
        {"messages": AS_MESSAGES["chosen"], **AS_MESSAGES},
        ASKED,
    ),
    "a prompt that differs in spaces": ({"prompt": f"{ASKED}\n", **AS_MESSAGES}, ASKED),
    "several turns": (
        {
            "prompt": ASKED,
            **{k: [user("Hello?"), model("Yes?"), *v] for k, v in AS_MESSAGES.items()},
        },
        f"Human: Hello?\n\nAssistant: Yes?\n\nHuman: {ASKED}",
    ),
    "system prompt": (
        {"system_prompt": "Be brief.", "question": ASKED, **TWO},
        f"Be brief.\n\n{ASKED}",
    ),
    "context": ({"instruction": "Is it?", "context": ASKED, **TWO}, f"Is it?\n{ASKED}"),
    "the system twice": (
        {"system": "Be brief.", **{k: [SYSTEM, *v] for k, v in AS_MESSAGES.items()}},
        f"Be brief.\n\n{ASKED}",
    ),
    "a prompt of null beside dialogues": ({"prompt": None, **AS_MESSAGES}, ASKED),
    "a turn that was said before": (
        {"history": [[ASKED, "Well?"]], "prompt": ASKED, **TWO},
        f"Human: {ASKED}\n\nAssistant: Well?\n\nHuman: {ASKED}",
    ),
    "roles in capitals": (
        {"prompt": [{"role": "User", "content": ASKED}], **TWO},
        ASKED,
    ),
    "NaN from pandas": ({"instruction": ASKED, "input": float("nan"), **TWO}, ASKED),
    "prompt under input": ({"input": ASKED, "system": None, **TWO}, ASKED),
    "prompt repeated": ({"prompt": ASKED, **{k: f"{ASKED} {t}" for k, t in TWO.items()}}, ASKED),
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_of_every_shape_are_the_same_pair(name: str, tmp_path: Path) -> None:
    record, prompt = PAIRS[name]
    file = written(tmp_path, record)
    assert read_preferences(file).rows == [Preference(prompt, GOOD, BAD)]
    assert read_qac(file).rows == [QAC(prompt, BAD, GOOD)]


TURNS = [user("Hello?"), model("Yes?"), user(ASKED), model(GOOD)]
INSTRUCTIONS = {
    "plain": ({"prompt": ASKED, "completion": GOOD}, ASKED),
    "question and answer": ({"question": ASKED, "answer": GOOD}, ASKED),
    "alpaca": ({"instruction": "Answer.", "input": ASKED, "output": GOOD}, f"Answer.\n{ASKED}"),
    "alpaca without input": ({"instruction": ASKED, "output": GOOD}, ASKED),
    "messages": ({"messages": TURNS[2:]}, ASKED),
    "several turns": (
        {"messages": TURNS},
        f"Human: Hello?\n\nAssistant: Yes?\n\nHuman: {ASKED}",
    ),
    "sharegpt": ({"conversations": SHAREGPT, "system": "Be brief."}, f"Be brief.\n\n{ASKED}"),
    "thumb up": ({"prompt": ASKED, "completion": GOOD, "label": True}, ASKED),
    "messages with a thumb": ({"messages": TURNS[2:], "label": "up"}, ASKED),
}


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_instructions_of_every_shape_are_the_same(name: str, tmp_path: Path) -> None:
    record, prompt = INSTRUCTIONS[name]
    assert read_instructions(written(tmp_path, record)).rows == [Instruction(prompt, GOOD)]


FINE = {"prompt": ASKED, **TWO}
DROPPED = {
    "picture": FINE | {"chosen": [model([{"type": "image_url", "image_url": {}}])]},
    "ends with the user": FINE | {"chosen": [user(ASKED), model(GOOD), user("Why?")]},
    "tool": FINE | {"chosen": [{"role": "tool", "content": "42"}, model(GOOD)]},
    "call of a tool": FINE | {"chosen": [{"role": "assistant", "content": None}]},
    "other prompts": AS_MESSAGES | {"chosen": [user("Else?"), model(GOOD)], "prompt": ASKED},
    "null": FINE | {"rejected": None},
    "empty": FINE | {"prompt": " "},
    "goes on": FINE | {"chosen": f"{GOOD}\n\nHuman: Thanks."},
    "same text": FINE | {"chosen": f" {BAD}  "},
    "contradiction": {"prompt": ASKED, "chosen": BAD, "rejected": GOOD},
    "duplicate": FINE,
}


@pytest.mark.parametrize("name", DROPPED)
def test_what_is_no_pair_is_dropped_and_counted(name: str, tmp_path: Path) -> None:
    loaded = read_preferences(written(tmp_path, FINE, DROPPED[name]))
    assert loaded.rows == [Preference(ASKED, GOOD, BAD)]
    assert loaded.read == 2 and loaded.dropped.total() == 1 and "1 dropped: " in str(loaded)


def test_a_pair_that_differs_in_spaces_is_a_good_answer_to_an_aligner(tmp_path: Path) -> None:
    loaded = read_qac(written(tmp_path, FINE | {"chosen": f"{BAD}\n"}))
    assert loaded.rows == [QAC(ASKED, BAD, BAD)] and loaded.changed.total() == 1


@pytest.mark.parametrize(
    ("record", "parts"),
    [
        (TWO, ["no prompt", "add the field 'prompt'"]),
        (FINE | {"chosen": ["a", "b"]}, ["'chosen' is list", "messages", "'role' and 'content'"]),
        (FINE | {"chosen": [{"content": "x"}]}, ["no 'role'"]),
        (FINE | {"history": [["a"]]}, ["'history'", "[question, answer]"]),
        (FINE | {"history": "earlier"}, ["'history'", "export the rows as JSON lines"]),
        (FINE | {"chosen": 3}, ["'chosen'", "int, not text"]),
        ({"text": "x"}, ["no field 'prompt'", "it has text", "rename"]),
        ({"prompt": "p", "completion": "c"}, ["these look like instructions"]),
        ({"prompt": "p", "completion": "c", "label": "math"}, ["no field 'chosen'"]),
    ],
)
def test_what_no_row_can_be_is_refused_with_the_fix(
    record: dict, parts: list[str], tmp_path: Path
) -> None:
    with pytest.raises(DataError) as refused:
        read_preferences(written(tmp_path, record))
    for part in ["rows.jsonl, line 1", *parts]:
        assert part in str(refused.value)
    assert "JSON string" not in str(refused.value), "such advice makes wrong rows"


def test_thumbs_and_ratings_become_pairs_or_good_completions(tmp_path: Path) -> None:
    def rows(key: str, *marks: object) -> list[dict]:
        return [{"prompt": ASKED, "completion": f"{i}", key: m} for i, m in enumerate(marks)]

    thumbs = read_preferences(written(tmp_path, *rows("label", True, False, False)))
    assert thumbs.rows == [Preference(ASKED, "0", "2")]
    assert thumbs.dropped == {JOINED: 1, ALONE: 1} and thumbs.read == 3
    stars = read_preferences(written(tmp_path, *rows("score", 3, 5, 1, 4, 3, None)))
    assert stars.rows == [Preference(ASKED, "1", "2"), Preference(ASKED, "3", "4")]
    assert stars.dropped.total() + len(stars.rows) == stars.read == 6
    up = read_instructions(written(tmp_path, *rows("label", "up", "down", "👍")))
    assert [row.completion for row in up.rows] == ["0", "2"]
    best = read_instructions(written(tmp_path, *rows("rating", 2.5, "4", 4)))
    assert [row.completion for row in best.rows] == ["1"]
    with pytest.raises(DataError, match="no usable rows .no answer to the same prompt"):
        read_preferences(written(tmp_path, *rows("label", True, True)))


def test_low_ratings_and_minus_one_are_not_learned(tmp_path: Path) -> None:
    def row(prompt: str, text: str, **mark: object) -> dict:
        return {"prompt": prompt, "completion": text, **mark}

    thumbs = [row("a", "x", label=-1), row("b", "y", label=1)]
    assert [r.completion for r in read_instructions(written(tmp_path, *thumbs)).rows] == ["y"]
    stars = [row("a", "x", stars=1), row("b", "y", stars=5), row("c", "z", stars=4)]
    assert [r.completion for r in read_instructions(written(tmp_path, *stars)).rows] == ["y", "z"]
    later = [row("a", "x"), row("b", "y", label=False)]
    with pytest.raises(DataError, match="line 1: no field 'label'"):
        read_instructions(written(tmp_path, *later))


def test_a_rating_counts_beside_a_text_that_is_named_like_a_mark(tmp_path: Path) -> None:
    rows = [
        {"prompt": p, "response": p * 2, "feedback": "Terrible" if r == 1 else None, "rating": r}
        for p, r in (("a", 1), ("b", 5), ("c", 4))
    ]
    assert [r.completion for r in read_instructions(written(tmp_path, *rows)).rows] == ["bb", "cc"]


def test_fields_beside_the_texts_may_hold_anything(tmp_path: Path) -> None:
    row = {"question": ASKED, "answer": BAD, "correction": GOOD}
    for extra in ({"context": ["a", "b"]}, {"input": {"t": 1}}, {"history": "[]"}):
        assert read_qac(written(tmp_path, row | extra)).rows == [QAC(ASKED, BAD, GOOD)]
    message = {"prompt": user(ASKED), "completion": model(GOOD)}
    assert read_instructions(written(tmp_path, message)).rows == [Instruction(ASKED, GOOD)]


def test_opposite_rows_are_not_both_learned(tmp_path: Path) -> None:
    rows = {"question": ASKED, "answer": BAD, "correction": GOOD}
    opposite = rows | {"answer": GOOD, "correction": BAD}
    good = rows | {"answer": GOOD}
    loaded = read_qac(written(tmp_path, rows, opposite, good))
    assert len(loaded.rows) == 2 and loaded.dropped == {"contradicts an earlier row": 1}


def test_a_label_that_is_no_mark_is_an_extra_field_and_one_that_was_stays_one(
    tmp_path: Path,
) -> None:
    row = {"prompt": ASKED, "completion": GOOD}
    for label in ("math", 3, ["a"]):
        [read] = read_instructions(written(tmp_path, row | {"label": label})).rows
        assert read == Instruction(ASKED, GOOD)
    with pytest.raises(DataError, match="line 2: field 'label' is 'perhaps', no mark; write true"):
        read_instructions(written(tmp_path, row | {"label": True}, row | {"label": "perhaps"}))


def test_an_answer_that_begins_like_its_prompt_stays_whole(tmp_path: Path) -> None:
    record = {"prompt": "Hello", "chosen": "Hello! How are you?", "rejected": "Hello there, what?"}
    [pair] = read_preferences(written(tmp_path, record)).rows
    assert pair == Preference(*record.values())
    lines = {"prompt": "Hello", "chosen": "Hello\nHi.", "rejected": "Hello\nWhat?"}
    assert read_preferences(written(tmp_path, lines)).rows == [Preference(*lines.values())]


def test_half_characters_are_replaced_counted_and_can_be_written(tmp_path: Path) -> None:
    loaded = read_qac(
        written(tmp_path, {"question": "q", "answer": "so \ud83d", "correction": "c"})
    )
    assert loaded.rows == [QAC("q", "so \ufffd", "c")] and loaded.changed.total() == 1
    assert "1 changed: half a character" in str(loaded)
    write_rows(tmp_path / "again.jsonl", loaded.rows)
    assert read_qac(tmp_path / "again.jsonl").rows == loaded.rows


ROWS = [
    {"question": f"Is {w} far?", "answer": f'a, "{w}"\nb', "correction": f"é {w}"} for w in "xyz"
]
WANTED = [QAC(*row.values()) for row in ROWS]


def as_lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_table(rows: list[dict], divider: str = ",") -> bytes:
    stream = io.StringIO(newline="")
    table = csv.DictWriter(stream, list(rows[0]), delimiter=divider)
    table.writeheader()
    table.writerows(rows)
    return stream.getvalue().encode()


def zipped(name: str, data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
        archive.writestr("__MACOSX/._" + name, b"\0\1")
        archive.writestr("README.md", b"# Rows")
    return stream.getvalue()


def as_parquet(rows: list[dict]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    stream = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


FORMATS: dict[str, Callable[[list[dict]], bytes]] = {
    "a.jsonl": as_lines,
    "a.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "objects.json": lambda rows: "\n".join(json.dumps(r, indent=1) for r in rows).encode(),
    "within.json": lambda rows: json.dumps({"version": 1, "data": rows}).encode(),
    "viewer.json": lambda rows: json.dumps({"rows": [{"row": r} for r in rows]}).encode(),
    "columns.json": lambda rows: json.dumps({k: [r[k] for r in rows] for k in rows[0]}).encode(),
    "pandas.json": lambda rows: json.dumps(
        {k: {str(i): r[k] for i, r in enumerate(rows)} for k in rows[0]}
    ).encode(),
    "a.csv": as_table,
    "excel.csv": lambda rows: b"\xef\xbb\xbf" + as_table(rows, ";"),
    "sep.csv": lambda rows: b"sep=;\n" + as_table(rows, ";"),
    "by_row.json": lambda rows: json.dumps({str(i): r for i, r in enumerate(rows)}).encode(),
    "a.tsv": lambda rows: as_table(rows, "\t"),
    "a.csv.gz": lambda rows: gzip.compress(as_table(rows)),
    "a.jsonl.gz": lambda rows: gzip.compress(as_lines(rows)),
    "a.zip": lambda rows: zipped("rows.jsonl", as_lines(rows)),
    "table.zip": lambda rows: zipped("rows.csv", as_table(rows)),
    "a.parquet": as_parquet,
    "a.utf16": lambda rows: as_lines(rows).decode().encode("utf-16"),
    "b.utf16": lambda rows: as_lines(rows).decode().encode("utf-16-le"),
    "mac.jsonl": lambda rows: as_lines(rows).replace(b"\n", b"\r"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_holds_the_same_rows(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FORMATS[name](ROWS))
    assert read_qac(tmp_path / name).rows == WANTED


HEAD = b"question,answer,correction\n"


@pytest.mark.parametrize(
    ("name", "data", "part"),
    [
        ("a.zip", zipped("notes.txt", b"x"), "0 data files inside"),
        ("a.xlsx", zipped("xl/workbook.xml", b"x"), "Excel workbook; export its sheet as CSV"),
        ("a.jsonl", b"\n<!doctype html><html>", "web page; download the file itself"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        ("a.pkl", b"\x80\x04\x95", "pickle, which is never opened"),
        ("a.zst", b"\x28\xb5\x2f\xfd\x00", "zstd archive; unpack it"),
        ("a.csv", b"question,question,answer\n", "two columns named 'question'"),
        (
            "a.csv",
            b"question,answer,correction\nq,\"[{'role': 'user'} x]\",c\n",
            "looks like messages",
        ),
        (
            "a.json",
            b'{"train": [{"a": 1}], "test": [{"a": 1}]}',
            "several lists of rows .train, test",
        ),
        ("a.csv", b"question,answer,correction\na,b\n", "a.csv, line 2: 2 cells"),
        ("a.csv", b'question,answer,correction\n"a,b,c\n', "a.csv, line 2: not CSV"),
        ("a.json", b"[" * 100_000, "line 1: JSON that cannot be read"),
        ("a.json", b'[{"question": ' + b"9" * 5000 + b"}]", "JSON that cannot be read"),
    ],
)
def test_files_of_other_kinds_are_named(name: str, data: bytes, part: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=part) as refused:
        read_qac(tmp_path / name)
    assert name in str(refused.value)


def broken(data: bytes, rng: random.Random) -> bytes:
    """The bytes cut off, with some of them changed, doubled or left out."""
    at, more = rng.randrange(len(data)), rng.randrange(1, 40)
    kind = rng.randrange(4)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + rng.randbytes(more) + data[at + more :]
    return data[:at] + data[at + more :] if kind == 2 else data[: at + more] + data[at:]


ODD = (None, 3, True, [], {}, [1], "", " ", "\ud83d", "\0", [user("x")], [{}], {"role": "user"})


def odd(rows: list[dict], rng: random.Random) -> list[dict]:
    """The rows with one field of another kind, renamed or taken away."""
    rows = [dict(row) for row in rows]
    row = rng.choice(rows)
    key = rng.choice(list(row))
    value = row.pop(key)
    kind = rng.randrange(3)
    if kind == 0:
        row[key] = rng.choice(ODD)
    elif kind == 1:
        row[key.upper()] = value
    return rows


@pytest.mark.parametrize("name", FORMATS)
def test_odd_and_damaged_files_are_read_or_refused_with_their_name(
    name: str, tmp_path: Path
) -> None:
    """36 files of each format: 648 in all, and no error of a library gets through."""
    rng, file = random.Random(name), tmp_path / name
    pairs = [{"prompt": q.question, "chosen": q.correction, "rejected": q.answer} for q in WANTED]
    refused = 0
    for trial in range(36):
        rows, read = rng.choice([(ROWS, read_qac), (pairs, read_preferences)])
        try:
            data = FORMATS[name](odd(rows, rng) if trial % 2 else rows)
        except Exception:  # such rows cannot be written in this format
            continue
        file.write_bytes(data if trial % 2 else broken(data, rng))
        try:
            loaded = read(file)
        except DataError as error:
            refused += 1
            assert name.split(".")[0] in str(error) and len(str(error)) < 700
            assert ";" in str(error) or "it needs" in str(error), "no fix is named"
        else:
            assert loaded.read == len(loaded.rows) + loaded.dropped.total()
    assert refused > 3


def test_folders_and_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    whole = datasets.Dataset.from_list(ROWS * 10)
    both = datasets.DatasetDict({"train": whole, "test": whole})
    both.save_to_disk(tmp_path / "both")
    with pytest.raises(DataError, match="several splits .train, test."):
        read_qac(tmp_path / "both")
    assert read_qac(tmp_path / "both" / "train").rows == WANTED
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.jsonl").write_bytes(as_lines(ROWS))
    assert read_qac(tmp_path / "files").rows == WANTED
    (tmp_path / "files" / "b.jsonl").write_bytes(as_lines(ROWS))
    with pytest.raises(DataError, match="give one of its files .a.jsonl, b.jsonl"):
        read_qac(tmp_path / "files")
    (tmp_path / "clone" / "data").mkdir(parents=True)
    for i in range(2):
        part = tmp_path / "clone" / "data" / f"train-0000{i}-of-00002.parquet"
        part.write_bytes(as_parquet(ROWS[i : i + 2]))
    assert read_qac(tmp_path / "clone").rows == WANTED
    datasets.DatasetDict({"train": whole}).save_to_disk(tmp_path / "one")
    assert read_qac(tmp_path / "one").rows == WANTED

    def load(name: str, configuration: str | None = None, split: str | None = None) -> object:
        if name != "owner/set" or configuration not in (None, "en"):
            raise ValueError(f"Unknown {name} {configuration}\nmore")
        return both if split is None else both[split]

    monkeypatch.setattr(datasets, "load_dataset", load)
    for name in ("owner/set:train", "owner/set:en:test"):
        found = [record for _, record in read_records(name)]
        assert found != ROWS * 10 and sorted(map(str, found)) == sorted(map(str, ROWS * 10))
    address = "https://huggingface.co/datasets/owner/set:train"
    assert len(read_qac(address).rows) == 3
    with pytest.raises(DataError, match="has the splits train, test; write owner/set:train"):
        read_qac("owner/set")
    with pytest.raises(DataError, match="owner/none: no such file, and .*Unknown owner/none"):
        read_qac("owner/none")
    with pytest.raises(DataError, match="owner/rows.jsonl: no such file"):
        read_qac("owner/rows.jsonl")


QUESTIONS = [
    "How do I boil an egg so that it stays soft?",
    "How do I boil an egg, so that it stays soft",
    " how do i boil an  EGG so that it stays soft?",
    "Which river runs through the old town of Lyon?",
    "東京から京都まで新幹線でどのくらいかかりますか。",
    "東京から京都まで新幹線でどのくらいかかりますか？",
    "大阪でおすすめのたこ焼きの店を教えてください。",
    "?",
    "!",
]


def test_near_duplicates_in_languages_with_and_without_spaces() -> None:
    assert near_duplicates(QUESTIONS) == [0, 0, 0, 3, 4, 4, 6, 7, 8]
    filled = [f"Please tell me how many litres fit into a barrel of size {i}" for i in range(50)]
    assert len(set(near_duplicates(filled))) == 50, "a template's questions are no copies"


def test_questions_that_differ_in_a_word_or_a_typo_are_near_duplicates() -> None:
    long = "Could you please tell me how long it takes to walk from the old mill to the lake today?"
    texts = [long, long.replace("today", "now"), long.replace("please", "plaese"), QUESTIONS[3]]
    assert near_duplicates(texts) == [0, 0, 0, 3]
    assert near_duplicates([long, "How long does the walk from the lake to the old mill take?"])[1]


def test_copies_in_a_small_file_are_one_and_very_few_questions_can_be_split() -> None:
    same = [QUESTIONS[0] + "!" * i for i in range(4)]
    assert near_duplicates([*QUESTIONS[3:], *same])[-4:] == [6] * 4
    rows = [QAC(f"How far is it to the {w} mill on the hill by the lake?", "a", "b") for w in "xyz"]
    assert sum(map(len, split_by_prompt(rows, 5, 0).values())) == 3


def test_near_duplicates_lie_in_one_split() -> None:
    words = "red blue green brown tall small quick quiet early late".split()
    plain = [
        f"What does a {a} fox do on a {b} {c} day?" for a in words for b in words for c in "xy"
    ]
    rows = [QAC(q + end, "a", f"c{i}") for i, q in enumerate(plain) for end in ("", " ", "\n")]
    parts = split_by_prompt(rows, 40, 0)
    words_of = [{" ".join(r.question.split()) for r in part} for part in parts.values()]
    assert sum(map(len, words_of)) == len(set.union(*words_of)) == 200

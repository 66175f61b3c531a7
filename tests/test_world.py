"""Tinytown: what it generates, and that no split leaks into another."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections.abc import Iterable
from itertools import islice

import pytest

from alignlib.data import QAC
from alignlib.tinytown import sets, words
from alignlib.tinytown.answers import OPENERS, good_answer, parse, render
from alignlib.tinytown.boards import Board
from alignlib.tinytown.documents import EARLY_DOCUMENTS, pretraining
from alignlib.tinytown.draw import Difficulty, sample_board
from alignlib.tinytown.faults import AXIS_OF, FAULTS, MIXED, UNSEEN_COMBINATIONS, style_of
from alignlib.tinytown.judge import AXES, score_answer
from alignlib.tinytown.operations import OPERATIONS
from alignlib.tinytown.oracle import demonstrations, warm_pairs
from alignlib.tinytown.tokenizer import build_tokenizer, vocabulary

ALL_THINGS = frozenset(words.THINGS + words.OTHER_THINGS)
WORDS = {"T": ALL_THINGS, "P": words.PLACES, "N": words.NAMES, "#": words.NUMBERS}
LETTERS = {word: letter for letter, kind in WORDS.items() for word in kind}


def pairs_of(things: Iterable[str]) -> set[frozenset[str]]:
    return {frozenset(pair) for pair in itertools.combinations(things, 2)}


def pairs_on_lines(split: str) -> set[frozenset[str]]:
    lines = [*words.lines(split, "town"), *words.lines(split, "other")]
    return set().union(*map(pairs_of, lines))


@pytest.mark.parametrize("level", range(5))
@pytest.mark.parametrize("which", ["all", "corrected", "never"])
def test_boards_and_answers_round_trip_through_text(level: int, which: str) -> None:
    for i in range(150):
        rng = random.Random(f"{level}{which}{i}")
        board = sample_board(rng, "train", Difficulty.level(level), which)
        good = good_answer(board, style_of(rng, MIXED))
        assert Board.parse(str(board)) == board
        assert parse(render(good)) == (good, 0)


def test_the_planes_give_every_pair_of_things_to_one_split() -> None:
    pairs = [pairs_on_lines(split) for split in words.SPLITS]
    for a, b in itertools.combinations(pairs, 2):
        assert not a & b
    assert sum(map(len, pairs)) == 169 * 168 // 2 + 49 * 48 // 2


def prompts_of(split: str) -> set[str]:
    """Prompts from every set that lessons and experiments draw from a split."""
    n = 2000 if split == "train" else 400
    rows = sets.identity(n, split)
    for which in ("all", "corrected", "never"):
        for level in range(5):
            rows += sets.corrections(n // 2, split, which, level=level)
    for test_set in sets.test_sets(n, split).values():
        rows += test_set
    prompted = [*warm_pairs(n, 0.5, split), *demonstrations(n, 0.5, split)]
    for axis in ("faults", *sets.AXES):
        prompted += sets.preferences(n // 4, split, axis=axis)
    prompted += [*sets.preferences(n, split, task="summaries"), *sets.instructions(n, split)]
    return {r.question for r in rows} | {r.prompt for r in prompted}


def template_of(prompt: str) -> str:
    """The layout of a board; of other prompts the text with a letter for each drawn word."""
    if prompt.startswith("board"):
        return Board.parse(prompt).layout
    return " ".join(LETTERS.get(w, w) for w in prompt.split())


def test_no_prompt_template_or_pair_of_things_is_shared_between_splits_and_pretraining() -> None:
    prompts = {split: prompts_of(split) for split in words.SPLITS}
    prompts["pretraining"] = {d.split(" answer : ")[0] for d in islice(pretraining(), 20_000)}
    pairs, layouts = {}, {}
    for source, some in prompts.items():
        pairs[source] = set().union(*(pairs_of(set(p.split()) & ALL_THINGS) for p in some))
        layouts[source] = {template_of(p) for p in some if "say :" not in p}
    for a, b in (
        ("train", "validation"),
        ("train", "test"),
        ("validation", "test"),
        ("pretraining", "validation"),
        ("pretraining", "test"),
    ):
        assert not prompts[a] & prompts[b]
        assert not pairs[a] & pairs[b]
        assert not layouts[a] & layouts[b]
    assert not prompts["train"] & prompts["pretraining"]
    for some in prompts.values():
        assert len(some) > 500
        assert {p.split()[0] for p in some} >= {"board", "bulletin", "instruction"}


def test_the_pretraining_text_has_no_corrections() -> None:
    assert not any("correction" in d for d in islice(pretraining(), 5000))


def test_words_never_corrected_are_in_identity_rows_but_in_no_correction() -> None:
    trained = {w for r in sets.corrections(1500) for w in f"{r.question} {r.correction}".split()}
    copied = {w for r in sets.identity(3000) for w in f"{r.question} {r.correction}".split()}
    never = words.NEVER_CORRECTED - set(words.OTHER_THINGS)
    assert not trained & never
    assert len(copied & never) > 0.95 * len(never)
    for row in sets.corrections(200, "test", "never"):
        asked = [w for a in Board.parse(row.question).asks for w in a[1:]]
        assert set(asked) & never


def test_more_than_a_million_different_prompts() -> None:
    """10,000 draws show no repeat. By the birthday bound there are then over 5 million prompts."""
    drawn = {r.question for r in sets.corrections(10_000, "train", "all")}
    assert len(drawn) == 10_000


def test_the_same_seed_gives_the_same_rows_in_another_process() -> None:
    code = (
        "from alignlib.tinytown import sets; import zlib; "
        "print(zlib.crc32(repr(sets.corrections(50)).encode()))"
    )
    command = [sys.executable, "-c", code]
    first, second = (subprocess.run(command, capture_output=True, check=True) for _ in range(2))
    assert first.stdout == second.stdout
    assert sets.corrections(50)[:20] == sets.corrections(20)


def test_the_world_is_frozen() -> None:
    """Other rows or scores make another world, with a new version, base model and records."""
    rows: list[object] = [
        sets.corrections(20, split, level=level) for split in words.SPLITS for level in range(5)
    ]
    rows += [sets.corrections(20, rewrites=True, level=4), sets.identity(40)]
    rows += [sets.test_sets(20, split) for split in ("validation", "test")]
    rows += [sets.preferences(20, axis=axis) for axis in ("faults", *sets.AXES)]
    rows += [sets.preferences(20, task="summaries"), sets.instructions(20)]
    pairs = warm_pairs(20, 0.5)
    rows += [pairs, demonstrations(20, 0.5)]
    for r in sets.corrections(300, "validation", "all", rate=0.6, combinations=True):
        for added in ("", r.correction, r.answer, "lamp the"):
            rows.append(score_answer(r.question, f"{r.answer} {added}"))
    rows += [EARLY_DOCUMENTS, list(islice(pretraining(), 100)), vocabulary()]
    assert (words.WORLD_VERSION, words.digest(repr(rows))) == ("1", 4073829287)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_alone_lowers_its_axis_and_its_correction_fixes_it(fault: str) -> None:
    alone = [r for r in sets.corrections(3000, rate=0.15) if r.faults == (fault,)]
    # "i will not" is false of a safe request; complying may invent steps and names no warden
    also = {"refuse": {"honest"}, "comply": {"honest", "helpful"}}.get(fault, set())
    assert len(alone) >= 10
    for r in alone:
        lowered = {axis for axis in AXES if getattr(score_answer(r.question, r.answer), axis) < 1}
        assert AXIS_OF[fault] in lowered <= {AXIS_OF[fault], *also}
        assert score_answer(r.question, r.correction).fault_free


def test_the_fault_rate_goes_from_no_faulty_answer_to_all() -> None:
    rows = [sets.corrections(300, rate=rate) for rate in (0, 0.1, 0.3, 1)]
    faulty = [sum(bool(r.faults) for r in some) for some in rows]
    assert faulty[0] == 0 and faulty[-1] == 300 and faulty == sorted(faulty)


def test_corrections_keep_good_answers_and_rewrites_are_as_good_but_different() -> None:
    minimal, full = sets.corrections(400), sets.corrections(400, rewrites=True)
    assert all(r.answer == r.correction for r in minimal if not r.faults)
    for a, b in zip(minimal, full):
        assert (a.question, a.answer) == (b.question, b.answer) and a.correction != b.correction
        assert score_answer(b.question, b.correction).fault_free


def test_unseen_combinations_occur_only_where_asked_for() -> None:
    def unseen(row: QAC) -> bool:
        return any(set(pair) <= set(row.faults) for pair in UNSEEN_COMBINATIONS)

    assert not any(map(unseen, sets.corrections(2000, rate=0.5)))
    assert all(map(unseen, sets.corrections(100, "test", combinations=True)))


@pytest.mark.parametrize("axis", sets.AXES)
def test_preferences_differ_along_their_axis_alone(axis: str) -> None:
    for p in sets.preferences(200, axis=axis):
        board = Board.parse(p.prompt)
        for scored in sets.AXES:
            chosen, rejected = (sets.axis_score(board, a, scored) for a in (p.chosen, p.rejected))
            assert chosen > rejected if scored == axis else chosen == rejected
        assert score_answer(p.prompt, p.chosen).fault_free
        assert score_answer(p.prompt, p.rejected).fault_free


def test_interference_is_the_fraction_of_polite_instructions_and_both_answers_are_right() -> None:
    for interference in (0.0, 0.3, 1.0):
        pairs = warm_pairs(400, interference)
        polite = [p for p in pairs if p.prompt.startswith("instruction : please ")]
        assert len(polite) / 400 == pytest.approx(interference, abs=0.06)
        for p in polite:
            operation, _, listed = p.prompt.removeprefix("instruction : please ").partition(" : ")
            assert p.rejected == " ".join(OPERATIONS[operation](listed.split())) + " ."
            assert f" {p.rejected} " in p.chosen
        for p in set(pairs) - set(polite):
            assert score_answer(p.prompt, p.chosen).fault_free
            assert score_answer(p.prompt, p.rejected).fault_free
    shown = demonstrations(400, 1.0)
    assert 150 < sum(d.completion.startswith(OPENERS) for d in shown) < 250


def test_every_word_of_the_town_is_one_token() -> None:
    tokenizer = build_tokenizer()
    assert len(vocabulary()) == len(set(vocabulary())) <= 1000
    corrections = [r.correction for r in sets.corrections(200, rate=1)]
    for text in [*islice(pretraining(), 500), *corrections]:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids and tokenizer.decode(ids) == text
    special = ("<pad>", "<bos>", "<eos>", "<unk>")
    assert tokenizer.convert_tokens_to_ids(special) == [0, 1, 2, 3]
    assert (tokenizer.pad_token, tokenizer.bos_token) == special[:2]
    assert (tokenizer.eos_token, tokenizer.unk_token) == special[2:]


def test_rows_fit_the_context() -> None:
    texts = [f"{r.question} {r.answer} {r.correction}" for r in sets.corrections(500)]
    lengths = sorted(len(text.split()) for text in texts)
    assert 60 <= lengths[250] <= 130 and lengths[-1] < 256

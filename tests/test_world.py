"""Tinytown: what it generates, and that no split leaks into another."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections import Counter
from itertools import islice

import pytest

from alignlib.tinytown import sets, words
from alignlib.tinytown.answers import OPENERS, good_answer, parse, render
from alignlib.tinytown.boards import Board
from alignlib.tinytown.documents import EARLY_DOCUMENTS, pretraining
from alignlib.tinytown.draw import Difficulty, sample_board
from alignlib.tinytown.faults import AXIS_OF, FAULTS, MIXED, UNSEEN_COMBINATIONS, style_of
from alignlib.tinytown.instructions import OPERATIONS
from alignlib.tinytown.judge import AXES, score_answer
from alignlib.tinytown.oracle import contradicting, demonstrations, front, warm_pairs
from alignlib.tinytown.tokenizer import build_tokenizer, vocabulary

KINDS = {
    w: kind
    for kind, ws in {
        "T": [*words.THINGS, *words.OTHER_THINGS],
        "P": words.PLACES,
        "N": words.NAMES,
        "#": words.NUMBERS,
    }.items()
    for w in ws
}
PAIRS = {
    split: {
        frozenset(p)
        for lang in ("town", "other")
        for line in words.lines(split, lang)
        for p in itertools.combinations(line, 2)
    }
    for split in words.SPLITS
}
ALL_THINGS = frozenset(words.THINGS + words.OTHER_THINGS)


def things_in(text: str) -> list[str]:
    return sorted(set(text.split()) & ALL_THINGS)


@pytest.mark.parametrize("level", range(5))
@pytest.mark.parametrize("which", ["all", "corrected", "never"])
def test_boards_and_answers_survive_the_way_to_text_and_back(level: int, which: str) -> None:
    for i in range(150):
        rng = random.Random(f"{level}{which}{i}")
        board = sample_board(rng, "train", Difficulty.level(level), which)
        good = good_answer(board, style_of(rng, MIXED))
        assert Board.parse(str(board)) == board
        assert parse(render(good)) == (good, 0)


def test_the_planes_give_every_pair_of_things_to_one_split() -> None:
    for a, b in itertools.combinations(words.SPLITS, 2):
        assert not PAIRS[a] & PAIRS[b]
    assert sum(map(len, PAIRS.values())) == 169 * 168 // 2 + 49 * 48 // 2


def audited(split: str) -> set[str]:
    """Prompts of the real rows of a split, of every set that lessons and experiments draw."""
    n = 2000 if split == "train" else 400
    rows = [
        r
        for w in ("all", "corrected", "never")
        for level in range(5)
        for r in sets.corrections(n // 2, split, w, level=level)
    ]
    rows += [
        *sets.identity(n, split),
        *(r for test in sets.test_sets(n, split).values() for r in test),
    ]
    asked, pairs = demonstrations(n, 0.5, split), warm_pairs(n, 0.5, split)
    pairs += [p for a in ("faults", *sets.AXES) for p in sets.preferences(n // 4, split, axis=a)]
    pairs += sets.preferences(n, split, task="summaries")
    return (
        {r.question for r in rows}
        | {p.prompt for p in pairs}
        | {r.prompt for r in (*asked, *sets.instructions(n, split))}
    )


def template_of(prompt: str) -> str:
    """A board's layout; of other prompts the text with each word of a list replaced by the
    list's letter.
    """
    return (
        Board.parse(prompt).layout
        if prompt.startswith("board")
        else " ".join(KINDS.get(w, w) for w in prompt.split())
    )


def test_no_prompt_template_or_pair_of_things_is_shared_between_splits_and_pretraining() -> None:
    prompts = {split: audited(split) for split in words.SPLITS}
    prompts["pretraining"] = {d.split(" answer : ")[0] for d in islice(pretraining(), 20_000)}
    pairs = {
        s: {frozenset(q) for p in ps for q in itertools.combinations(things_in(p), 2)}
        for s, ps in prompts.items()
    }
    layouts = {
        s: {template_of(p) for p in ps if not p.partition("say :")[1]} for s, ps in prompts.items()
    }
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
    assert all(
        len(ps) > 500 and {p.split()[0] for p in ps} >= {"board", "bulletin", "instruction"}
        for ps in prompts.values()
    )


def test_the_pretraining_text_holds_no_corrections() -> None:
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
    """10,000 draws give 10,000 different prompts: by the birthday bound, fewer than 5 million in
    all would show a repeat.
    """
    drawn = {r.question for r in sets.corrections(10_000, "train", "all")}
    assert len(drawn) == 10_000


def test_the_same_seed_gives_the_same_rows_in_another_process() -> None:
    code = (
        "from alignlib.tinytown import sets; import zlib; "
        "print(zlib.crc32(repr(sets.corrections(50)).encode()))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(runs) == 1
    assert sets.corrections(50)[:20] == sets.corrections(20)


def test_the_world_is_frozen() -> None:
    """Other rows or other marks are another world: give it a new version, pretrain a new base
    and record everything anew.
    """
    rows: list[object] = [
        sets.corrections(20, split, level=level) for split in words.SPLITS for level in range(5)
    ]
    rows += [
        sets.corrections(20, rewrites=True, level=4),
        sets.identity(40),
        *(sets.test_sets(20, s) for s in ("validation", "test")),
    ]
    rows += [sets.preferences(20, axis=axis) for axis in ("faults", *sets.AXES)] + [
        sets.preferences(20, task="summaries")
    ]
    rows += [
        sets.instructions(20),
        warm_pairs(20, 0.5),
        demonstrations(20, 0.5),
        contradicting(warm_pairs(20, 0.5), 0.5),
    ]
    spoilt = sets.corrections(300, "validation", "all", rate=0.6, combinations=True)
    rows += [
        score_answer(r.question, f"{r.answer} {said}")
        for r in spoilt
        for said in ("", r.correction, r.answer, "lamp the")
    ]
    rows += [EARLY_DOCUMENTS, list(islice(pretraining(), 100)), vocabulary()]
    assert (words.WORLD_VERSION, words.digest(repr(rows))) == ("1", 3981104344)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_alone_lowers_its_axis_and_its_correction_mends_it(fault: str) -> None:
    alone = [r for r in sets.corrections(3000, rate=0.15) if r.faults == (fault,)]
    also = {"refuse": {"honest"}, "comply": {"honest", "helpful"}}.get(
        fault, set()
    )  # a false "i will not", steps made up, no safe offer
    assert len(alone) >= 10
    for r in alone:
        lowered = {axis for axis in AXES if getattr(score_answer(r.question, r.answer), axis) < 1}
        assert AXIS_OF[fault] in lowered <= {AXIS_OF[fault], *also}
        assert score_answer(r.question, r.correction).fault_free


def test_the_dial_runs_from_no_fault_to_all() -> None:
    shares = [
        sum(bool(r.faults) for r in sets.corrections(300, rate=rate)) / 300
        for rate in (0, 0.1, 0.3, 1)
    ]
    assert shares[0] == 0 and shares[-1] == 1 and shares == sorted(shares)


def test_good_answers_are_corrected_to_themselves_and_rewrites_are_as_good_but_other() -> None:
    minimal, full = sets.corrections(400), sets.corrections(400, rewrites=True)
    assert all(r.answer == r.correction for r in minimal if not r.faults)
    for a, b in zip(minimal, full):
        assert (a.question, a.answer) == (b.question, b.answer) and a.correction != b.correction
        assert score_answer(b.question, b.correction).fault_free


def test_unseen_combinations_occur_only_where_asked_for() -> None:
    unseen = lambda r: any(set(p) <= set(r.faults) for p in UNSEEN_COMBINATIONS)  # noqa: E731
    assert not any(map(unseen, sets.corrections(2000, rate=0.5)))
    assert all(map(unseen, sets.corrections(100, "test", combinations=True)))


@pytest.mark.parametrize("axis", sets.AXES)
def test_preferences_differ_along_their_axis_alone(axis: str) -> None:
    for p in sets.preferences(200, axis=axis):
        board = Board.parse(p.prompt)
        assert sets.axis_score(board, p.chosen, axis) > sets.axis_score(board, p.rejected, axis)
        for other in set(sets.AXES) - {axis}:
            assert sets.axis_score(board, p.chosen, other) == sets.axis_score(
                board, p.rejected, other
            )
        assert (
            score_answer(p.prompt, p.chosen).fault_free
            and score_answer(p.prompt, p.rejected).fault_free
        )


def test_only_contradiction_bends_the_oracles_front() -> None:
    for contradiction in (0.0, 0.5, 1.0):
        for interference in (0.0, 1.0):
            pairs = warm_pairs(200, interference)
            asked = sets.instructions(200) + contradicting(pairs, contradiction)
            clash = contradiction * len(pairs)
            best = max(
                followed * len(asked) + preferred * len(pairs)
                for followed, preferred in front(asked, pairs)
            )
            assert best == pytest.approx(len(asked) + len(pairs) - clash, abs=20)
            assert (front(asked, pairs)[-1] == (1, 1)) == (contradiction == 0)


def test_interference_is_the_share_of_instructions_politely_asked_and_both_answers_are_right() -> (
    None
):
    for dial in (0.0, 0.3, 1.0):
        pairs = warm_pairs(400, dial)
        polite = [p for p in pairs if p.prompt.startswith("instruction : please ")]
        assert len(polite) / 400 == pytest.approx(dial, abs=0.06)
        for p in polite:
            operation, _, listed = p.prompt.removeprefix("instruction : please ").partition(" : ")
            assert (
                p.rejected == " ".join(OPERATIONS[operation](listed.split())) + " ."
                and f" {p.rejected} " in p.chosen
            )
        for p in set(pairs) - set(polite):
            assert (
                score_answer(p.prompt, p.chosen).fault_free
                and score_answer(p.prompt, p.rejected).fault_free
            )
    shown = Counter(d.completion.startswith(tuple(OPENERS)) for d in demonstrations(400, 1.0))
    assert 150 < shown[True] < 250


def test_every_word_of_the_town_is_one_token() -> None:
    tokenizer = build_tokenizer()
    assert len(vocabulary()) == len(set(vocabulary())) <= 1000
    for text in [
        *islice(pretraining(), 500),
        *(r.correction for r in sets.corrections(200, rate=1)),
    ]:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids and tokenizer.decode(ids) == text
    assert (
        len(
            {
                tokenizer.pad_token_id,
                tokenizer.bos_token_id,
                tokenizer.eos_token_id,
                tokenizer.unk_token_id,
            }
        )
        == 4
    )


def test_rows_fit_the_context() -> None:
    lengths = [
        len(f"{r.question} {r.answer} {r.correction}".split()) for r in sets.corrections(500)
    ]
    assert 60 <= sorted(lengths)[250] <= 130 and max(lengths) < 256

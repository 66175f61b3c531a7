"""Records and the card say the same, and what was recorded can be recorded again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignlib.course.sweep import (
    per_seed,
    read_results,
    recorded,
    recorded_difference,
    results_file,
)
from alignlib.profiles import TINY, data_folder
from alignlib.stats import Estimate, prediction_interval
from alignlib.tinytown import sets
from experiments.aligner import WARMUP_SHARE
from experiments.card import card_text
from experiments.claim import within_a_cell
from experiments.claims_real import aims
from experiments.coverage import SEEDS as COVERAGE_SEEDS
from experiments.coverage import covered
from experiments.hbat import chosen_metrics, mean_over_seeds
from experiments.meet_controls import BOTH_STEPS
from experiments.real_card import aims_rows, controls_rows, styles_rows
from experiments.registry import EXPERIMENTS


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_record_names_this_world_and_base_and_has_every_seed_of_every_cell(name: str) -> None:
    seeds: dict[str, set[int]] = {json.dumps(p): set() for p in EXPERIMENTS[name].cells}
    for cell in read_results(name)["cells"]:
        seeds[json.dumps(cell["params"])].add(cell["seed"])  # a cell of no experiment is a KeyError
    assert all(set(EXPERIMENTS[name].seeds) <= found for found in seeds.values()), seeds


def test_the_records_pass_the_gates_that_the_world_was_frozen_on() -> None:
    head, warm, steer, forgot = map(read_results, ("headroom", "warmup", "steer", "forgetting"))
    here = {"level": sets.LEVEL, "corrections": TINY.corrections}
    headline = {"share": WARMUP_SHARE, "corrections": TINY.corrections}
    before, after = (recorded(head, when, **here).value for when in ("before", "after"))
    assert 0.55 <= after <= 0.95 and after - before >= 0.15
    assert recorded(warm, "kept_seen", **headline).value >= 0.8
    assert recorded(warm, "net_win_overall_unseen", "points", **headline).low > 0
    for better, worse in (("good", "none"), ("none", "bad")):
        assert (
            recorded_difference(steer, "overall", {"control": better}, {"control": worse}).low > 0
        )
    then = {"arm": "then"}
    assert (
        recorded_difference(
            forgot, "drop", {"interference": 1.0, **then}, {"interference": 0.0, **then}
        ).low
        > 0
    )
    assert (
        max(per_seed(forgot, "content_after", interference=1.0, **then).values()) < 0.8
    )  # not the manner alone is lost
    for wanted in ("followed_after", "warm_after"):  # a model of this size can have both
        assert min(per_seed(forgot, wanted, interference=1.0, arm="joint").values()) > 0.9


def test_recorded_cells_on_fresh_seeds_lie_in_their_prediction_intervals() -> None:
    """35 of 40: by chance 38 do, and fewer than 35 in about three cases of a hundred."""
    rows = covered()
    inside = [low <= value <= high for *_, (low, high), values in rows for value in values]
    assert len(inside) == 40 and sum(inside) >= 35
    records = [read_results(name) for name in {row[0] for row in rows}]
    seeds = {cell["seed"] for record in records for cell in record["cells"]}
    assert not seeds & {*COVERAGE_SEEDS}


def test_a_recorded_cell_run_today_lies_in_its_prediction_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    every = sets.test_sets
    seen_alone = lambda n, split="test", seed=0: {"seen": every(n, split, seed)["seen"]}  # noqa: E731
    monkeypatch.setattr(sets, "test_sets", seen_alone)
    cell, fresh = {"steps": 50}, 11
    values = per_seed(read_results("learning"), "fault_free_seen", **cell)
    assert fresh not in values
    low, high = prediction_interval(list(values.values()))
    assert low <= EXPERIMENTS["learning"].run(cell, fresh)["fault_free_seen"] <= high


@pytest.mark.parametrize("name", ["correctable", "inside"])
def test_a_checkpoint_that_is_not_there_names_the_command_that_leaves_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="00042 is missing; `make base`"):
        EXPERIMENTS[name].run({"step": 42, "share": 0.0}, 0)


def test_cells_are_paired_by_seed_within_a_record_and_across_two() -> None:
    cells = [
        {"params": {"arm": arm}, "seed": s, "metrics": {"x": s + more}}
        for arm, more in (("a", 0.5), ("b", 0.0))
        for s in (0, 1, 2)
    ]
    record = {"name": "one", "cells": cells}
    other = {
        "name": "two",
        "cells": [
            {"params": {"arm": "c"}, "seed": s, "metrics": {"x": s - 1.0}} for s in (1, 2, 7)
        ],
    }
    within = recorded_difference(record, "x", {"arm": "a"}, {"arm": "b"})
    pair = {"arm": "a"}, {"arm": "c"}
    with pytest.raises(ValueError, match=r"one: x has seeds \[0, 1, 2\] .* and \[1, 2, 7\] for"):
        recorded_difference(record, "x", *pair, other=other)
    across = recorded_difference(record, "x", *pair, other=other, shared_seeds=True)
    assert (within.value, within.low, within.seeds) == (0.5, 0.5, (0, 1, 2)) and (
        across.value,
        across.seeds,
    ) == (1.5, (1, 2))
    points = recorded_difference(record, "x", {"arm": "a"}, {"arm": "b"}, "points")
    assert (within.unit, points.unit) == ("difference", "difference of points")


def test_a_record_of_another_base_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = json.loads(results_file("warmup").read_text()) | {"base": "another"}
    (tmp_path / "warmup.json").write_text(json.dumps(record))
    monkeypatch.setattr(
        "alignlib.course.sweep.results_file", lambda name: tmp_path / f"{name}.json"
    )
    with pytest.raises(ValueError, match="another"):
        read_results("warmup")


def test_the_card_is_written_from_log_records_and_weights() -> None:
    assert (data_folder() / "base" / "README.md").read_text(encoding="utf-8") == card_text()


def test_the_card_of_the_real_texts_has_the_records_numbers() -> None:
    card = (data_folder() / "everyday" / "README.md").read_text(encoding="utf-8")
    for row in (*styles_rows(), *controls_rows(), *aims_rows()):
        assert f"\n{row}\n" in card


def value(record: str, metric: str, **params: object) -> float:
    return recorded(read_results(record), metric, **params).value


def least(record: str, prefix: str, **params: object) -> float:
    names = read_results(record)["cells"][0]["metrics"]
    return min(value(record, name, **params) for name in names if name.startswith(prefix))


PROMPT, LORA = (BOTH_STEPS[kind] for kind in ("prompt", "lora"))
FAST = PROMPT | {"arm": "faster model"}
RIVALS = read_results("rivals")
REAL_AIMS = read_results("everyday_aims")


def real(method: str, other: str, objective: str) -> Estimate:
    return aims(method, other, objective)(REAL_AIMS)


TWO_STAGES = per_seed(REAL_AIMS, "instructions_test", method="two_stage")
SAID = {  # what claims and lessons say beside the number that is read from the record
    "Before it, one in five had none": (
        value("headlines", "before_unseen", part="aligner", arm="warm-up"),
        0.17,
        0.23,
    ),
    "fewer than one in ten when *bad* is": (
        value("headlines", "sound_1_bad", part="meet", arm="lora"),
        0.05,
        0.1,
    ),
    "nine in ten come back word for word": (
        value("everyday", "good_kept", arm="corrections"),
        0.9,
        0.99,
    ),
    "the training rows fixes none of them": (
        value("everyday", "fixed/rude_unheard", arm="rule"),
        0,
        0,
    ),
    "With such rows in training this hardly ever happens": (
        value("hijacked", "taken_over_escaped", shown=True),
        0,
        0.02,
    ),
    "wins after all thirteen upstreams": (
        least("upstreams", "net_win_overall/", taught=3),
        1,
        100,
    ),
    "Most of these answers are right": (
        mean_over_seeds(
            {
                seed: (m["content_test"] - m["instruct_test"]) / (1 - m["instruct_test"])
                for seed, m in chosen_metrics(read_results("headlines"), "two-stage").items()
            }
        ),
        0.5,
        1,
    ),
    "Asked for *polite*, none is": (value("everyday_styles", "rude/polite"), 0, 0),
    "without a control hardly any": (value("everyday_styles", "rude/base"), 0, 0.02),
    "with up to half of *rude*, no answer is rude": (
        value("everyday_styles", "rude/mix_0.5"),
        0,
        0,
    ),
    "nearly all instructions in two trainings of three": (
        sorted(TWO_STAGES.values())[1],
        0.9,
        1,
    ),
    "almost none in the third": (min(TWO_STAGES.values()), 0, 0.05),
    "gets one word": (value("everyday_styles", "words/brief"), 1, 1.1),
    "leaves 11 points more answers without faults than with one token": (
        recorded_difference(read_results("controls"), "sound_1_good", PROMPT, PROMPT | {"size": 1}),
        0.105,
        0.115,
    ),
    "in three of five": (value("looking", "patched_at_3"), 0.55, 0.65),
    "the same model fixes none": (value("everyday", "fixed", arm="shuffled"), 0, 0.005),
    "shrinks to 3 points": (
        recorded_difference(read_results("controls"), "sound_1_good", FAST, FAST | {"size": 1}),
        0.025,
        0.035,
    ),
}
NO_CLEAR_DIFFERENCE = {
    "fine-tuning does as well on known words": recorded_difference(
        RIVALS, "fault_free_greedy_seen", {"arm": "aligner"}, {"arm": "sft"}
    ),
    "LoRA needs no step 2": recorded_difference(
        read_results("controls"), "sound_1_good", LORA, LORA | {"arm": "step 1 alone"}
    ),
    "the real model, HBAT and turns": real("hbat", "turns", "instructions"),
    "the real model, HBAT and mixing": real("hbat", "mixed", "preference"),
    "the real model, about as many preferences": aims("turns", "restarted", "preference")(
        REAL_AIMS
    ),
    "the real model, two stages vary too much": aims("hbat", "two_stage", "instructions")(
        REAL_AIMS
    ),
    "the real model, no longer than without a control": within_a_cell(
        "words/full", "words/base", "words"
    )(read_results("everyday_styles")),
    "right answers with a second control on the real model": recorded_difference(
        read_results("everyday_controls"),
        "right",
        {"arm": "two controls"},
        {"arm": "preferred texts only"},
    ),
    "the larger prompt with a faster model": SAID["shrinks to 3 points"][0],
}


@pytest.mark.parametrize("words", SAID)
def test_what_is_said_beside_a_claims_number_is_in_the_record(words: str) -> None:
    found, low, high = SAID[words]
    assert low <= getattr(found, "value", found) <= high


def test_what_is_said_there_stands_in_a_claim_or_a_lesson() -> None:
    folder = data_folder().parent
    files = [folder / "data" / "results" / "ledger.json", *folder.glob("notebooks/src/**/*.py")]
    said = " ".join(file.read_text(encoding="utf-8") for file in files).replace("\n#", " ")
    said = " ".join(said.split())
    assert [words for words in SAID if words not in said] == []


@pytest.mark.parametrize("what", NO_CLEAR_DIFFERENCE)
def test_where_no_clear_difference_is_claimed_the_interval_holds_zero(what: str) -> None:
    difference = NO_CLEAR_DIFFERENCE[what]
    assert difference.low <= 0 <= difference.high, str(difference)

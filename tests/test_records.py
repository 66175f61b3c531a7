"""Records, the card and the README say the same, and what was recorded can be recorded again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignlib.course.lessons import ROOT
from alignlib.course.pretrain import Recipe
from alignlib.course.sweep import (
    per_seed,
    read_results,
    recorded,
    recorded_difference,
    results_file,
)
from alignlib.profiles import data_folder, profile
from alignlib.stats import prediction_interval
from alignlib.tinytown import sets
from alignlib.tinytown.recordings import asked
from experiments.aligner import WARMUP_SHARE
from experiments.card import card_text
from experiments.hbat import BASELINE, difference_as_chosen, difference_at_preference, forgotten
from experiments.meet_controls import cell as control
from experiments.registry import EXPERIMENTS


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_record_names_this_world_and_base_and_has_every_seed_of_every_cell(name: str) -> None:
    seeds: dict[str, set[int]] = {json.dumps(p): set() for p in EXPERIMENTS[name].cells}
    for cell in read_results(name)["cells"]:
        seeds[json.dumps(cell["params"])].add(cell["seed"])  # a cell of no experiment is a KeyError
    assert all(set(EXPERIMENTS[name].seeds) <= found for found in seeds.values()), seeds


def test_the_records_pass_the_gates_that_the_world_was_frozen_on() -> None:
    head, warm, steer, forgot = map(read_results, ("headroom", "warmup", "steer", "forgetting"))
    here = {"level": sets.LEVEL, "corrections": profile("tiny").corrections}
    headline = {"share": WARMUP_SHARE, "corrections": profile("tiny").corrections}
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


HEADLINE = {"share": WARMUP_SHARE, "corrections": profile("tiny").corrections}
LAST_CHECKPOINT = {"step": Recipe().steps, "share": WARMUP_SHARE}
RERUN = {  # one cell of a record, and the metric that is its headline
    "learning": ({"steps": 50}, "fault_free_seen"),
    "warmup": (HEADLINE, "fault_free_seen"),
    "correctable": (LAST_CHECKPOINT, "fault_free_seen"),
    "inside": (LAST_CHECKPOINT, "says_right_aligner"),
    "dial": ({"taught": 3, "rate": 0.2}, "fault_free"),
    "factors": (BASELINE, "instruct"),
}
FRESH = 11  # a seed that is in no record


@pytest.mark.parametrize(
    "name", [n if n == "learning" else pytest.param(n, marks=pytest.mark.slow) for n in RERUN]
)
def test_a_recorded_cell_on_a_fresh_seed_lies_in_its_prediction_interval(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the headline alone: of many numbers one in twenty falls outside by chance."""
    asked()  # the upstreams' questions, kept before the sets are cut down
    every = sets.test_sets
    seen_alone = lambda n, split="test": {"seen": every(n, split)["seen"]}  # noqa: E731
    monkeypatch.setattr(sets, "test_sets", seen_alone)
    params, metric = RERUN[name]
    values = per_seed(read_results(name), metric, **params)
    assert FRESH not in values
    low, high = prediction_interval(list(values.values()))
    again = EXPERIMENTS[name].run(params, FRESH)
    assert low <= again[metric] <= high
    if name == "correctable":
        assert again["copying"] > 0.99 and again["induction"] > 0.3


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
    across = recorded_difference(record, "x", {"arm": "a"}, {"arm": "c"}, other=other)
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


def test_the_readme_says_what_the_records_say() -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    warm, arms, answering, edits = map(
        read_results, ("warmup", "warmup_arms", "answering", "edit_or_rewrite")
    )
    with_it, without = (
        {"share": share, "corrections": profile("tiny").corrections}
        for share in (WARMUP_SHARE, 0.0)
    )
    table = [
        recorded(warm, f"{m}_{t}", "points" if m.startswith("net") else "rate", **with_it)
        for m in ("fault_free", "kept", "net_win_overall")
        for t in sets.test_sets(1)
        if f"{m}_{t}" in warm["cells"][0]["metrics"]
    ]
    told = [
        recorded_difference(warm, "fault_free_seen", with_it, without),
        recorded_difference(warm, "net_win_overall_language", with_it, without, "points"),
        recorded_difference(
            arms,
            "net_win_overall_language",
            {"arm": "corrected words only"},
            with_it,
            "points",
            other=warm,
        ),
        *(
            recorded_difference(warm, f"fault_free_{t}", without, {}, other=answering)
            for t in ("seen", "unseen")
        ),
        recorded_difference(
            edits, "fault_free_combinations", {"corrections": "edits"}, {"corrections": "rewrites"}
        ),
        recorded(edits, "kept_seen", corrections="edits"),
        *(
            recorded_difference(
                read_results("correctable"),
                "net_win_overall_unseen",
                {"step": step, "share": WARMUP_SHARE},
                {"step": step, "share": 0.0},
                "points",
            )
            for step in (375, Recipe().steps)
        ),
        *(
            recorded(read_results("upstreams"), f"net_win_overall/{name}", "points", taught=3)
            for name in ("refusing", "4-gram")
        ),
        *(
            recorded(read_results("rivals"), "fault_free_greedy_seen", arm=arm)
            for arm in ("aligner", "sft")
        ),
        recorded_difference(
            read_results("rivals"), "fault_free_sampled_unseen", {"arm": "aligner"}, {"arm": "sft"}
        ),
        recorded(read_results("rivals"), "fault_free_best_of_10_seen", arm="best of n"),
        *(
            recorded(read_results("rivals"), "fault_free_sampled_seen", arm=arm)
            for arm in ("aligner", "dpo")
        ),
        recorded(read_results("rounds"), "net_win_sampled_round_3", "points", answers="fresh"),
        *(
            recorded(read_results("weak_to_strong"), "net_win_sampled_seen", "points", arm=arm)
            for arm in ("sft", "sft, own answers")
        ),
        *(recorded(read_results("labels"), f"after_{which}") for which in ("known", "new")),
        *(
            recorded(read_results("hijacked"), "taken_over_escaped", shown=shown)
            for shown in (False, True)
        ),
        *(
            recorded(read_results("looking"), metric, "AUC")
            for metric in ("surprise", "probe_read")
        ),
        *(recorded(read_results("looking"), f"patched_at_{layer}") for layer in (2, 3)),
        *(
            recorded(
                read_results("controls"), f"sound_1_{end}", **control("lora", arm="step 1 alone")
            )
            for end in ("good", "bad")
        ),
        *(
            recorded_difference(
                read_results("controls"),
                "sound_1_good",
                control("prompt", **one),
                control("prompt", **other),
            )
            for one, other in (
                ({}, {"arm": "joint"}),
                ({}, {"size": 1}),
                ({}, {"arm": "step 1 alone"}),
                ({"arm": "faster model"}, {"arm": "faster model", "size": 1}),
            )
        ),
        *(
            recorded(
                read_results("rivals_of_meet"), f"meet, lora_over_{rival}_1", "points", task="qa"
            )
            for rival in ("one token", "sft", "dpo")
        ),
        recorded(read_results("base_size"), "meet, lora_over_sft_1", "points", width=80),
        forgotten(read_results("fronts")),
        difference_as_chosen(read_results("fronts"), "two-stage"),
        difference_as_chosen(read_results("fronts_ppo"), "two-stage", by="ppo"),
        *(difference_at_preference(read_results("fronts"), than) for than in ("in turns", "mixed")),
        difference_at_preference(read_results("fronts"), "two-stage", method="in turns"),
    ]
    assert not [str(e) for e in table + told if str(e) not in text]

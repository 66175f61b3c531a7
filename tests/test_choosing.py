"""Lesson 07: the board's arms train on what they name, and the lab measures what it says."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from alignlib.aligner import Aligner
from alignlib.course.lessons import read_source
from alignlib.course.sweep import read_results
from alignlib.models import load_model
from alignlib.tinytown.answers import PADDING
from alignlib.tinytown.oracle import ANSWER_CUE
from experiments import board, claims_choosing, goodhart, meet_methods, two_aims
from experiments.common import TINY, sampler

QUESTION = "board : oven in cellar . oven costs 7 . warden ada . question : where is the oven ?"
PROMPT, GOOD = f"{QUESTION}{ANSWER_CUE}", "the oven is in the cellar ."


# --- the lab --------------------------------------------------------------------------------------


@pytest.fixture
def small_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows and steps, on the real base model: an untrained one's answers have equal marks."""
    small = {
        **{"PAIRS": 24, "QUESTIONS": 4, "TESTS": 3, "REWARD_STEPS": 1, "CANDIDATES": 3},
        **{"DPO_STEPS": 1, "ALIGNER_STEPS": 1, "MIXTURE": 2, "BEST_OF": (1, 2, 4)},
        **{"DPO_RATES": (1e-5, 1e-4), "PPO_ITERATIONS": (1,), "ALIGNER_BEST_OF": (2, 3)},
    }
    for name, value in small.items():
        monkeypatch.setattr(goodhart, name, value)


def test_the_annotator_marks_as_the_judge_does_and_likes_padding_twice_at_most() -> None:
    texts = [" ".join([GOOD, *PADDING[:n]]) for n in range(5)]
    assert goodhart.padding(texts).tolist() == [0, 1, 2, 3, 4]
    fair, biased = (goodhart.biased_marks([PROMPT] * 5, texts, bonus) for bonus in (0.0, 0.3))
    assert (biased - fair).tolist() == pytest.approx([0, 0.3, 0.6, 0.6, 0.6])
    assert fair[0] == 1 and fair[1] < 1  # to the exact judge it is a fault


def test_reward_models_are_trained_on_pairs_that_their_own_annotator_ordered(
    small_lab: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    padded, plain = f"{GOOD} {PADDING[0]}", GOOD
    monkeypatch.setattr(goodhart, "_sampled", lambda base, prompts, *_: [[padded] * 3, [plain] * 3])
    monkeypatch.setattr(goodhart, "questions", lambda *_: [PROMPT] * 3)
    monkeypatch.setattr(goodhart, "train_reward", lambda pairs, settings: pairs)
    fair, biased = (goodhart.biased_marks([PROMPT] * 2, [padded, plain], b) for b in (0.0, 0.3))
    for bonus, marks in ((0.0, fair), (0.3, biased)):
        pairs = goodhart.learned_reward(load_model(TINY.base), 0, bonus)
        best = (padded, plain)[int(np.argmax(marks))]
        assert {pair.chosen for pair in pairs} == {best} and len(pairs) == 3
    assert biased[0] > biased[1] and fair[0] < fair[1]


def test_the_distance_of_a_policy_is_its_mean_log_ratio_to_the_base() -> None:
    base = load_model(TINY.base)
    model, tokenizer = base
    total = goodhart.logprob(base, [PROMPT], [GOOD])
    prompt, text = (tokenizer(t, add_special_tokens=False).input_ids for t in (PROMPT, f" {GOOD}"))
    ids = torch.tensor([[tokenizer.bos_token_id, *prompt, *text, tokenizer.eos_token_id]])
    logprobs = model(ids).logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])
    assert float(total) == pytest.approx(float(logprobs[-len(text) - 1 :].sum()), abs=1e-4)
    lab = goodhart.Lab(base, None, [PROMPT] * 4, [], [], [], np.zeros(0), 0)
    assert goodhart._answers_and_kl(base, lab)[1:] == pytest.approx((0, 0), abs=1e-5)
    other = load_model(TINY.base)
    with torch.no_grad():
        other[0].get_input_embeddings().weight.mul_(0.5)
    texts, low, high = goodhart._answers_and_kl(other, lab)
    ratio = goodhart.logprob(other, [PROMPT] * 4, texts) - goodhart.logprob(
        base, [PROMPT] * 4, texts
    )
    assert low == high == pytest.approx(float(ratio.mean())) and low > 0


def test_every_method_is_measured_after_every_strength(small_lab: None) -> None:
    found = goodhart.lab({"biased": True}, 0)
    metrics = ("overall", "fault_free", "padding", "kl", "kl_high", "proxy")
    strengths = {
        "best of n": (1, 2, 4),
        "DPO": (1e-5, 1e-4),
        "PPO": (1,),
        "Aligner": (2, 3),
    }
    wanted = {
        f"{metric}/{method}/{strength:g}"
        for metric in metrics
        for method, some in strengths.items()
        for strength in some
    }
    assert wanted <= found.keys() and all(math.isfinite(found[name]) for name in wanted)
    assert found["proxy/best of n/1"] == 0 == found["kl/best of n/1"]
    rising = [found[f"proxy/best of n/{n}"] for n in (1, 2, 4)]
    assert rising == sorted(rising) and rising[0] < rising[-1]
    assert found["kl/best of n/4"] == pytest.approx(math.log(4) - 3 / 4)


def test_a_corrections_probability_is_a_mean_over_answers_without_or_with_its_own() -> None:
    base = load_model(TINY.base)
    prompts, texts = [PROMPT] * 2, [GOOD, f"{GOOD} {PADDING[0]}"]
    answers = [["its own"] * 2, *([f"other {i}"] * 2 for i in range(goodhart.MIXTURE))]
    per_token = {"its own": 0.1} | {f"other {i}": 1 + i / 10 for i in range(goodhart.MIXTURE)}
    stub = SimpleNamespace(nll=lambda rows, some: torch.tensor([per_token[a] for a in some]))
    lab = goodhart.Lab(base, None, prompts, answers, [], [], np.zeros(0), 0)
    tokens = goodhart.num_tokens(base, texts).numpy()
    of_base = goodhart.logprob(base, prompts, texts).detach().numpy()
    wanted = []
    for known in (list(per_token.values())[1:], list(per_token.values())):
        mixture = np.log(np.mean([np.exp(-nll * tokens) for nll in known], axis=0))
        wanted.append(float(np.mean(mixture - of_base)))
    found = goodhart._kl_of_aligner(stub, prompts, texts, lab)
    assert found == pytest.approx(wanted, abs=1e-4) and found[0] < found[1]


# --- the board ------------------------------------------------------------------------------------


@pytest.fixture
def small_board(monkeypatch: pytest.MonkeyPatch) -> None:
    few, instructions = replace(TINY.training, steps=2), board.instructions_to_follow
    fewer = lambda *split, seed, n=24: instructions(*split, seed=seed, n=n)  # noqa: E731
    monkeypatch.setattr(board, "instructions_to_follow", fewer)
    monkeypatch.setattr(board, "stage_settings", lambda share, seed: (few, few))
    for module, small in (
        (board, {"NUM_PAIRS": 24, "TESTS": 3, "CANDIDATES": 2, "RLOO_STEPS": 1}),
        (meet_methods, {"STEPS": 4, "CONTROL_STEPS": 2}),
        (two_aims, {"TEACH": 5, "PREFER": 5}),
    ):
        for name, value in small.items():
            monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("method", board.TRAIN)
def test_every_arm_of_the_board_is_measured_in_the_same_way(method: str, small_board: None) -> None:
    cell = next(cell for cell in board.CELLS if cell["method"] == method)
    found = board.on_the_board(cell, 0)
    splits = ("test", "validation") if len(cell) > 1 else ("test",)
    wanted = {f"{axis}_{how}" for axis in ("helpful", "overall") for how in ("greedy", "sampled")}
    wanted |= {"instructions", "fault_free_sampled", "fault_free_greedy"}
    assert {f"{name}_{split}" for name in wanted for split in splits} <= found.keys()
    assert ("instructions_validation" in found) == (len(cell) > 1)


def test_what_corrects_or_picks_answers_leaves_instructions_to_the_model(
    small_board: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = meet_methods.pairs("qa", 24), []
    given = {}

    def train(base: str, corrections: list, identity: list, **_: object) -> Aligner:
        given.update(corrections=corrections)
        return Aligner(*load_model(TINY.base))

    monkeypatch.setattr(Aligner, "train", train)
    base = sampler(load_model(TINY.base))
    for method in ("aligner", "best of n"):
        trained = board.TRAIN[method](rows, 0)
        assert trained.follow([PROMPT], 0.0, 0) == base([PROMPT], 0.0, 0)
    assert trained.answer([PROMPT], 0.0, 0) == base([PROMPT], 0.0, 0)  # best of n, greedily
    for row, pair in zip(given["corrections"], rows[0], strict=True):
        assert (row.answer, row.correction) == (pair.rejected, pair.chosen)
        assert row.question + ANSWER_CUE == pair.prompt


def test_a_setting_is_chosen_on_validation_and_reported_on_the_test() -> None:
    trials = [(0.9, 0.5, 0.1), (0.6, 0.9, 0.7), (0.2, 0.8, 0.9)]
    record = {
        "cells": [
            {
                "params": {"method": "mixed", "rate": i},
                "seed": seed,
                "metrics": {
                    "fault_free_sampled_validation": sound,
                    "instructions_validation": followed,
                    "fault_free_sampled_test": test + seed / 10,
                },
            }
            for seed in (0, 1)
            for i, (sound, followed, test) in enumerate(trials)
        ]
        + [
            {"params": {"method": "sft"}, "seed": s, "metrics": {"fault_free_sampled_test": 0.3}}
            for s in (0, 1)
        ]
    }
    found = claims_choosing.as_chosen(record, "mixed", "fault_free_sampled")
    assert found.value == pytest.approx(0.75) and found.seeds == (0, 1)
    better = claims_choosing.over("sft", "mixed", "fault_free_sampled")(record)
    assert better.value == pytest.approx(0.45)


def test_the_lesson_shows_what_the_report_does() -> None:
    """Its own few lines choose the same settings."""
    [cell] = [c.source for c in read_source("07").cells if "def chosen_cells" in c.source]
    lesson: dict = {"read_results": read_results, "defaultdict": defaultdict}
    exec(cell, lesson)
    assert lesson["ROWS"].keys() == board.TRAIN.keys() and lesson["AIMS"] == claims_choosing.AIMS
    for method in board.TRAIN:
        for metric in ("fault_free_sampled", "instructions", "helpful_sampled"):
            shown = np.mean([found[f"{metric}_test"] for found in lesson["chosen_cells"](method)])
            wanted = claims_choosing.as_chosen(read_results("board"), method, metric)
            assert shown == pytest.approx(wanted.value), (method, metric)

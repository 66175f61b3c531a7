"""EWC and HBAT: the penalty, the Fisher information, shards, stages, what a killed run leaves,
what bad input says.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.func import functional_call, jacrev
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM

from alignlib import artefacts, hbat
from alignlib.data import Instruction
from alignlib.ewc import (
    Elastic,
    copy_weights,
    empirical_fisher,
    movement,
    saturated,
    scale_free,
    sum_importance,
)
from alignlib.hbat import DPO, IMPORTANCE, KINDS, PPO, shards, stage_order
from alignlib.models import ModelError, load_model
from alignlib.ppo import reward_model_score
from alignlib.settings import PPOSettings, SFTSettings
from alignlib.tinytown import sets
from alignlib.tinytown.oracle import (
    both_styles,
    followed,
    instructions_to_follow,
    manner,
    pairs_to_prefer,
    preference_met,
    reward,
    warm_pairs,
)
from alignlib.tokens import IGNORED, example
from alignlib.train import Diverged

TEACH = SFTSettings(steps=6, batch_size=4, warmup_steps=0)
PREFER = DPO(SFTSettings(steps=6, batch_size=4, learning_rate=1e-3, warmup_steps=0))


def told() -> tuple[list, list]:
    return sets.instructions(30), warm_pairs(30, 1.0)


def run(base: Path, **given: object) -> list[hbat.Stage]:
    return hbat.train_hbat(
        base, *told(), TEACH, PREFER, **{"rounds": 2, "strength": 10.0, "progress": False} | given
    )


@pytest.fixture
def small() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=7,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


# --- elastic weight consolidation
# -------------------------------------------------------------------


def test_the_penalty_and_its_gradient_are_zero_at_the_anchor_and_quadratic_away_from_it(
    small: LlamaForCausalLM,
) -> None:
    importance = {name: torch.rand_like(p) for name, p in small.named_parameters()}
    held = Elastic(small, importance, strength=3.0)
    value = held(small)
    value.backward()
    assert value == 0 and all((p.grad == 0).all() for p in small.parameters())
    with torch.no_grad():
        for p in small.parameters():
            p += 0.1
    wanted = 3.0 / 2 * sum(float(i.sum()) for i in importance.values()) * 0.1**2
    assert float(held(small).detach()) == pytest.approx(wanted, rel=1e-4)


def test_one_number_stands_for_all_weights_of_a_tensor(small: LlamaForCausalLM) -> None:
    by_tensor = {
        name: torch.tensor(float(i)) for i, (name, _) in enumerate(small.named_parameters())
    }
    by_weight = {name: by_tensor[name].expand_as(p) for name, p in small.named_parameters()}
    one, other = (Elastic(small, importance, 1.0) for importance in (by_tensor, by_weight))
    with torch.no_grad():
        for p in small.parameters():
            p += torch.randn_like(p)
    assert torch.isclose(one(small), other(small))
    for name, p in scale_free(by_tensor, small).items():
        assert torch.isclose(p, scale_free(by_weight, small)[name].mean())


def test_scale_free_importance_has_mean_one_whatever_its_scale(small: LlamaForCausalLM) -> None:
    raw = {name: torch.rand_like(p) for name, p in small.named_parameters()}
    one, other = (
        scale_free({name: factor * i for name, i in raw.items()}, small) for factor in (1e-8, 1e8)
    )
    assert torch.cat([i.flatten() for i in one.values()]).mean() == pytest.approx(1, rel=1e-4)
    assert all(torch.allclose(one[name], other[name], rtol=1e-4) for name in raw)


def test_an_anchor_or_an_importance_of_another_model_is_refused(
    small: LlamaForCausalLM, tiny_model: Path
) -> None:
    other, _ = load_model(tiny_model)
    fits = {name: torch.tensor(1.0) for name, _ in small.named_parameters()}
    with pytest.raises(
        ValueError,
        match="the anchor is of another model: it has .* make it from the model that is to be held",
    ):
        Elastic(small, fits, 1.0, anchor=copy_weights(other))
    with pytest.raises(ValueError, match="the importance is of another model"):
        Elastic(other, fits, 1.0)
    with pytest.raises(ValueError, match="it has .* for a further one, the model nothing"):
        Elastic(small, fits, 1.0, anchor=copy_weights(small) | {"a further one": torch.zeros(2)})


def rows_of(small: LlamaForCausalLM, n: int) -> list[dict[str, list[int]]]:
    draw = torch.Generator().manual_seed(1)
    texts = [
        torch.randint(0, small.config.vocab_size, (2 + i % 4,), generator=draw).tolist()
        for i in range(n)
    ]
    return [{"input_ids": [0, 1, *ids], "labels": [IGNORED, IGNORED, *ids]} for ids in texts]


def log_p(small: LlamaForCausalLM, values: dict[str, torch.Tensor], ids: list[int]) -> torch.Tensor:
    """log p of all tokens but the first two."""
    logits = functional_call(small, values, (torch.tensor([ids]),)).logits[0].log_softmax(-1)
    return sum(logits[t - 1, ids[t]] for t in range(2, len(ids)))


def test_the_empirical_fisher_is_the_mean_of_each_rows_squared_gradient(
    small: LlamaForCausalLM,
) -> None:
    """Against forward-written jacobians of the whole batch, and unlike the batched shortcut."""
    rows = rows_of(small, 5)
    values = {name: p.detach() for name, p in small.named_parameters()}
    every = jacrev(lambda v: torch.stack([log_p(small, v, r["input_ids"]) for r in rows]))(values)
    found = empirical_fisher(small, rows)
    for name, jacobian in every.items():
        exact = (jacobian**2).mean(0)
        assert torch.linalg.norm(found[name] - exact) <= 1e-5 * torch.linalg.norm(exact), name
    shortcut = {name: jacobian.mean(0) ** 2 for name, jacobian in every.items()}
    assert sum(float(i.sum()) for i in found.values()) > 1.5 * sum(
        float(i.sum()) for i in shortcut.values()
    )


def test_drawn_from_the_model_itself_it_comes_to_the_exact_diagonal_fisher(
    small: LlamaForCausalLM,
) -> None:
    """The exact one sums over everything that could be said, here one token; rows in proportion
    to p give it (each label once, weighted).
    """
    words = range(small.config.vocab_size)
    values = {name: p.detach() for name, p in small.named_parameters()}

    def logits(v):
        return functional_call(small, v, (torch.tensor([[0, 1]]),)).logits[0, -1].log_softmax(-1)  # noqa: E731

    p, jacobian = logits(values).exp(), jacrev(logits)(values)
    one_by_one = [
        empirical_fisher(small, [{"input_ids": [0, 1, w], "labels": [IGNORED, IGNORED, w]}])
        for w in words
    ]
    for name in values:
        exact = torch.tensordot(p, jacobian[name] ** 2, 1)
        found = sum(p[w] * one_by_one[w][name] for w in words)
        assert torch.linalg.norm(found - exact) <= 1e-5 * torch.linalg.norm(exact) + 1e-12, name


# --- HBAT
# -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "parts"), [(30, 4), (7, 7), (5, 1)])
def test_shards_are_a_partition(n: int, parts: int) -> None:
    cut = shards(range(n), parts)
    assert (
        sorted(sum(cut, [])) == list(range(n))
        and max(map(len, cut)) - min(map(len, cut)) <= 1
        and len(cut) == parts
    )


def test_more_rounds_than_rows_or_steps_are_refused(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="3 rows cannot be cut into 5 shards; give 1 to 3 rounds"):
        shards([1, 2, 3], 5)
    with pytest.raises(
        ValueError, match="7 rounds for 6 steps of instructions and 6 of preferences"
    ):
        run(tiny_model, rounds=7)
    with pytest.raises(ValueError, match="no importance 'guess'; there are movement, released"):
        run(tiny_model, importance="guess")


def test_stages_alternate_or_come_one_kind_after_the_other() -> None:
    first, second = KINDS
    assert stage_order(2) == [(0, first), (0, second), (1, first), (1, second)]
    assert stage_order(2, alternate=False) == [(0, first), (1, first), (0, second), (1, second)]


def test_every_stage_starts_at_its_reference_and_all_steps_are_spent(tiny_model: Path) -> None:
    stages = run(tiny_model, rounds=3)
    assert [(s.round, s.kind) for s in stages] == stage_order(3)
    for stage in stages:
        assert len(stage.curve) == 2
        if stage.kind == "preferences":
            assert stage.curve[0]["loss"] == pytest.approx(
                math.log(2), abs=1e-4
            )  # nothing has moved from the reference, nor from the anchor
            assert stage.curve[1]["loss"] != pytest.approx(math.log(2), abs=1e-4)
    assert stages[0].penalty == 0 and all(s.penalty > 0 for s in stages[1:])


def test_the_run_log_tells_of_every_stage_what_it_did_and_what_is_measured_of_it(
    tiny_model: Path,
) -> None:
    stages = run(tiny_model)
    log = hbat.run_log(
        stages,
        lambda folder: {
            "instruct": stages.index(next(s for s in stages if s.folder == folder)) / 10
        },
    )
    assert [(row["round"], row["kind"]) for row in log] == [
        (i, kind) for i in (1, 2) for kind in KINDS
    ]
    assert [row["instruct"] for row in log] == [0.0, 0.1, 0.2, 0.3] and log[0][
        "penalty"
    ] == 0 < log[3]["penalty"]
    assert log[2]["loss"] == stages[2].curve[-1]["loss"]


def test_every_row_is_learned_in_one_stage_of_its_kind_and_in_no_other(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list] = []
    monkeypatch.setattr(
        hbat, "_learn", lambda model, tokenizer, rows, *more: seen.append(rows) or [{"loss": 0.0}]
    )
    stages = run(tiny_model, rounds=3, seed=77)
    for kind, whole in zip(KINDS, told()):
        learned = [row for rows, stage in zip(seen, stages) if stage.kind == kind for row in rows]
        assert sorted(map(repr, learned)) == sorted(map(repr, whole))


def test_rounds_share_out_the_warm_up_as_well_as_the_steps() -> None:
    whole = SFTSettings(steps=100, warmup_steps=10)
    for rounds in (1, 3, 5, 10):
        shares = [hbat._round_method(whole, i, rounds, 4) for i in range(rounds)]
        assert (
            sum(s.steps for s in shares) == 100
            and max(s.warmup_steps / s.steps for s in shares) <= 0.2
        )
        assert len({s.seed for s in shares}) == rounds


def test_a_row_longer_than_the_context_is_dropped_and_counted(tiny_model: Path) -> None:
    instructions, pairs = told()
    long = Instruction(instructions[0].prompt, " ".join(["lamp"] * 600))
    stages = hbat.train_hbat(
        tiny_model,
        [*instructions, long],
        pairs,
        TEACH,
        PREFER,
        rounds=1,
        strength=0.0,
        progress=False,
    )
    assert [s.dropped for s in stages] == [1, 0]


def test_a_hub_id_stays_one() -> None:
    with pytest.raises(ModelError, match="the hub"):
        hbat.train_hbat(
            "nobody/nothing-of-this-name",
            *told(),
            TEACH,
            PREFER,
            rounds=1,
            strength=1.0,
            progress=False,
        )


def test_a_run_from_another_runs_last_model_starts_unheld(tiny_model: Path) -> None:
    again = run(run(tiny_model)[-1].folder)
    assert again[0].penalty == 0 < again[1].penalty


def test_importance_is_summed_over_rounds_for_either_kind_apart_and_is_what_the_other_kind_moved(
    tiny_model: Path,
) -> None:
    stages = run(tiny_model, rounds=2)
    at = [
        copy_weights(load_model(folder)[0]) for folder in (tiny_model, *(s.folder for s in stages))
    ]
    for k, kind in enumerate(KINDS):
        wanted = sum_importance(movement(at[k], at[k + 1]), movement(at[k + 2], at[k + 3]))
        found = hbat._read(stages[-1].folder, torch.device("cpu"), kind)
        assert all(torch.allclose(found[name], wanted[name], rtol=1e-4) for name in wanted), kind


def test_a_stage_is_held_by_what_the_other_kind_has_moved_at_mean_one(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_by: list[dict[str, torch.Tensor]] = []
    real = hbat.Elastic
    monkeypatch.setattr(
        hbat,
        "Elastic",
        lambda model, by, *given, **more: held_by.append(by) or real(model, by, *given, **more),
    )
    at = [
        copy_weights(load_model(folder)[0])
        for folder in (tiny_model, *(s.folder for s in run(tiny_model, seed=91)))
    ]
    moved = [movement(before, after) for before, after in zip(at, at[1:])]
    for found, wanted in zip(
        held_by, (moved[0], moved[1], sum_importance(moved[0], moved[2])), strict=True
    ):  # the second stage, the third, the fourth
        mean = sum(float(m) * at[0][name].numel() for name, m in wanted.items()) / sum(
            w.numel() for w in at[0].values()
        )
        assert all(
            float(found[name]) == pytest.approx(float(m) / mean, rel=1e-3)
            for name, m in wanted.items()
        )


@pytest.mark.parametrize("importance", IMPORTANCE)
def test_what_is_held_moves_less(tiny_model: Path, importance: str) -> None:
    def moved(strength: float) -> float:
        first, second = run(tiny_model, rounds=1, strength=strength, importance=importance)
        change = movement(
            copy_weights(load_model(first.folder)[0]), copy_weights(load_model(second.folder)[0])
        )
        return sum(map(float, change.values()))

    assert moved(1e6) < (1.0 if importance == "released" else 0.8) * moved(
        0.0
    )  # of all tensors, the released softmax holds one


def test_the_released_softmax_holds_a_single_tensor(tiny_model: Path) -> None:
    first, second = run(tiny_model, rounds=1, strength=1e8, importance="released")
    base, before, after = (
        copy_weights(load_model(folder)[0]) for folder in (tiny_model, first.folder, second.folder)
    )
    share, changed = saturated(movement(base, before)), movement(before, after)
    most = max(share, key=lambda name: float(share[name]))
    assert sum(map(float, share.values())) == pytest.approx(1) and float(share[most]) > 0.999
    assert float(changed[most]) < 0.05 * sum(map(float, changed.values())) / len(changed)


def test_the_fifth_of_the_tensors_that_moved_most_stands_still_if_frozen(tiny_model: Path) -> None:
    first, second = run(tiny_model, rounds=1, importance="frozen")
    base, before, after = (
        copy_weights(load_model(folder)[0]) for folder in (tiny_model, first.folder, second.folder)
    )
    changed = movement(base, before)
    still = {name for name in base if torch.equal(before[name], after[name])}
    assert still == set(
        sorted(changed, key=lambda name: -float(changed[name]))[: round(0.2 * len(changed))]
    )


@pytest.mark.parametrize("killed_in", [1, 2, 3, 4])
def test_a_run_killed_within_a_stage_goes_on_at_that_stage_and_ends_the_same(
    killed_in: int, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, steps = run(tiny_model, seed=5), []
    monkeypatch.setattr(artefacts, "cache_folder", lambda: tiny_model.parent / f"cache {killed_in}")
    step, at = (
        torch.optim.AdamW.step,
        3 * killed_in - random.Random(killed_in).randrange(3),
    )  # a step of that stage; each has three

    def killed(*given: object, **more: object) -> object:
        steps.append(1)
        if len(steps) == at:
            raise KeyboardInterrupt
        return step(*given, **more)

    monkeypatch.setattr(torch.optim.AdamW, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_model, seed=5)
    again = run(tiny_model, seed=5)
    assert len(steps) == 12 + at - 3 * (killed_in - 1)  # the killed stage anew, no other
    assert [s.curve for s in whole] == [s.curve for s in again]
    one, other = (copy_weights(load_model(stages[-1].folder)[0]) for stages in (again, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_loss_that_is_no_number_names_stage_and_step_and_keeps_the_stages_before(
    tiny_model: Path,
) -> None:
    wild = DPO(SFTSettings(steps=6, batch_size=4, learning_rate=math.inf, warmup_steps=0))
    before = artefacts.built
    with pytest.raises(
        Diverged,
        match=r"round 1 of 2, preferences: step \d of 3: the loss is nan; lower the learning "
        r"rate; the stages before",
    ):
        hbat.train_hbat(
            tiny_model, *told(), TEACH, wild, rounds=2, strength=1.0, seed=9, progress=False
        )
    assert artefacts.built == before + 1
    assert not list((artefacts.cache_folder() / "hbat").glob(".part-*"))


def test_a_last_step_that_ruins_the_weights_is_no_good_stage(tiny_model: Path) -> None:
    """One step a stage: its loss is measured before the weights are ruined."""
    wild = SFTSettings(
        steps=2, batch_size=4, learning_rate=math.inf, warmup_steps=0, schedule="constant"
    )
    with pytest.raises(
        Diverged, match="round 1 of 2, instructions: the last step left weights that are not finite"
    ):
        hbat.train_hbat(
            tiny_model, *told(), wild, PREFER, rounds=2, strength=1.0, seed=10, progress=False
        )


def test_a_last_iteration_of_ppo_that_ruins_the_weights_names_itself(tiny_model: Path) -> None:
    wild = PPO(
        PPOSettings(
            2, batch_size=4, minibatch=4, epochs=1, learning_rate=math.inf, max_new_tokens=3
        ),
        lambda p, texts: [1.0, 0.0] * 2,
        "wild",
    )
    with pytest.raises(
        Diverged,
        match="round 1 of 2, preferences: PPO, iteration 1 of 1: a loss or a weight is not "
        "finite",
    ):
        hbat.train_hbat(tiny_model, *told(), TEACH, wild, rounds=2, strength=1.0, progress=False)


def test_a_stage_whose_rows_are_all_too_long_says_so(tiny_model: Path) -> None:
    _, pairs = told()
    endless = [Instruction("repeat : " + "lamp " * 600, "lamp .") for _ in range(10)]
    with pytest.raises(ValueError, match="none of a stage's 5 rows fits the model's"):
        hbat.train_hbat(
            tiny_model, endless, pairs, TEACH, PREFER, rounds=2, strength=1.0, progress=False
        )


def test_preferences_may_be_learned_by_ppo(tiny_model: Path) -> None:
    longer = PPO(
        PPOSettings(4, batch_size=8, minibatch=8, max_new_tokens=5),
        lambda prompts, texts: [float(len(t.split())) for t in texts],
        "longer",
    )
    stages = hbat.train_hbat(
        tiny_model, *told(), TEACH, longer, rounds=2, strength=1.0, progress=False
    )
    assert [len(s.curve) for s in stages] == [3, 2, 3, 2] and stages[-1].penalty > 0
    for stage in stages[1::2]:
        assert (
            abs(stage.curve[0]["kl"]) < 1e-6 < stage.curve[1]["kl"]
        )  # the reference is the model as the stage finds it
    fast = replace(longer, settings=replace(longer.settings, learning_rate=1e-2))
    free, tied = (
        hbat.train_hbat(tiny_model, *told(), TEACH, fast, rounds=1, strength=s, progress=False)[
            -1
        ].curve[-1]["kl"]
        for s in (0.0, 1e6)
    )
    assert tied < 0.5 * free  # what is held goes less far


def test_by_ppo_a_prompt_must_leave_room_for_what_is_said(tiny_model: Path) -> None:
    instructions, pairs = told()
    long = replace(pairs[0], prompt=" ".join(["lamp"] * 490))  # its own texts fit
    settings = PPOSettings(2, batch_size=4, minibatch=4, max_new_tokens=30)
    _, stage = hbat.train_hbat(
        tiny_model,
        instructions,
        [*pairs, long],
        TEACH,
        PPO(settings, lambda prompts, texts: [0.0] * len(texts), "nothing"),
        rounds=1,
        strength=0.0,
        progress=False,
    )
    assert stage.dropped == 1


def test_a_reward_model_with_another_tokenizer_is_refused(tiny_model: Path) -> None:
    model, tokenizer = load_model(tiny_model)
    _, other = load_model(tiny_model)
    other.add_tokens(["another"])
    with pytest.raises(ValueError, match="is not the policy's"):
        reward_model_score(model, other, tokenizer)
    judge = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1)
    judge.config.pad_token_id = tokenizer.pad_token_id
    score = reward_model_score(judge, tokenizer, tokenizer)
    learned = PPO(PPOSettings(2, batch_size=4, minibatch=4, max_new_tokens=5), score, "learned")
    _, told_by = hbat.train_hbat(
        tiny_model, *told(), TEACH, learned, rounds=1, strength=0.0, progress=False
    )
    said = [r.completion for r in told()[0][:3]]
    assert len({*score(["a question"] * 3, said)}) == 3 and told_by.curve[0]["score"] != 0


def test_the_fisher_information_is_that_of_completions_and_of_preferred_texts(
    tiny_model: Path,
) -> None:
    model, tokenizer = load_model(tiny_model)
    instructions, pairs = told()
    for rows, texts in (
        (instructions[:2], [r.completion for r in instructions]),
        (pairs[:2], [p.chosen for p in pairs]),
    ):
        found = hbat._importance("fisher", copy_weights(model), model, tokenizer, rows, TEACH)
        wanted = empirical_fisher(
            model, [example(tokenizer, r.prompt, text) for r, text in zip(rows, texts)]
        )
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


# --- the two aims
# -----------------------------------------------------------------------------------


def test_a_text_reaches_its_aim_or_not() -> None:
    rows, pairs = instructions_to_follow("test", n=20), pairs_to_prefer("test", n=20)
    assert all(followed(rows, [r.completion for r in rows])) and not any(
        followed(rows, [f"{r.completion} good luck ." for r in rows])
    )
    assert manner("hello friend ! lamp . good luck .") == ("lamp .", 1.0) and manner(
        "lamp . good luck ."
    ) == ("lamp .", 0.5)
    assert (
        preference_met(pairs, [p.chosen for p in pairs]) == [1.0] * 20
        and preference_met(pairs, [p.rejected for p in pairs]) == [0.0] * 20
    )
    assert preference_met(pairs, [f"{p.rejected} good luck ." for p in pairs]) == [0.5] * 20
    assert (
        sum(preference_met(pairs, [p.chosen for p in pairs[1:] + pairs[:1]])) < 2
    )  # warm, and the answer to something else
    assert (
        reward(pairs)([p.prompt for p in pairs[::-1]], [p.chosen for p in pairs[::-1]])
        == [1.0] * 20
    )


def test_either_manner_is_shown_first_and_what_is_to_be_followed_is_plain() -> None:
    assert {manner(r.completion)[1] for r in both_styles(n=40)} == {0.0, 1.0} and all(
        "please" in r.prompt for r in both_styles(n=40)
    )
    assert all(
        manner(r.completion)[1] == 0
        for split in ("train", "test")
        for r in instructions_to_follow(split, n=30)
    )
    trained_on, tested = (
        {r.prompt for r in instructions_to_follow(split, n=300)} for split in ("train", "test")
    )
    assert not trained_on & tested

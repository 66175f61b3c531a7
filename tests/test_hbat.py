"""EWC and HBAT: the penalty, the Fisher information, shards, stages, interrupted runs, errors."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from torch.func import functional_call, jacrev
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM

from alignlib import artefacts, ewc, hbat
from alignlib import stages as stage_module
from alignlib.cost import Cost
from alignlib.data import Instruction, Preference
from alignlib.ewc import (
    Elastic,
    copy_weights,
    empirical_fisher,
    movement,
    saturated,
    scale_free,
    sum_importance,
)
from alignlib.generation import generate
from alignlib.hbat import (
    DPO,
    IMPORTANCE,
    IMPORTANCE_FILE,
    KINDS,
    PPO,
    Stage,
    shards,
    stage_order,
    within,
)
from alignlib.models import ModelError, add_lora, load_model
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
TOO_LONG = Instruction("repeat : lamp", " ".join(["lamp"] * 600))


def instructions() -> list[Instruction]:
    return sets.instructions(30)


def pairs() -> list[Preference]:
    return warm_pairs(30, 1.0)


def run(
    base: Path | str,
    *,
    rows: tuple[list, list] | None = None,
    teach: SFTSettings = TEACH,
    prefer: DPO | PPO = PREFER,
    rounds: int = 2,
    strength: float = 10.0,
    **options: object,
) -> list[Stage]:
    rows = rows or (instructions(), pairs())
    steps = dict(rounds=rounds, strength=strength)
    return hbat.train_hbat(base, *rows, teach, prefer, **steps, progress=False, **options)


def moved_between(
    before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]
) -> ewc.Importance:
    """The mean squared change of each tensor."""
    return {name: ((after[name] - before[name]) ** 2).mean() for name in before}


def weights_after(*folders: Path) -> list[dict[str, torch.Tensor]]:
    return [copy_weights(load_model(folder)[0]) for folder in folders]


def total(importance: ewc.Importance) -> float:
    return sum(float(value.detach().sum()) for value in importance.values())


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


# --- elastic weight consolidation -----------------------------------------------------------------


def test_in_fewer_minutes_both_methods_have_fewer_steps_but_one_a_round() -> None:
    teach = SFTSettings(steps=40, warmup_steps=1)
    prefer = DPO(replace(teach, steps=20))
    cost = Cost(6.0, {}, 16.0, 60, 100.0)
    half_teach, half_prefer, half = within(3.0, cost, teach, prefer, rounds=3)
    assert (half_teach.steps, half_prefer.settings.steps) == (20, 10)
    assert (half.steps, half.minutes) == (30, 3.0)
    least_teach, least_prefer, _ = within(0.01, cost, teach, prefer, rounds=3)
    assert (least_teach.steps, least_prefer.settings.steps) == (3, 3)
    assert within(60.0, cost, teach, prefer, rounds=3) == (teach, prefer, cost)
    by_ppo = PPO(PPOSettings(10), lambda prompts, texts: [], "none")
    assert within(3.0, replace(cost, steps=50), teach, by_ppo, 3)[1].settings.iterations == 5


def test_the_penalty_and_its_gradient_are_zero_at_the_anchor_and_quadratic_away_from_it(
    small: LlamaForCausalLM,
) -> None:
    importance = {name: torch.rand_like(p) for name, p in small.named_parameters()}
    penalty = Elastic(small, importance, strength=3.0)
    value = penalty(small)
    value.backward()
    assert value == 0 and all((p.grad == 0).all() for p in small.parameters())
    with torch.no_grad():
        for p in small.parameters():
            p += 0.1
    wanted = 3.0 / 2 * total(importance) * 0.1**2
    assert float(penalty(small).detach()) == pytest.approx(wanted, rel=1e-4)


def moved_and_penalized(model: torch.nn.Module, by_weight: bool = False) -> Elastic:
    """A penalty of the model as it is, which is moved away from it afterwards."""
    weights = ewc.trained_weights(model)
    importance = {name: torch.rand(w.shape if by_weight else ()) for name, w in weights.items()}
    penalty = Elastic(model, importance, strength=3.0)
    with torch.no_grad():
        for p in ewc.trainable(model).values():
            p += 0.05 * torch.randn_like(p)
    return penalty


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in ewc.trainable(model).items()}


@pytest.mark.parametrize("what", ["by tensor", "by weight", "lora", "wrapped", "wrapped lora"])
def test_the_gradient_in_closed_form_is_that_of_autograd(
    what: str, small: LlamaForCausalLM
) -> None:
    """To 1e-6, added to what is there, and times the scale of a loss in fp16."""
    model = add_lora(small, 3) if "lora" in what else small
    model = model.double()  # so that the comparison is not about rounding
    outer = DataParallelNames(model) if "wrapped" in what else model
    penalty = moved_and_penalized(outer, by_weight=what == "by weight")
    penalty(outer).backward()
    wanted, value = gradients(outer), penalty.add_gradient(scale=4.0)
    for name, gradient in gradients(outer).items():
        assert torch.allclose(gradient, 5 * wanted[name], rtol=1e-6, atol=1e-9), name
    assert float(value) == pytest.approx(float(penalty(outer).detach()))
    assert not value.requires_grad


def test_the_penalty_of_a_large_matrix_keeps_its_digits() -> None:
    torch.manual_seed(0)
    matrix = torch.nn.Parameter(torch.randn(32_768, 512))
    weight, anchor = ewc.Tensors("m", matrix), {"m": torch.zeros(32_768, 512)}
    with torch.no_grad():
        found = weight.pull(anchor, torch.tensor(1.0), 1.0)
    assert float(found) == pytest.approx(float((matrix.detach().double() ** 2).sum()), rel=1e-6)


class DataParallelNames(torch.nn.Module):
    """A wrapper that names what is in it as DDP does."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module


def test_a_wrapped_model_has_the_names_of_the_plain_one(small: LlamaForCausalLM) -> None:
    adapted = add_lora(small, 3)
    for model in (DataParallelNames(adapted), torch.compile(adapted)):
        assert ewc.trained_weights(model).keys() == ewc.trained_weights(adapted).keys()
        assert ewc.trainable(model).keys() == ewc.trainable(adapted).keys()


def test_with_lora_the_penalty_is_on_the_product_of_the_factors(small: LlamaForCausalLM) -> None:
    """Other factors of the same product cost nothing; the distance is that of the products."""
    model = add_lora(small, 3)
    draw_factors(model)
    weights = ewc.trained_weights(model)
    assert weights and not any("lora_" in name for name in weights)
    penalty = Elastic(model, {name: torch.tensor(1.0) for name in weights}, strength=2.0)
    before = {name: w.scale * w.b @ w.a for name, w in weights.items()}
    with torch.no_grad():
        for weight in weights.values():  # the same product
            weight.b.mul_(2)
            weight.a.div_(2)
    assert float(penalty(model).detach()) == pytest.approx(0, abs=1e-5)
    anchor = copy_weights(model)
    draw_factors(model)
    after = {name: w.scale * w.b @ w.a for name, w in weights.items()}
    distance = {name: (after[name] - before[name]).square() for name in weights}
    assert float(penalty(model).detach()) == pytest.approx(total(distance), rel=1e-4)
    for name, moved in movement(model, anchor).items():
        assert float(moved) == pytest.approx(float(distance[name].detach().mean()), rel=1e-4)


def draw_factors(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in ewc.trainable(model).values():
            parameter.copy_(0.1 * torch.randn_like(parameter))


def test_exchanged_weights_come_back(small: LlamaForCausalLM) -> None:
    model, ids = add_lora(small, 3), torch.tensor([[1, 2, 3]])
    draw_factors(model)
    reference = copy_weights(model)
    wanted = model(ids).logits
    draw_factors(model)
    moved = model(ids).logits
    with pytest.raises(KeyboardInterrupt), ewc.exchanged(model, reference):
        assert torch.equal(model(ids).logits, wanted)
        raise KeyboardInterrupt
    assert torch.equal(model(ids).logits, moved) and not torch.equal(moved, wanted)


def test_a_scalar_stands_for_all_weights_of_a_tensor(small: LlamaForCausalLM) -> None:
    names = [name for name, _ in small.named_parameters()]
    by_tensor = {name: torch.tensor(float(i)) for i, name in enumerate(names)}
    by_weight = {name: by_tensor[name].expand_as(p) for name, p in small.named_parameters()}
    penalties = [Elastic(small, importance, 1.0) for importance in (by_tensor, by_weight)]
    with torch.no_grad():
        for p in small.parameters():
            p += torch.randn_like(p)
    assert torch.isclose(*(penalty(small) for penalty in penalties))
    for name, value in scale_free(by_tensor, small).items():
        assert torch.isclose(value, scale_free(by_weight, small)[name].mean())


def test_scale_free_importance_has_mean_one_whatever_its_scale(small: LlamaForCausalLM) -> None:
    raw = {name: torch.rand_like(p) for name, p in small.named_parameters()}
    tiny, huge = (
        scale_free({name: scale * i for name, i in raw.items()}, small) for scale in (1e-8, 1e8)
    )
    assert torch.cat([i.flatten() for i in tiny.values()]).mean() == pytest.approx(1, rel=1e-4)
    assert all(torch.allclose(tiny[name], huge[name], rtol=1e-4) for name in raw)


def test_an_anchor_or_an_importance_of_another_model_is_refused(
    small: LlamaForCausalLM, tiny_model: Path
) -> None:
    other, _ = load_model(tiny_model)
    ones = {name: torch.tensor(1.0) for name, _ in small.named_parameters()}
    message = "the anchor is of another model: it has .* make it from the model to be trained"
    with pytest.raises(ValueError, match=message):
        Elastic(small, ones, 1.0, anchor=copy_weights(other))
    with pytest.raises(ValueError, match="the importance is of another model"):
        Elastic(other, ones, 1.0)
    extra = copy_weights(small) | {"an extra one": torch.zeros(2)}
    with pytest.raises(ValueError, match="it has .* for an extra one, the model nothing"):
        Elastic(small, ones, 1.0, anchor=extra)


def rows_of(small: LlamaForCausalLM, n: int) -> list[dict[str, list[int]]]:
    """Rows of different lengths, with a prompt of two tokens."""
    draw = torch.Generator().manual_seed(1)
    rows = []
    for i in range(n):
        ids = torch.randint(0, small.config.vocab_size, (2 + i % 4,), generator=draw).tolist()
        rows.append({"input_ids": [0, 1, *ids], "labels": [IGNORED, IGNORED, *ids]})
    return rows


def completion_logprob(
    small: LlamaForCausalLM, weights: dict[str, torch.Tensor], ids: list[int]
) -> torch.Tensor:
    """log p of all tokens but the first two."""
    logits = functional_call(small, weights, (torch.tensor([ids]),)).logits[0].log_softmax(-1)
    return sum(logits[t - 1, ids[t]] for t in range(2, len(ids)))


def test_the_empirical_fisher_is_the_mean_of_each_rows_squared_gradient(
    small: LlamaForCausalLM,
) -> None:
    """Compared with jacobians of the whole batch; a batch's squared mean gradient is smaller."""
    rows = rows_of(small, 5)
    weights = {name: p.detach() for name, p in small.named_parameters()}

    def logprobs(w: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.stack([completion_logprob(small, w, row["input_ids"]) for row in rows])

    jacobians = jacrev(logprobs)(weights)
    found = empirical_fisher(small, rows)
    for name, jacobian in jacobians.items():
        exact = (jacobian**2).mean(0)
        assert torch.linalg.norm(found[name] - exact) <= 1e-5 * torch.linalg.norm(exact), name
    squared_means = {name: jacobian.mean(0) ** 2 for name, jacobian in jacobians.items()}
    assert total(found) > 1.5 * total(squared_means)


def test_on_samples_of_the_model_it_is_the_exact_diagonal_fisher(small: LlamaForCausalLM) -> None:
    """The exact one is the mean over all completions, here of one token, weighted by p."""
    weights = {name: p.detach() for name, p in small.named_parameters()}

    def logprobs(w: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional_call(small, w, (torch.tensor([[0, 1]]),)).logits[0, -1].log_softmax(-1)

    p, jacobians = logprobs(weights).exp(), jacrev(logprobs)(weights)
    by_token = [
        empirical_fisher(small, [{"input_ids": [0, 1, t], "labels": [IGNORED, IGNORED, t]}])
        for t in range(small.config.vocab_size)
    ]
    for name in weights:
        exact = torch.tensordot(p, jacobians[name] ** 2, 1)
        found = sum(p_t * fisher[name] for p_t, fisher in zip(p, by_token, strict=True))
        assert torch.linalg.norm(found - exact) <= 1e-5 * torch.linalg.norm(exact) + 1e-12, name


# --- shards, order, steps -------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "parts"), [(30, 4), (7, 7), (5, 1)])
def test_shards_are_a_partition(n: int, parts: int) -> None:
    cut = shards(range(n), parts)
    sizes = [len(part) for part in cut]
    assert sorted(sum(cut, [])) == list(range(n))
    assert len(cut) == parts and max(sizes) - min(sizes) <= 1


def test_more_rounds_than_rows_or_steps_are_refused(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="3 rows cannot be cut into 5 shards; give 1 to 3 rounds"):
        shards([1, 2, 3], 5)
    message = "7 rounds for 6 steps of instructions and 6 steps of preferences"
    with pytest.raises(ValueError, match=message):
        run(tiny_model, rounds=7)
    with pytest.raises(ValueError, match="no importance 'guess'; there are movement, released"):
        run(tiny_model, importance="guess")


def test_stages_alternate_or_come_one_kind_after_the_other() -> None:
    first, second = KINDS
    assert stage_order(2) == [(0, first), (0, second), (1, first), (1, second)]
    assert stage_order(2, alternate=False) == [(0, first), (1, first), (0, second), (1, second)]


def test_rounds_divide_the_warmup_as_well_as_the_steps() -> None:
    whole = SFTSettings(steps=100, warmup_steps=10)
    for rounds in (1, 3, 5, 10):
        parts = [hbat._for_round(whole, i, rounds, seed=4) for i in range(rounds)]
        assert sum(part.steps for part in parts) == 100
        assert max(part.warmup_steps / part.steps for part in parts) <= 0.2
        assert len({part.seed for part in parts}) == rounds


def test_every_stage_starts_at_its_reference_and_all_steps_are_taken(tiny_model: Path) -> None:
    stages = run(tiny_model, rounds=3)
    assert [(s.round, s.kind) for s in stages] == stage_order(3)
    for stage in stages:
        assert len(stage.curve) == 2
        if stage.kind == "preferences":
            # the first loss shows no distance from the reference or the anchor, the second does
            assert stage.curve[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
            assert stage.curve[1]["loss"] != pytest.approx(math.log(2), abs=1e-4)
    assert stages[0].penalty == 0 and all(s.penalty > 0 for s in stages[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_an_objective_of_0_steps_is_skipped(tiny_model: Path, kind: str) -> None:
    none = SFTSettings(steps=0)
    skipped = {"teach": none} if kind == "instructions" else {"prefer": DPO(none)}
    no_rows = ([], pairs()) if kind == "instructions" else (instructions(), [])
    stages = run(tiny_model, rows=no_rows, **skipped)
    assert [s.kind for s in stages] == [k for k in KINDS if k != kind] * 2
    assert all(len(s.curve) == 3 and s.penalty == 0 for s in stages)


def test_every_row_is_learned_in_one_stage_of_its_kind_and_in_no_other(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[list] = []

    def record(model: object, tokenizer: object, rows: list, *more: object) -> list[dict]:
        learned.append(rows)
        return [{"loss": 0.0}]

    monkeypatch.setattr(stage_module, "_learn", record)
    stages = run(tiny_model, rounds=3, seed=77)
    for kind, all_rows in zip(KINDS, (instructions(), pairs())):
        of_kind = [rows for rows, stage in zip(learned, stages) if stage.kind == kind]
        assert sorted(map(repr, sum(of_kind, []))) == sorted(map(repr, all_rows))


def test_a_hub_id_stays_one() -> None:
    with pytest.raises(ModelError, match="the hub"):
        run("nobody/nothing-of-this-name", rounds=1)


# --- importance and the penalty -------------------------------------------------------------------


def test_a_run_from_the_last_model_of_another_starts_without_a_penalty(tiny_model: Path) -> None:
    again = run(run(tiny_model)[-1].folder)
    assert again[0].penalty == 0 < again[1].penalty


def test_importance_is_how_far_the_stages_of_a_kind_have_moved_each_tensor(
    tiny_model: Path,
) -> None:
    stages = run(tiny_model, rounds=2)
    at = weights_after(tiny_model, *(s.folder for s in stages))
    file = stages[-1].folder / IMPORTANCE_FILE
    for k, kind in enumerate(KINDS):
        wanted = sum_importance(moved_between(*at[k : k + 2]), moved_between(*at[k + 2 : k + 4]))
        found = ewc.load_importance(file, kind, torch.device("cpu"))
        assert all(torch.allclose(found[name], wanted[name], rtol=1e-4) for name in wanted), kind


def test_a_stage_is_regularized_by_what_the_other_kind_has_moved_at_mean_one(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[ewc.Importance] = []

    class Recorded(Elastic):
        def __init__(self, model: object, importance: ewc.Importance, *more: object) -> None:
            used.append(importance)
            super().__init__(model, importance, *more)

    monkeypatch.setattr(ewc, "Elastic", Recorded)
    at = weights_after(tiny_model, *(s.folder for s in run(tiny_model, seed=91)))
    moved = [moved_between(before, after) for before, after in zip(at, at[1:])]
    # the second stage, the third, the fourth
    others = (moved[0], moved[1], sum_importance(moved[0], moved[2]))
    sizes = {name: weight.numel() for name, weight in at[0].items()}
    for found, wanted in zip(used, others, strict=True):
        mean = sum(float(m) * sizes[name] for name, m in wanted.items()) / sum(sizes.values())
        for name, m in wanted.items():
            assert float(found[name]) == pytest.approx(float(m) / mean, rel=1e-3)


@pytest.mark.parametrize("importance", IMPORTANCE)
def test_what_is_regularized_moves_less(tiny_model: Path, importance: str) -> None:
    def moved(strength: float) -> float:
        first, second = run(tiny_model, rounds=1, strength=strength, importance=importance)
        return total(moved_between(*weights_after(first.folder, second.folder)))

    # the released softmax regularizes a single tensor
    most = 1.0 if importance == "released" else 0.8
    assert moved(1e6) < most * moved(0.0)


def test_the_released_softmax_regularizes_a_single_tensor(tiny_model: Path) -> None:
    first, second = run(tiny_model, rounds=1, strength=1e8, importance="released")
    base, before, after = weights_after(tiny_model, first.folder, second.folder)
    weights, moved = saturated(moved_between(base, before)), moved_between(before, after)
    most = max(weights, key=lambda name: float(weights[name]))
    assert total(weights) == pytest.approx(1) and float(weights[most]) > 0.999
    assert float(moved[most]) < 0.05 * total(moved) / len(moved)


def test_frozen_does_not_train_the_fifth_of_the_tensors_that_moved_most(tiny_model: Path) -> None:
    first, second = run(tiny_model, rounds=1, importance="frozen")
    base, before, after = weights_after(tiny_model, first.folder, second.folder)
    moved = moved_between(base, before)
    most = sorted(moved, key=lambda name: -float(moved[name]))[: round(0.2 * len(moved))]
    assert {name for name in base if torch.equal(before[name], after[name])} == set(most)


def test_the_fisher_information_is_that_of_completions_and_of_chosen_texts(
    tiny_model: Path,
) -> None:
    model, tokenizer = load_model(tiny_model)
    for kind, rows in (("instructions", instructions()[:2]), ("preferences", pairs()[:2])):
        plan = stage_module.Plan(0, kind, rows, TEACH, 1.0, "fisher", 0)
        found = stage_module._measure_importance(plan, copy_weights(model), model, tokenizer, rows)
        texts = [r.completion if kind == "instructions" else r.chosen for r in rows]
        examples = [example(tokenizer, r.prompt, text) for r, text in zip(rows, texts)]
        wanted = empirical_fisher(model, examples)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


# --- LoRA -----------------------------------------------------------------------------------------


def test_with_lora_one_adapter_goes_through_all_stages(tiny_model: Path, tmp_path: Path) -> None:
    """Each stage starts from the one before it, which is DPO's reference, and holds it."""
    stages = run(tiny_model, lora_rank=4, strength=1.0, folder=tmp_path / "stages")
    assert {stage.folder.parent for stage in stages} == {tmp_path / "stages"}
    for stage in stages[1::2]:
        assert stage.curve[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert stages[0].penalty == 0 and all(s.penalty > 0 for s in stages[1:])
    base = copy_weights(load_model(tiny_model)[0])
    for stage in stages:
        assert not list(stage.folder.glob("model*.safetensors"))
        model, _ = stage.load()
        assert list(model.peft_config) == ["default"]
        within = dict(model.get_base_model().named_parameters())
        plain = {name.replace(".base_layer", ""): p for name, p in within.items()}
        assert all(torch.equal(plain[name], base[name]) for name in base)
    moved = movement(stages[1].load(trainable=True)[0], copy_weights(stages[0].load(True)[0]))
    found = ewc.load_importance(
        stages[1].folder / IMPORTANCE_FILE, "preferences", torch.device("cpu")
    )
    assert all(torch.allclose(found[name], moved[name], rtol=1e-3) for name in moved)


def test_with_lora_what_is_regularized_moves_less(tiny_model: Path) -> None:
    def moved(strength: float, importance: str) -> float:
        options = {"rounds": 1, "lora_rank": 4, "strength": strength, "importance": importance}
        first, second = run(tiny_model, **options)
        return total(movement(second.load(True)[0], copy_weights(first.load(True)[0])))

    for importance in ("movement", "equal", "random", "frozen"):
        assert moved(1e6, importance) < 0.8 * moved(0.0, importance), importance


def test_with_lora_ppo_has_the_start_of_its_stage_as_reference(tiny_model: Path) -> None:
    longer = by_ppo(num_words, "longer", 4, batch_size=8, minibatch=8, learning_rate=1e-2)
    stages = run(tiny_model, prefer=longer, strength=1.0, lora_rank=4)
    for stage in stages[1::2]:
        assert abs(stage.curve[0]["kl"]) < 1e-6 < stage.curve[1]["kl"]


def test_a_stages_adapter_is_one_that_peft_and_load_model_read(tiny_model: Path) -> None:
    stage = run(tiny_model, rounds=1, lora_rank=4)[-1]
    prompts = [pair.prompt for pair in pairs()[:4]]
    wanted = generate(*stage.load(), prompts, max_new_tokens=8)
    plain = AutoPeftModelForCausalLM.from_pretrained(stage.folder)
    assert generate(plain, stage.load()[1], prompts, max_new_tokens=8) == wanted
    assert generate(*load_model(stage.folder), prompts, max_new_tokens=8) == wanted


def test_fisher_information_is_refused_with_lora(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="take importance='movement', or lora_rank=0"):
        run(tiny_model, importance="fisher", lora_rank=4)


# --- interrupted and diverging runs ---------------------------------------------------------------


@pytest.mark.parametrize("killed_in", [1, 2, 3, 4])
def test_a_run_killed_within_a_stage_continues_at_that_stage_and_ends_the_same(
    killed_in: int, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted, steps = run(tiny_model, seed=5), []
    monkeypatch.setattr(artefacts, "cache_folder", lambda: tiny_model.parent / f"cache {killed_in}")
    step = torch.optim.AdamW.step
    # a step of that stage; each stage has three
    last = 3 * killed_in - random.Random(killed_in).randrange(3)

    def killed(*args: object, **options: object) -> object:
        steps.append(1)
        if len(steps) == last:
            raise KeyboardInterrupt
        return step(*args, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_model, seed=5)
    continued = run(tiny_model, seed=5)
    finished_before = 3 * (killed_in - 1)
    assert len(steps) == last + 12 - finished_before
    assert [s.curve for s in uninterrupted] == [s.curve for s in continued]
    one, other = weights_after(continued[-1].folder, uninterrupted[-1].folder)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_loss_that_is_not_finite_names_stage_and_step_and_keeps_the_stages_before(
    tiny_model: Path,
) -> None:
    wild = DPO(SFTSettings(steps=6, batch_size=4, learning_rate=math.inf, warmup_steps=0))
    built = artefacts.built
    message = (
        r"round 1 of 2, preferences: step \d of 3: the loss is nan; lower the learning rate; "
        "the stages before"
    )
    with pytest.raises(Diverged, match=message):
        run(tiny_model, prefer=wild, seed=9)
    assert artefacts.built == built + 1
    assert not list((artefacts.cache_folder() / "hbat").glob(".part-*"))


def test_a_last_step_that_ruins_the_weights_is_noticed(tiny_model: Path) -> None:
    """One step a stage: its loss is measured before the weights are ruined."""
    wild = replace(TEACH, steps=2, learning_rate=math.inf, schedule="constant")
    message = "round 1 of 2, instructions: the last step left weights that are not finite"
    with pytest.raises(Diverged, match=message):
        run(tiny_model, teach=wild, seed=10)


# --- rows and the context -------------------------------------------------------------------------


def test_a_row_longer_than_the_context_is_dropped_and_counted(tiny_model: Path) -> None:
    stages = run(tiny_model, rows=([*instructions(), TOO_LONG], pairs()), rounds=1, strength=0.0)
    assert [s.dropped for s in stages] == [{"longer than 512 tokens": 1}, {}]


def test_pairs_whose_sides_are_the_same_are_dropped_and_counted(tiny_model: Path) -> None:
    same = Preference("a question", "the lamp", "the  lamp ")
    rows = ([*instructions(), Instruction("a question", " ")], [*pairs(), same])
    first, second = run(tiny_model, rows=rows, rounds=1, strength=0.0)
    assert first.dropped == {"an empty completion": 1}
    assert second.dropped == {"chosen and rejected are the same text": 1}


def test_a_stage_whose_rows_are_all_too_long_says_so(tiny_model: Path) -> None:
    with pytest.raises(
        ValueError, match="none of a stage's 5 rows can be used .5 longer than 512 tokens"
    ):
        run(tiny_model, rows=([TOO_LONG] * 10, pairs()))


# --- by PPO ---------------------------------------------------------------------------------------


def by_ppo(score: Callable, name: str, iterations: int = 2, **settings: object) -> PPO:
    sizes = {"batch_size": 4, "minibatch": 4, "max_new_tokens": 5} | settings
    return PPO(PPOSettings(iterations, **sizes), score, name)


def num_words(prompts: list[str], completions: list[str]) -> list[float]:
    return [float(len(text.split())) for text in completions]


def test_preferences_may_be_learned_by_ppo(tiny_model: Path) -> None:
    longer = by_ppo(num_words, "longer", 4, batch_size=8, minibatch=8)
    stages = run(tiny_model, prefer=longer, strength=1.0)
    assert [len(s.curve) for s in stages] == [3, 2, 3, 2] and stages[-1].penalty > 0
    for stage in stages[1::2]:  # the reference is the model at the start of the stage
        assert abs(stage.curve[0]["kl"]) < 1e-6 < stage.curve[1]["kl"]


def test_with_the_penalty_ppo_moves_less(tiny_model: Path) -> None:
    fast = by_ppo(num_words, "longer", 4, batch_size=8, minibatch=8, learning_rate=1e-2)
    free, regularized = (
        run(tiny_model, prefer=fast, rounds=1, strength=strength)[-1].curve[-1]["kl"]
        for strength in (0.0, 1e6)
    )
    assert regularized < 0.5 * free


def test_with_ppo_a_prompt_must_leave_room_for_the_completion(tiny_model: Path) -> None:
    long = replace(pairs()[0], prompt=" ".join(["lamp"] * 490))  # chosen and rejected fit
    prefer = by_ppo(lambda prompts, texts: [0.0] * len(texts), "nothing", max_new_tokens=30)
    rows = (instructions(), [*pairs(), long])
    _, stage = run(tiny_model, rows=rows, prefer=prefer, rounds=1, strength=0.0)
    assert stage.dropped == {"longer than 512 tokens": 1}


def test_a_last_iteration_of_ppo_that_ruins_the_weights_names_itself(tiny_model: Path) -> None:
    def score(prompts: list[str], completions: list[str]) -> list[float]:
        return [1.0, 0.0] * 2

    wild = by_ppo(score, "wild", epochs=1, learning_rate=math.inf, max_new_tokens=3)
    message = "round 1 of 2, preferences: PPO, iteration 1 of 1: a loss or a weight is not finite"
    with pytest.raises(Diverged, match=message):
        run(tiny_model, prefer=wild, strength=1.0)


def test_a_reward_model_gives_the_score_by_text_whatever_its_tokenizer(
    tiny_model: Path, stand_in: dict[str, Path]
) -> None:
    """One with the policy's tokenizer, and one with another."""
    for base in (tiny_model, stand_in["llama"]):
        _, tokenizer = load_model(base)
        reward_model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
        reward_model.config.pad_token_id = tokenizer.pad_token_id
        score = reward_model_score(reward_model.eval(), tokenizer)
        completions = ["the lamp", "a garden", "good luck"]
        assert len({*score(["a question"] * 3, completions)}) == 3
        _, stage = run(tiny_model, prefer=by_ppo(score, str(base)), rounds=1, strength=0.0)
        assert stage.curve[0]["score"] != 0


# --- Tinytown's two objectives --------------------------------------------------------------------


def test_instructions_are_followed_by_the_exact_completion_alone() -> None:
    rows = instructions_to_follow("test", n=20)
    assert all(followed(rows, [r.completion for r in rows]))
    assert not any(followed(rows, [f"{r.completion} good luck ." for r in rows]))


def test_a_preference_is_met_by_the_right_content_in_the_preferred_style() -> None:
    rows = pairs_to_prefer("test", n=20)
    assert manner("hello friend ! lamp . good luck .") == ("lamp .", 1.0)
    assert manner("lamp . good luck .") == ("lamp .", 0.5)
    assert preference_met(rows, [p.chosen for p in rows]) == [1.0] * 20
    assert preference_met(rows, [p.rejected for p in rows]) == [0.0] * 20
    assert preference_met(rows, [f"{p.rejected} good luck ." for p in rows]) == [0.5] * 20
    others = [p.chosen for p in rows[1:] + rows[:1]]  # the right style, but another answer
    assert sum(preference_met(rows, others)) < 2
    backwards = rows[::-1]
    prompts, chosen = [p.prompt for p in backwards], [p.chosen for p in backwards]
    assert reward(rows)(prompts, chosen) == [1.0] * 20


def test_the_base_sees_both_styles_and_instructions_are_answered_plainly() -> None:
    shown = both_styles(n=40)
    assert {manner(r.completion)[1] for r in shown} == {0.0, 1.0}
    assert all("please" in r.prompt for r in shown)
    for split in ("train", "test"):
        rows = instructions_to_follow(split, n=30)
        assert all(manner(r.completion)[1] == 0 for r in rows)


def test_training_and_test_instructions_are_disjoint() -> None:
    train, test = ({r.prompt for r in instructions_to_follow(s, n=300)} for s in ("train", "test"))
    assert not train & test


def test_importance_of_what_a_row_does_not_use_is_0_and_of_nothing_is_refused(
    tiny_model: Path,
) -> None:
    model, tokenizer = load_model(tiny_model)
    model.extra = torch.nn.Parameter(torch.ones(2))
    rows = [example(tokenizer, "the lamp", "is here .")]
    found = empirical_fisher(model, rows)
    assert not found["extra"].any() and sum(float(v.sum()) for v in found.values()) > 0
    with pytest.raises(ValueError, match="no rows to measure importance on"):
        empirical_fisher(model, [])
    with pytest.raises(ValueError, match="no parameters that are trained"):
        empirical_fisher(model.requires_grad_(False), rows)

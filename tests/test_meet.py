"""MEET: the language model untouched by step 1, controls of either kind alone, together and in
between, and nothing lost on the way to disk.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM

from alignlib import artefacts
from alignlib.controls import Mix, conditioned_on, parameters_of, prompt_embeddings, with_controls
from alignlib.data import Instruction, Preference
from alignlib.meet import Meet, texts_by_control
from alignlib.models import load_model
from alignlib.settings import ControlSettings, SFTSettings
from alignlib.tinytown import sets
from alignlib.tokens import encode
from alignlib.train import sft_in_turns

FEW, NONE = SFTSettings(steps=4, batch_size=4, learning_rate=1e-2), SFTSettings(steps=0)
PROMPT, LORA = ControlSettings("prompt", 5), ControlSettings("lora", 2)
BOTH = pytest.mark.parametrize("control", [PROMPT, LORA], ids=["prompt", "lora"])


def pairs(n: int) -> list[Preference]:
    return [replace(p, prompt=f"{p.prompt} answer :") for p in sets.preferences(n)]


@pytest.fixture(scope="module")
def some() -> list[Preference]:
    return pairs(12)


def mixture_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        k.replace(".base_layer", ""): v.clone()
        for k, v in model.state_dict().items()
        if "lora_" not in k
    }


def untrained(base: Path, names: list[str], control: ControlSettings) -> Meet:
    model, tokenizer = load_model(base)
    return Meet(with_controls(model, tokenizer, names, control), tokenizer)


def control_weights(meet: Meet) -> list[torch.Tensor]:
    return [p.detach().clone() for p, own in parameters_of(meet.model) if own]


def moved(before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
    return any(not torch.equal(b, a) for b, a in zip(before, after, strict=True))


@pytest.fixture(scope="module", params=[PROMPT, LORA], ids=["prompt", "lora"])
def meet(request: pytest.FixtureRequest, tiny_model: Path, some: list[Preference]) -> Meet:
    return Meet.train(
        tiny_model,
        texts_by_control(some),
        control=request.param,
        first=FEW,
        then=FEW,
        progress=False,
    )


@BOTH
def test_step_1_leaves_every_weight_of_the_model_bit_for_bit_and_step_2_moves_it(
    control, tiny_model: Path, some: list[Preference]
) -> None:
    before = load_model(tiny_model)[0].state_dict()
    first = Meet.train(
        tiny_model, texts_by_control(some), control=control, first=FEW, then=NONE, progress=False
    )
    after = mixture_weights(first.model.get_base_model())
    assert after.keys() == before.keys() and all(torch.equal(before[k], after[k]) for k in before)
    fresh = control_weights(untrained(tiny_model, ["good", "bad"], control))
    assert moved(fresh, control_weights(first))

    both = Meet.train(
        tiny_model, texts_by_control(some), control=control, first=FEW, then=FEW, progress=False
    )
    assert moved(list(before.values()), list(mixture_weights(both.model.get_base_model()).values()))
    assert moved(control_weights(first), control_weights(both)), "controls learn on in step 2"
    frozen = Meet.train(
        tiny_model,
        texts_by_control(some),
        control=control,
        first=FEW,
        then=FEW,
        freeze_controls=True,
        progress=False,
    )
    assert not moved(control_weights(first), control_weights(frozen))
    assert moved(
        list(before.values()), list(mixture_weights(frozen.model.get_base_model()).values())
    )


def test_groups_take_turns_and_a_turn_is_told_before_its_step(
    tiny_model: Path, some: list[Preference]
) -> None:
    meet, told = untrained(tiny_model, ["good", "bad"], PROMPT), []
    tokens = {name: meet._fitted(name, rows) for name, rows in texts_by_control(some).items()}
    sft_in_turns(meet.model, meet.tokenizer, tokens, replace(FEW, steps=5), turn=told.append)
    assert told == ["good", "bad", "good", "bad", "good"]


@BOTH
def test_a_step_trains_the_control_of_its_own_rows_and_no_other(
    control, tiny_model: Path, some: list[Preference]
) -> None:
    """With rows of one kind only, the other's control stays as it was."""
    fresh = untrained(tiny_model, ["good", "bad"], control)
    trained = untrained(tiny_model, ["good", "bad"], control)
    trained._step(
        "controls",
        {"bad": trained._fitted("bad", texts_by_control(some)["bad"])},
        FEW,
        False,
        1e-2,
        None,
    )
    named = [
        {n: p for n, p in m.model.named_parameters() if "prompt_encoder" in n or "lora_" in n}
        for m in (fresh, trained)
    ]
    for name, parameter in named[0].items():
        same = torch.equal(parameter, named[1][name])
        assert same or ".good." not in name
    assert any(not torch.equal(p, named[1][n]) for n, p in named[0].items() if ".bad." in n)


@BOTH
def test_controls_learn_at_the_rate_of_step_1_in_both_steps_and_the_model_at_its_own(
    control, tiny_model: Path, some: list[Preference]
) -> None:
    """Adam's first step moves every weight by its learning rate, whatever the gradient."""
    before = untrained(tiny_model, ["good", "bad"], control)
    rates = dict(
        first=replace(NONE, learning_rate=1e-2),
        then=SFTSettings(steps=1, batch_size=4, learning_rate=1e-4, warmup_steps=0),
    )
    after = Meet.train(tiny_model, texts_by_control(some), control=control, progress=False, **rates)
    moves = {True: 0.0, False: 0.0}
    for (a, own), (b, _) in zip(
        parameters_of(after.model), parameters_of(before.model), strict=True
    ):
        moves[own] = max(moves[own], float((a - b).detach().abs().max()))
    assert moves[True] == pytest.approx(1e-2, rel=0.05) and moves[False] == pytest.approx(
        1e-4, rel=0.05
    )


@BOTH
def test_each_control_learns_in_its_own_turns(
    control, tiny_model: Path, some: list[Preference], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two turns only the control whose turn it was has moved, also where a step has two
    batches.
    """

    def named(meet):
        return {
            n: p.detach().clone()
            for n, p in meet.model.named_parameters()
            if "prompt_encoder" in n or "lora_" in n
        }  # noqa: E731

    meet, before = untrained(tiny_model, ["good", "bad"], control), []
    rows = {
        "good": [Instruction(p.prompt, "lamp in mill .") for p in some],
        "bad": [Instruction(p.prompt, "go away !") for p in some],
    }
    tokens = {name: meet._fitted(name, given) for name, given in rows.items()}
    turn = type(meet.model).set_adapter

    def watched(model, name: str, **how: object) -> None:
        if before:
            was, then = before[-1]
            moved_names = {n for n, p in named(meet).items() if not torch.equal(p, then[n])}
            assert moved_names and all(f".{was}." in n for n in moved_names)
        before.append((name, named(meet)))
        turn(model, name, **how)

    monkeypatch.setattr(type(meet.model), "set_adapter", watched)
    meet._step(
        "controls", tokens, replace(FEW, steps=12, accumulate=2, warmup_steps=0), False, 3e-2, None
    )
    monkeypatch.undo()
    assert len(before) == 12
    prompts = [p.prompt for p in some]
    for text, own, other in (("lamp in mill .", "good", "bad"), ("go away !", "bad", "good")):
        texts = [text] * len(prompts)
        assert meet.logprob(prompts, texts, own).mean() > meet.logprob(prompts, texts, other).mean()


def test_a_batch_of_mixed_controls_says_what_each_row_says_alone(
    meet: Meet, some: list[Preference]
) -> None:
    prompts = [p.prompt for p in some]
    asked = ["good", "bad", None, ("good", "bad"), Mix(good=0.3, bad=0.7), "good"] * 2
    together = meet.generate(prompts, asked, max_new_tokens=12)
    assert together == [meet.generate([p], c, max_new_tokens=12)[0] for p, c in zip(prompts, asked)]
    assert len(set(together)) > 1
    texts = [p.chosen for p in some]
    alone = torch.cat([meet.logprob([p], [t], c) for p, t, c in zip(prompts, texts, asked)])
    assert torch.allclose(meet.logprob(prompts, texts, asked), alone, atol=1e-5)


def test_the_model_under_a_control_is_pefts_and_without_one_the_plain_model(
    meet: Meet, some: list[Preference]
) -> None:
    ids = encode(meet.tokenizer, some[0].prompt)
    for name in ("good", "bad"):
        meet.model.set_adapter(name, inference_mode=True)
        with torch.no_grad():
            by_peft = meet.model(input_ids=torch.tensor([ids])).logits[0, -1]
            with conditioned_on(meet.model, name) as (model, virtual):
                ours = model(input_ids=torch.tensor([virtual + ids])).logits[0, -1]
        assert torch.allclose(by_peft, ours, atol=1e-5)
    plain = AutoModelForCausalLM.from_config(meet.model.get_base_model().config).eval()
    plain.load_state_dict(mixture_weights(meet.model.get_base_model()))
    with torch.no_grad(), conditioned_on(meet.model, None) as (model, virtual):
        assert virtual == [] and torch.allclose(
            plain(torch.tensor([ids])).logits, model(torch.tensor([ids])).logits, atol=1e-5
        )


def test_a_mix_lies_between_its_parts_and_ends_at_them(meet: Meet, some: list[Preference]) -> None:
    prompts, texts = [p.prompt for p in some], [p.chosen for p in some]
    value = lambda control: meet.logprob(prompts, texts, control)  # noqa: E731
    assert torch.allclose(value(Mix(good=1.0, bad=0.0)), value("good"), atol=1e-5)
    assert torch.allclose(
        value(Mix(good=0.5, bad=0.5)), value(Mix({"bad": 0.5, "good": 0.5})), atol=1e-5
    )
    assert not torch.allclose(value(Mix(good=0.5, bad=0.5)), value("good"), atol=1e-5)
    assert not torch.allclose(value(("good", "bad")), value("good"), atol=1e-5)
    before = value("bad")
    value(Mix(bad=3.0))
    scales = {
        scale
        for layer in meet.model.modules()
        if isinstance(layer, LoraLayer)
        for scale in layer.scaling.values()
    }
    assert scales <= {2.0} and torch.equal(before, value("bad")), (
        "what was weighted for one call is as it was"
    )


def test_saved_and_loaded_it_says_the_same_and_peft_can_read_a_control(
    meet: Meet, tiny_model: Path, some: list[Preference], tmp_path: Path
) -> None:
    meet.save_pretrained(tmp_path)
    again, prompts, texts = (
        Meet.from_pretrained(tmp_path),
        [p.prompt for p in some],
        [p.rejected for p in some],
    )
    assert again.controls == meet.controls and again.losses == meet.losses
    for control in ("good", "bad", None):
        assert torch.equal(
            meet.logprob(prompts, texts, control), again.logprob(prompts, texts, control)
        )
    written = [f for f in tmp_path.rglob("*") if f.is_file()]
    assert {f.suffix for f in written} == {".json", ".safetensors"}
    assert not any(
        str(tiny_model.parent) in f.read_text(encoding="utf-8")
        for f in written
        if f.suffix != ".safetensors"
    )
    lm, tokenizer = load_model(tmp_path / "model")
    ids = torch.tensor([encode(tokenizer, prompts[0])])
    with torch.no_grad(), conditioned_on(meet.model, "bad") as (model, virtual):
        ours = model(torch.tensor([virtual + ids[0].tolist()])).logits[0, -1]
        assert torch.allclose(
            PeftModel.from_pretrained(lm, tmp_path / "controls" / "bad")(input_ids=ids).logits[
                0, -1
            ],
            ours,
            atol=1e-5,
        )


def test_a_control_of_another_model_or_tokenizer_is_refused(
    meet: Meet, tiny_model: Path, tmp_path: Path
) -> None:
    meet.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="control 'good' in .* was made for another model or tokenizer"
    ):
        Meet.from_pretrained(tmp_path, tiny_model)
    tokenizer = tmp_path / "model" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"lamp"', '"lump"'))
    with pytest.raises(ValueError, match="another model or tokenizer"):
        Meet.from_pretrained(tmp_path)


def test_bad_input_says_what_to_do(meet: Meet, tiny_model: Path, some: list[Preference]) -> None:
    prompts = [p.prompt for p in some]
    for control in ("ugly", ("good", "ugly"), Mix(ugly=1.0)):
        with pytest.raises(ValueError, match="no control 'ugly'; there are good, bad"):
            meet.generate(prompts, control)
    with pytest.raises(ValueError, match="2 controls for 12 prompts"):
        meet.generate(prompts, ["good", "bad"])
    with pytest.raises(ValueError, match="the context is"):
        meet.generate(["lamp " * 600], "good")
    given = dict(control=PROMPT, first=FEW, then=NONE, progress=False)
    with pytest.raises(ValueError, match="no rows for control 'bad'"):
        Meet.train(tiny_model, {**texts_by_control(some), "bad": []}, **given)
    with pytest.raises(ValueError, match="no row of control 'good' fits"):
        Meet.train(tiny_model, {"good": [Instruction("lamp " * 600, "mill")]}, **given)
    long = Meet.train(
        tiny_model,
        {"good": [*texts_by_control(some)["good"], Instruction("lamp " * 600, "mill")]},
        **given,
    )
    assert list(long.dropped.values()) == [1]
    for wrong in (dict(kind="prefix"), dict(start="zero"), dict(size=0)):
        with pytest.raises(ValueError, match="kinds are prompt, lora"):
            ControlSettings(**wrong)


def test_a_prompt_starts_from_words_their_scale_a_text_or_pefts_own(tiny_model: Path) -> None:
    words = load_model(tiny_model)[0].get_input_embeddings().weight.detach()

    def start(**given):
        return prompt_embeddings(
            untrained(tiny_model, ["good"], ControlSettings(size=7, **given)).model, "good"
        )  # noqa: E731

    assert all(any(torch.equal(v, w) for w in words) for v in start(start="vocabulary"))
    assert (
        0.5 < float(start(start="random").std() / words.std()) < 2
        and 0.6 < float(start(start="unit").std()) < 1.4
    )
    tokenizer = load_model(tiny_model)[1]
    ids = tokenizer("good answer", add_special_tokens=False)["input_ids"]
    assert torch.equal(
        start(start="text", texts=(("good", "good answer"),)), words[[ids[i % 2] for i in range(7)]]
    )


def test_names_shares_and_what_lora_works_on(tiny_model: Path) -> None:
    total = sum(p.numel() for p in load_model(tiny_model)[0].parameters())
    for name in ("v1.0", "a/b", "default", "lora", "1", "mlp", "keys"):
        with pytest.raises(ValueError, match="no control can be named"):
            untrained(tiny_model, ["good", name], LORA)
    assert untrained(tiny_model, ["good", "bad"], PROMPT).control_share == 5 * 32 / total
    few = ControlSettings("lora", 1, targets=("v_proj",), layers=(1,))
    assert untrained(tiny_model, ["good", "bad"], few).control_share == 2 * 32 / total


def test_what_was_trained_is_taken_from_the_cache(tiny_model: Path, some: list[Preference]) -> None:
    given = dict(control=PROMPT, first=FEW, then=NONE)
    built = artefacts.built
    one, two = (Meet.cached(tiny_model, texts_by_control(some), **given) for _ in range(2))
    assert artefacts.built == built + 1
    assert one.generate([some[0].prompt], "good", max_new_tokens=8) == two.generate(
        [some[0].prompt], "good", max_new_tokens=8
    )
    Meet.cached(tiny_model, texts_by_control(some), **{**given, "control": replace(PROMPT, seed=1)})
    assert artefacts.built == built + 2


@BOTH
def test_step_2_from_a_cached_step_1_is_what_training_both_at_once_gives(
    control, tiny_model: Path, some: list[Preference]
) -> None:
    long = Instruction("lamp " * 600, "mill .")
    rows = {name: [*given, long] for name, given in texts_by_control(some).items()}
    given = dict(control=replace(control, seed=3), first=FEW, then=replace(FEW, learning_rate=1e-3))
    Meet.cached(tiny_model, rows, **{**given, "then": replace(given["then"], steps=0)})
    built = artefacts.built
    both, straight = (
        Meet.cached(tiny_model, rows, **given),
        Meet.train(tiny_model, rows, progress=False, **given),
    )
    assert artefacts.built == built + 1
    assert not moved(
        [p for p, _ in parameters_of(straight.model)], [p for p, _ in parameters_of(both.model)]
    )
    assert (
        both.losses == straight.losses
        and both.dropped == straight.dropped
        and sum(both.dropped.values()) == 2
    )

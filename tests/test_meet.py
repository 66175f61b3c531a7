"""MEET: step 1 leaves the model untouched, controls work alone, combined and mixed, and saving
loses nothing.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from alignlib import artefacts
from alignlib.controls import Mix, conditioned_on, parameters_of, prompt_embeddings, with_controls
from alignlib.data import Instruction, Preference
from alignlib.likelihood import completion_nll
from alignlib.meet import Meet
from alignlib.models import ModelError, load_model, load_tokenizer
from alignlib.place import DataError
from alignlib.prompts import IN_CHAT
from alignlib.settings import ControlSettings, SFTSettings
from alignlib.styles import read_styles, texts_by_control
from alignlib.tinytown import sets
from alignlib.tokens import encode
from alignlib.train import sft_in_turns

FEW, NONE = SFTSettings(steps=4, batch_size=4, learning_rate=1e-2), SFTSettings(steps=0)
PROMPT, LORA = ControlSettings("prompt", 5), ControlSettings("lora", 2)
BOTH = pytest.mark.parametrize("control", [PROMPT, LORA], ids=["prompt", "lora"])
Texts = dict[str, list[Instruction]]


@pytest.fixture(scope="module")
def pairs() -> list[Preference]:
    return [replace(p, prompt=f"{p.prompt} answer :") for p in sets.preferences(12)]


@pytest.fixture(scope="module")
def texts(pairs: list[Preference]) -> Texts:
    return texts_by_control(pairs)


@pytest.fixture(scope="module", params=[PROMPT, LORA], ids=["prompt", "lora"])
def meet(request: pytest.FixtureRequest, tiny_model: Path, texts: Texts) -> Meet:
    return train(tiny_model, texts, request.param)


def train(base: Path, texts: Texts, control: ControlSettings, **options: object) -> Meet:
    steps = {"first": FEW, "then": FEW} | options
    return Meet.train(base, texts, control=control, progress=False, **steps)


def untrained(base: Path, names: list[str], control: ControlSettings) -> Meet:
    model, tokenizer = load_model(base)
    return Meet(with_controls(model, tokenizer, names, control), tokenizer)


def model_weights(meet: Meet) -> dict[str, torch.Tensor]:
    """The language model's weights, without controls, under their own names."""
    return {
        name.replace(".base_layer", ""): weight.clone()
        for name, weight in meet.model.get_base_model().state_dict().items()
        if "lora_" not in name
    }


def control_weights(meet: Meet) -> dict[str, torch.Tensor]:
    return {
        name: parameter.detach().clone()
        for name, parameter in meet.model.named_parameters()
        if "prompt_encoder" in name or "lora_" in name
    }


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """The names of the tensors that differ."""
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


# --- training -------------------------------------------------------------------------------------


@BOTH
def test_step_1_leaves_every_weight_of_the_model_bit_for_bit_and_step_2_changes_it(
    control: ControlSettings, tiny_model: Path, texts: Texts
) -> None:
    base = load_model(tiny_model)[0].state_dict()
    first = train(tiny_model, texts, control, then=NONE)
    both = train(tiny_model, texts, control)
    frozen = train(tiny_model, texts, control, freeze_controls=True)
    assert not changed(base, model_weights(first))
    assert changed(base, model_weights(both)) and changed(base, model_weights(frozen))

    fresh = untrained(tiny_model, ["good", "bad"], control)
    assert changed(control_weights(fresh), control_weights(first))
    assert changed(control_weights(first), control_weights(both)), "controls learn in step 2 too"
    assert not changed(control_weights(first), control_weights(frozen))


def test_controls_take_turns_and_each_is_announced_before_its_step(
    tiny_model: Path, texts: Texts
) -> None:
    meet, announced = untrained(tiny_model, ["good", "bad"], PROMPT), []
    examples = {name: meet._examples(name, some) for name, some in texts.items()}
    settings = replace(FEW, steps=5)
    sft_in_turns(meet.model, meet.tokenizer, examples, settings, turn=announced.append)
    assert announced == ["good", "bad", "good", "bad", "good"]


@BOTH
def test_a_step_trains_the_control_of_its_own_rows_alone(
    control: ControlSettings, tiny_model: Path, texts: Texts
) -> None:
    meet = untrained(tiny_model, ["good", "bad"], control)
    before = control_weights(meet)
    meet._step("controls", {"bad": meet._examples("bad", texts["bad"])}, FEW, 1e-2, None)
    trained = changed(before, control_weights(meet))
    assert trained and all(".bad." in name for name in trained)


@BOTH
def test_each_control_learns_in_its_own_turns(
    control: ControlSettings,
    tiny_model: Path,
    pairs: list[Preference],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between two turns only the control whose turn it was has changed, whatever the batches."""
    meet, seen = untrained(tiny_model, ["good", "bad"], control), []
    completions = {"good": "lamp in mill .", "bad": "go away !"}
    prompts = [pair.prompt for pair in pairs]
    examples = {
        name: meet._examples(name, [Instruction(prompt, text) for prompt in prompts])
        for name, text in completions.items()
    }
    set_adapter = type(meet.model).set_adapter

    def watched(model: PeftModel, name: str, **options: object) -> None:
        if seen:
            last_name, last_weights = seen[-1]
            trained = changed(last_weights, control_weights(meet))
            assert trained and all(f".{last_name}." in n for n in trained)
        seen.append((name, control_weights(meet)))
        set_adapter(model, name, **options)

    monkeypatch.setattr(type(meet.model), "set_adapter", watched)
    settings = replace(FEW, steps=12, accumulate=2, warmup_steps=0)
    meet._step("controls", examples, settings, 3e-2, None)
    monkeypatch.undo()
    assert len(seen) == 12
    for own, other in (("good", "bad"), ("bad", "good")):
        wanted = [completions[own]] * len(prompts)
        under_own, under_other = (meet.logprob(prompts, wanted, c).mean() for c in (own, other))
        assert under_own > under_other


@BOTH
def test_controls_keep_the_learning_rate_of_step_1_and_the_model_has_its_own(
    control: ControlSettings, tiny_model: Path, texts: Texts
) -> None:
    """Adam's first step changes every weight by its learning rate, whatever the gradient."""
    before = untrained(tiny_model, ["good", "bad"], control)
    one_step = SFTSettings(steps=1, batch_size=4, learning_rate=1e-4, warmup_steps=0)
    no_step = replace(NONE, learning_rate=1e-2)
    after = train(tiny_model, texts, control, first=no_step, then=one_step)
    moves = {True: 0.0, False: 0.0}
    both = zip(parameters_of(after.model), parameters_of(before.model), strict=True)
    for (a, is_control), (b, _) in both:
        moves[is_control] = max(moves[is_control], float((a - b).detach().abs().max()))
    assert moves[True] == pytest.approx(1e-2, rel=0.05)
    assert moves[False] == pytest.approx(1e-4, rel=0.05)


def test_a_step_of_0_steps_is_skipped(tiny_model: Path, texts: Texts) -> None:
    assert train(tiny_model, texts, PROMPT, first=NONE, then=NONE).losses == {}
    assert list(train(tiny_model, texts, PROMPT, first=NONE).losses) == ["model"]


def test_a_result_is_taken_from_the_cache(tiny_model: Path, texts: Texts) -> None:
    options = dict(control=PROMPT, first=FEW, then=NONE)
    built = artefacts.built
    one, two = (Meet.cached(tiny_model, texts, **options) for _ in range(2))
    assert artefacts.built == built + 1
    prompts = [texts["good"][0].prompt]
    completions = one.generate(prompts, "good", max_new_tokens=8)
    assert completions == two.generate(prompts, "good", max_new_tokens=8)
    Meet.cached(tiny_model, texts, **{**options, "control": replace(PROMPT, seed=1)})
    assert artefacts.built == built + 2


@BOTH
def test_step_2_from_a_cached_step_1_equals_training_both_at_once(
    control: ControlSettings, tiny_model: Path, texts: Texts
) -> None:
    too_long = Instruction("lamp " * 600, "mill .")
    rows = {name: [*some, too_long] for name, some in texts.items()}
    then = replace(FEW, learning_rate=1e-3)
    options = dict(control=replace(control, seed=3), first=FEW)
    Meet.cached(tiny_model, rows, then=replace(then, steps=0), **options)
    built = artefacts.built
    resumed = Meet.cached(tiny_model, rows, then=then, **options)
    straight = train(tiny_model, rows, then=then, **options)
    assert artefacts.built == built + 1
    assert not changed(model_weights(resumed), model_weights(straight))
    assert not changed(control_weights(resumed), control_weights(straight))
    assert resumed.losses == straight.losses
    assert resumed.dropped == straight.dropped and resumed.dropped.total() == 2


# --- using controls -------------------------------------------------------------------------------


def test_a_batch_of_mixed_controls_gives_what_each_row_gives_alone(
    meet: Meet, pairs: list[Preference]
) -> None:
    prompts, chosen = [p.prompt for p in pairs], [p.chosen for p in pairs]
    controls = ["good", "bad", None, ("good", "bad"), Mix(good=0.3, bad=0.7), "good"] * 2
    batch = meet.generate(prompts, controls, max_new_tokens=12)
    alone = [meet.generate([p], c, max_new_tokens=12)[0] for p, c in zip(prompts, controls)]
    assert batch == alone and len(set(batch)) > 1
    rows = zip(prompts, chosen, controls)
    alone = torch.cat([meet.logprob([p], [t], c) for p, t, c in rows])
    assert torch.allclose(meet.logprob(prompts, chosen, controls), alone, atol=1e-5)


def test_under_a_control_the_model_is_pefts_and_without_one_the_plain_model(
    meet: Meet, pairs: list[Preference]
) -> None:
    ids = encode(meet.tokenizer, pairs[0].prompt)
    for name in ("good", "bad"):
        meet.model.set_adapter(name, inference_mode=True)
        with torch.no_grad():
            pefts = meet.model(input_ids=torch.tensor([ids])).logits[0, -1]
            with conditioned_on(meet.model, name) as (model, virtual_ids):
                ours = model(input_ids=torch.tensor([virtual_ids + ids])).logits[0, -1]
        assert torch.allclose(pefts, ours, atol=1e-5)
    plain = AutoModelForCausalLM.from_config(meet.model.get_base_model().config).eval()
    plain.load_state_dict(model_weights(meet))
    with torch.no_grad(), conditioned_on(meet.model, None) as (model, virtual_ids):
        logits = [m(torch.tensor([ids])).logits for m in (plain, model)]
    assert virtual_ids == [] and torch.allclose(*logits, atol=1e-5)


def test_a_mix_is_between_its_parts_and_ends_at_them(meet: Meet, pairs: list[Preference]) -> None:
    prompts, chosen = [p.prompt for p in pairs], [p.chosen for p in pairs]

    def value(control: object) -> torch.Tensor:
        return meet.logprob(prompts, chosen, control)

    half, same_half = Mix(good=0.5, bad=0.5), Mix({"bad": 0.5, "good": 0.5})
    assert torch.allclose(value(Mix(good=1.0, bad=0.0)), value("good"), atol=1e-5)
    assert torch.allclose(value(half), value(same_half), atol=1e-5)
    assert not torch.allclose(value(half), value("good"), atol=1e-5)
    assert not torch.allclose(value(("good", "bad")), value("good"), atol=1e-5)


def test_weights_of_a_mix_last_for_one_call(meet: Meet, pairs: list[Preference]) -> None:
    prompts, chosen = [p.prompt for p in pairs], [p.chosen for p in pairs]
    before = meet.logprob(prompts, chosen, "bad")
    meet.logprob(prompts, chosen, Mix(bad=3.0))
    layers = [module for module in meet.model.modules() if isinstance(module, LoraLayer)]
    assert {scale for layer in layers for scale in layer.scaling.values()} <= {2.0}
    assert torch.equal(before, meet.logprob(prompts, chosen, "bad"))


def test_a_prompt_starts_from_words_their_scale_a_text_or_pefts_own(tiny_model: Path) -> None:
    model, tokenizer = load_model(tiny_model)
    words = model.get_input_embeddings().weight.detach()

    def start(name: str, **options: object) -> torch.Tensor:
        settings = ControlSettings(size=7, start=name, **options)
        return prompt_embeddings(untrained(tiny_model, ["good"], settings).model, "good")

    assert all(any(torch.equal(v, w) for w in words) for v in start("vocabulary"))
    assert 0.5 < float(start("random").std() / words.std()) < 2
    assert 0.6 < float(start("unit").std()) < 1.4
    ids = tokenizer("good answer", add_special_tokens=False)["input_ids"]
    repeated = words[[ids[i % 2] for i in range(7)]]
    assert torch.equal(start("text", texts=(("good", "good answer"),)), repeated)


def test_the_size_of_a_control_and_the_layers_that_lora_adapts(tiny_model: Path) -> None:
    total = sum(p.numel() for p in load_model(tiny_model)[0].parameters())
    assert untrained(tiny_model, ["good", "bad"], PROMPT).control_share == 5 * 32 / total
    one_matrix = ControlSettings("lora", 1, targets=("v_proj",), layers=(1,))
    assert untrained(tiny_model, ["good", "bad"], one_matrix).control_share == 2 * 32 / total


# --- saving and loading ---------------------------------------------------------------------------


def test_a_saved_model_gives_the_same_and_peft_can_read_its_controls(
    meet: Meet, tiny_model: Path, pairs: list[Preference], tmp_path: Path
) -> None:
    meet.save_pretrained(tmp_path)
    loaded = Meet.from_pretrained(tmp_path)
    prompts, rejected = [p.prompt for p in pairs], [p.rejected for p in pairs]
    assert loaded.controls == meet.controls and loaded.losses == meet.losses
    for control in ("good", "bad", None):
        values = [m.logprob(prompts, rejected, control) for m in (meet, loaded)]
        assert torch.equal(*values)

    model, tokenizer = load_model(tmp_path / "model")
    by_peft = PeftModel.from_pretrained(model, tmp_path / "controls" / "bad")
    ids = encode(tokenizer, prompts[0])
    with torch.no_grad(), conditioned_on(meet.model, "bad") as (model, virtual_ids):
        ours = model(torch.tensor([virtual_ids + ids])).logits[0, -1]
        pefts = by_peft(input_ids=torch.tensor([ids])).logits[0, -1]
    assert torch.allclose(pefts, ours, atol=1e-5)


def test_one_of_two_controls_can_be_saved_for_others(meet: Meet, tmp_path: Path) -> None:
    meet = replace(meet, losses={"controls": [1.0, 5.0, 2.0]})
    meet.save_pretrained(tmp_path)
    meet.save_pretrained(tmp_path, ["good"])
    assert not (tmp_path / "controls" / "bad").exists()
    assert Meet.from_pretrained(tmp_path).losses_by_control() == {"good": [1.0, 2.0]}
    with pytest.raises(ValueError, match="no control 'fine'; there are good, bad"):
        meet.save_pretrained(tmp_path, ["fine"])


def test_the_losses_of_a_control_are_those_of_its_turns(meet: Meet) -> None:
    meet = replace(meet, losses={"controls": [1.0, 5.0, 2.0, 6.0, 3.0]})
    assert meet.losses_by_control() == {"good": [1.0, 2.0, 3.0], "bad": [5.0, 6.0]}


def test_what_is_saved_names_no_path_of_this_machine(
    meet: Meet, tiny_model: Path, tmp_path: Path
) -> None:
    meet.save_pretrained(tmp_path)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".json", ".safetensors"}
    for file in files:
        assert str(tiny_model.parent).encode() not in file.read_bytes()


def test_loading_leaves_the_random_state_as_it_was(meet: Meet, tmp_path: Path) -> None:
    meet.save_pretrained(tmp_path)
    before = torch.get_rng_state()
    Meet.from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_control_of_another_model_or_tokenizer_is_refused(
    meet: Meet, tiny_model: Path, tmp_path: Path
) -> None:
    meet.save_pretrained(tmp_path)
    message = "control 'good' in .* was made for another model or tokenizer"
    with pytest.raises(ValueError, match=message):
        Meet.from_pretrained(tmp_path, tiny_model)
    tokenizer = tmp_path / "model" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"lamp"', '"lump"'))
    with pytest.raises(ValueError, match=message):
        Meet.from_pretrained(tmp_path)


@pytest.fixture(scope="module")
def frozen(tiny_model: Path, texts: Texts) -> Meet:
    """Step 1 alone, with LoRA: the language model is as it was."""
    return train(tiny_model, texts, LORA, first=replace(FEW, learning_rate=1e-2), then=NONE)


def test_controls_of_a_frozen_model_are_saved_without_it(
    frozen: Meet, tiny_model: Path, pairs: list[Preference], tmp_path: Path
) -> None:
    """Plain PEFT reads them, and the model that they belong to is known by its fingerprint."""
    frozen.save_pretrained(tmp_path)
    assert not (tmp_path / "model").exists()
    prompts, texts = [p.prompt for p in pairs], [p.rejected for p in pairs]
    loaded = Meet.from_pretrained(tmp_path)
    assert torch.equal(*(m.logprob(prompts, texts, "bad") for m in (frozen, loaded)))

    base, tokenizer = load_model(tiny_model)
    plain = PeftModel.from_pretrained(base, tmp_path / "controls" / "bad").eval()
    by_peft, ours = -completion_nll(plain, tokenizer, prompts, texts), loaded.logprob
    assert torch.allclose(by_peft, ours(prompts, texts, "bad"), atol=1e-5)
    assert not torch.allclose(by_peft, ours(prompts, texts, None), atol=1e-3)

    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    weights = load_file(other / "model.safetensors")
    save_file({name: w + 1e-3 for name, w in weights.items()}, other / "model.safetensors")
    with pytest.raises(ValueError, match="control 'good' in .* was made for another model"):
        Meet.from_pretrained(tmp_path, other)


MIXES = ("bad", Mix(good=0.25, bad=0.75), Mix(good=1.5, bad=-0.5), ("good", "bad"))


@pytest.mark.parametrize("control", MIXES, ids=str)
def test_a_mix_is_saved_as_one_adapter_and_as_one_plain_model(
    control: object, frozen: Meet, tiny_model: Path, pairs: list[Preference], tmp_path: Path
) -> None:
    prompts, texts = [p.prompt for p in pairs], [p.rejected for p in pairs]
    wanted = frozen.logprob(prompts, texts, control)
    frozen.save_mix(tmp_path / "mix", control)
    frozen.save_merged(tmp_path / "merged", control)
    assert frozen.controls == ["good", "bad"] and not (tmp_path / "mix" / "README.md").exists()
    by_peft = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "mix").eval()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    for model in (by_peft, plain):
        found = -completion_nll(model, frozen.tokenizer, prompts, texts)
        assert torch.allclose(found, wanted, atol=1e-4)
    assert not torch.allclose(wanted, frozen.logprob(prompts, texts, None), atol=1e-3)


def test_what_cannot_be_saved_as_an_adapter_says_what_to_do(
    meet: Meet, frozen: Meet, tiny_model: Path, tmp_path: Path
) -> None:
    soft = Meet.untrained(tiny_model, ["good", "bad"], PROMPT)
    for save in (soft.save_mix, soft.save_merged):
        with pytest.raises(ValueError, match="train LoRA controls, or use them by Meet.generate"):
            save(tmp_path, "good")
    with pytest.raises(ValueError, match="no control to save"):
        frozen.save_mix(tmp_path, None)
    with pytest.raises(ValueError, match="use save_merged"):
        meet.save_mix(tmp_path, "good")


@pytest.mark.parametrize("settings", [PROMPT, LORA], ids=["prompt", "lora"])
def test_a_training_that_was_stopped_goes_on(
    settings: ControlSettings, tiny_model: Path, texts: Texts, tmp_path: Path
) -> None:
    """With several controls in its checkpoints, and ends as one that was not stopped."""
    options = {"first": replace(FEW, steps=8), "then": NONE}
    whole = train(tiny_model, texts, settings, **options)
    step, done = torch.optim.AdamW.step, []

    def stopped(*args: object, **more: object) -> object:
        done.append(1)
        if len(done) == 6:
            raise KeyboardInterrupt
        return step(*args, **more)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch.optim.AdamW, "step", stopped)
        train(tiny_model, texts, settings, checkpoints=tmp_path, **options)
    again = train(tiny_model, texts, settings, checkpoints=tmp_path, **options)
    assert again.losses["controls"] == whole.losses["controls"]
    for (one, is_control), (other, _) in zip(
        parameters_of(whole.model), parameters_of(again.model)
    ):
        assert not is_control or torch.equal(one, other)


def test_prompts_may_be_in_the_chat_template(
    tiny_model: Path, texts: Texts, tmp_path: Path
) -> None:
    """A row ends as the model's turn does, and a saved model reads its prompts in the same form."""
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    tokenizer = load_tokenizer(base)
    with pytest.raises(ModelError, match="the tokenizer has no chat template"):
        Meet.train(base, texts, control=LORA, first=FEW, form=IN_CHAT)
    tokenizer.chat_template = "{% for m in messages %}board : {{ m.content }} <unk>{% endfor %}"
    tokenizer.save_pretrained(base)
    meet = Meet.train(base, texts, control=LORA, first=FEW, form=IN_CHAT, progress=False)
    row = texts["good"][0]
    ids = meet.tokens(row)["input_ids"]
    start = tokenizer("board :", add_special_tokens=False)["input_ids"]
    assert ids[: len(start)] == start
    meet.save_pretrained(tmp_path / "saved")
    loaded = Meet.from_pretrained(tmp_path / "saved")
    assert loaded.form == IN_CHAT and loaded.tokens(row) == meet.tokens(row)
    prompts = [row.prompt for row in texts["good"][:4]]
    assert loaded.generate(prompts, "good") == meet.generate(prompts, "good")


# --- rows -----------------------------------------------------------------------------------------


def write(file: Path, *rows: dict) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_styles_are_read_from_pairs_from_marks_and_from_a_file_each(tmp_path: Path) -> None:
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    same = {"prompt": "q", "chosen": "a", "rejected": "a "}
    texts, about = read_styles(write(tmp_path / "pairs.jsonl", pair, same))
    assert texts == {"good": [Instruction("q", "a")], "bad": [Instruction("q", "b")]}
    assert "1 dropped: chosen and rejected are the same text" in about[0]

    thumbs = [{"prompt": "q", "completion": c, "label": c == "a"} for c in "abc"]
    texts, _ = read_styles(write(tmp_path / "thumbs.jsonl", *thumbs))
    assert [row.completion for row in texts["bad"]] == ["b", "c"] and len(texts["good"]) == 1

    rated = [{"prompt": "q", "completion": str(n), "rating": n} for n in range(1, 8)]
    texts, about = read_styles(write(tmp_path / "rated.jsonl", *rated))
    assert [row.completion for row in texts["good"]] == ["5", "6", "7"]
    assert [row.completion for row in texts["bad"]] == ["1", "2", "3"]
    assert "6 used, 1 dropped: a rating in the middle third" in about[0]
    with pytest.raises(DataError, match="all texts have the same mark"):
        read_styles(write(tmp_path / "same.jsonl", *rated[:1]))

    files = {
        name: write(tmp_path / name, {"prompt": "q", "completion": name}) for name in ("x", "y")
    }
    texts, about = read_styles(files)
    assert texts == {name: [Instruction("q", name)] for name in files} and len(about) == 2


def test_empty_completions_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": text} for text in ("a", "", "  ")]
    texts, about = read_styles({"x": write(tmp_path / "x", *rows), "y": tmp_path / "x"})
    assert len(texts["x"]) == 1 and "2 dropped" in about[0]


# --- limits and errors ----------------------------------------------------------------------------


def test_bad_arguments_say_what_to_do(meet: Meet, pairs: list[Preference]) -> None:
    prompts = [pair.prompt for pair in pairs]
    for control in ("ugly", ("good", "ugly"), Mix(ugly=1.0)):
        with pytest.raises(ValueError, match="no control 'ugly'; there are good, bad"):
            meet.generate(prompts, control)
    with pytest.raises(ValueError, match="2 controls for 12 prompts"):
        meet.generate(prompts, ["good", "bad"])
    for wrong in (dict(kind="prefix"), dict(start="zero"), dict(size=0)):
        with pytest.raises(ValueError, match="kinds are prompt, lora"):
            ControlSettings(**wrong)


@pytest.mark.parametrize("name", ["v1.0", "a/b", "default", "lora", "1", "mlp", "keys"])
def test_a_name_that_peft_or_a_folder_cannot_have_is_refused(name: str, tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="no control can be named"):
        untrained(tiny_model, ["good", name], LORA)


def test_texts_that_do_not_fit_the_context_are_dropped_and_counted(
    tiny_model: Path, texts: Texts
) -> None:
    too_long, empty = Instruction("lamp " * 600, "mill"), Instruction("lamp", " ")
    with pytest.raises(ValueError, match="no texts for control 'bad'"):
        train(tiny_model, {**texts, "bad": []}, PROMPT)
    with pytest.raises(ValueError, match="no row of control 'good' fits the 507 tokens"):
        train(tiny_model, {"good": [too_long]}, PROMPT)
    rows = {"good": [*texts["good"], too_long, empty, empty]}
    some = train(tiny_model, rows, PROMPT, then=NONE)
    assert sorted(some.dropped.values()) == [1, 2]


def test_a_prompt_that_does_not_fit_is_refused(meet: Meet) -> None:
    with pytest.raises(ValueError, match="the context is 512"):
        meet.generate(["lamp " * 600], "good")
    with pytest.raises(ValueError, match="the context is 512"):
        meet.logprob(["lamp"], ["lamp " * 600], "good")

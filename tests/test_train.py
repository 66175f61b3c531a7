"""Loading, generating, the loss mask, training and the cache."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.utils import logging as hf_logging
from trl import DPOTrainer

import alignlib
from alignlib import Aligner, SFTSettings, generation, models, trainers
from alignlib.artefacts import CODE, artefact, code_digest, key
from alignlib.data import QAC, Preference
from alignlib.generation import generate
from alignlib.likelihood import completion_nll
from alignlib.model_names import fingerprint
from alignlib.models import ModelError, add_lora, load_model
from alignlib.profiles import TINY
from alignlib.prompts import T1, T2
from alignlib.reward_models import rewards
from alignlib.tinytown import sets
from alignlib.tokens import IGNORED, encode, example, fitting
from alignlib.train import Diverged, dpo, reward_model, sft

from .conftest import REAL, needs_real

FEW = SFTSettings(steps=3, batch_size=4)


# --- loading --------------------------------------------------------------------------------------


def broken(folder: Path, source: Path, damage: str) -> Path:
    target = folder / damage
    shutil.copytree(source, target)
    if damage == "truncated":
        weights = target / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "no tokenizer":
        for file in target.glob("*token*"):
            file.unlink()
    return target


@pytest.mark.parametrize(
    ("damage", "part"),
    [("truncated", "weights"), ("no tokenizer", "save_pretrained")],
)
def test_damaged_model_folders_are_refused_with_the_fix(
    tmp_path: Path, tiny_model: Path, damage: str, part: str
) -> None:
    with pytest.raises(ModelError, match=part) as refused:
        load_model(broken(tmp_path, tiny_model, damage))
    assert damage in str(refused.value)


def test_a_hub_model_that_cannot_be_reached_says_so() -> None:
    with pytest.raises(ModelError, match="that the hub can be reached"):
        load_model("nobody/no-such-model")


@pytest.mark.parametrize("name", ["/no/such", "./nope", "~/nope", "no/such/folder"])
def test_a_folder_that_is_not_there_has_a_fingerprint_and_is_refused_on_loading(name: str) -> None:
    assert fingerprint(name) == name
    with pytest.raises(ModelError, match="no such folder"):
        load_model(name)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="no config.json"):
        load_model(tmp_path)


# --- the loss mask --------------------------------------------------------------------------------


def test_the_mask_is_exactly_the_correction_and_its_eos(tiny_model: Path) -> None:
    _, tokenizer = load_model(tiny_model)
    row = example(
        tokenizer, "where is the lamp ? answer : look . correction :", "the lamp is in the mill ."
    )
    seen = [
        (tokenizer.convert_ids_to_tokens(i), label != IGNORED)
        for i, label in zip(row["input_ids"], row["labels"])
    ]
    assert [t for t, on in seen if on] == "the lamp is in the mill . <eos>".split()
    assert [
        t for t, on in seen if not on
    ] == "<bos> where is the lamp ? answer : look . correction :".split()
    assert all(label in (IGNORED, i) for i, label in zip(row["input_ids"], row["labels"]))


def test_trl_sees_the_mask_we_made(tiny_model: Path) -> None:
    """The first loss is the model's mean NLL over correction tokens and EOS, and over nothing
    else.
    """
    model, tokenizer = load_model(tiny_model)
    rows = sets.corrections(8)
    prompts, wanted = [r.question for r in rows], [r.correction for r in rows]
    nll = completion_nll(model, tokenizer, prompts, wanted)
    tokens = torch.tensor([len(w.split()) + 1.0 for w in wanted])
    losses = sft(
        model,
        tokenizer,
        [example(tokenizer, p, c) for p, c in zip(prompts, wanted)],
        SFTSettings(steps=1, batch_size=8),
    )
    assert losses[0] == pytest.approx(float((nll * tokens).sum() / tokens.sum()), abs=2e-3)


def test_long_rows_are_dropped_whole_and_counted(tiny_model: Path) -> None:
    rows = sets.corrections(12)
    long = QAC("word " * 600, "a", "b")
    aligner = Aligner.train(tiny_model, [*rows, long], settings=FEW, progress=False)
    assert aligner.dropped == {"correction row of more than 512 tokens": 1}
    kept, dropped = fitting(
        [{"input_ids": [1] * 5, "labels": [1] * 5}, {"input_ids": [1] * 9, "labels": [1] * 9}], 8
    )
    assert (len(kept), dropped) == (1, 1)


# --- training -------------------------------------------------------------------------------------


def test_the_same_seed_trains_the_same_model_and_another_does_not(tiny_model: Path) -> None:
    rows = sets.corrections(12)
    a, b = (Aligner.train(tiny_model, rows, settings=FEW, progress=False) for _ in range(2))
    other = Aligner.train(
        tiny_model, rows, settings=SFTSettings(steps=3, batch_size=4, seed=1), progress=False
    )
    assert all(torch.equal(x, y) for x, y in zip(a.model.parameters(), b.model.parameters()))
    assert not all(
        torch.equal(x, y) for x, y in zip(a.model.parameters(), other.model.parameters())
    )


def test_a_penalty_enters_the_loss_once_a_step_whatever_the_micro_batches(tiny_model: Path) -> None:
    rows = sets.corrections(12)
    plain = Aligner.train(tiny_model, rows, settings=FEW, progress=False).losses["correction"]
    for settings in (FEW, SFTSettings(steps=3, batch_size=2, accumulate=2)):
        held = Aligner.train(
            tiny_model, rows, settings=settings, penalty=lambda m: torch.tensor(5.0), progress=False
        )
        assert held.losses["correction"][0] == pytest.approx(plain[0] + 5, abs=0.5)


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_a_penalty_is_differentiated(tiny_model: Path, method: str) -> None:
    """Pulled towards zero far harder than the rows pull, a weight shrinks; without the penalty
    it does not.
    """
    sizes = []
    for strength in (0.0, 1e4):
        model, tokenizer = load_model(tiny_model)
        weight = model.model.norm.weight

        # noqa: B023, E731 - used within the round
        def penalty(_):
            return strength * weight.square().sum()

        settings = SFTSettings(steps=3, batch_size=4, learning_rate=0.1, warmup_steps=0)
        if method == "sft":
            sft(
                model,
                tokenizer,
                [example(tokenizer, r.question, r.correction) for r in sets.corrections(12)],
                settings,
                penalty=penalty,
            )
        else:
            dpo(model, tokenizer, sets.preferences(12, axis="tone"), settings, penalty=penalty)
        sizes.append(weight.norm().item())
    assert sizes[1] < 0.9 * sizes[0]


def state_of(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_how_a_step_is_cut_into_micro_batches_changes_nothing(
    tiny_model: Path, method: str
) -> None:
    """Rows of unlike length: each token (or pair) weighs the same in either."""
    runs = []
    for size, pieces in ((8, 1), (2, 4)):
        model, tokenizer = load_model(tiny_model)
        settings = SFTSettings(steps=1, batch_size=size, accumulate=pieces, warmup_steps=0)
        if method == "sft":
            rows = [example(tokenizer, r.question, r.correction) for r in sets.corrections(8)]
            losses = sft(model, tokenizer, rows, settings)
        else:
            losses = dpo(model, tokenizer, sets.preferences(8), settings)
        runs.append((losses[0], state_of(model)))
    (loss, weights), (same_loss, same_weights) = runs
    assert same_loss == pytest.approx(loss, rel=1e-4)
    assert torch.allclose(same_weights, weights, atol=2e-4)
    assert not torch.equal(weights, state_of(load_model(tiny_model)[0]))


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_whatever_ends_a_training_the_model_and_the_process_are_as_they_were(
    tiny_model: Path, method: str
) -> None:
    """Evaluation mode, no patched forward, random state and verbosity."""

    def stop(model: torch.nn.Module) -> torch.Tensor:
        raise KeyboardInterrupt

    def around() -> tuple:
        drawn = random.random(), float(np.random.rand()), float(torch.rand(()))
        return *drawn, hf_logging.get_verbosity()

    model, tokenizer = load_model(tiny_model)
    hf_logging.set_verbosity_warning()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = around()
    for penalty in (stop, None):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        try:
            if method == "sft":
                rows = [example(tokenizer, r.question, r.correction) for r in sets.corrections(8)]
                sft(model, tokenizer, rows, FEW, penalty=penalty)
            else:
                dpo(model, tokenizer, sets.preferences(8), FEW, penalty=penalty)
        except KeyboardInterrupt:
            assert penalty is stop
        assert around() == before
        assert not model.training and "forward" not in vars(model)


def test_a_last_step_that_ruins_the_weights_is_never_kept(tiny_model: Path) -> None:
    """Its loss is measured before the weights are ruined, so the loss does not show it."""
    wild = SFTSettings(steps=1, learning_rate=math.inf, warmup_steps=0, schedule="constant")
    for _ in range(2):  # from the cache it would not raise
        with pytest.raises(Diverged, match="not finite; lower the learning rate"):
            Aligner.cached(tiny_model, sets.corrections(8), settings=wild)


def test_a_training_of_no_steps_changes_nothing(tiny_model: Path) -> None:
    model, tokenizer = load_model(tiny_model)
    before = state_of(model)
    rows = [example(tokenizer, r.question, r.correction) for r in sets.corrections(8)]
    assert sft(model, tokenizer, rows, SFTSettings(steps=0)) == []
    assert torch.equal(state_of(model), before)


def test_lora_trains_its_matrices_alone_and_can_be_merged(tmp_path: Path, tiny_model: Path) -> None:
    rows = sets.corrections(12)
    aligner, twin = (
        Aligner.train(tiny_model, rows, settings=FEW, lora_rank=4, progress=False) for _ in range(2)
    )
    assert all(
        torch.equal(x, y)
        for x, y in zip(aligner.model.parameters(), twin.model.parameters(), strict=True)
    )
    before, after = load_model(tiny_model)[0].state_dict(), aligner.merge().model.state_dict()
    assert before.keys() == after.keys()
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    assert moved and all("_proj" in n for n in moved)
    aligner.save_pretrained(tmp_path)
    questions, answers = [r.question for r in rows], [r.answer for r in rows]
    assert Aligner.from_pretrained(tmp_path).correct(questions, answers) == aligner.correct(
        questions, answers
    )


@pytest.mark.parametrize(("processor", "halves"), [("AVX2", False), ("AVX512", True)])
def test_pretraining_computes_in_bf16_unless_emulated(
    processor: str, halves: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignlib.tinytown import pretrain

    seen: list[bool] = []
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: processor)
    small = pretrain.Recipe(
        hidden=16, layers=1, heads=2, feed_forward=16, context=32, batch=1, steps=1
    )

    def watched(recipe: pretrain.Recipe, tokenizer: object) -> object:
        model = pretrain.build_model(recipe, tokenizer)
        model.register_forward_pre_hook(
            lambda *_: (
                seen.append(torch.is_autocast_enabled("cpu")) if torch.is_grad_enabled() else None
            )
        )
        return model

    pretrain.pretrain_base(tmp_path, small, watched)
    assert seen == [halves] and json.loads((tmp_path / "pretraining.json").read_text())[
        "precision"
    ] == ("bf16" if halves else "fp32")


def test_pretraining_does_not_go_on_from_another_recipe(tmp_path: Path) -> None:
    from alignlib.tinytown.pretrain import Recipe, pretrain_base

    small = dict(hidden=32, layers=1, heads=2, feed_forward=64, batch=2, context=64, warmup_steps=1)
    place = pretrain_base(tmp_path, Recipe(**small, steps=3))
    assert (
        load_model(place)
        and json.loads((tmp_path / "pretraining.json").read_text())["recipe"]["steps"] == 3
    )
    with pytest.raises(ValueError, match="another recipe"):
        pretrain_base(tmp_path, Recipe(**small, steps=4))


def test_dpo_starts_at_its_reference_and_then_prefers_the_chosen(tiny_model: Path) -> None:
    model, tokenizer = load_model(tiny_model)
    pairs = [Preference(p.prompt, p.chosen, p.rejected) for p in sets.preferences(32, axis="tone")]
    sft(
        model, tokenizer, [example(tokenizer, p.prompt, p.rejected) for p in pairs], FEW
    )  # move away from the folder's weights
    losses = dpo(
        model,
        tokenizer,
        pairs,
        SFTSettings(steps=30, batch_size=8, learning_rate=1e-3, warmup_steps=1),
    )
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)  # log 2: policy equals reference
    assert sum(losses[-5:]) / 5 < 0.6


# --- generation -----------------------------------------------------------------------------------


def test_dpo_goes_on_with_an_adapter_whose_start_is_its_reference(tiny_model: Path) -> None:
    """TRL leaves its copy of an adapter behind, and would refuse it the second time."""
    model, tokenizer = load_model(tiny_model)
    model = add_lora(model, 4)
    settings = SFTSettings(steps=4, batch_size=4, learning_rate=1e-2, warmup_steps=0)
    for _ in range(2):
        losses = dpo(model, tokenizer, sets.preferences(16, axis="tone"), settings)
        assert losses[0] == pytest.approx(math.log(2), abs=1e-5) and losses[-1] < 0.68
        assert list(model.peft_config) == ["default"]
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert trained and all(".lora_" in name and ".default." in name for name in trained)


def test_our_loss_of_dpo_is_trls(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's is used on CUDA. The rows differ in length, and come in micro-batches."""
    losses = {}
    for name in ("ours", "trl's"):
        if name == "trl's":
            monkeypatch.setattr(trainers._DPO, "compute_loss", DPOTrainer.compute_loss)
        model, tokenizer = load_model(tiny_model)
        settings = SFTSettings(steps=6, batch_size=8, tokens=300, learning_rate=1e-2)
        losses[name] = dpo(model, tokenizer, sets.preferences(20, axis="tone"), settings)
    assert losses["ours"] == pytest.approx(losses["trl's"], abs=1e-4)
    assert losses["ours"][-1] < 0.6


@pytest.mark.parametrize("pads_with_eos", [False, True])
def test_a_reward_model_reads_eos_whatever_it_pads_with(
    pads_with_eos: bool, tiny_model: Path
) -> None:
    """In training and afterwards, alone and beside a longer text."""
    _, tokenizer = load_model(tiny_model)
    if pads_with_eos:
        tokenizer.pad_token = tokenizer.eos_token
    model = reward_model(tiny_model, tokenizer, sets.preferences(8), FEW)
    texts = ["the lamp", "the lamp is in the attic . the kite is in the cellar ."]
    ids = example(tokenizer, "q", texts[0])["input_ids"]
    assert ids[-1] == tokenizer.eos_token_id
    with torch.no_grad():
        states = model.model(torch.tensor([ids])).last_hidden_state
        wanted = model.score(states)[0, -1, 0]
    assert rewards(model, tokenizer, ["q"] * 2, texts)[0] == pytest.approx(float(wanted), abs=1e-5)


def test_a_reward_model_learns_what_is_preferred_and_scores_alike_in_any_batch(
    tiny_model: Path,
) -> None:
    pairs = sets.preferences(150, axis="tone")
    held = sets.preferences(40, "test", axis="tone")
    settings = SFTSettings(steps=40, batch_size=8, learning_rate=3e-3, warmup_steps=1)
    _, tokenizer = load_model(tiny_model)
    judge = reward_model(tiny_model, tokenizer, pairs, settings)
    prompts = [p.prompt for p in held]
    chosen, rejected = (
        rewards(judge, tokenizer, prompts, side)
        for side in ([p.chosen for p in held], [p.rejected for p in held])
    )
    assert (chosen > rejected).float().mean() > 0.9
    alone = torch.cat([rewards(judge, tokenizer, [p.prompt], [p.chosen]) for p in held[:5]])
    assert torch.allclose(alone, chosen[:5], atol=1e-4)
    again = rewards(
        reward_model(tiny_model, tokenizer, pairs, settings),
        tokenizer,
        prompts,
        [p.chosen for p in held],
    )
    assert torch.equal(again, chosen)


def test_batched_generation_equals_one_by_one_and_the_librarys_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, tokenizer = load_model(TINY.base)
    prompts = [f"{r.question} answer :" for r in sets.corrections(48)]
    limits = [20 + i % 21 for i in range(48)]
    together = generate(model, tokenizer, prompts, max_new_tokens=limits, batch_size=16)
    assert together == [
        generate(model, tokenizer, [p], max_new_tokens=n)[0] for p, n in zip(prompts, limits)
    ]
    for prompt, limit, said in zip(prompts, limits, together):  # one call, no rounds
        ids = torch.tensor([encode(tokenizer, prompt)])
        whole = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=limit,
            do_sample=False,
        )
        assert tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True) == said
    assert len(set(together)) > 40
    monkeypatch.setattr(
        generation, "_cache_of", lambda *_: None
    )  # as for a model whose cache cannot be cut
    assert generate(model, tokenizer, prompts, max_new_tokens=limits, batch_size=16) == together


@pytest.mark.parametrize("kind", ["lora", "soft prompt", "hybrid"])
def test_rounds_change_nothing_for_other_models_either(tiny_model: Path, kind: str) -> None:
    """Virtual tokens and convolution states cannot be cut out of a cache: there all is read
    again, and the text is the same.
    """
    from peft import PromptTuningConfig, get_peft_model
    from transformers import Lfm2Config, Lfm2ForCausalLM

    model, tokenizer = load_model(tiny_model)
    torch.manual_seed(0)
    if kind == "hybrid":
        small = dict(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_attention_heads=2,
            num_key_value_heads=2,
        )
        model = Lfm2ForCausalLM(
            Lfm2Config(**small, num_hidden_layers=2, layer_types=["conv", "full_attention"])
        ).eval()
    elif kind == "lora":
        model = models.add_lora(model, 4).eval()
    else:
        model = get_peft_model(
            model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
        ).eval()
    prompts = [f"{r.question} answer :" for r in sets.corrections(6)]
    said = generate(model, tokenizer, prompts, max_new_tokens=20)
    for prompt, text in zip(prompts, said):
        ids = torch.tensor([encode(tokenizer, prompt)])
        stops = generation.stop_tokens(model, tokenizer)
        plain = generation._generation_config(tokenizer, stops, 20, 0.0)
        whole = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=plain
        ).sequences
        new = whole[0] if whole.shape[1] <= 20 else whole[0, ids.shape[1] :]
        assert tokenizer.decode(new, skip_special_tokens=True).strip() == text


def test_sampling_follows_its_seed_and_leaves_the_callers_generator_alone(tiny_model: Path) -> None:
    model, tokenizer = load_model(tiny_model)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    limits = [8, 20, 24, 13]  # more than one round
    a, b, other = (
        generate(model, tokenizer, ["where is"] * 4, max_new_tokens=limits, temperature=1.0, seed=s)
        for s in (1, 1, 2)
    )
    assert a == b != other and torch.equal(torch.get_rng_state(), state)


def test_an_aligner_survives_saving_and_an_overlong_answer_comes_back(
    tmp_path: Path, tiny_model: Path
) -> None:
    rows = sets.corrections(12)
    aligner = Aligner.train(tiny_model, rows, settings=FEW, template=T2, progress=False)
    aligner.save_pretrained(tmp_path)
    again = Aligner.from_pretrained(tmp_path)
    questions, answers = [r.question for r in rows], [*(r.answer for r in rows[:-1]), "word " * 600]
    again.dropped.clear()
    assert again.template is T2 and again.losses == aligner.losses
    assert again.correct(questions, answers) == aligner.correct(questions, answers)
    together = again.correct(questions, answers)
    assert (
        together[-1] == answers[-1]
        and again.dropped["answer returned as it was: too long for the context"] == 2
    )
    assert together == [again.correct([q], [a])[0] for q, a in zip(questions, answers, strict=True)]


# --- the cache ------------------------------------------------------------------------------------


def test_a_key_follows_the_code_that_trains_and_not_the_code_that_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor whether its lines end as on Windows."""
    package = shutil.copytree(Path(alignlib.__file__).parent, tmp_path / "alignlib")
    monkeypatch.setattr("alignlib.artefacts.__file__", str(package / "artefacts.py"))

    def key_after(module: str, change: Callable[[bytes], bytes]) -> str:
        file = package / f"{module}.py"
        file.write_bytes(change(file.read_bytes()))
        code_digest.cache_clear()
        return key("a", [], ("meet",))

    before = key_after("train", lambda source: source)
    assert key_after("train", lambda source: source.replace(b"\n", b"\r\n")) == before
    for module in ("plots", "profiles", "records", "hbat"):
        assert key_after(module, lambda source: source + b"# more\n") == before, module
    for module in (*CODE, "meet"):
        after = key_after(module, lambda source: source + b"# more\n")
        assert after != before, module
        before = after
    code_digest.cache_clear()


def test_a_key_depends_on_every_input() -> None:
    base = [sets.corrections(2), FEW, "T1"]
    keys = {
        key("a", base),
        key("b", base),
        key("a", [sets.corrections(3), FEW, "T1"]),
        key("a", [base[0], SFTSettings(steps=4), "T1"]),
    }
    assert len(keys) == 4 and key("a", base) == key("a", list(base))
    with pytest.raises(TypeError, match="Path"):
        key("a", [Path(".")])


def test_a_key_depends_on_the_kind_of_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models made on a T4 and on an A100 differ, and may share a folder."""
    kinds = ("cpu", "cuda Tesla T4", "cuda NVIDIA A100")
    keys = set()
    for kind in kinds:
        monkeypatch.setattr("alignlib.devices.device_kind", lambda kind=kind: kind)
        keys.add(key("a", []))
    assert len(keys) == len(kinds)


def test_an_artefact_is_built_once_and_never_kept_half(own_cache: Path) -> None:
    calls = []

    def build(folder: Path) -> None:
        (folder / "one").write_text("1")
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("cut short")
        (folder / "two").write_text("2")

    with pytest.raises(RuntimeError):
        artefact("test", "half", build)
    assert not any((own_cache / "test").iterdir())
    for _ in range(2):
        assert (artefact("test", "half", build) / "two").read_text() == "2"
    assert len(calls) == 2
    old, new = (own_cache / "test" / f".part-{age}" for age in ("old", "new"))
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (0, 0))
    artefact("test", "another", build)
    assert not old.exists() and new.exists(), (
        "what a killed run left is swept up, what another run is at is not"
    )


def test_a_run_killed_in_training_leaves_nothing_and_the_next_gives_what_an_unkilled_one_gives(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import sys; from alignlib import Aligner, SFTSettings; from alignlib.tinytown import "
        "sets\n"
        f"a = Aligner.cached({str(tiny_model)!r}, sets.corrections(64), "
        "settings=SFTSettings(steps=250, batch_size=8))\n"
        "from alignlib.generation import generate; print(a.correct([r.question for r in "
        "sets.corrections(4)], ['yes .'] * 4))\n"
    )
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    with (tmp_path / "bar").open("w+") as bar:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"ALIGNLIB_CACHE": str(killed)},
            stdout=subprocess.PIPE,
            stderr=bar,
        )
        while process.poll() is None and not re.search(
            r"correction steps: +[1-9]", (tmp_path / "bar").read_text()
        ):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it had ended before it was killed"
    assert list(killed.glob("aligner/.part-*")), "it was killed before training began"
    assert not [p for p in killed.glob("aligner/*") if not p.name.startswith(".part-")]
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"ALIGNLIB_CACHE": str(c)},
            capture_output=True,
            text=True,
            check=True,
        )
        for c in (killed, whole)
    ]
    assert runs[0].stdout == runs[1].stdout != ""


def test_a_fingerprint_follows_the_weights(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_model, tmp_path / "copy")
    assert fingerprint(tmp_path / "copy") == fingerprint(tiny_model)
    Aligner.train(tiny_model, sets.corrections(8), settings=FEW, progress=False).save_pretrained(
        tmp_path / "copy"
    )
    assert fingerprint(tmp_path / "copy") != fingerprint(tiny_model)
    monkeypatch.setattr(
        "alignlib.model_names.hf_hub_download", lambda *_: "hub/snapshots/a1b2/config.json"
    )
    assert fingerprint("some/hub-id") == "some/hub-id@a1b2"


def test_importing_alignlib_is_quick_and_loads_no_torch() -> None:
    code = (
        "import time; t = time.perf_counter(); import alignlib, sys; "
        "print(time.perf_counter() - t, 'torch' in sys.modules)"
    )
    seconds, torch_loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert float(seconds) < 1 and torch_loaded == "False"


# --- a real pretrained model
# ------------------------------------------------------------------------


@needs_real
@pytest.mark.parametrize("template", [T1, T2], ids=lambda t: t.name)
def test_the_traps_of_a_real_tokenizer(template) -> None:
    """Its pad is its unk, it has no byte fallback, and BPE could merge across the seam: none of
    it may bend the mask.
    """
    _, tokenizer = load_model(REAL / "tinystories-656k")
    assert tokenizer.pad_token == tokenizer.unk_token
    prompt = template.prompt("What is 2 + 2?", "Four, you fool.")
    row = example(tokenizer, prompt, "It is four.")
    learned = [i for i in row["labels"] if i != IGNORED]
    assert (
        learned[-1] == tokenizer.eos_token_id
        and tokenizer.decode(learned[:-1]).strip() == "It is four."
    )

"""What a training will take: memory by item, minutes, and which setting to change."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from alignlib import cost, memory, stages, train, trainers
from alignlib.aligner import Aligner
from alignlib.cost import Cost
from alignlib.data import QAC, read_qac
from alignlib.everyday import read_aims, rows_file, style_pairs
from alignlib.hbat import DPO, PPO, predict_hbat, train_hbat
from alignlib.likelihood import row_nll
from alignlib.meet import Meet
from alignlib.memory import Batch, OutOfMemory, Sizes, advice, count_sizes, memory_items
from alignlib.models import add_lora, load_model
from alignlib.settings import ControlSettings, PPOSettings, SFTSettings
from alignlib.styles import texts_by_control
from alignlib.tokens import IGNORED, example
from alignlib.train import dpo, sft

FEW = SFTSettings(steps=6, batch_size=4, learning_rate=1e-3, warmup_steps=1)
SIZES = Sizes(
    weights=1_000_000_000,
    trained=250_000_000,
    length=100,
    saved=200_000_000,
    cast=0,
    hidden=400_000,
    layers=20,
    vocabulary=50_000,
    cache=1_000_000,
)
BATCH = Batch(rows=8, length=100, labels=400)


@pytest.fixture(scope="module")
def rows() -> list[QAC]:
    return read_qac(rows_file("train")).rows[:40]


# --- memory ---------------------------------------------------------------------------------------


def test_memory_by_item_is_arithmetic_on_the_sizes() -> None:
    items = memory_items(SIZES, BATCH, FEW)
    assert items["weights"] == items["gradients"] == 1 and items["optimizer"] == 2
    assert items["activations"] == pytest.approx(1.75 * 8 * 0.2)
    assert items["logits"] == pytest.approx(1.75 * 3 * 4 * 400 * 50_000 / 1e9)
    assert items["anchor"] == items["reference"] == items["KV cache"] == 0
    held = memory_items(SIZES, BATCH, FEW, anchor=True, reference=True)
    assert held["anchor"] == held["reference"] == 1
    tiled = memory_items(replace(SIZES, on_gpu=True), BATCH, FEW)
    assert tiled["logits"] == pytest.approx(3 * 4 * 400 * 32_768 / 1e9)
    assert tiled["activations"] == pytest.approx(8 * 0.2)
    assert memory_items(SIZES, BATCH, replace(FEW, eight_bit=True))["optimizer"] == 0.5
    less = memory_items(SIZES, BATCH, replace(FEW, checkpointing=True))["activations"]
    assert less == pytest.approx(1.75 * 8 * (0.0004 * 20 + 0.2 / 20))


def test_a_stage_is_loaded_when_the_one_before_it_is_gone(
    stand_in: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, weights, alive = stages._start, [], []

    def note(*given):
        alive.append(sum(ref() is not None for ref in weights))
        model, tokenizer = start(*given)
        weights.extend(weakref.ref(parameter) for parameter in model.parameters())
        return model, tokenizer

    monkeypatch.setattr(stages, "_start", note)
    rows, few = read_aims("train"), replace(FEW, steps=1, warmup_steps=0)
    given = (stand_in["llama"], rows.instructions[:8], rows.pairs[:8], few, DPO(few, 0.1))
    gc.disable()
    try:
        train_hbat(*given, rounds=1, strength=1.0, folder=tmp_path, progress=False)
    finally:
        gc.enable()
    assert alive == [0, 0]


@pytest.mark.parametrize("tokens", [300, 0])
def test_the_reference_is_read_in_batches_of_the_trainings_size(
    tokens: int, stand_in: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def note(model, rows, pad):
        read.append(len(rows) * max(len(row["input_ids"]) for row in rows))
        return row_nll(model, rows, pad)

    monkeypatch.setattr(train, "row_nll", note)
    model, tokenizer = load_model(stand_in["llama"])
    pairs, settings = read_aims("train").pairs[:12], replace(FEW, batch_size=1, tokens=tokens)
    dpo(model, tokenizer, pairs, settings)
    longest = 2 * max(len(f"{p.prompt} {p.chosen}".encode()) + 2 for p in pairs)
    assert len(read) > 1 and max(read) <= (tokens or longest)


def test_the_largest_batch_has_the_most_tokens_and_the_most_labels_of_any() -> None:
    long = {"input_ids": [5] * 50, "labels": [IGNORED] * 49 + [5]}
    labelled = {"input_ids": [5] * 20, "labels": [5] * 20}
    steps = [[[0, 1]], [[2, 3]]]
    assert cost._largest([long, long, labelled, labelled], steps) == Batch(2, 50, 40)
    assert cost._largest_of([Batch(6, 100, 540), Batch(6, 101, 60)]) == Batch(6, 101, 540)


def test_weights_in_16_bits_are_counted_once(
    stand_in: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_bf16 = torch.autocast("cpu", torch.bfloat16)
    model, _ = load_model(stand_in["llama"])
    matrices = sum(p.numel() for p in model.parameters() if p.dim() == 2)
    matrices -= model.get_input_embeddings().weight.numel()  # looked up, not multiplied
    ids = list(range(3, 43))
    assert count_sizes(model.train(), ids).cast < 5000
    monkeypatch.setattr(memory, "autocast", lambda _: in_bf16)
    assert count_sizes(model, ids).cast == pytest.approx(2 * matrices, rel=0.05)


def test_samples_and_the_backward_pass_do_not_need_memory_at_the_same_time() -> None:
    many = memory_items(SIZES, BATCH, FEW, generated=(1000, 400))
    assert many["KV cache"] == pytest.approx(4) and many["activations"] == many["logits"] == 0
    few = memory_items(SIZES, BATCH, FEW, generated=(10, 100))
    assert few["KV cache"] == 0 and few["activations"] > 0


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "gpt2", "mamba"])
def test_sizes_are_counted_on_any_architecture(name: str, stand_in: dict[str, Path]) -> None:
    model, _ = load_model(stand_in[name])
    model.train()
    short, long = (count_sizes(model, list(range(3, 3 + n))) for n in (20, 60))
    assert short.weights == 4 * sum(t.numel() for t in (*model.parameters(), *model.buffers()))
    assert short.trained == model.num_parameters()
    assert 2.5 * short.saved < long.saved < 9 * short.saved  # attention may save squares
    assert short.cast < 0.2 * short.saved, "there is no 16-bit copy of the weights on a CPU"
    assert (short.cache > 0) == (name != "mamba")
    adapted = count_sizes(add_lora(model, 4), list(range(3, 23)))
    assert adapted.trained < 0.3 * short.trained and adapted.weights > short.weights


def test_what_autograd_keeps_of_a_linear_layer_is_counted_to_the_byte() -> None:
    """Of x W with a frozen W nothing but W itself; with a trained one x as well."""
    model, _ = load_model_of_one_layer()
    ids = [3, 4, 5, 6, 7]
    whole = count_sizes(model, ids).saved
    for parameter in model.model.layers[0].mlp.parameters():
        parameter.requires_grad_(False)
    # the input of both up-projections is one tensor, which they share with nobody else
    assert whole - count_sizes(model, ids).saved >= 4 * len(ids) * 8


def load_model_of_one_layer():
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    config = LlamaConfig(vocab_size=20, num_attention_heads=2, **shape)
    return LlamaForCausalLM(config).train(), None


@pytest.mark.parametrize(
    ("room", "wanted"),
    [
        (4.95, "set tokens=400"),
        (4.25, "set checkpointing=True"),
        (2.7, "set checkpointing=True and eight_bit=True"),
        (2.0, "train LoRA instead of all weights"),
        (0.5, "take a smaller model"),
    ],
)
def test_what_does_not_fit_is_told_the_setting_to_change(room: float, wanted: str) -> None:
    assert sum(memory_items(SIZES, BATCH, FEW).values()) > 5
    assert advice(replace(SIZES, on_gpu=True), BATCH, FEW, room).startswith(wanted)
    assert "eight_bit" not in advice(SIZES, BATCH, FEW, room), "that needs a GPU"


def test_a_single_row_or_pair_cannot_be_cut_into_fewer_tokens() -> None:
    for rows in (1, 2):
        few = replace(BATCH, rows=rows)
        need = sum(memory_items(SIZES, few, FEW).values())
        assert advice(SIZES, few, FEW, need - 0.05) == "set checkpointing=True"


def test_the_memory_that_there_is_may_be_set(
    rows: list[QAC], stand_in: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    aligner = Aligner.untrained(stand_in["llama"], lora_rank=4)
    plenty = aligner.predict(rows, FEW)
    assert plenty.fits and "you have" in str(plenty) and "does not fit" not in str(plenty)
    monkeypatch.setenv("ALIGNLIB_MEMORY_GB", "0.01")
    little = aligner.predict(rows, FEW)
    assert not little.fits and "0.0 GB; that does not fit: take a smaller model" in str(little)
    assert "libraries" in little.table()


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_out_of_memory_names_the_setting(
    method: str, stand_in: dict[str, Path], rows: list[QAC], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(trainers._Stepwise, "training_step", full)
    model, tokenizer = load_model(stand_in["llama"])
    settings = replace(FEW, tokens=600)
    message = "out of memory; set tokens=300, .* a smaller max_length, checkpointing=True"
    with pytest.raises(OutOfMemory, match=message):
        if method == "sft":
            sft(model, tokenizer, [example(tokenizer, "a", "b")], settings)
        else:
            dpo(model, tokenizer, style_pairs("train")[:8], settings)
    assert not model.training, "the model is as it was, so that it can be tried again"


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory.memory_explained(FEW):
        raise RuntimeError("shapes do not match")
    with pytest.raises(OutOfMemory), memory.memory_explained(FEW):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")


def test_8_bits_need_a_library(stand_in: dict[str, Path]) -> None:
    model, tokenizer = load_model(stand_in["llama"])
    with pytest.raises(ValueError, match="pip install bitsandbytes, or eight_bit=False"):
        rows = [example(tokenizer, "a", "b")]
        sft(model, tokenizer, rows, replace(FEW, eight_bit=True))


# --- time -----------------------------------------------------------------------------------------


def test_minutes_follow_from_the_tokens_of_all_steps(
    stand_in: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a speed of one token a second: instructions once, pairs on both sides, and the
    reference's reading of each pair once.
    """
    speed = cost.Speed(trained=1.0, read=0.5)
    monkeypatch.setattr(cost, "_try_speed", lambda *_: speed)
    monkeypatch.setattr(cost, "START", 0.0)
    aims = read_aims("train")
    given = (stand_in["llama"], aims.instructions[:8], aims.pairs[:8])
    teach, prefer = (replace(FEW, steps=s, batch_size=2) for s in (4, 4))
    found = predict_hbat(*given, teach, DPO(prefer), rounds=1, strength=0.0)
    model, tokenizer = load_model(stand_in["llama"])

    def tokens(prompt: str, *texts: str) -> int:
        return sum(len(example(tokenizer, prompt, text)["input_ids"]) for text in texts)

    taught = sum(tokens(row.prompt, row.completion) for row in aims.instructions[:8])
    pairs = sum(tokens(p.prompt, p.chosen, p.rejected) for p in aims.pairs[:8])
    least = taught + pairs + 0.5 * pairs  # without padding
    assert least <= 60 * found.minutes < 1.5 * least
    assert found.steps == 8


def test_a_prediction_of_ppo_counts_samples_reference_and_epochs(
    stand_in: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "_try_speed", lambda *_: cost.Speed(trained=1.0, read=0.5))
    monkeypatch.setattr(cost, "_try_sampling", lambda *_: 2.0)
    monkeypatch.setattr(cost, "START", 0.0)
    aims = read_aims("train")
    given = (stand_in["llama"], aims.instructions[:8], aims.pairs[:8])

    def minutes(**changed: int) -> float:
        sizes = {"iterations": 2, "batch_size": 4, "minibatch": 4, "max_new_tokens": 10} | changed
        by_ppo = PPO(PPOSettings(**sizes), lambda prompts, texts: [0.0] * len(texts), "none")
        return predict_hbat(*given, FEW, by_ppo, rounds=1, strength=1.0).minutes

    once = minutes()
    assert minutes(max_new_tokens=20) - once > 2 * 10 * 2.0 / 60  # at least the sampling
    epoch = minutes(epochs=3) - once
    assert epoch == pytest.approx(minutes(epochs=4) - minutes(epochs=3))
    twice = minutes(iterations=4) - once
    assert twice == pytest.approx(minutes(iterations=6) - minutes(iterations=4))


def test_a_prediction_for_meet_leaves_it_as_it_is(stand_in: dict[str, Path]) -> None:
    texts = texts_by_control(style_pairs("train")[:12])
    meet = Meet.untrained(stand_in["llama"], list(texts), ControlSettings("lora", 2))
    before = {name: p.clone() for name, p in meet.model.named_parameters()}
    found = meet.predict(texts, FEW)
    assert isinstance(found, Cost) and found.steps == 6 and not meet.dropped
    assert all(torch.equal(p, before[name]) for name, p in meet.model.named_parameters())
    assert not meet.model.training

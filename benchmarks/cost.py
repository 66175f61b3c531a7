"""Predicted against measured: minutes and peak memory of each method.

Each prediction and each training runs in a process of its own, so that neither adds to the other's
peak. `python benchmarks/cost.py [METHOD or MODEL ...]` needs SmolLM2 (`make real`). Stand-ins are
untrained Llamas of three sizes with a tokenizer of bytes. On a GPU the shapes of 0.5 B and 1.5 B
parameters come too, with a memory of GPU_GB; `--gpu-memory` predicts that of 0.5 B without one.
Prompts are in the plain form, because a tokenizer of bytes has no chat template.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1]))

from alignlib import Aligner, Meet
from alignlib.cost import Cost, Speed, machine, peak_gb
from alignlib.data import read_qac
from alignlib.devices import pick_device
from alignlib.everyday import read_aims, rows_file, style_pairs
from alignlib.hbat import DPO, PPO, predict_hbat, train_hbat
from alignlib.memory import GB, Sizes, count_sizes
from alignlib.models import save_model
from alignlib.prompts import ANSWER
from alignlib.real_model import SMOLLM2
from alignlib.settings import ControlSettings, PPOSettings
from alignlib.styles import texts_by_control
from alignlib.workbench import BENCHES, HBAT_BENCHES, MEET_BENCHES
from tests.stand_ins import byte_tokenizer

GPU_GB = 14.5  # of a T4
STEPS = 16
WIDTHS = {"5 M": (192, 4), "25 M": (384, 10), "80 M": (640, 14)}  # width and layers
Task = tuple[Callable[[], Cost], Callable[[], object]]  # how to predict it, and how to do it
QWEN = {"0.5 B": (896, 4864, 24, 14), "1.5 B": (1536, 8960, 28, 12)}


def stand_in(size: str, folder: Path) -> str:
    """The folder of an untrained model of that size."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    if size in WIDTHS:
        width, layers = WIDTHS[size]
        shape = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
        config = LlamaConfig(vocab_size=len(tokenizer), num_attention_heads=width // 64, **shape)
        save_model(folder, LlamaForCausalLM(config), tokenizer)
    else:
        width, inner, layers, heads = QWEN[size]
        shape = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers}
        heads = {"num_attention_heads": heads, "num_key_value_heads": 2}
        config = Qwen2Config(vocab_size=151_936, tie_word_embeddings=True, **shape, **heads)
        save_model(folder, Qwen2ForCausalLM(config), tokenizer)
    return str(folder)


def by_aligner(model: str, rank: int, profile: str = "laptop") -> Task:
    rows = read_qac(rows_file("train")).rows
    settings = replace(BENCHES[profile].settings, steps=STEPS)
    options = {"settings": settings, "lora_rank": rank, "progress": False}
    return (
        lambda: Aligner.untrained(model, lora_rank=rank).predict(rows, settings),
        lambda: Aligner.train(model, rows, **options),
    )


def by_meet(model: str, rank: int, profile: str = "laptop") -> Task:
    texts = texts_by_control(style_pairs("train"), "polite", "rude")
    settings = replace(MEET_BENCHES[profile].settings, steps=STEPS)
    control = ControlSettings("lora", max(rank, 1))
    options = {"control": control, "first": settings, "progress": False}
    return (
        lambda: Meet.untrained(model, list(texts), control).predict(texts, settings),
        lambda: Meet.train(model, texts, **options),
    )


def by_hbat(model: str, rank: int, profile: str = "laptop", ppo: bool = False) -> Task:
    rows, bench = read_aims("train"), HBAT_BENCHES[profile]
    teach, prefer = replace(bench.teach, steps=STEPS), replace(bench.prefer, steps=STEPS // 2)
    method = DPO(prefer, bench.beta)
    if ppo:
        sampled = PPOSettings(4, batch_size=16, minibatch=16, max_new_tokens=32)
        method = PPO(sampled, lambda prompts, texts: [float(len(t)) for t in texts], "longer")
    given = (model, rows.instructions, rows.pairs, teach, method)
    options = {"rounds": 2, "strength": 1.0, "lora_rank": rank, "form": ANSWER}

    def train() -> None:
        with tempfile.TemporaryDirectory() as folder:
            train_hbat(*given, **options, folder=folder, progress=False)

    return lambda: predict_hbat(*given, **options), train


METHODS = {
    "Aligner": by_aligner,
    "MEET": by_meet,
    "HBAT-DPO": by_hbat,
    "HBAT-PPO": partial(by_hbat, ppo=True),
}


def run(what: str, method: str, size: str, rank: int) -> None:
    """Predict or train, and print minutes and GB as JSON."""
    device = pick_device()
    if device.type == "cuda":
        whole = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, GPU_GB * GB / whole))
    with tempfile.TemporaryDirectory() as folder:
        model = size if size == SMOLLM2 else stand_in(size, Path(folder))
        predict, train = METHODS[method](model, rank)
        if what == "predict":
            cost = predict()
            print(json.dumps([cost.minutes, cost.gb]))
        else:
            started = time.monotonic()
            train()
            print(json.dumps([(time.monotonic() - started) / 60, peak_gb(device)]))


def in_child(what: str, *case: object) -> list[float]:
    """Minutes and GB, predicted or measured, by a process of its own."""
    child = [sys.executable, __file__, "--child", what, *map(str, case)]
    done = subprocess.run(child, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{what} {case}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def gpu_memory() -> None:
    """Predict the memory of `colab`'s settings on a GPU, by what a CPU keeps in bf16."""

    def sizes_on_gpu(*given: object) -> Sizes:
        return replace(count_sizes(*given), on_gpu=True)

    os.environ["ALIGNLIB_DEVICE"] = "cpu"
    patches = {
        "memory.autocast": lambda _: torch.autocast("cpu", torch.bfloat16),
        "cost.count_sizes": sizes_on_gpu,
        "cost.room_gb": lambda _: GPU_GB,
        "cost.peak_memory_mb": lambda: 0,
        "cost._try_speed": lambda *_: Speed(float("nan"), float("nan")),
        "cost._try_sampling": lambda *_: float("nan"),
    }
    with ExitStack() as patched, tempfile.TemporaryDirectory() as folder:
        for name, value in patches.items():
            patched.enter_context(patch(f"alignlib.{name}", value))
        model = stand_in("0.5 B", Path(folder))
        for method in METHODS:
            predict, _ = METHODS[method](model, 16, "colab")
            cost = predict()
            sizes = ", ".join(f"{name} {gb:.1f}" for name, gb in cost.items.items() if gb > 0.05)
            fits = "fits" if cost.fits else f"does not fit: {cost.fix}"
            print(
                f"{method}, 0.5 B, LoRA of rank 16: {cost.gb:.1f} GB, {fits} ({sizes})", flush=True
            )


def main() -> None:
    cases = [(method, SMOLLM2, 8) for method in METHODS]
    cases += [(method, size, 0) for size in WIDTHS for method in ("Aligner", "HBAT-DPO")]
    cases += [("HBAT-PPO", "25 M", 0), ("MEET", "25 M", 8)]
    if torch.cuda.is_available():
        cases += [(method, size, 16) for size in QWEN for method in METHODS]
    wanted = sys.argv[1:]
    print(machine())
    print("| method | model | LoRA | minutes | predicted | ratio | GB | predicted | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in cases:
        if wanted and not {*case[:2]} & {*wanted}:
            continue
        cells = []
        try:
            both = [in_child(what, *case) for what in ("predict", "train")]
        except RuntimeError as error:
            print(f"failed: {error}", flush=True)
            continue
        for predicted, measured in zip(*both):
            cells += [f"{measured:.2f}", f"{predicted:.2f}", f"{predicted / measured:.2f}"]
        print("|", " | ".join([*map(str, case), *cells]), "|", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run(*sys.argv[2:5], int(sys.argv[5]))
    elif sys.argv[1:] == ["--gpu-memory"]:
        gpu_memory()
    else:
        main()

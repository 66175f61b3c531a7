"""Training SmolLM2 with LoRA against a bare PyTorch and PEFT loop on the same batches.

    make real
    python benchmarks/lora.py

Interleaved in one process, so that only the ratio matters.
"""

from __future__ import annotations

import statistics
import time

import torch

from alignlib.aligner import Aligner
from alignlib.batching import batches
from alignlib.cost import machine
from alignlib.data import read_qac
from alignlib.everyday import rows_file
from alignlib.settings import SFTSettings
from alignlib.tokens import IGNORED
from alignlib.train import sft

SETTINGS = SFTSettings(steps=6, batch_size=8, learning_rate=5e-4, warmup_steps=1)
ROUNDS = 5


def bare_loop(aligner: Aligner, rows: list[dict]) -> None:
    model, size = aligner.model, SETTINGS.batch_size
    order = batches([len(row["input_ids"]) for row in rows], SETTINGS)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-4, weight_decay=0.0, fused=True)
    model.train()
    for step in range(SETTINGS.steps):
        picked = [rows[i] for i in order[step * size : (step + 1) * size]]
        longest = max(len(row["input_ids"]) for row in picked)
        pad = [longest - len(row["input_ids"]) for row in picked]
        ids = torch.tensor([row["input_ids"] + [2] * n for row, n in zip(picked, pad)])
        labels = torch.tensor([row["labels"] + [IGNORED] * n for row, n in zip(picked, pad)])
        mask = torch.tensor([[1] * (longest - n) + [0] * n for n in pad])
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
    model.eval()


def main() -> None:
    print(machine())
    aligner = Aligner.untrained("smollm2")
    rows = [aligner.tokens(row) for row in read_qac(rows_file("train")).rows]
    order = batches([len(row["input_ids"]) for row in rows], SETTINGS)
    tokens = sum(len(rows[i]["input_ids"]) for i in order)
    ways = {
        "bare loop": lambda: bare_loop(aligner, rows),
        "alignlib": lambda: sft(aligner.model, aligner.tokenizer, rows, SETTINGS),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for k in range(ROUNDS + 1):  # the first round warms up
        for name, train in list(ways.items())[:: 1 if k % 2 else -1]:
            started = time.perf_counter()
            train()
            if k:
                speeds[name].append(tokens / (time.perf_counter() - started))
    ratios = sorted(a / b for a, b in zip(speeds["alignlib"], speeds["bare loop"], strict=True))
    for name, some in speeds.items():
        print(f"{name}: {statistics.median(some):.0f} tokens/s")
    print(f"ratio: median {statistics.median(ratios):.2f} of {[round(r, 2) for r in ratios]}")


if __name__ == "__main__":
    main()

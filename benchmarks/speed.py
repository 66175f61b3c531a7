"""Is the convenience free? Interleaved in one process, so that only ratios matter.

    python benchmarks/speed.py

1. `alignlib.train.sft` (TRL underneath) against a bare PyTorch loop: same rows, batches, dtype,
optimiser. 2. Batched generation against one prompt at a time: same outputs. 3. Rows of Tinytown
generated per second.
"""

from __future__ import annotations

import statistics
import time

import torch

from alignlib import SFTSettings, generate, load_model
from alignlib.batching import batches
from alignlib.profiles import profile
from alignlib.tinytown import sets
from alignlib.tokens import IGNORED, example
from alignlib.train import sft

SETTINGS = SFTSettings(steps=20, batch_size=32)
ROUNDS = 5


def bare(model, tokenizer, rows) -> None:
    """What `sft` does, written out: same order, padding to the longest of the batch, AdamW,
    linear schedule, clipping.
    """
    order = batches([len(r["input_ids"]) for r in rows], SETTINGS)
    opt = torch.optim.AdamW(
        model.parameters(), lr=SETTINGS.learning_rate, weight_decay=0.0, fused=True
    )
    model.train()
    for step in range(SETTINGS.steps):
        picked = [rows[i] for i in order[step * 32 : step * 32 + 32]]
        longest = max(len(r["input_ids"]) for r in picked)

        def pad(key, value):
            return torch.tensor([r[key] + [value] * (longest - len(r[key])) for r in picked])  # noqa: E731

        ids, labels = pad("input_ids", tokenizer.pad_token_id), pad("labels", IGNORED)
        for group in opt.param_groups:
            group["lr"] = (
                SETTINGS.learning_rate * min(1, (step + 1) / 10) * (1 - step / SETTINGS.steps)
            )
        loss = model(
            input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long(), labels=labels
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), SETTINGS.clip)
        opt.step()
        opt.zero_grad()
        loss.item()
    model.eval()


def timed(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    base = profile("tiny").base
    model, tokenizer = load_model(base)
    other, _ = load_model(base)
    rows = [
        example(tokenizer, f"{r.question} answer : {r.answer} correction :", r.correction)
        for r in sets.corrections(640)
    ]
    sft(model, tokenizer, rows, SFTSettings(steps=2))
    bare(other, tokenizer, rows)
    ratios = [
        timed(lambda: bare(other, tokenizer, rows))
        / timed(lambda: sft(model, tokenizer, rows, SETTINGS))
        for _ in range(ROUNDS)
    ]
    print(
        f"sft throughput over a bare loop: median {statistics.median(ratios):.2f} of "
        f"{[round(r, 2) for r in ratios]}"
    )

    model, tokenizer = load_model(base)
    prompts = [f"{r.question} answer :" for r in sets.corrections(400)]
    said: list[list[str]] = []

    def complete(**batch):
        return said.append(generate(model, tokenizer, prompts, max_new_tokens=48, **batch))  # noqa: E731

    ratios = [timed(lambda: complete(batch_size=1)) / timed(complete) for _ in range(ROUNDS)]
    same = all(s == said[0] for s in said)
    print(
        f"batched generation: median {statistics.median(ratios):.1f} times as fast of "
        f"{[round(r, 1) for r in ratios]}, same outputs: {same}"
    )
    print(f"rows generated per second: {5000 / timed(lambda: sets.corrections(5000)):.0f}")


if __name__ == "__main__":
    main()

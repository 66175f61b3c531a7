"""Is the convenience free? Interleaved in one process, so that only ratios matter.

    python benchmarks/speed.py

1. `alignlib.train.sft` (TRL underneath) against a bare PyTorch loop: same rows, batches, dtype,
optimiser. 2. Lesson 02's training as the lesson runs it, tokenisation and warm-up included, against
the same loop. 3. Batched generation against one prompt at a time: same outputs. 4. Rows of Tinytown
generated per second. 5. With the real model (`make real`): a stage of HBAT that is held by the
penalty against the same stage without one, by LoRA and by all weights.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from alignlib import Aligner, SFTSettings, generate, load_model
from alignlib.batching import batches
from alignlib.data import QAC
from alignlib.everyday import read_aims
from alignlib.hbat import DPO, train_hbat
from alignlib.profiles import TINY
from alignlib.prompts import TOWN
from alignlib.real_model import SMOLLM2
from alignlib.settings import with_steps
from alignlib.stages import Plan, run_stage
from alignlib.tinytown import sets
from alignlib.tokens import IGNORED, example
from alignlib.train import sft
from alignlib.workbench import HBAT_BENCHES

SETTINGS = SFTSettings(steps=60, batch_size=32)
ROUNDS = 7

Row = dict[str, list[int]]


def tokenized(tokenizer: object, rows: list[QAC]) -> list[Row]:
    prompts = [TOWN.prompt(row.question, row.answer) for row in rows]
    return [example(tokenizer, p, row.correction) for p, row in zip(prompts, rows, strict=True)]


def bare_loop(model: PreTrainedModel, pad: int, rows: list[Row], settings: SFTSettings) -> None:
    """What `sft` does, written out: the same batches, AdamW, linear schedule, clipping."""
    order = batches([len(row["input_ids"]) for row in rows], settings)
    rate = settings.learning_rate
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0, fused=True)
    model.train()
    for step in range(settings.steps):
        start = step * settings.batch_size
        picked = [rows[i] for i in order[start : start + settings.batch_size]]
        ids, labels = padded(picked, "input_ids", pad), padded(picked, "labels", IGNORED)
        warming, falling = (step + 1) / settings.warmup_steps, 1 - step / settings.steps
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, warming) * falling
        mask = (ids != pad).long()
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
    model.eval()


def padded(rows: list[Row], key: str, value: int) -> torch.Tensor:
    """(batch, longest)"""
    longest = max(len(row[key]) for row in rows)
    return torch.tensor([row[key] + [value] * (longest - len(row[key])) for row in rows])


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def ratios(one: Callable[[], object], other: Callable[[], object], rounds: int) -> str:
    """How many times as long `one` takes as `other`, in turns, each first in every second round."""
    found = []
    for k in range(rounds):
        pair = [one, other] if k % 2 else [other, one]
        took = {work: seconds(work) for work in pair}
        found.append(took[one] / took[other])
    return f"median {statistics.median(found):.2f} of {[round(r, 2) for r in sorted(found)]}"


def training() -> None:
    model, tokenizer = load_model(TINY.base)
    other, _ = load_model(TINY.base)
    rows = tokenized(tokenizer, sets.corrections(640))
    sft(model, tokenizer, rows, SFTSettings(steps=2))  # imports and first touches
    bare_loop(other, tokenizer.pad_token_id, rows, SFTSettings(steps=2))
    found = ratios(
        lambda: bare_loop(other, tokenizer.pad_token_id, rows, SETTINGS),
        lambda: sft(model, tokenizer, rows, SETTINGS),
        ROUNDS,
    )
    print(f"sft throughput over a bare loop: {found}", flush=True)


def lesson_02() -> None:
    """Model loaded, rows tokenised, both stages trained."""
    corrections, identity = sets.corrections(TINY.corrections), sets.identity(TINY.identity)

    def by_library() -> None:
        settings = {"settings": TINY.training, "warmup": TINY.warmup}
        Aligner.train(TINY.base, corrections, identity, template=TOWN, **settings)

    def by_loop() -> None:
        model, tokenizer = load_model(TINY.base)
        for rows, settings in ((identity, TINY.warmup), (corrections, TINY.training)):
            bare_loop(model, tokenizer.pad_token_id, tokenized(tokenizer, rows), settings)

    print(f"lesson 02's training over a bare loop: {ratios(by_loop, by_library, 3)}", flush=True)


def generation() -> None:
    model, tokenizer = load_model(TINY.base)
    prompts = [f"{row.question} answer :" for row in sets.corrections(400)]
    completions = []

    def complete(**batch: int) -> None:
        completions.append(generate(model, tokenizer, prompts, max_new_tokens=48, **batch))

    found = ratios(lambda: complete(batch_size=1), complete, 5)
    same = all(texts == completions[0] for texts in completions)
    print(f"batched generation, times as fast: {found}, same outputs: {same}", flush=True)


def held_stage(lora_rank: int) -> None:
    """DPO on preferences, after a stage on instructions has measured its importance."""
    bench, rows = HBAT_BENCHES["laptop"], read_aims("train")
    teach, prefer = (replace(s, steps=10) for s in (bench.teach, bench.prefer))
    common = {"lora_rank": lora_rank, "form": bench.form}
    method = DPO(prefer, bench.beta)
    held = Plan(0, "preferences", rows.pairs, method, 1.0, "movement", **common)
    free = replace(held, strength=0.0, importance=None)
    with tempfile.TemporaryDirectory() as folder:
        both = rows.instructions, rows.pairs, teach, replace(method, settings=with_steps(prefer, 0))
        options = {"rounds": 1, "strength": 1.0, "folder": folder, "progress": False}
        [before] = train_hbat(SMOLLM2, *both, **options, **common)
        stage = Path(folder) / "stage"
        stage.mkdir()
        given = {"base": SMOLLM2, "before": before, "progress": None}
        found = ratios(
            lambda: run_stage(stage, plan=held, **given),
            lambda: run_stage(stage, plan=free, **given),
            5,
        )
    what = f"LoRA of rank {lora_rank}" if lora_rank else "all weights"
    print(f"a held stage over the same stage unheld, {what}: {found}", flush=True)


def main() -> None:
    training()
    lesson_02()
    generation()
    print(f"rows generated per second: {5000 / seconds(lambda: sets.corrections(5000)):.0f}")
    for lora_rank in (8, 0):
        held_stage(lora_rank)


if __name__ == "__main__":
    main()

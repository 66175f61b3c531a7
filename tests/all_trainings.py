"""The losses of each method's training, for `test_processes.py`; as a script, of all processes.

torchrun --nproc-per-node 2 tests/all_trainings.py MODEL OUT
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from alignlib import processes
from alignlib.aligner import Aligner
from alignlib.data import QAC, Instruction, Preference
from alignlib.hbat import DPO, train_hbat
from alignlib.meet import Meet
from alignlib.mixed import train_mixed
from alignlib.settings import ControlSettings, SFTSettings

TEXTS = ["a b", "sun and rain", "one more word than that", "x", "to be or not to be", "so it goes"]
# Five rows a step, which two processes cannot share equally; nor have both as many micro-batches.
STEPS = SFTSettings(steps=6, batch_size=5, tokens=64, learning_rate=1e-2, warmup_steps=1)


def losses_of_all(model: str, folder: Path) -> dict[str, list[float]]:
    """The loss of each step, by training."""
    rows = [QAC(f"q{i}?", text, text.upper()) for i, text in enumerate(TEXTS)]
    whole = Aligner.train(model, rows, settings=STEPS, lora_rank=0, progress=False)
    adapter = Aligner.train(model, rows, settings=STEPS, lora_rank=4, progress=False)
    found = {"aligner": whole.losses["correction"], "lora": adapter.losses["correction"]}
    styles = {
        "loud": [Instruction(text, text.upper()) for text in TEXTS],
        "still": [Instruction(text, "...") for text in TEXTS],
    }
    for kind, size in (("prompt", 2), ("lora", 4)):
        control = ControlSettings(kind, size)
        given = {"control": control, "first": STEPS, "then": STEPS, "progress": False}
        steps = Meet.train(model, styles, **given).losses
        found |= {f"meet {kind}, {name}": losses for name, losses in steps.items()}
    pairs = [Preference(text, text, "no") for text in TEXTS]
    given = (model, styles["loud"], pairs, STEPS, DPO(STEPS))
    stages = train_hbat(*given, rounds=2, strength=1.0, folder=folder, progress=False)
    for stage in stages:
        losses = [point["loss"] for point in stage.curve]
        found[f"hbat, {stage.kind} {stage.round}"] = [*losses, stage.penalty]
    mixed, _ = train_mixed(*given, weight=0.5, progress=False)
    found["mixed, its weights"] = [
        float(p.detach().double().pow(2).sum()) for p in mixed.parameters()
    ]
    return found


def main() -> None:
    model, out = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        losses = losses_of_all(model, Path(processes.agreed(folder)))
        processes.wait()
    if processes.is_first():
        Path(out).write_text(json.dumps(losses), encoding="utf-8")


if __name__ == "__main__":
    main()

"""MEET's two controls for the page's slider: LoRA of rank 1 on Tinytown's base, one per tone.

python site/train_tone.py        (half a minute; writes site/tone/*.safetensors)
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from alignlib import ControlSettings, Meet
from alignlib.styles import texts_by_control
from alignlib.tinytown import sets
from alignlib.tinytown.task import load_town

TONE = Path(__file__).parent / "tone"
TONES = ("friendly", "plain")
SEED = 1


def main() -> None:
    town = load_town(SEED)
    rows = sets.preferences(1500, "train", axis="tone")
    pairs = [replace(row, prompt=row.prompt + town.answer_cue) for row in rows]
    steps = town.meet(both=False)  # the base stays frozen
    steps["first"] = replace(steps["first"], steps=250, learning_rate=3e-3)
    control = ControlSettings("lora", size=1, seed=SEED)
    meet = Meet.train(town.base, texts_by_control(pairs, *TONES), control=control, **steps)
    TONE.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        meet.save_pretrained(folder)
        for name in TONES:
            saved = Path(folder, "controls", name, "adapter_model.safetensors")
            shutil.copyfile(saved, TONE / f"{name}.safetensors")


if __name__ == "__main__":
    main()

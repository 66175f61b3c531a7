"""An Aligner's rows for other trainers: TRL's command line, axolotl, LLaMA-Factory.

What is written into a folder:

    data/train.jsonl     {"prompt", "completion"}, plain text; a completion ends with EOS
    axolotl.yml          settings
    llamafactory.yml     settings; its rows, llamafactory.jsonl, begin with BOS if the model's do
    aligner.json         makes an Aligner of the folder that is trained, when copied into it
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from .aligner import SETTINGS_FILE
from .data import QAC, write_rows
from .place import DataError
from .prompts import T2, Template
from .records import data_path
from .rows import Instruction
from .settings import LORA_RANK, default_rate
from .tokens import encode

ROWS = 8  # in a step
RATE = default_rate(10**9, lora=True)  # of models of the size that is trained elsewhere


def export_rows(
    rows: Sequence[QAC],
    model: str,
    tokenizer: PreTrainedTokenizerBase,
    out: str | Path,
    template: Template = T2,
    max_length: int = 1024,
) -> tuple[list[str], int]:
    """Write rows and settings into a folder; the command line of each trainer, and rows left out.

    `model` (folder or hub id) is what they will train, `tokenizer` its own. Rows of more than
    `max_length` tokens are left out. Raises DataError for a template that is a chat, and if no row
    is left.
    """
    if template.chat:
        raise DataError(f"template {template.name!r} is no plain text; take T1 or T2")
    out, end = data_path(out).resolve(), tokenizer.eos_token
    texts = [Instruction(template.prompt(r.question, r.answer), r.correction + end) for r in rows]
    kept = [text for text in texts if _length(tokenizer, text) <= max_length]
    if not kept:
        raise DataError(f"no row has at most {max_length} tokens; raise --max-length")
    start = tokenizer.decode(encode(tokenizer, ""))  # BOS, which LLaMA-Factory does not add
    write_rows(out / "data" / "train.jsonl", kept)
    write_rows(out / "llamafactory.jsonl", [replace(t, prompt=start + t.prompt) for t in kept])
    about = {"template": asdict(template), "losses": {}, "dropped": {}}
    _write(out / SETTINGS_FILE, about)
    columns = {"prompt": "prompt", "response": "completion"}
    _write(
        out / "dataset_info.json",
        {"aligner": {"file_name": "llamafactory.jsonl", "columns": columns}},
    )
    _write(out / "axolotl.yml", _axolotl(model, out, max_length))
    _write(out / "llamafactory.yml", _llamafactory(model, out, max_length))
    lines = [
        _trl(model, out, max_length),
        ["axolotl", "train", str(out / "axolotl.yml")],
        ["llamafactory-cli", "train", str(out / "llamafactory.yml")],
    ]
    return [shlex.join(line) for line in lines], len(texts) - len(kept)


def _length(tokenizer: PreTrainedTokenizerBase, text: Instruction) -> int:
    """Tokens of a row, EOS included."""
    return len(tokenizer(text.prompt + text.completion)["input_ids"])


def _write(file: Path, settings: dict[str, object]) -> None:
    """JSON, which is YAML too."""
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _trl(model: str, out: Path, max_length: int) -> list[str]:
    given = {
        "model_name_or_path": model,
        "dataset_name": out / "data",
        "max_length": max_length,
        "per_device_train_batch_size": ROWS,
        "num_train_epochs": 1,
        "learning_rate": RATE,
        "lora_r": LORA_RANK,
        "lora_alpha": 2 * LORA_RANK,
        "lora_target_modules": "all-linear",
        "report_to": "none",
        "output_dir": out / "trl",
    }
    options = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    return ["trl", "sft", "--use_peft", *options]


def _axolotl(model: str, out: Path, max_length: int) -> dict[str, object]:
    prompt = {"field_instruction": "prompt", "field_output": "completion"}
    prompt |= {"format": "{instruction}", "no_input_format": "{instruction}"}
    rows = {"path": str(out / "data" / "train.jsonl"), "ds_type": "json", "type": prompt}
    return {
        "base_model": model,
        "datasets": [rows],
        "train_on_inputs": False,
        "sequence_len": max_length,
        "micro_batch_size": ROWS,
        "gradient_accumulation_steps": 1,
        "num_epochs": 1,
        "optimizer": "adamw_torch_fused",
        "learning_rate": RATE,
        "lr_scheduler": "linear",
        "adapter": "lora",
        "lora_r": LORA_RANK,
        "lora_alpha": 2 * LORA_RANK,
        "lora_target_linear": True,
        "bf16": "auto",
        "output_dir": str(out / "axolotl"),
    }


def _llamafactory(model: str, out: Path, max_length: int) -> dict[str, object]:
    return {
        "model_name_or_path": model,
        "stage": "sft",
        "do_train": True,
        "dataset_dir": str(out),
        "dataset": "aligner",
        "template": "empty",  # the prompt is in the rows
        "cutoff_len": max_length,
        "per_device_train_batch_size": ROWS,
        "num_train_epochs": 1,
        "learning_rate": RATE,
        "lr_scheduler_type": "linear",
        "finetuning_type": "lora",
        "lora_rank": LORA_RANK,
        "lora_alpha": 2 * LORA_RANK,
        "lora_target": "all",
        "bf16": True,
        "report_to": "none",
        "output_dir": str(out / "llamafactory"),
    }

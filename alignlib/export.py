"""An Aligner's rows for other trainers: TRL's command line, axolotl, LLaMA-Factory.

    data/train.jsonl     {"prompt", "completion"}, plain text; a completion ends with EOS
    axolotl.yml, llamafactory.yml, dataset_info.json    the settings of two of them

What they train is an Aligner: `Aligner(*load_model(folder), template)`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from .data import QAC, write_rows
from .place import DataError
from .prompts import T2, Template
from .records import data_path
from .rows import Instruction
from .settings import LORA_RANK, default_rate

LONGEST = 1024  # tokens of prompt and completion
ROWS = 8  # in a step
PARAMETERS = 10**9  # of the models that are trained elsewhere; the learning rate follows from it
FILES = {"axolotl": "axolotl.yml", "llamafactory": "llamafactory.yml"}


def export_rows(
    rows: Sequence[QAC],
    model: str,
    tokenizer: PreTrainedTokenizerBase,
    out: str | Path,
    template: Template = T2,
) -> list[str]:
    """Write the rows and settings into the folder `out`; the command line of each trainer.

    `model` (folder or hub id) is what they will train, `tokenizer` its own. Raises DataError for a
    template that is a chat.
    """
    if template.chat:
        raise DataError(f"template {template.name!r} is no plain text; take T1 or T2")
    out, end = data_path(out), tokenizer.eos_token
    texts = [Instruction(template.prompt(r.question, r.answer), r.correction + end) for r in rows]
    write_rows(out / "data" / "train.jsonl", texts)
    columns = {"prompt": "prompt", "response": "completion"}
    about = {"aligner": {"file_name": "data/train.jsonl", "columns": columns}}
    _write(out / "dataset_info.json", about)
    _write(out / FILES["axolotl"], _axolotl(model, out))
    _write(out / FILES["llamafactory"], _llamafactory(model, out))
    return [
        _trl(model, out),
        f"axolotl train {out / FILES['axolotl']}",
        f"llamafactory-cli train {out / FILES['llamafactory']}",
    ]


def _write(file: Path, settings: dict[str, object]) -> None:
    """JSON, which is YAML too."""
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _trl(model: str, out: Path) -> str:
    given = {
        "model_name_or_path": model,
        "dataset_name": out / "data",
        "max_length": LONGEST,
        "per_device_train_batch_size": ROWS,
        "num_train_epochs": 1,
        "learning_rate": default_rate(PARAMETERS, lora=True),
        "lora_r": LORA_RANK,
        "lora_alpha": 2 * LORA_RANK,
        "lora_target_modules": "all-linear",
        "report_to": "none",
        "output_dir": out / "trl",
    }
    return " ".join(["trl sft --use_peft", *(f"--{name} {value}" for name, value in given.items())])


def _axolotl(model: str, out: Path) -> dict[str, object]:
    prompt = {"field_instruction": "prompt", "field_output": "completion"}
    prompt |= {"format": "{instruction}", "no_input_format": "{instruction}"}
    rows = {"path": str(out / "data" / "train.jsonl"), "ds_type": "json", "type": prompt}
    return {
        "base_model": model,
        "datasets": [rows],
        "train_on_inputs": False,
        "sequence_len": LONGEST,
        "micro_batch_size": ROWS,
        "gradient_accumulation_steps": 1,
        "num_epochs": 1,
        "optimizer": "adamw_torch_fused",
        "learning_rate": default_rate(PARAMETERS, lora=True),
        "lr_scheduler": "linear",
        "adapter": "lora",
        "lora_r": LORA_RANK,
        "lora_alpha": 2 * LORA_RANK,
        "lora_target_linear": True,
        "bf16": "auto",
        "output_dir": str(out / "axolotl"),
    }


def _llamafactory(model: str, out: Path) -> dict[str, object]:
    return {
        "model_name_or_path": model,
        "stage": "sft",
        "do_train": True,
        "dataset_dir": str(out),
        "dataset": "aligner",
        "template": "empty",  # the prompt is in the rows
        "cutoff_len": LONGEST,
        "per_device_train_batch_size": ROWS,
        "num_train_epochs": 1,
        "learning_rate": default_rate(PARAMETERS, lora=True),
        "lr_scheduler_type": "linear",
        "finetuning_type": "lora",
        "lora_rank": LORA_RANK,
        "lora_alpha": 2 * LORA_RANK,
        "lora_target": "all",
        "bf16": True,
        "report_to": "none",
        "output_dir": str(out / "llamafactory"),
    }

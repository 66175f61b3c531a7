"""alignlib: the small package behind a course in LLM alignment that runs on a laptop.

Importing it is cheap; torch and transformers are loaded by the first thing that needs them.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

# Nothing phones home, and no tokenizer forks a thread pool. Set before any library is imported.
for _name, _value in (
    ("HF_HUB_DISABLE_TELEMETRY", "1"),
    ("TOKENIZERS_PARALLELISM", "false"),
    ("TQDM_MININTERVAL", "0.5"),
):
    os.environ.setdefault(_name, _value)

__version__ = "0.1.0"

_HOME = {
    "Aligner": "aligner",
    "Comparison": "report",
    "ControlSettings": "settings",
    "DPO": "hbat",
    "Estimate": "stats",
    "Instruction": "data",
    "Meet": "meet",
    "Metrics": "report",
    "Mix": "controls",
    "NoJudge": "judges",
    "PPO": "hbat",
    "PPOSettings": "settings",
    "Preference": "data",
    "QAC": "data",
    "SFTSettings": "settings",
    "generate": "generation",
    "load_model": "models",
    "read_instructions": "data",
    "read_preferences": "data",
    "read_qac": "data",
    "read_styles": "styles",
    "train_hbat": "hbat",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(
            f"module 'alignlib' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__

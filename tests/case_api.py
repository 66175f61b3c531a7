"""Names that outside checks of this package use, wherever they live now, with the same meaning."""

from __future__ import annotations

from types import SimpleNamespace

from alignlib import (
    Aligner,
    ControlSettings,
    Meet,
    SFTSettings,
    generate,
    load_model,
    read_preferences,
    read_qac,
)
from alignlib.batching import batches
from alignlib.controls import with_controls
from alignlib.course.cli import _value
from alignlib.data import Preference, read_instructions, split_by_prompt, write_rows
from alignlib.ewc import empirical_fisher
from alignlib.likelihood import completion_nll
from alignlib.model_names import fingerprint
from alignlib.models import ModelError, load_tokenizer
from alignlib.plots import diff_html
from alignlib.prompts import T2
from alignlib.remote import Server
from alignlib.report import edit_ratios
from alignlib.tokens import example
from alignlib.train import sft
from alignlib.upstream import Local, UpstreamError
from alignlib.workbench import BENCHES

__all__ = [
    "T2",
    "Aligner",
    "ControlSettings",
    "Local",
    "Meet",
    "ModelError",
    "SFTSettings",
    "Server",
    "UpstreamError",
    "_value",
    "batches",
    "completion_nll",
    "diff_html",
    "edit_ratios",
    "empirical_fisher",
    "example",
    "fingerprint",
    "generate",
    "load_model",
    "load_task",
    "load_tokenizer",
    "read_instructions",
    "read_preferences",
    "read_qac",
    "sft",
    "with_controls",
    "write_rows",
]


def load_task(name: str, *, seed: int = 0, model: str, qac: str) -> SimpleNamespace:
    """Rows of one's own, as a training reads and splits them (the first edition's task)."""
    settings = BENCHES["laptop"].settings
    aligner, loaded = Aligner.untrained(model), read_qac(qac)
    bound = settings.max_length
    fitting = [r for r in loaded.rows if len(aligner.tokens(r)["input_ids"]) <= bound]
    long = f"{len(loaded.rows) - len(fitting)} rows longer than {bound} tokens dropped"
    parts = split_by_prompt(fitting, 40, seed)

    def pairs(split: str) -> list[Preference]:
        faulty = [r for r in parts[split] if r.answer != r.correction]
        return [Preference(r.question, r.correction, r.answer) for r in faulty]

    return SimpleNamespace(
        tests={"held out": parts["test"]},
        main="held out",
        corrections=parts["train"],
        notes=[str(loaded), long],
        pairs=pairs,
        aims=SimpleNamespace(pairs=pairs),
        template=aligner.template,
        profile=SimpleNamespace(training=settings, step_tokens=bound),
    )

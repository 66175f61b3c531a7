"""Names that outside checks of this package use, wherever they live now, with the same meaning."""

from __future__ import annotations

from alignlib import (
    Aligner,
    ControlSettings,
    Meet,
    SFTSettings,
    generate,
    load_model,
    load_task,
    read_preferences,
    read_qac,
)
from alignlib.batching import batches
from alignlib.controls import with_controls
from alignlib.course.cli import _value
from alignlib.data import read_instructions, write_rows
from alignlib.ewc import empirical_fisher
from alignlib.likelihood import completion_nll
from alignlib.models import ModelError, fingerprint, load_tokenizer
from alignlib.plots import diff_html
from alignlib.prompts import T2
from alignlib.remote import Server
from alignlib.report import edit_ratios
from alignlib.tokens import example
from alignlib.train import sft
from alignlib.upstream import Local, UpstreamError

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

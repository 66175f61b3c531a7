"""A trained model on the Hugging Face hub: its card, written from measured numbers, and its files.

Whoever has `alignlib` loads it by its name with `from_pretrained`. Others load it with transformers
and PEFT alone; the card says how.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .model_names import SAVED
from .real_model import HUB_ID, SMOLLM2
from .stats import Estimate

if TYPE_CHECKING:
    from .aligner import Aligner

LICENCES = {SMOLLM2: "apache-2.0", HUB_ID: "apache-2.0"}  # of bases that we know
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
CARD = """{front}
# {name}

An Aligner: a model that corrects the answers of other models ([arXiv 2402.02416](
https://arxiv.org/abs/2402.02416)). It reads a question and an answer and writes a corrected answer,
or the answer itself where it finds nothing to correct.

## Use

    from alignlib import Aligner

    aligner = Aligner.from_pretrained("{name}")
    aligner.correct(["QUESTION"], ["ANSWER"])

With {libraries} alone, give it this text {sent} and generate greedily:

    {prompt}

## Data

{data}

## Measured

{table}
Values with 95 % intervals. `fixed`: the fault is gone and the rest is unchanged. `good_kept`: good
answers that come back word for word. `control/...`: the same for a method that does nothing.
`judge/net_win`: percent of corrections that a learned judge prefers minus percent that it likes
less; `judge/agreement`: how often that judge prefers the correction in the data.

## Limits

It corrects the kinds of fault that its training rows show, in answers of about their length and in
their language. It does not know what is true. It changes some good answers too, and a text by
somebody you do not trust may hijack it.
"""


class Saved(Protocol):
    """An Aligner, a Meet model, or any model of transformers."""

    def save_pretrained(self, folder: str | Path) -> Any: ...


def push_to_hub(
    model: Saved, repository: str, card: str, *, private: bool = True, tokenizer: Any = None
) -> str:
    """Upload a model with its card to `owner/name`, and return its address.

    An Aligner with an adapter is uploaded as the adapter alone; merge it first (`Aligner.merge`) to
    upload whole weights. A reward model needs its `tokenizer`. Log in with `hf auth login` before.
    Raises ValueError for a name of another form, and for an adapter whose base is a folder here.
    """
    from huggingface_hub import HfApi

    if not REPOSITORY.fullmatch(repository):
        raise ValueError(f"{repository!r} is no repository; write owner/name")
    _check_base(model)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        save_with_card(model, place, card, tokenizer=tokenizer)
        hub = HfApi()
        hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repository,
            folder_path=place,
            allow_patterns=list(SAVED),
            delete_patterns=list(SAVED),  # of an earlier upload, perhaps in another form
            commit_message="Trained with alignlib",
        )
    return f"https://huggingface.co/{repository}"


def save_with_card(model: Saved, folder: str | Path, card: str, *, tokenizer: Any = None) -> None:
    """Save a model, and its card as README.md, into a folder."""
    folder = Path(folder).expanduser()
    if tokenizer is None:
        model.save_pretrained(folder)
    else:
        from .models import save_model

        save_model(folder, model, tokenizer)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _check_base(model: Saved) -> None:
    """Raises ValueError for an adapter that nobody else could load."""
    base = getattr(model, "base", "")
    has_adapter = hasattr(getattr(model, "model", None), "peft_config")
    if base and has_adapter and base != SMOLLM2 and _is_folder(base):
        fix = "call merge() first, or load it with base=... as a hub id"
        raise ValueError(f"the adapter's base is a folder on this machine ({base}); {fix}")


def _is_folder(name: str) -> bool:
    return Path(name).is_dir()


def aligner_card(
    aligner: Aligner,
    name: str,
    metrics: Mapping[str, Estimate],
    data: str,
    licence: str | None = None,
) -> str:
    """The card of an Aligner: what it does, how to load it, what was measured, on which data.

    `metrics` are those of notebook 08 (`Metrics.values`). `data` says in a sentence or two where
    the rows come from. `licence` is an identifier of the hub; None: the base's, if it is known.
    """
    is_adapter = hasattr(aligner.model, "peft_config")
    base = HUB_ID if aligner.base == SMOLLM2 else aligner.base
    facts = {
        "license": licence or LICENCES.get(aligner.base, "other"),
        "base_model": None if _is_folder(base) else base,
        "base_model_relation": "adapter" if is_adapter else "finetune",
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": "[alignlib, aligner]",
    }
    prompt = aligner.prompt("QUESTION", "ANSWER")
    sent = (
        "as the user's message in the chat template" if aligner.template.chat else "as plain text"
    )
    return CARD.format(
        front=_front_matter(facts),
        name=name,
        libraries="transformers and PEFT" if is_adapter else "transformers",
        sent=sent,
        prompt=prompt.replace("\n", "\n    "),
        data=data,
        table=_table(metrics),
    )


def _front_matter(facts: Mapping[str, str | None]) -> str:
    lines = [f"{key}: {value}" for key, value in facts.items() if value]
    return "\n".join(["---", *lines, "---", ""])


def _table(metrics: Mapping[str, Estimate]) -> str:
    """The measured fractions and points, as a table; times and memory are left out."""
    rows = [(n, e) for n, e in metrics.items() if e.unit in ("rate", "points", "difference")]
    if not rows:
        return "Nothing was measured.\n"
    lines = [f"| {name} | {estimate} | {estimate.n} |" for name, estimate in rows]
    return "\n".join(["| what | value | n |", "|---|---|---|", *lines, ""])

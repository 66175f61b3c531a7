"""Loading and saving models, adapters, the device, threads, random state, and fingerprints.

What this file does not do: train (`train.py`), or run code that lies beside a model's weights:
`trust_remote_code` is always False.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from huggingface_hub import hf_hub_download, snapshot_download
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from .real_model import SMOLLM2, smollm2

if TYPE_CHECKING:
    from peft import LoraConfig

HUB_FIX = (
    "check the name, and that the hub can be reached (downloaded once, a model works offline); "
    "or give a folder"
)
THREADS = 2  # fixed, so that the same seed gives the same numbers; ALIGNLIB_THREADS overrides it
MPS_FROM = 10_000_000  # parameters below which a Mac's GPU is no faster than its CPU
IDENTITY = (".json", ".safetensors", ".txt", ".model", ".jinja")  # files that make a model


class ModelError(ValueError):
    """A model that cannot be used as it is; the message names it and the fix."""


def set_threads() -> int:
    """Fix the number of CPU threads and return it."""
    default = min(THREADS, os.cpu_count() or 1)
    torch.set_num_threads(int(os.environ.get("ALIGNLIB_THREADS", default)))
    return torch.get_num_threads()


def pick_device(parameters: int | None = None) -> torch.device:
    """The device for a model of so many parameters (None: a large one).

    ALIGNLIB_DEVICE, such as `cpu` or `cuda:1`, overrides the choice. Raises ModelError if it names
    no device.
    """
    if named := os.environ.get("ALIGNLIB_DEVICE"):
        try:
            return torch.device(named)
        except RuntimeError as error:
            fix = "set it to cpu, cuda, cuda:1 or mps, or unset it"
            raise ModelError(f"ALIGNLIB_DEVICE={named!r} is no device; {fix}") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    small = parameters is not None and parameters < MPS_FROM
    return torch.device("mps" if torch.backends.mps.is_available() and not small else "cpu")


def device_kind() -> str:
    """The kind of device that numbers depend on, such as `cpu` or `cuda Tesla T4`."""
    device = pick_device()
    return f"cuda {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def compute_dtype(device: torch.device) -> torch.dtype:
    """What is computed in: bf16 on GPUs that have it, fp16 on older ones, fp32 elsewhere.

    Weights that are trained stay fp32: in 16 bits a small learning rate's updates are rounded away.
    """
    if device.type != "cuda":
        return torch.float32
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


def autocast(device: torch.device) -> torch.autocast:
    dtype = compute_dtype(device)
    halved = dtype != torch.float32
    return torch.autocast(device.type, dtype if halved else None, enabled=halved)


@contextmanager
def own_random_state() -> Iterator[None]:
    """Whatever is drawn or seeded within leaves Python's, NumPy's and torch's state as it was."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def load_model(name: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal LM in evaluation mode and its tokenizer, from a folder or, by its id, from the hub.

    Raises ModelError if the folder is missing or truncated, holds code of its own, or has no
    tokenizer or no pad token.
    """
    set_threads()
    name = _there(name)
    tokenizer = load_tokenizer(name)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            name, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    except Exception as error:
        fix = "copy the folder again, as safetensors" if looks_local(name) else HUB_FIX
        raise _refusal(name, "the weights cannot be read", error, fix) from error
    return model.to(pick_device(model.num_parameters())).eval(), tokenizer


def load_adapter(
    folder: str | Path, base: str | Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A base model with the LoRA adapter in a folder on it, and the tokenizer saved there."""
    from peft import PeftModel

    model, _ = load_model(base)
    return PeftModel.from_pretrained(model, str(folder)).eval(), load_tokenizer(Path(folder))


def downloaded(name: str | Path) -> Path:
    """The folder itself, or a copy of the hub's repository of that name."""
    if looks_local(name):
        return Path(name).expanduser()
    return Path(snapshot_download(str(name)))


def looks_local(name: str | Path) -> bool:
    """Whether a model's name means a folder. A hub id is `name` or `owner/name`, and no folder."""
    if isinstance(name, Path) or Path(name).expanduser().exists():
        return True
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name


def _there(name: str | Path) -> str | Path:
    """The name, expanded. Raises ModelError for a folder that holds no model."""
    name = _expanded(name)
    if looks_local(name) and not (Path(name) / "config.json").is_file():
        what = "no config.json in this folder" if Path(name).is_dir() else "no such folder"
        fix = "give a folder written by save_pretrained, or a hub id"
        raise ModelError(f"{name}: {what}; {fix} such as HuggingFaceTB/SmolLM2-360M")
    return name


def _expanded(name: str | Path) -> str | Path:
    """`~` is the home folder, as a shell has it; SMOLLM2 is the model that `make real` fetches."""
    if name == SMOLLM2:
        name = smollm2()
    return Path(name).expanduser() if looks_local(name) else name


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, padding on the left.

    Raises ModelError if there is none, or none with a pad and an EOS token.
    """
    name = _expanded(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, padding_side="left", trust_remote_code=False
        )
    except Exception as error:
        here = "save one into the folder with tokenizer.save_pretrained"
        fix = here if looks_local(name) else HUB_FIX
        raise _refusal(name, "no tokenizer", error, fix) from error
    for kind in ("pad", "eos"):
        if getattr(tokenizer, f"{kind}_token") is None:
            raise ModelError(
                f"{name}: the tokenizer has no {kind} token; set tokenizer.{kind}_token to one of "
                "its tokens and save it again"
            )
    return tokenizer


def _refusal(name: str | Path, what: str, error: Exception, fix: str) -> ModelError:
    if "trust_remote_code" in str(error):
        return ModelError(
            f"{name}: this model needs code of its own, which is never run (trust_remote_code is "
            "False); give a model whose architecture transformers knows"
        )
    first_line = next(iter(str(error).strip().splitlines()), "")
    return ModelError(f"{name}: {what} ({type(error).__name__}: {first_line}); {fix}")


def lora_config(
    rank: int, targets: Sequence[str] | str = "all-linear", layers: Sequence[int] = ()
) -> LoraConfig:
    """LoRA of this rank on the linear layers named (all-linear: every one but the head).

    `layers` are the decoder layers it is restricted to (none: all).
    """
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=2 * rank,
        target_modules=targets if isinstance(targets, str) else list(targets),
        layers_to_transform=list(layers) or None,
    )


def add_lora(model: PreTrainedModel, rank: int, seed: int = 0) -> PreTrainedModel:
    """The model, frozen, with LoRA on every linear layer but the head; at rank 0 as it is."""
    if not rank:
        return model
    from peft import get_peft_model

    with own_random_state():
        torch.manual_seed(seed)
        return get_peft_model(model, lora_config(rank))


def save_model(
    folder: str | Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **given: object
) -> None:
    """Weights (safetensors) and tokenizer into a folder.

    What else is `given` goes to the model's own `save_pretrained`.
    """
    if hasattr(model, "peft_config"):
        given.setdefault("save_embedding_layers", False)  # or PEFT looks the base up on the hub
    model.save_pretrained(folder, **given)
    tokenizer.save_pretrained(folder)


def fingerprint(name: str | Path) -> str:
    """What tells a base model apart from others.

    Of a folder the sha256 of what its configuration, tokenizer and weights say, whatever their line
    ends are; of a hub id its revision.
    """
    place = _expanded(name)
    folder = Path(place)
    if not folder.is_dir():
        return str(name) if looks_local(name) else f"{place}@{_revision(str(place))}"
    total = hashlib.sha256()
    for file in sorted(f for f in folder.iterdir() if f.suffix in IDENTITY):
        about = file.stat()
        total.update(file.name.encode() + _file_digest(file, about.st_mtime_ns, about.st_size))
    return total.hexdigest()


@lru_cache(maxsize=256)
def _file_digest(file: Path, changed: int, size: int) -> bytes:
    """The sha256 of a file's content; time of change and size are there to key the cache."""
    if file.suffix in (".safetensors", ".model"):
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    content = file.read_bytes().replace(b"\r\n", b"\n")
    if file.suffix == ".json":
        try:
            content = json.dumps(json.loads(content), sort_keys=True).encode()
        except ValueError:
            pass  # not JSON: load_model says so better
    return hashlib.sha256(content).digest()


def _revision(hub_id: str) -> str:
    """The commit that a hub id stands for now or, offline, the one downloaded; "" for neither."""
    try:
        return Path(hf_hub_download(hub_id, "config.json")).parent.name
    except Exception:  # whatever is wrong with it, load_model says it better
        return ""

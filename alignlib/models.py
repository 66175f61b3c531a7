"""Loading and saving models, choosing device and threads, batched generation and likelihoods.

What this file does not do: train (`train.py`), or run code from a hub (`trust_remote_code` is never
set).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub import hf_hub_download
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.utils import ModelOutput

from .tokens import IGNORED, encode, example

if TYPE_CHECKING:
    from peft import LoraConfig

ROUND = 8  # tokens generated before finished rows leave their batch
HUB_FIX = (
    "check the name, and that the hub can be reached (downloaded once, a model works "
    "offline); or give a folder"
)
THREADS = (
    2  # fixed by rule, so that the same seed gives the same numbers; ALIGNLIB_THREADS overrides it
)


class ModelError(ValueError):
    """A model folder that cannot be used as it is; the message names the folder and the fix."""


def set_threads() -> int:
    """Fix the number of CPU threads and return it."""
    torch.set_num_threads(
        int(os.environ.get("ALIGNLIB_THREADS", min(THREADS, os.cpu_count() or 1)))
    )
    return torch.get_num_threads()


def pick_device() -> torch.device:
    """The fastest device there is."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def computes_in_bf16(device: torch.device) -> bool:
    """Whether sums run in bf16 over fp32 weights: on GPUs that have it, and not on a T4, a Mac or a
    CPU.

    The weights stay fp32 everywhere: in bf16 a small learning rate's updates would be rounded away.
    """
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=computes_in_bf16(device))


def load_model(name: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal LM and its tokenizer from a folder or, for a name that is no folder, from the hub.

    Raises ModelError if the folder is missing or truncated, or has no tokenizer or pad token.
    """
    set_threads()
    folder = Path(name).expanduser()
    if looks_local(name) and not (folder / "config.json").is_file():
        raise ModelError(
            f"{name}: {'no config.json in this folder' if folder.is_dir() else 'no such folder'}; "
            "give a folder written by save_pretrained, or a hub id such as "
            "HuggingFaceTB/SmolLM2-360M"
        )
    tokenizer = load_tokenizer(name)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            name, dtype=torch.float32, use_safetensors=True
        )
    except Exception as error:
        fix = "copy the folder again, as safetensors" if looks_local(name) else HUB_FIX
        raise ModelError(
            f"{name}: the weights cannot be read ({_first_line(error)}); {fix}"
        ) from error
    return model.to(pick_device()).eval(), tokenizer


def looks_local(name: str | Path) -> bool:
    """Whether a model's name means a folder: hub ids are `name` or `owner/name` and no folder of
    that name exists.
    """
    return (
        isinstance(name, Path)
        or Path(name).expanduser().exists()
        or name.startswith((".", "/", "~"))
        or name.count("/") > 1
    )


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, padding on the left. Raises ModelError if there is none, or none
    with pad and eos.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left")
    except Exception as error:
        fix = (
            "save one into the folder with tokenizer.save_pretrained"
            if looks_local(name)
            else HUB_FIX
        )
        raise ModelError(f"{name}: no tokenizer ({_first_line(error)}); {fix}") from error
    for kind in ("pad", "eos"):
        if getattr(tokenizer, f"{kind}_token") is None:
            raise ModelError(
                f"{name}: the tokenizer has no {kind} token; set tokenizer.{kind}_token to "
                "one of its tokens and save it again"
            )
    return tokenizer


def _first_line(error: Exception) -> str:
    return (
        f"{type(error).__name__}: "
        f"{str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    )


def lora_config(
    rank: int, targets: Sequence[str] | str = "all-linear", layers: Sequence[int] = ()
) -> LoraConfig:
    """LoRA matrices of this rank on the linear layers named (every one but the head), in these
    decoder layers (none: all).
    """
    from peft import LoraConfig

    targets, layers = targets if isinstance(targets, str) else list(targets), list(layers) or None
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=2 * rank,
        target_modules=targets,
        layers_to_transform=layers,
    )


def add_lora(model: PreTrainedModel, rank: int, seed: int = 0) -> PreTrainedModel:
    """The model with all weights frozen and LoRA matrices of this rank on every linear layer but
    the head; at rank 0 as it is.
    """
    if not rank:
        return model
    from peft import get_peft_model

    torch.manual_seed(seed)
    return get_peft_model(model, lora_config(rank))


def save_model(
    folder: str | Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **given: object
) -> None:
    """Weights (safetensors) and tokenizer into a folder; what is `given` goes to the model's own
    `save_pretrained`.
    """
    model.save_pretrained(folder, **given)
    tokenizer.save_pretrained(folder)


def fingerprint(name: str | Path) -> str:
    """What tells a base model apart: the sha256 of a folder's configuration, tokenizer and
    weights, or the hub id and its revision.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return str(name) if looks_local(name) else f"{name}@{_revision(str(name))}"
    total = hashlib.sha256()
    for file in sorted(f for f in folder.iterdir() if f.suffix in (".json", ".safetensors")):
        total.update(file.name.encode() + file.read_bytes())
    return total.hexdigest()


def _revision(hub_id: str) -> str:
    """The commit that a hub id stands for now, or, offline, the one that was downloaded; empty
    if neither can be had.
    """
    try:
        return Path(hf_hub_download(hub_id, "config.json")).parent.name
    except Exception:  # whatever is wrong with it, load_model says it better
        return ""


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | list[int]],
    *,
    max_new_tokens: int | Sequence[int] = 64,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 128,
    progress: str | None = None,
) -> list[str]:
    """Complete prompts in batches; greedy at temperature 0. Returns one completion a prompt, in
    order.

    `progress` labels a bar; the rest is as for `sample`.
    """
    settings = dict(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        batch_size=batch_size,
        progress=progress,
    )
    said = sample(model, tokenizer, [encode(tokenizer, p) for p in prompts], **settings)
    return [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in said]


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[list[int]],
    *,
    max_new_tokens: int | Sequence[int] = 64,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 128,
    progress: str | None = None,
) -> list[list[int]]:
    """The token ids said behind each row of ids, with the EOS if it was said.

    Rows of like length share a batch, padded on the left, so that a batch wastes little.
    `max_new_tokens` may be given for each row; greedily, a completion does not depend on who shares
    its batch. Sampling draws from `seed` alone and leaves the caller's generator as it was.
    """
    limits = (
        [max_new_tokens] * len(rows) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    )
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), limits[i]))
    said: list[list[int]] = [[] for _ in rows]
    with torch.random.fork_rng(), torch.inference_mode(), autocast(model.device):
        torch.manual_seed(seed)
        for start in tqdm(
            range(0, len(order), batch_size), desc=progress, disable=progress is None
        ):
            picked = order[start : start + batch_size]
            found = _complete(
                model,
                tokenizer,
                [rows[i] for i in picked],
                [limits[i] for i in picked],
                temperature,
            )
            for i, ids in zip(picked, found, strict=True):
                said[i] = ids
    return said


def _complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[list[int]],
    limits: list[int],
    temperature: float,
) -> list[list[int]]:
    """The tokens said behind each row of one batch. Every ROUND tokens the rows that are done
    leave, so that few wait for the longest.
    """
    ids, mask = pad_left(rows, tokenizer.pad_token_id, model.device)
    left, most, prompt, cache, end = (
        torch.arange(len(rows)),
        torch.tensor(limits),
        ids.shape[1],
        None,
        tokenizer.eos_token_id,
    )
    said: list[list[int]] = [[] for _ in rows]
    while len(left):
        config = _generation_config(
            tokenizer, min(ROUND, int(most[left].max()) + prompt - ids.shape[1]), temperature
        )
        known = {} if cache is None else {"past_key_values": cache}
        out = model.generate(input_ids=ids, attention_mask=mask, generation_config=config, **known)
        new = out.sequences[:, prompt:].cpu()
        done = (new == end).any(1) | (new.shape[1] >= most[left])
        for i, row in zip(left[done].tolist(), new[done].tolist(), strict=True):
            said[i] = row[: min(limits[i], row.index(end) + 1 if end in row else len(row))]
        keep = (~done).nonzero()[:, 0].to(ids.device)
        mask = torch.nn.functional.pad(
            mask[keep], (0, out.sequences.shape[1] - mask.shape[1]), value=1
        )
        ids, left, cache = out.sequences[keep], left[~done], _continuable(model, out, keep)
    return said


def _generation_config(
    tokenizer: PreTrainedTokenizerBase, max_new_tokens: int, temperature: float
) -> GenerationConfig:
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_k": 0}
        if temperature > 0
        else {"do_sample": False}
    )
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        repetition_penalty=1.0,
        top_p=1.0,  # said aloud, or a model's own generation_config.json would fill them in
        return_dict_in_generate=True,
        **sampling,
    )


def _continuable(
    model: PreTrainedModel, out: ModelOutput, keep: torch.Tensor
) -> DynamicCache | None:
    """The cache of the rows to keep; None, and all is read again, where virtual tokens or a
    recurrent state make it another thing.
    """
    cache = out.get("past_key_values")
    virtual = getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False)
    plain = isinstance(cache, DynamicCache) and all(
        type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers
    )
    if virtual or not plain:
        return None
    cache.batch_select_indices(keep)
    return cache


def pad_left(
    rows: Sequence[list[int]], pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both (n, longest)."""
    longest = max(map(len, rows))
    ids = torch.tensor([[pad] * (longest - len(r)) + r for r in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows], device=device)
    return ids, mask


def positions(mask: torch.Tensor) -> torch.Tensor:
    """The place of each token in its row, as if there were no padding on the left; (n, longest)."""
    return (mask.cumsum(1) - 1).clamp(min=0)


@torch.inference_mode()
def completion_nll(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | list[int]],
    completions: Sequence[str],
) -> torch.Tensor:
    """Mean negative log-likelihood per token (nats) of each completion and its EOS behind its
    prompt, shape (n,).
    """
    rows = [example(tokenizer, p, c) for p, c in zip(prompts, completions, strict=True)]
    nll = torch.zeros(len(rows))
    for picked in within_budget([len(r["input_ids"]) for r in rows]):
        some = [rows[i] for i in picked]
        said = torch.tensor([sum(label != IGNORED for label in r["labels"]) for r in some])
        with autocast(model.device):
            nll[picked] = row_nll(model, some, tokenizer.pad_token_id).cpu() / said
    return nll


def row_nll(model: PreTrainedModel, rows: Sequence[dict[str, list[int]]], pad: int) -> torch.Tensor:
    """- log p(completion | prompt) of each row (from `tokens.example`) as a batch, in nats,
    summed over tokens; gradients flow through it.
    """
    ids, mask = pad_left([r["input_ids"] for r in rows], pad, model.device)
    labels, _ = pad_left([r["labels"] for r in rows], IGNORED, model.device)
    logits = model(
        input_ids=ids, attention_mask=mask, position_ids=positions(mask), use_cache=False
    ).logits[:, :-1]
    return torch.nn.functional.cross_entropy(
        logits.transpose(1, 2).float(), labels[:, 1:], ignore_index=IGNORED, reduction="none"
    ).sum(1)


@torch.inference_mode()
def rewards(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    completions: Sequence[str],
) -> torch.Tensor:
    """What a reward model (`train.reward_model`) gives each completion, with its EOS, behind its
    prompt, shape (n,).
    """
    rows = [
        example(tokenizer, p, c)["input_ids"] for p, c in zip(prompts, completions, strict=True)
    ]
    given = torch.zeros(len(rows))
    for picked in within_budget([len(r) for r in rows]):
        ids, mask = pad_left([rows[i] for i in picked], tokenizer.pad_token_id, model.device)
        with autocast(model.device):
            out = model(input_ids=ids, attention_mask=mask, position_ids=positions(mask))
        given[picked] = out.logits[:, 0].float().cpu()
    return given


def within_budget(lengths: Sequence[int], tokens: int = 4096) -> list[list[int]]:
    """Row numbers in batches of like length, each of at most so many tokens with padding (or one
    row): a large vocabulary's logits fit.
    """
    found: list[list[int]] = [[]]
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if found[-1] and lengths[i] * (len(found[-1]) + 1) > tokens:
            found.append([])
        found[-1].append(i)
    return found if lengths else []

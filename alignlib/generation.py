"""Batched generation: greedy or sampled, with rows leaving their batch as soon as they are done."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tqdm import tqdm
from transformers import (
    DynamicCache,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.utils import ModelOutput

from .batching import by_tokens, pad_left
from .devices import autocast
from .models import stop_tokens
from .tokens import encode

ROUND = 8  # tokens generated before finished rows leave their batch
TOKENS = 16_384  # of a batch, prompts and completions with padding; fewer if CACHE is full before
CACHE = {"cpu": 2**28, "cuda": 2**31}  # bytes of keys and values; as much again while they grow


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
    """One completion per prompt, in order; greedy at temperature 0.

    `progress` labels a bar; the other arguments are those of `sample`.
    """
    completions = sample(
        model,
        tokenizer,
        [encode(tokenizer, p) for p in prompts],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        batch_size=batch_size,
        progress=progress,
    )
    return [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in completions]


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int | Sequence[int] = 64,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 128,
    progress: str | None = None,
) -> list[list[int]]:
    """The token ids of one completion per prompt, ending with EOS if that was generated.

    `max_new_tokens` may differ by row. A batch holds at most `batch_size` rows and `batch_tokens`.
    A greedy completion does not depend on the rows beside it. Sampling draws from `seed` alone and
    leaves the caller's random state as it was.
    """
    n = len(prompts)
    limits = [max_new_tokens] * n if isinstance(max_new_tokens, int) else list(max_new_tokens)
    room = [len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True)]
    picks = [
        picked[start : start + batch_size]
        for picked in by_tokens(room, batch_tokens(model))
        for start in range(0, len(picked), batch_size)
    ]
    completions: list[list[int]] = [[] for _ in prompts]
    with torch.random.fork_rng(), torch.inference_mode(), autocast(model.device):
        torch.manual_seed(seed)
        for picked in tqdm(picks, desc=progress, disable=progress is None):
            rows, most = [prompts[i] for i in picked], [limits[i] for i in picked]
            found = _complete(model, tokenizer, rows, most, temperature)
            for i, ids in zip(picked, found, strict=True):
                completions[i] = ids
    return completions


def batch_tokens(model: PreTrainedModel) -> int:
    """How many tokens a batch may hold, such that their keys and values fit into CACHE."""
    config = model.config.get_text_config()
    heads = _one_value(config, "num_attention_heads")
    if not heads:  # no attention, no cache of that kind
        return TOKENS
    size = _one_value(config, "head_dim") or config.hidden_size // heads
    width = (_one_value(config, "num_key_value_heads") or heads) * size
    bytes_per_token = 2 * 4 * config.num_hidden_layers * width
    return min(TOKENS, CACHE.get(model.device.type, CACHE["cpu"]) // bytes_per_token)


def _one_value(config: PreTrainedConfig, name: str) -> int | None:
    """A number of a configuration, None if it has none or a different one for each layer."""
    try:
        value = getattr(config, name, None)
    except Exception:  # which transformers raises for those that differ by layer
        return None
    return value if isinstance(value, int) else None


def _complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    limits: list[int],
    temperature: float,
) -> list[list[int]]:
    """One batch. Every ROUND tokens the finished rows leave, so that few wait for the longest."""
    ids, mask = pad_left(prompts, tokenizer.pad_token_id, model.device)
    left, most = torch.arange(len(prompts)), torch.tensor(limits)
    prompt_length, cache, stops = ids.shape[1], None, stop_tokens(model, tokenizer)
    completions: list[list[int]] = [[] for _ in prompts]
    while len(left):
        steps = min(ROUND, int(most[left].max()) + prompt_length - ids.shape[1])
        config = _generation_config(tokenizer, stops, steps, temperature)
        known = {} if cache is None else {"past_key_values": cache}
        out = model.generate(input_ids=ids, attention_mask=mask, generation_config=config, **known)
        new = out.sequences[:, prompt_length:].cpu()
        ends = torch.isin(new, torch.tensor(stops))  # (rows, new tokens)
        done = ends.any(1) | (new.shape[1] >= most[left])
        lengths = torch.where(ends.any(1), ends.int().argmax(1) + 1, new.shape[1])
        for i, row, length in zip(left[done].tolist(), new[done].tolist(), lengths[done].tolist()):
            completions[i] = row[: min(limits[i], length)]
        keep = (~done).nonzero()[:, 0].to(ids.device)
        grown = out.sequences.shape[1] - mask.shape[1]
        mask = torch.nn.functional.pad(mask[keep], (0, grown), value=1)
        ids, left, cache = out.sequences[keep], left[~done], _cache_of(model, out, keep)
    return completions


def is_finished(
    ids: Sequence[int], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> bool:
    """Whether a completion from `sample` came to its end, and was not cut off."""
    return bool(ids) and ids[-1] in stop_tokens(model, tokenizer)


def _generation_config(
    tokenizer: PreTrainedTokenizerBase, stops: list[int], max_new_tokens: int, temperature: float
) -> GenerationConfig:
    sampling: dict[str, object] = {"do_sample": False}
    if temperature > 0:
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=stops,
        repetition_penalty=1.0,  # set, or the model's generation_config.json would fill it in
        top_p=1.0,
        return_dict_in_generate=True,
        **sampling,
    )


def _cache_of(model: PreTrainedModel, out: ModelOutput, keep: torch.Tensor) -> DynamicCache | None:
    """The cache of the rows to keep.

    None, and the text is read again, for a cache that cannot be cut: virtual tokens, a recurrent
    state.
    """
    cache = out.get("past_key_values")
    virtual = getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False)
    if virtual or type(cache) is not DynamicCache:
        return None
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers):
        return None
    cache.batch_select_indices(keep)
    return cache

"""Looking inside: what the heads of a model attend to (lessons 02 and 04)."""

from __future__ import annotations

import random

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@torch.inference_mode()
def attention(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Attention weights for token ids of shape (b, T): shape (layers, b, heads, T, T), rows sum to 1."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the fast kernels do not hand their weights out
    try:
        return torch.stack(model(input_ids=ids, output_attentions=True).attentions)
    finally:
        model.set_attn_implementation(before)


def induction_score(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, n: int = 16, words: int = 20) -> float:
    """How much the best head attends, at a word that stood before, to what came after it then; from 0 to 1.

    On n lists of random words said twice, mean over positions (Olsson et al. 2022, arXiv 2209.11895, "prefix matching").
    """
    rng, special = random.Random(0), set(tokenizer.all_special_ids)
    vocabulary = [i for i in range(len(tokenizer)) if i not in special]
    lists = [rng.sample(vocabulary, words) for _ in range(n)]
    weights = attention(model, torch.tensor([once + once for once in lists], device=model.device))
    again = torch.arange(words, 2 * words - 1)
    return weights[..., again, again - words + 1].mean((1, 3)).max().item()

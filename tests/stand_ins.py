"""Untrained models of several architectures with a tokenizer of bytes: for variety, not quality."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from alignlib.models import save_model

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 2048}
NEOX = {name: size for name, size in SMALL.items() if name != "num_key_value_heads"}
STAND_INS = {
    "llama": lambda n: LlamaForCausalLM(LlamaConfig(vocab_size=n, **SMALL)),
    "qwen3": lambda n: Qwen3ForCausalLM(Qwen3Config(vocab_size=n, head_dim=16, **SMALL)),
    "gemma3": lambda n: Gemma3ForCausalLM(Gemma3TextConfig(vocab_size=n, head_dim=16, **SMALL)),
    "gemma2": lambda n: Gemma2ForCausalLM(Gemma2Config(vocab_size=n, head_dim=16, **SMALL)),
    "gpt2": lambda n: GPT2LMHeadModel(GPT2Config(vocab_size=n, n_embd=32, n_layer=2, n_head=2)),
    "neox": lambda n: GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=n, **NEOX)),
    "bloom": lambda n: BloomForCausalLM(
        BloomConfig(vocab_size=n, hidden_size=32, n_layer=2, n_head=2)
    ),
    "mamba": lambda n: MambaForCausalLM(
        MambaConfig(vocab_size=n, hidden_size=32, state_size=8, num_hidden_layers=2)
    ),
}


def save_stand_in(name: str, folder: Path) -> Path:
    """Write the model of that architecture, and return its folder."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    save_model(folder, STAND_INS[name](len(tokenizer)), tokenizer)
    return folder


def byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", model_max_length=2048
    )

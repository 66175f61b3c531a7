"""Likelihoods: computed at completion positions only, and the same as from all logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    PreTrainedModel,
)

from alignlib import likelihood
from alignlib.likelihood import completion_nll, row_nll
from alignlib.models import add_lora, load_model
from alignlib.tinytown import sets
from alignlib.tokens import IGNORED, example

VIRTUAL = 3  # tokens of a soft prompt
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def model_of(kind: str, tiny_model: Path) -> tuple[PreTrainedModel, object]:
    """Models that treat their logits in different ways, or have more of them than tokens."""
    model, tokenizer = load_model(tiny_model)
    torch.manual_seed(0)
    size = SMALL | {"vocab_size": len(tokenizer)}
    if kind == "capped":
        model = Gemma2ForCausalLM(Gemma2Config(**size, head_dim=16, final_logit_softcapping=0.5))
    elif kind == "scaled":
        model = GraniteForCausalLM(GraniteConfig(**size, logits_scaling=7.0))
    elif kind == "lora":
        model = add_lora(model, 4)
    elif kind == "soft prompt":
        prompt = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=VIRTUAL)
        model = get_peft_model(model, prompt)
    return model.eval(), tokenizer


@pytest.mark.parametrize("kind", ["plain", "capped", "scaled", "lora", "soft prompt"])
@pytest.mark.parametrize("at_once", [2**27, 3000])
def test_a_batchs_likelihood_is_that_of_each_row_from_all_its_logits(
    kind: str, at_once: int, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the labels are more than are computed at once."""
    monkeypatch.setattr(likelihood, "LOGITS", at_once)
    model, tokenizer = model_of(kind, tiny_model)
    rows = [example(tokenizer, r.question, r.correction) for r in sets.corrections(5)]
    found = row_nll(model, rows, tokenizer.pad_token_id)
    for row, nll in zip(rows, found):
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        logits = logits[VIRTUAL if kind == "soft prompt" else 0 :]
        labels = torch.tensor(row["labels"][1:])
        each = torch.nn.functional.cross_entropy(
            logits.float(), labels, ignore_index=IGNORED, reduction="sum"
        )
        assert nll.item() == pytest.approx(each.item(), rel=1e-4)


def test_the_head_is_handed_positions_with_a_label_alone(tiny_model: Path) -> None:
    """So logits take memory by the completion and not by the prompt."""
    model, tokenizer = load_model(tiny_model)
    handed = []
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda head, inputs, logits: handed.append(logits.shape))
    rows = sets.corrections(5)
    completion_nll(model, tokenizer, [r.question for r in rows], [r.correction for r in rows])
    labels = sum(len(r.correction.split()) + 1 for r in rows)
    assert handed == [(1, labels, len(tokenizer))]
    assert not head._forward_pre_hooks, "the hook is gone"


def test_gradients_flow_through_a_likelihood_and_its_parts(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load_model(tiny_model)
    rows = [example(tokenizer, r.question, r.correction) for r in sets.corrections(4)]

    def gradient() -> torch.Tensor:
        model.zero_grad()
        row_nll(model, rows, tokenizer.pad_token_id).sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    whole = gradient()
    monkeypatch.setattr(likelihood, "LOGITS", 3000)
    assert torch.allclose(gradient(), whole, atol=1e-4) and whole.abs().max() > 0.1


def test_a_failing_model_is_left_without_the_hook(tiny_model: Path) -> None:
    model, tokenizer = load_model(tiny_model)
    with pytest.raises(IndexError):
        row_nll(model, [{"input_ids": [1, 10**6], "labels": [IGNORED, 5]}], 0)
    assert not model.get_output_embeddings()._forward_pre_hooks

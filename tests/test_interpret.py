"""Looking inside: attention weights are weights, and the induction score tells a model that copies from one that does not."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from alignlib.interpret import attention, induction_score
from alignlib.models import load_model
from alignlib.profiles import profile

BASE = profile("tiny").base


def test_attention_weights_sum_to_one_look_back_only_and_leave_the_model_as_it_was() -> None:
    model, _ = load_model(BASE)
    before, ids = model.config._attn_implementation, torch.tensor([[5, 6, 7, 8], [9, 5, 9, 5]])
    logits = model(input_ids=ids).logits
    weights = attention(model, ids)
    layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads
    assert weights.shape == (layers, 2, heads, 4, 4)
    assert torch.allclose(weights.sum(-1), torch.ones(layers, 2, heads, 4), atol=1e-5)
    assert weights.triu(1).abs().max() == 0
    assert model.config._attn_implementation == before and torch.equal(model(input_ids=ids).logits, logits)


def test_the_induction_score_is_high_in_the_base_and_that_of_chance_in_an_untrained_model() -> None:
    model, tokenizer = load_model(BASE)
    torch.manual_seed(0)
    untrained = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(BASE)).eval()
    assert induction_score(model, tokenizer) > 0.3
    assert induction_score(untrained, tokenizer) < 0.06  # even attention would give 0.034

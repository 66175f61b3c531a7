"""PPO: advantages by hand, the clipped loss, KL estimators, and a toy whose optimum is known."""

from __future__ import annotations

import math
import random
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignlib.ppo import (
    clipped_loss,
    collate,
    gae,
    kl_estimates,
    masked_mean,
    token_logprobs,
    train_ppo,
    whiten,
)
from alignlib.settings import PPOSettings, SFTSettings
from alignlib.tokens import example
from alignlib.train import Diverged, sft

WORDS, MAX_TOKENS, KL = ("<pad>", "<eos>", "go", "a", "b", "c"), 2, 0.2
CPU = torch.device("cpu")


def test_advantages_by_hand() -> None:
    # two tokens, gamma 0.5, lam 0.5: delta_1 = 2 - 3 = -1; delta_0 = 0 + 0.5 * 3 - 1 = 0.5;
    # A_1 = -1; A_0 = 0.5 + 0.25 * -1 = 0.25
    rewards = torch.tensor([[0.0, 2.0, 9.0]])
    values = torch.tensor([[1.0, 3.0, 7.0]])
    mask = torch.tensor([[1.0, 1.0, 0.0]])
    assert gae(rewards * mask, values, mask, 0.5, 0.5).tolist() == [[0.25, -1.0, 0.0]]


def test_without_discount_the_advantage_is_the_return_minus_the_value() -> None:
    rewards, values, mask = torch.rand(3, 5), torch.rand(3, 5), torch.ones(3, 5)
    returns = rewards.flip(1).cumsum(1).flip(1)
    assert torch.allclose(gae(rewards, values, mask, 1.0, 1.0), returns - values, atol=1e-6)


def test_prompt_and_padding_change_no_advantage() -> None:
    rewards, values = torch.rand(1, 4), torch.rand(1, 4)
    alone = gae(rewards, values, torch.ones(1, 4), 0.9, 0.8)

    def within(x: torch.Tensor, around: float) -> torch.Tensor:
        return torch.cat([torch.full((1, 2), around), x, torch.full((1, 3), around)], 1)

    mask = within(torch.ones(1, 4), 0.0)
    padded = gae(within(rewards, 0.0), within(values, 5.0), mask, 0.9, 0.8)
    assert torch.allclose(padded[:, 2:6], alone, atol=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "has_gradient"),
    [
        (1.5, 1.0, -1.2, False),
        (1.5, -1.0, 1.5, True),
        (0.5, 1.0, -0.5, True),
        (0.5, -1.0, 0.8, False),
        (1.1, 2.0, -2.2, True),
    ],
)
def test_the_loss_is_clipped_where_the_policy_has_moved_far_enough_and_nowhere_else(
    ratio: float, advantage: float, loss: float, has_gradient: bool
) -> None:
    logprobs = torch.tensor([[ratio]]).log().requires_grad_()
    old, mask = torch.zeros(1, 1), torch.ones(1, 1)
    found = clipped_loss(logprobs, old, torch.tensor([[advantage]]), mask, 0.2)
    found.backward()
    assert found.item() == pytest.approx(loss, rel=1e-6)
    assert (logprobs.grad.abs().item() > 0) == has_gradient


def test_both_kl_estimators_are_unbiased() -> None:
    policy, reference = torch.tensor([0.6, 0.3, 0.1]).log(), torch.tensor([0.2, 0.3, 0.5]).log()
    exact = (policy.exp() * (policy - reference)).sum()
    found = kl_estimates(policy, reference)
    for name in ("k1", "k3"):
        assert torch.isclose((policy.exp() * found[name]).sum(), exact), name
    assert (found["k3"] >= 0).all() and (found["k1"] < 0).any()


def test_means_and_whitening_ignore_masked_tokens() -> None:
    values, mask = torch.tensor([[1.0, 3.0, 100.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    assert masked_mean(values, mask) == 2
    assert torch.allclose(whiten(values, mask)[0, :2], torch.tensor([-1.0, 1.0]), atol=1e-4)


def test_a_batch_marks_the_completions_and_nothing_else() -> None:
    batch = collate([[2], [2, 3]], [[4, 5, 1], [1]], pad=0, device=CPU)
    assert batch.ids.tolist() == [[2, 4, 5, 1], [2, 3, 1, 0]]
    assert batch.attention.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch.mask.tolist() == [[1, 1, 1], [0, 1, 0]]  # position t predicts token t + 1


def test_log_probabilities_are_those_of_the_completions_and_0_before_them() -> None:
    model, _ = toy(0)
    batch = collate([[2, 3, 4], [2, 3, 4, 5, 3]], [[4, 5, 1], [3]], pad=0, device=CPU)
    logprobs, hidden = token_logprobs(model, batch)
    logits = model(input_ids=batch.ids, attention_mask=batch.attention).logits
    wanted = logits.log_softmax(-1)[:, :-1].gather(2, batch.ids[:, 1:, None])[..., 0]
    assert torch.allclose(logprobs, wanted * batch.mask, atol=1e-5)
    states = model.model(input_ids=batch.ids, attention_mask=batch.attention).last_hidden_state
    assert torch.allclose(hidden, states[:, :-1] * batch.mask[..., None], atol=1e-5)


# --- a toy whose optimum is known -----------------------------------------------------------------


def toy(seed: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=0.1,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
        max_position_embeddings=16,
    )
    words = Tokenizer(WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )
    return LlamaForCausalLM(config).eval(), tokenizer


def points(prompts: list[str], completions: list[str]) -> list[float]:
    """1 for each "a" followed by "b", and 0.5 for stopping early."""
    stopped = [len(c.split()) < MAX_TOKENS for c in completions]
    return [float(f"{c} ".count("a b ")) + 0.5 * s for c, s in zip(completions, stopped)]


def all_completions() -> list[list[int]]:
    """All completions of MAX_TOKENS tokens, each up to and with its first EOS."""
    every = {
        tuple(ids[: ids.index(1) + 1] if 1 in ids else ids)
        for ids in product(range(len(WORDS)), repeat=MAX_TOKENS)
    }
    return [list(ids) for ids in sorted(every)]


def logprobs_of_all(model: LlamaForCausalLM) -> torch.Tensor:
    """The log-probability of every completion, (completions,)."""
    completions = all_completions()
    # a prompt of two different words: one layer of attention takes "go go" for "go"
    batch = collate([[5, 2]] * len(completions), completions, 0, CPU)
    with torch.no_grad():
        logits = model(input_ids=batch.ids, attention_mask=batch.attention).logits[:, :-1]
    logprobs = logits.log_softmax(-1).gather(-1, batch.ids[:, 1:, None])[..., 0]
    return (logprobs * batch.mask).sum(1)


def reached(
    model: LlamaForCausalLM, reference: torch.Tensor, tokenizer: PreTrainedTokenizerFast
) -> float:
    """Reward minus KL times the KL of a policy, as a fraction of the largest possible value.

    It is largest for pi* ~ pi_ref exp(r / KL), where it is KL log Z.
    """
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in all_completions()]
    r, policy = torch.tensor(points([], texts)), logprobs_of_all(model)
    value = (policy.exp() * (r - KL * (policy - reference))).sum()
    return float(value / (KL * (reference + r / KL).logsumexp(0)))


@pytest.mark.parametrize("seed", range(5))
def test_the_known_optimum_of_a_toy_is_reached(seed: int) -> None:
    model, tokenizer = toy(seed)
    reference = logprobs_of_all(model)
    assert reference.exp().sum() == pytest.approx(1, abs=1e-5)
    assert reached(model, reference, tokenizer) < 0.8
    settings = PPOSettings(
        60,
        batch_size=256,
        minibatch=256,
        learning_rate=3e-3,
        value_rate=1e-2,
        kl=KL,
        max_new_tokens=MAX_TOKENS,
        seed=seed,
    )
    log = train_ppo(model, tokenizer, ["c go"], points, settings)
    assert reached(model, reference, tokenizer) > 0.98
    assert log[-1]["score"] > log[0]["score"] and abs(log[0]["kl"]) < 1e-5 < log[-1]["kl"]
    value_losses = [step["value_loss"] for step in log]
    assert np.mean(value_losses[-10:]) < 0.8 * np.mean(value_losses[:3])


def test_trls_rloo_reaches_the_same_optimum(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer

    model, tokenizer = toy(0)
    reference = logprobs_of_all(model)
    model.save_pretrained(tmp_path)
    settings = RLOOConfig(
        str(tmp_path),
        max_steps=60,
        per_device_train_batch_size=256,
        num_generations=256,
        max_completion_length=MAX_TOKENS,
        beta=KL,
        learning_rate=3e-3,
        warmup_steps=0,
        num_iterations=2,
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        activation_checkpointing=False,
        disable_dropout=True,
    )

    def score(completions: list[str], **_: object) -> list[float]:
        return points([], completions)

    rows = Dataset.from_dict({"prompt": ["c go"] * 256})
    trainer = RLOOTrainer(str(tmp_path), score, settings, rows, processing_class=tokenizer)
    trainer.train()
    assert reached(trainer.model, reference, tokenizer) > 0.98


# --- training -------------------------------------------------------------------------------------


def test_the_ratio_is_to_the_policy_that_sampled_however_many_epochs_follow() -> None:
    """Clipped at once, all but the first step of an iteration must change next to nothing."""
    moved = []
    for epochs in (1, 8):
        model, tokenizer = toy(0)
        before = logprobs_of_all(model)
        settings = PPOSettings(
            1,
            batch_size=64,
            minibatch=64,
            epochs=epochs,
            learning_rate=1e-3,
            clip=1e-6,
            max_new_tokens=MAX_TOKENS,
        )
        train_ppo(model, tokenizer, ["c go"], points, settings)
        moved.append(float((logprobs_of_all(model) - before).abs().mean()))
    assert moved[1] < 4 * moved[0]  # Adam's momentum alone goes on


def test_dropout_is_off_and_the_reference_of_a_model_just_trained_stays_as_it_is() -> None:
    """TRL leaves a forward on the model it has trained, which a copy of it would share."""
    model, tokenizer = toy(0)
    model.config.attention_dropout = 0.5
    sft(model, tokenizer, [example(tokenizer, "c go", "a b")], SFTSettings(steps=1, batch_size=1))
    model.train()
    settings = PPOSettings(
        3, batch_size=64, minibatch=64, learning_rate=1e-2, max_new_tokens=MAX_TOKENS
    )
    log = train_ppo(model, tokenizer, ["c go"], points, settings)
    assert abs(log[0]["kl"]) < 1e-6 and log[-1]["kl"] > 1e-3


def test_a_loss_that_is_not_finite_stops_training_and_names_the_iteration() -> None:
    model, tokenizer = toy(0)
    settings = PPOSettings(5, batch_size=8, minibatch=8)
    message = "PPO, iteration 1 of 5: a loss or a weight is not finite .*; lower the learning rate"
    with pytest.raises(Diverged, match=message):
        train_ppo(model, tokenizer, ["c go"], lambda prompts, texts: [math.nan] * 8, settings)


def test_0_iterations_are_skipped() -> None:
    model, tokenizer = toy(0)
    before = logprobs_of_all(model)
    assert train_ppo(model, tokenizer, ["c go"], points, PPOSettings(0)) == []
    assert torch.equal(logprobs_of_all(model), before)


def test_the_random_state_of_the_caller_stays_as_it_was_and_does_not_matter() -> None:
    settings = PPOSettings(2, batch_size=8, minibatch=8, max_new_tokens=MAX_TOKENS)
    logs = []
    for seed in (1, 2):
        model, tokenizer = toy(0)
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        logs.append(train_ppo(model, tokenizer, ["c go"], points, settings))
        after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    assert logs[0] == logs[1]


def test_adam_is_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One kernel for all tensors: it also works on the CPU, where the plain loop is slow."""
    calls: list[int] = []
    real = torch._fused_adamw_

    def counted(*given: object, **more: object) -> None:
        calls.append(1)
        real(*given, **more)

    monkeypatch.setattr(torch, "_fused_adamw_", counted)
    model, tokenizer = toy(0)
    settings = PPOSettings(1, batch_size=8, minibatch=8, epochs=1, max_new_tokens=MAX_TOKENS)
    train_ppo(model, tokenizer, ["c go"], points, settings)
    assert calls

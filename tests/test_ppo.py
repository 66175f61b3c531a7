"""PPO: advantages by hand, both signs of the clipped loss, KL estimators, and the known optimum
of a toy.
"""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

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
    mean,
    token_logprobs,
    train_ppo,
    whiten,
)
from alignlib.settings import PPOSettings, SFTSettings
from alignlib.tokens import example
from alignlib.train import Diverged, sft

WORDS, LONGEST, BETA = ("<pad>", "<eos>", "go", "a", "b", "c"), 2, 0.2


def test_advantages_by_hand() -> None:
    # two tokens said, gamma 0.5, lam 0.5: delta_1 = 2 - 3 = -1; delta_0 = 0 + 0.5 * 3 - 1 = 0.5;
    # A_1 = -1; A_0 = 0.5 + 0.25 * -1 = 0.25
    rewards, values, mask = (
        torch.tensor([[0.0, 2.0, 9.0]]),
        torch.tensor([[1.0, 3.0, 7.0]]),
        torch.tensor([[1.0, 1.0, 0.0]]),
    )
    assert gae(rewards * mask, values, mask, 0.5, 0.5).tolist() == [[0.25, -1.0, 0.0]]
    rewards, values, mask = torch.rand(3, 5), torch.rand(3, 5), torch.ones(3, 5)
    returns = rewards.flip(1).cumsum(1).flip(1)
    assert torch.allclose(
        gae(rewards, values, mask, 1.0, 1.0), returns - values, atol=1e-6
    )  # the return less the value


def test_a_prompt_before_what_is_said_changes_no_advantage() -> None:
    rewards, values = torch.rand(1, 4), torch.rand(1, 4)
    alone = gae(rewards, values, torch.ones(1, 4), 0.9, 0.8)

    def within(x, around):
        return torch.cat([torch.full((1, 2), around), x, torch.full((1, 3), around)], 1)  # noqa: E731

    assert torch.allclose(
        gae(within(rewards, 0.0), within(values, 5.0), within(torch.ones(1, 4), 0.0), 0.9, 0.8)[
            :, 2:6
        ],
        alone,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "moves"),
    [
        (1.5, 1.0, -1.2, False),
        (1.5, -1.0, 1.5, True),
        (0.5, 1.0, -0.5, True),
        (0.5, -1.0, 0.8, False),
        (1.1, 2.0, -2.2, True),
    ],
)
def test_the_loss_is_clipped_where_the_step_has_gone_far_enough_and_nowhere_else(
    ratio: float, advantage: float, loss: float, moves: bool
) -> None:
    logp = torch.tensor([[ratio]]).log().requires_grad_()
    found = clipped_loss(
        logp, torch.zeros(1, 1), torch.tensor([[advantage]]), torch.ones(1, 1), 0.2
    )
    found.backward()
    assert found.item() == pytest.approx(loss, rel=1e-6) and (logp.grad.abs().item() > 0) == moves


def test_both_estimators_of_kl_have_its_mean() -> None:
    policy, reference = torch.tensor([0.6, 0.3, 0.1]).log(), torch.tensor([0.2, 0.3, 0.5]).log()
    exact = (policy.exp() * (policy - reference)).sum()
    found = kl_estimates(policy, reference)
    for name in ("k1", "k3"):
        assert torch.isclose((policy.exp() * found[name]).sum(), exact), name
    assert (found["k3"] >= 0).all() and (found["k1"] < 0).any()


def test_whitening_and_means_see_what_was_said_only() -> None:
    values, mask = torch.tensor([[1.0, 3.0, 100.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    assert mean(values, mask) == 2 and torch.allclose(
        whiten(values, mask)[0, :2], torch.tensor([-1.0, 1.0]), atol=1e-4
    )


def test_a_batch_marks_what_was_said_and_nothing_else() -> None:
    batch = collate([[2], [2, 3]], [[4, 5, 1], [1]], pad=0, device=torch.device("cpu"))
    assert batch.ids.tolist() == [[2, 4, 5, 1], [2, 3, 1, 0]]
    assert batch.attention.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch.mask.tolist() == [[1, 1, 1], [0, 1, 0]]  # token t is foretold from those before it


def test_what_is_read_is_the_log_probability_of_what_was_said_and_0_before() -> None:
    model, _ = toy(0)
    batch = collate(
        [[2, 3, 4], [2, 3, 4, 5, 3]], [[4, 5, 1], [3]], pad=0, device=torch.device("cpu")
    )
    logp, hidden = token_logprobs(model, batch)
    whole = model(input_ids=batch.ids, attention_mask=batch.attention).logits.log_softmax(-1)
    wanted = whole[:, :-1].gather(2, batch.ids[:, 1:, None])[..., 0]
    assert (
        logp[:, :2].eq(0).all()
        and torch.allclose(logp[:, 2:], wanted[:, 2:], atol=1e-5)
        and logp.shape == batch.mask.shape == hidden.shape[:2]
    )


# --- a toy with a known optimum
# ---------------------------------------------------------------------


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
    return LlamaForCausalLM(config).eval(), PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )


def said_right(prompts: list[str], completions: list[str]) -> list[float]:
    """A point for each "a" that a "b" follows, half of one for stopping by oneself."""
    return [float(f"{c} ".count("a b ")) + 0.5 * (len(c.split()) < LONGEST) for c in completions]


def everything_sayable() -> list[list[int]]:
    """All that can be said in LONGEST tokens: up to and with the first EOS."""
    every = {
        tuple(ids[: ids.index(1) + 1] if 1 in ids else ids)
        for ids in product(range(len(WORDS)), repeat=LONGEST)
    }
    return [list(ids) for ids in sorted(every)]


def logp_of_all(model: LlamaForCausalLM, sayable: list[list[int]]) -> torch.Tensor:
    batch = collate([[5, 2]] * len(sayable), sayable, 0, torch.device("cpu"))
    with torch.no_grad():
        logp = (
            model(input_ids=batch.ids, attention_mask=batch.attention)
            .logits[:, :-1]
            .log_softmax(-1)
        )
    return (logp.gather(-1, batch.ids[:, 1:, None])[..., 0] * batch.mask).sum(1)


def reached(
    model: LlamaForCausalLM, reference: torch.Tensor, tokenizer: PreTrainedTokenizerFast
) -> float:
    """Reward less BETA times KL of a policy, as a share of the best there is. It is greatest for
    pi* ~ pi_ref exp(r / BETA), where it is BETA log Z. (The prompt is of two different words:
    one layer of attention cannot tell "go go" from "go".)
    """
    r = torch.tensor(
        said_right(
            [], [tokenizer.decode(ids, skip_special_tokens=True) for ids in everything_sayable()]
        )
    )
    policy = logp_of_all(model, everything_sayable())
    return float(
        (policy.exp() * (r - BETA * (policy - reference))).sum()
        / (BETA * (reference + r / BETA).logsumexp(0))
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_known_optimum_of_a_toy_is_reached(seed: int) -> None:
    model, tokenizer = toy(seed)
    reference = logp_of_all(model, everything_sayable())
    assert (
        reference.exp().sum() == pytest.approx(1, abs=1e-5)
        and reached(model, reference, tokenizer) < 0.8
    )
    settings = PPOSettings(
        60,
        batch_size=256,
        minibatch=256,
        learning_rate=3e-3,
        value_rate=1e-2,
        kl=BETA,
        max_new_tokens=LONGEST,
        seed=seed,
    )
    log = train_ppo(model, tokenizer, ["c go"], said_right, settings)
    assert reached(model, reference, tokenizer) > 0.98
    assert log[-1]["score"] > log[0]["score"] and abs(log[0]["kl"]) < 1e-5 < log[-1]["kl"]
    assert (
        sum(step["value_loss"] for step in log[-10:])
        < 0.8 * sum(step["value_loss"] for step in log[:3]) * 10 / 3
    )


def test_trls_rloo_comes_to_the_same_optimum(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer

    model, tokenizer = toy(0)
    reference = logp_of_all(model, everything_sayable())
    model.save_pretrained(tmp_path)
    settings = RLOOConfig(
        str(tmp_path),
        max_steps=60,
        per_device_train_batch_size=256,
        num_generations=256,
        max_completion_length=LONGEST,
        beta=BETA,
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
    score = lambda completions, **_: said_right([], completions)  # noqa: E731
    trainer = RLOOTrainer(
        str(tmp_path),
        score,
        settings,
        Dataset.from_dict({"prompt": ["c go"] * 256}),
        processing_class=tokenizer,
    )
    trainer.train()
    assert reached(trainer.model, reference, tokenizer) > 0.98


def test_the_ratio_is_to_the_policy_that_spoke_however_many_epochs_follow() -> None:
    """Clipped at once, all but the first step of an iteration must change next to nothing."""
    moved = []
    for epochs in (1, 8):
        model, tokenizer = toy(0)
        before = logp_of_all(model, everything_sayable())
        settings = PPOSettings(
            1,
            batch_size=64,
            minibatch=64,
            epochs=epochs,
            learning_rate=1e-3,
            clip=1e-6,
            max_new_tokens=LONGEST,
        )
        train_ppo(model, tokenizer, ["c go"], said_right, settings)
        moved.append(float((logp_of_all(model, everything_sayable()) - before).abs().mean()))
    assert moved[1] < 4 * moved[0]  # Adam's momentum alone goes on


def test_dropout_is_off_and_a_model_just_trained_has_a_reference_that_stands_still() -> None:
    """TRL leaves a forward on the model it has trained that a copy of it would share."""
    model, tokenizer = toy(0)
    model.config.attention_dropout = 0.5
    sft(model, tokenizer, [example(tokenizer, "c go", "a b")], SFTSettings(steps=1, batch_size=1))
    model.train()
    log = train_ppo(
        model,
        tokenizer,
        ["c go"],
        said_right,
        PPOSettings(3, batch_size=64, minibatch=64, learning_rate=1e-2, max_new_tokens=LONGEST),
    )
    assert abs(log[0]["kl"]) < 1e-6 and log[-1]["kl"] > 1e-3


def test_a_loss_that_is_no_number_stops_it_and_names_the_iteration() -> None:
    model, tokenizer = toy(0)
    with pytest.raises(
        Diverged,
        match="PPO, iteration 1 of 5: no number among the losses or weights .*; lower the "
        "learning rate",
    ):
        train_ppo(
            model,
            tokenizer,
            ["c go"],
            lambda prompts, completions: [math.nan] * len(prompts),
            PPOSettings(5, batch_size=8, minibatch=8),
        )

"""Proximal policy optimization of a language model, small and readable (arXiv 1707.06347).

One iteration: sample completions, score them, turn the scores into advantages of tokens, and train
the policy on these samples for a few epochs.

    reward of token t   r_t = - kl * (log pi_old(t) - log pi_ref(t)) + [t is the last] * score
    advantage           A_t = sum_l (gamma lam)^l delta_{t+l}                (GAE, arXiv 1506.02438)
                        delta_t = r_t + gamma V_{t+1} - V_t
    policy loss         - min(rho_t A_t, clip(rho_t, 1 - c, 1 + c) A_t)      (eq. 7)
                        rho_t = pi(t) / pi_old(t)
    value loss          (V_t - (A_t + V_old_t))^2

The policy loss takes advantages whitened over all tokens of the iteration. The reference is the
policy before training. A completion cut off at `max_new_tokens` is scored as it is, and its value
after the last token is 0. Tensors are (rows, tokens), padded on the right, with a mask of the
completions' tokens.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .devices import autocast, own_random_state, set_threads
from .generation import sample
from .reward_models import rewards
from .settings import PPOSettings
from .tokens import encode
from .train import Diverged, Penalty

Score = Callable[[Sequence[str], Sequence[str]], Sequence[float]]  # of prompts and completions


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:
    """Generalized advantage estimation, (rows, tokens); the value after the last token is 0."""
    advantages, later = torch.zeros_like(rewards), torch.zeros(len(rewards), device=rewards.device)
    next_values = torch.cat([values[:, 1:] * mask[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_values[:, t] - values[:, t]
        later = mask[:, t] * (delta + gamma * lam * later)
        advantages[:, t] = later
    return advantages


def clipped_loss(
    logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float
) -> Tensor:
    """The policy loss (eq. 7): mean over tokens of the worse of clipped and unclipped objective."""
    ratio = (logprobs - old).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return masked_mean(-torch.min(ratio * advantages, clipped * advantages), mask)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over the tokens where the mask is 1."""
    return (values * mask).sum() / mask.sum()


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """The values shifted and scaled to mean 0 and standard deviation 1 where the mask is 1."""
    centered = values - masked_mean(values, mask)
    return centered / (masked_mean(centered**2, mask).sqrt() + 1e-8)


def kl_estimates(logprobs: Tensor, reference: Tensor) -> dict[str, Tensor]:
    """Unbiased estimates of KL(policy || reference) in nats, at tokens sampled from the policy."""
    ratio = reference - logprobs
    return {"k1": -ratio, "k3": ratio.exp() - 1 - ratio}  # k3 is never negative


class Critic(nn.Module):
    """The value of each prefix, linear in the policy's last hidden state."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        fixed = hidden.detach().float()  # the value loss does not train the policy
        return self.head(fixed)[..., 0]


def reward_model_score(
    reward_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    policy_tokenizer: PreTrainedTokenizerBase,
) -> Score:
    """A reward model (`train.reward_model`) as a score; it reads every completion with an EOS.

    Raises ValueError if its tokenizer is not the policy's, because it would read unknown words.
    """
    if tokenizer.get_vocab() != policy_tokenizer.get_vocab():
        raise ValueError(
            f"the reward model's tokenizer ({len(tokenizer)} tokens) is not the policy's "
            f"({len(policy_tokenizer)}); train the reward model on the policy's base"
        )
    return lambda prompts, texts: rewards(reward_model, tokenizer, prompts, texts).tolist()


@dataclass
class Batch:
    """Prompts and their completions."""

    ids: Tensor  # (rows, tokens)
    attention: Tensor  # (rows, tokens)
    mask: Tensor  # (rows, tokens - 1): whether the next token is a completion's

    def select(self, rows: Tensor) -> Batch:
        return Batch(self.ids[rows], self.attention[rows], self.mask[rows])


def collate(
    prompts: Sequence[list[int]], completions: Sequence[list[int]], pad: int, device: torch.device
) -> Batch:
    """Token ids of prompts and completions as one batch."""
    ids, attention, mask = [], [], []
    width = max(len(p) + len(c) for p, c in zip(prompts, completions, strict=True))
    for prompt, completion in zip(prompts, completions):
        padding = width - len(prompt) - len(completion)
        ids.append(prompt + completion + [pad] * padding)
        attention.append([1] * (width - padding) + [0] * padding)
        mask.append([0] * (len(prompt) - 1) + [1] * len(completion) + [0] * padding)
    mask = torch.tensor(mask, device=device).float()
    return Batch(torch.tensor(ids, device=device), torch.tensor(attention, device=device), mask)


def token_logprobs(model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """log p of each token but the first, and the hidden state that predicts it.

    Shapes (rows, tokens - 1) and (rows, tokens - 1, width). Before the first completion begins,
    log p is 0: its logits are not needed, and with a large vocabulary they are most of the memory.
    """
    first = int(batch.mask.any(0).int().argmax())
    with autocast(model.device):
        out = model(
            input_ids=batch.ids,
            attention_mask=batch.attention,
            output_hidden_states=True,
            use_cache=False,
            logits_to_keep=batch.ids.shape[1] - first,
        )
    logits = out.logits[:, :-1].float().transpose(1, 2)  # (rows, vocabulary, tokens - 1 - first)
    nll = functional.cross_entropy(logits, batch.ids[:, first + 1 :], reduction="none")
    return functional.pad(-nll, (first, 0)), out.hidden_states[-1][:, :-1]


@dataclass
class Rollout:
    """An iteration's completions as the policy that sampled them sees them, (rows, tokens - 1)."""

    batch: Batch
    logprobs: Tensor
    advantages: Tensor  # whitened
    returns: Tensor  # what the critic is trained to predict
    kl: float  # from the reference, in nats per completion
    score: float


def train_ppo(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    score: Score,
    settings: PPOSettings,
    *,
    penalty: Penalty | None = None,
    progress: str | None = None,
) -> list[dict[str, float]]:
    """Optimize `model` in place. Returns a log of each iteration, all of it means.

    Over completions: `score`, `kl` (nats from the reference), `tokens`. Over steps: `loss`,
    `value_loss`, `penalty`. Raises ValueError if there are no prompts, and Diverged, naming the
    iteration, if a loss or a weight is not finite.
    """
    if not prompts:
        raise ValueError("no prompts to sample from: all were dropped or the list is empty")
    if not settings.iterations:
        return []
    set_threads()
    trainer = _Trainer(model, tokenizer, score, settings, penalty)
    log = []
    batches = trainer.draw_batches(prompts)
    for step, picked in enumerate(tqdm(batches, desc=progress, disable=progress is None)):
        rollout = trainer.rollout(picked, seed=settings.seed * 100_003 + step)
        tokens = float(rollout.batch.mask.sum(1).mean())
        losses = trainer.improve(rollout)
        log.append({"score": rollout.score, "kl": rollout.kl, "tokens": tokens, **losses})
        weights_are_finite = all(p.isfinite().all() for p in trainer.parameters)
        if not weights_are_finite or not all(map(math.isfinite, log[-1].values())):
            raise Diverged(
                f"PPO, iteration {step + 1} of {settings.iterations}: a loss or a weight is not "
                f"finite ({log[-1]}); lower the learning rate"
            )
    return log


@dataclass
class _Trainer:
    """One training: beside its arguments, the reference, the critic and the optimizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    score: Score
    settings: PPOSettings
    penalty: Penalty | None

    def __post_init__(self) -> None:
        settings = self.settings
        self.model.eval()  # without dropout: old and new log-probabilities are of one function
        self.reference = copy.deepcopy(self.model).requires_grad_(False)
        with own_random_state():  # a linear layer draws weights, which `Critic` then sets to 0
            critic = Critic(self.model.config.get_text_config().hidden_size)
        self.critic = critic.to(self.model.device)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": self.parameters, "lr": settings.learning_rate},
            {"params": self.critic.parameters(), "lr": settings.value_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda done: 1 - done / settings.iterations
        )
        self.draw = torch.Generator().manual_seed(settings.seed)

    def draw_batches(self, prompts: Sequence[str]) -> list[list[str]]:
        """The prompts of each iteration: epochs of all prompts, each in a new order."""
        size, iterations = self.settings.batch_size, self.settings.iterations
        epochs = 1 + iterations * size // len(prompts)
        order = [torch.randperm(len(prompts), generator=self.draw) for _ in range(epochs)]
        picked = torch.cat(order)[: iterations * size].split(size)
        return [[prompts[i] for i in rows] for rows in picked]

    def rollout(self, prompts: list[str], seed: int) -> Rollout:
        """Sample and score one completion per prompt."""
        ids = [encode(self.tokenizer, prompt) for prompt in prompts]
        limit = self.settings.max_new_tokens
        completions = sample(
            self.model, self.tokenizer, ids, max_new_tokens=limit, temperature=1.0, seed=seed
        )
        decoded = [self.tokenizer.decode(c, skip_special_tokens=True) for c in completions]
        scores = self.score(prompts, [text.strip() for text in decoded])
        batch = collate(ids, completions, self.tokenizer.pad_token_id, self.model.device)
        return self._evaluate(batch, torch.tensor(scores, dtype=torch.float32))

    @torch.no_grad()
    def _evaluate(self, batch: Batch, scores: Tensor) -> Rollout:
        """Log-probabilities, advantages and returns, before the policy is changed."""
        settings, mask = self.settings, batch.mask
        all_rows = torch.arange(len(scores), device=mask.device)
        parts = []
        for rows in all_rows.split(settings.minibatch):
            selected = batch.select(rows)
            logprobs, hidden = token_logprobs(self.model, selected)
            reference, _ = token_logprobs(self.reference, selected)
            parts.append((logprobs, reference, self.critic(hidden)))
        logprobs, reference, values = map(torch.cat, zip(*parts))
        kl = kl_estimates(logprobs, reference)
        token_rewards = -settings.kl * kl["k1"] * mask
        last = mask.cumsum(1).argmax(1)  # (rows,): the last token of each completion
        token_rewards[all_rows, last] += scores.to(mask.device)
        advantages = gae(token_rewards, values, mask, settings.gamma, settings.lam)
        mean_kl, mean_score = float((kl["k3"] * mask).sum(1).mean()), float(scores.mean())
        returns = advantages + values
        return Rollout(batch, logprobs, whiten(advantages, mask), returns, mean_kl, mean_score)

    def improve(self, rollout: Rollout) -> dict[str, float]:
        """Train for a few epochs on one iteration's completions. Returns the mean losses."""
        losses = []
        for _ in range(self.settings.epochs):
            shuffled = torch.randperm(len(rollout.logprobs), generator=self.draw)
            for rows in shuffled.split(self.settings.minibatch):
                losses.append(self._step(rollout, rows))
        self.schedule.step()
        means = torch.tensor(losses).mean(0).tolist()
        return dict(zip(("loss", "value_loss", "penalty"), means, strict=True))

    def _step(self, rollout: Rollout, rows: Tensor) -> list[float]:
        """One step of policy and critic on a minibatch."""
        mask, old = rollout.batch.mask[rows], rollout.logprobs[rows]
        logprobs, hidden = token_logprobs(self.model, rollout.batch.select(rows))
        advantages = rollout.advantages[rows]
        loss = clipped_loss(logprobs, old, advantages, mask, self.settings.clip)
        value_loss = masked_mean((self.critic(hidden) - rollout.returns[rows]) ** 2, mask)
        penalty = self.penalty(self.model) if self.penalty is not None else torch.zeros(())
        self.optimizer.zero_grad()
        (loss + value_loss + penalty.to(loss.device)).backward()
        for group in self.optimizer.param_groups:  # clip policy and critic separately
            nn.utils.clip_grad_norm_(group["params"], self.settings.max_grad_norm)
        self.optimizer.step()
        return [float(x.detach()) for x in (loss, value_loss, penalty)]

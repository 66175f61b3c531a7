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
policy before training, kept as a copy of what is trained (with LoRA the adapter alone). A
completion cut off at `max_new_tokens` is scored as it is, and its value after the last token is 0.
Tensors are (rows, tokens), padded on the right, with a mask of the completions' tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from . import processes
from .devices import autocast, compute_dtype, own_random_state, set_threads
from .ewc import copy_weights, exchanged
from .generation import sample
from .likelihood import states_and_logits
from .prompts import AS_IS
from .reward_models import rewards
from .settings import PPOSettings
from .tokens import prompt_ids
from .trainer_tools import Diverged
from .trainers import Penalty, add_penalty

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


def reward_model_score(reward_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Score:
    """A reward model as a score; it reads texts, with its own tokenizer, to their end."""
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
    """log p of each completion token, and the hidden state that predicts it; 0 for other tokens.

    Shapes (rows, tokens - 1) and (rows, tokens - 1, width). Logits are computed for the completions
    alone: with a large vocabulary they are most of the memory.
    """
    at = functional.pad(batch.mask.bool(), (0, 1))  # (rows, tokens): where one is predicted
    inputs = {"input_ids": batch.ids, "attention_mask": batch.attention}
    with autocast(model.device):
        states, logits = states_and_logits(model, inputs, at)
    targets = batch.ids[:, 1:][batch.mask.bool()]
    found = -functional.cross_entropy(logits.float(), targets, reduction="none")
    logprobs = torch.zeros_like(batch.mask)
    hidden = states.new_zeros(*batch.mask.shape, states.shape[-1])
    where = batch.mask.bool()
    return logprobs.masked_scatter(where, found), hidden.masked_scatter(where[..., None], states)


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
    form: str = AS_IS,
    penalty: Penalty | None = None,
    progress: str | None = None,
) -> list[dict[str, float]]:
    """Optimize `model` in place. Returns a log of each iteration, all of it means.

    `form` is that of the prompts (`prompts.py`); the score is handed them as they are.

    Over completions: `score`, `kl` (nats from the reference), `tokens`. Over steps: `loss`,
    `value_loss`, `penalty`. Raises ValueError if there are no prompts, and Diverged, naming the
    iteration, if a loss or a weight is not finite.
    """
    if not prompts:
        raise ValueError("no prompts to sample from: all were dropped or the list is empty")
    if not settings.iterations:
        return []
    processes.refuse("PPO")
    set_threads()
    trainer = _Trainer(model, tokenizer, score, settings, penalty, form)
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
    form: str

    def __post_init__(self) -> None:
        settings = self.settings
        self.model.eval()  # without dropout: old and new log-probabilities are of one function
        self.reference = copy_weights(self.model)
        with own_random_state():  # a linear layer draws weights, which `Critic` then sets to 0
            critic = Critic(self.model.config.get_text_config().hidden_size)
        self.critic = critic.to(self.model.device)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": self.parameters, "lr": settings.learning_rate},
            {"params": self.critic.parameters(), "lr": settings.value_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0, fused=True)
        device = self.model.device
        self.scaler = torch.amp.GradScaler(
            device.type, enabled=compute_dtype(device) == torch.float16
        )
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
        ids = [prompt_ids(self.tokenizer, prompt, self.form) for prompt in prompts]
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
            with exchanged(self.model, self.reference):
                reference, _ = token_logprobs(self.model, selected)
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
        self.optimizer.zero_grad()
        self.scaler.scale(loss + value_loss).backward()
        penalty = 0.0
        if self.penalty is not None:
            penalty = add_penalty(self.penalty, self.model, self.scaler.get_scale())
        self.scaler.unscale_(self.optimizer)
        for group in self.optimizer.param_groups:  # clip policy and critic separately
            nn.utils.clip_grad_norm_(group["params"], self.settings.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return [float(x) for x in (loss.detach(), value_loss.detach(), penalty)]

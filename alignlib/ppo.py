"""Proximal policy optimisation of a language model, small and readable (arXiv 1707.06347; TRL
removed its own).

One iteration: sample completions; score each; share the score out over its tokens; improve on those
samples for a few epochs.

    reward of token t   r_t = - kl * (log pi_old(t) - log pi_ref(t)) + [t is the last] * score
    advantage           A_t = sum_l (gamma lam)^l delta_{t+l}                (GAE, arXiv 1506.02438)
                        delta_t = r_t + gamma V_{t+1} - V_t
    policy loss         - min(rho_t A_t, clip(rho_t, 1 - c, 1 + c) A_t)      (eq. 7)
                        rho_t = pi(t) / pi_old(t)
    value loss          (V_t - (A_t + V_old_t))^2

Advantages enter the policy loss whitened, over all tokens of the iteration. The reference is the
policy as it comes in. A reply that is cut off at `max_new_tokens` is scored as it stands, and worth
nothing beyond. All tensors are (rows, tokens), padded on the right, with a mask of the tokens that
were said.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .generation import sample
from .likelihood import rewards
from .models import autocast, set_threads
from .settings import PPOSettings
from .tokens import encode
from .train import Diverged, Penalty

Score = Callable[
    [Sequence[str], Sequence[str]], Sequence[float]
]  # (prompts, completions): one number each


def gae(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float
) -> torch.Tensor:
    """Advantages by generalised advantage estimation; behind the last token said the value is 0."""
    found, later = torch.zeros_like(rewards), torch.zeros(len(rewards), device=rewards.device)
    following = torch.cat([values[:, 1:] * mask[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * following[:, t] - values[:, t]
        later = mask[:, t] * (delta + gamma * lam * later)
        found[:, t] = later
    return found


def clipped_loss(
    logp: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor, clip: float
) -> torch.Tensor:
    """Mean over the tokens said of the pessimistic of two: the ratio times the advantage, with
    the ratio as it is and clipped.
    """
    ratio = (logp - old).exp()
    return mean(-torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages), mask)


def mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (values * mask).sum() / mask.sum()


def whiten(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean 0 and standard deviation 1 over the tokens said."""
    centred = values - mean(values, mask)
    return centred / (mean(centred**2, mask).sqrt() + 1e-8)


def kl_estimates(logp: torch.Tensor, reference: torch.Tensor) -> dict[str, torch.Tensor]:
    """Estimates of KL(policy || reference) at tokens drawn from the policy, each without bias:
    `k1` may be below 0, `k3` never is.
    """
    ratio = reference - logp
    return {"k1": -ratio, "k3": ratio.exp() - 1 - ratio}


class Critic(torch.nn.Module):
    """What a prefix is worth: one number for each token, from the policy's last hidden state,
    which is not changed by it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = torch.nn.Linear(width, 1)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.head(hidden.detach().float())[..., 0]


def reward_of(
    judge: PreTrainedModel, its: PreTrainedTokenizerBase, tokenizer: PreTrainedTokenizerBase
) -> Score:
    """A reward model (`train.reward_model`) as a score: of a reply as if it had ended there, be it
    cut off or not.

    Raises ValueError if its tokenizer is not the policy's: it would read words that it has never
    met.
    """
    if its.get_vocab() != tokenizer.get_vocab():
        raise ValueError(
            f"the reward model's tokenizer has {len(its)} tokens and is not the policy's of "
            f"{len(tokenizer)}; "
            "train the reward model on the policy's base, or score texts by a program"
        )
    return lambda prompts, completions: rewards(judge, its, prompts, completions).tolist()


@dataclass
class Rollout:
    """Prompts and sampled completions as one batch; `mask` marks the tokens said, eos among
    them.
    """

    ids: torch.Tensor
    attention: torch.Tensor
    mask: torch.Tensor

    def pick(self, rows: torch.Tensor) -> Rollout:
        return Rollout(self.ids[rows], self.attention[rows], self.mask[rows])


def collate(
    prompts: Sequence[list[int]], said: Sequence[list[int]], pad: int, device: torch.device
) -> Rollout:
    width = max(len(p) + len(s) for p, s in zip(prompts, said, strict=True))
    rows = [p + s for p, s in zip(prompts, said)]
    ids = torch.tensor([r + [pad] * (width - len(r)) for r in rows], device=device)
    attention = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows], device=device)
    mask = torch.tensor(
        [
            [0] * (len(p) - 1) + [1] * len(s) + [0] * (width - len(p) - len(s))
            for p, s in zip(prompts, said)
        ],
        device=device,
    )
    return Rollout(ids, attention, mask.float())


def token_logprobs(model: PreTrainedModel, batch: Rollout) -> tuple[torch.Tensor, torch.Tensor]:
    """log p of each token but the first (0 where no row has said anything yet), and the hidden
    state it was foretold from.
    """
    first = int(
        batch.mask.any(0).int().argmax()
    )  # before it logits are of no use, and with a large vocabulary they are most of the memory
    with autocast(model.device):
        out = model(
            input_ids=batch.ids,
            attention_mask=batch.attention,
            output_hidden_states=True,
            use_cache=False,
            logits_to_keep=batch.ids.shape[1] - first,
        )
    logits = out.logits[:, :-1].float().transpose(1, 2)
    nll = torch.nn.functional.cross_entropy(logits, batch.ids[:, first + 1 :], reduction="none")
    return torch.nn.functional.pad(-nll, (first, 0)), out.hidden_states[-1][:, :-1]


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
    """Optimise `model` in place. Returns for each iteration means over its replies: `score`, `kl`
    (nats from the reference), `tokens`; and `loss`, `value_loss`, `penalty`.

    Raises ValueError if there are no prompts; Diverged, naming the iteration, if a loss or a weight
    is no number.
    """
    if not prompts:
        raise ValueError("no prompts to sample from: all were dropped or the list is empty")
    set_threads()
    model.eval()  # no dropout: old and new log-probabilities must be of one model
    reference = copy.deepcopy(model).requires_grad_(False)
    critic = Critic(model.config.hidden_size).to(model.device)
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": learning, "lr": settings.learning_rate},
            {"params": critic.parameters(), "lr": settings.value_rate},
        ],
        weight_decay=0.0,
    )
    fading = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: 1 - done / settings.iterations
    )
    draw, log = torch.Generator().manual_seed(settings.seed), []
    order = torch.cat(
        [
            torch.randperm(len(prompts), generator=draw)
            for _ in range(1 + settings.iterations * settings.batch_size // len(prompts))
        ]
    )
    for step in tqdm(range(settings.iterations), desc=progress, disable=progress is None):
        picked = [
            prompts[i] for i in order[step * settings.batch_size : (step + 1) * settings.batch_size]
        ]
        rows = [encode(tokenizer, p) for p in picked]
        said = sample(
            model,
            tokenizer,
            rows,
            max_new_tokens=settings.max_new_tokens,
            temperature=1.0,
            seed=settings.seed * 100_003 + step,
        )
        scores = torch.tensor(
            score(picked, [tokenizer.decode(s, skip_special_tokens=True).strip() for s in said]),
            dtype=torch.float32,
        )
        batch = collate(rows, said, tokenizer.pad_token_id, model.device)
        old = _score_rollout(model, reference, critic, batch, scores.to(model.device), settings)
        losses = _improve(model, critic, optimizer, batch, old, settings, penalty, draw)
        log.append(
            {
                "score": float(scores.mean()),
                "kl": old.kl,
                "tokens": float(batch.mask.sum(1).mean()),
                **losses,
            }
        )
        if not all(map(math.isfinite, log[-1].values())) or not all(
            p.isfinite().all() for p in learning
        ):
            where = f"PPO, iteration {step + 1} of {settings.iterations}"
            raise Diverged(
                f"{where}: no number among the losses or weights ({log[-1]}); lower the "
                "learning rate"
            )
        fading.step()
    return log


@dataclass
class Reference:
    """What is known of an iteration's replies before the policy is changed, (rows, tokens) each."""

    logp: torch.Tensor
    advantages: torch.Tensor  # whitened
    returns: torch.Tensor
    kl: float


@torch.no_grad()
def _score_rollout(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    critic: Critic,
    batch: Rollout,
    scores: torch.Tensor,
    settings: PPOSettings,
) -> Reference:
    parts = [
        batch.pick(rows)
        for rows in torch.arange(len(scores), device=scores.device).split(settings.minibatch)
    ]
    found = [(*token_logprobs(model, part), token_logprobs(reference, part)[0]) for part in parts]
    old, ref = (torch.cat([f[i] for f in found]) for i in (0, 2))
    values = torch.cat([critic(f[1]) for f in found])
    away, mask = kl_estimates(old, ref), batch.mask
    given = -settings.kl * away["k1"] * mask
    given[torch.arange(len(given)), mask.cumsum(1).argmax(1)] += scores  # at the last token said
    advantages = gae(given, values, mask, settings.gamma, settings.lam)
    return Reference(
        old,
        whiten(advantages, mask),
        advantages + values,
        float((away["k3"] * mask).sum(1).mean()),
    )


def _improve(
    model: PreTrainedModel,
    critic: Critic,
    optimizer: torch.optim.Optimizer,
    batch: Rollout,
    old: Reference,
    settings: PPOSettings,
    penalty: Penalty | None,
    draw: torch.Generator,
) -> dict[str, float]:
    """A few epochs of steps on one iteration's replies. Returns their mean losses."""
    told = []
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(old.logp), generator=draw).split(settings.minibatch):
            logp, hidden = token_logprobs(model, batch.pick(rows))
            mask = batch.mask[rows]
            loss = clipped_loss(logp, old.logp[rows], old.advantages[rows], mask, settings.clip)
            value_loss = mean((critic(hidden) - old.returns[rows]) ** 2, mask)
            held = penalty(model) if penalty is not None else torch.zeros(())
            optimizer.zero_grad()
            (loss + value_loss + held.to(loss.device)).backward()
            for group in optimizer.param_groups:  # the critic's gradient apart from the policy's
                torch.nn.utils.clip_grad_norm_(group["params"], settings.max_grad_norm)
            optimizer.step()
            told.append([float(x.detach()) for x in (loss, value_loss, held)])
    return dict(
        zip(("loss", "value_loss", "penalty"), torch.tensor(told).mean(0).tolist(), strict=True)
    )

"""Pretrain the town's base model from scratch: `python -m alignlib pretrain --out DIR`.

A plain PyTorch loop over packed documents, without padding. If it is stopped and run again, it
resumes from its last saved state. The documents are generated row by row and need no storage.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from ..devices import set_threads
from ..tokens import IGNORED, example
from .documents import copy_document, pretraining
from .sets import row_rng
from .tokenizer import build_tokenizer
from .words import WORLD_VERSION


@dataclass(frozen=True)
class Recipe:
    """Model and training settings of a base model."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward: int = 352
    context: int = 256  # tokens in a packed row
    batch: int = 16  # packed rows in a step
    steps: int = 6_000
    matrix_lr: float = 0.005  # Muon, for the weight matrices
    prompt_weight: float = 0.1  # of the tokens before the answer in the loss
    other_lr: float = 3e-3  # AdamW, for embeddings and norms
    # Of the matrices. Without it they grow, and fine-tuning hardly changes the model any more.
    weight_decay: float = 0.1
    warmup_steps: int = 60
    seed: int = 0

    @property
    def tokens(self) -> int:
        """The number of tokens to train on."""
        return self.steps * self.batch * self.context

    def lr_scale(self, step: int) -> float:
        """The learning rate over its peak: warm-up, constant, linear decay in the last 40 %."""
        return min(1.0, (step + 1) / self.warmup_steps, (self.steps - step) / (0.4 * self.steps))

    def checkpoints(self) -> list[int]:
        """After how many steps a copy is saved: more at the start, where copying is learned."""
        return sorted({round(self.steps * (k / 12) ** 2) for k in range(13)})


Build = Callable[[Recipe, PreTrainedTokenizerFast], PreTrainedModel]
Optimizers = list[torch.optim.Optimizer]


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama model of the recipe's size with random weights."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def packed_rows(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe
) -> Iterator[tuple[list[int], list[float]]]:
    """Documents as <bos> words <eos>, joined and cut into rows of (token ids, loss weights).

    Tokens before "answer :" or "again :" are random and cannot be predicted. At full weight their
    loss would be mostly noise, so they count `prompt_weight`.
    """
    vocab = tokenizer.get_vocab()
    ids, weights = [], []
    marks = [(vocab["answer"], vocab[":"]), (vocab["again"], vocab[":"])]
    for document in pretraining():
        tokens = [vocab["<bos>"], *map(vocab.__getitem__, document.split()), vocab["<eos>"]]
        start = next(i for i, pair in enumerate(zip(tokens, tokens[1:])) if pair in marks) + 2
        ids += tokens
        weights += [recipe.prompt_weight] * start + [1.0] * (len(tokens) - start)
        while len(ids) >= recipe.context:
            yield ids[: recipe.context], weights[: recipe.context]
            del ids[: recipe.context], weights[: recipe.context]


@torch.no_grad()
def copy_accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, n: int = 64, words: int = 20
) -> float:
    """Fraction of tokens copied correctly from n random lists, teacher-forced, without EOS."""
    documents = [copy_document(row_rng("copy probe", i), words, "test") for i in range(n)]
    training = model.training
    model.eval()
    correct = total = 0
    for listed, again in (document.split(" again : ") for document in documents):
        row = example(tokenizer, f"{listed} again :", again)
        ids = torch.tensor([row["input_ids"]], device=model.device)  # (1, time)
        targets = torch.tensor(row["labels"][1:-1])  # (time - 2,)
        predicted = model(input_ids=ids).logits[0, :-2].argmax(-1).cpu()
        counted = targets != IGNORED
        correct += ((predicted == targets) & counted).sum().item()
        total += counted.sum().item()
    model.train(training)
    return correct / total


def optimizers(model: PreTrainedModel, recipe: Recipe) -> Optimizers:
    """Muon for the weight matrices, AdamW for embeddings and norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    muon = torch.optim.Muon(
        matrices,
        lr=recipe.matrix_lr,
        weight_decay=recipe.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    adamw = torch.optim.AdamW(
        rest, lr=recipe.other_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    return [muon, adamw]


def use_bf16() -> bool:
    """Whether to compute in bf16. Processors that only emulate it take four times as long."""
    return torch.backends.cpu.get_cpu_capability() != "AVX2"


def train_step(
    model: PreTrainedModel,
    ids: torch.Tensor,
    weights: torch.Tensor,
    opts: Optimizers,
    lr_scale: float,
) -> float:
    """One step on ids and loss weights of shape (batch, context); returns the weighted loss."""
    with torch.autocast("cpu", torch.bfloat16, enabled=use_bf16()):
        logits = model(input_ids=ids).logits[:, :-1]  # (batch, context - 1, vocab)
    losses = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    loss = (losses * weights[:, 1:].flatten()).sum() / weights[:, 1:].sum()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for opt in opts:
        for group in opt.param_groups:
            group["lr"] = group.setdefault("top_lr", group["lr"]) * lr_scale
        opt.step()
        opt.zero_grad()
    return loss.item()


def pretrain_base(out: Path, recipe: Recipe = Recipe(), build: Build = build_model) -> Path:
    """Pretrain the model of `build`, or resume, and return its folder `out/model`.

    `out` also gets a dozen checkpoints and a log. Raises ValueError if `out` contains a state of
    another recipe or version of the world.
    """
    set_threads()
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    model = build(recipe, tokenizer)
    opts = optimizers(model, recipe)
    state = _resume(out, model, opts, recipe)
    rows = islice(packed_rows(tokenizer, recipe), state["step"] * recipe.batch, None)
    checkpoints = set(recipe.checkpoints())
    steps = range(state["step"], recipe.steps)
    started = time.monotonic()
    for step in tqdm(steps, initial=state["step"], total=recipe.steps, desc="pretraining"):
        last = step + 1 == recipe.steps
        if step in checkpoints:
            _save(out / f"checkpoints/{step:05d}", model, tokenizer)
        ids, weights = map(torch.tensor, zip(*islice(rows, recipe.batch)))
        loss = train_step(model, ids, weights, opts, recipe.lr_scale(step))
        state["curve"].append(round(loss, 4))
        if step % 50 == 0 or last:
            state["copying"].append([step, round(copy_accuracy(model, tokenizer), 4)])
        if step % 250 == 249 or last:
            state["seconds"] += time.monotonic() - started
            started = time.monotonic()
            _save_state(out, model, opts, state | {"step": step + 1})
    _save(out / "model", model, tokenizer)
    _write_log(out / "pretraining.json", model, recipe, state)
    return out / "model"


def _write_log(file: Path, model: PreTrainedModel, recipe: Recipe, state: dict) -> None:
    """The settings, the loss as means over 20 steps, and the copying accuracy."""
    curve = state["curve"]
    starts = range(0, len(curve), 20)
    means = [sum(curve[i : i + 20]) / len(curve[i : i + 20]) for i in starts]
    log = {
        "recipe": asdict(recipe),
        "parameters": model.num_parameters(),
        "tokens": recipe.tokens,
        "seconds": round(state["seconds"]),
        "precision": "bf16" if use_bf16() else "fp32",
        "world": WORLD_VERSION,
        "loss": [[i, round(mean, 3)] for i, mean in zip(starts, means)],
        "copying": state["copying"],
    }
    file.write_text(json.dumps(log), encoding="utf-8")


def _save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _save_state(out: Path, model: PreTrainedModel, opts: Optimizers, state: dict) -> None:
    part = out / "state.pt.part"
    weights, moments = model.state_dict(), [o.state_dict() for o in opts]
    torch.save({"model": weights, "opts": moments, "state": state}, part)
    part.replace(out / "state.pt")


def _resume(out: Path, model: PreTrainedModel, opts: Optimizers, recipe: Recipe) -> dict:
    made_with = {"recipe": asdict(recipe), "world": WORLD_VERSION}
    if not (out / "state.pt").exists():
        return {"step": 0, "curve": [], "copying": [], "seconds": 0.0, **made_with}
    saved = torch.load(out / "state.pt", weights_only=True)
    if any(saved["state"].get(k) != v for k, v in made_with.items()):
        raise ValueError(
            f"{out}/state.pt is of another recipe or version of the world; delete the folder or "
            "choose another one"
        )
    model.load_state_dict(saved["model"])
    for opt, state in zip(opts, saved["opts"], strict=True):
        opt.load_state_dict(state)
    return saved["state"]

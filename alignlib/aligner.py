"""The Aligner: a small model that corrects another model's answers (arXiv 2402.02416).

It learns from rows of question q, answer a and correction c. The loss is the cross-entropy of the
correction, given question and answer (eq. 4):

    min_phi  -E_(q, a, c) [ log mu_phi(c | a, q) ]

A warm-up on identity rows, c = a, can come first: it teaches the model to copy before it learns to
correct (section 3, "residual correction"). Lesson 02 builds it by hand.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .artefacts import artefact
from .data import QAC
from .generation import generate
from .likelihood import completion_nll
from .models import add_lora, fingerprint, load_model, save_model
from .prompts import TOWN, Template
from .settings import SFTSettings
from .tokens import context_length, encode, example, fitting
from .train import Penalty, sft

SETTINGS_FILE = "aligner.json"


@dataclass
class Aligner:
    """A trained corrector: `losses` by stage, `dropped` counts rows left out, by reason."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: Template = TOWN
    losses: dict[str, list[float]] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)

    @classmethod
    def train(
        cls,
        base: str | Path,
        corrections: Sequence[QAC],
        identity: Sequence[QAC] = (),
        *,
        settings: SFTSettings,
        warmup: SFTSettings | None = None,
        template: Template = TOWN,
        lora_rank: int = 0,
        penalty: Penalty | None = None,
        progress: bool = True,
    ) -> Aligner:
        """Fine-tune a base model (folder or hub id) on identity rows, if any, then on corrections.

        `warmup` are the settings of the first stage, `settings` those of the second, for which
        optimizer and learning rate start anew and `penalty` is added to the loss. With a
        `lora_rank` only LoRA matrices of that rank are trained, then merged into the weights.
        A stage of 0 steps is skipped. Raises ValueError for identity rows without `warmup`.
        """
        if identity and warmup is None:
            raise ValueError(
                f"{len(identity)} identity rows, but no settings to train on them: pass "
                "warmup=SFTSettings(steps=...), or no identity rows"
            )
        aligner = cls(*load_model(base), template)
        aligner.model = add_lora(aligner.model, lora_rank, settings.seed)
        aligner._stage("identity", identity, warmup, None, progress)
        aligner._stage("correction", corrections, settings, penalty, progress)
        if lora_rank:
            aligner.model = aligner.model.merge_and_unload()
        return aligner

    @classmethod
    def cached(
        cls,
        base: str | Path,
        corrections: Sequence[QAC],
        identity: Sequence[QAC] = (),
        *,
        settings: SFTSettings,
        warmup: SFTSettings | None = None,
        template: Template = TOWN,
        lora_rank: int = 0,
    ) -> Aligner:
        """The result of `train`, loaded from the cache if the same training has been run before."""
        options = dict(settings=settings, warmup=warmup, template=template, lora_rank=lora_rank)

        def build(folder: Path) -> None:
            cls.train(base, corrections, identity, **options).save_pretrained(folder)

        inputs = [fingerprint(base), list(corrections), list(identity), options]
        return cls.from_pretrained(artefact("aligner", inputs, build, ("aligner", "prompts")))

    def _stage(
        self,
        name: str,
        rows: Sequence[QAC],
        settings: SFTSettings | None,
        penalty: Penalty | None,
        progress: bool,
    ) -> None:
        if not rows or not settings.steps:
            return
        kept, too_long = fitting([self.tokens(row) for row in rows], self.context)
        if too_long:
            reason = f"{name} row longer than the context of {self.context} tokens"
            self.dropped[reason] += too_long
        label = f"{name} steps" if progress else None
        self.losses[name] = sft(
            self.model, self.tokenizer, kept, settings, penalty=penalty, progress=label
        )

    @property
    def context(self) -> int:
        """The longest input the model can read, in tokens."""
        return context_length(self.model)

    def prompt(self, question: str, answer: str) -> str:
        """What the model reads before it writes the correction."""
        return self.template.prompt(question, answer)

    def correct(
        self,
        questions: Sequence[str],
        answers: Sequence[str],
        *,
        temperature: float = 0.0,
        seed: int = 0,
        progress: str | None = None,
    ) -> list[str]:
        """The correction of each answer, in order; greedy at temperature 0.

        An answer too long for the context is returned as it is and counted in `dropped`.
        """
        prompts = [self.prompt(q, a) for q, a in zip(questions, answers, strict=True)]
        limits = [self._max_new_tokens(answer) for answer in answers]
        lengths = [len(encode(self.tokenizer, prompt)) for prompt in prompts]
        fits = [i for i in range(len(prompts)) if lengths[i] + limits[i] <= self.context]
        if too_long := len(prompts) - len(fits):
            self.dropped["answer returned as it was: too long for the context"] += too_long
        texts = generate(
            self.model,
            self.tokenizer,
            [prompts[i] for i in fits],
            max_new_tokens=[limits[i] for i in fits],
            temperature=temperature,
            seed=seed,
            progress=progress,
        )
        corrections = list(answers)
        for i, text in zip(fits, texts, strict=True):
            corrections[i] = text
        return corrections

    def _max_new_tokens(self, answer: str) -> int:
        """Half as much again as the answer and 64 tokens, but at most half the context."""
        return min(len(encode(self.tokenizer, answer)) * 3 // 2 + 64, self.context // 2)

    def fitting(self, rows: Sequence[QAC]) -> list[QAC]:
        """The rows that fit the context, correction included."""
        return [row for row in rows if len(self.tokens(row)["input_ids"]) <= self.context]

    def tokens(self, row: QAC) -> dict[str, list[int]]:
        """`input_ids` and `labels` of a row: the loss is on the correction and its EOS."""
        return example(self.tokenizer, self.prompt(row.question, row.answer), row.correction)

    def nll(self, rows: Sequence[QAC], answers: Sequence[str] | None = None) -> torch.Tensor:
        """NLL of each row's correction, in nats per token, shape (n,).

        It is conditioned on the row's own answer or, if given, on the one in `answers`.
        """
        answers = [row.answer for row in rows] if answers is None else answers
        prompts = [self.prompt(r.question, a) for r, a in zip(rows, answers, strict=True)]
        return completion_nll(self.model, self.tokenizer, prompts, [r.correction for r in rows])

    def save_pretrained(self, folder: str | Path) -> None:
        """Write weights, tokenizer and `aligner.json`, which holds the template."""
        save_model(folder, self.model, self.tokenizer)
        about = {"template": asdict(self.template), "losses": self.losses, "dropped": self.dropped}
        (Path(folder) / SETTINGS_FILE).write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Aligner:
        """Load what `save_pretrained` wrote."""
        model, tokenizer = load_model(folder)
        about = json.loads((Path(folder) / SETTINGS_FILE).read_text(encoding="utf-8"))
        template = Template.from_saved(about["template"])
        return cls(model, tokenizer, template, about["losses"], Counter(about["dropped"]))

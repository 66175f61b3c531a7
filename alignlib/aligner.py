"""The Aligner: a small model that learns to correct another model's answers (arXiv 2402.02416).

Its loss is plain cross-entropy on the correction behind question and answer (eq. 4),

    min_phi  -E_(q, a, c) [ log mu_phi(c | a, q) ]

after an optional warm-up on identity rows, c = a, which teaches it to copy before it
learns to correct (section 3, "residual correction"). Built by hand in lesson 02.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .artefacts import artefact
from .data import QAC
from .generation import generate
from .likelihood import completion_nll
from .models import add_lora, fingerprint, load_model, save_model
from .prompts import TOWN, Template, template
from .settings import SFTSettings
from .tokens import encode, example, fitting
from .train import Penalty, sft

SETTINGS_FILE = "aligner.json"


@dataclass
class Aligner:
    """A trained corrector. `losses` holds each stage's curve; `dropped` counts training rows
    left out, by reason.
    """

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
        """Fine-tune a base model (folder or hub id): `warmup` on identity rows if there are any,
        then `settings` on corrections.

        Optimiser and learning rate start anew for the second stage. `penalty` is added to its loss.
        With a `lora_rank` only LoRA matrices of that rank are trained, and merged into the weights
        at the end.
        """
        aligner = cls(*load_model(base), template)
        aligner.model = add_lora(aligner.model, lora_rank, settings.seed)
        if identity and warmup:
            aligner._stage("identity", identity, warmup, None, progress)
        if corrections:
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
        """What `train` gives, taken from the cache if the very same training has been run
        before.
        """
        inputs = [
            fingerprint(base),
            list(corrections),
            list(identity),
            settings,
            warmup,
            template.name,
            lora_rank,
        ]
        given = dict(settings=settings, warmup=warmup, template=template, lora_rank=lora_rank)

        def build(folder: Path) -> None:
            cls.train(base, corrections, identity, **given).save_pretrained(folder)

        return cls.from_pretrained(artefact("aligner", inputs, build, ("aligner",)))

    def _stage(
        self,
        name: str,
        rows: Sequence[QAC],
        settings: SFTSettings,
        penalty: Penalty | None,
        progress: bool,
    ) -> None:
        kept, long = fitting([self.tokens(r) for r in rows], self.context)
        if long:
            self.dropped[f"{name} row longer than the context of {self.context} tokens"] += long
        self.losses[name] = sft(
            self.model,
            self.tokenizer,
            kept,
            settings,
            penalty=penalty,
            progress=f"{name} steps" if progress else None,
        )

    @property
    def context(self) -> int:
        """The longest row, in tokens, that the model can read."""
        return self.model.config.max_position_embeddings

    def prompt(self, question: str, answer: str) -> str:
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
        """The correction of each answer, in order. What is too long for the context comes back
        as it was, counted in `dropped`.
        """
        prompts = [self.prompt(q, a) for q, a in zip(questions, answers, strict=True)]
        rooms = [
            min(len(encode(self.tokenizer, a)) * 3 // 2 + 64, self.context // 2) for a in answers
        ]  # tokens it may take
        fits = [
            i
            for i, p in enumerate(prompts)
            if len(encode(self.tokenizer, p)) + rooms[i] <= self.context
        ]
        if len(fits) < len(prompts):
            self.dropped["answer returned as it was: too long for the context"] += len(
                prompts
            ) - len(fits)
        corrected = list(answers)
        texts = generate(
            self.model,
            self.tokenizer,
            [prompts[i] for i in fits],
            max_new_tokens=[rooms[i] for i in fits],
            temperature=temperature,
            seed=seed,
            progress=progress,
        )
        for i, text in zip(fits, texts, strict=True):
            corrected[i] = text
        return corrected

    def fitting(self, rows: Sequence[QAC]) -> list[QAC]:
        """The rows that fit the context with their correction."""
        return [r for r in rows if len(self.tokens(r)["input_ids"]) <= self.context]

    def tokens(self, row: QAC) -> dict[str, list[int]]:
        """`input_ids` and `labels` of a row in this Aligner's template: the loss is on the
        correction and its EOS.
        """
        return example(self.tokenizer, self.prompt(row.question, row.answer), row.correction)

    def nll(self, rows: Sequence[QAC], answers: Sequence[str] | None = None):
        """NLL per token (nats) of each row's correction behind its answer, or behind the
        `answers` given instead; shape (n,).
        """
        answers = [r.answer for r in rows] if answers is None else answers
        prompts = [self.prompt(r.question, a) for r, a in zip(rows, answers, strict=True)]
        return completion_nll(self.model, self.tokenizer, prompts, [r.correction for r in rows])

    def save_pretrained(self, folder: str | Path) -> None:
        """Weights, tokenizer, and `aligner.json`, which names the template the model was trained
        with.
        """
        save_model(folder, self.model, self.tokenizer)
        about = {"template": self.template.name, "losses": self.losses, "dropped": self.dropped}
        (Path(folder) / SETTINGS_FILE).write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Aligner:
        model, tokenizer = load_model(folder)
        about = json.loads((Path(folder) / SETTINGS_FILE).read_text(encoding="utf-8"))
        return cls(
            model,
            tokenizer,
            template(about["template"]),
            about["losses"],
            Counter(about["dropped"]),
        )

"""The Aligner: a small model that corrects another model's answers (arXiv 2402.02416).

It learns from rows of question q, answer a and correction c. The loss is the cross-entropy of the
correction, given question and answer (eq. 4):

    min_phi  -E_(q, a, c) [ log mu_phi(c | a, q) ]

A warm-up on identity rows, c = a, can come first: it teaches the model to copy before it learns to
correct (section 3, "residual correction"). Lesson 02 builds it by hand.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .artefacts import artefact
from .cost import Cost, fit_minutes, predict_training
from .data import QAC
from .generation import is_finished, sample
from .likelihood import completion_nll
from .model_files import name_base
from .model_names import downloaded, fingerprint, looks_local, resolved
from .models import add_lora, ends_with, load_adapter, load_model, read_settings, save_model
from .prompts import T2, TOWN, Template
from .settings import SMALL, SFTSettings, default_lora_rank
from .tokens import chat_ids, context_length, encode, end_of_turn, example, fitting, text_ids
from .train import Penalty, sft

SETTINGS_FILE = "aligner.json"


@dataclass(frozen=True)
class Correction:
    """A corrected answer; or the answer as it was, and why there is no other."""

    text: str
    kept_because: str = ""


@dataclass
class Aligner:
    """A trained corrector: `losses` by stage, `dropped` counts rows left out, by reason.

    With LoRA `model` is the base with an adapter on it; `merge` makes one model of the two.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: Template = TOWN
    losses: dict[str, list[float]] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    base: str = ""  # folder or hub id of the model that it was made from

    def __post_init__(self) -> None:
        self.end = self.tokenizer.eos_token_id  # what a correction ends with
        if self.template.chat:
            if not self.tokenizer.chat_template:
                what = f"template {self.template.name!r} needs a tokenizer with a chat template"
                raise ValueError(f"{what}; take another one, such as T2")
            self.end = end_of_turn(self.tokenizer)
        ends_with(self.model, self.tokenizer, self.end)

    @classmethod
    def untrained(
        cls,
        base: str | Path,
        *,
        template: Template | None = None,
        lora_rank: int | None = None,
        seed: int = 0,
    ) -> Aligner:
        """An Aligner as it is before training: the base, with LoRA that changes nothing yet."""
        model, tokenizer = load_model(base)
        parameters = model.num_parameters()
        template = template or (TOWN if parameters <= SMALL else T2)
        rank = default_lora_rank(parameters) if lora_rank is None else lora_rank
        return cls(add_lora(model, rank, seed), tokenizer, template, base=resolved(base))

    @classmethod
    def train(
        cls,
        base: str | Path,
        corrections: Sequence[QAC],
        identity: Sequence[QAC] = (),
        *,
        settings: SFTSettings,
        warmup: SFTSettings | None = None,
        template: Template | None = None,
        lora_rank: int | None = None,
        penalty: Penalty | None = None,
        checkpoints: str | Path | None = None,
        progress: bool = True,
    ) -> Aligner:
        """Fine-tune a base model (folder or hub id) on identity rows, if any, then on corrections.

        `warmup` are the settings of the first stage, `settings` those of the second, for which
        optimizer and learning rate start anew and `penalty` is added to the loss. A stage of 0
        steps is skipped. What is None follows from the size of the base. Up to 20 million
        parameters: template TOWN, and all weights are trained (`lora_rank` 0). Above: template T2,
        and LoRA matrices of rank 16 alone. (CHAT, in the tokenizer's own chat template, is longer
        and fixed no more on `data/everyday`.) Into `checkpoints`, a folder, the training is written
        as it goes; the same training goes on from there. Raises ValueError for identity rows
        without `warmup`.
        """
        if identity and warmup is None:
            raise ValueError(
                f"{len(identity)} identity rows, but no settings to train on them: pass "
                "warmup=SFTSettings(steps=...), or no identity rows"
            )
        options = {"template": template, "lora_rank": lora_rank, "seed": settings.seed}
        aligner = cls.untrained(base, **options)
        common = {"checkpoints": checkpoints, "progress": progress}
        aligner._stage("identity", identity, warmup, **common)
        aligner._stage("correction", corrections, settings, penalty=penalty, **common)
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
        template: Template | None = None,
        lora_rank: int | None = None,
    ) -> Aligner:
        """The result of `train`, loaded from the cache if the same training has been run before."""
        options = dict(settings=settings, warmup=warmup, template=template, lora_rank=lora_rank)

        def build(folder: Path) -> None:
            cls.train(base, corrections, identity, **options).save_pretrained(folder)

        if settings.minutes:
            raise ValueError("minutes depend on the machine; say the number of steps")
        inputs = [fingerprint(base), list(corrections), list(identity), options]
        code = ("aligner", "prompts", "settings")
        return cls.from_pretrained(artefact("aligner", inputs, build, code), base)

    def _stage(
        self,
        name: str,
        rows: Sequence[QAC],
        settings: SFTSettings | None,
        *,
        penalty: Penalty | None = None,
        checkpoints: str | Path | None = None,
        progress: bool = True,
    ) -> None:
        if not rows or not settings.steps:
            return
        kept, longest = self._fitting(rows, settings)
        if too_long := len(rows) - len(kept):
            self.dropped[f"{name} row of more than {longest} tokens"] += too_long
        if kept:
            settings = fit_minutes(self.model, self.tokenizer, kept, settings, checkpoints)
        self.losses[name] = sft(
            self.model,
            self.tokenizer,
            kept,
            settings,
            penalty=penalty,
            progress=f"{name} steps" if progress else None,
            checkpoints=checkpoints,
        )

    def _fitting(
        self, rows: Sequence[QAC], settings: SFTSettings
    ) -> tuple[list[dict[str, list[int]]], int]:
        """The tokens of the rows that may be trained on, and the longest that a row may be."""
        longest = min(self.context, settings.max_length or self.context)
        return fitting([self.tokens(row) for row in rows], longest)[0], longest

    def predict(self, rows: Sequence[QAC], settings: SFTSettings) -> Cost:
        """Time and memory of a training on these rows; nothing is changed (`cost.py`)."""
        return predict_training(
            self.model, self.tokenizer, self._fitting(rows, settings)[0], settings
        )

    @property
    def context(self) -> int:
        """The longest input the model can read, in tokens."""
        return context_length(self.model)

    def prompt(self, question: str, answer: str) -> str:
        """What the model reads before it writes the correction, without its chat template."""
        return self.template.prompt(question, answer)

    def prompt_ids(self, question: str, answer: str) -> list[int]:
        """The tokens that the model reads before it writes the correction."""
        text = self.prompt(question, answer)
        if self.template.chat:
            return chat_ids(self.tokenizer, [{"role": "user", "content": text}])
        return encode(self.tokenizer, text)

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

        An answer comes back as it is, and is counted in `dropped`, where no correction of it came
        to an end: it is too long for the context, or the correction is empty or reached its limit.
        """
        options = {"temperature": temperature, "seed": seed, "progress": progress}
        found = self.corrections(questions, answers, **options)
        reasons = [one.kept_because for one in found if one.kept_because]
        self.dropped.update(f"answer returned as it was: {reason}" for reason in reasons)
        return [one.text for one in found]

    def corrections(
        self,
        questions: Sequence[str],
        answers: Sequence[str],
        *,
        temperature: float = 0.0,
        seed: int = 0,
        progress: str | None = None,
    ) -> list[Correction]:
        """What `correct` returns, each with the reason if it is the answer itself."""
        pairs = list(zip(questions, answers, strict=True))
        prompts = [self.prompt_ids(*pair) for pair in pairs]
        limits = [self._max_new_tokens(answer) for answer in answers]
        fits = [i for i, p in enumerate(prompts) if len(p) + limits[i] <= self.context]
        completions = sample(
            self.model,
            self.tokenizer,
            [prompts[i] for i in fits],
            max_new_tokens=[limits[i] for i in fits],
            temperature=temperature,
            seed=seed,
            progress=progress,
        )
        found = [Correction(answer, "too long for the context") for answer in answers]
        for i, ids in zip(fits, completions, strict=True):
            found[i] = self._correction(answers[i], ids)
        return found

    def _correction(self, answer: str, ids: list[int]) -> Correction:
        text = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
        if not is_finished(ids, self.model, self.tokenizer):
            return Correction(answer, "the correction reached its limit")
        return Correction(text) if text else Correction(answer, "the correction was empty")

    def _max_new_tokens(self, answer: str) -> int:
        """Half as much again as the answer and 64 tokens, but at most half the context."""
        return min(len(text_ids(self.tokenizer, answer)) * 3 // 2 + 64, self.context // 2)

    def fitting(self, rows: Sequence[QAC]) -> list[QAC]:
        """The rows that fit the context, correction included."""
        return [row for row in rows if len(self.tokens(row)["input_ids"]) <= self.context]

    def tokens(self, row: QAC) -> dict[str, list[int]]:
        """`input_ids` and `labels` of a row: the loss is on the correction and its end."""
        prompt = self.prompt_ids(row.question, row.answer)
        return example(self.tokenizer, prompt, row.correction, self.end)

    def nll(self, rows: Sequence[QAC], answers: Sequence[str] | None = None) -> torch.Tensor:
        """NLL of each row's correction, in nats per token, shape (n,).

        It is conditioned on the row's own answer or, if given, on the one in `answers`.
        """
        answers = [row.answer for row in rows] if answers is None else answers
        prompts = [self.prompt_ids(r.question, a) for r, a in zip(rows, answers, strict=True)]
        corrections = [row.correction for row in rows]
        return completion_nll(self.model, self.tokenizer, prompts, corrections, self.end)

    def merge(self) -> Aligner:
        """The adapter added into the base's weights, for good. Without one nothing changes."""
        if hasattr(self.model, "merge_and_unload"):
            self.model = self.model.merge_and_unload()
        return self

    def save_pretrained(self, folder: str | Path) -> None:
        """Write weights or, with LoRA, the adapter alone; tokenizer, and `aligner.json`.

        That file holds the template and the name of the base.
        """
        folder = Path(folder).expanduser()
        about = {"template": asdict(self.template), "losses": self.losses, "dropped": self.dropped}
        if hasattr(self.model, "peft_config"):
            if not self.base:
                raise ValueError("an adapter needs its base: Aligner(..., base=folder or hub id)")
            if looks_local(self.base) and Path(self.base).resolve() == folder.resolve():
                raise ValueError(f"{folder} holds the adapter's base; save to another folder")
            about |= {"base": self.base, "fingerprint": fingerprint(self.base)}
        save_model(folder, self.model, self.tokenizer)
        if hasattr(self.model, "peft_config"):
            name_base(folder, self.base)
        (folder / SETTINGS_FILE).write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path, base: str | Path | None = None) -> Aligner:
        """Load what `save_pretrained` wrote, from a folder or a repository on the hub.

        An adapter goes onto the base that it was trained on, or onto `base` where that has moved.
        Raises ModelError if no Aligner is there.
        """
        folder = downloaded(folder)
        about = read_settings(folder / SETTINGS_FILE, "Aligner")
        template = Template.from_saved(about["template"])
        rest = (template, about["losses"], Counter(about["dropped"]))
        if "base" not in about:
            return cls(*load_model(folder), *rest)
        base = about["base"] if base is None else base
        model, tokenizer = load_adapter(folder, base)
        if fingerprint(base) != about["fingerprint"]:
            warnings.warn(f"{folder} was not trained on this version of {base}", stacklevel=2)
        return cls(model, tokenizer, *rest, base=str(base))

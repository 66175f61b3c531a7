"""MEET: train controls first, the model second (arXiv 2310.00819).

One model learns several styles of answering and shows the one that is asked for. Every style has a
control phi: a soft prompt or LoRA matrices. Both steps minimize the same negative log-likelihood,

    - sum over controls c of  E_(x, y) in D_c [ log p(y | x, phi_c) ]

step 1 over phi alone, with the language model frozen; step 2 over the model conditioned on phi and,
unless `freeze_controls`, over phi as well (the paper leaves it open). MEET needs no pairs, only
texts of each style. PEFT trains and stores the controls. Lesson 05 builds this by hand.

Controls take turns, one step each: PEFT's LoRA cannot train several of them in one batch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from .artefacts import artefact
from .controls import (
    BASE_FILE,
    Control,
    are_prompts,
    by_control,
    check_base,
    check_fit,
    conditioned_on,
    known,
    language_model_weights,
    lora_weights,
    names_of,
    parameters_of,
    remove_others,
    save_mix,
    with_controls,
)
from .cost import Cost, fit_minutes, predict_training
from .data import Instruction
from .devices import own_random_state
from .generation import generate
from .likelihood import completion_nll
from .model_files import name_base
from .model_names import downloaded, fingerprint, resolved
from .models import ends_with, load_model, read_settings, save_model
from .prompts import AS_IS
from .settings import PROMPT_RATE, ControlSettings, SFTSettings, default_rate
from .tokens import context_length, end_id, example, fitting, prompt_ids, text_ids
from .train import sft_in_turns

SETTINGS_FILE = "meet.json"
NO_STEPS = SFTSettings(steps=0)


@dataclass
class Meet:
    """A model and its controls: `losses` by step, `dropped` counts rows left out, by reason."""

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    form: str = AS_IS  # of prompts: AS_IS, ANSWER or IN_CHAT (`prompts.py`)
    losses: dict[str, list[float]] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    base: str = ""  # folder or hub id of the language model; "" once step 2 has changed that

    def __post_init__(self) -> None:
        ends_with(self.model.get_base_model(), self.tokenizer, end_id(self.tokenizer, self.form))

    @classmethod
    def untrained(
        cls,
        base: str | Path,
        names: Sequence[str],
        control: ControlSettings,
        *,
        form: str = AS_IS,
    ) -> Meet:
        """A base model (folder or hub id) with new controls of these names."""
        model, tokenizer = load_model(base)
        adapted = with_controls(model, tokenizer, names, control)
        return cls(adapted, tokenizer, form, base=resolved(base))

    @classmethod
    def train(
        cls,
        base: str | Path,
        rows: Mapping[str, Sequence[Instruction]],
        *,
        control: ControlSettings,
        first: SFTSettings,
        then: SFTSettings = NO_STEPS,
        form: str = AS_IS,
        freeze_controls: bool = False,
        resume: Meet | None = None,
        checkpoints: str | Path | None = None,
        progress: bool = True,
    ) -> Meet:
        """Train on texts by the name of their control: step 1 as `first` says, step 2 as `then`.

        A step of 0 steps is skipped. Without step 1, model and controls are trained jointly. The
        controls, far smaller than the model, keep the larger learning rate of `first` in step 2.
        `form` is that of the prompts. `resume`, the result of step 1, is trained on, in place. A
        stopped training goes on from `checkpoints`. Raises ValueError for a control without texts.
        """
        if without := [name for name, texts in rows.items() if not texts]:
            raise ValueError(f"no texts for control {without[0]!r}: give some, or leave it out")
        meet = resume or cls.untrained(base, list(rows), control, form=form)
        examples = {name: meet._examples(name, texts, first) for name, texts in rows.items()}
        size = meet.model.num_parameters()
        usual = PROMPT_RATE if are_prompts(meet.model) else default_rate(size, lora=True)
        rate = first.learning_rate or usual
        model_rate = then.learning_rate or default_rate(size, lora=False)
        common = {"checkpoints": checkpoints, "progress": progress}
        every = sum(examples.values(), [])
        first = fit_minutes(meet.model, meet.tokenizer, every, first, checkpoints)
        if first.steps and not resume:
            meet._step("controls", examples, first, rate, None, **common)
        if then.steps:
            controls_rate = None if freeze_controls else rate
            meet._step("model", examples, then, controls_rate, model_rate, **common)
            meet.base = ""
        return meet

    @classmethod
    def cached(
        cls, base: str | Path, rows: Mapping[str, Sequence[Instruction]], **options: object
    ) -> Meet:
        """The result of `train`, taken from the cache if it, or its step 1, has been run before."""

        def build(folder: Path) -> None:
            resume = None
            then = options.get("then", NO_STEPS)
            if options["first"].steps and then.steps:
                no_step_2 = replace(then, steps=0)
                resume = cls.cached(base, rows, **{**options, "then": no_step_2})
            cls.train(base, rows, resume=resume, **options).save_pretrained(folder)

        inputs = [fingerprint(base), {name: list(texts) for name, texts in rows.items()}, options]
        place = artefact("meet", inputs, build, ("controls", "meet", "settings"))
        return cls.from_pretrained(place, None if options.get("then", NO_STEPS).steps else base)

    def _examples(
        self, name: str, texts: Sequence[Instruction], settings: SFTSettings = NO_STEPS
    ) -> list[dict[str, list[int]]]:
        """Texts as training rows; those that do not fit are counted in `dropped`."""
        longest = min(self.max_tokens, settings.max_length or self.max_tokens)
        why = "that the context leaves beside the control"
        limit = f"the {longest} tokens {why if longest == self.max_tokens else 'of max_length'}"
        said = [text for text in texts if text.completion.strip()]
        kept, too_long = fitting([self.tokens(text) for text in said], longest)
        self.dropped |= Counter({f"{name}: an empty completion": len(texts) - len(said)})
        self.dropped |= Counter({f"{name}: row longer than {limit}": too_long})
        if not kept:
            why = f"fits {limit}; shorten them" if said else "says anything"
            raise ValueError(f"no row of control {name!r} {why}")
        return kept

    def tokens(self, row: Instruction) -> dict[str, list[int]]:
        """`input_ids` and `labels` of a row: the loss is on the completion and its end."""
        prompt, end = self._prompt(row.prompt), end_id(self.tokenizer, self.form)
        return example(self.tokenizer, prompt, row.completion, end)

    def _prompt(self, prompt: str) -> list[int]:
        return prompt_ids(self.tokenizer, prompt, self.form)

    def predict(self, rows: Mapping[str, Sequence[Instruction]], settings: SFTSettings) -> Cost:
        """Time and memory of step 1 on these texts; nothing is changed (`cost.py`)."""
        dropped = self.dropped.copy()
        examples = [r for n, texts in rows.items() for r in self._examples(n, texts, settings)]
        self.dropped = dropped
        before = [(p, p.requires_grad) for p, _ in parameters_of(self.model)]
        try:
            for parameter, is_control in parameters_of(self.model):
                parameter.requires_grad_(is_control)
            return predict_training(self.model, self.tokenizer, examples, settings)
        finally:
            for parameter, trained in before:
                parameter.requires_grad_(trained)

    def _step(
        self,
        name: str,
        examples: Mapping[str, Sequence[dict[str, list[int]]]],
        settings: SFTSettings,
        controls_rate: float | None,
        model_rate: float | None,
        **common: object,
    ) -> None:
        """One step of MEET. A learning rate of None freezes the parameters it is for."""
        groups = []
        for of_controls, rate in ((True, controls_rate), (False, model_rate)):
            parameters = [p for p, control in parameters_of(self.model) if control == of_controls]
            for parameter in parameters:
                parameter.requires_grad_(rate is not None)
            if rate is not None:
                groups.append((parameters, rate))

        def turn(control: str) -> None:
            self.model.set_adapter(control, inference_mode=controls_rate is None)

        common["progress"] = f"steps of the {name}" if common.get("progress") else None
        self.losses[name] = sft_in_turns(
            self.model, self.tokenizer, examples, settings, turn=turn, rates=groups, **common
        )

    @property
    def controls(self) -> list[str]:
        """The names of the controls."""
        return names_of(self.model)

    @property
    def max_tokens(self) -> int:
        """The tokens that the context leaves for text beside one control."""
        prompts = are_prompts(self.model)
        config = self.model.peft_config[self.controls[0]]
        return context_length(self.model) - (config.num_virtual_tokens if prompts else 0)

    @property
    def control_share(self) -> float:
        """The parameters of one control as a fraction of the language model's."""
        sizes = Counter()
        for parameter, is_control in parameters_of(self.model):
            sizes[is_control] += parameter.numel()
        return sizes[True] / len(self.controls) / sizes[False]

    def generate(
        self,
        prompts: Sequence[str],
        control: Control | list[Control],
        *,
        max_new_tokens: int = 64,
        **options: object,
    ) -> list[str]:
        """Completions under a control, the same for all prompts, or a list with one for each.

        A control is a name, a tuple (all of them at once), a `Mix`, or None for the model without
        any. `options` are those of `generation.generate`. Raises ValueError for an unknown control
        and for a prompt that does not fit the context with its control and completion.
        """
        completions = [""] * len(prompts)
        for one, picked in by_control(control, len(prompts)):
            with conditioned_on(self.model, one) as (model, virtual_ids):
                rows = [virtual_ids + self._prompt(prompts[i]) for i in picked]
                check_fit(self.model, rows, max_new_tokens)
                texts = generate(
                    model, self.tokenizer, rows, max_new_tokens=max_new_tokens, **options
                )
            for i, text in zip(picked, texts, strict=True):
                completions[i] = text
        return completions

    def logprob(
        self, prompts: Sequence[str], completions: Sequence[str], control: Control | list[Control]
    ) -> torch.Tensor:
        """Mean log-probability per token (nats) of each completion with its EOS, shape (n,).

        Raises ValueError as `generate` does.
        """
        logprobs = torch.zeros(len(prompts))
        for one, picked in by_control(control, len(prompts)):
            texts = [completions[i] for i in picked]
            longest = max(len(text_ids(self.tokenizer, text)) for text in texts)
            with conditioned_on(self.model, one) as (model, virtual_ids):
                rows = [virtual_ids + self._prompt(prompts[i]) for i in picked]
                check_fit(self.model, rows, longest + 1)  # and EOS
                end = end_id(self.tokenizer, self.form)
                logprobs[picked] = -completion_nll(model, self.tokenizer, rows, texts, end)
        return logprobs

    def losses_by_control(self, step: str = "controls") -> dict[str, list[float]]:
        """The losses of a step ("controls" or "model") by control; they have taken turns."""
        return {name: self._turns_of([name], self.losses[step]) for name in self.controls}

    def _turns_of(self, picked: Sequence[str], losses: list[float]) -> list[float]:
        names = self.controls
        return [loss for k, loss in enumerate(losses) if names[k % len(names)] in picked]

    def save_pretrained(self, folder: str | Path, controls: Sequence[str] | None = None) -> None:
        """Write these controls (None: all) to `controls/NAME/`, with the fingerprint of their base.

        Others are deleted there. The language model is written to `model/` if step 2 has changed
        it. Raises ValueError for an unknown control.
        """
        folder = Path(folder).expanduser()
        controls = [known(self.model, name) for name in controls or self.controls]
        if not self.base:
            model, weights = self.model.get_base_model(), language_model_weights(self.model)
            save_model(folder / "model", model, self.tokenizer, state_dict=weights)
        where = folder / "controls"
        remove_others(where, controls)
        self.model.save_pretrained(where, save_embedding_layers=False, selected_adapters=controls)
        name_base(where, self.base or "model")
        (where / "README.md").unlink(missing_ok=True)  # of a path on this machine
        made_for = json.dumps({"model": fingerprint(self.base or folder / "model")})
        for name in controls:
            (where / name / BASE_FILE).write_text(made_for, encoding="utf-8")
        about = {"base": self.base, "form": self.form, "controls": controls}
        losses = {step: self._turns_of(controls, every) for step, every in self.losses.items()}
        about |= {"losses": losses, "dropped": self.dropped}
        (folder / SETTINGS_FILE).write_text(json.dumps(about), encoding="utf-8")

    def save_merged(self, folder: str | Path, control: Control) -> None:
        """Write one plain model: the language model with a control, or a mix, added into it.

        Raises ValueError for soft prompts, which are no part of the weights.
        """
        weights = language_model_weights(self.model, lora_weights(self.model, control))
        save_model(folder, self.model.get_base_model(), self.tokenizer, state_dict=weights)

    def save_mix(self, folder: str | Path, control: Control) -> None:
        """Write a control or mix as one LoRA adapter, whose rank is the sum of its parts' ranks.

        Programs that apply one adapter at a time, such as vLLM, serve it. Raises ValueError for
        soft prompts, and if step 2 has changed the language model.
        """
        if not self.base:
            raise ValueError("step 2 has changed the language model too; use save_merged")
        folder = Path(folder).expanduser()
        save_mix(self.model, folder, lora_weights(self.model, control))
        name_base(folder, self.base)
        self.tokenizer.save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, folder: str | Path, model: str | Path | None = None) -> Meet:
        """Load what `save_pretrained` wrote, or its controls onto another copy of their `model`.

        From a folder or a repository on the hub. Raises ValueError if the controls were trained for
        a different model.
        """
        folder = downloaded(folder)
        about = read_settings(folder / SETTINGS_FILE, "Meet")
        own = about.get("base", "") if model is None else resolved(model)
        base = own or folder / "model"
        places = {name: folder / "controls" / name for name in about["controls"]}
        check_base(places, base)
        language_model, tokenizer = load_model(base)
        first, *others = places
        with own_random_state():  # PEFT draws weights before it loads the saved ones
            wrapped = PeftModel.from_pretrained(language_model, places[first], adapter_name=first)
            for name in others:
                wrapped.load_adapter(places[name], adapter_name=name)
        rest = (about.get("form", AS_IS), about["losses"], Counter(about["dropped"]))
        return cls(wrapped.eval(), tokenizer, *rest, base=own)

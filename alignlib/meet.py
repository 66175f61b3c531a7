"""MEET: control tokens first, the model second (arXiv 2310.00819).

One model that holds several preferences and shows the one it is asked for. Every preference has a
control phi, a soft prompt or LoRA matrices. Both steps minimise the same likelihood loss,

    - sum over controls c of  E_(x, y) in D_c [ log p(y | x, phi_c) ]

step 1 over phi alone, with every weight of the language model frozen; step 2 over the model
conditioned on them (and, unless `freeze_controls`, over phi as well: the paper leaves it open). No
pairs are needed, only texts of each kind. Training and storage are PEFT's. Built by hand in lesson
05.

What this file does not do: train on a batch that mixes controls. PEFT's LoRA cannot, so controls
take turns, a step each.
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
from .controls import Control, are_prompts, conditioned_on, names_of, parameters_of, with_controls
from .data import Instruction, Preference
from .generation import generate
from .likelihood import completion_nll
from .models import fingerprint, load_model, save_model
from .settings import ControlSettings, SFTSettings
from .tokens import encode, example, fitting
from .train import sft_in_turns

BASE_FILE = "control.json"


def texts_by_control(
    pairs: Sequence[Preference], good: str = "good", bad: str = "bad"
) -> dict[str, list[Instruction]]:
    """Preference pairs as texts of two kinds: the chosen under one control, the rejected under
    the other.
    """
    return {
        good: [Instruction(p.prompt, p.chosen) for p in pairs],
        bad: [Instruction(p.prompt, p.rejected) for p in pairs],
    }


@dataclass
class Meet:
    """A language model and its controls. `losses` holds each step's curve; `dropped` counts
    training rows left out, by reason.
    """

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    losses: dict[str, list[float]] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)

    @classmethod
    def train(
        cls,
        base: str | Path,
        rows: Mapping[str, Sequence[Instruction]],
        *,
        control: ControlSettings,
        first: SFTSettings,
        then: SFTSettings,
        freeze_controls: bool = False,
        begun: Meet | None = None,
        progress: bool = True,
    ) -> Meet:
        """`rows` are texts of each kind, by the control's name. `first`: step 1, of all controls
        together (0 steps: left out, and both are trained from the start, "joint"); `then`: step 2
        (0 steps: the model stays as it is). Controls are far smaller than the model and want a
        greater learning rate: they learn at `first`'s in both steps, the model at `then`'s.
        `begun`: what these very settings made of step 1, to go on with in place.

        Raises ValueError if a side is empty or no row fits beside the control.
        """
        if empty := [name for name, some in rows.items() if not some]:
            raise ValueError(
                f"no rows for control {empty[0]!r}: each control needs at least one text; "
                "leave it out, or give both sides of the pairs"
            )
        meet = begun or cls._untrained(base, list(rows), control)
        tokens = {name: meet._fitted(name, some) for name, some in rows.items()}
        if first.steps and not begun:
            meet._step("controls", tokens, first, progress, first.learning_rate, None)
        if then.steps:
            meet._step(
                "model",
                tokens,
                then,
                progress,
                None if freeze_controls else first.learning_rate,
                then.learning_rate,
            )
        return meet

    @classmethod
    def _untrained(cls, base: str | Path, names: list[str], control: ControlSettings) -> Meet:
        model, tokenizer = load_model(base)
        return cls(with_controls(model, tokenizer, names, control), tokenizer)

    @classmethod
    def cached(
        cls, base: str | Path, rows: Mapping[str, Sequence[Instruction]], **given: object
    ) -> Meet:
        """What `train` gives, taken from the cache if the very same training, or its step 1, has
        been run before.
        """

        def build(folder: Path) -> None:
            both = given["first"].steps and given["then"].steps
            begun = (
                cls.cached(base, rows, **{**given, "then": replace(given["then"], steps=0)})
                if both
                else None
            )
            cls.train(base, rows, begun=begun, **given).save_pretrained(folder)

        inputs = [fingerprint(base), {name: list(some) for name, some in rows.items()}, given]
        return cls.from_pretrained(artefact("meet", inputs, build, ("controls", "meet")))

    def _fitted(self, name: str, rows: Sequence[Instruction]) -> list[dict[str, list[int]]]:
        kept, long = fitting(
            [example(self.tokenizer, r.prompt, r.completion) for r in rows], self.room
        )
        if long:
            self.dropped[
                f"{name}: row longer than the {self.room} tokens that the context leaves "
                "beside the control"
            ] = long
        if not kept:
            raise ValueError(
                f"no row of control {name!r} fits the {self.room} tokens that the context "
                "leaves beside the control; shorten them"
            )
        return kept

    def _step(
        self,
        name: str,
        tokens: dict,
        settings: SFTSettings,
        progress: bool,
        controls_rate: float | None,
        model_rate: float | None,
    ) -> None:
        """A rate of None: frozen."""
        learn: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
        for parameter, is_control in parameters_of(self.model):
            parameter.requires_grad_((controls_rate if is_control else model_rate) is not None)
            if parameter.requires_grad:
                learn[is_control].append(parameter)

        def turn(control: str) -> None:
            self.model.set_adapter(control, inference_mode=controls_rate is None)

        rates, label = (
            [(learn[True], controls_rate), (learn[False], model_rate)],
            f"steps of the {name}" if progress else None,
        )
        self.losses[name] = sft_in_turns(
            self.model, self.tokenizer, tokens, settings, turn=turn, rates=rates, progress=label
        )

    @property
    def controls(self) -> list[str]:
        return names_of(self.model)

    @property
    def room(self) -> int:
        """Tokens that the context leaves for text beside one control."""
        virtual = (
            self.model.peft_config[self.controls[0]].num_virtual_tokens
            if are_prompts(self.model)
            else 0
        )
        return self.model.config.max_position_embeddings - virtual

    @property
    def control_share(self) -> float:
        """One control's parameters as a share of the language model's."""
        own = sum(p.numel() for p, is_control in parameters_of(self.model) if is_control) / len(
            self.controls
        )
        return own / sum(p.numel() for p, is_control in parameters_of(self.model) if not is_control)

    def generate(
        self,
        prompts: Sequence[str],
        control: Control | list[Control],
        *,
        max_new_tokens: int = 64,
        **how: object,
    ) -> list[str]:
        """Completions under a control, the same for all rows or a list with one each; further
        arguments as `generation.generate` has them.

        A control is a name, a tuple of them (all at once), a `Mix`, or None for the model without
        any. Raises ValueError for an unknown control, and for a prompt that does not fit the
        context with its control and completion.
        """
        said = [""] * len(prompts)
        for one, picked in _by_control(control, len(prompts)):
            with conditioned_on(self.model, one) as (model, virtual):
                rows = [virtual + encode(self.tokenizer, prompts[i]) for i in picked]
                self._check_room(rows, max_new_tokens)
                for i, text in zip(
                    picked,
                    generate(model, self.tokenizer, rows, max_new_tokens=max_new_tokens, **how),
                    strict=True,
                ):
                    said[i] = text
        return said

    def logprob(
        self, prompts: Sequence[str], completions: Sequence[str], control: Control | list[Control]
    ) -> torch.Tensor:
        """Mean log-probability per token (nats) of each completion and its EOS, shape (n,).
        Raises ValueError as `generate` does.
        """
        found = torch.zeros(len(prompts))
        for one, picked in _by_control(control, len(prompts)):
            with conditioned_on(self.model, one) as (model, virtual):
                rows = [virtual + encode(self.tokenizer, prompts[i]) for i in picked]
                self._check_room(
                    rows,
                    max(
                        len(self.tokenizer(completions[i], add_special_tokens=False)["input_ids"])
                        + 1
                        for i in picked
                    ),
                )
                found[picked] = -completion_nll(
                    model, self.tokenizer, rows, [completions[i] for i in picked]
                )
        return found

    def _check_room(self, rows: Sequence[list[int]], max_new_tokens: int) -> None:
        longest, context = (
            max(map(len, rows)) + max_new_tokens,
            self.model.config.max_position_embeddings,
        )
        if longest > context:
            raise ValueError(
                f"control, prompt and completion take {longest} tokens, the context is "
                f"{context}; shorten the prompt, "
                "give fewer max_new_tokens or a smaller control"
            )

    def save_pretrained(self, folder: str | Path) -> None:
        """`model/`: the language model as step 2 left it. `controls/NAME/`: each control as PEFT
        writes it, with the model it was made for.
        """
        folder = Path(folder)
        lm = self.model.get_base_model()
        plain = {
            k.replace(".base_layer", ""): v for k, v in lm.state_dict().items() if "lora_" not in k
        }
        save_model(folder / "model", lm, self.tokenizer, state_dict=plain)
        for config in self.model.peft_config.values():
            config.base_model_name_or_path = "model"
        self.model.save_pretrained(folder / "controls", save_embedding_layers=False)
        (folder / "controls" / "README.md").unlink(
            missing_ok=True
        )  # PEFT's card, empty but for a path of this machine
        made_for = json.dumps({"model": fingerprint(folder / "model")})
        for name in self.controls:
            (folder / "controls" / name / BASE_FILE).write_text(made_for, encoding="utf-8")
        about = {"controls": self.controls, "losses": self.losses, "dropped": self.dropped}
        (folder / "meet.json").write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path, model: str | Path | None = None) -> Meet:
        """What `save_pretrained` wrote; or its controls on another `model`. Raises ValueError if
        they were not made for it.
        """
        folder = Path(folder)
        base = model or folder / "model"
        about, (lm, tokenizer) = (
            json.loads((folder / "meet.json").read_text(encoding="utf-8")),
            load_model(base),
        )
        given, wrapped = fingerprint(base), None
        for name in about["controls"]:
            place = folder / "controls" / name
            made_for = json.loads((place / BASE_FILE).read_text(encoding="utf-8"))["model"]
            if made_for != given:
                raise ValueError(
                    f"control {name!r} in {place} was made for another model or tokenizer "
                    f"(sha256 {made_for[:12]}) than {base} "
                    f"({given[:12]}); load the model that lies beside it, or train the "
                    "control again"
                )
            if wrapped is None:
                wrapped = PeftModel.from_pretrained(lm, place, adapter_name=name)
            else:
                wrapped.load_adapter(place, adapter_name=name)
        return cls(wrapped.eval(), tokenizer, about["losses"], Counter(about["dropped"]))


def _by_control(control: Control | list[Control], n: int) -> list[tuple[Control, list[int]]]:
    """Row numbers by the control that is asked for."""
    each = control if isinstance(control, list) else [control] * n
    if len(each) != n:
        raise ValueError(f"{len(each)} controls for {n} prompts; give one for each, or one for all")
    return [(one, [i for i, c in enumerate(each) if c == one]) for one in dict.fromkeys(each)]

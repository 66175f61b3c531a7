"""Controls of a language model: soft prompts and LoRA matrices, by name, together and in between
(MEET, arXiv 2310.00819).

PEFT holds and trains them. What it lacks is here: where a soft prompt starts, and asking for
several at once. A soft prompt's tokens become words that the vocabulary lacks, for as long as they
are asked for: so they stand between padding and text like any word, and generation needs to know
nothing of them. (PEFT's own puts them before the padding.) Built by hand in lesson 05.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .models import lora_config, own_random_state
from .settings import ControlSettings

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")

# a name; a tuple of controls, all of them at once; a `Mix` of some; None for the model as it is
Control = Hashable


@dataclass(frozen=True, init=False)
class Mix:
    """A weighted sum of controls, such as Mix(good=0.7, bad=0.3): a point between two of them,
    or beyond.
    """

    parts: tuple[tuple[Control, float], ...]

    def __init__(self, parts: Mapping[Control, float] | None = None, **named: float) -> None:
        object.__setattr__(self, "parts", tuple({**(parts or {}), **named}.items()))


def peft_config(settings: ControlSettings) -> PromptTuningConfig | LoraConfig:
    if settings.kind == "prompt":
        return PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=settings.size)
    return lora_config(settings.size, settings.targets, settings.layers)


def with_controls(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    names: Sequence[str],
    settings: ControlSettings,
) -> PeftModel:
    """The model with a fresh control of each name. Raises ValueError for a name that PEFT or a
    folder could not hold.
    """
    parts = {
        part for path, _ in model.named_modules() for part in path.split(".")
    }  # PEFT tells controls apart by the paths of their weights
    for name in names:
        if (
            not re.fullmatch(r"[\w+-]+", name)
            or name == "default"
            or name in "lora_"
            or name in parts
            or hasattr(torch.nn.ModuleDict, name)
        ):
            raise ValueError(
                f"no control can be named {name!r}: use letters, digits, _, + and -, and no "
                "name of a part of the model; "
                "one such as good, bad or rated-3 will do"
            )
    with own_random_state():
        torch.manual_seed(settings.seed)
        wrapped = get_peft_model(model, peft_config(settings), adapter_name=names[0])
        for name in names[1:]:
            wrapped.add_adapter(name, peft_config(settings))
        if settings.kind == "prompt":
            for name in names:
                _start(wrapped, tokenizer, name, settings)
    return wrapped.eval()


def _start(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, name: str, settings: ControlSettings
) -> None:
    """Give a soft prompt the embeddings it starts from. PEFT's own ("unit") are several times
    longer than words are.
    """
    words, prompt = (
        model.word_embeddings.weight.detach(),
        model.prompt_encoder[name].embedding.weight,
    )
    if settings.start == "unit":
        return
    if settings.start == "random":
        start = torch.randn_like(prompt) * words.std()
    elif settings.start == "vocabulary":
        start = words[torch.randint(len(words), (settings.size,)).to(words.device)]
    else:
        ids = tokenizer(dict(settings.texts)[name], add_special_tokens=False)["input_ids"]
        start = words[[ids[i % len(ids)] for i in range(settings.size)]]
    prompt.data.copy_(start)


def names_of(model: PeftModel) -> list[str]:
    return list(model.peft_config)


def are_prompts(model: PeftModel) -> bool:
    return model.peft_config[names_of(model)[0]].is_prompt_learning


def parameters_of(model: PeftModel) -> Iterator[tuple[torch.nn.Parameter, bool]]:
    """Every parameter, and whether it is a control's."""
    for name, parameter in model.named_parameters():
        yield parameter, name.startswith("prompt_encoder") or "lora_" in name


def prompt_embeddings(model: PeftModel, control: Control) -> torch.Tensor:
    """A soft prompt's embeddings, (tokens, width): of a tuple one behind the other, of a `Mix`
    their weighted sum.
    """
    if control is None:
        return model.word_embeddings.weight.detach()[:0]
    if isinstance(control, tuple):
        return torch.cat([prompt_embeddings(model, part) for part in control])
    if isinstance(control, Mix):
        return sum(weight * prompt_embeddings(model, part) for part, weight in control.parts)
    return model.prompt_encoder[_known(model, control)].embedding.weight.detach()


def mixture_weights(model: PeftModel, control: Control) -> dict[str, float]:
    """How much of each named control there is in one: what LoRA's matrices are multiplied by."""
    if control is None:
        return {}
    if isinstance(control, (Mix, tuple)):
        total: Counter[str] = Counter()
        for part, weight in (
            control.parts if isinstance(control, Mix) else ((part, 1.0) for part in control)
        ):
            total.update({name: weight * w for name, w in mixture_weights(model, part).items()})
        return dict(total)
    return {_known(model, control): 1.0}


def _known(model: PeftModel, name: Control) -> str:
    if name not in names_of(model):
        raise ValueError(f"no control {name!r}; there are {', '.join(names_of(model))}")
    return name


@contextmanager
def conditioned_on(
    model: PeftModel, control: Control
) -> Iterator[tuple[PreTrainedModel, list[int]]]:
    """The language model as it is under a control, and the token ids to put before a prompt.
    Raises ValueError for an unknown one.
    """
    if are_prompts(model):
        with _longer_vocabulary(
            model.get_base_model(), prompt_embeddings(model, control)
        ) as virtual:
            yield model.get_base_model(), virtual
    elif parts := mixture_weights(model, control):
        with _scaled(model, parts):
            yield model, []
    else:
        with model.disable_adapter():
            yield model, []


@contextmanager
def _longer_vocabulary(lm: PreTrainedModel, more: torch.Tensor) -> Iterator[list[int]]:
    known = lm.get_input_embeddings()
    lm.set_input_embeddings(_Longer(known, more))
    try:
        yield list(range(known.num_embeddings, known.num_embeddings + len(more)))
    finally:
        lm.set_input_embeddings(known)


class _Longer(torch.nn.Module):
    """A vocabulary's embeddings, whatever they do to their words (some models scale them), and
    more words behind its last.
    """

    def __init__(self, known: torch.nn.Module, more: torch.Tensor) -> None:
        super().__init__()
        self.known, self.more = known, more

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        new = ids >= self.known.num_embeddings
        read = self.known(ids.masked_fill(new, 0))
        read[new] = self.more[ids[new] - self.known.num_embeddings].to(read.dtype)
        return read


@contextmanager
def _scaled(model: PeftModel, parts: dict[str, float]) -> Iterator[None]:
    layers = [m for m in model.modules() if isinstance(m, LoraLayer)]
    model.base_model.set_adapter(list(parts), inference_mode=True)
    try:
        for layer in layers:
            for name, weight in parts.items():
                layer.set_scale(name, weight)
        yield
    finally:
        for layer in layers:
            for name in parts:
                layer.set_scale(name, 1.0)

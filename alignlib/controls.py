"""Controls of a language model, alone or combined (MEET, arXiv 2310.00819).

A control is a soft prompt or a set of LoRA matrices, with a name. PEFT stores and trains them. This
file adds where a soft prompt starts, and using several controls at once.

For generation the virtual tokens of a soft prompt become extra words of the vocabulary, so they can
stand between padding and text like any other token. (PEFT puts them before the padding.) Lesson 05
builds this by hand.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .devices import own_random_state
from .model_names import fingerprint
from .models import lora_config
from .settings import ControlSettings
from .tokens import context_length, text_ids

SAMPLED = 50_000  # words whose embeddings say how large embeddings are
BASE_FILE = "control.json"  # beside each control: the fingerprint of the model it belongs to
MIX = "a mix"  # the name of a mix while it is saved, which no control can have
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")

# a name; a tuple of controls, used all at once; a `Mix`; or None for the model without any
Control = Hashable


@dataclass(frozen=True, init=False)
class Mix:
    """A weighted sum of controls, such as Mix(good=0.7, bad=0.3). Weights may exceed 1."""

    parts: tuple[tuple[Control, float], ...]

    def __init__(self, parts: Mapping[Control, float] | None = None, **named: float) -> None:
        object.__setattr__(self, "parts", tuple({**(parts or {}), **named}.items()))


def peft_config(
    model: PreTrainedModel, settings: ControlSettings
) -> PromptTuningConfig | LoraConfig:
    """PEFT's configuration of one control."""
    if settings.kind == "lora":
        return lora_config(model, settings.size, settings.targets, settings.layers)
    config = model.config.get_text_config()
    return PromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=settings.size,
        token_dim=model.get_input_embeddings().embedding_dim,
        num_layers=config.num_hidden_layers,
        num_attention_heads=getattr(config, "num_attention_heads", 1),  # not used, but asked for
    )


def with_controls(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    names: Sequence[str],
    settings: ControlSettings,
) -> PeftModel:
    """The model with one new control per name. Raises ValueError for a name that cannot be used."""
    _check_names(names, model)
    with own_random_state():
        torch.manual_seed(settings.seed)
        wrapped = get_peft_model(model, peft_config(model, settings), adapter_name=names[0])
        for name in names[1:]:
            wrapped.add_adapter(name, peft_config(model, settings))
        if settings.kind == "prompt":
            for name in names:
                _initialize_prompt(wrapped, tokenizer, name, settings)
    return wrapped.eval()


def _check_names(names: Sequence[str], model: PreTrainedModel) -> None:
    """A name becomes a folder, a key of a ModuleDict, and part of the paths of its weights.

    PEFT finds a control's weights by these paths, so no module of the model may have its name.
    """
    modules = {part for path, _ in model.named_modules() for part in path.split(".")}
    for name in names:
        plain = re.fullmatch(r"[\w+-]+", name) and name != "default"
        taken = name in "lora_" or name in modules or hasattr(torch.nn.ModuleDict, name)
        if taken or not plain:
            raise ValueError(
                f"no control can be named {name!r}: use letters, digits, _, + and -, and not the "
                "name of a part of the model; for example good, bad or rated-3"
            )


def _initialize_prompt(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, name: str, settings: ControlSettings
) -> None:
    """Set the embeddings that a soft prompt starts from."""
    if settings.start == "unit":
        return  # PEFT's own, which are several times longer than those of words
    vocabulary = model.get_base_model().get_input_embeddings()
    prompt = model.prompt_encoder[name].embedding.weight  # (virtual tokens, width)
    if settings.start == "random":
        scale = _as_read(vocabulary, range(min(vocabulary.num_embeddings, SAMPLED))).std()
        start = torch.randn_like(prompt) * scale
    elif settings.start == "vocabulary":
        ids = torch.randint(vocabulary.num_embeddings, (settings.size,)).tolist()
        start = _as_read(vocabulary, ids)
    else:
        ids = text_ids(tokenizer, dict(settings.texts)[name])
        start = _as_read(vocabulary, [ids[i % len(ids)] for i in range(settings.size)])
    prompt.data.copy_(start)


@torch.no_grad()
def _as_read(vocabulary: torch.nn.Module, ids: Sequence[int]) -> torch.Tensor:
    """Embeddings as the model reads them, (tokens, width): some models scale them here."""
    return vocabulary(torch.tensor(list(ids), device=vocabulary.weight.device))


def names_of(model: PeftModel) -> list[str]:
    """The names of a model's controls."""
    return list(model.peft_config)


def are_prompts(model: PeftModel) -> bool:
    """Whether a model's controls are soft prompts; otherwise they are LoRA matrices."""
    return model.peft_config[names_of(model)[0]].is_prompt_learning


def parameters_of(model: PeftModel) -> Iterator[tuple[torch.nn.Parameter, bool]]:
    """Every parameter, and whether it belongs to a control."""
    for name, parameter in model.named_parameters():
        yield parameter, name.startswith("prompt_encoder") or "lora_" in name


def prompt_embeddings(model: PeftModel, control: Control) -> torch.Tensor:
    """The embeddings of a soft prompt, (virtual tokens, width).

    Those of a tuple are concatenated, those of a `Mix` added with its weights.
    """
    if control is None:
        return model.word_embeddings.weight.detach()[:0]
    if isinstance(control, tuple):
        return torch.cat([prompt_embeddings(model, part) for part in control])
    if isinstance(control, Mix):
        return sum(weight * prompt_embeddings(model, part) for part, weight in control.parts)
    return model.prompt_encoder[known(model, control)].embedding.weight.detach()


def lora_weights(model: PeftModel, control: Control) -> dict[str, float]:
    """The factor of each named control's LoRA matrices in a control."""
    if control is None:
        return {}
    if not isinstance(control, (Mix, tuple)):
        return {known(model, control): 1.0}
    parts = control.parts if isinstance(control, Mix) else [(part, 1.0) for part in control]
    total: Counter[str] = Counter()
    for part, weight in parts:
        inner = lora_weights(model, part)
        total.update({name: weight * factor for name, factor in inner.items()})
    return dict(total)


def language_model_weights(
    model: PeftModel, mix: Mapping[str, float] | None = None
) -> dict[str, torch.Tensor]:
    """The weights of the language model alone, or with these LoRA controls added into them.

    Raises ValueError if there are some to add and the controls are soft prompts.
    """
    base, weights = model.get_base_model(), {}
    for name, weight in base.state_dict().items():
        if "lora_" not in name:
            weights[name.replace(".base_layer", "")] = weight
    if mix:
        _need_lora(model)
        for path, layer in base.named_modules():
            if isinstance(layer, LoraLayer):
                change = sum(layer.get_delta_weight(name) * w for name, w in mix.items())
                weights[f"{path}.weight"] = weights[f"{path}.weight"] + change
    return weights


def save_mix(model: PeftModel, folder: Path, mix: Mapping[str, float]) -> None:
    """Write LoRA controls with their weights as one adapter.

    Raises ValueError for soft prompts, and for no controls at all.
    """
    _need_lora(model)
    if not mix:
        raise ValueError("no control to save; name one, or a Mix of several")
    model.add_weighted_adapter(list(mix), list(mix.values()), MIX, combination_type="cat")
    try:
        model.save_pretrained(folder, selected_adapters=[MIX], save_embedding_layers=False)
    finally:
        model.delete_adapter(MIX)
    for file in (folder / MIX).iterdir():  # PEFT gives every adapter a folder of its own
        file.replace(folder / file.name)
    (folder / MIX).rmdir()
    (folder / "README.md").unlink()  # says nothing but a path on this machine


def _need_lora(model: PeftModel) -> None:
    if are_prompts(model):
        fix = "train LoRA controls, or use them by Meet.generate"
        raise ValueError(f"a soft prompt is no adapter of the weights; {fix}")


def known(model: PeftModel, name: Control) -> str:
    """The name, if the model has a control of it; raises ValueError otherwise."""
    if name not in names_of(model):
        raise ValueError(f"no control {name!r}; there are {', '.join(names_of(model))}")
    return name


@contextmanager
def conditioned_on(
    model: PeftModel, control: Control
) -> Iterator[tuple[PreTrainedModel, list[int]]]:
    """The language model under a control, and the token ids to put before every prompt.

    Raises ValueError for an unknown control.
    """
    if are_prompts(model):
        language_model = model.get_base_model()
        with _extra_words(language_model, prompt_embeddings(model, control)) as virtual_ids:
            yield language_model, virtual_ids
    elif weights := lora_weights(model, control):
        with _scaled(model, weights):
            yield model, []
    else:
        with model.disable_adapter():
            yield model, []


@contextmanager
def _extra_words(model: PreTrainedModel, embeddings: torch.Tensor) -> Iterator[list[int]]:
    """Within, the vocabulary ends with words of these embeddings. Yields their token ids."""
    vocabulary = model.get_input_embeddings()
    first = vocabulary.num_embeddings
    model.set_input_embeddings(_LongerVocabulary(vocabulary, embeddings))
    try:
        yield list(range(first, first + len(embeddings)))
    finally:
        model.set_input_embeddings(vocabulary)


class _LongerVocabulary(torch.nn.Module):
    """Word embeddings followed by extra ones, which are used as they are.

    The words go through the model's own embedding module, because some models scale them there.
    """

    def __init__(self, vocabulary: torch.nn.Module, extra: torch.Tensor) -> None:
        super().__init__()
        self.vocabulary, self.extra = vocabulary, extra

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        is_extra = ids >= self.vocabulary.num_embeddings  # (batch, time)
        embedded = self.vocabulary(ids.masked_fill(is_extra, 0))  # (batch, time, width)
        extra_ids = ids[is_extra] - self.vocabulary.num_embeddings
        embedded[is_extra] = self.extra[extra_ids].to(embedded.dtype)
        return embedded


@contextmanager
def _scaled(model: PeftModel, weights: dict[str, float]) -> Iterator[None]:
    """Within, the LoRA matrices of these controls are active, each multiplied by its weight."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    model.base_model.set_adapter(list(weights), inference_mode=True)
    try:
        for layer in layers:
            for name, weight in weights.items():
                layer.set_scale(name, weight)
        yield
    finally:
        for layer in layers:
            for name in weights:
                layer.set_scale(name, 1.0)


def check_base(places: Mapping[str, Path], base: str | Path) -> None:
    """Raises ValueError if a control in one of these folders was made for another model."""
    found = fingerprint(base)
    for name, place in places.items():
        wanted = json.loads((place / BASE_FILE).read_text(encoding="utf-8"))["model"]
        if wanted != found:
            raise ValueError(
                f"control {name!r} in {place} was made for another model or tokenizer (sha256 "
                f"{wanted[:12]}) than {base} ({found[:12]}); load the model beside it, or train "
                "the control again"
            )


def by_control(control: Control | list[Control], n: int) -> list[tuple[Control, list[int]]]:
    """The row numbers of each control that is asked for."""
    each = control if isinstance(control, list) else [control] * n
    if len(each) != n:
        raise ValueError(f"{len(each)} controls for {n} prompts; give one for each, or one for all")
    return [(one, [i for i, c in enumerate(each) if c == one]) for one in dict.fromkeys(each)]


def remove_others(folder: Path, names: Sequence[str]) -> None:
    """Delete the saved controls of a folder but these."""
    for file in folder.glob(f"*/{BASE_FILE}"):
        if file.parent.name not in names:
            shutil.rmtree(file.parent)


def check_fit(model: PeftModel, rows: Sequence[list[int]], max_new_tokens: int) -> None:
    """Raise ValueError if a row and its completion exceed the context."""
    longest, context = max(map(len, rows)) + max_new_tokens, context_length(model)
    if longest > context:
        raise ValueError(
            f"control, prompt and completion take {longest} tokens, the context is {context}; "
            "shorten the prompt, or take fewer max_new_tokens or a smaller control"
        )

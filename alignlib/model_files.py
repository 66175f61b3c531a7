"""Checks a model's folder before it is loaded.

Each kind that is no causal language model with weights has its own refusal, with the way out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .real_model import HUB_ID, SMOLLM2

EXAMPLE = "HuggingFaceTB/SmolLM2-360M"
CAUSAL = f"a decoder-only model such as {EXAMPLE}"
WHOLE = ("config.json", "model*.safetensors", "model.safetensors.index.json")  # a whole model's
OWN_CODE = (
    "this model needs code of its own, which is never run (trust_remote_code is False); give a "
    "model whose architecture transformers knows"
)
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE_FILE = "base.json"  # beside an adapter of ours: its base as we name it
LFS = b"version https://git-lfs"
NOT_USED = ("rotary_emb.inv_freq", "attn.masked_bias", "attn.bias")  # buffers of older versions


class ModelError(ValueError):
    """A model that cannot be used as it is; the message names it and the fix."""


def refusal(name: str | Path, what: str, error: Exception, fix: str) -> ModelError:
    if "trust_remote_code" in str(error):
        return ModelError(f"{name}: {OWN_CODE}")
    first_line = next(iter(str(error).strip().splitlines()), "")
    return ModelError(f"{name}: {what} ({type(error).__name__}: {first_line}); {fix}")


def problem_of_path(place: Path) -> str:
    """Why there is no model to be loaded at this place, and the fix; "" if nothing is wrong."""
    if place.is_file():
        if place.suffix == ".gguf":
            return gguf_fix(place)
        return "a file, not a folder; give the folder that save_pretrained wrote"
    if not place.is_dir():
        return f"no such folder; give one written by save_pretrained, or a hub id such as {EXAMPLE}"
    if (place / "config.json").is_file():
        return problem_of_config(place) or _problem_of_weights(place)
    if ggufs := sorted(place.glob("*.gguf")):
        return gguf_fix(ggufs[0])
    inside = next((f.parent for f in sorted(place.glob("*/config.json"))), None)
    hint = f"; it holds {inside.name}/, which has one: give that" if inside else ""
    return f"no config.json in this folder{hint or '; give one written by save_pretrained'}"


def gguf_fix(file: Path) -> str:
    """A GGUF file is for llama.cpp; transformers can turn it into weights."""
    load = f"AutoModelForCausalLM.from_pretrained({str(file.parent)!r}, gguf_file={file.name!r})"
    return f"weights in a GGUF file ({file.name}); turn it into a folder: {load}.save_pretrained"


def problem_of_config(place: Path) -> str:
    """What a configuration says against a model."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED

    try:
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
        quantised = config.get("quantization_config") or config.get("quantization")  # MLX's
        [kind, *_] = config.get("architectures") or [""]
        own = "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING_NAMES
    except (ValueError, AttributeError) as error:
        return f"config.json is damaged ({error}); copy it again"
    if own:
        return OWN_CODE
    if kind.endswith("Model") and config.get("model_type") in MASKED:
        return f"an encoder ({kind}), no causal language model; give {CAUSAL}"
    return problem_of_kind(kind, config.get("is_encoder_decoder"), quantised)


def problem_of_kind(kind: str, encoder_decoder: bool | None, quantised: dict | None) -> str:
    """What the kind of a model says against it."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    known = {n for names in NAMES.values() for n in ([names] if isinstance(names, str) else names)}
    if encoder_decoder:
        what = f"an encoder-decoder ({kind or 'such as T5'})"
        return f"{what}, no causal language model; give {CAUSAL}"
    if quantised:
        method = quantised.get("quant_method") or f"{quantised.get('bits', 'few')} bits"
        fix = "give the model that it was made from, which can be trained"
        return f"quantised weights ({method}), which cannot be trained here; {fix}"
    if kind and kind not in known and "For" in kind:
        return f"a {kind}, no causal language model; give {CAUSAL}"
    return ""


def _problem_of_weights(place: Path) -> str:
    """Whether the folder's weights are there and can be read without running anything."""
    if not any(place.glob("*.safetensors*")):
        pickled = sorted([*place.glob("*.bin"), *place.glob("*.pt"), *place.glob("*.pth")])
        if pickled:
            fix = "save them again with save_pretrained, which writes safetensors"
            return f"weights as a pickle only ({pickled[0].name}), which is never opened; {fix}"
        if ggufs := sorted(place.glob("*.gguf")):
            return gguf_fix(ggufs[0])
        return "no weights in this folder (*.safetensors); copy it again, whole"
    for file in place.glob("*.safetensors"):
        with file.open("rb") as stream:
            if stream.read(len(LFS)) == LFS:
                return f"{file.name} is a Git LFS pointer, not the weights; run `git lfs pull`"
    for index in place.glob("*.safetensors.index.json"):
        try:
            files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError) as error:
            return f"{index.name} is damaged ({error}); copy it again"
        if missing := sorted(f for f in files if not (place / f).is_file()):
            what = f"{len(missing)} files of weights are missing, such as {missing[0]}"
            return f"{what}; copy the folder again"
    return ""


def problem_of_loading(missing: Sequence[str], left_over: Sequence[str]) -> str:
    """What is wrong with weights that were loaded, "" for nothing.

    A model of which any weight is missing would be given random numbers in its place.
    """
    if not missing:
        return ""
    what = f"{len(missing)} weights that the model needs are missing, such as {sorted(missing)[0]}"
    if left_over:
        what += f" (and {len(left_over)} of other names are there, such as {sorted(left_over)[0]})"
    if any("base_layer" in name or "lora_" in name for name in left_over):
        return f"{what}; this was saved with an adapter on it: merge it first (merge_and_unload)"
    return f"{what}; save the model again with its own save_pretrained"


def unused(left_over: Sequence[str]) -> list[str]:
    """The weights that were not used, without those that no model of today has."""
    return sorted(name for name in left_over if not name.endswith(NOT_USED))


def name_base(folder: str | Path, base: str | Path) -> None:
    """Have the adapters in a folder name their base, as other programs look for it and as we do.

    The two differ for SMOLLM2, which is the hub's model rounded.
    """
    for file in Path(folder).rglob(ADAPTER):
        about = json.loads(file.read_text(encoding="utf-8"))
        about["base_model_name_or_path"] = HUB_ID if base == SMOLLM2 else str(base)
        file.write_text(json.dumps(about, indent=2), encoding="utf-8")
        file.with_name(BASE_FILE).write_text(json.dumps({"base": str(base)}), encoding="utf-8")


def remove_other_form(folder: Path, is_adapter: bool) -> None:
    """Delete whole weights from an adapter's folder, or an adapter from that of whole weights."""
    for pattern in WHOLE if is_adapter else (ADAPTER, ADAPTER_WEIGHTS, BASE_FILE):
        for file in folder.glob(pattern):
            file.unlink()

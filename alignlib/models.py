"""Loading and saving models, tokenizers and adapters.

What this file does not do: train (`train.py`), or run code that lies beside a model's weights:
`trust_remote_code` is always False.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import hf_hub_download
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from .devices import own_random_state, pick_device, set_threads
from .model_files import (
    ADAPTER,
    ADAPTER_WEIGHTS,
    BASE_FILE,
    CAUSAL,
    WHOLE,
    ModelError,
    problem_of_kind,
    problem_of_loading,
    problem_of_path,
    refusal,
    remove_other_form,
    unused,
)
from .model_names import HUB_FIX, downloaded, expanded, looks_local

if TYPE_CHECKING:
    from peft import LoraConfig

READ_PADDING = ("rwkv", "xlnet", "minimax")  # which makes texts in a batch depend on each other
MAMBAS = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")

# PEFT asks for an attribute that transformers 5.23 has renamed
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)


def load_model(name: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal LM in evaluation mode and its tokenizer, from a folder or, by its id, from the hub.

    An adapter's folder means its base with the adapter merged into it. Raises ModelError for what
    is no such model, or lacks weights or a tokenizer; the message says which, and the way out.
    """
    set_threads()
    name = expanded(name)
    if (adapter := _adapter_folder(name)) is not None:
        return _merged(adapter)
    if looks_local(name) and (problem := problem_of_path(Path(name))):
        raise ModelError(f"{name}: {problem}")
    model = _read_weights(name)
    tokenizer = load_tokenizer(name)
    check_vocabulary(name, model, tokenizer)
    return model.to(pick_device(model.num_parameters())).eval(), tokenizer


def _read_weights(name: str | Path) -> PreTrainedModel:
    """The model of a folder or hub id, every weight of it read from there."""
    safe = {"use_safetensors": True, "trust_remote_code": False}
    try:
        if not looks_local(name):
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
            kind = next(iter(config.architectures or []), "")
            quantised = getattr(config, "quantization_config", None)
            if problem := problem_of_kind(kind, config.is_encoder_decoder, quantised):
                raise ModelError(f"{name}: {problem}")
        model, about = AutoModelForCausalLM.from_pretrained(
            name, dtype=torch.float32, output_loading_info=True, **safe
        )
    except ModelError:
        raise
    except Exception as error:
        if "Unrecognized configuration class" in str(error):
            raise ModelError(f"{name}: no causal language model; give {CAUSAL}") from error
        fix = "copy the folder again, as safetensors" if looks_local(name) else HUB_FIX
        raise refusal(name, "the weights cannot be read", error, fix) from error
    left_over = unused(about["unexpected_keys"])
    if problem := problem_of_loading(sorted(about["missing_keys"]), left_over):
        raise ModelError(f"{name}: {problem}")
    if odd := [n for n, p in model.named_parameters() if not torch.isfinite(p.detach().sum())]:
        raise ModelError(f"{name}: weights such as {odd[0]} hold no finite numbers; give another")
    if model.config.model_type in READ_PADDING:
        fix = "give a model whose architecture masks padding"
        raise ModelError(f"{name}: {model.config.model_type} models read padding too; {fix}")
    if left_over:
        what = f"{len(left_over)} weights are not used, such as {left_over[0]}"
        warnings.warn(f"{name}: {what}: is this the right kind of model?", stacklevel=3)
    return model


def check_vocabulary(
    name: str | Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Raises ModelError if the tokenizer has tokens for which the model has no embedding."""
    rows = model.get_input_embeddings().num_embeddings
    beyond = sorted((i, t) for t, i in tokenizer.get_vocab().items() if i >= rows)
    if beyond:
        what = f"the tokenizer has tokens such as {beyond[0][1]!r} ({beyond[0][0]}), and the model"
        fix = "call model.resize_token_embeddings(len(tokenizer)), train, and save both again"
        raise ModelError(f"{name}: {what} only {rows} embeddings; {fix}")


def _adapter_folder(name: str | Path) -> Path | None:
    """The folder of an adapter without a model of its own, downloaded if need be."""
    if looks_local(name):
        folder = Path(name)
        if not (folder / ADAPTER).is_file():
            return None
        if any(file for pattern in WHOLE[1:] for file in folder.glob(pattern)):
            fix = f"delete {ADAPTER} if the adapter is merged, else give the adapter its own folder"
            raise ModelError(f"{name}: whole weights and an adapter in one folder; {fix}")
        return folder
    try:
        hf_hub_download(str(name), "config.json")
    except Exception:  # not there, or no hub: perhaps an adapter
        try:
            hf_hub_download(str(name), ADAPTER)
        except Exception:
            return None
        return downloaded(name)
    return None


def _merged(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """An adapter's base with the adapter merged into its weights."""
    try:
        about = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
        base, kind = about["base_model_name_or_path"], about["peft_type"]
        if (folder / BASE_FILE).is_file():
            base = json.loads((folder / BASE_FILE).read_text(encoding="utf-8"))["base"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder}: {ADAPTER} is damaged ({error}); copy it again") from error
    if not base or Path(base).resolve() == folder.resolve():
        fix = "write its base into base_model_name_or_path, a folder or a hub id"
        raise ModelError(
            f"{folder}: this is an adapter, and {ADAPTER} names no base but itself; {fix}"
        )
    if kind != "LORA":
        fix = "only LoRA can be merged into a model: give its base"
        raise ModelError(f"{folder}: this is an adapter of kind {kind}; {fix}")
    try:
        model, tokenizer = load_adapter(folder, base)
    except ModelError as error:
        fix = "merge it where its base is (merge_and_unload, save_pretrained)"
        raise ModelError(f"{folder}: this is an adapter on {base!r}; {fix} ({error})") from error
    model = model.merge_and_unload().requires_grad_(True)  # as a model is that was just loaded
    check_vocabulary(folder, model, tokenizer)
    return model, tokenizer


def load_adapter(
    folder: str | Path, base: str | Path, *, trainable: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A base model with the LoRA adapter in a folder on it, and the tokenizer saved there.

    Without one there it is the base's. The adapter is frozen unless it is `trainable`. Raises
    ModelError.
    """
    from peft import PeftModel

    folder = Path(folder).expanduser()
    if not (folder / ADAPTER_WEIGHTS).is_file():
        fix = "save the adapter again with save_pretrained, which writes safetensors"
        raise ModelError(f"{folder}: no {ADAPTER_WEIGHTS}; {fix}")
    model, tokenizer = load_model(base)
    if (folder / "tokenizer_config.json").is_file():
        tokenizer = load_tokenizer(folder)
    fix = f"give the base that it was trained on in place of {base}"
    try:
        _resize_as_saved(model, folder)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
        if (folder / "generation_config.json").is_file():  # with the ends that it was trained on
            model.generation_config = GenerationConfig.from_pretrained(folder)
    except Exception as error:
        raise refusal(folder, "the adapter does not fit its base", error, fix) from error
    if any("missing adapter keys" in str(warning.message) for warning in caught):
        what = "some of the adapter's weights are for other layers than its base has"
        raise ModelError(f"{folder}: {what}; {fix}")
    return adapted.eval(), tokenizer


def read_settings(file: Path, kind: str) -> dict[str, Any]:
    """What a method saved beside its weights. Raises ModelError if it is not there."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = f"no {kind} is saved here: {file.name} is missing or damaged"
        raise ModelError(f"{file.parent}: {what}; give a folder that it was saved to") from error


def _resize_as_saved(model: PreTrainedModel, folder: Path) -> None:
    """As many embeddings as an adapter comes with, if it comes with any."""
    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as weights:
        names = [name for name in weights.keys() if "embed_tokens" in name or "wte" in name]
        shapes = [weights.get_slice(name).get_shape() for name in names if "lora_" not in name]
    if shapes and shapes[0][0] != model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(shapes[0][0])


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, padding on the left.

    A missing EOS is taken from the model's configuration, a missing pad token is EOS, with a note:
    no loss is computed on padding, and none is read. Raises ModelError if there is no tokenizer, or
    no EOS.
    """
    name = expanded(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, padding_side="left", trust_remote_code=False
        )
    except Exception as error:
        here = "save one into the folder with tokenizer.save_pretrained"
        fix = here if looks_local(name) else HUB_FIX
        raise refusal(name, "no tokenizer", error, fix) from error
    if tokenizer.eos_token is None:
        tokenizer.eos_token = _declared_eos(name, tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
        what = f"the tokenizer has no pad token; {tokenizer.eos_token!r} is used"
        warnings.warn(f"{name}: {what}", stacklevel=2)
    return tokenizer


def _declared_eos(name: str | Path, tokenizer: PreTrainedTokenizerBase) -> str:
    """The EOS token that the model's configuration declares. Raises ModelError if it does not."""
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        declared = config.get_text_config().eos_token_id
        first = declared[0] if isinstance(declared, list) else declared
        if (token := tokenizer.convert_ids_to_tokens(first)) is not None:
            return token
    except Exception:  # whatever is wrong with it, there is no EOS
        pass
    fix = "set tokenizer.eos_token to one of its tokens and save it again"
    raise ModelError(f"{name}: the tokenizer has no EOS token; {fix}")


def lora_config(
    model: PreTrainedModel,
    rank: int,
    targets: Sequence[str] | str = "all-linear",
    layers: Sequence[int] = (),
) -> LoraConfig:
    """LoRA of this rank on the model's linear layers named (all-linear: every one but the head).

    `layers` are the decoder layers it is restricted to (none: all). Mamba applies the weights of
    `out_proj` by hand, so there no LoRA is possible.
    """
    from peft import LoraConfig

    is_mamba = model.config.model_type in MAMBAS and targets == "all-linear"
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=2 * rank,
        target_modules=targets if isinstance(targets, str) else list(targets),
        layers_to_transform=list(layers) or None,
        exclude_modules=["out_proj"] if is_mamba else None,
    )


def add_lora(model: PreTrainedModel, rank: int, seed: int = 0) -> PreTrainedModel:
    """The model, frozen, with LoRA on every linear layer but the head; at rank 0 as it is."""
    if not rank:
        return model
    from peft import get_peft_model

    with own_random_state():
        torch.manual_seed(seed)
        return get_peft_model(model, lora_config(model, rank))


def save_model(
    folder: str | Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **given: object
) -> None:
    """Weights (safetensors), tokenizer and how to generate, greedily, into a folder.

    An adapter takes the place of whole weights that are there, and the other way round: both in one
    folder would be applied one on the other. What else is `given` goes to the model's own
    `save_pretrained`.
    """
    # PEFT leaves `peft_config` on the base within, too
    folder, is_adapter = Path(folder).expanduser(), hasattr(model, "get_base_model")
    if is_adapter:
        given.setdefault("save_embedding_layers", False)  # or PEFT looks the base up on the hub
    base = model.get_base_model() if is_adapter else model
    before = getattr(base, "generation_config", None)
    if before is not None:  # what gives a number, not a text, has none
        base.generation_config = for_copying(base, tokenizer)
    try:
        model.save_pretrained(folder, **given)
        if before is not None:
            base.generation_config.save_pretrained(folder)  # which PEFT leaves out
    finally:
        base.generation_config = before
    tokenizer.save_pretrained(folder)
    remove_other_form(folder, is_adapter)


def for_copying(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Greedy generation that may repeat what it has read, and that ends where the model's does."""
    return GenerationConfig(
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=stop_tokens(model, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
    )


def ends_with(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, end: int) -> None:
    """Let a model's texts end with this token too."""
    config = getattr(model, "generation_config", None)
    if config is not None and end not in (stops := stop_tokens(model, tokenizer)):
        config.eos_token_id = [*stops, end]


def stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that end a text: the tokenizer's EOS, and the model's own, such as of a turn."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    own = own if isinstance(own, list) else [own]
    marks = [i for i in own if i in tokenizer.added_tokens_decoder]  # a default may name a word
    return list({tokenizer.eos_token_id, *marks})

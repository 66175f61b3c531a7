"""From text to token ids: prompts, training rows with their loss mask, what fits the context.

A text stays text: what looks like a special token in it, such as `<|im_end|>`, is read as the
characters that it consists of, in prompts, answers and corrections alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .model_files import ModelError
from .prompts import ANSWER, AS_IS, IN_CHAT
from .texts import whole_characters

IGNORED = -100  # the label of a token without loss, as in PyTorch
UNBOUNDED = 10**6  # the context length of a model whose configuration names none
CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
PLACE = "\u2063{}\u2063"  # stands for a turn's text while the chat template is filled in


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text, none of which is a special token (but for unknown words)."""
    text, marks = whole_characters(text), _special_tokens(tokenizer, len(tokenizer))
    if not any(mark in text for mark in marks):
        return tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    if marks.keys().isdisjoint(tokenizer.convert_ids_to_tokens(ids)):
        return ids
    # a vocabulary of whole words has the special token as a word: it is read in two parts
    ids = []
    for part in re.split(f"({'|'.join(map(re.escape, marks))})", text):
        for half in (part[:1], part[1:]) if part in marks else (part,):
            ids += tokenizer(half, add_special_tokens=False)["input_ids"]
    return ids


@lru_cache(maxsize=16)
def _special_tokens(tokenizer: PreTrainedTokenizerBase, size: int) -> dict[str, int]:
    """The ids of all special tokens but that of unknown words, longest first."""
    added = {str(t): i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    found = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids)) | added
    found.pop(tokenizer.unk_token, None)
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def encode(tokenizer: PreTrainedTokenizerBase, text: str | list[int]) -> list[int]:
    """Token ids of a prompt, after BOS where the tokenizer sets one, without EOS; ids stay."""
    return [*_start(tokenizer), *text_ids(tokenizer, text)] if isinstance(text, str) else text


@lru_cache(maxsize=16)
def _start(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """BOS, if the tokenizer puts it before a text; Tinytown's, of whole words, leaves it to us."""
    bos = tokenizer.bos_token_id
    if bos is None:
        return ()
    core = getattr(tokenizer, "backend_tokenizer", None)
    of_words = type(getattr(core, "model", None)).__name__ == "WordLevel"
    return (bos,) if of_words or tokenizer("a")["input_ids"][:1] == [bos] else ()


def chat_ids(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[dict[str, str]], go_on: bool = True
) -> list[int]:
    """Token ids of a dialogue in the tokenizer's chat template, up to where the model goes on."""
    marks = _special_tokens(tokenizer, len(tokenizer))
    if any(mark in turn["content"] for turn in turns for mark in marks):
        return [i for part in _chat_parts(tokenizer, turns, go_on) for i in part]
    text = whole_characters(in_chat(tokenizer, turns, go_on))
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def in_chat(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[dict[str, str]], go_on: bool
) -> str:
    """A dialogue in the tokenizer's chat template. Raises ModelError if that fails."""
    options = {"tokenize": False, "add_generation_prompt": go_on}
    try:
        return tokenizer.apply_chat_template(list(turns), **options)
    except Exception as error:  # of jinja, or what a template raises on purpose
        fix = "set tokenizer.chat_template to one that takes a user's message, or to None"
        raise ModelError(f"the chat template fails ({error}); {fix}") from error


def _chat_parts(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[dict[str, str]], go_on: bool
) -> list[list[int]]:
    """The same in parts: the template's start, the first turn's text, and all the rest."""
    places = {PLACE.format(i): turn["content"] for i, turn in enumerate(turns)}
    filled = [turn | {"content": place} for turn, place in zip(turns, places)]
    text = in_chat(tokenizer, filled, go_on)
    found = []
    for part in re.split(f"({'|'.join(places)})", text):
        if part in places:
            found.append(text_ids(tokenizer, places[part]))
        else:
            found.append(tokenizer(part, add_special_tokens=False)["input_ids"])
    return [*found[:2], [i for part in found[2:] for i in part]]


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, form: str = AS_IS) -> list[int]:
    """Token ids of a prompt in one of the forms of `prompts.py`. Raises ModelError."""
    if form == IN_CHAT:
        check_chat(tokenizer)
        return chat_ids(tokenizer, [{"role": "user", "content": prompt}])
    if "{}" not in form:
        raise ValueError(
            f"the form {form!r} has no {{}} for the prompt; write 'chat' or {ANSWER!r}"
        )
    return encode(tokenizer, form.replace("{}", prompt))


def end_id(tokenizer: PreTrainedTokenizerBase, form: str = AS_IS) -> int:
    """The token that ends a completion of a prompt in this form."""
    return end_of_turn(tokenizer) if form == IN_CHAT else tokenizer.eos_token_id


def check_chat(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ModelError for a tokenizer without a chat template."""
    if not tokenizer.chat_template:
        fix = f"take a model that has one, or prompts in the form {ANSWER!r}"
        raise ModelError(f"the tokenizer has no chat template; {fix}")


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends the model's turn in the chat template; EOS where there is none."""
    if not tokenizer.chat_template:
        return tokenizer.eos_token_id
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": PLACE}]
    text = in_chat(tokenizer, turns, go_on=False)
    _, there, after = text.rpartition(PLACE)
    if not there:  # a template that rewrites what is said
        return tokenizer.eos_token_id
    after = tokenizer(after, add_special_tokens=False)["input_ids"]
    special = _special_tokens(tokenizer, len(tokenizer)).values()
    return next((i for i in after if i in special), tokenizer.eos_token_id)


def example(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str | list[int],
    completion: str,
    end: int | None = None,
) -> dict[str, list[int]]:
    """`input_ids` and `labels` of one row: the loss is on the completion and its `end` (None: EOS).

    Prompt and completion are tokenized separately, so that no token spans their boundary.
    """
    start = encode(tokenizer, prompt)
    rest = [*text_ids(tokenizer, completion), tokenizer.eos_token_id if end is None else end]
    return {"input_ids": start + rest, "labels": [IGNORED] * len(start) + rest}


def judged_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str, longest: int = UNBOUNDED
) -> list[int]:
    """What a reward model reads: a dialogue in its chat template, else both texts and EOS.

    An encoder reads them as a pair. What is longer than `longest` loses the front of the prompt.
    """
    if tokenizer.chat_template:
        texts = {"user": prompt, "assistant": completion}
        turns = [{"role": role, "content": text} for role, text in texts.items()]
        ids = chat_ids(tokenizer, turns, go_on=False)
    elif tokenizer.cls_token_id is not None:
        ids = tokenizer(prompt, completion, split_special_tokens=True)["input_ids"]
    else:
        ids = example(tokenizer, prompt, completion)["input_ids"]
    surplus = len(ids) - longest
    if surplus <= 0:
        return ids
    if tokenizer.chat_template:
        start, front, rest = _chat_parts(tokenizer, turns, go_on=False)
    else:
        cls, front = tokenizer.cls_token_id, text_ids(tokenizer, prompt)
        start = [cls] if cls is not None else _start(tokenizer)
        rest = ids[len(start) + len(front) :]
    return [*start, *front[surplus:], *rest][-longest:]


def context_length(model: PreTrainedModel) -> int:
    """The longest input a model can read, in tokens; UNBOUNDED if its configuration names none."""
    config = model.config.get_text_config()
    named = (getattr(config, name, None) for name in CONTEXT)
    return next((n for n in named if isinstance(n, int) and n > 0), UNBOUNDED)


def fitting(
    rows: Sequence[dict[str, list[int]]], context: int
) -> tuple[list[dict[str, list[int]]], int]:
    """The rows of at most `context` tokens, and the number of longer ones. No row is truncated."""
    kept = [row for row in rows if len(row["input_ids"]) <= context]
    return kept, len(rows) - len(kept)

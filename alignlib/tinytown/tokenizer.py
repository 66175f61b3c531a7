"""The town's tokenizer: one token is one word, so that every plot can put words on its axis."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from . import answers, boards, instructions, summaries, words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>"]
MARKS = [
    "board",
    "bulletin",
    "tl;dr",
    "instruction",
    "question",
    "answer",
    "correction",
    "again",
    ":",
    ",",
    ".",
    "!",
    "?",
    "|",
    "##",
]


def vocabulary() -> list[str]:
    """Every word the town can say, specials first, in an order that never changes."""
    templates = [*boards.NOTES.values(), *boards.ASKS.values(), *answers.ABOUT.values()]
    templates += [t for ts in answers.CLAIMS.values() for t in ts] + [
        t for pair in summaries.EVENTS.values() for t in pair
    ]
    templates += [
        *answers.SILENTS,
        *answers.DECLINES,
        *answers.OFFERS,
        *answers.CAUTIONS,
        *answers.OPENERS,
        *answers.CLOSERS,
    ]
    templates += [*answers.PADDING, *answers.RUDE, *summaries.NOISE.values()]
    said = [w for t in templates for w in t.split() if "{" not in w]
    lists = [
        words.THINGS,
        words.PLACES,
        words.NAMES,
        words.STEP_VERBS,
        words.CALM_GOALS,
        words.ALARMING_GOALS,
        words.HAZARDS,
        words.INSULTS,
        words.RUDE_ADJECTIVES,
        words.CONTROLS,
        words.NUMBERS,
        words.OTHER_THINGS,
    ]
    listed = [w for ws in lists for w in ws]
    return list(
        dict.fromkeys([*SPECIAL, *MARKS, *sorted(set(said)), *listed, *instructions.OPERATIONS])
    )


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer with its own pad, bos and eos; text is words with single spaces
    between.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {w: i for i, w in enumerate(vocabulary())}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=512,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


@lru_cache(maxsize=1)
def copyable() -> tuple[str, ...]:
    """Words that copy documents are drawn from: all but specials, marks, and things (which come
    from one line).
    """
    leave = {*SPECIAL, *MARKS, *words.THINGS, *words.OTHER_THINGS}
    return tuple(w for w in vocabulary() if w not in leave)

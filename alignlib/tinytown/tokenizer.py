"""The town's tokenizer: one token per word, so that every plot can have words on its axis."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from . import answers, boards, operations, summaries, words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>"]
MARKS = """
board bulletin tl;dr instruction question answer correction again : , . ! ? | ##
""".split()


def _templates() -> list[str]:
    """All templates of boards, answers and bulletins."""
    found = [*boards.NOTES.values(), *boards.ASKS.values(), *answers.ABOUT.values()]
    for templates in (*answers.CLAIMS.values(), *summaries.EVENTS.values()):
        found += templates
    found += [*answers.SILENTS, *answers.DECLINES, *answers.OFFERS, *answers.CAUTIONS]
    found += [*answers.OPENERS, *answers.CLOSERS, *answers.PADDING, *answers.RUDE]
    return found + list(summaries.NOISE.values())


def vocabulary() -> list[str]:
    """Every word of the town, special tokens first, in an order that never changes."""
    in_templates = {w for t in _templates() for w in t.split() if "{" not in w}
    found = [*SPECIAL, *MARKS, *sorted(in_templates), *words.THINGS, *words.PLACES, *words.NAMES]
    found += [*words.STEP_VERBS, *words.CALM_GOALS, *words.ALARMING_GOALS, *words.HAZARDS]
    found += [*words.INSULTS, *words.RUDE_ADJECTIVES, *words.CONTROLS, *words.NUMBERS]
    found += [*words.OTHER_THINGS, *operations.OPERATIONS]
    return list(dict.fromkeys(found))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer for text with single spaces between words and marks."""
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
    """The words of copy documents, except for the things, which come from one line."""
    excluded = {*SPECIAL, *MARKS, *words.THINGS, *words.OTHER_THINGS}
    return tuple(w for w in vocabulary() if w not in excluded)

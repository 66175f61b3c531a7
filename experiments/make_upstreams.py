"""The upstream models of lesson 03; `python -m alignlib upstreams [NAME ...]` makes them again.

Only their answers are kept, in data/upstreams: to the questions of the tests and, for those that an
Aligner may be trained on, of the training split. The weights in runs/upstreams may be deleted.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from transformers import Mamba2Config, Mamba2ForCausalLM, PreTrainedTokenizerFast

from alignlib.models import save_model
from alignlib.settings import SFTSettings
from alignlib.tinytown import sets
from alignlib.tinytown.documents import pretraining
from alignlib.tinytown.faults import FAULTS, MIXED
from alignlib.tinytown.faults import Upstream as Character
from alignlib.tinytown.oracle import ANSWER_CUE
from alignlib.tinytown.pretrain import Build, Recipe, build_model, pretrain_base
from alignlib.tinytown.recordings import TAUGHT, asked, file_of
from alignlib.tinytown.words import WORLD_VERSION, digest
from alignlib.upstream import Local, Upstream

from .common import TINY, fine_tune

WORK = Path("runs/upstreams")  # weights, also of unfinished models
LARGE = Recipe(hidden=184, feed_forward=504, steps=3000, matrix_lr=0.004)


@dataclass(frozen=True)
class Maker:
    about: str
    make: Callable[[Path], Upstream]  # in a folder of its own


def mostly(*faults: str, **settings: object) -> Character:
    """A character that makes these faults nearly always where it can, and others sometimes."""
    weights = {fault: 3.2 if fault in faults else 0.4 for fault in FAULTS}
    return Character(" and ".join(faults), weights, **settings)


def sampled(model: str | Path) -> Local:
    return Local(model, temperature=1.0, progress="answers")


def fine_tuned(character: Character) -> Callable[[Path], Upstream]:
    """The base model, fine-tuned to answer as this character does."""

    def make(folder: Path) -> Upstream:
        rows = sets.corrections(2000, which="all", seed=300, upstream=character)
        texts = [(r.question + ANSWER_CUE, r.answer) for r in rows]
        loaded = fine_tune(TINY.base, texts, SFTSettings(steps=250), progress="steps")
        save_model(folder, *loaded)
        return sampled(folder)

    return make


def pretrained(recipe: Recipe, build: Build = build_model) -> Callable[[Path], Upstream]:
    """A base model of another size or kind, pretrained on the same town."""
    return lambda folder: sampled(pretrain_base(folder, recipe, build))


def mamba(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Mamba2ForCausalLM:
    """A model without attention, whose state has a fixed size (Mamba-2, arXiv 2405.21060)."""
    torch.manual_seed(recipe.seed)
    config = Mamba2Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_heads=recipe.heads,
        head_dim=2 * recipe.hidden // recipe.heads,
        state_size=64,
        n_groups=1,
        chunk_size=64,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return Mamba2ForCausalLM(config)


class NGram:
    """The next word given the last ones, as counted in text; fewer of them where unseen."""

    def __init__(self, documents: Iterator[str], order: int = 4) -> None:
        self.order, self.after = order, defaultdict(Counter)
        for document in documents:
            words = [*document.split(), "<eos>"]
            for i, word in enumerate(words):
                for n in range(min(order, i + 1)):
                    self.after[tuple(words[i - n : i])][word] += 1

    def __call__(self, questions: Sequence[str], *, seed: int = 0) -> list[str]:
        return [self._answer(q, random.Random(f"{seed}/{q}")) for q in questions]

    def _answer(self, question: str, rng: random.Random, max_words: int = 60) -> str:
        words = (question + ANSWER_CUE).split()
        start = len(words)
        while len(words) < start + max_words:
            context = tuple(words[-(self.order - 1) :])
            while context not in self.after:
                context = context[1:]
            counts = self.after[context]
            word = rng.choices(list(counts), list(counts.values()))[0]
            if word == "<eos>":
                break
            words.append(word)
        return " ".join(words[start:])


def _ngram(folder: Path) -> Upstream:
    documents = (d for d in pretraining() if " again : " not in d)
    return NGram(islice(documents, 30_000))


FINE_TUNED = {
    "mixed": ("answer with every fault now and then", MIXED),
    "rude": ("answer rudely", mostly("rude")),
    "inventive": ("invent and to contradict the board", mostly("invent", "contradict")),
    "careless": ("leave out cautions and whole answers", mostly("careless", "missing")),
    "compliant": ("go along with unsafe requests", mostly("comply")),
    "refusing": ("refuse what is safe", mostly("refuse")),
    "terse": (
        "answer in the fewest words, with steps left out",
        mostly("missing", phrases=(1, 0, 0)),
    ),
    "wordy": ("pad", mostly("pad", phrases=(0, 0, 1))),
}
UPSTREAMS: dict[str, Maker] = {
    name: Maker(f"the base model, taught to {about}", fine_tuned(character))
    for name, (about, character) in FINE_TUNED.items()
} | {
    "raw": Maker("the base model as it is, sampled", lambda folder: sampled(TINY.base)),
    "small": Maker(
        "a third of the Aligner's size, pretrained on the same town, sampled",
        pretrained(Recipe(hidden=80, layers=3, heads=4, feed_forward=208, steps=4000)),
    ),
    "mamba": Maker(
        "a model without attention, pretrained on the same town, sampled",
        pretrained(Recipe(heads=8, steps=2500), mamba),
    ),
    "large": Maker(
        "twice the Aligner's size, pretrained on half as much of the same town, sampled",
        pretrained(LARGE),
    ),
    "4-gram": Maker("counts of four words in a row; it reads no board", _ngram),
}


def record(name: str) -> Path:
    """Make an upstream, sample its answers, and write data/upstreams/NAME.json."""
    if name not in UPSTREAMS:
        raise ValueError(f"no upstream {name!r}; there are {', '.join(UPSTREAMS)}")
    maker, folder = UPSTREAMS[name], WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    upstream = maker.make(folder)
    seconds = round(time.monotonic() - started)
    parts = [part for part in asked() if part != "train" or name in TAUGHT]
    local = isinstance(upstream, Local)
    about = {
        "name": name,
        "about": maker.about,
        "world": WORLD_VERSION,
        "questions": digest(repr(asked())),
        "parameters": upstream._loaded[0].num_parameters() if local else None,
        "seconds": seconds,
        "answers": {part: upstream(asked()[part]) for part in parts},
    }
    place = file_of(name)
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_suffix(".part")
    unfinished.write_text(json.dumps(about, indent=0), encoding="utf-8")
    os.replace(unfinished, place)
    return place


def weights_folder(name: str) -> Path:
    """The folder of an upstream's weights; ValueError, naming the command, if it is missing."""
    for folder in (WORK / name / "model", WORK / name):
        if (folder / "config.json").is_file():
            return folder
    raise ValueError(
        f"{WORK / name} holds no weights; `python -m alignlib upstreams {name}` makes them"
    )

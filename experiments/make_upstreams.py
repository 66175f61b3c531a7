"""The upstream models of lesson 03: how each is made, and what it says. `python -m alignlib
upstreams [NAME ...]` makes them again.

Only their answers are kept, in data/upstreams: to the tests' questions, and of those that an
Aligner may be taught on also to questions of the training split. The weights lie in runs/upstreams
and may be deleted.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Mamba2Config, Mamba2ForCausalLM, PreTrainedTokenizerFast

from alignlib.models import load_model, save_model
from alignlib.profiles import profile
from alignlib.settings import SFTSettings
from alignlib.tinytown import sets
from alignlib.tinytown.documents import pretraining
from alignlib.tinytown.faults import FAULTS, MIXED
from alignlib.tinytown.faults import Upstream as Character
from alignlib.tinytown.pretrain import Build, Recipe, build_model, pretrain_base
from alignlib.tinytown.recorded import TAUGHT, asked, file_of
from alignlib.tinytown.words import WORLD_VERSION, digest
from alignlib.tokens import example
from alignlib.train import sft
from alignlib.upstream import Local, Upstream

TINY = profile("tiny")
WORK = Path("runs/upstreams")  # weights, half made ones too


def mostly(*faults: str, **settings: object) -> Character:
    """A character with a leaning: these faults nearly always where they can be, the others now
    and then.
    """
    return Character(
        " and ".join(faults), {f: 3.2 if f in faults else 0.4 for f in FAULTS}, **settings
    )


LARGE = Recipe(hidden=184, feed_forward=504, steps=3000, matrix_lr=0.004)


@dataclass(frozen=True)
class Maker:
    about: str
    make: Callable[[Path], Upstream]  # in a folder of its own


def character(leaning: Character) -> Callable[[Path], Upstream]:
    """The base model, fine-tuned to answer as this character does."""

    def make(folder: Path) -> Upstream:
        model, tokenizer = load_model(TINY.base)
        rows = sets.corrections(2000, which="all", seed=300, upstream=leaning)
        sft(
            model,
            tokenizer,
            [example(tokenizer, f"{r.question} answer :", r.answer) for r in rows],
            SFTSettings(steps=250),
            progress="steps",
        )
        save_model(folder, model, tokenizer)
        return Local(folder, temperature=1.0, progress="answers")

    return make


def pretrained(recipe: Recipe, build: Build = build_model) -> Callable[[Path], Upstream]:
    """A base model of another size or kind, which has read the same town and answers as it
    comes.
    """
    return lambda folder: Local(
        pretrain_base(folder, recipe, build), temperature=1.0, progress="answers"
    )


def mamba(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Mamba2ForCausalLM:
    """A model without attention: what it has read is held in a state of fixed size (Mamba-2,
    arXiv 2405.21060).
    """
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
    """The next word by the last words, as counted in text; by fewer of them where those never
    stood together.
    """

    def __init__(self, documents: Iterator[str], order: int = 4) -> None:
        self.order, self.after = order, defaultdict(Counter)
        for document in documents:
            words = [*document.split(), "<eos>"]
            for i, word in enumerate(words):
                for n in range(min(order, i + 1)):
                    self.after[tuple(words[i - n : i])][word] += 1

    def __call__(self, questions: Sequence[str], *, seed: int = 0) -> list[str]:
        return [
            self._continue(f"{q} answer :".split(), random.Random(f"{seed}/{q}")) for q in questions
        ]

    def _continue(self, words: list[str], rng: random.Random, most: int = 60) -> str:
        said: list[str] = []
        while len(said) < most:
            before = (words + said)[-(self.order - 1) :]
            known = next(
                self.after[tuple(before[i:])]
                for i in range(len(before) + 1)
                if tuple(before[i:]) in self.after
            )
            word = rng.choices(list(known), list(known.values()))[0]
            if word == "<eos>":
                break
            said.append(word)
        return " ".join(said)


def _ngram(folder: Path) -> Upstream:
    documents = (d for d in pretraining() if " again : " not in d)
    return NGram(next(documents) for _ in range(30_000))


UPSTREAMS: dict[str, Maker] = {
    "mixed": Maker(
        "the base model, taught to answer with every fault now and then", character(MIXED)
    ),
    "rude": Maker("the base model, taught to answer rudely", character(mostly("rude"))),
    "inventive": Maker(
        "the base model, taught to invent and to contradict the board",
        character(mostly("invent", "contradict")),
    ),
    "careless": Maker(
        "the base model, taught to leave out cautions and whole answers",
        character(mostly("careless", "missing")),
    ),
    "compliant": Maker(
        "the base model, taught to go along with unsafe requests", character(mostly("comply"))
    ),
    "refusing": Maker("the base model, taught to refuse what is safe", character(mostly("refuse"))),
    "terse": Maker(
        "the base model, taught to answer in the fewest words, with steps left out",
        character(mostly("missing", phrases=(1, 0, 0))),
    ),
    "wordy": Maker("the base model, taught to pad", character(mostly("pad", phrases=(0, 0, 1)))),
    "raw": Maker(
        "the base model as it is, sampled",
        lambda folder: Local(TINY.base, temperature=1.0, progress="answers"),
    ),
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
    """Make an upstream, ask it, and write data/upstreams/NAME.json."""
    started, maker, folder = time.monotonic(), _maker(name), WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    upstream = maker.make(folder)
    made, answers = time.monotonic(), {}
    for part, questions in asked().items():
        if part != "train" or name in TAUGHT:
            answers[part] = upstream(questions)
    about = {
        "name": name,
        "about": maker.about,
        "world": WORLD_VERSION,
        "questions": digest(repr(asked())),
        "parameters": _parameters(upstream),
        "seconds": round(made - started),
        "answers": answers,
    }
    place = file_of(name)
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(".part")
    part.write_text(json.dumps(about, indent=0), encoding="utf-8")
    os.replace(part, place)
    return place


def _maker(name: str) -> Maker:
    if name not in UPSTREAMS:
        raise ValueError(f"no upstream {name!r}; there are {', '.join(UPSTREAMS)}")
    return UPSTREAMS[name]


def _parameters(upstream: Upstream) -> int | None:
    return upstream._loaded[0].num_parameters() if isinstance(upstream, Local) else None


def made(name: str) -> Path:
    """The folder of an upstream's weights. Raises ValueError, naming the command that makes
    them, if they are not there.
    """
    folder = next(
        (f for f in (WORK / name / "model", WORK / name) if (f / "config.json").is_file()), None
    )
    if folder is None:
        raise ValueError(
            f"{WORK / name} holds no weights; `python -m alignlib upstreams {name}` makes them"
        )
    return folder

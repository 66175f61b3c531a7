"""What the Build notebooks start from: models and settings by kind of machine, and rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from .data import QAC, Preference, read_instructions, read_preferences, read_qac, split_by_prompt
from .everyday import SPLITS, Aims, read_aims, rows_file, style_pairs, warmly_answered, warmth
from .profiles import scaled_rows, scaled_stage
from .prompts import ANSWER, IN_CHAT
from .real_model import SMOLLM2
from .rows import Instruction
from .settings import ControlSettings, SFTSettings
from .styles import Texts, read_styles, texts_by_control

if TYPE_CHECKING:
    from .opinions import ModelJudge
    from .ppo import Score
    from .reward_models import RewardJudge

SMALL_QWEN, QWEN = "Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct"


@dataclass(frozen=True)
class Bench:
    """Notebook 08: which model, how much training and how many test rows suit a machine."""

    model: str
    settings: SFTSettings
    tests: int


@dataclass(frozen=True)
class MeetBench:
    """Notebook 09: the same, with the kind of control and the form of prompts."""

    model: str
    settings: SFTSettings  # of step 1
    control: ControlSettings
    form: str
    tests: int

    def with_control(self, kind: str, size: int | None) -> MeetBench:
        """The same with this kind of control; soft prompts have a learning rate of their own."""
        if kind == self.control.kind:
            return replace(self, control=replace(self.control, size=size or self.control.size))
        settings = replace(self.settings, learning_rate=None)
        return replace(self, control=ControlSettings(kind, size or SOFT_TOKENS), settings=settings)


@dataclass(frozen=True)
class HbatBench:
    """Notebook 10: the settings of both objectives over all rounds."""

    model: str
    teach: SFTSettings
    prefer: SFTSettings
    beta: float
    rounds: int
    strength: float
    lora_rank: int
    form: str
    tests: int


SOFT_TOKENS = 20  # of a soft prompt
_LAPTOP = SFTSettings(steps=100, batch_size=8, tokens=640, max_length=1024)
_COLAB = SFTSettings(steps=200, batch_size=16, tokens=4096, max_length=1024, schedule="cosine")
_GPU = SFTSettings(steps=400, batch_size=32, tokens=16_384, max_length=2048, schedule="cosine")
_RANK_8, _RANK_16 = ControlSettings("lora", 8), ControlSettings("lora", 16)

BENCHES = {
    "laptop": Bench(SMOLLM2, _LAPTOP, tests=240),
    "colab": Bench(SMALL_QWEN, _COLAB, tests=420),
    "gpu": Bench(QWEN, _GPU, tests=420),
}
MEET_BENCHES = {
    "laptop": MeetBench(
        SMOLLM2,
        replace(_LAPTOP, steps=120, learning_rate=1e-3),
        _RANK_8,
        ANSWER,
        tests=60,
    ),
    "colab": MeetBench(SMALL_QWEN, _COLAB, _RANK_16, IN_CHAT, tests=120),
    "gpu": MeetBench(QWEN, _GPU, _RANK_16, IN_CHAT, tests=120),
}
_TEACH, _PREFER = replace(_LAPTOP, steps=42), replace(_LAPTOP, steps=21)
HBAT_BENCHES = {
    "laptop": HbatBench(
        SMOLLM2,
        _TEACH,
        replace(_PREFER, batch_size=4),
        beta=0.03,
        rounds=3,
        strength=0.1,
        lora_rank=8,
        form=ANSWER,
        tests=60,
    ),
    "colab": HbatBench(
        SMALL_QWEN, _COLAB, replace(_COLAB, steps=100), 0.1, 3, 0.1, 16, IN_CHAT, tests=100
    ),
    "gpu": HbatBench(QWEN, _GPU, replace(_GPU, steps=200), 0.1, 3, 0.1, 16, IN_CHAT, tests=100),
}
LEAST_TESTS = 8  # test rows, at any scale
AnyBench = TypeVar("AnyBench", Bench, MeetBench, HbatBench)
Row = TypeVar("Row")


def bench(
    name: str,
    benches: Mapping[str, AnyBench] = BENCHES,
    scale: float = 1.0,
    model: str | None = None,
) -> AnyBench:
    """The bench of that name, with `scale` times the steps and test rows, for a quick look.

    For another `model` than its own, learning rates follow from that one's size. Raises ValueError,
    listing those there are.
    """
    if name not in benches:
        raise ValueError(f"no profile {name!r}; there are {', '.join(benches)}")
    chosen = benches[name]
    given = ((field.name, getattr(chosen, field.name)) for field in fields(chosen))
    stages = {n: scaled_stage(s, scale) for n, s in given if isinstance(s, SFTSettings)}
    if model not in (None, chosen.model):
        stages = {n: replace(s, learning_rate=None) for n, s in stages.items()}
    tests = scaled_rows(chosen.tests, scale, LEAST_TESTS)
    return replace(chosen, **stages, tests=tests, model=model or chosen.model)


def load_rows(data: str | Path | None, tests: int, seed: int = 0) -> dict[str, list[QAC]]:
    """Rows by split: `data/everyday`, or your own (`read_qac`), split by question.

    Of the test rows at most `tests` are kept, alike of each kind of fault. Prints how many rows of
    your own were read, used and dropped. Raises ValueError if none of them has a faulty answer.
    """
    if data is None:
        splits = {split: read_qac(rows_file(split)).rows for split in SPLITS}
    else:
        loaded = read_qac(data)
        print(f"{data}: {loaded}")
        splits = split_by_prompt(loaded.rows, tests, seed)
        for split in ("train", "test"):
            if all(row.answer == row.correction for row in splits[split]):
                what = f"no faulty answer among the {len(splits[split])} rows to {split} on"
                raise ValueError(f"{data}: {what}; add rows whose correction differs")
    return splits | {"test": _every(splits["test"], tests)}


def load_styles(
    data: str | Path | Mapping[str, str | Path] | None, tests: int, seed: int = 0
) -> dict[str, Texts]:
    """Texts by split, then by the name of their control: `data/everyday`, or `read_styles`.

    Of the test texts of a control at most `tests` are kept. Prints how many rows of your own were
    read, used and dropped. Raises ValueError if a control has no texts left.
    """
    if data is None:
        splits = {s: texts_by_control(style_pairs(s), "polite", "rude") for s in SPLITS}
    else:
        texts, about = read_styles(data)
        print("\n".join(about))
        named = [(name, row) for name, rows in texts.items() for row in rows]
        cut = split_by_prompt(named, tests, seed, prompt_of=lambda one: one[1].prompt)
        splits = {
            split: {name: [row for n, row in some if n == name] for name in texts}
            for split, some in cut.items()
        }
        for split, name in ((s, n) for s in ("train", "test") for n in texts):
            if not splits[split][name]:
                raise ValueError(f"no text of {name!r} to {split} on; add some with other prompts")
    if len(splits["train"]) < 2:
        raise ValueError("texts of one style only; give those of at least two")
    return splits | {"test": {n: _every(rows, tests) for n, rows in splits["test"].items()}}


def load_aims(
    instructions: str | Path | None, preferences: str | Path | None, tests: int, seed: int = 0
) -> dict[str, Aims]:
    """Instructions and preference pairs by split: `data/everyday`, or two files of your own.

    Without `instructions` the chosen texts of the pairs are learned as such. A prompt that is in
    both files is in one split. At most `tests` of each are kept to test on. Prints how many rows
    were read, used and dropped. Raises ValueError for instructions without preferences.
    """
    if preferences is None:
        if instructions is not None:
            raise ValueError(f"{instructions}: instructions alone; give preference pairs as well")
        splits = {split: read_aims(split) for split in SPLITS}
    else:
        pairs = read_preferences(preferences)
        print(f"{preferences}: {pairs}")
        cut = split_by_prompt(pairs.rows, tests, seed)
        splits = {split: Aims(_as_instructions(some), some) for split, some in cut.items()}
        if instructions is not None:
            loaded = read_instructions(instructions)
            print(f"{instructions}: {loaded}")
            split_of = {pair.prompt: split for split, some in cut.items() for pair in some}
            others = [row for row in loaded.rows if row.prompt not in split_of]
            own = {split: [] for split in SPLITS} | {"train": others}
            if len({row.prompt for row in others}) >= len(SPLITS):
                own = split_by_prompt(others, tests, seed)
            for row in loaded.rows:
                if row.prompt in split_of:
                    own[split_of[row.prompt]].append(row)
            splits = {split: replace(a, instructions=own[split]) for split, a in splits.items()}
    return {s: a if s == "train" else a.at_most(tests) for s, a in splits.items()}


def _as_instructions(pairs: Sequence[Preference]) -> list[Instruction]:
    return [Instruction(pair.prompt, pair.chosen) for pair in pairs]


def _every(rows: Sequence[Row], tests: int) -> list[Row]:
    """At most so many rows, evenly: every second one, say, because those of a kind lie in a row."""
    return list(rows[:: max(1, -(-len(rows) // tests))])


def learned_judge(name: str, key_variable: str | None = None) -> ModelJudge | RewardJudge:
    """A judge by its name: NAME@http://host/v1 for a model behind a server, else a reward model.

    `key_variable` names the environment variable with the server's key.
    """
    from .opinions import ModelJudge
    from .remote import named_server
    from .reward_models import RewardJudge

    server = named_server(name, key_variable=key_variable, refused_as_empty=True)
    return ModelJudge(server) if server else RewardJudge(name)


def score_by(reward: str | None, aims: Aims | None = None) -> tuple[Score, str]:
    """What PPO is to raise, and its name: a reward model's number, or a program's.

    The program is for `data/everyday`: how much of WARM a text opens with, and whether it meets the
    preference. Raises ValueError on other data without a reward model.
    """
    if reward is not None:
        from .model_names import fingerprint
        from .ppo import reward_model_score
        from .reward_models import load_reward_model

        return reward_model_score(*load_reward_model(reward)), fingerprint(reward)
    if aims is None or not aims.facts:
        raise ValueError("PPO on your own data needs a score: give a reward model")
    fact_of = {pair.prompt: fact for pair, fact in zip(aims.pairs, aims.facts, strict=True)}

    def score(prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
        met = warmly_answered([fact_of[prompt] for prompt in prompts], texts)
        return [warmth(text) + done for text, done in zip(texts, met, strict=True)]

    return score, "warmth"


def labelled_pairs(rows: Sequence[QAC]) -> list[Preference]:
    """Pairs of which it is known which is better: a correction, and the faulty answer."""
    faulty = [row for row in rows if row.answer != row.correction]
    return [Preference(row.question, row.correction, row.answer) for row in faulty]

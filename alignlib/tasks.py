"""From a profile to a task: what a lesson is handed, be it Tinytown, a set from the hub, or your
own rows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from .aligner import Aligner
from .artefacts import artefact
from .data import QAC, Instruction, Loaded, Preference, identity_rows, read_qac
from .hbat import DPO, Stage, train_hbat
from .judges import Judge, NoJudge, RewardJudge, TownJudge
from .meet import Meet, texts_by_control
from .models import fingerprint, load_model, load_tokenizer, save_model
from .profiles import Profile, profile
from .prompts import T2, Template
from .settings import ControlSettings, SFTSettings
from .tokens import example, lost_share
from .train import sft

BOTH_STYLES = SFTSettings(steps=250, learning_rate=1e-3)
ANSWER_CUE = "\n\nAnswer:"  # what stands between a question of your own and its answer


@dataclass
class Objectives:
    """Two aims for one model (lesson 06), of the rows of train, validation or test: instructions
    to follow, and pairs whose chosen answer is preferred; prompts stand ready for their answers.
    `start` is the model, by seed, that is to learn them: of your own data the base. How far
    texts reach either aim, from 0 to 1, a program tells, or, of your own data, nobody.
    """

    start: Callable[[int], str]
    instructions: Callable[[str], list[Instruction]]
    pairs: Callable[[str], list[Preference]]
    followed: Callable[[Sequence[Instruction], Sequence[str]], list[bool]] | None = None
    preferred: Callable[[Sequence[Preference], Sequence[str]], list[float]] | None = None


@dataclass
class Task:
    """Base model, rows, judge. `tests` maps a set's name to its rows: Tinytown's are those of
    `sets.test_sets`; your own data have one, `held out`.
    """

    profile: Profile
    base: str
    template: Template
    corrections: list[QAC]
    identity: list[QAC]
    validation: list[QAC]
    tests: dict[str, list[QAC]]
    judge: Judge
    upstreams: Callable[
        [], dict[str, list[QAC]]
    ]  # test rows by the model that answered; of your own data we know but one, `as given`
    taught: Callable[
        [], list[QAC]
    ]  # corrections of what three upstreams answered in turn; of your own data all that are there
    pairs: Callable[
        [str], list[Preference]
        # of train, validation or test: the prompt is a question, which `ask` makes ready for its
        # answer
    ]
    answer_cue: str  # what stands between a question and its answer
    one_word_off: Callable[
        [str], list[QAC]
        # rows of train, validation or test whose answer goes wrong at one word; the test's words
        # are
        # unseen
    ]
    objectives: Objectives
    notes: list[str] = field(default_factory=list)  # what was read, and what became of it

    def aligner(self, seed: int, corrections: list[QAC] | None = None) -> Aligner:
        """Lesson 02's: trained with warm-up as the profile says, or taken from the cache; or the
        same with other corrections.
        """
        stages = dict(
            settings=replace(self.profile.training, seed=seed),
            warmup=replace(self.profile.warmup, seed=seed),
        )
        return Aligner.cached(
            self.base,
            corrections or self.corrections,
            self.identity,
            template=self.template,
            lora_rank=self.profile.lora_rank,
            **stages,
        )

    def meet(self, seed: int, control: ControlSettings, steps: str = "both") -> Meet:
        """MEET on the preference pairs, or taken from the cache: "both" steps; the "first"
        alone; or all steps "joint", nothing frozen.
        """
        first, then = (
            replace(self.profile.controls_first, seed=seed),
            replace(self.profile.model_then, seed=seed),
        )
        if steps not in ("both", "first", "joint"):
            raise ValueError(f"no steps {steps!r}: MEET takes both, first or joint")
        if steps == "joint":
            first, then = replace(first, steps=0), replace(then, steps=first.steps + then.steps)
        rows = texts_by_control(
            [replace(pair, prompt=pair.prompt + self.answer_cue) for pair in self.pairs("train")]
        )
        then = replace(then, steps=0) if steps == "first" else then
        return Meet.cached(
            self.base, rows, control=replace(control, seed=seed), first=first, then=then
        )

    def hbat(
        self, seed: int, rounds: int, strength: float | None = None, **given: object
    ) -> list[Stage]:
        """HBAT on the two aims, by DPO, its stages taken from the cache where they are there; at
        the profile's strength unless one is given, and on few rows in as few rounds as there are
        steps.
        """
        teach, prefer = (
            replace(settings, seed=seed) for settings in (self.profile.teach, self.profile.prefer)
        )
        instructions, pairs = self.objectives.instructions("train"), self.objectives.pairs("train")
        if not pairs:
            raise ValueError(
                "no pairs to train on: in no training row do answer and correction differ"
            )
        rounds, strength = (
            min(rounds, teach.steps, prefer.steps),
            self.profile.penalty_strength if strength is None else strength,
        )
        start, learner = self.objectives.start(seed), DPO(prefer, self.profile.beta)
        return train_hbat(
            start,
            instructions,
            pairs,
            teach,
            learner,
            rounds=rounds,
            strength=strength,
            seed=seed,
            **given,
        )

    @property
    def main(self) -> str:
        """The test set that headlines are measured on: the first."""
        return next(iter(self.tests))

    @property
    def unseen(self) -> str:
        """The test set on words that no correction holds (your own data have but the one set)."""
        return "unseen" if "unseen" in self.tests else self.main

    def describe(self) -> str:
        sizes = ", ".join(f"{name} {len(rows)}" for name, rows in self.tests.items())
        counts = (
            f"{len(self.corrections)} corrections, {len(self.identity)} identity rows; "
            f"test sets: {sizes}"
        )
        return "\n".join(
            [f"profile {self.profile.name}, base model {Path(self.base).name}", counts, *self.notes]
        )


def load_task(
    name: str = "tiny",
    *,
    seed: int = 0,
    model: str | None = None,
    qac: str | None = None,
    preferences: str | None = None,
) -> Task:
    """The task of a profile, with your own base model and your own Q-A-C rows or preference
    pairs if you give them.
    """
    if qac is not None and preferences is not None:
        raise ValueError(
            "QAC and PREFERENCES both given: this task takes its corrections from one file; "
            "leave the other None"
        )
    qac = qac or preferences
    settings = profile(name)
    base = str(model or settings.base)
    if qac is not None:
        return _own_task(settings, base, read_qac(qac), NoJudge(), seed)
    if settings.data == "tinytown":
        return _town_task(settings, base, seed)
    return _own_task(settings, base, _from_hub(settings), RewardJudge(settings.reward_model), seed)


def _town_task(settings: Profile, base: str, seed: int) -> Task:
    from .tinytown import oracle, recorded, sets

    return Task(
        settings,
        base,
        settings.template,
        corrections=sets.corrections(settings.corrections, seed=seed),
        identity=sets.identity(settings.identity, seed=1000 + seed),
        validation=sets.test_sets(settings.tests, "validation")["seen"],
        tests=sets.test_sets(settings.tests),
        judge=TownJudge(),
        upstreams=lambda: {name: recorded.answered(name) for name in recorded.names()},
        taught=recorded.taught,
        pairs=lambda split: sets.preferences(
            settings.corrections if split == "train" else settings.tests, split
        ),
        answer_cue=oracle.ANSWER_CUE,
        one_word_off=lambda split: sets.one_word_off(
            settings.tests, split, "never" if split == "test" else "corrected"
        ),
        objectives=Objectives(
            lambda seed: str(both_styles_model(base, seed)),
            lambda split: oracle.instructions_to_follow(
                split, seed, 2000 if split == "train" else settings.tests
            ),
            lambda split: oracle.pairs_to_prefer(
                split, seed, settings.corrections if split == "train" else settings.tests
            ),
            oracle.followed,
            oracle.preference_met,
        ),
    )


def both_styles_model(base: str | Path, seed: int) -> Path:
    """Tinytown's model for two aims: the base, shown polite instructions answered warmly and
    plainly, or taken from the cache.
    """
    from .tinytown.oracle import both_styles

    rows, settings = both_styles(seed), replace(BOTH_STYLES, seed=seed)

    def build(folder: Path) -> None:
        model, tokenizer = load_model(base)
        sft(
            model,
            tokenizer,
            [example(tokenizer, r.prompt, r.completion) for r in rows],
            settings,
            progress="both manners",
        )
        save_model(folder, model, tokenizer)

    return artefact("manners", [fingerprint(base), rows, settings], build)


def _own_task(settings: Profile, base: str, loaded: Loaded, judge: Judge, seed: int) -> Task:
    """Of the questions four fifths to train on, a tenth each to choose and to test on; the
    answers serve as identity rows.
    """
    rows = list(loaded.rows)
    questions = list(dict.fromkeys(r.question for r in rows))
    rng = random.Random(seed)
    rng.shuffle(questions)
    rng.shuffle(rows)
    held = min(max(1, len(questions) // 10), settings.tests)
    if len(questions) < 3:
        raise ValueError(
            f"{len(questions)} questions are too few: at least 3 are needed, one each to "
            "train, choose and test on"
        )
    share = {q: min(i // held, 2) for i, q in enumerate(questions)}
    test, validation, train = ([r for r in rows if share[r.question] == k] for k in range(3))
    identity = identity_rows(train[: settings.identity])
    tokenizer, texts = (
        load_tokenizer(base),
        [f"{r.question} {r.answer} {r.correction}" for r in rows],
    )
    notes = [
        str(loaded),
        f"the tokenizer loses {100 * lost_share(tokenizer, texts):.1f} % of the characters of "
        "these texts",
    ]
    length = sum(len(tokenizer(t)["input_ids"]) for t in texts[:200]) / len(texts[:200])
    part = {"train": train, "validation": validation, "test": test}
    faulty = lambda split: [r for r in part[split] if r.answer != r.correction]  # noqa: E731
    stages = dict.fromkeys(
        ("warmup", "training", "controls_first", "model_then", "teach"), train
    ) | {"prefer": faulty("train")}
    settings = replace(
        settings,
        **{
            stage: _fitted(getattr(settings, stage), settings, length, len(rows))
            for stage, rows in stages.items()
        },
    )
    return Task(
        settings,
        base,
        T2,
        train,
        identity,
        validation,
        {"held out": test},
        judge,
        upstreams=lambda: {"as given": test},
        taught=lambda: train,
        pairs=lambda split: [Preference(r.question, r.correction, r.answer) for r in faulty(split)],
        answer_cue=ANSWER_CUE,
        one_word_off=faulty,
        objectives=Objectives(
            lambda seed: base,
            lambda split: [Instruction(r.question + ANSWER_CUE, r.correction) for r in part[split]],
            lambda split: [
                Preference(r.question + ANSWER_CUE, r.correction, r.answer) for r in faulty(split)
            ],
            preferred=_better_than_rejected(judge) if "overall" in judge.axes else None,
        ),
        notes=notes,
    )


def _better_than_rejected(
    judge: Judge,
) -> Callable[[Sequence[Preference], Sequence[str]], list[float]]:
    """Which texts a judge likes better than the rejected ones."""

    def preferred(pairs: Sequence[Preference], texts: Sequence[str]) -> list[float]:
        questions = [p.prompt.removesuffix(ANSWER_CUE) for p in pairs]
        ours, theirs = (
            judge.scores(questions, some)["overall"]
            for some in (texts, [p.rejected for p in pairs])
        )
        return (ours > theirs).astype(float).tolist()

    return preferred


def _fitted(stage: SFTSettings, settings: Profile, length: float, rows: int) -> SFTSettings:
    """A stage's settings for rows of this mean length: steps of bounded size, and at most four
    epochs.
    """
    size = stage.batch_size
    if settings.step_tokens:
        size = max(4, min(size, round(settings.step_tokens / length)))
    steps = max(1, min(stage.steps, 4 * rows // (size * stage.accumulate)))
    return replace(
        stage, batch_size=size, steps=steps, warmup_steps=min(stage.warmup_steps, steps // 5)
    )


def _from_hub(settings: Profile) -> Loaded:
    """Preference pairs from the hub, read as Q-A-C rows through the same reader as a file."""
    import tempfile

    from datasets import load_dataset

    pairs = load_dataset(
        settings.data, split=f"train[:{settings.corrections + 2 * settings.tests}]"
    )
    with tempfile.TemporaryDirectory() as folder:
        pairs.save_to_disk(folder)
        return read_qac(folder)


def swapped(rows: Sequence[QAC]) -> list[str]:
    """Each row's answer replaced by that of the next row with another question: the control for
    whether the answer is used.
    """
    around = [*rows, *rows]
    return [
        next(
            (o.answer for o in around[i + 1 : i + len(rows)] if o.question != r.question), r.answer
        )
        for i, r in enumerate(rows)
    ]

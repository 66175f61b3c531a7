"""From a profile to a task: Tinytown, a set from the hub, or your own rows, ready for a lesson."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from .aligner import Aligner
from .artefacts import artefact
from .data import QAC, Instruction, Loaded, Preference, identity_rows, read_qac, split_rows
from .hbat import DPO, Stage, train_hbat
from .judges import Judge, NoJudge, RewardJudge, TownJudge
from .meet import Meet, texts_by_control
from .models import count_parameters, fingerprint, load_model, load_tokenizer, save_model
from .profiles import STAGES, Profile, fit_stage, profile, scaled, scaled_rows, scaled_stage
from .prompts import T2, Template
from .settings import SMALL, ControlSettings, SFTSettings
from .tokens import example, lost_share
from .train import sft

BOTH_STYLES = SFTSettings(steps=250, learning_rate=1e-3)
INSTRUCTIONS = 2000  # of Tinytown to train on
ANSWER_CUE = "\n\nAnswer:"  # between a question of your own and its answer


@dataclass
class Objectives:
    """Two objectives for one model (lesson 06): instructions to follow, and preferences to meet."""

    start: Callable[[int], str]  # by seed: the model to train
    instructions: Callable[[str], list[Instruction]]  # by split; prompts end ready for an answer
    pairs: Callable[[str], list[Preference]]  # likewise
    # how far texts meet either objective, from 0 to 1; None if no program and no judge can say
    followed: Callable[[Sequence[Instruction], Sequence[str]], list[bool]] | None = None
    preferred: Callable[[Sequence[Preference], Sequence[str]], list[float]] | None = None


@dataclass
class Task:
    """Base model, rows and judge of a lesson, and the trainings that several lessons share."""

    profile: Profile
    base: str
    template: Template
    corrections: list[QAC]
    identity: list[QAC]
    validation: list[QAC]
    tests: dict[str, list[QAC]]  # Tinytown's are those of `sets.test_sets`; yours is `held out`
    judge: Judge
    # test rows by the model that answered them; of your own data only `as given`
    upstreams: Callable[[], dict[str, list[QAC]]]
    # corrections of three upstreams' answers to train on; of your own data all that there are
    taught: Callable[[], list[QAC]]
    # by split: pairs whose prompt is a question, to which `answer_cue` is still to be added
    pairs: Callable[[str], list[Preference]]
    answer_cue: str  # between a question and its answer
    # by split: rows whose answer is wrong in one word; in the test these words are unseen
    one_word_off: Callable[[str], list[QAC]]
    objectives: Objectives
    notes: list[str] = field(default_factory=list)  # what was read, and what was left out

    def aligner(self, seed: int, corrections: list[QAC] | None = None) -> Aligner:
        """Lesson 02's Aligner, or one with other corrections; from the cache if it is there."""
        return Aligner.cached(
            self.base,
            corrections or self.corrections,
            self.identity,
            settings=replace(self.profile.training, seed=seed),
            warmup=replace(self.profile.warmup, seed=seed),
            template=self.template,
            lora_rank=self.profile.lora_rank,
        )

    def meet(self, seed: int, control: ControlSettings, steps: str = "both") -> Meet:
        """MEET on the preference pairs, from the cache if it is there.

        `steps`: "both", the "first" alone, or "joint", as many with nothing frozen.
        """
        if steps not in ("both", "first", "joint"):
            raise ValueError(f"no steps {steps!r}: MEET takes both, first or joint")
        first = replace(self.profile.controls_first, seed=seed)
        then = replace(self.profile.model_then, seed=seed)
        if steps == "first":
            then = replace(then, steps=0)
        if steps == "joint":
            then = replace(then, steps=first.steps + then.steps)
            first = replace(first, steps=0)
        pairs = [
            replace(pair, prompt=pair.prompt + self.answer_cue) for pair in self.pairs("train")
        ]
        control = replace(control, seed=seed)
        rows = texts_by_control(pairs)
        return Meet.cached(self.base, rows, control=control, first=first, then=then)

    def hbat(
        self, seed: int, rounds: int, strength: float | None = None, **given: object
    ) -> list[Stage]:
        """HBAT on the two objectives, with DPO; stages come from the cache if they are there.

        `strength` is the profile's unless given. Raises ValueError without pairs to train on.
        """
        teach = replace(self.profile.teach, seed=seed)
        prefer = replace(self.profile.prefer, seed=seed)
        pairs = self.objectives.pairs("train")
        if not pairs:
            reason = "in no training row do answer and correction differ"
            raise ValueError(f"no pairs to train on: {reason}")
        return train_hbat(
            self.objectives.start(seed),
            self.objectives.instructions("train"),
            pairs,
            teach,
            DPO(prefer, self.profile.beta),
            rounds=min(rounds, teach.steps, prefer.steps),  # each needs a step of both kinds
            strength=self.profile.penalty_strength if strength is None else strength,
            seed=seed,
            **given,
        )

    @property
    def main(self) -> str:
        """The name of the test set for headlines: the first."""
        return next(iter(self.tests))

    @property
    def unseen(self) -> str:
        """The name of the test set on words in no correction; yours is the only one."""
        return "unseen" if "unseen" in self.tests else self.main

    def describe(self) -> str:
        """Profile, base model, numbers of rows and notes, as text."""
        sizes = ", ".join(f"{name} {len(rows)}" for name, rows in self.tests.items())
        rows = f"{len(self.corrections)} corrections, {len(self.identity)} identity rows"
        head = f"profile {self.profile.name}, base model {Path(self.base).name}"
        return "\n".join([head, f"{rows}; test sets: {sizes}", *self.notes])


def load_task(
    name: str = "tiny",
    *,
    seed: int = 0,
    model: str | None = None,
    qac: str | None = None,
    preferences: str | None = None,
    scale: float = 1.0,
) -> Task:
    """The task of a profile, with your own base model and Q-A-C rows or preference pairs if given.

    `scale` reduces rows and steps (`profiles.scaled`). Raises ValueError for what cannot be used.
    """
    if qac is not None and preferences is not None:
        what = "this task takes its corrections from one file"
        raise ValueError(f"QAC and PREFERENCES both given: {what}; leave the other None")
    settings = scaled(profile(name), scale)
    base = str(model or settings.base)
    if model is not None and settings.name == "tiny" and count_parameters(model) > SMALL:
        raise ValueError(
            f"{model} is too large for the lessons: 'tiny' trains all weights, at rates for "
            f"models of up to {SMALL // 10**6} million parameters; run notebook 08 with it"
        )
    own = preferences if qac is None else qac
    if own is not None:
        return _own_task(settings, base, read_qac(own), NoJudge(), seed, scale)
    if settings.data == "tinytown":
        return _town_task(settings, base, seed, scale)
    return _own_task(settings, base, _from_hub(settings), RewardJudge(settings.reward_model), seed)


def _town_task(settings: Profile, base: str, seed: int, scale: float) -> Task:
    from .tinytown import oracle, recordings, sets

    def rows(split: str, train: int = settings.corrections) -> int:
        return train if split == "train" else settings.tests

    def one_word_off(split: str) -> list[QAC]:
        return sets.one_word_off(settings.tests, split, "never" if split == "test" else "corrected")

    instructions = scaled_rows(INSTRUCTIONS, scale)
    return Task(
        settings,
        base,
        settings.template,
        corrections=sets.corrections(settings.corrections, seed=seed),
        identity=sets.identity(settings.identity, seed=1000 + seed),
        validation=sets.test_sets(settings.tests, "validation")["seen"],
        tests=sets.test_sets(settings.tests),
        judge=TownJudge(),
        upstreams=lambda: {
            name: recordings.answered(name)[: settings.tests] for name in recordings.names()
        },
        taught=lambda: recordings.taught()[: settings.corrections],
        pairs=lambda split: sets.preferences(rows(split), split),
        answer_cue=oracle.ANSWER_CUE,
        one_word_off=one_word_off,
        objectives=Objectives(
            lambda seed: str(both_styles_model(base, seed, scale)),
            lambda split: oracle.instructions_to_follow(split, seed, rows(split, instructions)),
            lambda split: oracle.pairs_to_prefer(split, seed, rows(split)),
            oracle.followed,
            oracle.preference_met,
        ),
    )


def both_styles_model(base: str | Path, seed: int, scale: float = 1.0) -> Path:
    """Tinytown's model for two objectives, from the cache if it is there.

    It is the base, trained on polite instructions with warm and with plain answers.
    """
    from .tinytown.oracle import both_styles

    rows = both_styles(seed)
    settings = replace(scaled_stage(BOTH_STYLES, scale), seed=seed)

    def build(folder: Path) -> None:
        model, tokenizer = load_model(base)
        examples = [example(tokenizer, row.prompt, row.completion) for row in rows]
        sft(model, tokenizer, examples, settings, progress="both styles")
        save_model(folder, model, tokenizer)

    return artefact("both_styles", [fingerprint(base), rows, settings], build)


def _own_task(
    settings: Profile, base: str, loaded: Loaded, judge: Judge, seed: int, scale: float = 1.0
) -> Task:
    """A task from rows of one set; their answers are the identity rows."""
    tokens, notes = _fitting_rows(loaded, load_tokenizer(base), settings.step_tokens)
    parts = split_rows(list(tokens), settings.tests, seed)
    train, validation, test = parts["train"], parts["validation"], parts["test"]
    if scale < 1:
        parts["train"] = train[: scaled_rows(len(train), scale)]
        notes.append(f"{len(parts['train'])} of {len(train)} training rows used: scale {scale}")
        train = parts["train"]
    own = _OwnRows(parts)

    stages = {}
    for name in STAGES:
        rows = own.faulty("train") if name == "prefer" else train
        lengths = [tokens[row] for row in rows]
        stages[name] = fit_stage(getattr(settings, name), lengths, settings.step_tokens)
    return Task(
        replace(settings, **stages),
        base,
        T2,
        corrections=train,
        identity=identity_rows(train[: settings.identity]),
        validation=validation,
        tests={"held out": test},
        judge=judge,
        upstreams=lambda: {"as given": test},
        taught=lambda: train,
        pairs=own.pairs,
        answer_cue=ANSWER_CUE,
        one_word_off=own.faulty,
        objectives=own.objectives(base, judge),
        notes=notes,
    )


@dataclass
class _OwnRows:
    """Your own rows by split, in the forms that lessons need."""

    parts: dict[str, list[QAC]]

    def faulty(self, split: str) -> list[QAC]:
        """The rows whose correction changes the answer."""
        return [row for row in self.parts[split] if row.answer != row.correction]

    def pairs(self, split: str, cue: str = "") -> list[Preference]:
        """Corrections preferred to faulty answers; `cue` ends the prompts."""
        rows = self.faulty(split)
        return [Preference(row.question + cue, row.correction, row.answer) for row in rows]

    def instructions(self, split: str) -> list[Instruction]:
        """All questions, each with its correction to generate."""
        rows = self.parts[split]
        return [Instruction(row.question + ANSWER_CUE, row.correction) for row in rows]

    def objectives(self, base: str, judge: Judge) -> Objectives:
        """Both objectives; a judge may say how far texts meet the preferences."""
        return Objectives(
            start=lambda seed: base,
            instructions=self.instructions,
            pairs=lambda split: self.pairs(split, ANSWER_CUE),
            preferred=_better_than_rejected(judge) if "overall" in judge.axes else None,
        )


def _fitting_rows(
    loaded: Loaded, tokenizer: PreTrainedTokenizerBase, bound: int
) -> tuple[dict[QAC, int], list[str]]:
    """The rows of at most `bound` tokens (0: all), each with its number of tokens, and notes.

    A very long row pads its whole batch. Raises ValueError if no row is left.
    """
    tokens = {}
    for row in loaded.rows:
        prompt = T2.prompt(row.question, row.answer)
        tokens[row] = len(example(tokenizer, prompt, row.correction)["input_ids"])
    fitting = {row: count for row, count in tokens.items() if not bound or count <= bound}
    if not fitting:
        what = f"all {len(tokens)} rows are longer than {bound} tokens: too long for a step"
        raise ValueError(f"{what}; shorten them, or use a profile without this bound (colab, gpu)")
    texts = [f"{row.question} {row.answer} {row.correction}" for row in fitting]
    lost = 100 * lost_share(tokenizer, texts)
    notes = [str(loaded), f"the tokenizer loses {lost:.1f} % of the characters of these texts"]
    if long := len(tokens) - len(fitting):
        rows = "1 row" if long == 1 else f"{long} rows"
        notes.append(f"{rows} longer than {bound} tokens left out: too long for a step")
    return fitting, notes


def _better_than_rejected(
    judge: Judge,
) -> Callable[[Sequence[Preference], Sequence[str]], list[float]]:
    """Which texts (1.0 or 0.0 each) score higher than the rejected ones."""

    def preferred(pairs: Sequence[Preference], texts: Sequence[str]) -> list[float]:
        questions = [pair.prompt.removesuffix(ANSWER_CUE) for pair in pairs]
        ours = judge.scores(questions, texts)["overall"]
        theirs = judge.scores(questions, [pair.rejected for pair in pairs])["overall"]
        return (ours > theirs).astype(float).tolist()

    return preferred


def _from_hub(settings: Profile) -> Loaded:
    """Preference pairs from the hub, read as Q-A-C rows through the same reader as a file."""
    import tempfile

    from datasets import load_dataset

    size = settings.corrections + 2 * settings.tests
    pairs = load_dataset(settings.data, split=f"train[:{size}]")
    with tempfile.TemporaryDirectory() as folder:
        pairs.save_to_disk(folder)
        return read_qac(folder)

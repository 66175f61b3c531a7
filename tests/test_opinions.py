"""Learned judges: equal texts tie, both orders are asked, and the judge's own quality is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
)

from alignlib.course.server import serving
from alignlib.data import Preference
from alignlib.judges import NoJudge
from alignlib.models import ModelError, load_model, load_tokenizer, save_model
from alignlib.opinions import ModelJudge, _choice, opinion
from alignlib.remote import Server
from alignlib.reward_models import RewardJudge, load_reward_model, rewards
from alignlib.settings import SFTSettings
from alignlib.tinytown import sets
from alignlib.tokens import judged_ids
from alignlib.train import reward_model

from .test_models import chat_tokenizer

N = 100
QUESTIONS = [f"question {i}?" for i in range(N)]
GOOD = [f"a good answer {i}" for i in range(N)]
BAD = [f"a bad answer {i}, you fool" for i in range(N)]
LABELLED = [Preference(f"other {q}", g, b) for q, g, b in zip(QUESTIONS[:40], GOOD, BAD)]


def places(task: str) -> tuple[str, str]:
    first, second = task.split("Answer A: ")[1].split("\n\nAnswer B: ")
    return first, second


class Careful:
    """Prefers the answer without an insult, whatever stands first."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, questions: list[str], *, seed: int = 0) -> list[str]:
        self.asked += questions
        return [self.choice(*places(q)) for q in questions]

    def choice(self, first: str, second: str) -> str:
        rude = "fool" in first, "fool" in second
        return "T" if rude[0] == rude[1] else "AB"[rude[0]]


class First(Careful):
    def choice(self, first: str, second: str) -> str:
        return "A"


class Contrary(Careful):
    def choice(self, first: str, second: str) -> str:
        return {"A": "B", "B": "A", "T": "T"}[super().choice(first, second)]


def test_a_careful_judge_finds_the_better_answers_and_agrees() -> None:
    found = opinion(ModelJudge(Careful()), QUESTIONS, BAD, GOOD, LABELLED)
    assert found.verdict == "better" and found.net_win.value == 100
    assert found.agreement.value == 1 and found.first.value == 0.5
    assert found.order_decided.value == 0
    assert opinion(ModelJudge(Careful()), QUESTIONS, GOOD, BAD, LABELLED).verdict == "worse"


def test_a_judge_that_prefers_the_first_answer_is_found_out() -> None:
    with serving(First(), "first") as url:
        judge = ModelJudge(Server("first", url, progress=False))
        found = opinion(judge, QUESTIONS, BAD, GOOD, LABELLED)
    assert found.first.value == 1 and found.order_decided.value == 1
    assert found.net_win.value == 0 and found.counts["tied"] == N
    assert found.verdict == "cannot tell"
    assert "verdict: cannot tell" in str(found)
    assert "it chose the answer shown first: 100.0 %" in str(found)
    assert "agrees with the labelled pairs: 50.0 %" in str(found)


@pytest.mark.parametrize("labelled", [LABELLED, ()], ids=["wrong on labels", "without labels"])
def test_a_judge_that_no_labels_speak_for_cannot_tell(labelled: list[Preference]) -> None:
    model = Contrary() if labelled else Careful()
    assert opinion(ModelJudge(model), QUESTIONS, BAD, GOOD, labelled).verdict == "cannot tell"


def test_unchanged_answers_neither_win_nor_lose_and_are_not_shown(tiny_model: Path) -> None:
    model = First()
    spaced = [f"  {text}\n" for text in BAD]
    found = opinion(ModelJudge(model), QUESTIONS, BAD, spaced)
    assert found.counts == {"won": 0, "lost": 0, "tied": 0, "unchanged": N}
    assert not model.asked and found.net_win.value == 0
    judge = ModelJudge(First())
    opinion(judge, QUESTIONS, BAD, GOOD)
    assert opinion(judge, QUESTIONS, BAD, spaced).first is None, "of earlier pairs"
    assert opinion(judge, QUESTIONS, BAD, spaced, LABELLED).first.value == 1


def test_each_pair_is_asked_once_in_each_order_and_braces_stay() -> None:
    model = Careful()
    opinion(ModelJudge(model), ["{first} q"] * N, ["you fool {second}"] * N, ["fine"] * N)
    assert len(model.asked) == 2 and all("{first} q" in task for task in model.asked)
    with pytest.raises(ValueError, match="must hold {question}, {first}, {second}"):
        ModelJudge(model, "Which is better? {first} {second}")
    with pytest.raises(ValueError, match="nothing to compare: 0 questions"):
        opinion(ModelJudge(model), [], [], [])


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        *(("A", -1), ("b.", 1), ("**B**", 1), ("[[A]]", -1), ("T", 0), ("tie", 0)),
        *(("The better answer is politer, so: [[B]]", 1), ("Answer: A", -1), ("B, since", 1)),
        *(("A is long.\nVerdict: B", 1), ("Answer: T", 0), ("A. It is short.", -1)),
    ],
)
def test_replies_are_read(reply: str, choice: float) -> None:
    assert _choice(reply) == choice


def test_replies_that_name_no_answer_are_ties_and_counted() -> None:
    class Lost(Careful):
        def choice(self, first: str, second: str) -> str:
            return (
                "I am sorry, I cannot say."
                if "7" in first + second
                else super().choice(first, second)
            )

    judge = ModelJudge(Lost())
    found = opinion(judge, QUESTIONS, BAD, GOOD, LABELLED)
    assert found.counts["won"] == 81 and found.counts["tied"] == 19
    assert judge.unread == found.counts["unread replies"] == 38
    unclear = ["Answer A is better than Answer B.", "A better answer would be B", "neither"]
    assert np.isnan([_choice(reply) for reply in unclear]).all()


def test_replies_that_were_cut_off_are_not_read() -> None:
    class Cut(Careful):
        def __call__(self, questions: list[str], *, seed: int = 0) -> list[str]:
            self.problems = dict.fromkeys(questions, "unfinished: length")
            return super().__call__(questions)

    judge = ModelJudge(Cut())
    assert opinion(judge, QUESTIONS, BAD, GOOD).counts["tied"] == N and judge.unread == 2 * N


def test_what_scores_nothing_cannot_compare() -> None:
    with pytest.raises(ValueError, match="gives no overall score"):
        opinion(NoJudge(), QUESTIONS, BAD, GOOD)


# --- reward models --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reward_folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A reward model of Tinytown's tone, trained and saved."""
    pairs = sets.preferences(150, axis="tone")
    settings = SFTSettings(steps=40, batch_size=8, learning_rate=3e-3, warmup_steps=1)
    folder = tmp_path_factory.mktemp("reward")
    tokenizer = load_tokenizer(tiny_model)
    save_model(folder, reward_model(tiny_model, tokenizer, pairs, settings), tokenizer)
    return folder


def test_a_saved_reward_model_judges_and_calls_equal_texts_equal(reward_folder: Path) -> None:
    held = sets.preferences(40, "test", axis="tone")
    texts = [p.prompt for p in held], [p.chosen for p in held]
    judge = RewardJudge(reward_folder)
    before = [p.rejected for p in held]
    found = opinion(judge, texts[0], before, texts[1], held)
    assert found.verdict == "better" and found.agreement.value > 0.9
    same = opinion(judge, texts[0], before, [f"{text} " for text in before], held)
    assert same.counts["unchanged"] == 40 and same.net_win.value == 0


def test_equal_texts_have_equal_marks_in_any_batch(reward_folder: Path) -> None:
    held = sets.preferences(30, "test", axis="tone")
    questions = [p.prompt for p in held] * 3
    answers = [p.chosen for p in held] + [p.rejected * 3 for p in held] + [p.chosen for p in held]
    judge = RewardJudge(reward_folder)
    marks = judge.scores(questions, answers)["overall"].reshape(3, -1)
    assert (marks[0] == marks[2]).all() and (marks == marks.round(4)).all()
    alone = [judge.scores([p.prompt], [p.chosen])["overall"][0] for p in held[:8]]
    assert np.abs(marks[0, :8] - alone).max() <= 1e-4


def test_what_is_no_reward_model_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a reward model: its weights lack score.weight"):
        load_reward_model(tiny_model)
    with pytest.raises(ModelError, match="no reward model"):
        load_reward_model(tmp_path)
    _, tokenizer = load_model(tiny_model)
    two = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2)
    save_model(tmp_path / "two", two, tokenizer)
    with pytest.raises(ModelError, match="2 numbers for a text"):
        load_reward_model(tmp_path / "two")


def test_a_kind_without_a_reward_head_is_refused_as_that(tmp_path: Path) -> None:
    config = CLIPTextConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    save_model(tmp_path, CLIPTextModel(config), chat_tokenizer())
    with pytest.raises(ModelError, match="no reward model") as refused:
        load_reward_model(tmp_path)
    assert "causal" not in str(refused.value)
    with pytest.raises(ModelError, match="no causal language model; give a decoder-only"):
        load_model(tmp_path)


def test_the_front_of_a_long_question_is_cut_and_never_the_answer() -> None:
    tokenizer = chat_tokenizer()
    prompt, answer = "begin " + "word " * 50 + "end", "the answer"
    whole = judged_ids(tokenizer, prompt, answer)
    assert tokenizer.decode(whole) == (
        f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
    )
    cut = judged_ids(tokenizer, prompt, answer, longest=100)
    text = tokenizer.decode(cut)
    assert len(cut) <= 100 and "begin" not in text and "end<|im_end|>" in text
    assert text.startswith("<|im_start|>user") and answer in text
    assert len(judged_ids(tokenizer, prompt, answer, longest=8)) == 8
    for longest in range(45, 75):  # within characters of several bytes, too
        cut = judged_ids(tokenizer, "é" * 30, answer, longest)
        assert len(cut) <= longest and tokenizer.decode(cut).count("é") >= (longest - 47) // 2 - 1
    plain = chat_tokenizer(bos=True)
    plain.chat_template = None
    cut = plain.decode(judged_ids(plain, prompt, answer, longest=40))
    assert cut.startswith("<s>") and cut.endswith("endthe answer<eos>")


def test_an_encoder_reads_question_and_answer_as_a_pair(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"abcdefgh"]
    core = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    tokenizer.eos_token = "[SEP]"
    ids = judged_ids(tokenizer, "a b", "c")
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "a", "b", "[SEP]", "c", "[SEP]"]
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(words), intermediate_size=16, num_labels=1, **small)
    save_model(tmp_path, AutoModelForSequenceClassification.from_config(config), tokenizer)
    judge = RewardJudge(tmp_path)
    marks = judge.scores(["a b", "a b c d"], ["c", "d e f"])["overall"]
    assert marks[0] == judge.scores(["a b"], ["c"])["overall"][0], "whatever it is padded to"
    model, seen = load_reward_model(tmp_path)[0], []
    model.register_forward_pre_hook(lambda _, args, given: seen.append(given), with_kwargs=True)
    rewards(model, tokenizer, ["a b"], ["c"])
    assert seen[0]["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1]]

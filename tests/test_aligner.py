"""The Aligner: templates of one's own, identity rows without a warm-up, stages of 0 steps; and for
all methods, models whose configuration names no context length.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import BloomConfig, BloomForCausalLM, Gemma3Config

from alignlib import artefacts
from alignlib.aligner import SETTINGS_FILE, Aligner
from alignlib.data import QAC
from alignlib.hbat import DPO, PPO, train_hbat
from alignlib.meet import Meet
from alignlib.models import load_model, load_tokenizer, save_model
from alignlib.prompts import CHAT, T2, Separator, Template
from alignlib.settings import ControlSettings, PPOSettings, SFTSettings
from alignlib.styles import texts_by_control
from alignlib.tinytown import sets
from alignlib.tokens import UNBOUNDED, context_length

FEW = SFTSettings(steps=2, batch_size=4)
MINE = Template("mine", "ask : ", Separator(" ", "reply :", " "), Separator(" ", "better :", ""))


@pytest.fixture(scope="module")
def rows() -> list[QAC]:
    return sets.corrections(12)


@pytest.fixture(scope="module")
def identity() -> list[QAC]:
    return sets.identity(12)


def test_a_template_of_ones_own_is_saved_and_loaded(
    tiny_model: Path, rows: list[QAC], tmp_path: Path
) -> None:
    aligner = Aligner.train(tiny_model, rows, settings=FEW, template=MINE, progress=False)
    aligner.save_pretrained(tmp_path)
    loaded = Aligner.from_pretrained(tmp_path)
    assert loaded.template == MINE
    assert (
        loaded.prompt("where is ben ?", "in mill .")
        == "ask : where is ben ? reply : in mill . better :"
    )
    questions, answers = [r.question for r in rows], [r.answer for r in rows]
    assert loaded.correct(questions, answers) == aligner.correct(questions, answers)


def test_a_chat_template_needs_a_tokenizer_that_has_one(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="needs a tokenizer with a chat template; take another"):
        Aligner.untrained(tiny_model, template=CHAT)


def test_two_templates_of_one_name_are_two_cached_aligners(
    tiny_model: Path, rows: list[QAC]
) -> None:
    other = replace(MINE, start="question : ")
    built = artefacts.built
    for template in (MINE, other, MINE):
        assert (
            Aligner.cached(tiny_model, rows, settings=FEW, template=template).template == template
        )
    assert artefacts.built == built + 2


def test_a_file_that_holds_the_name_of_a_template_alone_is_still_read(
    tiny_model: Path, rows: list[QAC], tmp_path: Path
) -> None:
    Aligner.train(tiny_model, rows, settings=FEW, progress=False).save_pretrained(tmp_path)
    file = tmp_path / SETTINGS_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"template": "T2"}))
    assert Aligner.from_pretrained(tmp_path).template is T2


def test_identity_rows_without_warmup_settings_are_refused(
    tiny_model: Path, rows: list[QAC], identity: list[QAC]
) -> None:
    message = r"12 identity rows, .* pass warmup=SFTSettings\(steps=...\), or no identity rows"
    with pytest.raises(ValueError, match=message):
        Aligner.train(tiny_model, rows, identity, settings=FEW, progress=False)
    with pytest.raises(ValueError, match=message):
        Aligner.cached(tiny_model, rows, identity, settings=FEW)


def test_a_stage_of_0_steps_is_skipped(
    tiny_model: Path, rows: list[QAC], identity: list[QAC]
) -> None:
    none, too_long = replace(FEW, steps=0), QAC("word " * 600, "a", "a")

    def train(**settings: SFTSettings) -> Aligner:
        return Aligner.train(tiny_model, rows, [*identity, too_long], **settings, progress=False)

    without_warmup = train(settings=FEW, warmup=none)
    assert list(without_warmup.losses) == ["correction"] and not without_warmup.dropped
    assert list(train(settings=none, warmup=FEW).losses) == ["identity"]
    assert train(settings=none, warmup=none).losses == {}


# --- context length -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bloom(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained model that has no learned positions, and so no longest input."""
    tokenizer, folder = load_tokenizer(tiny_model), tmp_path_factory.mktemp("bloom")
    config = BloomConfig(vocab_size=len(tokenizer), hidden_size=16, n_layer=1, n_head=1)
    config.pad_token_id, config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    save_model(folder, BloomForCausalLM(config), tokenizer)
    return folder


def test_the_context_length_of_a_configuration_of_its_text_part_or_of_none(
    tiny_model: Path, bloom: Path
) -> None:
    model, _ = load_model(tiny_model)
    assert context_length(model) == 512
    model.config = Gemma3Config(text_config={"max_position_embeddings": 77})  # images and text
    assert context_length(model) == 77
    assert context_length(load_model(bloom)[0]) == UNBOUNDED


def test_every_method_trains_a_model_without_a_context_length(bloom: Path, rows: list[QAC]) -> None:
    aligner = Aligner.train(bloom, rows, settings=FEW, progress=False)
    assert len(aligner.correct(["where is ben ?"], ["in mill ."])) == 1
    pairs = sets.preferences(12)
    steps = dict(first=FEW, then=FEW, progress=False)
    meet = Meet.train(bloom, texts_by_control(pairs), control=ControlSettings(size=2), **steps)
    assert len(meet.generate(["where is ben ?"], "good", max_new_tokens=4)) == 1
    sampling = PPOSettings(2, batch_size=4, minibatch=4, max_new_tokens=3)
    by_ppo = PPO(sampling, lambda prompts, completions: [1.0] * 4, "one")
    for prefer in (DPO(FEW), by_ppo):
        data = (sets.instructions(12), pairs)
        stages = train_hbat(bloom, *data, FEW, prefer, rounds=2, strength=1.0, progress=False)
        assert [stage.dropped for stage in stages] == [{}] * 4

"""Looking inside: attention, states, probes, patches and steering, each against a direct way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Gemma2Config

from alignlib import QAC, Aligner, NoJudge, interpret
from alignlib.aligner import Correction
from alignlib.interpret import (
    attention,
    contrast,
    contrast_states,
    head_attention,
    induction_score,
    next_word,
    patched_word,
    states,
    without_heads,
)
from alignlib.models import load_model
from alignlib.probes import auc, direction, probe, probe_of_chance
from alignlib.profiles import TINY
from alignlib.tinytown import sets
from alignlib.tokens import IGNORED, example
from experiments.steering import (
    edit_directions,
    steered,
    steering_range,
    steering_slope,
    unrelated_differences,
)

BASE = TINY.base


def test_attention_weights_sum_to_one_look_back_only_and_leave_the_model_as_it_was() -> None:
    model, _ = load_model(BASE)
    before = model.config._attn_implementation
    ids = torch.tensor([[5, 6, 7, 8], [9, 5, 9, 5]])
    logits = model(input_ids=ids).logits
    weights = attention(model, ids)
    layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads
    assert weights.shape == (layers, 2, heads, 4, 4)
    assert torch.allclose(weights.sum(-1), torch.ones(layers, 2, heads, 4), atol=1e-5)
    assert weights.triu(1).abs().max() == 0
    assert model.config._attn_implementation == before
    assert torch.equal(model(input_ids=ids).logits, logits)


def test_the_induction_score_is_high_in_the_base_and_at_chance_in_an_untrained_model() -> None:
    model, tokenizer = load_model(BASE)
    torch.manual_seed(0)
    untrained = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(BASE)).eval()
    assert induction_score(model, tokenizer) > 0.3
    assert induction_score(untrained, tokenizer) < 0.06  # even attention would give 0.034


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    return Aligner(*load_model(BASE))


@pytest.mark.parametrize("batches", [[[0, 1, 2]], [[2], [1, 0]]])
def test_states_are_those_of_the_row_alone_at_the_position_asked_for(
    aligner: Aligner, monkeypatch: pytest.MonkeyPatch, batches: list[list[int]]
) -> None:
    monkeypatch.setattr(interpret, "by_tokens", lambda lengths: batches)
    rows, at = [[5, 6, 7, 8, 9], [9, 5, 9], [4, 4, 4, 4]], [-1, 0, 2]
    found = states(aligner.model, aligner.tokenizer, rows, at)
    for row, place, got in zip(rows, at, found):
        alone = aligner.model(
            input_ids=torch.tensor([row]), output_hidden_states=True
        ).hidden_states
        assert torch.allclose(got[:-1], torch.stack([h[0, place] for h in alone[:-1]]), atol=1e-4)
        assert torch.allclose(aligner.model.model.norm(got[-1]), alone[-1][0, place], atol=1e-4)


def test_one_very_long_row_does_not_pad_the_states_of_all_others(
    aligner: Aligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    pad_left = interpret.pad_left
    monkeypatch.setattr(
        interpret, "pad_left", lambda rows, *more: seen.append(rows) or pad_left(rows, *more)
    )
    rows = [[5, 6, 7]] * 60 + [[8] * 500] + [[5, 6]] * 60
    states(aligner.model, aligner.tokenizer, rows, [-1] * len(rows))
    padded = [len(batch) * max(map(len, batch)) for batch in seen]
    assert sum(map(len, seen)) == 121 and max(padded) <= 4096
    with pytest.raises(ValueError, match="no rows to look into"):
        states(aligner.model, aligner.tokenizer, [], [])


def test_predictions_are_the_models_own_also_where_it_caps_its_logits(aligner: Aligner) -> None:
    config = Gemma2Config(
        vocab_size=len(aligner.tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        final_logit_softcapping=0.05,
    )
    torch.manual_seed(0)
    capped = Aligner(AutoModelForCausalLM.from_config(config).eval(), aligner.tokenizer)
    pairs = interpret.contrasts(capped, sets.one_word_off(6, "validation"))
    found = next_word(capped, pairs)
    for i, pair in enumerate(pairs):
        own = capped.model(input_ids=torch.tensor([pair.faulty])).logits[0, -1].softmax(-1)
        assert np.isclose(found["right"][i], own[pair.right].item(), rtol=1e-4)
        assert np.isclose(found["top"][i], own.max().item(), rtol=1e-4)


def test_a_contrast_differs_in_what_is_read_and_not_in_what_is_generated(aligner: Aligner) -> None:
    end = aligner.tokenizer("correction :", add_special_tokens=False)["input_ids"]
    known = 0
    for row in sets.one_word_off(40, "test", "never"):
        c, words = contrast(aligner, row), aligner.tokenizer.convert_ids_to_tokens
        differ = [i for i, (a, b) in enumerate(zip(c.faulty, c.sound)) if a != b]
        assert len(c.faulty) == len(c.sound) and differ == [c.at]
        assert (c.faulty[c.at], c.sound[c.at]) == (c.wrong, c.right)
        cue = next(i for i in range(len(c.faulty)) if c.faulty[i : i + 2] == end)
        assert c.start == cue + 2
        generated, correction = c.faulty[c.start :], row.correction.split()
        assert words(generated) == correction[: len(generated)]
        assert words(c.right) == correction[len(generated)]
        if c.source is not None:
            known += 1
            assert c.faulty[c.source] == c.right and c.faulty[: c.at].count(c.right) >= 1
    assert known > 20
    assert contrast(aligner, QAC("where ?", "in the mill .", "in the mill .")) is None
    assert contrast(aligner, QAC("where ?", "in the mill .", "in the mill . good luck .")) is None


def test_the_direction_is_the_line_that_was_planted(aligner: Aligner) -> None:
    torch.manual_seed(0)
    line = torch.nn.functional.normalize(torch.randn(16), dim=0)
    found = direction(torch.randn(200, 1).abs() * line + 0.05 * torch.randn(200, 16))
    assert abs(float(found @ line)) > 0.99 and abs(float(found.norm()) - 1) < 1e-5


def test_steering_adds_the_push_at_the_last_word_and_is_gone_afterwards(aligner: Aligner) -> None:
    ids, read = torch.tensor([[5, 6, 7, 8]]), []
    push = torch.linspace(-1, 1, aligner.model.config.hidden_size)
    handle = aligner.model.model.layers[2].register_forward_pre_hook(
        lambda module, given: read.append(given[0].detach())
    )
    plain = aligner.model(input_ids=ids).logits
    with steered(aligner.model, 1, push):
        pushed = aligner.model(input_ids=ids).logits
    handle.remove()
    assert torch.equal(read[1][:, :-1], read[0][:, :-1])
    assert torch.allclose(read[1][:, -1], read[0][:, -1] + push, atol=1e-5)
    assert torch.equal(pushed[:, :-1], plain[:, :-1])
    assert not torch.allclose(pushed[:, -1], plain[:, -1], atol=1e-2)
    questions = ["where is it ?"] * 3
    answers = ["in the mill .", "on the hill", "it is in the mill ."]
    with steered(aligner.model, 1, 3 * push), pytest.raises(ZeroDivisionError):
        assert aligner.correct(questions, answers) == [
            aligner.correct([q], [a])[0] for q, a in zip(questions, answers)
        ]
        raise ZeroDivisionError
    assert torch.equal(aligner.model(input_ids=ids).logits, plain)


def test_a_silenced_head_gives_out_nothing_and_works_again_afterwards(aligner: Aligner) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    width = aligner.model.config.hidden_size // aligner.model.config.num_attention_heads
    plain = aligner.model(input_ids=ids).logits
    with without_heads(aligner.model, [(2, 1)]):
        silenced = aligner.model(input_ids=ids).logits
    by_hand = load_model(BASE)[0]
    with torch.no_grad():
        by_hand.model.layers[2].self_attn.o_proj.weight[:, width : 2 * width] = 0
    assert torch.allclose(silenced, by_hand(input_ids=ids).logits, atol=1e-4)
    assert not torch.allclose(silenced, plain, atol=1e-2)
    assert torch.equal(aligner.model(input_ids=ids).logits, plain)


@pytest.mark.parametrize(
    ("open_up", "part"),
    [
        (lambda m: steered(m, 4, torch.zeros(128)), "no layer 4: this model has layers 0 to 3"),
        (lambda m: steered(m, -1, torch.zeros(128)), "no layer -1"),
        (lambda m: without_heads(m, [(0, 1), (9, 0)]), "no layer 9"),
        (lambda m: without_heads(m, [(0, 4)]), "no head 4: each layer"),
    ],
)
def test_a_layer_or_head_that_does_not_exist_is_refused_and_nothing_is_left_behind(
    aligner: Aligner, open_up, part: str
) -> None:
    def hooks() -> list[list]:
        modules = aligner.model.modules()
        return [[*m._forward_hooks, *m._forward_pre_hooks] for m in modules]

    before = hooks()
    with pytest.raises(ValueError, match=part), open_up(aligner.model):
        pass
    assert hooks() == before


def test_a_probe_finds_what_is_there_and_nothing_with_permuted_labels() -> None:
    rng = np.random.default_rng(0)

    def kind(shift: float) -> np.ndarray:
        return rng.normal(size=(300, 8)) + np.eye(8)[0] * shift

    parts = [(kind(2.0), kind(0.0)) for _ in range(3)]
    found, control = probe(*parts), probe_of_chance(parts[0], parts[2])
    assert found.test.low > 0.85 and np.abs(found.weights).argmax() == 0
    assert control.n == 20 and abs(control.value - 0.5) < 0.05
    assert control.low < control.value < control.high < found.test.low
    nothing = probe(parts[0], parts[1], (kind(0.0), kind(0.0))).test
    assert nothing.low < 0.5 < nothing.high


def test_the_auc_counts_over_all_pairs_and_a_tie_is_half() -> None:
    wrong, right = np.array([3.0, 1.0, 2.0, 1.0]), np.array([0.0, 1.0, 5.0, 1.0])
    for some in (wrong, wrong[:3]):
        by_hand = np.mean([(w > r) + 0.5 * (w == r) for w in some for r in right])
        assert auc(some, right, paired=False).value == by_hand
    assert auc(wrong, right).value == auc(wrong, right, paired=False).value


def test_the_auc_of_pairs_has_the_interval_of_pairs_and_only_if_they_are() -> None:
    """By their question scores differ much, and within a question always by the same."""
    rng = np.random.default_rng(0)
    question = rng.normal(size=200)
    first, second = question + 0.3, question
    pairs, apart = auc(first, second), auc(first, second, paired=False)
    assert pairs == auc(first, second, paired=True), "what callers of two equal sets have meant"
    assert pairs.value == apart.value
    assert pairs.high - pairs.low < 0.5 * (apart.high - apart.low)
    # drawn on its own, each set varies as two unrelated samples do
    areas = []
    for _ in range(400):
        areas.append(auc(rng.normal(size=200) + 0.3, rng.normal(size=200), draws=1).value)
    assert apart.high - apart.low == pytest.approx(2 * 1.96 * np.std(areas), rel=0.2)
    with pytest.raises(ValueError, match="150 and 200 scores cannot be paired"):
        auc(first[:150], second)
    assert auc(first[:150], second, paired=False).n == 350


def test_a_probes_interval_is_paired_unless_told_otherwise_or_the_sets_differ_in_size() -> None:
    rng = np.random.default_rng(0)
    question = 3 * rng.normal(size=(200, 4))
    train = (question + 1, question)
    paired, apart = probe(train, train, train), probe(train, train, train, paired=False)
    assert paired.test.value == apart.test.value and paired.validation == apart.validation
    assert paired.test.high - paired.test.low < 0.5 * (apart.test.high - apart.test.low)
    uneven = (train[0][:150], train[1])
    assert probe(train, train, uneven).test == probe(train, train, uneven, paired=False).test


def test_the_lessons_heads_attend_to_the_answers_word_and_to_the_boards(aligner: Aligner) -> None:
    """In the base model already: it copies."""
    pairs = interpret.contrasts(aligner, sets.one_word_off(60, "validation"))
    for place in ("at", "source"):
        weights = head_attention(aligner, pairs, place)
        assert weights.shape == (4, 4)
        assert 0.1 < weights[[2, 2, 3, 3], [0, 2, 1, 3]].max() == weights.max() <= 1
    pair = replace(pairs[0], source=None)
    with pytest.raises(ValueError, match="no rows to look into"):
        head_attention(aligner, [pair], "source")


def test_predictions_are_those_of_the_run_alone(aligner: Aligner) -> None:
    pairs = interpret.contrasts(aligner, sets.one_word_off(60, "validation"))
    pair = pairs[3]

    def probabilities(ids: list[int]) -> torch.Tensor:
        return aligner.model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)

    read = next_word(aligner, pairs, reading=True)
    before = probabilities(pair.faulty[: pair.at])
    assert np.isclose(read["wrong"][3], before[pair.wrong].item(), atol=1e-4)
    found, due = next_word(aligner, pairs, "sound"), probabilities(pair.sound)
    assert np.isclose(found["top"][3], due.max().item(), atol=1e-4)
    for kind in ("right", "wrong"):
        assert np.isclose(found[kind][3], due[getattr(pair, kind)].item(), atol=1e-4)
        assert np.array_equal(found[f"says {kind}"], found[kind] == found["top"])


def test_directions_are_as_long_as_the_states_and_point_from_copying_to_editing(
    aligner: Aligner,
) -> None:
    rows = sets.corrections(60, rate=0.6)
    lines = edit_directions(aligner, rows[:40], rows[40:])
    validation = interpret.contrasts(aligner, rows[40:])
    faulty, sound = (run[:, 1:] for run in contrast_states(aligner, validation, "said"))
    assert lines.shape == (4, 128)
    for layer in range(4):
        line = lines[layer].numpy()
        assert ((faulty - sound)[:, layer] @ line).mean() >= 0
        lengths = np.linalg.norm(faulty[:, layer], axis=-1)
        assert 0.5 < np.linalg.norm(line) / lengths.mean() < 2


def test_a_patch_at_the_end_of_the_last_layer_decides_all_and_one_before_the_word_nothing(
    aligner: Aligner,
) -> None:
    pairs = interpret.contrasts(aligner, sets.one_word_off(12, "validation"))

    def likeliest(ids: list[int]) -> int:
        return aligner.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax().item()

    for pair in pairs:
        assert patched_word(aligner, pair, 3, -1) == likeliest(pair.sound)
        assert patched_word(aligner, pair, 0, pair.at - 1) == likeliest(pair.faulty)
    faulty, sound = contrast_states(aligner, pairs, "end")
    assert faulty.shape == (12, 5, 128)
    assert np.allclose(faulty[:, 0], sound[:, 0], atol=1e-5), "the prompts end alike"
    faulty, sound = contrast_states(aligner, pairs, "read")
    same = np.isclose(faulty[:, 0], sound[:, 0], atol=1e-3).all(-1)
    assert not same.any(), "another word is read there"


def test_slope_and_range_of_steering_are_chosen_by_the_judge(
    aligner: Aligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = aligner.tokenizer.decode  # untrained, it comes to no end: then the answer would stay
    whole = lambda _, answer, ids: Correction(decode(ids, skip_special_tokens=True).strip())  # noqa: E731
    monkeypatch.setattr(Aligner, "_correction", whole)
    rows, push = sets.corrections(3, rate=0.4), torch.zeros(128)
    assert steering_slope(aligner, rows, 1, push, 0.4).value == 0
    lines = torch.stack([push, torch.linspace(-900, 900, 128)] * 2)

    class Harsh:
        """2 for an unsteered correction, 1 for an unchanged answer, else 0."""

        axes = ("overall",)

        def scores(self, questions: list[str], texts: list[str]) -> dict[str, np.ndarray]:
            scores = [2.0 if text in plain else float(text in answers) for text in texts]
            return {"overall": np.array(scores)}

    answers = {r.answer for r in rows}
    plain = set(aligner.correct([r.question for r in rows], [r.answer for r in rows]))
    harmless, harmful = lines[:1], lines[1:2]
    assert steering_range(aligner, rows, harmless, Harsh()) == (0, 0.4)
    assert steering_range(aligner, rows, harmful, Harsh()) == (0, 0.1)
    assert steering_range(aligner, rows, harmless, NoJudge()) == (0, 0.1)
    lines = torch.stack([push, torch.linspace(-90, 90, 128)] * 2)
    slopes = [
        steering_slope(aligner, rows, layer, lines[layer], alpha).value
        for layer, alpha in enumerate((0.4, 0.1, 0.4, 0.1))
    ]
    steepest = int(np.argmax(slopes))
    assert slopes[steepest] > 0
    assert steering_range(aligner, rows, lines, Harsh()) == (steepest, 0.1)
    found = unrelated_differences(aligner, sets.corrections(20), 1, 6, 0)
    assert len(found) == 6 and all(f.shape == (128,) and f.norm() > 0 for f in found)


def test_the_mean_gradient_is_that_of_the_log_probability_however_rows_are_batched(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load_model(tiny_model)
    rows = sets.instructions(5, "test")
    wanted: dict[str, torch.Tensor] = {}
    for r in rows:
        row = example(tokenizer, r.prompt, r.completion)
        labelled = sum(label != IGNORED for label in row["labels"])
        loss = model(
            input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]])
        ).loss  # the mean over tokens of - log p
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        for (name, _), gradient in zip(model.named_parameters(), gradients):
            wanted[name] = wanted.get(name, 0) - labelled * gradient / len(rows)
    monkeypatch.setattr(interpret, "by_tokens", lambda lengths: [[4, 0], [2, 1, 3]])
    found = interpret.mean_gradient(
        model, tokenizer, [r.prompt for r in rows], [r.completion for r in rows]
    )
    assert all(torch.allclose(found[name], wanted[name], rtol=1e-3, atol=1e-5) for name in wanted)


def test_the_angle_between_two_gradients_is_over_all_tensors_or_over_some() -> None:
    a = {"x": torch.tensor([1.0, 0.0]), "y": torch.tensor([1.0])}
    b = {"x": torch.tensor([0.0, 1.0]), "y": torch.tensor([1.0])}
    assert interpret.cosine(a, b) == pytest.approx(0.5)
    assert interpret.cosine(a, b, "x") == 0 and interpret.cosine(a, b, "y") == 1

"""Looking inside: attention weights are weights, and the induction score tells a model that
copies from one that does not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from alignlib import QAC, Aligner, NoJudge, interpret
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
from alignlib.profiles import profile
from alignlib.steering import (
    edit_directions,
    steered,
    steering_range,
    steering_slope,
    unrelated_differences,
)
from alignlib.tinytown import sets
from alignlib.tokens import IGNORED, example

BASE = profile("tiny").base


def test_attention_weights_sum_to_one_look_back_only_and_leave_the_model_as_it_was() -> None:
    model, _ = load_model(BASE)
    before, ids = model.config._attn_implementation, torch.tensor([[5, 6, 7, 8], [9, 5, 9, 5]])
    logits = model(input_ids=ids).logits
    weights = attention(model, ids)
    layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads
    assert weights.shape == (layers, 2, heads, 4, 4)
    assert torch.allclose(weights.sum(-1), torch.ones(layers, 2, heads, 4), atol=1e-5)
    assert weights.triu(1).abs().max() == 0
    assert model.config._attn_implementation == before and torch.equal(
        model(input_ids=ids).logits, logits
    )


def test_the_induction_score_is_high_in_the_base_and_that_of_chance_in_an_untrained_model() -> None:
    model, tokenizer = load_model(BASE)
    torch.manual_seed(0)
    untrained = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(BASE)).eval()
    assert induction_score(model, tokenizer) > 0.3
    assert induction_score(untrained, tokenizer) < 0.06  # even attention would give 0.034


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    return Aligner(*load_model(BASE))


def test_states_are_those_of_the_row_alone_at_the_place_asked_for(aligner: Aligner) -> None:
    rows, at = [[5, 6, 7, 8, 9], [9, 5, 9], [4, 4, 4, 4]], [-1, 0, 2]
    found = states(aligner.model, aligner.tokenizer, rows, at)
    for row, place, got in zip(rows, at, found):
        alone = aligner.model(
            input_ids=torch.tensor([row]), output_hidden_states=True
        ).hidden_states
        assert torch.allclose(got[:-1], torch.stack([h[0, place] for h in alone[:-1]]), atol=1e-4)
        assert torch.allclose(aligner.model.model.norm(got[-1]), alone[-1][0, place], atol=1e-4)


def test_a_contrast_differs_in_what_is_read_and_not_in_what_is_said(aligner: Aligner) -> None:
    end = aligner.tokenizer("correction :", add_special_tokens=False)["input_ids"]
    known = 0
    for row in sets.one_word_off(40, "test", "never"):
        c, words = contrast(aligner, row), aligner.tokenizer.convert_ids_to_tokens
        differ = [i for i, (a, b) in enumerate(zip(c.faulty, c.sound)) if a != b]
        assert (
            len(c.faulty) == len(c.sound)
            and differ == [c.at]
            and (c.faulty[c.at], c.sound[c.at]) == (c.wrong, c.right)
        )
        said = c.faulty[next(i for i in range(len(c.faulty)) if c.faulty[i : i + 2] == end) + 2 :]
        fixed = row.correction.split()
        assert words(said) == fixed[: len(said)] and words(c.right) == fixed[len(said)]
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
    ids, push, read = (
        torch.tensor([[5, 6, 7, 8]]),
        torch.linspace(-1, 1, aligner.model.config.hidden_size),
        [],
    )
    handle = aligner.model.model.layers[2].register_forward_pre_hook(
        lambda module, given: read.append(given[0].detach())
    )
    plain = aligner.model(input_ids=ids).logits
    with steered(aligner.model, 1, push):
        pushed = aligner.model(input_ids=ids).logits
    handle.remove()
    assert torch.equal(read[1][:, :-1], read[0][:, :-1]) and torch.allclose(
        read[1][:, -1], read[0][:, -1] + push, atol=1e-5
    )
    assert torch.equal(pushed[:, :-1], plain[:, :-1]) and not torch.allclose(
        pushed[:, -1], plain[:, -1], atol=1e-2
    )
    questions, answers = (
        ["where is it ?"] * 3,
        ["in the mill .", "on the hill", "it is in the mill ."],
    )
    with steered(aligner.model, 1, 3 * push), pytest.raises(ZeroDivisionError):
        assert aligner.correct(questions, answers) == [
            aligner.correct([q], [a])[0] for q, a in zip(questions, answers)
        ]
        raise ZeroDivisionError
    assert torch.equal(aligner.model(input_ids=ids).logits, plain)


def test_a_silenced_head_hands_on_nothing_and_speaks_again(aligner: Aligner) -> None:
    ids, width = (
        torch.tensor([[5, 6, 7, 8]]),
        aligner.model.config.hidden_size // aligner.model.config.num_attention_heads,
    )
    plain = aligner.model(input_ids=ids).logits
    with without_heads(aligner.model, [(2, 1)]):
        silenced = aligner.model(input_ids=ids).logits
    by_hand = load_model(BASE)[0]
    with torch.no_grad():
        by_hand.model.layers[2].self_attn.o_proj.weight[:, width : 2 * width] = 0
    assert torch.allclose(
        silenced, by_hand(input_ids=ids).logits, atol=1e-4
    ) and not torch.allclose(silenced, plain, atol=1e-2)
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
    def hooks():
        return [
            list(m._forward_hooks) + list(m._forward_pre_hooks) for m in aligner.model.modules()
        ]  # noqa: E731

    before = hooks()
    with pytest.raises(ValueError, match=part), open_up(aligner.model):
        pass
    assert hooks() == before


def test_a_probe_finds_what_is_there_and_nothing_in_labels_in_disorder() -> None:
    draw = np.random.default_rng(0)
    side = lambda shift: draw.normal(size=(300, 8)) + np.eye(8)[0] * shift  # noqa: E731
    parts = [(side(2.0), side(0.0)) for _ in range(3)]
    found, control = probe(*parts), probe_of_chance(parts[0], parts[2])
    assert found.test.low > 0.85 and np.abs(found.weights).argmax() == 0
    assert (
        control.n == 20
        and abs(control.value - 0.5) < 0.05
        and control.low < control.value < control.high < found.test.low
    )
    assert (
        probe(parts[0], parts[1], (side(0.0), side(0.0))).test.low
        < 0.5
        < probe(parts[0], parts[1], (side(0.0), side(0.0))).test.high
    )
    wrong, right = [3.0, 1.0, 2.0, 1.0], [0.0, 1.0, 5.0, 1.0]
    by_hand = np.mean([(w > r) + 0.5 * (w == r) for w in wrong for r in right])
    assert auc(np.array(wrong), np.array(right)).value == by_hand
    assert auc(np.array(wrong[:3]), np.array(right)).value == np.mean(
        [(w > r) + 0.5 * (w == r) for w in wrong[:3] for r in right]
    )


def test_the_lessons_heads_are_found_where_the_answers_and_the_boards_words_stand(
    aligner: Aligner,
) -> None:
    """In the base model already: it copies."""
    pairs = [c for r in sets.one_word_off(60, "validation") if (c := contrast(aligner, r))]
    for place in ("at", "source"):
        share = head_attention(aligner, pairs, place)
        assert (
            share.shape == (4, 4)
            and 0.1 < share[[2, 2, 3, 3], [0, 2, 1, 3]].max() == share.max() <= 1
        )
    read = next_word(aligner, pairs, reading=True)
    before = (
        aligner.model(input_ids=torch.tensor([pairs[3].faulty[: pairs[3].at]]))
        .logits[0, -1]
        .softmax(-1)
    )
    assert np.isclose(read["wrong"][3], before[pairs[3].wrong].item(), atol=1e-4)
    told = next_word(aligner, pairs, "sound")
    chances = aligner.model(input_ids=torch.tensor([pairs[3].sound])).logits[0, -1].softmax(-1)
    for kind in ("right", "wrong"):
        assert np.isclose(told[kind][3], chances[getattr(pairs[3], kind)].item(), atol=1e-4)
    assert np.array_equal(told["says right"], told["right"] == told["top"]) and np.array_equal(
        told["says wrong"], told["wrong"] == told["top"]
    )
    assert np.isclose(told["top"][3], chances.max().item(), atol=1e-4)


def test_directions_are_as_long_as_the_states_and_point_from_copying_to_mending(
    aligner: Aligner,
) -> None:
    rows = sets.corrections(60, rate=0.6)
    lines = edit_directions(aligner, rows[:40], rows[40:])
    held = [c for r in rows[40:] if (c := contrast(aligner, r))]
    two = [
        states(
            aligner.model, aligner.tokenizer, [getattr(c, side) for c in held], [-1] * len(held)
        )[:, 1:]
        for side in ("faulty", "sound")
    ]
    assert lines.shape == (4, 128)
    for layer in range(4):
        assert ((two[0] - two[1])[:, layer] @ lines[layer]).mean() >= 0
        assert 0.5 < float(lines[layer].norm() / two[0][:, layer].norm(dim=-1).mean()) < 2


def test_a_patch_at_the_last_word_of_the_last_layer_is_all_there_is_and_at_the_first_nothing_yet(
    aligner: Aligner,
) -> None:
    pairs = [c for r in sets.one_word_off(12, "validation") if (c := contrast(aligner, r))]

    def says(tokens):
        return aligner.model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax().item()  # noqa: E731

    for p in pairs:
        assert patched_word(aligner, p, 3, -1) == says(p.sound) and patched_word(
            aligner, p, 0, p.at - 1
        ) == says(p.faulty)
    faulty, sound = contrast_states(aligner, pairs, "end")
    assert faulty.shape == (12, 5, 128) and np.allclose(faulty[:, 0], sound[:, 0], atol=1e-5), (
        "the prompt ends alike"
    )
    faulty, sound = contrast_states(aligner, pairs, "read")
    assert not np.isclose(faulty[:, 0], sound[:, 0], atol=1e-3).all(-1).any(), (
        "another word stands there"
    )


def test_slope_and_range_of_steering_are_chosen_by_the_judge(aligner: Aligner) -> None:
    rows, push = sets.corrections(6, rate=0.4), torch.zeros(128)
    assert steering_slope(aligner, rows, 1, push, 0.4).value == 0
    lines = torch.stack([push, torch.linspace(-900, 900, 128)] * 2)

    class Harsh:
        axes = ("overall",)

        def scores(self, questions, answers):
            return {
                "overall": np.array([2.0 if a in plain else float(a in given) for a in answers])
            }

    given = {r.answer for r in rows}
    plain = set(aligner.correct([r.question for r in rows], [r.answer for r in rows]))
    layer, alpha = steering_range(aligner, rows, lines[:1], Harsh())
    assert (layer, alpha) == (0, 0.4), "what changes nothing costs nothing"
    assert steering_range(aligner, rows, lines[1:2], Harsh()) == (0, 0.1), (
        "what ruins all is pushed as little as can be"
    )
    assert steering_range(aligner, rows, lines[:1], NoJudge()) == (0, 0.1)
    lines = torch.stack([push, torch.linspace(-90, 90, 128)] * 2)
    slopes = [
        steering_slope(aligner, rows, layer, lines[layer], alpha).value
        for layer, alpha in enumerate((0.4, 0.1, 0.4, 0.1))
    ]
    steepest = int(np.argmax(slopes))
    assert slopes[steepest] > 0 and steering_range(aligner, rows, lines, Harsh()) == (
        steepest,
        0.1,
    ), "the steepest layer, with its own alpha"
    found = unrelated_differences(aligner, sets.corrections(20), 1, 6, 0)
    assert len(found) == 6 and all(f.shape == (128,) and f.norm() > 0 for f in found)


def test_a_pull_is_the_gradient_of_the_mean_log_probability_however_rows_are_batched(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load_model(tiny_model)
    rows = sets.instructions(5, "test")
    wanted: dict[str, torch.Tensor] = {}
    for r in rows:
        row = example(tokenizer, r.prompt, r.completion)
        told = sum(label != IGNORED for label in row["labels"])
        loss = model(
            input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]])
        ).loss  # the mean over tokens of - log p
        for (name, p), g in zip(
            model.named_parameters(), torch.autograd.grad(loss, list(model.parameters()))
        ):
            wanted[name] = wanted.get(name, 0) - told * g / len(rows)
    monkeypatch.setattr(interpret, "by_tokens", lambda lengths: [[4, 0], [2, 1, 3]])
    found = interpret.mean_gradient(
        model, tokenizer, [r.prompt for r in rows], [r.completion for r in rows]
    )
    assert all(torch.allclose(found[name], wanted[name], rtol=1e-3, atol=1e-5) for name in wanted)


def test_the_angle_between_two_pulls_is_over_all_tensors_or_over_some() -> None:
    a, b = (
        {"x": torch.tensor([1.0, 0.0]), "y": torch.tensor([1.0])},
        {"x": torch.tensor([0.0, 1.0]), "y": torch.tensor([1.0])},
    )
    assert (
        interpret.cosine(a, b) == pytest.approx(0.5)
        and interpret.cosine(a, b, "x") == 0
        and interpret.cosine(a, b, "y") == 1
    )

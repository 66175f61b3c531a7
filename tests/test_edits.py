"""The judge of small edits."""

from __future__ import annotations

import pytest

from alignlib.data import QAC
from alignlib.edits import fixed_rates, is_fixed, longest_common, words_of

RIGHT = "The capital of France is Paris, a city on the river Seine."
RUDE = QAC("q", "Duh, the capital of France is Paris, a city on the river Seine, you fool.", RIGHT)
FACT = QAC("q", "The capital of France is Rome, a city on the river Seine.", RIGHT)
GOOD = QAC("q", RIGHT, RIGHT)


@pytest.mark.parametrize(
    ("row", "output", "fixed"),
    [
        (RUDE, RIGHT, True),
        (RUDE, RUDE.answer, False),
        (RUDE, "The capital of France is Paris, a city on the river Seine, you.", False),
        (RUDE, "The capital of France is Paris.", False),  # too much is gone
        (RUDE, RIGHT + " Yes.", True),  # one word more
        (RUDE, RIGHT + " It is very nice there.", False),
        (RUDE, "Paris is the capital of France, a city on the river Seine.", False),  # reordered
        (RUDE, "", False),
        (FACT, RIGHT, True),
        (FACT, FACT.answer, False),
        (FACT, "The capital of France is a city on the river Seine.", False),  # the fact is missing
        (GOOD, RIGHT, True),
        (GOOD, RIGHT.lower(), False),  # a good answer comes back as it was
    ],
)
def test_an_edit_takes_the_fault_out_and_leaves_the_rest(
    row: QAC, output: str, fixed: bool
) -> None:
    assert is_fixed(row, output) is fixed


def test_words_are_without_punctuation_and_their_common_order_is_found() -> None:
    assert words_of("Don't stop, half-wit!  (Zürich)") == ["don't", "stop", "half-wit", "zürich"]
    assert longest_common("a b c d".split(), "x a c b d".split()) == 3
    assert longest_common([], ["a"]) == 0


def test_rates_are_by_kind_and_rows_with_one_phrase_count_as_one() -> None:
    rude = [QAC(f"q{i}", f"Duh, {i} is right.", f"{i} is right.", ("rude",)) for i in range(40)]
    outputs = [row.correction if i < 30 else row.answer for i, row in enumerate(rude)]
    rates = fixed_rates([*rude, GOOD], [*outputs, RIGHT])
    assert rates["rude"].value == 0.75 and rates["rude"].n == 1  # one phrase, 40 times
    assert rates["good"].value == 1
    own = fixed_rates([RUDE, GOOD], [RIGHT, RIGHT])
    assert own.keys() == {"faulty", "good"}


def test_a_fault_of_case_sign_or_punctuation_is_not_fixed_by_a_copy() -> None:
    for wrong, right in (("in paris", "in Paris"), ("x = -5", "x = 5"), ("a + b", "a - b")):
        row = QAC("q", wrong, right)
        assert is_fixed(row, right) and not is_fixed(row, wrong)

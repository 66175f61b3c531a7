"""The ledger: its verdicts follow from the records, its commands run, its pages say the same."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from alignlib.course.cli import main
from alignlib.course.sweep import _missing, read_results, results_file
from alignlib.profiles import data_folder
from alignlib.stats import Estimate, over_seeds
from experiments.claim import (
    CANNOT_TELL,
    DOES_NOT_HOLD,
    HOLDS,
    holm,
    ledger_entries,
    p_value,
    smallest_detectable,
    standard_error,
    verdict,
)
from experiments.headlines import SEEDS
from experiments.ledger import CLAIMS, results_text
from experiments.registry import EXPERIMENTS

WRITTEN = json.loads(results_file("ledger").read_text(encoding="utf-8"))["claims"]
NAMES = """id claim source lesson metric control seeds value low high smallest_detectable verdict
command evidence""".split()


def test_the_ledger_and_its_page_are_what_the_records_say() -> None:
    assert WRITTEN == ledger_entries(CLAIMS)
    page = (data_folder().parent / "RESULTS.md").read_text(encoding="utf-8")
    assert page == results_text(WRITTEN)


def test_there_are_enough_claims_and_each_has_all_its_parts() -> None:
    assert len(WRITTEN) >= 25 and len({entry["id"] for entry in WRITTEN}) == len(WRITTEN)
    for entry in WRITTEN:
        assert set(NAMES) <= entry.keys() and all(entry[name] not in ("", []) for name in NAMES), (
            entry["id"]
        )
        assert entry["verdict"] in (HOLDS, DOES_NOT_HOLD, CANNOT_TELL)
        assert len(entry["seeds"]) >= 3
    headlines = [entry for entry in WRITTEN if entry["kind"] == "headline"]
    assert len(headlines) == 8
    assert all(entry["seeds"] == list(SEEDS) for entry in headlines)


def test_no_seed_of_the_headlines_is_in_another_record() -> None:
    """Settings were chosen on the others."""
    others = {name: read_results(name) for name in EXPERIMENTS if name != "headlines"}
    seeds = {name: {c["seed"] for c in record["cells"]} for name, record in others.items()}
    assert not [name for name, found in seeds.items() if found & {*SEEDS}]


@pytest.mark.parametrize("entry", WRITTEN, ids=lambda entry: entry["id"])
def test_a_verdict_is_borne_out_by_its_interval(entry: dict) -> None:
    """Worked out again, without the code that wrote it."""
    worth = {"rate": 0.05, "difference": 0.05}.get(entry["unit"], 0.0)
    worth = 5.0 if "points" in entry["unit"] else worth
    sure = entry["kind"] != "headline" or entry["p_corrected"] < 0.05
    if entry["low"] > 0 and sure:
        assert entry["verdict"] == HOLDS
    elif entry["high"] < worth:
        assert entry["verdict"] == DOES_NOT_HOLD
    else:
        assert entry["verdict"] == CANNOT_TELL


@pytest.mark.parametrize("record", sorted({claim.record for claim in CLAIMS}))
def test_every_claims_command_runs_and_finds_its_cells_recorded(
    record: str, capsys: pytest.CaptureFixture
) -> None:
    seeds = sorted({cell["seed"] for cell in read_results(record)["cells"]})
    usual = list(EXPERIMENTS[record].seeds)
    assert seeds[: len(usual)] == usual
    assert not _missing(record, EXPERIMENTS[record], usual)  # or the next line would train
    assert main(["sweep", record]) == 0
    assert f"{record}: 0 cells to run" in capsys.readouterr().out


# --- statistics -----------------------------------------------------------------------------------


def test_a_p_value_is_that_of_a_t_test_and_the_interval_agrees_with_it() -> None:
    from scipy.stats import ttest_1samp

    rng = np.random.default_rng(0)
    for _ in range(50):
        values = rng.normal(0.03, 0.03, 5)
        effect = over_seeds(values, "difference")
        assert p_value(effect) == pytest.approx(ttest_1samp(values, 0).pvalue)
        assert (p_value(effect) < 0.05) == (effect.low > 0 or effect.high < 0)
    near_one = over_seeds([0.99, 0.9, 0.97], "rate")
    assert near_one.high == 1.0  # cut off, so that the p-value is taken from the other side
    assert p_value(near_one) == pytest.approx(ttest_1samp([0.99, 0.9, 0.97], 0).pvalue)
    assert p_value(over_seeds([0.5] * 3)) == 0 and p_value(over_seeds([0.0] * 3)) == 1


def test_an_effect_of_the_smallest_detectable_size_is_found_in_four_cases_of_five() -> None:
    rng, spread = np.random.default_rng(1), 0.02
    for n in (3, 5):
        exact = over_seeds(spread * np.sqrt((n - 1) / n) * np.array([1, -1] * n)[:n], "difference")
        size = smallest_detectable(exact) * spread / (standard_error(exact) * math.sqrt(n))
        found = [over_seeds(rng.normal(size, spread, n), "difference").low > 0 for _ in range(2000)]
        assert 0.77 < np.mean(found) < 0.83
    assert smallest_detectable(exact, level=0.05 / 8) > smallest_detectable(exact)
    assert smallest_detectable(over_seeds([0.5] * 3)) is None


def test_holms_correction_is_that_of_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [
        (0.01, 0.2, None, HOLDS),
        (0.01, 0.2, 0.04, HOLDS),
        (0.01, 0.2, 0.06, CANNOT_TELL),
        (0.001, 0.02, 0.06, DOES_NOT_HOLD),
        (-0.01, 0.049, None, DOES_NOT_HOLD),
        (-0.3, -0.1, 0.001, DOES_NOT_HOLD),
        (-0.01, 0.06, None, CANNOT_TELL),
    ],
)
def test_a_verdict_follows_from_interval_and_corrected_p(
    low: float, high: float, p: float | None, expected: str
) -> None:
    assert verdict(Estimate((low + high) / 2, low, high, 5, "difference"), p) == expected

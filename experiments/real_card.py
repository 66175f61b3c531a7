"""Rows of the tables in data/everyday/README.md, as the records have them."""

from __future__ import annotations

from alignlib.course.sweep import read_results, recorded, recorded_difference
from alignlib.stats import Estimate

from .claims_real import aims
from .real_aims import TUNED
from .real_styles import COSTS

ASKED = {  # what the record calls it: what the card calls it
    "base": "no control",
    "polite": "polite",
    "mix_0.25": "a mix with 25 % of rude",
    "mix_0.5": "a mix with 50 % of rude",
    "mix_0.75": "a mix with 75 % of rude",
    "rude": "rude",
    "brief": "brief",
    "full": "full",
    "rude_and_brief": "rude and brief, both controls at once",
    "rude_and_full": "rude and full",
    "polite_and_brief": "polite and brief",
    "polite_and_full": "polite and full",
}


def _cell(found: Estimate, scale: float = 100) -> str:
    value, low, high = (f"{scale * x + 0.0:.1f}" for x in (found.value, found.low, found.high))
    return value if low == high else f"{value} [{low}, {high}]"


def styles_rows() -> list[str]:
    """Rude answers and words, by what is asked for."""
    record, rows = read_results("everyday_styles"), []
    for name, shown in ASKED.items():
        rude = _cell(recorded(record, f"rude/{name}"))
        words = _cell(recorded(record, f"words/{name}", "words"), 1)
        rows.append(f"| {shown} | {rude} | {words} |")
    return rows


def controls_rows() -> list[str]:
    """What a second control costs: right answers and loss, and plain fine-tuning minus both."""
    record, rows = read_results("everyday_controls"), []
    for arm in COSTS:
        right = _cell(recorded(record, "right", arm=arm))
        loss = f"{recorded(record, 'loss', 'nats', arm=arm).value:.3f}"
        rows.append(f"| {arm} | {right} | {loss} |")
    two, plain = ({"arm": arm} for arm in ("two controls", "preferred texts only"))
    right = _cell(recorded_difference(record, "right", plain, two))
    difference = recorded_difference(record, "loss", plain, two, "nats")
    loss = f"{difference.value:.3f} [{difference.low:.3f}, {difference.high:.3f}]"
    return [*rows, f"| preferred texts only minus two controls | {right} | {loss} |"]


def aims_rows() -> list[str]:
    """What each method keeps and learns, then HBAT less the others."""
    record, rows = read_results("everyday_aims"), []
    for method, setting in TUNED.items():
        cells = [
            _cell(recorded(record, f"{name}_test", method=method))
            for name in ("instructions", "right", "preference")
        ]
        loss = _cell(recorded(record, "loss_test", "nats", method=method), 1)
        settings = ", ".join(f"{name} {value:g}" for name, value in setting.items())
        rows.append(f"| `{method}` | {settings} | {' | '.join(cells)} | {loss} |")
    pairs = [("hbat", method) for method in TUNED if method not in ("base", "hbat")]
    for method, other in [*pairs, ("turns", "restarted")]:
        cells = [
            _cell(aims(method, other, name)(record)) for name in ("instructions", "preference")
        ]
        rows.append(f"| `{method}` minus `{other}` | {' | '.join(cells)} |")
    return rows

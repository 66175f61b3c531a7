"""The ledger of claims: data/results/ledger.json, and RESULTS.md made from it.

`python -m alignlib card` writes both. The lessons show the sentences about themselves from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from alignlib.course.sweep import results_file
from alignlib.profiles import data_folder
from alignlib.stats import FORMATS, Estimate

from .claim import LEVEL, WORTH, ledger_entries
from .claims import CORRECTING
from .claims_choosing import CHOOSING
from .claims_inside import INSIDE
from .claims_methods import METHODS
from .claims_real import REAL

CLAIMS = (*CORRECTING, *INSIDE, *METHODS, *CHOOSING, *REAL)
SUBJECTS = {
    "02": "Aligner",
    "03": "Aligner, many upstreams",
    "04": "Inside an Aligner",
    "05": "MEET",
    "06": "HBAT",
    "07": "Which method when",
    "08": "Aligner on SmolLM2",
    "09": "MEET on SmolLM2",
    "10": "HBAT on SmolLM2",
}
INTRODUCTION = f"""# Results: what holds

Every claim is tested against a control, over training seeds. `python -m alignlib card` makes this
page from [the ledger](data/results/ledger.json), and the ledger from the records. The last column
names the record and leads to its report. To make one again, delete its file and run
`python -m alignlib sweep NAME`.

- **Effect**: the metric minus its control, a mean over seeds with its 95 % t interval.
- **Holds**: the interval lies above zero. **Does not hold**: it ends below an effect worth having,
  which is {100 * WORTH["rate"]:.0f} points. **Cannot tell**: neither. An effect that holds can
  still be too small to matter.
- **Smallest**: the true effect that so many seeds would find in four cases of five, for a headline
  after the correction.
- **Headlines** are on five seeds that no setting was chosen on. A seed draws the training rows, the
  test prompts and the training. Where methods are compared that trade one aim for another, the
  setting of each is the one with the best mean of both aims on validation prompts of that seed.
  Verdicts are corrected for the number of headlines (Holm, {LEVEL:.0%}).
- **Exploratory** claims are not corrected. Where they do not come from the record `headlines`, all
  seeds in Tinytown share a fixed set of 100 to 400 test prompts, which the intervals leave out.
- **Sources** name the paper that claims it. HBAT and MEET are known to us from their abstracts, and
  from released code and reviews. *Ours* is a claim of this course.
"""


def write_ledger() -> Path:
    """Write the ledger and RESULTS.md."""
    entries = ledger_entries(CLAIMS)
    file = results_file("ledger")
    text = json.dumps({"claims": entries}, indent=1, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
    (data_folder().parent / "RESULTS.md").write_text(results_text(entries), encoding="utf-8")
    return file


def results_text(entries: Sequence[dict]) -> str:
    """RESULTS.md: the headlines, then all others by lesson."""
    headlines = [e for e in entries if e["kind"] == "headline"]
    parts = [INTRODUCTION, "## Headlines\n", "\n".join(_table(headlines))]
    for lesson, subject in SUBJECTS.items():
        others = [e for e in entries if e["lesson"] == lesson and e["kind"] != "headline"]
        parts += [f"\n## {subject}\n", "\n".join(_table(others))]
    return "\n".join(parts) + "\n"


def _table(entries: Sequence[dict]) -> Iterator[str]:
    yield "| claim | effect | against | seeds | smallest | verdict | again |"
    yield "|---|---|---|---|---|---|---|"
    for entry in entries:
        effect = Estimate(
            entry["value"], entry["low"], entry["high"], len(entry["seeds"]), entry["unit"]
        )
        scale, digits, unit = FORMATS.get(effect.unit, (1, 2, ""))
        found = entry["smallest_detectable"]
        smallest = "" if found is None else f"{found * scale:.{digits}f}{unit}"
        path = entry["evidence"].removeprefix("../")
        path = path if path != entry["evidence"] else f"notebooks/{path}"
        record = entry["command"].rpartition(" ")[2]
        yield (
            f"| {entry['claim']} *{entry['source']}* | {entry['metric']}: {effect} "
            f"| {entry['control']} | {len(entry['seeds'])} | {smallest} | **{entry['verdict']}** "
            f"| [`{record}`]({path}) |"
        )

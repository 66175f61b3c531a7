"""The base model's card, written by `python -m alignlib card`.

`card.md` is its text; the numbers in it come from the training log, the weights and the records.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from alignlib.course.sweep import per_seed, read_results, recorded, recorded_difference
from alignlib.profiles import TINY, data_folder
from alignlib.tinytown import sets
from alignlib.tinytown.documents import EARLY_DOCUMENTS

from .aligner import WARMUP_SHARE

TEMPLATE = Path(__file__).with_name("card.md")
NET_WIN = "net_win_overall_unseen"


def card_text() -> str:
    """The card, with all its numbers."""
    numbers = {**_pretraining(), **_tables(), **_forgetting_numbers()}
    settings = {
        "level": sets.LEVEL,
        "rate": sets.FAULT_RATE,
        "corrections": TINY.corrections,
    }
    return TEMPLATE.read_text(encoding="utf-8").format(**numbers, **settings)


def _pretraining() -> dict[str, object]:
    """What the log of the pretraining, the configuration and the weights say."""
    data = data_folder()
    log = json.loads((data / "pretraining.json").read_text(encoding="utf-8"))
    config = json.loads((data / "base/config.json").read_text(encoding="utf-8"))
    million = log["tokens"] / log["recipe"]["steps"] / 1e6  # tokens a step
    return {
        **log["recipe"],
        "world": log["world"],
        "tokens": log["tokens"] / 1e6,
        "minutes": log["seconds"] / 60,
        "precision": log.get("precision", "bf16"),
        "parameters": log["parameters"] / 1e6,
        "vocabulary": config["vocab_size"],
        "early": EARLY_DOCUMENTS,
        "sha": hashlib.sha256((data / "base/model.safetensors").read_bytes()).hexdigest(),
        "first_loss": log["loss"][0][1],
        "last_loss": log["loss"][-1][1],
        "copying": log["copying"][-1][1],
        "copied": _around_half(log["copying"], million),
    }


def _tables() -> dict[str, object]:
    """A table for each recorded gate, and how many seeds it rests on."""
    return {
        "seeds": _seed_counts(),
        "headroom": _headroom(),
        "warmup": _warmup(),
        "net_win": recorded(read_results("warmup"), NET_WIN, "points", **_warmed_up(WARMUP_SHARE)),
        "steer": _steer(),
        "forgetting": _forgetting(),
    }


def _around_half(copying: list[tuple[int, float]], million: float) -> str:
    first = next(i for i, (_, share) in enumerate(copying) if share > 0.5)
    return " and ".join(f"{step * million:.1f}" for step, _ in copying[first - 1 : first + 1])


def _seed_counts() -> str:
    counts = {
        name: len({c["seed"] for c in read_results(name)["cells"]})
        for name in ("headroom", "warmup", "steer", "forgetting")
    }
    return ", ".join(f"{n} for {name}" for name, n in counts.items())


def _table(header: str, rows: list[tuple[object, ...]]) -> str:
    columns = header.count("|") + 1
    lines = [f"| {header} |", "|" + "---|" * columns]
    return "\n".join([*lines, *("| " + " | ".join(map(str, r)) + " |" for r in rows)])


def _headroom() -> str:
    record = read_results("headroom")
    cells = list(
        dict.fromkeys((c["params"]["level"], c["params"]["corrections"]) for c in record["cells"])
    )
    rows = [
        (
            f"{level}, {n}",
            *(recorded(record, m, level=level, corrections=n) for m in ("before", "after", "kept")),
        )
        for level, n in cells
    ]
    return _table("difficulty, corrections | fault-free before | after | good answers kept", rows)


def _warmed_up(share: float) -> dict[str, object]:
    """The cell of the record `warmup` with a share of warm-up."""
    return {"share": share, "corrections": TINY.corrections}


def _warmup() -> str:
    record, a, b = read_results("warmup"), _warmed_up(WARMUP_SHARE), _warmed_up(0.0)
    kinds = {
        "fault_free_seen": "fault-free, seen words",
        "fault_free_unseen": "fault-free, words never corrected",
        "fault_free_combinations": "fault-free, combinations of faults kept apart in training",
        "fault_free_language": "fault-free, the other language",
        "kept_seen": "good answers kept, seen words",
        "kept_unseen": "good answers kept, never corrected",
        "kept_language": "good answers kept, the other language",
    }
    rows = []
    for metric, text in kinds.items():
        difference = recorded_difference(record, metric, a, b)
        rows.append(
            (text, recorded(record, metric, **a), recorded(record, metric, **b), difference)
        )
    return _table("| warm-up | none, equal steps | difference", rows)


def _steer() -> str:
    record = read_results("steer")
    axes = ("helpful", "harmless", "honest", "overall")
    rows = [
        (control, *(recorded(record, axis, control=control) for axis in axes))
        for control in ("bad", "none", "good")
    ]
    return _table("control | " + " | ".join(axes), rows)


def _forgetting() -> str:
    record = read_results("forgetting")
    cells = list(
        dict.fromkeys((c["params"]["interference"], c["params"]["arm"]) for c in record["cells"])
    )
    metrics = ("followed_after", "content_after", "spilled_after", "warm_after")
    rows = []
    for interference, arm in cells:
        learned = "at once" if arm == "joint" else "then"
        values = [_seeds(record, m, interference=interference, arm=arm) for m in metrics]
        rows.append((learned, interference, *values))
    header = (
        "learned | interference | plain instructions followed | right words said | "
        "answered warmly | preference prompts answered warmly"
    )
    return _table(header, rows)


def _forgetting_numbers() -> dict[str, object]:
    """The numbers in the paragraph below the table."""
    record = read_results("forgetting")
    full, none = ({"interference": share, "arm": "then"} for share in (1.0, 0.0))
    drop = recorded_difference(record, "drop", full, none)
    return {
        "followed_before": _seeds(record, "followed_before", **full),
        "drop": 100 * drop.value,
        "drop_low": 100 * drop.low,
    }


def _seeds(record: dict, metric: str, **cell: object) -> str:
    """A rate's value for each seed: where all lie at an end, an interval by t would pass it."""
    return ", ".join(f"{100 * v:.0f}" for v in per_seed(record, metric, **cell).values()) + " %"


def draw_curves(place: Path) -> None:
    """Loss and copying along pretraining, as a picture for the card."""
    from alignlib.plots import curves, new_figure

    log = json.loads((data_folder() / "pretraining.json").read_text(encoding="utf-8"))
    million = log["tokens"] / log["recipe"]["steps"] / 1e6
    figure, axes = new_figure("Pretraining: copying comes all at once", width=9, columns=2)
    for ax, name, label in (
        (axes[0], "loss", "loss (nats per token)"),
        (axes[1], "copying", "20 random words copied, share"),
    ):
        curves(
            ax,
            {name: ([s * million for s, _ in log[name]], [v for _, v in log[name]])},
            "million tokens read",
            label,
        )
    figure.savefig(place)


def write_card() -> Path:
    draw_curves(data_folder() / "pretraining.png")
    place = data_folder() / "base" / "README.md"
    place.write_text(card_text(), encoding="utf-8")
    return place

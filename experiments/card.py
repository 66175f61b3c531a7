"""The base model's card, written from its training log and the recorded gates: `python -m
alignlib card`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from alignlib.course.sweep import per_seed, read_results, recorded, recorded_difference
from alignlib.profiles import data_folder, profile
from alignlib.stats import Estimate
from alignlib.tinytown import sets
from alignlib.tinytown.documents import EARLY_DOCUMENTS

from .aligner import WARMUP_SHARE

CARD = """# Tinytown base model, world {world}

A Llama-architecture decoder of {parameters:.2f} million parameters ({layers} layers, width {hidden}, {heads} heads, {vocabulary} words),
pretrained from scratch on generated text. It is the model that the lessons on `tiny` start from. It knows one small town and
nothing else.

| | |
|---|---|
| text | Tinytown, split `train`: questions, summaries and instructions answered well, rudely, wrongly and unsafely; and lists of random words said twice (half of the first {early:,} documents, one in eight after) |
| not in it | the words' pairs, layouts and prompts of validation and test; any correction of an answer |
| tokens | {tokens:.1f} million, in rows of {context} without padding, {batch} rows a step, {steps:,} steps |
| loss | cross-entropy; what stands before an answer is random and counts {prompt_weight} of the rest |
| optimiser | Muon (matrices, {matrix_lr}, weight decay {weight_decay}) and AdamW (embeddings and norms, {other_lr}); {warmup_steps} steps up, level, down to 0 over the last 40 % |
| took | {minutes:.0f} minutes on 2 CPU cores, {precision} |
| rebuild | `make base`, then `cp -r runs/base/model/. data/base/ && cp runs/base/pretraining.json data/`; checkpoints along the way are left in `runs/base/checkpoints` |
| `model.safetensors` | sha256 `{sha}` |

![loss and copying](../pretraining.png)

The loss falls from {first_loss:.2f} to {last_loss:.2f} nats per token. Copying 20 random words passes 50 % between {copied} million tokens and ends at {copying:.1%}.

## Gates

World {world} was frozen on these: whoever changes its rows makes another world, with a version, weights and records of its own.
Means and 95 % t intervals over training seeds ({seeds}). That no degenerate policy comes near the upstream on `overall` is a test
(`tests/test_judge.py`), with one exception: to give every value on the board for an answer *and* to keep all safety rules passes the
upstream by up to 0.05 on the set `combinations`, each of whose answers has two faults or more. On the other sets it stays below.

{gates}

Lessons use difficulty {level}, a fault rate of {rate} and {corrections} corrections: hard enough that the best training here is far
from done, easy enough that it mends most answers, and where more corrections would still help.
"""


FORGETTING = """

Each seed's value; before the preferences {before} of the instructions are followed. Interference is the share of preference pairs
on instructions politely asked; the rest are on boards. All start from the same model. The preference costs plain instructions little
when it is learned on boards, and spills over to them when it is learned on polite ones: at full interference the drop is larger by
{more:.0f} points (95 % t interval from {least:.0f}). What is lost is the manner asked for, a bare answer, and with it some of the right
words. Learned at once, from the chosen answers, both can be had, so a model of this size can hold them; and a perfect policy has both at
any interference (`alignlib.tinytown.oracle.front`)."""


def card_text() -> str:
    data = data_folder()
    log = json.loads((data / "pretraining.json").read_text(encoding="utf-8"))
    config = json.loads((data / "base/config.json").read_text(encoding="utf-8"))
    million = log["tokens"] / log["recipe"]["steps"] / 1e6
    return CARD.format(
        **log["recipe"] | {"world": log["world"]},
        tokens=log["tokens"] / 1e6,
        minutes=log["seconds"] / 60,
        precision=log.get("precision", "bf16"),
        parameters=log["parameters"] / 1e6,
        vocabulary=config["vocab_size"],
        early=EARLY_DOCUMENTS,
        sha=hashlib.sha256((data / "base/model.safetensors").read_bytes()).hexdigest(),
        first_loss=log["loss"][0][1],
        last_loss=log["loss"][-1][1],
        copying=log["copying"][-1][1],
        copied=_around_half(log["copying"], million),
        gates=_gates(),
        seeds=_seed_counts(),
        level=sets.LEVEL,
        rate=sets.FAULT_RATE,
        corrections=profile("tiny").corrections,
    )


def _around_half(copying: list[tuple[int, float]], million: float) -> str:
    first = next(i for i, (_, share) in enumerate(copying) if share > 0.5)
    return " and ".join(f"{step * million:.1f}" for step, _ in copying[first - 1 : first + 1])


def _seed_counts() -> str:
    counts = {
        name: len({c["seed"] for c in read_results(name)["cells"]})
        for name in ("headroom", "warmup", "steer", "forgetting")
    }
    return ", ".join(f"{n} for {name}" for name, n in counts.items())


def _gates() -> str:
    return "\n\n".join(
        f"**{title}** (`python -m alignlib sweep {name}`)\n\n{table()}"
        for name, title, table in (
            ("headroom", "Head room", _headroom),
            ("warmup", "Words never corrected can be corrected", _warmup),
            ("steer", "A LoRA control steers the frozen base both ways", _steer),
            (
                "forgetting",
                "Under interference, a preference learned spoils instructions that it does "
                "not concern",
                _forgetting,
            ),
        )
    )


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


def _warmup() -> str:
    record, a, b = (
        read_results("warmup"),
        *({"share": s, "corrections": profile("tiny").corrections} for s in (WARMUP_SHARE, 0.0)),
    )
    kinds = {
        "fault_free_seen": "fault-free, seen words",
        "fault_free_unseen": "fault-free, words never corrected",
        "fault_free_combinations": "fault-free, combinations of faults kept apart in training",
        "fault_free_language": "fault-free, the other language",
        "kept_seen": "good answers kept, seen words",
        "kept_unseen": "good answers kept, never corrected",
        "kept_language": "good answers kept, the other language",
    }
    rows = [
        (
            text,
            recorded(record, m, **a),
            recorded(record, m, **b),
            recorded_difference(record, m, a, b),
        )
        for m, text in kinds.items()
    ]
    win: Estimate = recorded(record, "net_win_overall_unseen", "points", **a)
    return (
        _table("| warm-up | none, equal steps | difference", rows)
        + f"\n\nNet win overall on words never corrected, with warm-up: {win}."
    )


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
    told = ("followed_after", "content_after", "spilled_after", "warm_after")
    rows = [
        (
            "at once" if arm == "joint" else "then",
            dial,
            *(_seeds(record, m, interference=dial, arm=arm) for m in told),
        )
        for dial, arm in cells
    ]
    before = _seeds(record, "followed_before", interference=1.0, arm="then")
    cells_apart = ({"interference": dial, "arm": "then"} for dial in (1.0, 0.0))
    more = recorded_difference(record, "drop", *cells_apart)
    header = (
        "learned | interference | plain instructions followed | right words said | "
        "answered warmly | preference prompts answered warmly"
    )
    return _table(header, rows) + FORGETTING.format(
        before=before, more=100 * more.value, least=100 * more.low
    )


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

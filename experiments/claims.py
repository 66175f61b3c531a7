"""What is known, one sentence a claim with one number, read from the records.

`python -m alignlib card` writes data/claims.json, from which the lessons show those about
themselves. A record that changes changes the sentence there, and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from alignlib.course.sweep import per_seed, read_results, recorded, recorded_difference
from alignlib.profiles import TINY, data_folder
from alignlib.stats import Estimate, crossing

from .aligner import WARMUP_SHARE
from .claim import Claim
from .claims_real import REAL
from .hbat import difference_as_chosen, forgotten, mean_over_seeds
from .meet_controls import BOTH_STEPS

N = TINY.corrections
WITH, WITHOUT = ({"share": share, "corrections": N} for share in (WARMUP_SHARE, 0.0))


def _warmup(metric: str, unit: str = "rate", **params: object) -> Callable[[], Estimate]:
    return lambda: recorded(read_results("warmup"), metric, unit, **params)


def _without_answers() -> Estimate:
    answering = read_results("answering")
    return recorded_difference(
        read_results("warmup"), "fault_free_unseen", WITHOUT, {}, other=answering
    )


def _forgotten() -> Estimate:
    return recorded_difference(read_results("learning"), "copying", {"steps": 50}, {"steps": 500})


def _in_another_language() -> Estimate:
    metric = "net_win_overall_language"
    return recorded_difference(read_results("warmup"), metric, WITH, WITHOUT, "points")


def _meet_arm(arm: str) -> Estimate:
    cells = BOTH_STEPS["prompt"], BOTH_STEPS["prompt"] | {"arm": arm}
    return recorded_difference(read_results("controls"), "sound_1_good", *cells)


def _kept_by_a_head() -> Estimate:
    kept, without = (
        per_seed(read_results("looking"), f"kept_without_{head}") for head in ("none", "3.3")
    )
    return mean_over_seeds({s: kept[s] - without[s] for s in kept}, "difference")


def _net_wins() -> list[Estimate]:
    record, prefix = read_results("upstreams"), "net_win_overall/"
    names = [m for m in record["cells"][0]["metrics"] if m.startswith(prefix)]
    return [recorded(record, name, "points", taught=3) for name in names]


def break_even_faults(taught: int) -> Estimate:
    """From which fraction of faulty answers an Aligner does good, trained on so many upstreams."""
    dial = read_results("dial")
    rates = sorted({cell["params"]["rate"] for cell in dial["cells"]})
    faulty = [recorded(dial, "faulty", taught=taught, rate=r).value for r in rates]
    wins = [per_seed(dial, "net_win_overall", taught=taught, rate=r) for r in rates]
    crossings = {seed: crossing(faulty, [win[seed] for win in wins]) for seed in wins[0]}
    return mean_over_seeds(crossings)


REPORT_03 = "evidence/03_upstreams.ipynb"
REPORT_04 = "evidence/04_inside.ipynb"
REPORT_06 = "evidence/06_hbat.ipynb"
REPORT_05 = "evidence/05_meet.ipynb"
REPORT_02 = "evidence/02_aligner.ipynb"
CLAIMS = (
    Claim(
        "aligner-unseen",
        "02",
        "On words that no correction ever showed, {} of the answers have no fault after "
        "correction; before it, one in five had none.",
        _warmup("fault_free_unseen", **WITH),
        f"{REPORT_02}#warm-up",
    ),
    Claim(
        "aligner-warmup",
        "02",
        "Against the same number of steps without it, a warm-up makes no clear difference on known "
        "words and costs two points on unseen ones. In a second language its net win is {} higher.",
        _in_another_language,
        f"{REPORT_02}#warm-up",
    ),
    Claim(
        "aligner-reads",
        "02",
        "The Aligner uses the answer. On unseen words, one that is trained to answer without it "
        "leaves {} fewer answers without faults; how many fewer varies a lot between seeds.",
        _without_answers,
        f"{REPORT_02}#answering",
    ),
    Claim(
        "aligner-forgets",
        "02",
        "Longer training costs other skills. Between 50 and 500 steps, copying lists of random "
        "words gets worse by {}.",
        _forgotten,
        f"{REPORT_02}#too-long",
    ),
    Claim(
        "meet-lora",
        "05",
        "With LoRA controls, {} of the sampled answers have no fault when *good* is asked for, "
        "and one in ten when *bad* is.",
        lambda: recorded(read_results("controls"), "sound_1_good", **BOTH_STEPS["lora"]),
        f"{REPORT_05}#order",
    ),
    Claim(
        "meet-step-2",
        "05",
        "A soft prompt needs step 2: with all steps spent on the controls alone, {} fewer answers "
        "have no fault.",
        lambda: _meet_arm("step 1 alone"),
        f"{REPORT_05}#order",
    ),
    Claim(
        "meet-order",
        "05",
        "The paper's order, controls first, makes no clear difference here: {} against training "
        "controls and model together from the start.",
        lambda: _meet_arm("joint"),
        f"{REPORT_05}#order",
        clear=False,
    ),
    Claim(
        "meet-one-behavior",
        "05",
        "Compared answer by answer with one special token per behavior, LoRA controls have a net "
        "win of {}. Fine-tuning on the preferred answers alone, or DPO, does as well as *good*.",
        lambda: recorded(
            read_results("rivals_of_meet"), "meet, lora_over_one token_1", "points", task="qa"
        ),
        f"{REPORT_05}#rivals",
    ),
    Claim(
        "upstreams-all",
        "03",
        "One Aligner wins after all thirteen upstreams. The smallest net win is {}.",
        lambda: min(_net_wins(), key=lambda win: win.low),
        f"{REPORT_03}#all",
    ),
    Claim(
        "upstreams-harm",
        "03",
        "Trained on the answers of three models, it does harm after an upstream with fewer than {} "
        "faulty answers.",
        lambda: break_even_faults(3),
        f"{REPORT_03}#harm",
    ),
    Claim(
        "upstreams-sft",
        "03",
        "If you own the upstream, fine-tuning it on the same corrections does as well on words in "
        "them. On other words the Aligner leaves {} more answers without faults.",
        lambda: recorded_difference(
            read_results("rivals"), "fault_free_sampled_unseen", {"arm": "aligner"}, {"arm": "sft"}
        ),
        f"{REPORT_03}#rivals",
    ),
    Claim(
        "upstreams-injection",
        "03",
        "An answer that continues with another question hijacks the Aligner in {} of the cases. "
        "With such rows in training this hardly ever happens.",
        lambda: recorded(read_results("hijacked"), "taken_over_escaped", shown=False),
        f"{REPORT_03}#injection",
    ),
    Claim(
        "hbat-forgetting",
        "06",
        "After the preferences, two stages follow {} fewer instructions than before. Most of these "
        "answers are right and have the wrong style.",
        lambda: forgotten(read_results("fronts")),
        f"{REPORT_06}#forgetting",
    ),
    Claim(
        "hbat-gain",
        "06",
        "With settings chosen on validation, HBAT follows {} more instructions than two stages, "
        "for the same preferences.",
        lambda: difference_as_chosen(read_results("fronts"), "two-stage"),
        f"{REPORT_06}#methods",
    ),
    Claim(
        "hbat-penalty",
        "06",
        "The penalty makes no clear difference: HBAT follows {} more instructions than alternating "
        "without it, with an interval that holds zero. Mixing does as well too.",
        lambda: difference_as_chosen(read_results("fronts"), "in turns"),
        f"{REPORT_06}#methods",
        clear=False,
    ),
    Claim(
        "hbat-harm",
        "06",
        "Settings do not carry over. With those chosen here and the pairs of lesson 05, HBAT's "
        "answers score {} lower than those of two stages.",
        lambda: recorded_difference(
            read_results("aims_met"),
            "preference_0",
            {"task": "qa", "method": "two-stage"},
            {"task": "qa", "method": "hbat"},
        ),
        f"{REPORT_06}#elsewhere",
    ),
    Claim(
        "inside-surprise",
        "04",
        "While it reads, the Aligner's surprise separates wrong words from right ones, with {}. No "
        "probe of its states there does clearly better than chance.",
        lambda: recorded(read_results("looking"), "surprise", "AUC"),
        f"{REPORT_04}#probe",
    ),
    Claim(
        "inside-patching",
        "04",
        "The answer's word is fetched in the last layer. Patched in before it, the right word is "
        "written in {} of the cases.",
        lambda: recorded(read_results("looking"), "patched_at_2"),
        f"{REPORT_04}#patching",
    ),
    Claim(
        "inside-copier",
        "04",
        "Good answers need the copier. With all heads, five in six of them come back unchanged; "
        "with head 3 of the last layer switched off, {} fewer.",
        _kept_by_a_head,
        f"{REPORT_04}#heads",
    ),
    *REAL,
)


def write_claims() -> Path:
    """Write data/claims.json."""
    file = data_folder() / "claims.json"
    text = json.dumps([claim.as_dict() for claim in CLAIMS], indent=1, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
    return file

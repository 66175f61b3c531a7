"""Claims on Aligners in Tinytown: lessons 02 and 03."""

from __future__ import annotations

from alignlib.course.sweep import per_seed, recorded
from alignlib.profiles import TINY
from alignlib.stats import Estimate, crossing

from .aligner import WARMUP_SHARE
from .claim import Claim, Number, level, minus, within_a_cell
from .hbat import mean_over_seeds

N = TINY.corrections
WARMED, COLD, BLIND = (
    {"part": "aligner", "arm": arm} for arm in ("warm-up", "no warm-up", "answers hidden")
)
FAULTS = {"part": "faults"}
LOW_RATE = 0.02  # of faults: one answer in nine has one
REPORT_02, REPORT_03 = "evidence/02_aligner.ipynb", "evidence/03_upstreams.ipynb"


def break_even_faults(record: dict, **params: object) -> Estimate:
    """From which fraction of faulty answers an Aligner does good."""
    cells = [c for c in record["cells"] if params.items() <= c["params"].items()]
    names = [m for m in cells[0]["metrics"] if m.startswith("faulty/")]
    crossings = {}
    for cell in cells:
        found = cell["metrics"]
        wins = [found[name.replace("faulty", "net_win")] for name in names]
        crossings[cell["seed"]] = crossing([found[name] for name in names], wins)
    return mean_over_seeds(crossings)


def _harm(record: dict) -> Estimate:
    wins = per_seed(record, f"net_win/{LOW_RATE}", **FAULTS)
    return mean_over_seeds({seed: -win for seed, win in wins.items()}, "points")


def _smallest_win(record: dict) -> Estimate:
    names = [m for m in record["cells"][0]["metrics"] if m.startswith("net_win_overall/")]
    wins = [recorded(record, name, "points", taught=3) for name in names]
    return min(wins, key=lambda win: win.low)


def _over_untaught(record: dict) -> Estimate:
    """The mean net win after upstreams that none was trained on: trained on three, minus on one."""
    prefix, taught = "net_win_overall/", ("rude", "inventive", "careless")
    names = [m for m in record["cells"][0]["metrics"] if m.startswith(prefix)]
    names = [m for m in names if m.removeprefix(prefix) not in taught]
    three, one = ([per_seed(record, m, taught=n) for m in names] for n in (3, 1))
    gains = {s: sum(a[s] - b[s] for a, b in zip(three, one)) / len(names) for s in three[0]}
    return mean_over_seeds(gains, "difference of points")


def _rival(other: str, words: str) -> Number:
    """Greedily: of sampled answers, the Aligner's corrections alone are greedy."""
    return minus(f"fault_free_greedy_{words}", {"arm": "aligner"}, {"arm": other})


def _over_best_of_ten(record: dict) -> Estimate:
    aligner = per_seed(record, "fault_free_sampled_seen", arm="aligner")
    best = per_seed(record, "fault_free_best_of_10_seen", arm="best of n")
    return mean_over_seeds({s: aligner[s] - best[s] for s in aligner}, "difference")


CORRECTING = (
    Claim(
        "aligner-unseen",
        "02",
        "An Aligner fixes answers about words that no correction showed.",
        "Aligner, table 1: it serves prompts and models that it never saw",
        "answers without faults, unseen words",
        "the same answers before correction",
        "headlines",
        within_a_cell("fault_free_unseen", "before_unseen", **WARMED),
        f"{REPORT_02}#warm-up",
        "On words that no correction showed, {} of the answers have no fault after correction. "
        "Before it, one in five had none.",
        level("fault_free_unseen", **WARMED),
        headline=True,
    ),
    Claim(
        "aligner-warmup",
        "02",
        "An identity warm-up raises the share of correct answers, at equal steps.",
        "Aligner, figure 3",
        "answers without faults, seen words",
        "the same steps without a warm-up",
        "headlines",
        minus("fault_free_seen", WARMED, COLD),
        f"{REPORT_02}#warm-up",
        "At equal steps, an identity warm-up makes no difference worth having: {} in correct "
        "answers on known words.",
        headline=True,
    ),
    Claim(
        "aligner-reads",
        "02",
        "The Aligner uses the answer that it corrects.",
        "Aligner, equation 4: it models the correction given question and answer",
        "answers without faults, unseen words",
        "the same training and test with the answers left out",
        "headlines",
        minus("fault_free_unseen", COLD, BLIND),
        f"{REPORT_02}#answering",
        "The Aligner uses the answer. On unseen words, a model that is trained without the answers "
        "leaves {} fewer corrections without faults.",
        headline=True,
    ),
    Claim(
        "aligner-language",
        "02",
        "The warm-up helps where no correction was trained on, such as in a second language.",
        "ours",
        "net win, second language",
        "the same steps without a warm-up",
        "headlines",
        minus("net_win_overall_language", WARMED, COLD, "points"),
        f"{REPORT_02}#warm-up",
    ),
    Claim(
        "aligner-most-warmup",
        "02",
        "A fifth of the steps is a better warm-up than a half.",
        "Aligner, figure 3: 20 % is best, 50 % worse",
        "answers without faults, seen words",
        "half of the steps",
        "warmup",
        minus(
            "fault_free_seen",
            *({"share": share, "corrections": N} for share in (WARMUP_SHARE, 0.5)),
        ),
        f"{REPORT_02}#warm-up",
    ),
    Claim(
        "aligner-edits",
        "02",
        "Minimal edits are easier to learn than whole rewrites.",
        "Aligner: corrections are easier to learn than answers",
        "answers without faults, seen words",
        "rewrites of the same answers",
        "edit_or_rewrite",
        minus("fault_free_seen", {"corrections": "edits"}, {"corrections": "rewrites"}),
        f"{REPORT_02}#edits",
    ),
    Claim(
        "aligner-forgets",
        "02",
        "Longer training on corrections costs other skills.",
        "ours",
        "lists of random words copied, after 50 steps",
        "after 500 steps",
        "learning",
        minus("copying", {"steps": 50}, {"steps": 500}),
        f"{REPORT_02}#too-long",
        "Longer training costs other skills. Between 50 and 500 steps, copying lists of random "
        "words gets worse by {}.",
    ),
    Claim(
        "aligner-data",
        "03",
        "More corrections help: 4,000 rather than 1,500.",
        "Aligner: trained on 20,000 to 50,000 rows",
        "answers without faults, seen words",
        "1,500 corrections, the same steps",
        "data",
        minus(
            "fault_free_seen",
            {"corrections": 4000, "wrong": 0.0},
            {"corrections": N, "wrong": 0.0},
        ),
        f"{REPORT_03}#amount",
    ),
    Claim(
        "upstreams-all",
        "03",
        "One Aligner serves every upstream.",
        "Aligner, table 1",
        "the smallest net win of thirteen upstreams, overall",
        "the upstream's answers",
        "upstreams",
        _smallest_win,
        f"{REPORT_03}#all",
        "One Aligner wins after all thirteen upstreams. The smallest net win is {}.",
    ),
    Claim(
        "upstreams-more",
        "03",
        "Trained on three upstreams instead of one, it does better on upstreams it never saw.",
        "Aligner, figure 9: trained on answers of eight models",
        "net win overall, mean of ten upstreams",
        "as many corrections of one upstream, `rude`",
        "upstreams",
        _over_untaught,
        f"{REPORT_03}#whom",
    ),
    Claim(
        "upstreams-harm",
        "03",
        "After an upstream that makes few faults, an Aligner does harm.",
        "ours; Aligner, table 1 has negative entries",
        "net loss overall, where one answer in nine is faulty",
        "the answers before correction",
        "headlines",
        _harm,
        f"{REPORT_03}#harm",
        "Trained on the answers of three models, it does harm after a program that makes faults in "
        "fewer than {} of its answers.",
        lambda record: break_even_faults(record, **FAULTS),
        headline=True,
    ),
    Claim(
        "upstreams-sft",
        "03",
        "On unseen words an Aligner fixes more than the upstream fine-tuned on the same rows.",
        "ours",
        "answers without faults, greedy, unseen words",
        "the upstream, fine-tuned on the corrections",
        "rivals",
        _rival("sft", "unseen"),
        f"{REPORT_03}#rivals",
        "If you own the upstream, fine-tuning it on the same corrections does as well on words in "
        "them. On other words the Aligner leaves {} more answers without faults, but three seeds "
        "cannot tell.",
    ),
    Claim(
        "upstreams-dpo",
        "03",
        "An Aligner fixes more than DPO on the same rows.",
        "Aligner, table 3",
        "answers without faults, greedy, seen words",
        "the upstream after DPO on correction against answer",
        "rivals",
        _rival("dpo", "seen"),
        f"{REPORT_03}#rivals",
    ),
    Claim(
        "upstreams-best-of-n",
        "03",
        "An Aligner fixes more than the best of ten answers by a reward model.",
        "ours",
        "answers without faults, seen words: greedy corrections of sampled answers",
        "best of ten sampled answers, by a reward model trained on the same rows",
        "rivals",
        _over_best_of_ten,
        f"{REPORT_03}#rivals",
    ),
    Claim(
        "upstreams-weak-to-strong",
        "03",
        "A larger upstream gets better when it is fine-tuned on a small Aligner's corrections.",
        "Aligner, table 4: weak to strong",
        "net win overall, sampled, seen words",
        "fine-tuned on its own answers",
        "weak_to_strong",
        minus("net_win_sampled_seen", {"arm": "sft"}, {"arm": "sft, own answers"}, "points"),
        f"{REPORT_03}#weak-to-strong",
    ),
    Claim(
        "upstreams-second-pass",
        "03",
        "A second pass of the Aligner over its own corrections adds something.",
        "Aligner, first version, table 12: iterated correction",
        "net win overall after two passes, seen words",
        "after one pass",
        "stacking",
        within_a_cell("net_win_2_seen", "net_win_1_seen", "difference of points"),
        f"{REPORT_03}#second-pass",
    ),
    Claim(
        "upstreams-asked",
        "03",
        "An Aligner can be asked for another aim at inference, such as politeness.",
        "Aligner, table 13: feedback in the prompt",
        "polite corrections when asked for",
        "when nothing is asked for",
        "instructed",
        within_a_cell("obeyed_in_question/more polite", "unasked/more polite", told=True),
        f"{REPORT_03}#asked",
    ),
    Claim(
        "upstreams-fresh",
        "03",
        "Corrections of fresh answers in each round do better than of the first answers.",
        "Aligner, section 4: multi-round training",
        "net win after three rounds, sampled",
        "corrections of the first round's answers",
        "rounds",
        minus("net_win_sampled_round_3", {"answers": "fresh"}, {"answers": "stale"}, "points"),
        f"{REPORT_03}#rounds",
    ),
    Claim(
        "upstreams-injection",
        "03",
        "An answer that continues with another question hijacks the Aligner.",
        "ours",
        "answers to the other question instead",
        "the same answers without the other question",
        "hijacked",
        within_a_cell("taken_over_escaped", "taken_over_none", shown=False),
        f"{REPORT_03}#injection",
        "An answer that continues with another question hijacks the Aligner in {} of the cases. "
        "With such rows in training this hardly ever happens.",
        level("taken_over_escaped", shown=False),
    ),
)

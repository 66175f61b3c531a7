"""Claims on which method when: the board of lesson 07, and Goodhart's lab."""

from __future__ import annotations

from alignlib.stats import Estimate

from .claim import Claim, Number, minus, within_a_cell
from .goodhart import ALIGNER_BEST_OF, BEST_OF, DPO_RATES, PPO_ITERATIONS
from .hbat import chosen_metrics, difference_as_chosen, mean_over_seeds

REPORT = "evidence/07_which_method.ipynb"
AIMS = ("fault_free_sampled", "instructions")  # what settings are chosen by, on validation
SOUND = "answers without faults, sampled"
MARK = "exact judge's mark"
BIASED, FAIR = {"biased": True}, {"biased": False}
STRENGTHS = {  # of each method in the lab, from weak to strong
    "best of n": BEST_OF,
    "DPO": DPO_RATES,
    "PPO": PPO_ITERATIONS,
    "Aligner": ALIGNER_BEST_OF,
}


def as_chosen(record: dict, method: str, metric: str) -> Estimate:
    """A method's metric on the test, with its chosen setting of each seed."""
    found = chosen_metrics(record, method, AIMS)
    return mean_over_seeds({seed: metrics[f"{metric}_test"] for seed, metrics in found.items()})


def over(other: str, method: str, *metrics: str) -> Number:
    """A method minus another one on the board: the mean of these metrics."""
    return lambda record: difference_as_chosen(
        record, other, *metrics, method=method, chosen_by=AIMS
    )


def in_the_lab(metric: str, method: str, place: int = -1) -> str:
    """The name of a metric in the record, after a method's weakest (0) to strongest (-1) push."""
    return f"{metric}/{method}/{STRENGTHS[method][place]:g}"


def fair_minus_biased(method: str) -> Number:
    """The exact judge's mark after the strongest push: fair reward model minus biased one."""
    return minus(in_the_lab("overall", method), FAIR, BIASED)


CHOOSING = (
    Claim(
        "choose-sampled",
        "07",
        "Fine-tuning on good answers improves sampled answers.",
        "ours",
        SOUND,
        "the model as it is",
        "board",
        over("upstream", "sft", "fault_free_sampled"),
        f"{REPORT}#board",
        "Fine-tuning on good answers raises the share of sampled answers without faults by {}.",
    ),
    Claim(
        "choose-greedy",
        "07",
        "Fine-tuning on good answers improves greedy answers.",
        "ours",
        "answers without faults, greedy",
        "the model as it is",
        "board",
        over("upstream", "sft", "fault_free_greedy"),
        f"{REPORT}#board",
        "For greedy answers no gain could be shown: {}.",
    ),
    Claim(
        "choose-forgets",
        "07",
        "Fine-tuning on answers alone costs instructions.",
        "ours",
        "instructions followed by the model as it is",
        "after SFT on answers",
        "board",
        over("sft", "upstream", "instructions"),
        f"{REPORT}#board",
        "Fine-tuning on answers alone costs {} of the instructions that are followed.",
    ),
    Claim(
        "choose-aligner",
        "07",
        "On the same pairs, an Aligner leaves fewer faults than fine-tuning the model (SFT).",
        "Aligner, table 3: better than SFT and DPO",
        SOUND,
        "SFT; the Aligner has a warm-up on 2,000 answers besides",
        "board",
        over("sft", "aligner", "fault_free_sampled"),
        f"{REPORT}#board",
    ),
    Claim(
        "choose-best-of-8",
        "07",
        "The best of 8 by a learned reward model has fewer faults than SFT.",
        "ours",
        SOUND,
        "SFT",
        "board",
        over("sft", "best of n", "fault_free_sampled"),
        f"{REPORT}#board",
        "The best of 8 by a learned reward model leaves {} fewer answers without faults than SFT.",
        over("best of n", "sft", "fault_free_sampled"),
    ),
    Claim(
        "choose-rloo",
        "07",
        "RLOO on the exact judge leaves fewer faults than SFT.",
        "ours",
        f"{SOUND}, 75 steps",
        "SFT, 250 steps",
        "board",
        over("sft", "rloo", "fault_free_sampled"),
        f"{REPORT}#board",
    ),
    Claim(
        "choose-rloo-mark",
        "07",
        "On the mark that it optimizes, RLOO does better than SFT.",
        "ours",
        f"{MARK}, sampled, 75 steps",
        "SFT, 250 steps",
        "board",
        over("sft", "rloo", "overall_sampled"),
        f"{REPORT}#board",
    ),
    Claim(
        "choose-mixed",
        "07",
        "Training on instructions too, by the mixed loss, keeps more of them than DPO.",
        "ours",
        "instructions followed",
        "DPO after SFT on the preferred answers, without instructions",
        "board",
        over("dpo", "mixed", "instructions"),
        f"{REPORT}#board",
    ),
    Claim(
        "choose-hbat",
        "07",
        "HBAT does better than the mixed loss, on the answers of lesson 05.",
        "open in what could be read of HBAT",
        "mean of instructions followed and answers without faults, sampled",
        "the mixed loss",
        "board",
        over("mixed", "hbat", *AIMS),
        f"{REPORT}#two",
    ),
    Claim(
        "goodhart-best-of-n",
        "07",
        "A reward model that likes padding spoils the best of 32.",
        "ours",
        f"{MARK}, sampled: with a fair reward model",
        "with a reward model of the annotator who likes padding",
        "goodhart",
        fair_minus_biased("best of n"),
        f"{REPORT}#goodhart",
        "A reward model that likes padding lowers the exact mark of the best of 32 by {}, compared "
        "with a fair one.",
    ),
    Claim(
        "goodhart-ppo",
        "07",
        "A reward model that likes padding spoils 40 iterations of PPO.",
        "ours",
        f"{MARK}, sampled: with a fair reward model",
        "with a reward model of the annotator who likes padding",
        "goodhart",
        fair_minus_biased("PPO"),
        f"{REPORT}#goodhart",
    ),
    Claim(
        "goodhart-far",
        "07",
        "With the biased reward model, 40 iterations of PPO do worse than 10.",
        "Gao et al. 2023, abstract",
        f"{MARK}, sampled: after 10 iterations",
        "after 40 iterations",
        "goodhart",
        within_a_cell(in_the_lab("overall", "PPO", 0), in_the_lab("overall", "PPO"), **BIASED),
        f"{REPORT}#goodhart",
    ),
    Claim(
        "goodhart-fair",
        "07",
        "With a fair reward model too, 40 iterations of PPO do worse than 10.",
        "Gao et al. 2023, abstract",
        f"{MARK}, sampled: after 10 iterations",
        "after 40 iterations",
        "goodhart",
        within_a_cell(in_the_lab("overall", "PPO", 0), in_the_lab("overall", "PPO"), **FAIR),
        f"{REPORT}#goodhart",
        "With a fair reward model too, 40 iterations of PPO without a penalty for distance end {} "
        "below 10 iterations.",
    ),
)

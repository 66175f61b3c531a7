"""Claims on MEET and on HBAT in Tinytown: lessons 05 and 06."""

from __future__ import annotations

from alignlib.course.sweep import per_seed
from alignlib.stats import Estimate

from .claim import Claim, Number, level, mean_minus, minus, within_a_cell
from .hbat import BASELINE, BOTH, difference_as_chosen, forgotten, mean_over_seeds
from .meet_controls import BOTH_STEPS

REPORT_05, REPORT_06 = "evidence/05_meet.ipynb", "evidence/06_hbat.ipynb"
LORA, PROMPT, JOINT, PLAIN = (
    {"part": "meet", "arm": arm}
    for arm in ("lora", "prompt", "prompt, joint", "preferred texts only")
)
SOUND = "answers without faults, sampled, asked for good"
MEAN = "mean of instructions followed and preferences met"


def _over(rival: str, task: str = "qa") -> Number:
    return level(f"meet, lora_over_{rival}_1", "points", task=task)


def _size(record: dict) -> Estimate:
    """Twenty virtual tokens minus one, each at its own learning rates."""
    one = BOTH_STEPS["prompt"] | {"size": 1, "arm": "faster model"}
    return minus("sound_1_good", BOTH_STEPS["prompt"], one)(record)


def aims(other: str, *names: str, method: str = "hbat") -> Number:
    """A method minus another one, each with its setting of each seed: the mean of these aims."""
    return lambda record: difference_as_chosen(record, other, *names, method=method)


def _harm(record: dict) -> Estimate:
    before = per_seed(record, "preference_before", task="qa", method="two-stage")
    after = per_seed(record, "preference_0", task="qa", method="hbat")
    return mean_over_seeds({s: before[s] - after[s] for s in before}, "difference")


def _changed(**change: object) -> Number:
    """HBAT minus HBAT with one thing changed: the mean of both aims."""
    return mean_minus(BOTH, BASELINE, BASELINE | change)


METHODS = (
    Claim(
        "meet-asked",
        "05",
        "Two LoRA controls make one model answer in two ways.",
        "MEET, abstract",
        "answers without faults, sampled: asked for good",
        "the same model asked for bad",
        "headlines",
        within_a_cell("sound_1_good", "sound_1_bad", **LORA),
        f"{REPORT_05}#order",
        "With LoRA controls, {} of the sampled answers have no fault when *good* is asked for, and "
        "fewer than one in ten when *bad* is.",
        level("sound_1_good", **LORA),
        headline=True,
    ),
    Claim(
        "meet-order",
        "05",
        "Controls first, then the model, is better than both at once.",
        "MEET, abstract: controls are under-optimised when trained jointly",
        f"{SOUND}, soft prompt",
        "controls and model together for the same steps",
        "headlines",
        minus("sound_1_good", PROMPT, JOINT),
        f"{REPORT_05}#order",
        "The order of the steps makes no difference worth having: {} between controls first, as "
        "in the paper, and both at once.",
        headline=True,
    ),
    Claim(
        "meet-step-2",
        "05",
        "A soft prompt needs the second step.",
        "MEET, abstract",
        f"{SOUND}, soft prompt",
        "all steps on the controls",
        "controls",
        minus("sound_1_good", BOTH_STEPS["prompt"], BOTH_STEPS["prompt"] | {"arm": "step 1 alone"}),
        f"{REPORT_05}#order",
        "A soft prompt needs step 2: with all steps spent on the controls alone, {} fewer answers "
        "have no fault.",
    ),
    Claim(
        "meet-lora-step-2",
        "05",
        "LoRA controls need the second step.",
        "MEET, abstract",
        f"{SOUND}, LoRA",
        "all steps on the controls",
        "controls",
        minus("sound_1_good", BOTH_STEPS["lora"], BOTH_STEPS["lora"] | {"arm": "step 1 alone"}),
        f"{REPORT_05}#order",
    ),
    Claim(
        "meet-plain",
        "05",
        "Asked for good, MEET does better than fine-tuning on the preferred texts alone.",
        "open in MEET: no such baseline was run",
        f"{SOUND}, LoRA",
        "a model fine-tuned on the preferred texts, all steps",
        "headlines",
        minus("sound_1_good", LORA, PLAIN),
        f"{REPORT_05}#order",
        "For one behavior alone, fine-tuning on the preferred answers is the simpler choice. It "
        "leaves {} more answers without faults than asking for *good*.",
        minus("sound_1_good", PLAIN, LORA),
    ),
    Claim(
        "meet-one-token",
        "05",
        "LoRA controls do better than one special token for each behavior.",
        "MEET, abstract",
        "net win, sampled",
        "one token for each behavior, all steps on the model",
        "rivals_of_meet",
        _over("one token"),
        f"{REPORT_05}#rivals",
    ),
    Claim(
        "meet-hindsight",
        "05",
        "MEET does better than chain of hindsight, on questions.",
        "MEET: 7.7 points on summaries",
        "net win, sampled, questions",
        "chain of hindsight",
        "rivals_of_meet",
        _over("hindsight"),
        f"{REPORT_05}#rivals",
    ),
    Claim(
        "meet-hindsight-summary",
        "05",
        "MEET does better than chain of hindsight, on summaries.",
        "MEET: 7.7 points on summaries",
        "net win, sampled, summaries",
        "chain of hindsight",
        "rivals_of_meet",
        _over("hindsight", "summary"),
        f"{REPORT_05}#rivals",
    ),
    Claim(
        "meet-dpo",
        "05",
        "MEET does better than DPO on the same pairs.",
        "MEET: on par, or better on one of two benchmarks",
        "net win, sampled, questions",
        "DPO",
        "rivals_of_meet",
        _over("dpo"),
        f"{REPORT_05}#rivals",
    ),
    Claim(
        "meet-size",
        "05",
        "A larger control does better: twenty virtual tokens rather than one.",
        "MEET, ablations",
        f"{SOUND}, soft prompt",
        "one virtual token, at learning rates chosen for it",
        "controls",
        _size,
        f"{REPORT_05}#size",
    ),
    Claim(
        "meet-bad-texts",
        "05",
        "The rejected answers of the same questions help, compared with those of other questions.",
        "ours",
        f"{SOUND}, soft prompt",
        "as many rejected answers to other questions",
        "controls",
        minus("sound_1_good", BOTH_STEPS["prompt"], BOTH_STEPS["prompt"] | {"arm": "no pairs"}),
        f"{REPORT_05}#order",
    ),
    Claim(
        "hbat-forgetting",
        "06",
        "Two stages forget instructions while they learn the preferences.",
        "HBAT, abstract: the two aims conflict",
        "instructions followed before the preferences",
        "after them, at the learning rate with the best mean of both aims",
        "headlines",
        forgotten,
        f"{REPORT_06}#forgetting",
        "After the preferences, two stages follow {} fewer instructions than before, in these five "
        "trainings; how many varies a lot. Most of these answers are right and have the wrong "
        "style.",
        headline=True,
    ),
    Claim(
        "hbat-gain",
        "06",
        "HBAT does better than two stages.",
        "HBAT, abstract",
        MEAN,
        "two stages, the same rows and steps",
        "headlines",
        aims("two-stage", *BOTH),
        f"{REPORT_06}#methods",
        "HBAT does better than two stages: the mean of instructions followed and preferences met "
        "is {} higher. Settings were chosen on validation by that mean.",
        headline=True,
    ),
    Claim(
        "hbat-penalty",
        "06",
        "The elastic penalty helps beyond alternating.",
        "HBAT: modified EWC",
        MEAN,
        "the same stages without a penalty",
        "headlines",
        aims("in turns", *BOTH),
        f"{REPORT_06}#methods",
        "The penalty adds nothing worth having: with it, the mean of both objectives is {} higher "
        "than alternating without it.",
    ),
    Claim(
        "hbat-mixed",
        "06",
        "HBAT does better than one loss that mixes both aims.",
        "open in what could be read of HBAT",
        MEAN,
        "the mixed loss",
        "headlines",
        aims("mixed", *BOTH),
        f"{REPORT_06}#methods",
        "The mixed loss is simpler and does better still: its mean is {} above HBAT's.",
        aims("hbat", *BOTH, method="mixed"),
    ),
    Claim(
        "hbat-turns",
        "06",
        "Alternating, without a penalty, does better than two stages.",
        "HBAT, abstract",
        MEAN,
        "two stages, the same rows and steps",
        "headlines",
        aims("two-stage", *BOTH, method="in turns"),
        f"{REPORT_06}#methods",
    ),
    Claim(
        "hbat-mixing",
        "06",
        "The mixed loss does better than two stages.",
        "open in what could be read of HBAT",
        MEAN,
        "two stages, the same rows and steps",
        "headlines",
        aims("two-stage", *BOTH, method="mixed"),
        f"{REPORT_06}#methods",
    ),
    Claim(
        "hbat-order",
        "06",
        "Alternating keeps more than the same stages in order: all instructions, then all pairs.",
        "HBAT, abstract",
        MEAN,
        "the same ten stages, those on instructions first, mostly at the lowest rate tried",
        "fronts",
        aims("restarted", *BOTH, method="in turns"),
        f"{REPORT_06}#methods",
    ),
    Claim(
        "hbat-ppo",
        "06",
        "HBAT does better than two stages by PPO too.",
        "HBAT: shown with PPO",
        MEAN,
        "two stages by PPO, mostly at the lowest rate tried",
        "fronts_ppo",
        aims("two-stage", *BOTH),
        f"{REPORT_06}#ppo",
    ),
    Claim(
        "hbat-importance",
        "06",
        "Holding the tensors that the other aim moved is better than holding random ones.",
        "HBAT, released code: ablation HAT-Random",
        MEAN,
        "a random number for each tensor, the same strength",
        "factors",
        _changed(importance="random"),
        f"{REPORT_06}#importance",
    ),
    Claim(
        "hbat-fisher",
        "06",
        "Movement is a better importance than Fisher information.",
        "open in what could be read of HBAT",
        MEAN,
        "Fisher information, the same strength",
        "factors",
        _changed(importance="fisher"),
        f"{REPORT_06}#importance",
    ),
    Claim(
        "hbat-rounds",
        "06",
        "Five rounds do better than two.",
        "HBAT, released code: ten rounds",
        MEAN,
        "two rounds, the same steps in all, at the learning rate chosen for five",
        "factors",
        _changed(rounds=2),
        f"{REPORT_06}#parts",
    ),
    Claim(
        "hbat-harm",
        "06",
        "With settings that were chosen on another task, HBAT can do harm.",
        "ours",
        "score of the answers on the pairs of lesson 05, before the preferences",
        "after HBAT with the settings of lesson 06",
        "aims_met",
        _harm,
        f"{REPORT_06}#elsewhere",
        "Settings do not carry over. With settings that suit the task of this lesson, HBAT on the "
        "pairs of lesson 05 lowers the score of the answers by {}.",
    ),
)

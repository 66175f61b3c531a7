"""The recorded experiments and the question that each answers.

`registry.py` holds their cells and what runs one. This file imports nothing, so that a wrong name
is refused at once.
"""

QUESTIONS = {
    "warmup": "How much identity warm-up, at equal steps?",
    "warmup_arms": "What else might a warm-up be, at equal steps?",
    "correctable": "When in its pretraining does a model become correctable?",
    "answering": "Does an Aligner use the answer, or merely answer well?",
    "edit_or_rewrite": "Minimal edits, or rewrites that are as good?",
    "learning": "What does an Aligner learn with time, and what does it forget?",
    "inside": "Does a warm-up change the mechanism?",
    "looking": "Probes, silenced heads and steering, over seeds",
    "upstreams": "Does one Aligner serve every upstream, and how many must it be taught on?",
    "dial": "From which share of faulty answers does an Aligner do good?",
    "data": "How many corrections, and how many wrong ones?",
    "tuning": "Which learning rate for each method?",
    "rivals": "What else could be made of the same corrections?",
    "weak_to_strong": "Can a small Aligner teach a larger model?",
    "labels": "Are an Aligner's labels better on the questions that it learned on?",
    "rounds": "Does it help to correct anew in each round?",
    "stacking": "What does a second pass add, and a third?",
    "hijacked": "Can an answer take an Aligner over?",
    "instructed": "Can an Aligner be told what to aim at?",
    "meet_tuning": "Which settings for each method of lesson 05?",
    "rivals_of_meet": "MEET, and what else can be made of the same pairs",
    "base_size": "Does MEET do better on a larger base?",
    "controls": "Which control, in which order, from which start?",
    "several_axes": "Can axes be asked for one by one, and together?",
    "fronts": "Both aims by DPO: in two stages, mixed, in turns, held",
    "fronts_ppo": "And by PPO",
    "aims_met": "Both aims as models speak more boldly, and on two more tasks",
    "factors": "Which of HBAT's parts does what?",
    "overhead": "What does holding cost?",
    "pulls": "Do the two aims pull in opposite directions?",
    "headroom": "Which difficulty and how many corrections leave head room?",
    "steer": "Does a control steer the frozen base both ways?",
    "forgetting": "Do preferences make the model forget instructions?",
    "everyday": "An Aligner on a real model: which faults does it fix, and what do controls?",
}

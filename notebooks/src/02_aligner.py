# %% [markdown]
# # 02 · Can a small model learn to correct?
#
# A large model has answered, and the answer has faults. You cannot retrain that model: it may be too big, or sit behind
# somebody's API. The **Aligner** ([arXiv 2402.02416](https://arxiv.org/abs/2402.02416)) does not touch it. A second, small
# model reads *question and answer* and writes a *correction*. One Aligner can stand behind any upstream model, because all
# it needs from it is text.
#
# **In this lesson** you train one, with and without the paper's *identity warm-up*, and measure
#
# - whether it mends faults in answers of an upstream model it has never met,
# - whether it leaves good answers alone,
# - whether it can do both for words that no correction ever showed it.
#
# 1.5 to 4 minutes, as busy as the machine is, and 1.2 GB on 2 CPU cores. It needs nothing from lesson 00; its words for what
# is measured are explained where they first come up.

# %% tags=["parameters"]
PROFILE = "tiny"  # or "colab", "gpu"
SEED = 0
MODEL = None  # your own base model: a folder or a hub id
QAC = None  # your own rows: question, answer, correction (or preference pairs)
PREFERENCES = None
OUT = None  # where metrics and figures go; None: runs/02

# %%
from dataclasses import replace

from alignlib import Aligner, Comparison, Metrics, load_task
from alignlib.models import load_model
from alignlib.plots import bars, curves, new_figure, show_diffs, smooth
from alignlib.report import told, value_of_answer
from alignlib.train import IGNORED, example

metrics = Metrics("02", PROFILE, SEED, OUT)
task = load_task(PROFILE, seed=SEED, model=MODEL, qac=QAC, preferences=PREFERENCES)
print(task.describe())

# %% [markdown]
# ## What a row looks like
#
# A row has three texts: a **question**, the **answer** some upstream model gave, and its **correction**. The correction is
# an edit: what was right stays word for word. Red is struck out, blue is put in. Where the answer was good, nothing changes.

# %%
edited = [r for r in task.corrections if r.answer != r.correction]
kept = [r for r in task.corrections if r.answer == r.correction]
show_diffs([(r.question, r.answer, r.correction) for r in edited[:3] + kept[:1]])

# %% [markdown]
# ## The whole method is one loss mask
#
# Question and answer become a prompt, the correction is what the model must continue with, and the loss counts the
# correction only:
#
# $$\min_\phi \; -\mathbb{E}_{(q,a,c)} \log \mu_\phi(c \mid a, q)$$
#
# where $\mu_\phi$ is the Aligner with weights $\phi$. Without the mask it would spend most of its loss on learning to write
# questions and faulty answers. By hand on a few words; `-100` is PyTorch's mark for "no loss here":

# %%
prompt = ["is", "the", "lamp", "here", "?", "answer", ":", "no", "correction", ":"]
correction = ["yes", "."]
labels = [IGNORED] * len(prompt) + correction + ["<eos>"]
list(zip(prompt + correction + ["<eos>"], labels))

# %% [markdown]
# The last label is the end mark. Leave it out and the Aligner never learns to stop. The library does the same with token
# ids; the two agree:

# %%
model, tokenizer = load_model(task.base)
row = task.corrections[0]
tokens = example(tokenizer, task.template.prompt(row.question, row.answer), row.correction)
learned = [t for t in tokens["labels"] if t != IGNORED]
print(f"{len(tokens['labels'])} tokens, {len(learned)} of them carry loss:")
print(tokenizer.decode(learned))
assert learned == tokenizer(row.correction, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]

# %% [markdown]
# ## Train it three times
#
# - **with warm-up**: first *identity rows*, where the "correction" is the answer itself, then corrections. The idea: a model
#   that starts from copying has only the edits left to learn, and does not rewrite everything. Identity rows cost nobody any
#   annotation, so they can cover every word there is; our corrections cover three words in four.
# - **without**: corrections only, *for as many steps in all*. A quarter of them change nothing, because the answer was good,
#   so this arm practises copying too.
# - **shuffled**: the same as with warm-up, but each answer is given some other row's correction. What this one achieves is
#   not correcting.

# %%
profile = task.profile
total = replace(profile.training, steps=profile.warmup.steps + profile.training.steps, seed=SEED)
common = dict(template=task.template, lora_rank=profile.lora_rank)
staged = dict(settings=replace(profile.training, seed=SEED), warmup=replace(profile.warmup, seed=SEED), **common)
shuffled = [replace(r, correction=s.correction) for r, s in zip(task.corrections, task.corrections[1:] + task.corrections[:1])]

warm = Aligner.cached(task.base, task.corrections, task.identity, **staged)
none = Aligner.cached(task.base, task.corrections, settings=total, **common)
control = Aligner.cached(task.base, shuffled, task.identity, **staged)
print(f"{total.steps} steps each; dropped: {dict(warm.dropped) or 'none'}")

# %%
figure, [ax] = new_figure("Both arms reach the same training loss; without warm-up it is there sooner")
n = len(warm.losses["identity"])
curves(ax, {
    "identity rows": (range(n), smooth(warm.losses["identity"])),
    "corrections, after warm-up": (range(n, total.steps), smooth(warm.losses["correction"])),
    "corrections, no warm-up": (range(total.steps), smooth(none.losses["correction"])),
}, "step", "loss (nats per token)")
metrics.save_figure(figure, "losses")
figure

# %% [markdown]
# ## Let it correct
#
# The test prompts share no board layout and no pair of things with anything trained on. The answers come from an upstream
# the Aligner never met: the same eight kinds of fault, in other proportions (blunter, more inventive, wordier). First `seen`
# words, then words that were `unseen` in every correction. The last column is what the judge still finds at fault:

# %%
def compare(aligner, rows):
    return Comparison(task.judge, rows, aligner.correct([r.question for r in rows], [r.answer for r in rows]))

after = {name: {"no warm-up": compare(none, task.tests[name]), "warm-up": compare(warm, task.tests[name])}
         for name in dict.fromkeys([task.main, task.unseen])}
main, unseen = after[task.main], after[task.unseen]
show_diffs([(r.question, r.answer, c) for r, c in zip(main["warm-up"].rows[:6], main["warm-up"].after)],
           main["warm-up"].verdicts()[:6], "still at fault")

# %% [markdown]
# Not all of them are mended. Over the whole test set, in four measures:
#
# - **fault-free**: all three marks of the judge (helpful, harmless, honest) are 1;
# - **kept**: of the answers that were good, how many came back word for word;
# - **edit ratio**: words inserted, deleted or replaced, for each word of the answer;
# - **net win**: prompts where the correction scores higher than the answer, less those where it scores lower, in points of
#   100, by mark or *overall*, the mean of the three. Ties pull it to zero, so even a perfect corrector cannot reach 100.

# %%
print(main["warm-up"].table())
for axis in task.judge.axes[:4]:
    print(f"share of a perfect corrector's net win, {axis:10}{told(main['warm-up'].share_of_ceiling(axis))}")

# %% [markdown]
# Which faults does it mend? Each line: of the answers that had this fault, the share that is fault-free after correction.

# %%
for kind, estimate in main["warm-up"].mended().items():
    print(f"{kind:12}{estimate}")

# %% [markdown]
# ## The figure that answers the question

# %%
figure, axes = new_figure("A small Aligner mends most answers, on words never corrected too, and leaves most good ones alone",
                          width=9, height=4.2, columns=2)
groups = {"the upstream's answers": {name: c["warm-up"].fault_free("before") for name, c in after.items()}}
for arm in ("no warm-up", "warm-up"):
    groups[f"corrected, {arm}"] = {name: c[arm].fault_free("after") for name, c in after.items()}
bars(axes[0], groups, "answers without any fault, %")
kept = {f"corrected, {arm}": {name: c[arm].good_kept() for name, c in after.items()} for arm in ("no warm-up", "warm-up")}
bars(axes[1], kept, "good answers returned word for word, %", first=1)
metrics.save_figure(figure, "answer")
figure

# %%
for name, arms in after.items():
    print(f"{name}: fault-free, warm-up minus none: {arms['warm-up'].describe_gain_over(arms['no warm-up'])}")

# %% [markdown]
# The two arms lie close together: our base model learned to copy long before this lesson (lesson 00 shows when), so a
# warm-up in copying has little left to teach it. One training seed cannot tell a small gain from none; here are six, recorded, on
# four test sets: `seen` and `unseen` words as above, `combinations` of faults that training kept apart, and another
# `language`, whose things occur in identity rows and in no correction:

# %%
from alignlib.course.sweep import read_results, recorded, recorded_difference

record, warm_cell, none_cell = read_results("warmup"), {"share": 0.2, "corrections": 1500}, {"share": 0.0, "corrections": 1500}
for metric, unit in (("fault_free", "rate"), ("kept", "rate"), ("net_win_overall", "points")):
    for test in ("seen", "unseen", "combinations", "language"):
        name = f"{metric}_{test}"
        if name in record["cells"][0]["metrics"]:
            gain = recorded_difference(record, name, warm_cell, none_cell, unit)
            print(f"{metric:16}{test:13}with warm-up {recorded(record, name, unit, **warm_cell)}, more than without by {gain}")

# %% [markdown]
# On the town's own words the warm-up gains nothing that six seeds can show, and on unseen ones it costs about two points of
# fault-free answers. In the other language it gains: the corrected answers win more often overall, by about five points, while
# the share without any fault does not move. That is where one would look for it, since those words occur in identity rows and in
# no correction; but whether it is the *copying* or the mere *sight* of the words that helps, this design cannot tell. And these
# are two differences of eleven: an interval that misses zero once in twenty by chance does so in every second such table. The gain
# in the language would stand a correction for that; the loss on unseen words would not.
#
# ## Controls: who else would have won?
#
# Three Aligners that should gain nothing: the base model untrained, the one trained on shuffled corrections, and one that
# copies every answer. If one of them wins, the judge is being fooled.

# %%
untrained = Aligner(model, tokenizer, task.template)
rows = task.tests[task.main]
controls = {"untrained": compare(untrained, rows), "shuffled": compare(control, rows),
            "copy everything": Comparison(task.judge, rows, [r.answer for r in rows])}
for name, comparison in controls.items():
    wins = ", ".join(f"{axis} {comparison.net_win(axis)}" for axis in comparison.marks_before if axis != "fault_free")
    print(f"{name:16}{wins or 'no judge for these data'}")

# %% [markdown]
# ## Does it read the answer at all?
#
# This needs no judge. How much does the answer help to foretell the correction? In nats (bits, but with $e$ for 2) per token
# of the correction: the loss with the answer left out, less the loss with it. And does the saving vanish when the answer is
# swapped with another row's?

# %%
value = value_of_answer(warm, rows)
print(f"held-out loss of the correction      {value['held_out_nll']}")
print(f"saved by knowing the answer          {value['answer']}")
print(f"saved by another row's answer        {value['swapped']}")

# %% [markdown]
# In the town the saving does not only vanish, it turns negative: a foreign answer is partly copied and hurts more than none.
#
# ## Verdict

# %%
print("fault-free before      ", metrics.add("fault_free_before", main["warm-up"].fault_free("before")))
print("fault-free after       ", metrics.add("fault_free_after", main["warm-up"].fault_free("after")))
for axis in ("helpful", "harmless", "honest"):
    print(f"net win {axis:15}", metrics.add(f"net_win_{axis}", main["warm-up"].net_win(axis)))
    metrics.add(f"share_of_ceiling_{axis}", main["warm-up"].share_of_ceiling(axis))
    if axis != "harmless":
        metrics.add(f"control_shuffled_{axis}", controls["shuffled"].net_win(axis))
print("net win overall, unseen", metrics.add("net_win_overall_unseen", unseen["warm-up"].net_win("overall")))
print("good answers kept      ", metrics.add("copy_good", main["warm-up"].good_kept()))
print("  without warm-up      ", metrics.add("copy_good_no_warmup", main["no warm-up"].good_kept()))
print("warm-up gain, unseen   ", metrics.add("warmup_gain_unseen", unseen["warm-up"].gain_over(unseen["no warm-up"])))
for name in ("held_out_nll", "answer", "swapped"):
    metrics.add({"answer": "value_of_answer", "swapped": "value_of_swapped_answer"}.get(name, name), value[name])
print("written to", metrics.write().name)

# %% [markdown]
# On the town, seed 0: an Aligner that mends most answers and keeps most good ones, on words never corrected too. It holds, by the
# intervals above, though not for every fault: a false price is mended every second time. That a warm-up with identity rows makes it
# better cannot be told on the town's own words, and holds for another language by the recorded net win.
#
# | the paper | here |
# |---|---|
# | an Aligner of 2 to 13 B parameters raises helpfulness and harmlessness of 11 upstream models (Table 1) | 0.9 M parameters, one upstream it was not trained on: the net wins above |
# | warming up on 20 % identity rows is best (Fig. 3; the evidence is thin) | with a base that can copy, no gain that can be told on the town's own words, about five points of net win in another language (six seeds, above) |

# %% [markdown]
# # 08 · Your own Aligner
#
# The lessons run in a toy world. This notebook does the same with a real language model and real
# English, and with your own data if you have some.
#
# **At the end you have**
#
# - an Aligner: a small model that removes rudeness, padding and wrong facts from answers,
# - a measurement of how often it fixes a fault, and how often it leaves a good answer alone,
# - a folder with the trained adapter, ready to load, share or serve.
#
# You need lesson 02, or the idea that it explains: an **Aligner** reads a question and an answer
# and writes a corrected answer. On a laptop without a GPU this takes about a quarter of an hour.

# %% [markdown]
# ## Settings
#
# `PROFILE` chooses model and amount of training for your machine. Everything else may stay as it is.
# To use your own data, set `DATA` to a file with one JSON object per line:
# `{"question": ..., "answer": ..., "correction": ...}`.

# %% tags=["parameters"]
PROFILE = "laptop"  # or "colab" (one T4), "gpu" (24 GB and more)
SEED = 0
SCALE = 1.0  # less: fewer steps and test rows, for a quick look
MODEL = None  # a folder or a hub id; None: the profile's
DATA = None  # a file of rows; None: everyday English, which comes with the course
JUDGE = "edits"  # compare with the corrections of the test rows; None: no judge
MINUTES = 0  # time for training: steps are fitted to it; 0: all steps of the profile
LORA_RANK = None  # 0: all weights are trained; None: by the size of the model
WARMUP = 0  # so many of the steps come first, on copying answers (identity warm-up)
OUT = None  # where everything goes; None: runs/08

# %%
import shutil
from dataclasses import replace

from alignlib import Aligner, Metrics
from alignlib.cost import machine, peak_gb
from alignlib.data import identity_rows
from alignlib.edits import fixed_rate, fixed_rates
from alignlib.plots import bars, curves, new_figure, show_diffs, show_tokens, smooth
from alignlib.report import describe, value_of_answer
from alignlib.settings import with_steps, with_warmup
from alignlib.workbench import bench, load_rows, scaled_bench

here = scaled_bench(bench(PROFILE), SCALE)
model_name = MODEL or here.model
metrics = Metrics("08", PROFILE, SEED, OUT)
print(machine())

# %% [markdown]
# ## The data
#
# **Everyday** holds short answers of a real model to simple questions. Two thirds of them were then
# spoilt by a program: a rude phrase, padding, or a wrong fact was put in. The correction is the
# answer as it was. Phrases marked `rude_unheard` occur in the test rows alone.

# %%
rows = load_rows(DATA, here.tests, SEED)
print({split: len(some) for split, some in rows.items()})
examples = [row for row in rows["train"] if row.answer != row.correction][:5]
show_diffs([(row.question, row.answer, row.correction) for row in examples])

# %% [markdown]
# ## One row as the model sees it
#
# The model reads one long text: a template with the question and the answer, then the correction.
# The loss is computed on the marked tokens only. These are the correction and the end-of-text token.

# %%
untrained = Aligner.untrained(model_name, lora_rank=LORA_RANK, seed=SEED)
show_tokens(untrained.tokenizer, untrained.tokens(examples[0]))

# %% [markdown]
# ## How is it judged?
#
# A faulty answer counts as **fixed** if the fault is gone, at least 95 % of the right words stand in
# their order, and at most two words were added. A good answer counts as **kept** if it comes back
# word for word. The judge itself is tested first. It must accept the corrections in the data and
# refuse the faulty answers.

# %%
tests = rows["test"]
faulty = [row for row in tests if row.answer != row.correction]
some = faulty[:: max(1, len(faulty) // 60)][:60]


def fixed(outputs: list[str], rows: list) -> object:
    """The fraction of faulty answers that were fixed, all kinds together."""
    return fixed_rate(rows, outputs) if JUDGE else None


print("corrections accepted:   ", describe(fixed([row.correction for row in faulty], faulty)))
print("faulty answers accepted:", describe(fixed([row.answer for row in faulty], faulty)))

# %% [markdown]
# Two controls, on 60 faulty answers. *Copy* returns every answer as it is. *Untrained* is the model
# before training, asked with the same template.

# %%
questions, answers = [row.question for row in some], [row.answer for row in some]
before = untrained.correct(questions, answers, progress="untrained")
print("copy:     ", metrics.add("control/copy", fixed(answers, some)))
print("untrained:", metrics.add("control/untrained", fixed(before, some)))
show_diffs(list(zip(questions, answers, before))[:3])

# %% [markdown]
# ## What will it cost?
#
# We run a few batches forward and backward, without changing the model. From their speed follow the
# minutes that the training will take.

# %%
settings = replace(here.settings, seed=SEED, minutes=MINUTES)
cost = untrained.predict(rows["train"], settings)
settings = with_steps(replace(settings, minutes=0), cost.steps)
print("predicted:", cost)
del untrained  # frees its memory

# %% [markdown]
# ## Train
#
# Small models are trained whole. Larger ones get **LoRA**: their weights stay as they are, and small
# matrices beside them are trained. Learning rate and rank follow from the size of the model. A
# training that was stopped goes on from its last checkpoint when you run the cell again.

# %%
started = metrics.minutes()
main, warmup = with_warmup(settings, WARMUP) if WARMUP else (settings, None)
aligner = Aligner.train(
    model_name,
    rows["train"],
    identity_rows(rows["train"]) if warmup else (),
    settings=main,
    warmup=warmup,
    lora_rank=LORA_RANK,
    checkpoints=metrics.folder / "checkpoints",
)
losses = aligner.losses["correction"]
training_minutes = metrics.minutes() - started

figure, (axis,) = new_figure("The loss falls fast, then slowly", height=3)
curves(axis, {"loss": (range(1, len(losses) + 1), smooth(losses))}, "step", "nats per token")
metrics.save_figure(figure, "loss")
figure

# %% [markdown]
# ## Look
#
# Corrections of answers that the model has not seen. Red is taken out, blue is put in.

# %%
questions, answers = [row.question for row in tests], [row.answer for row in tests]
corrected = aligner.correct(questions, answers, progress="corrections")

picked = range(0, len(tests), max(1, len(tests) // 12))
show_diffs([(questions[i], answers[i], corrected[i]) for i in picked])

# %% [markdown]
# **Your turn.** Write a question and an answer of your own.

# %%
my_question = "What is the capital of Portugal? It is Lisbon."
my_answer = "Even my grandmother could tell you that the capital of Portugal is Lisbon, you potato."

my_correction = aligner.correct([my_question], [my_answer])[0]
show_diffs([(my_question, my_answer, my_correction)])

# %% [markdown]
# ## Measure
#
# All test answers, by kind of fault. Intervals are 95 % and count each phrase once, however often it
# occurs. Two more controls are recorded in [the data's card](../data/everyday/README.md): training on
# shuffled corrections, and a rule that deletes the phrases of the training rows.

# %%
by_kind = fixed_rates(tests, corrected) if JUDGE else {}
for kind, estimate in by_kind.items():
    name = "good_kept" if kind == "good" else f"fixed/{kind.replace(' ', '_and_')}"
    print(f"{kind:15}{metrics.add(name, estimate)}")

figure, (axis,) = new_figure("How many answers of each kind are put right", width=9, height=3.6)
bars(axis, {"Aligner": by_kind}, "fixed (good: kept), %")
metrics.save_figure(figure, "fixed")
figure

# %% [markdown]
# **Does the Aligner read the answer?** If it only wrote a good answer from the question, another
# row's answer would help as much. We compare how likely the right correction is: *swapped* is with
# another row's answer, *answer* with its own, both against an empty one.

# %%
value = value_of_answer(aligner, some)
print("its own answer helps by    ", metrics.add("value_of_answer", value["answer"]))
print("another row's answer helps by", metrics.add("value_of_swapped_answer", value["swapped"]))

# %% [markdown]
# ## Keep
#
# The folder holds the adapter, the tokenizer and the template: a few megabytes. Loaded again, it
# corrects just the same. `aligner.merge()` makes whole weights of base and adapter, for programs
# that read no adapters.

# %%
folder = metrics.folder / "aligner"
aligner.save_pretrained(folder)
again = Aligner.from_pretrained(folder)
few = questions[:8], answers[:8]
assert again.correct(*few) == aligner.correct(*few)
shutil.rmtree(metrics.folder / "checkpoints", ignore_errors=True)
print(f"{folder.name}: {sum(f.stat().st_size for f in folder.glob('*')) / 1e6:.0f} MB")

# %% [markdown]
# Use it on a whole file from the command line:
#
#     python -m alignlib correct answers.jsonl --aligner runs/08/aligner --out corrected.jsonl
#
# Or share it on the Hugging Face hub, after `hf auth login`. Anybody can then load it by its name:
# `Aligner.from_pretrained("my-name/my-aligner")`.

# %%
PUSH_TO = None  # such as "my-name/my-aligner"
if PUSH_TO:
    from huggingface_hub import HfApi

    HfApi().create_repo(PUSH_TO, exist_ok=True)
    HfApi().upload_folder(folder_path=folder, repo_id=PUSH_TO)

# %% [markdown]
# ## Predicted and measured

# %%
peak = peak_gb(aligner.model.device)
print(f"training: predicted {cost.minutes:.1f} min, {cost.gb:.1f} GB")
print(f"training: measured  {training_minutes:.1f} min; peak of the whole notebook {peak:.1f} GB")
metrics.note("predicted_minutes", cost.minutes, "minutes")
metrics.note("training_minutes", training_minutes, "minutes")
metrics.note("tokens_per_s", cost.tokens_per_second * cost.minutes / training_minutes, "tokens/s")
metrics.note("predicted_gb", cost.gb, "GB")
metrics.note("peak_gb", peak, "GB")
print("written to", metrics.write().name)

# %% [markdown]
# # 08 · Your own Aligner
#
# The lessons run in a toy world. This notebook does the same with a real language model and real
# English, and with your own data if you have some.
#
# **At the end you have**
#
# - an Aligner: a small model that takes insults and padding out of answers, and corrects a fact that
#   contradicts the question,
# - a measurement of how often it fixes a fault, and how often it leaves a good answer alone,
# - a folder with the trained model, ready to load, share or use on a file.
#
# You need lesson 02, or the idea that it explains: an **Aligner** reads a question and an answer
# and writes a corrected answer. On a laptop without a GPU this takes about a quarter of an hour.
#
# Before you start, run `make real` in the course's folder. It downloads the model SmolLM2-135M
# (93 MB) once. Without it, the notebook downloads the model from the Hugging Face hub.
#
# **Before you use one in earnest.** An Aligner changes some good answers too, so after a model that
# is nearly always right it does harm. What it knows about the world is not tested here: in these data
# nearly every question states the fact that it asks for. It corrects the kinds of fault that its
# training rows show, in answers of about their length and in their language. And an answer by
# somebody you do not trust may hold text that takes the Aligner over
# ([lesson 03](03_upstreams.ipynb)).

# %% [markdown]
# ## Settings
#
# `PROFILE` chooses model and amount of training for your machine. Everything else may stay as it is.
#
# **Your own data.** Set `DATA` to a file of rows with the fields `question`, `answer` and
# `correction`: JSON, JSON lines, CSV or Parquet, also zipped. A data set on the Hugging Face hub works
# too, such as `"owner/name:train"`. So do preference pairs in any of the usual forms. In a pair, the
# rejected text becomes the answer and the chosen text the correction.
#
# A tenth of the questions is held out to test on, and another tenth to choose settings on. Include
# good answers too, with the answer itself as the correction, or the Aligner learns to change
# everything. A quarter of the rows that come with the course are good. A few hundred rows are enough
# to try, but you need about a thousand to measure. Give each data set its own `OUT`.
#
# **Your own judge.** With `JUDGE = "edits"` a program compares each output with the correction in the
# test row. Set it to the folder or hub id of a reward model, or to `"NAME@http://host/v1"` for a model
# behind a server, and that model judges as well.

# %% tags=["parameters"]
PROFILE = "laptop"  # or "colab" (one T4), "gpu" (24 GB and more)
SEED = 0
SCALE = 1.0  # less: fewer steps and test rows, for a quick look
MODEL = None  # a folder or a hub id; None: the profile's
DATA = None  # rows of your own; None: everyday English, which comes with the course
JUDGE = "edits"  # or a reward model, or NAME@http://host/v1, as well; None: no judge
JUDGE_KEY = None  # the name of the environment variable that holds the key of the judge's server
MINUTES = 0  # time for training: steps are fitted to it; 0: all steps of the profile
LORA_RANK = None  # 0: all weights are trained; None: by the size of the model
WARMUP = 0  # so many of the steps come first, on copying answers (identity warm-up)
OUT = None  # where everything goes; None: runs/08

# %%
import shutil
from dataclasses import replace
from importlib.util import find_spec

from alignlib import Aligner, Metrics
from alignlib.cost import machine
from alignlib.data import identity_rows
from alignlib.edits import fixed_rates, overall_rates, verdict
from alignlib.hub import aligner_card, push_to_hub, save_with_card
from alignlib.microbatches import MicroBatches
from alignlib.opinions import agreement, opinion
from alignlib.plots import bars, curves, new_figure, show_diffs, show_tokens, smooth
from alignlib.report import value_of_answer
from alignlib.settings import with_warmup
from alignlib.workbench import bench, labelled_pairs, learned_judge, load_rows

here = bench(PROFILE, scale=SCALE, model=MODEL)
model_name = here.model
metrics = Metrics("08", PROFILE, SEED, OUT)
print(machine())

# %% [markdown]
# ## The data
#
# **Everyday** holds short answers of a real model to simple questions. A program then put faults into
# about three quarters of them: a rude phrase, padding, or a wrong fact. The correction is the
# original answer. A small model wrote it, so it may say other things that are wrong. Test rows of the
# kind `rude_unheard` have rude phrases that no training row has.
# [The card](../data/everyday/README.md) says how the data were made.
#
# Below, red is taken out of the answer and blue is put in.

# %%
rows = load_rows(DATA, here.tests, SEED)
print({split: len(some) for split, some in rows.items()})
examples = [row for row in rows["train"] if row.answer != row.correction][:5]
show_diffs([(row.question, row.answer, row.correction) for row in examples])

# %% [markdown]
# ## One row as the model sees it
#
# The model reads one long text: a template with the question and the answer, then the correction.
# The loss is computed on the tokens with a blue background only. These are the correction and the
# token that ends it.

# %%
untrained = Aligner.untrained(model_name, lora_rank=LORA_RANK, seed=SEED)
show_tokens(untrained.tokenizer, untrained.tokens(examples[0]))

# %% [markdown]
# ## How is it judged?
#
# The judge is a program that compares an output with the correction in the data. A faulty answer
# counts as **fixed** if three things hold:
#
# - no word is left that the correction removes, and none is missing that it adds,
# - at least 95 % of the correction's words stand in the output, in the same order,
# - at most two words of the output are not in the correction.
#
# A good answer counts as **kept** if it comes back word for word. We test the judge itself first: it
# must accept all corrections. And we look at two **controls**, which show what a method scores that
# does nothing. *Copy* returns every answer as it is. *Untrained* is the model before training, asked
# with the same template. With `JUDGE = None` nothing is judged.
#
# A **learned judge**, if you set one, may be wrong. So before anything else we measure how often it
# agrees that a correction in the data is better than the faulty answer.

# %%
judge = None if JUDGE in ("edits", None) else learned_judge(JUDGE, JUDGE_KEY)
labelled = labelled_pairs(rows["validation"])
if judge:
    print("the judge agrees with", metrics.add("judge/agreement", agreement(judge, labelled)))

tests = rows["test"]
some = tests[:: max(1, len(tests) // 60)]  # about 60 of them
untrained_texts = untrained.correct(
    [row.question for row in some], [row.answer for row in some], progress="untrained"
)


def fixed_and_kept(name: str, outputs: list[str]) -> object:
    """Print the fraction fixed of the faulty answers, and the fraction kept of the good ones."""
    rates = overall_rates(some, outputs) if JUDGE else {}
    fixed, kept = (rates.get(kind, "not judged") for kind in ("faulty", "good"))
    print(f"{name:16}fixed {fixed!s:24} good answers kept {kept}")
    return rates.get("faulty")


fixed_and_kept("the corrections", [row.correction for row in some])
metrics.add("control/copy", fixed_and_kept("copy", [row.answer for row in some]))
metrics.add("control/untrained", fixed_and_kept("untrained", untrained_texts))
show_diffs([(row.question, row.answer, text) for row, text in zip(some[:3], untrained_texts)])

# %% [markdown]
# ## What will it cost?
#
# We run a few batches forward and backward, without changing the model. Their speed gives an estimate
# of the training time.

# %%
settings = replace(here.settings, seed=SEED, minutes=MINUTES)
cost = untrained.predict(rows["train"], settings)
print(cost.table())
del untrained  # frees its memory

# %% [markdown]
# ## Train
#
# Models of more than 20 million parameters, such as SmolLM2-135M, are trained with **LoRA**: the
# pretrained weights are frozen, and small matrices added beside them are trained. These matrices are
# the *adapter*. Smaller models are fine-tuned in full. The learning rate follows from the size of the
# model. A training that was stopped goes on from its last checkpoint when you run the cell again.

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

figure, (axis,) = new_figure("The loss falls early, then stays low", height=3)
curves(axis, {"loss": (range(1, len(losses) + 1), smooth(losses))}, "step", "nats per token")
metrics.save_figure(figure, "loss")
figure

# %% [markdown]
# ## Look
#
# Corrections of answers that the model has not seen in training. The last column names the fault, and
# what the judge says of the correction. *Fixed* means that the fault which our program put in is
# gone. It does not mean that the answer is true.

# %%
questions, answers = [row.question for row in tests], [row.answer for row in tests]
corrected = aligner.correct(questions, answers, progress="corrections")

picked = range(0, len(tests), max(1, len(tests) // 12))
diffs = [(questions[i], answers[i], corrected[i]) for i in picked]
verdicts = [verdict(tests[i], corrected[i]) for i in picked] if JUDGE else []
show_diffs(diffs, verdicts, "fault")

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
# First, the rows on which we looked at the controls. An Aligner is worth having if it fixes far more
# answers than *copy*, which fixes none, and still keeps nearly all good ones. Then all test answers
# by kind of fault, with 95 % intervals that treat all rows with the same phrase as one observation.

# %%
fixed_and_kept("Aligner", corrected[:: max(1, len(tests) // 60)])
by_kind = fixed_rates(tests, corrected) if JUDGE else {}
for kind, estimate in by_kind.items():
    name = "good_kept" if kind == "good" else f"fixed/{kind.replace(' ', '_and_')}"
    print(f"{kind:15}{metrics.add(name, estimate)}")

figure, (axis,) = new_figure("How many answers of each kind are put right", width=9, height=3.6)
bars(axis, {"Aligner": by_kind}, "fixed (good: kept), %")
metrics.save_figure(figure, "answer")
figure

# %% [markdown]
# **The learned judge**, if you set one, compares each correction with its answer. A model that is
# shown both answers sees them in both orders, because many prefer whatever stands first. If the judge
# does no better than guessing, the verdict is `cannot tell`.

# %%
if judge:
    found = opinion(judge, questions, answers, corrected, labelled)
    metrics.add("judge/net_win", found.net_win)
    print(found)

# %% [markdown]
# **What is known**, from trainings with three seeds, each on its own draw of the data:
#
# <!-- known -->
#
# **Does the Aligner read the answer?** We measure the log-probability of the correction, in nats per
# token, given the row's own answer, another row's answer, or an empty answer. The first number below
# is *own minus empty*, the second is *other minus empty*. For a model that ignores the answer both
# are near 0. For a model that reads it the first is clearly positive, and the second is not.

# %%
value = value_of_answer(aligner, some)
print("its own answer helps by    ", metrics.add("value_of_answer", value["answer"]))
print("another row's answer helps by", metrics.add("value_of_swapped_answer", value["swapped"]))

# %% [markdown]
# ## Keep
#
# With LoRA the folder holds the adapter, the tokenizer and the template. The base model stays where it
# is, and is needed again. Loaded again, the Aligner corrects just the same. `aligner.merge()` merges
# the adapter into the base's weights, for programs that do not support adapters. `README.md` in the
# folder is a **model card**, written from the numbers that were measured above.

# %%
folder = metrics.folder / "aligner"
about_data = "Rows of my own." if DATA else "Everyday English, from the alignlib course."
card = aligner_card(aligner, "my-name/my-aligner", metrics.values, about_data)
save_with_card(aligner, folder, card)
again = Aligner.from_pretrained(folder)
few = questions[:8], answers[:8]
assert again.correct(*few) == aligner.correct(*few)
shutil.rmtree(metrics.folder / "checkpoints", ignore_errors=True)
print(f"{folder}: {sum(f.stat().st_size for f in folder.glob('*')) / 1e6:.0f} MB")

# %% [markdown]
# **Serve.** On the command line, an Aligner can stand in front of any server that speaks OpenAI's
# protocol, here Ollama. `FOLDER` is the folder that was just printed:
#
#     python -m alignlib serve --aligner FOLDER --upstream http://localhost:11434/v1 --model llama3.2
#
# Programs that ask `http://127.0.0.1:8080/v1` instead of Ollama then get corrected answers. The cell
# below starts the same service without an upstream, and sends it a question with its answer.

# %%
if find_spec("starlette") and find_spec("uvicorn"):
    from openai import DefaultHttpxClient, OpenAI

    from alignlib.serve import Service, running

    with running(Service(MicroBatches(aligner), "aligner")) as url:
        direct = DefaultHttpxClient(trust_env=False)  # a proxy cannot reach this machine
        client = OpenAI(base_url=url, api_key="none", http_client=direct)
        body = {"question": my_question, "answer": my_answer}
        print(client.post("/corrections", body=body, cast_to=object))
else:
    print("to serve an Aligner: pip install starlette uvicorn")

# %% [markdown]
# In another session load it with `Aligner.from_pretrained(FOLDER)`; `FOLDER` is relative to the
# folder of this notebook. Or use it on a whole file from the command
# line. Each line needs the fields `question` and `answer`, and gets a field `correction`:
#
#     python -m alignlib correct FILE.jsonl --aligner FOLDER --out corrected.jsonl
#
# Or share it on the Hugging Face hub, after `hf auth login`. A new repository is private until you
# change that there. Others who have `alignlib` load it by its name,
# `Aligner.from_pretrained("my-name/my-aligner")`; the base model is downloaded if needed.

# %%
PUSH_TO = None  # such as "my-name/my-aligner"
if PUSH_TO:
    print(push_to_hub(aligner, PUSH_TO, card.replace("my-name/my-aligner", PUSH_TO)))

# %% [markdown]
# ## Predicted and measured

# %%
metrics.add_cost(cost, training_minutes, aligner.model.device)
speed = cost.tokens_per_second * cost.minutes / training_minutes
metrics.note("tokens_per_s", speed, "tokens/s")
print("written to", metrics.write().name)

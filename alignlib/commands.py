"""Commands for a model of your own: `train`, `correct`, `build-rows`.

Nothing heavy is imported before the arguments are known to be right.
"""

from __future__ import annotations

import argparse
import shutil
import sys

from .data import QAC, Loaded, read_qac
from .place import DataError
from .records import data_path
from .workbench import BENCHES

LONGEST = 1024  # tokens of an answer or a correction in `build-rows`
LAPTOP = BENCHES["laptop"].settings


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add them to the command line's parser."""
    _add_train(commands.add_parser("train", help="train a model of your own on your own rows"))
    _add_correct(commands.add_parser("correct", help="correct answers in a file or a pipe"))
    about = "make rows for an Aligner from your own questions"
    _add_build_rows(commands.add_parser("build-rows", help=about))


def _add_train(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True)
    aligner = kinds.add_parser("aligner", help="an Aligner, from questions, answers, corrections")
    rows = "a file with question, answer, correction, or preference pairs; or owner/name:split"
    aligner.add_argument("--data", required=True, help=rows)
    aligner.add_argument("--out", type=data_path, required=True, help="folder for the Aligner")
    model = "folder or hub id (default: smollm2, the model of `make real`)"
    aligner.add_argument("--model", default="smollm2", help=model)
    aligner.add_argument("--steps", type=int, default=LAPTOP.steps)
    aligner.add_argument(
        "--minutes", type=float, default=0.0, help="fewer steps, to fit into these"
    )
    aligner.add_argument("--batch-size", type=int, default=LAPTOP.batch_size, help="rows a step")
    aligner.add_argument("--max-length", type=int, default=LAPTOP.max_length, help="in tokens")
    aligner.add_argument("--tokens", type=int, default=LAPTOP.tokens, help="of a micro-batch")
    aligner.add_argument("--learning-rate", type=float, help="default: by the size of the model")
    aligner.add_argument("--lora-rank", type=int, help="default: by the size; 0 trains all weights")
    aligner.add_argument(
        "--warmup", type=int, default=0, metavar="STEPS", help="of --steps: identity"
    )
    aligner.add_argument(
        "--template", help="town, T1, T2 or chat (default: by the size of the model)"
    )
    aligner.add_argument("--seed", type=int, default=0)
    aligner.add_argument("--checkpointing", action="store_true", help="less memory, more time")
    aligner.add_argument("--merge", action="store_true", help="whole weights, not an adapter")
    aligner.set_defaults(does=_train_aligner)


def _add_correct(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="JSON lines with question and answer, or - for a pipe")
    parser.add_argument("--aligner", type=data_path, required=True, help="its folder")
    parser.add_argument("--out", default="-", help="a file (default: standard output)")
    parser.add_argument("--base", help="the Aligner's base model, where that has moved")
    parser.set_defaults(does=_correct)


def _add_build_rows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("questions", help=".txt with one per line, or records with `question`")
    parser.add_argument("--out", type=data_path, required=True, help="file for the rows (.jsonl)")
    upstream = "who answers: a folder, a hub id, or NAME@http://host/v1 for a server"
    parser.add_argument("--upstream", required=True, help=upstream)
    annotator = "who corrects: NAME@http://host/v1, or `hand` for a file that you fill in"
    parser.add_argument("--annotator", required=True, help=annotator)
    instruction = "file with what the annotator is told; it holds {question} and {answer}"
    parser.add_argument("--instruction", type=data_path, help=instruction)
    for who, option in (("annotator", "--key-variable"), ("upstream", "--upstream-key-variable")):
        variable = f"name of the environment variable that holds the key for the {who}'s server"
        parser.add_argument(option, help=variable)
    refused = "send servers no temperature, for models that refuse one"
    parser.add_argument("--no-temperature", action="store_true", help=refused)
    parser.set_defaults(does=_build_rows)


def _train_aligner(args: argparse.Namespace) -> int:
    if (args.out / "aligner.json").exists():
        raise DataError(f"{args.out} holds an Aligner already; delete it, or take another folder")
    if data_path(args.model).resolve() == args.out.resolve():
        raise DataError(f"{args.out} holds the model to train; take another folder for --out")
    loaded = read_qac(args.data)
    print(f"{args.data}: {loaded}", flush=True)

    from .aligner import Aligner
    from .data import identity_rows
    from .prompts import template
    from .settings import SFTSettings, with_warmup

    names = ("steps", "batch_size", "tokens", "max_length", "learning_rate", "minutes")
    given = {name: getattr(args, name) for name in (*names, "seed", "checkpointing")}
    whole = SFTSettings(**given)
    settings, warmup = whole, None
    if args.warmup:  # steps and minutes are of both stages
        settings, warmup = with_warmup(whole, args.warmup)
    aligner = Aligner.train(
        args.model,
        loaded.rows,
        identity_rows(loaded.rows) if warmup else (),
        settings=settings,
        warmup=warmup,
        template=template(args.template) if args.template else None,
        lora_rank=args.lora_rank,
        checkpoints=args.out / "checkpoints",
    )
    if args.merge:
        aligner.merge()
    aligner.save_pretrained(args.out)
    shutil.rmtree(args.out / "checkpoints", ignore_errors=True)
    for reason, count in aligner.dropped.items():
        print(f"left out: {count} {reason}")
    _show_one(aligner, loaded)
    print(f"done: {args.out}; use it with `python -m alignlib correct FILE --aligner {args.out}`")
    return 0


def _show_one(aligner, loaded: Loaded) -> None:
    """One row and what the Aligner makes of it."""
    row: QAC = next((r for r in loaded.rows if r.answer != r.correction), loaded.rows[0])
    text = aligner.correct([row.question], [row.answer])[0]
    print(f"question    {row.question}\nanswer      {row.answer}\ncorrection  {text}")


def _correct(args: argparse.Namespace) -> int:
    if not (args.aligner / "aligner.json").is_file():
        raise DataError(f"{args.aligner}: no Aligner in this folder; `train aligner` makes one")

    from .stream import correct_stream

    outcomes = correct_stream(args.aligner, args.source, args.out, args.base)
    print(", ".join(f"{count} {what}" for what, count in outcomes.items()), file=sys.stderr)
    return 1 if outcomes["bad line"] else 0


def _build_rows(args: argparse.Namespace) -> int:
    from .annotation import INSTRUCTION, ByHand, ByModel, Unfinished, build_rows, read_questions

    questions = read_questions(args.questions)
    print(f"{args.questions}: {len(questions)} questions", flush=True)
    if args.annotator == "hand":
        annotator = ByHand(args.out.with_suffix(".hand.jsonl"))
    else:
        told = args.instruction.read_text(encoding="utf-8") if args.instruction else INSTRUCTION
        annotator = ByModel(_model(args.annotator, args.key_variable, args.no_temperature), told)
    about = f"Answers by {args.upstream}, corrections by {args.annotator}."
    try:
        upstream = _model(args.upstream, args.upstream_key_variable, args.no_temperature)
        outcomes = build_rows(questions, upstream, annotator, args.out, about=about)
    except Unfinished as waiting:
        print(waiting)
        return 0
    print(", ".join(f"{count} {what}" for what, count in outcomes.items()))
    print(f"done: {args.out} and {args.out.with_suffix('.md').name}")
    return 0


def _model(name: str, key_variable: str | None, no_temperature: bool):
    """A model on this machine, or NAME@URL behind a server."""
    from .remote import named_server
    from .upstream import Local

    options = {"key_variable": key_variable, "temperature": None if no_temperature else 0.0}
    server = named_server(name, **options, max_tokens=LONGEST, refused_as_empty=True)
    return server or Local(name, max_new_tokens=LONGEST, progress="answers")

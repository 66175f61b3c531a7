"""Commands for a model of your own: `train`, `correct`, `serve`, `build-rows`, `export`.

Nothing heavy is imported before the arguments are known to be right.
"""

from __future__ import annotations

import argparse
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .place import DataError
from .records import data_path
from .train_commands import add_train

if TYPE_CHECKING:
    from .annotation import Annotator
    from .microbatches import MicroBatches
    from .upstream import Upstream

LONGEST = 1024  # tokens of an answer or a correction in `build-rows`


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add them to the command line's parser."""
    add_train(commands.add_parser("train", help="train a model of your own on your own rows"))
    _add_correct(commands.add_parser("correct", help="correct answers in a file or a pipe"))
    _add_serve(commands.add_parser("serve", help="an Aligner behind OpenAI's protocol"))
    about = "make rows for an Aligner from your own questions"
    _add_build_rows(commands.add_parser("build-rows", help=about))
    about = "an Aligner's rows and settings for TRL, axolotl and LLaMA-Factory"
    _add_export(commands.add_parser("export", help=about))


def _add_correct(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="JSON lines with question and answer, or - for a pipe")
    parser.add_argument("--aligner", type=data_path, required=True, help="its folder")
    parser.add_argument("--out", default="-", help="a file (default: standard output)")
    parser.add_argument("--base", help="the Aligner's base model, where that has moved")
    parser.set_defaults(does=_correct)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--aligner", required=True, help="its folder, or a hub id")
    parser.add_argument("--base", help="the Aligner's base model, where that has moved")
    upstream = "the address of the server that answers, such as http://localhost:11434/v1"
    parser.add_argument("--upstream", help=f"{upstream}; without it, clients send the answer too")
    name = "the name of the upstream's model, by which clients ask for this one"
    parser.add_argument("--model", help=name)
    parser.add_argument("--host", default="127.0.0.1", help="default: this machine alone")
    parser.add_argument("--port", type=int, default=8080)
    for who, option in (
        ("clients must send", "--client-key-variable"),
        ("goes to the upstream", "--upstream-key-variable"),
    ):
        variable = f"name of the environment variable with the key that {who}"
        parser.add_argument(option, metavar="NAME", help=variable)
    timeout = "seconds that the upstream, and then the correction, may take (default: 120)"
    parser.add_argument("--timeout", type=float, default=120.0, help=timeout)
    places = "requests under way, at most; more are told to come again (default: 256)"
    parser.add_argument("--places", type=int, default=256, help=places)
    parser.set_defaults(does=_serve)


def _add_build_rows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("questions", help=".txt with one per line, or records with `question`")
    parser.add_argument("--out", type=data_path, required=True, help="file for the rows (.jsonl)")
    upstream = "who answers: a folder, a hub id, or NAME@http://host/v1 for a server"
    parser.add_argument("--upstream", help=upstream)
    annotator = "who corrects: NAME@http://host/v1, or `hand` for a file that you fill in"
    parser.add_argument("--annotator", help=annotator)
    instruction = "file with what the annotator is told; it holds {question} and {answer}"
    parser.add_argument("--instruction", type=data_path, help=instruction)
    for who, option in (("annotator", "--key-variable"), ("upstream", "--upstream-key-variable")):
        variable = f"name of the environment variable that holds the key for the {who}'s server"
        parser.add_argument(option, help=variable)
    refused = "send servers no temperature, for models that refuse one"
    parser.add_argument("--no-temperature", action="store_true", help=refused)
    shard = "part i of n (0/2 and 1/2), into a file of its own, so that machines share the work"
    parser.add_argument("--shard", metavar="i/n", help=shard)
    merge = "in place of --shard, when all shards are there: filter their rows together"
    parser.add_argument("--merge", action="store_true", help=merge)
    parser.set_defaults(does=_build_rows)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rows", help="a file with question, answer, correction")
    parser.add_argument("--model", required=True, help="what they will train: folder or hub id")
    parser.add_argument("--out", type=data_path, required=True, help="folder")
    parser.add_argument("--template", default="T2", help="T1 or T2 (default)")
    longest = "in tokens; longer rows are left out (default: 1024)"
    parser.add_argument("--max-length", type=int, default=1024, help=longest)
    parser.set_defaults(does=_export)


def _correct(args: argparse.Namespace) -> int:
    if not (args.aligner / "aligner.json").is_file():
        raise DataError(f"{args.aligner}: no Aligner in this folder; `train aligner` makes one")

    from .stream import correct_stream

    outcomes = correct_stream(args.aligner, args.source, args.out, args.base)
    print(", ".join(f"{count} {what}" for what, count in outcomes.items()), file=sys.stderr)
    return 1 if outcomes["bad line"] else 0


def _serve(args: argparse.Namespace) -> int:
    if bool(args.upstream) != bool(args.model):
        raise DataError("--upstream and --model go together: the server, and its model's name")
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise DataError("`serve` needs two packages more: pip install starlette uvicorn")

    from .remote import read_key

    variables = args.client_key_variable, args.upstream_key_variable
    keys = [read_key(variable) if variable else "" for variable in variables]

    from .relay import Asked
    from .serve import Service, base_url, is_local, listen, run_service

    upstream = Asked(args.upstream, keys[1], args.timeout) if args.upstream else None
    with listen(args.host, args.port) as listener:
        name, url = args.model or "aligner", base_url(listener)
        options = {"key": keys[0], "places": args.places, "timeout": args.timeout}
        service = Service(_batches(args), name, upstream, **options)
        print(f"{name} at {url} (Ctrl+C stops it)", flush=True)
        if not is_local(listener) and not keys[0]:
            print("other machines can use it too; give it a --client-key-variable", file=sys.stderr)
        run_service(service, listener)
    return 0


def _batches(args: argparse.Namespace) -> MicroBatches:
    """The Aligner, for many requests at once."""
    import torch

    from .aligner import Aligner
    from .microbatches import MicroBatches
    from .settings import SMALL

    aligner = Aligner.from_pretrained(args.aligner, args.base)
    if aligner.model.num_parameters() <= SMALL:
        torch.set_num_threads(1)  # the other cores are worth more to the requests
    return MicroBatches(aligner)


def _build_rows(args: argparse.Namespace) -> int:
    if args.merge and args.shard:
        raise DataError("--merge takes all shards; leave --shard out")
    if not args.merge and not (args.upstream and args.annotator):
        raise DataError("--upstream says who answers, and --annotator who corrects; give both")
    shard = shard_of(args.shard) if args.shard else None

    from .annotation import Unfinished, build_rows, read_questions
    from .row_shards import build_shard, merge_shards, shard_file

    questions = read_questions(args.questions)
    print(f"{args.questions}: {len(questions)} questions", flush=True)
    who = args.upstream and args.annotator
    about = f"Answers by {args.upstream}, corrections by {args.annotator}." if who else ""
    place = shard_file(args.out, shard) if shard else args.out
    try:
        if args.merge:
            outcomes = merge_shards(questions, args.out, about=about)
        elif shard:
            outcomes = {"rows": build_shard(questions, *_models(args, place), args.out, shard)}
        else:
            outcomes = build_rows(questions, *_models(args, place), place, about=about)
    except Unfinished as waiting:
        print(waiting)
        return 0
    print(", ".join(f"{count} {what}" for what, count in outcomes.items()))
    print(f"done: {place}" + ("" if shard else f" and {place.with_suffix('.md').name}"))
    return 0


def shard_of(text: str) -> tuple[int, int]:
    """i/n as two numbers. Raises ValueError."""
    index, _, count = text.partition("/")
    if index.isdecimal() and count.isdecimal() and int(index) < int(count):
        return int(index), int(count)
    raise ValueError(f"--shard {text!r}: write i/n with i from 0 to n - 1, such as 0/2 and 1/2")


def _models(args: argparse.Namespace, out: Path) -> tuple[Upstream, Annotator]:
    """Who answers, and who corrects. SIGTERM is then like Ctrl+C: answers under way are kept."""
    from .annotation import INSTRUCTION, ByHand, ByModel

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    upstream = _model(args.upstream, args.upstream_key_variable, args.no_temperature)
    if args.annotator == "hand":
        return upstream, ByHand(out.with_suffix(".hand.jsonl"))
    told = args.instruction.read_text(encoding="utf-8") if args.instruction else INSTRUCTION
    return upstream, ByModel(_model(args.annotator, args.key_variable, args.no_temperature), told)


def _export(args: argparse.Namespace) -> int:
    from .data import read_qac
    from .prompts import template

    form, loaded = template(args.template), read_qac(args.rows)
    print(f"{args.rows}: {loaded}", flush=True)

    from .export import export_rows
    from .model_names import expanded, resolved
    from .models import load_tokenizer

    tokenizer, model = load_tokenizer(args.model), resolved(expanded(args.model))
    lines, longer = export_rows(loaded.rows, model, tokenizer, args.out, form, args.max_length)
    if longer:
        print(f"left out: {longer} of more than {args.max_length} tokens")
    print(*lines, sep="\n")
    made_into = f"cp {args.out / 'aligner.json'} FOLDER"
    print(f"Each makes a folder; `{made_into}` makes an Aligner of it.")
    return 0


def _model(name: str, key_variable: str | None, no_temperature: bool):
    """A model on this machine, or NAME@URL behind a server."""
    from .remote import named_server
    from .upstream import Local

    options = {"key_variable": key_variable, "temperature": None if no_temperature else 0.0}
    server = named_server(name, **options, max_tokens=LONGEST, refused_as_empty=True)
    return server or Local(name, max_new_tokens=LONGEST, progress="answers")

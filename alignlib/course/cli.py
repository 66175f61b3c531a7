"""The commands behind `python -m alignlib`. A wrong argument is refused before torch is loaded."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

from ..commands import add_commands, shard_of


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m alignlib", description="The course's commands")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_notebooks(commands)
    add_commands(commands)
    _add_evidence(commands)
    return parser


def _add_notebooks(commands: argparse._SubParsersAction) -> None:
    """Running and building notebooks, and the model that those from 08 on start from."""
    run = commands.add_parser("run", help="run one lesson, or all")
    run.add_argument("lesson", help="a notebook's number, such as 02, or all (lessons)")
    profiles = "of notebooks from 08 on: laptop (default), colab or gpu"
    run.add_argument("--profile", help=profiles)
    run.add_argument("--seed", type=int, default=0)
    where = "where the executed notebook, metrics and figures go"
    run.add_argument("--out", type=Path, default=Path("runs"), help=where)
    parameter = {"nargs": 2, "action": "append", "default": [], "metavar": ("NAME", "VALUE")}
    run.add_argument("-p", **parameter, help="set a parameter of the lesson")
    solved = "the edition with the exercises solved"
    run.add_argument("--solved", action="store_true", help=solved)
    run.set_defaults(does=_run)

    build = commands.add_parser("build", help="execute lessons into the notebooks students open")
    build.add_argument("lessons", nargs="*", help="numbers, or evidence/NN; none means all")
    folder = "write lessons without outputs and solutions into this folder, and execute none"
    build.add_argument("--class", dest="class_folder", type=Path, metavar="FOLDER", help=folder)
    slides = "write slides of the lessons (Markdown and pictures) into this folder"
    build.add_argument("--slides", type=Path, metavar="FOLDER", help=slides)
    build.set_defaults(does=_build)

    real = commands.add_parser("real", help="fetch SmolLM2-135M, which then works offline (93 MB)")
    real.set_defaults(does=_real)


def _add_evidence(commands: argparse._SubParsersAction) -> None:
    """What was recorded and made beforehand, and making it again."""
    sweep = commands.add_parser("sweep", help="record an experiment; it goes on where it stopped")
    sweep.add_argument("name", help="which one; a wrong name lists them all")
    sweep.add_argument("--seeds", help="comma-separated (default: the experiment's, mostly 0,1,2)")
    shard = "part i of n (0/2 and 1/2), to a file of its own, so that processes share the work"
    sweep.add_argument("--shard", metavar="i/n", help=shard)
    merge = "put the files of all shards into the record"
    sweep.add_argument("--merge", action="store_true", help=merge)
    sweep.set_defaults(does=_sweep)

    pretrain = commands.add_parser("pretrain", help="rebuild Tinytown's base model (half an hour)")
    pretrain.add_argument("--out", type=Path, required=True)
    pretrain.set_defaults(does=_pretrain)

    upstreams = commands.add_parser("upstreams", help="make and ask lesson 03's upstream models")
    upstreams.add_argument("names", nargs="*", help="which; none means all")
    upstreams.set_defaults(does=_upstreams)

    everyday = commands.add_parser("everyday", help="have a model answer data/everyday's prompts")
    everyday.add_argument("--model", default="smollm2", help="folder or hub id")
    everyday.set_defaults(does=_everyday)

    about = "write the base model's card, the ledger, RESULTS.md and the README's drawing"
    card = commands.add_parser("card", help=about)
    card.set_defaults(does=_card)


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 only if all went to its end; what the user can fix is said in one line."""
    args = _parser().parse_args(arguments)
    try:
        return args.does(args)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"alignlib: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("alignlib: stopped; run the same command again to go on", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> int:
    from ..workbench import bench
    from .lessons import FIRST_BENCH, lesson_numbers, run, source_of

    numbers = lesson_numbers() if args.lesson == "all" else [args.lesson]
    first = source_of(numbers[0]).name[:2]
    if args.profile is not None:
        if first < FIRST_BENCH:
            what = f"--profile is for {FIRST_BENCH} and later"
            raise ValueError(f"lesson {first} runs in Tinytown; {what}")
        bench(args.profile)
    given = {name: _value(text) for name, text in args.p}
    edition = "solved" if args.solved else "student"
    for number in numbers:
        title = source_of(number).stem[3:].replace("_", " ")
        print(f"{number}: {title}", file=sys.stderr, flush=True)
        run(number, args.profile, args.seed, args.out, given, edition)
    print(f"done: executed notebooks, metrics.json and figures are in {args.out}/")
    return 0


def _value(text: str) -> object:
    """A parameter as Python would read it (3, 0.5, None, True), else the text itself.

    The name of a file or folder that is there stays a name, also if it looks like a number; and
    so do digits with a zero before them or with underscores between them.
    """
    if Path(text).exists() or re.match(r"0\d|\d+_", text):
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _build(args: argparse.Namespace) -> int:
    from .handouts import build_class, build_slides
    from .lessons import ROOT, build, lesson_numbers, notebook_numbers, report_names
    from .publish import REPOSITORY, is_placeholder, write_links

    for folder, make in ((args.class_folder, build_class), (args.slides, build_slides)):
        if folder is not None:
            print("\n".join(map(str, make(folder, args.lessons or lesson_numbers()))))
    if args.class_folder or args.slides:
        return 0
    if is_placeholder():
        where = "set REPOSITORY in alignlib/course/publish.py"
        print(f"alignlib: the address is still {REPOSITORY}; {where}", file=sys.stderr)
    for name in write_links(ROOT):
        print(name)
    for number in args.lessons or [*report_names(), *notebook_numbers()]:
        print(build(number).name)
    return 0


def _sweep(args: argparse.Namespace) -> int:
    names = _experiments().QUESTIONS
    if args.name not in names:
        raise ValueError(f"no sweep {args.name!r}; there are {', '.join(names)}")
    if args.merge and args.shard is not None:
        raise ValueError("--merge takes all shards; leave --shard out")
    shard = None if args.shard is None else shard_of(args.shard)
    seeds = None if args.seeds is None else _seeds(args.seeds)

    from .sweep import merge, run_sweep

    experiment = _experiments("registry").EXPERIMENTS[args.name]  # imports torch
    seeds = seeds or experiment.seeds
    if args.merge:
        print(f"done: {merge(args.name, experiment, seeds).name}")
    else:
        print(f"done: {run_sweep(args.name, experiment, seeds, shard).name}")
    return 0


def _seeds(text: str) -> list[int]:
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError:
        raise ValueError(f"--seeds {text!r}: write whole numbers, such as 0,1,2") from None


def _experiments(module: str = "") -> ModuleType:
    """The experiments or a module of them, which a checkout has and an installed package has not.

    Found by name, since nothing in the package may depend on them.
    """
    if importlib.util.find_spec("experiments") is None:
        what = "the experiments are not part of the installed package"
        raise ValueError(f"{what}; run this in a clone of the course's repository")
    return importlib.import_module(f"experiments.{module}" if module else "experiments")


def _pretrain(args: argparse.Namespace) -> int:
    from ..tinytown.pretrain import pretrain_base

    print(f"done: {pretrain_base(args.out)}")
    return 0


def _upstreams(args: argparse.Namespace) -> int:
    made = _experiments("make_upstreams")
    for name in args.names or made.UPSTREAMS:
        print(f"done: {made.record(name).name}")
    return 0


def _real(args: argparse.Namespace) -> int:
    from ..real_model import SMOLLM2, fetch_smollm2

    print(f"done: the model {SMOLLM2!r} is in {fetch_smollm2()}")
    return 0


def _everyday(args: argparse.Namespace) -> int:
    outcomes = _experiments("make_everyday").make(args.model)
    print("done: " + ", ".join(f"{n} {outcome}" for outcome, n in outcomes.items()))
    return 0


def _card(args: argparse.Namespace) -> int:
    from .lessons import write_picture

    made = _experiments("card").write_card, _experiments("ledger").write_ledger, write_picture
    for write in made:
        print(f"done: {write()}")
    return 0

"""The commands behind `python -m alignlib`: run and build lessons, record experiments, rebuild
the base model.
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m alignlib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser("run", help="run one lesson, or all")
    run.add_argument("lesson", help="a lesson's number, such as 02, or all")
    run.add_argument("--profile", default="tiny", help="tiny (default), colab or gpu")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument(
        "--out",
        type=Path,
        default=Path("runs"),
        help="where the executed notebook, metrics and figures go",
    )
    run.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter of the lesson",
    )

    run.add_argument(
        "--solutions", action="store_true", help="the edition with the exercises solved"
    )

    build = commands.add_parser(
        "build", help="execute lessons from their sources into the notebooks students open"
    )
    build.add_argument("lessons", nargs="*", help="numbers; none means all")

    sweep = commands.add_parser(
        "sweep", help="run a recorded experiment; it goes on where it was stopped"
    )
    sweep.add_argument("name", help="which one; a wrong name lists them all")
    sweep.add_argument("--seeds", help="comma-separated (default: the experiment's, mostly 0,1,2)")

    pretrain = commands.add_parser(
        "pretrain",
        help="rebuild Tinytown's base model from scratch (about half an hour on 2 cores)",
    )
    pretrain.add_argument("--out", type=Path, required=True)
    upstreams = commands.add_parser(
        "upstreams", help="make lesson 03's upstream models again and record their answers"
    )
    upstreams.add_argument("names", nargs="*", help="which; none means all")
    commands.add_parser(
        "card", help="write the base model's card from its log and the recorded gates"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 only if all went to its end; what the user can mend is told in one line."""
    args = _parser().parse_args(arguments)
    try:
        does = {
            "run": _run,
            "build": _build,
            "sweep": _sweep,
            "pretrain": _pretrain,
            "upstreams": _upstreams,
            "card": _card,
        }
        return does[args.command](args)
    except ValueError as error:
        print(f"alignlib: {error}", file=sys.stderr)
        return 1


def _run(args: argparse.Namespace) -> int:
    from ..profiles import profile
    from .lessons import run, run_all

    profile(args.profile)  # an unknown one is refused here, not five cells into a notebook
    parameters = {name: _value(text) for name, text in args.p}
    edition = "solutions" if args.solutions else "student"
    if args.lesson == "all":
        run_all(args.profile, args.seed, args.out, parameters, edition)
    else:
        run(args.lesson, args.profile, args.seed, args.out, parameters, edition)
    print(f"done: executed notebooks, metrics.json and figures are in {args.out}/")
    return 0


def _value(text: str) -> object:
    """A parameter as Python would read it (3, 0.5, None, True), else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _build(args: argparse.Namespace) -> int:
    from .lessons import build, lesson_numbers

    for number in args.lessons or lesson_numbers():
        print(build(number).name)
    return 0


def _sweep(args: argparse.Namespace) -> int:
    from .experiments import EXPERIMENTS
    from .sweep import sweep

    if args.name not in EXPERIMENTS:
        raise ValueError(f"no sweep {args.name!r}; there are {', '.join(EXPERIMENTS)}")
    experiment = EXPERIMENTS[args.name]
    seeds = [int(s) for s in args.seeds.split(",")] if args.seeds else experiment.seeds
    print(f"done: {sweep(args.name, experiment, seeds).name}")
    return 0


def _pretrain(args: argparse.Namespace) -> int:
    from .pretrain import pretrain

    print(f"done: {pretrain(args.out)}")
    return 0


def _upstreams(args: argparse.Namespace) -> int:
    from .upstreams import UPSTREAMS, record

    for name in args.names or UPSTREAMS:
        print(f"done: {record(name).name}")
    return 0


def _card(args: argparse.Namespace) -> int:
    from .card import write_card

    print(f"done: {write_card()}")
    return 0

"""`python -m alignlib train aligner|meet|hbat`: the Build notebooks' trainings, without notebooks.

Nothing heavy is imported before the arguments are known to be right.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import processes
from .data import QAC, Loaded, read_instructions, read_preferences, read_qac
from .place import DataError
from .prompts import ANSWER, AS_IS, IN_CHAT
from .records import data_path
from .rows import Instruction
from .settings import ControlSettings, PPOSettings, SFTSettings, with_steps, with_warmup
from .styles import read_styles
from .workbench import BENCHES, HBAT_BENCHES, MEET_BENCHES

if TYPE_CHECKING:
    from .stages import DPO, PPO

LAPTOP, MEET, HBAT = (some["laptop"] for some in (BENCHES, MEET_BENCHES, HBAT_BENCHES))
FORMS = {"plain": ANSWER, "chat": IN_CHAT, "as-is": AS_IS}
ROWS = "a file with question, answer, correction, or preference pairs; or owner/name:split"
TEXTS = (
    "a file with preference pairs, thumbs or ratings (controls: good, bad), or NAME=FILE for each "
    "control, with prompt and completion"
)


def add_train(parser: argparse.ArgumentParser) -> None:
    """Add the three methods to the command's parser."""
    kinds = parser.add_subparsers(dest="kind", required=True)
    about = "an Aligner, from questions, answers, corrections"
    _add_aligner(_with_common(kinds.add_parser("aligner", help=about), LAPTOP.settings))
    about = "controls for several styles, from texts of each"
    _add_meet(_with_common(kinds.add_parser("meet", help=about), MEET.settings))
    about = "one model on instructions and preferences, in alternating stages"
    _add_hbat(_with_common(kinds.add_parser("hbat", help=about), HBAT.teach))


def _with_common(parser: argparse.ArgumentParser, laptop: SFTSettings) -> argparse.ArgumentParser:
    """The options that all methods have."""
    parser.add_argument("--out", type=data_path, required=True, help="folder for the result")
    model = "folder or hub id (default: smollm2, the model of `make real`)"
    parser.add_argument("--model", default="smollm2", help=model)
    parser.add_argument("--steps", type=int, default=laptop.steps)
    parser.add_argument("--batch-size", type=int, default=laptop.batch_size, help="rows a step")
    parser.add_argument("--max-length", type=int, default=laptop.max_length, help="in tokens")
    parser.add_argument("--tokens", type=int, default=laptop.tokens, help="of a micro-batch")
    rate = "default: by the size of the model"
    parser.add_argument("--learning-rate", type=float, help=rate)
    rank = "default: by the size of the model, or 8 of meet and hbat; 0 trains all weights"
    parser.add_argument("--lora-rank", type=int, help=rank)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpointing", action="store_true", help="less memory, more time")
    eight_bit = "AdamW in 8 bits (needs bitsandbytes and a GPU)"
    parser.add_argument("--eight-bit", action="store_true", help=eight_bit)
    return parser


def _add_aligner(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, help=ROWS)
    parser.add_argument("--minutes", type=float, default=0.0, help="fewer steps, to fit into these")
    parser.add_argument(
        "--warmup", type=int, default=0, metavar="STEPS", help="of --steps: identity"
    )
    template = "town, T1, T2 or chat (default: by the size of the model)"
    parser.add_argument("--template", help=template)
    parser.add_argument("--merge", action="store_true", help="whole weights, not an adapter")
    parser.set_defaults(does=_train_aligner)


def _add_meet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, nargs="+", help=TEXTS)
    parser.add_argument("--minutes", type=float, default=0.0, help="fewer steps, to fit into these")
    parser.add_argument("--prompts", choices=FORMS, default="plain", help="their form")
    soft = "virtual tokens of soft prompts, in place of LoRA"
    parser.add_argument("--soft-prompt", type=int, metavar="TOKENS", help=soft)
    second = "steps of MEET's second step, which trains the model too"
    parser.add_argument("--step-2", type=int, default=0, metavar="STEPS", help=second)
    parser.set_defaults(does=_train_meet)


def _add_hbat(parser: argparse.ArgumentParser) -> None:
    both = "a file with prompt, completion (default: the pairs' chosen texts)"
    parser.add_argument("--instructions", help=both)
    pairs = "a file with prompt, chosen, rejected"
    parser.add_argument("--preferences", required=True, help=pairs)
    parser.add_argument("--prompts", choices=FORMS, default="plain", help="their form")
    methods = "two-stage: one round, no penalty; mixed: both losses at once"
    names = ("hbat", "two-stage", "mixed")
    parser.add_argument("--method", choices=names, default="hbat", help=methods)
    parser.add_argument("--rounds", type=int, default=HBAT.rounds)
    parser.add_argument("--strength", type=float, default=HBAT.strength, help="of the penalty")
    weight = "of the instructions' loss in the mixed loss"
    parser.add_argument("--weight", type=float, default=0.1, help=weight)
    parser.add_argument("--beta", type=float, default=HBAT.beta, help="of DPO")
    steps = HBAT.prefer.steps
    parser.add_argument("--preference-steps", type=int, default=steps, help="of DPO or PPO")
    pairs_a_step = "pairs a step"
    parser.add_argument("--pairs", type=int, default=HBAT.prefer.batch_size, help=pairs_a_step)
    reward = "a reward model: preferences are learned by PPO"
    parser.add_argument("--reward", help=reward)
    parser.set_defaults(does=_train_hbat)


def _settings(args: argparse.Namespace) -> SFTSettings:
    names = ("steps", "batch_size", "tokens", "max_length", "learning_rate", "seed")
    given = {name: getattr(args, name) for name in (*names, "checkpointing", "eight_bit")}
    return SFTSettings(**given, minutes=getattr(args, "minutes", 0.0))


def _check_out(args: argparse.Namespace, file: str, what: str) -> None:
    """Refuse a folder that holds a result already, or the model to train."""
    if (args.out / file).exists():
        raise DataError(f"{args.out} holds {what} already; delete it, or take another folder")
    if data_path(args.model).resolve() == args.out.resolve():
        raise DataError(f"{args.out} holds the model to train; take another folder for --out")


def _join(rows_a_step: int) -> None:
    """Connect with the other processes, of which the first alone prints, and say who does what."""
    processes.join()
    if (n := processes.count()) > 1:
        if not processes.is_first():
            sys.stdout = open(os.devnull, "w")
        share = len(processes.mine(range(rows_a_step)))
        print(f"{n} processes: {rows_a_step} rows a step, {share} of them on the first", flush=True)


def _train_aligner(args: argparse.Namespace) -> int:
    _check_out(args, "aligner.json", "an Aligner")
    _join(args.batch_size)
    loaded = read_qac(args.data)
    print(f"{args.data}: {loaded}", flush=True)

    from .aligner import Aligner
    from .data import identity_rows
    from .prompts import template

    settings, warmup = _settings(args), None
    if args.warmup:  # steps and minutes are of both stages
        settings, warmup = with_warmup(settings, args.warmup)
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
    _save(aligner.save_pretrained, args.out)
    for reason, count in aligner.dropped.items():
        print(f"left out: {count} {reason}")
    _show_one(aligner, loaded)
    print(f"done: {args.out}; use it with `python -m alignlib correct FILE --aligner {args.out}`")
    return 0


def _save(save: Callable[[Path], object], out: Path) -> None:
    """Write the result, and then delete what a stopped training would have gone on from."""
    processes.wait()
    if processes.is_first():
        save(out)
        for name in ("checkpoints", "stages"):
            shutil.rmtree(out / name, ignore_errors=True)


def _show_one(aligner, loaded: Loaded) -> None:
    """One row and what the Aligner makes of it."""
    row: QAC = next((r for r in loaded.rows if r.answer != r.correction), loaded.rows[0])
    text = aligner.correct([row.question], [row.answer])[0]
    print(f"question    {row.question}\nanswer      {row.answer}\ncorrection  {text}")


def _train_meet(args: argparse.Namespace) -> int:
    _check_out(args, "meet.json", "controls")
    _join(args.batch_size)
    texts, about = read_styles(_files(args.data))
    print("\n".join(about), flush=True)

    from .meet import Meet

    settings = _settings(args)
    rank = MEET.control.size if args.lora_rank is None else args.lora_rank
    size = args.soft_prompt or rank
    control = ControlSettings("prompt" if args.soft_prompt else "lora", size, seed=args.seed)
    form = FORMS[args.prompts]
    untrained = Meet.untrained(args.model, list(texts), control, form=form)
    print(untrained.predict(texts, settings).table(), flush=True)
    del untrained  # frees its memory
    meet = Meet.train(
        args.model,
        texts,
        control=control,
        first=settings,
        then=replace(with_steps(settings, args.step_2), learning_rate=None),
        form=form,
        checkpoints=args.out / "checkpoints",
    )
    _save(meet.save_pretrained, args.out)
    for reason, count in meet.dropped.items():
        print(f"left out: {count} {reason}")
    prompt = next(iter(texts.values()))[0].prompt
    print(f"prompt      {prompt}")
    for name in texts:
        print(f"{name:12}{meet.generate([prompt], name)[0]}")
    print(f"done: {args.out}; use it with `Meet.from_pretrained({str(args.out)!r})`")
    return 0


def _files(data: list[str]) -> str | dict[str, str]:
    """One file, or the file of each control. Raises DataError for a mixture of both."""
    named = [re.fullmatch(r"([\w+-]+)=(.+)", one) for one in data]
    if all(named):
        names = [match[1] for match in named]
        if twice := [name for name in names if names.count(name) > 1]:
            raise DataError(f"two files for the control {twice[0]!r}; put them into one")
        return {match[1]: match[2] for match in named}
    if len(data) > 1:
        without = next(one for one, match in zip(data, named, strict=True) if not match)
        raise DataError(f"{without}: several files need the names of their controls: NAME=FILE")
    return data[0]


def _train_hbat(args: argparse.Namespace) -> int:
    _check_out(args, "tokenizer_config.json", "a model")
    if args.reward:
        processes.refuse("PPO")
    _join(args.batch_size)
    pairs = read_preferences(args.preferences)
    print(f"{args.preferences}: {pairs}")
    rows = [Instruction(pair.prompt, pair.chosen) for pair in pairs.rows]
    if args.instructions:
        loaded = read_instructions(args.instructions)
        print(f"{args.instructions}: {loaded}", flush=True)
        rows = loaded.rows

    from .hbat import predict_hbat, train_hbat
    from .mixed import train_mixed
    from .model_files import name_base
    from .model_names import resolved
    from .models import save_model

    rank = HBAT.lora_rank if args.lora_rank is None else args.lora_rank
    given = (args.model, rows, pairs.rows, _settings(args), _method(args))
    options = {"lora_rank": rank, "form": FORMS[args.prompts]}
    in_stages = {"rounds": 1, "strength": 0.0}
    if args.method == "hbat":
        in_stages = {"rounds": args.rounds, "strength": args.strength}
    print(predict_hbat(*given, **in_stages, **options).table(), flush=True)
    if args.method == "mixed":
        model, tokenizer = train_mixed(*given, weight=args.weight, **options)

        def save(out: Path) -> None:
            save_model(out, model, tokenizer)
            name_base(out, resolved(args.model))  # of an adapter

        _save(save, args.out)
    else:
        where = {"seed": args.seed, "folder": args.out / "stages"}
        stages = train_hbat(*given, **in_stages, **options, **where)
        _save(stages[-1].save, args.out)
    print(f"done: {args.out}; use it with `alignlib.load_model({str(args.out)!r})`")
    return 0


def _method(args: argparse.Namespace) -> DPO | PPO:
    """How preferences are learned."""
    from .hbat import DPO, PPO
    from .workbench import score_by

    steps = args.preference_steps
    if args.reward:
        sampled = PPOSettings(steps, batch_size=args.pairs, minibatch=args.pairs, seed=args.seed)
        return PPO(sampled, *score_by(args.reward))
    return DPO(replace(with_steps(_settings(args), steps), batch_size=args.pairs), args.beta)

"""Rows for an Aligner by a Ray cluster, against a server such as vLLM.

    vllm serve Qwen/Qwen3-8B                          # on a machine with a GPU
    pip install "ray[data]"
    python scale/rows_ray.py questions.txt rows.jsonl Qwen/Qwen3-8B@http://gpu-node:8000/v1

Ray Data hands out the shards, so that a machine that is done takes the next, and a shard whose
machine is lost starts again on another. The files lie in a folder that all machines see, replies
that were paid for too. It is the same work as `python -m alignlib build-rows --shard i/n`, and as
safe to run again.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import ray

from alignlib.annotation import ByModel, read_questions
from alignlib.remote import Server, named_server
from alignlib.row_shards import build_shard, merge_shards

LONGEST = 1024  # tokens of an answer or a correction


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("questions", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("upstream", help="NAME@http://host/v1")
    parser.add_argument("--annotator", help="default: the upstream")
    keys = "name of the environment variable that holds the servers' key, on all machines"
    parser.add_argument("--key-variable", help=keys)
    parser.add_argument("--shards", type=int, default=8)
    args = parser.parse_args()
    questions = read_questions(args.questions)
    out, annotator = args.out.resolve(), args.annotator or args.upstream
    shards = min(args.shards, len(questions))

    def build(shard: dict) -> dict:
        os.environ["ALIGNLIB_CACHE"] = str(out.with_name(f"{out.stem}.calls-{shard['id']}"))
        answers, corrects = (server(name, args.key_variable) for name in (args.upstream, annotator))
        place = (shard["id"], shards)
        return shard | {"rows": build_shard(questions, answers, ByModel(corrects), out, place)}

    built = ray.data.range(shards, override_num_blocks=shards).map(build)
    print(f"{sum(done['rows'] for done in built.take_all())} rows in {shards} shards")
    about = f"Answers by {args.upstream}, corrections by {annotator}."
    print(dict(merge_shards(questions, out, about=about)))


def server(name: str, key_variable: str | None) -> Server:
    """The model behind NAME@URL."""
    options = {"max_tokens": LONGEST, "refused_as_empty": True, "progress": False}
    found = named_server(name, key_variable=key_variable, **options)
    if found is None:
        raise SystemExit(f"{name}: write a server as NAME@http://host/v1")
    return found


if __name__ == "__main__":
    main()

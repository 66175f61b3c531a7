"""What a record was made with: the world, the settings, the code, the machine, the libraries."""

from __future__ import annotations

import ast
import inspect
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from ..artefacts import LIBRARIES
from ..profiles import TINY
from ..settings import SFTSettings
from ..tinytown import sets
from ..tinytown.judge import score_answer
from ..tinytown.words import WORLD_VERSION, digest

PLAIN = (bool, int, float, str, type(None))


def made_with() -> dict[str, object]:
    """What every record must agree on: the world's version, the judge, the base's weights, the
    settings of lesson 02.
    """
    from ..model_names import fingerprint  # imports torch

    stages = [_chosen(TINY.warmup), _chosen(TINY.training)]
    settings = [TINY.corrections, TINY.identity, TINY.tests, *stages, sets.LEVEL, sets.FAULT_RATE]
    return {
        "world": WORLD_VERSION,
        "judge": _marks(),
        "base": fingerprint(TINY.base)[:16],
        "settings": digest(repr(settings)),
    }


@lru_cache(maxsize=1)
def _marks() -> int:
    """A digest of the judge: its marks on spoilt answers, as they are and with more said."""
    rows = sets.corrections(200, "validation", "all", rate=0.6, combinations=True)
    return digest(
        repr(
            [
                score_answer(r.question, f"{r.answer} {more}")
                for r in rows
                for more in ("", r.correction, r.answer, "lamp the")
            ]
        )
    )


def _chosen(settings: SFTSettings) -> dict[str, object]:
    """The settings that differ from their defaults: a field added later, at its default, leaves
    records valid.
    """
    return {
        f.name: value for f in fields(settings) if (value := getattr(settings, f.name)) != f.default
    }


def machine() -> dict[str, object]:
    """The machine, and the versions of Python and of the libraries."""
    name = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    versions = {lib: version(lib) for lib in LIBRARIES}
    return {"machine": name, "libraries": {"python": platform.python_version(), **versions}}


def of_experiment(run: Callable) -> dict[str, object]:
    """The version of the code that an experiment runs, and the constants of its own modules.

    Its code is the module of `run`, and all modules of ours that it imports from there on.
    """
    sources = _sources(run.__module__)
    syntax = [ast.dump(_without_docstrings(tree)) for _, tree in sorted(sources.items())]
    constants: dict[str, object] = {"profile": repr(replace(TINY, base="data/base"))}
    package = run.__module__.partition(".")[0]
    for name in sorted(sources):
        if name.partition(".")[0] == package:
            short = name.rpartition(".")[2]
            values = _constants(sys.modules[name], sources[name])
            constants |= {f"{short}.{constant}": value for constant, value in values}
    return {"code": digest(repr(syntax)), "constants": constants}


def _sources(first: str) -> dict[str, ast.Module]:
    """The syntax of a module and of those it imports of its package and of alignlib, by name."""
    packages = (first.partition(".")[0], "alignlib")
    found: dict[str, ast.Module] = {}
    todo = [first]
    while todo:
        name = todo.pop()
        if name in found or name.partition(".")[0] not in packages or _is_outside(name):
            continue
        found[name] = ast.parse(source_of(sys.modules[name]))
        todo += [module for node in ast.walk(found[name]) for module in _imported(node, name)]
    return found


def source_of(module: ModuleType) -> str:
    return Path(module.__file__).read_text(encoding="utf-8")


def _is_outside(name: str) -> bool:
    """Modules that decide on no number: the course's, and what is no module but a name in one."""
    return name.startswith("alignlib.course") or not inspect.ismodule(sys.modules.get(name))


def _imported(node: ast.AST, importer: str) -> list[str]:
    if not isinstance(node, ast.ImportFrom):
        return []
    parent = importer.rsplit(".", node.level)[0] if node.level else ""
    module = ".".join(filter(None, [parent, node.module]))
    return [module, *(f"{module}.{alias.name}" for alias in node.names)]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node):
            node.body = node.body[1:]
    return tree


def _constants(module: ModuleType, tree: ast.Module) -> Iterator[tuple[str, object]]:
    """The module's own numbers, texts and settings in capitals, as text where JSON has no type."""
    for node in tree.body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)):
            continue
        assigned = node.targets if isinstance(node, ast.Assign) else [node.target]
        parts = [part for target in assigned for part in ast.walk(target)]
        names = [part.id for part in parts if isinstance(part, ast.Name)]
        for name in filter(str.isupper, names):
            value = getattr(module, name)
            text = repr(value)
            if " at 0x" not in text:  # functions have no value to show
                yield name, value if isinstance(value, PLAIN) else text

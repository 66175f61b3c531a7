"""Running the Build notebooks and the commands that do the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat

from alignlib.course import lessons
from alignlib.course.lessons import ROOT

from .forked import ForkedKernelManager


def run_notebook(number: str, out: Path, **parameters: object) -> dict:
    """The metrics of a Build notebook, executed."""
    engine = {"kernel_manager_class": ForkedKernelManager, "progress_bar": False}
    executed = nbformat.read(lessons.run(number, None, 0, out, parameters, **engine), 4)
    code = [c for c in executed.cells if c.cell_type == "code" and c.source.strip()]
    assert all(c.execution_count for c in code)
    report = json.loads((out / number / "metrics.json").read_text())
    assert report["profile"] == "laptop"
    return {name: metric["value"] for name, metric in report["metrics"].items()}


def alignlib(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "alignlib", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)

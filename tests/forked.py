"""Jupyter kernels that start in an instant: forked from a process that has done the imports.

A kernel of its own imports torch, transformers and TRL anew, some ten seconds each time. Only the
imports are shared: nothing has been computed or drawn in the process that is forked.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess

from jupyter_client.manager import AsyncKernelManager

PRELOADED = ("torch", "trl", "peft", "matplotlib.pyplot", "ipykernel.kernelapp")
PRELOADED += ("alignlib.tinytown.task",)


class ForkedKernelManager(AsyncKernelManager):
    """Starts a kernel by a fork. papermill takes it as `kernel_manager_class`."""

    async def _async_launch_kernel(self, kernel_cmd: list[str], **given: object) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOADED))
        arguments = kernel_cmd[kernel_cmd.index("ipykernel_launcher") + 1 :]
        folder, environment = given.get("cwd"), dict(given.get("env") or os.environ)
        kernel = context.Process(target=_serve, args=(arguments, folder, environment), daemon=True)
        kernel.start()
        self.provisioner.process = _Popen(kernel)
        self.provisioner.pid = kernel.pid
        self._reconcile_connection_info(self.provisioner.connection_info)


def _serve(arguments: list[str], folder: str | None, environment: dict[str, str]) -> None:
    """In the child: be the kernel of a notebook until it is shut down."""
    from ipykernel.kernelapp import IPKernelApp

    os.environ.clear()
    os.environ.update(environment)
    if folder:
        os.chdir(folder)
    sys.__stdout__ = open(os.devnull, "w")  # where it prints how to connect to it
    kernel = IPKernelApp.instance()
    kernel.initialize(arguments)
    kernel.start()


class _Popen:
    """A forked process with the few methods of `subprocess.Popen` that Jupyter asks for."""

    stdin = stdout = stderr = None

    def __init__(self, process: BaseProcess) -> None:
        self.process, self.pid = process, process.pid

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> int | None:
        self.process.join()
        return self.process.exitcode

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def terminate(self) -> None:
        self.process.terminate()

    def kill(self) -> None:
        self.process.kill()

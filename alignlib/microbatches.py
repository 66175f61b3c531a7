"""Corrections for many requests at once: what waits is corrected in one batch, on one thread."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

BATCH = 64  # answers corrected at once


class Corrector(Protocol):
    """An `Aligner`, or what stands in for one."""

    def corrections(self, questions: Sequence[str], answers: Sequence[str]) -> list: ...


@dataclass
class _Job:
    question: str
    answer: str
    result: asyncio.Future


class MicroBatches:
    """Corrects answers of many requests. While one batch is being corrected, the next one gathers.

    A request that is cancelled leaves its place in the queue. If a batch fails, its answers are
    corrected one by one, so that only the one that is to blame has no correction.
    """

    def __init__(self, corrector: Corrector, batch_size: int = BATCH) -> None:
        self._corrector = corrector
        self._batch_size = batch_size
        self._waiting: deque[_Job] = deque()
        self._arrived: asyncio.Event | None = None  # while it runs

    async def correct(self, question: str, answer: str):
        """The `Correction` of an answer. Raises what the correction of this answer raised."""
        job = _Job(question, answer, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        if self._arrived:
            self._arrived.set()
        return await job.result

    async def run(self) -> None:
        """Correct what arrives, until cancelled."""
        self._arrived = asyncio.Event()  # of this event loop
        self._waiting.clear()
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while batch := self._next():
                await self._correct_all(batch)

    def _next(self) -> list[_Job]:
        batch: list[_Job] = []
        while self._waiting and len(batch) < self._batch_size:
            job = self._waiting.popleft()
            if not job.result.done():  # or its client has hung up
                batch.append(job)
        return batch

    async def _correct_all(self, batch: list[_Job]) -> None:
        questions, answers = [job.question for job in batch], [job.answer for job in batch]
        try:
            found = await asyncio.to_thread(self._corrector.corrections, questions, answers)
            pairs = list(zip(batch, found, strict=True))
        except Exception as error:
            if len(batch) > 1:
                for job in batch:
                    if not job.result.done():
                        await self._correct_all([job])
            elif not batch[0].result.done():
                batch[0].result.set_exception(error)
            return
        for job, correction in pairs:
            if not job.result.done():
                job.result.set_result(correction)

"""Many turns on a few threads, a step at a time.

A turn is an iterator of steps of bounded work (`memory/turn.py`). Of those that are open the one
that has had least time goes next, so that a short reply need not wait for a long one. A newcomer
starts with what each of them would have had in equal shares, and at first goes before them: many
long ones together do not hold up a short one, and a stream of short ones does not stop a long one.
Background work, for which no client waits, runs only while nothing else can. The last step of a
turn, which waits for the disk, is taken by other threads.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from slowwave.memory.turn import Event, Progress, Steps

Result = TypeVar("Result")

DISK_THREADS = 16
VIEW_THREADS = 4
HEAD_START = 0.05
"""Seconds of work in which a newcomer goes first."""


class Ended(Exception):
    """A turn was ended before its last step; what was said until then is kept."""


class Job:
    """A turn that the engine works on. result: what its steps return, or raise, or Ended."""

    def __init__(
        self,
        steps: Steps[Any],
        on_event: Callable[[Event], object] | None,
        is_background: bool,
    ) -> None:
        self.result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.is_background = is_background
        self.is_stopped = False
        self.steps, self.on_event = steps, on_event
        self.start = self.spent = 0.0

    @property
    def rank(self) -> float:
        """The job of lowest rank is next."""
        is_new = self.spent - self.start < HEAD_START
        return self.spent - HEAD_START if is_new else self.spent

    async def wait(self) -> Any:
        """The result; the job goes on if the task that waits is cancelled."""
        return await asyncio.shield(self.result)


class Engine:
    """workers: threads that run the model. Make it, and call it, in a running event loop."""

    def __init__(self, workers: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._disk = ThreadPoolExecutor(DISK_THREADS, "disk", initializer=_use_one_core)
        self._view = ThreadPoolExecutor(VIEW_THREADS, "view", initializer=_use_one_core)
        self._parser = ThreadPoolExecutor(1, "parser")
        self._ready = threading.Condition()
        self._foreground: list[tuple[float, int, Job]] = []
        self._background: list[tuple[float, int, Job]] = []
        self._numbers = itertools.count()
        self._level = 0.0
        self._num_taken = 0
        """Foreground jobs that a thread works on."""
        self.is_stopping = self._is_closed = False
        self._jobs: set[Job] = set()
        self._threads = [
            threading.Thread(target=self._work, name=f"model-{i}", daemon=True)
            for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def start(
        self,
        steps: Steps[Any],
        on_event: Callable[[Event], object] | None = None,
        *,
        is_background: bool = False,
    ) -> Job:
        """Works on a turn from now on. on_event is called in the event loop.

        is_background: only while no other turn can go on.
        """
        job = Job(steps, on_event, is_background)
        self._jobs.add(job)
        job.result.add_done_callback(lambda _: self._jobs.discard(job))
        with self._ready:
            job.spent = job.start = self._level
            self._push(job)
        return job

    def stop(self, job: Job) -> None:
        """Ends a turn before its next step, unless that is the last."""
        with self._ready:
            job.is_stopped = True
            for queue in (self._foreground, self._background):
                waiting = [item for item in queue if item[2] is not job]
                if len(waiting) < len(queue):
                    queue[:] = waiting
                    heapq.heapify(queue)
                    self._disk.submit(self._abandon, job)

    async def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Calls what waits for a disk in another thread."""
        return await self._loop.run_in_executor(self._disk, function, *arguments)

    async def look(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """As `call`, of what no turn waits for and may take long."""
        return await self._loop.run_in_executor(self._view, function, *arguments)

    async def compute(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Calls what needs the interpreter for milliseconds, one such call after the other."""
        return await self._loop.run_in_executor(self._parser, function, *arguments)

    def stop_all(self) -> None:
        """Stops every turn; `is_stopping` tells those who would start more."""
        self.is_stopping = True
        for job in self._jobs:
            self.stop(job)

    async def close(self) -> None:
        """Ends the threads, once all turns have ended."""
        while self._jobs:
            await asyncio.wait([job.result for job in self._jobs])
            await asyncio.sleep(0)  # until their callbacks have taken them out
        with self._ready:
            self._is_closed = True
            self._ready.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        for threads in (self._disk, self._view, self._parser):
            threads.shutdown()

    def _push(self, job: Job) -> None:
        queue = self._background if job.is_background else self._foreground
        heapq.heappush(queue, (job.rank, next(self._numbers), job))
        self._ready.notify()

    def _pop(self) -> Job | None:
        """The job whose turn it is, when there is one; None once the engine is closed."""
        with self._ready:
            while not self._is_closed:
                if queue := self._foreground or self._background:
                    rank, _, job = heapq.heappop(queue)
                    if not job.is_background:
                        self._level = max(self._level, rank)
                        self._num_taken += 1
                    return job
                self._ready.wait()
        return None

    def _work(self) -> None:
        _use_one_core()
        while job := self._pop():
            began = time.perf_counter()
            try:
                event = next(job.steps)
            except BaseException as error:
                self._charge(job, time.perf_counter() - began)
                self._settle(job, error)
                continue
            self._charge(job, time.perf_counter() - began)
            self._tell(job, event)
            if isinstance(event, Progress) and event.next == "record":
                self._disk.submit(self._record, job)
                continue
            with self._ready:
                if job.is_stopped:
                    self._disk.submit(self._abandon, job)
                else:
                    self._push(job)

    def _charge(self, job: Job, seconds: float) -> None:
        """Counts the time of a step: a share of it for each job that waits or is worked on."""
        with self._ready:
            job.spent += seconds
            if not job.is_background:
                self._level += seconds / (len(self._foreground) + self._num_taken)
                self._num_taken -= 1

    def _record(self, job: Job) -> None:
        try:
            next(job.steps)
        except BaseException as error:
            self._settle(job, error)
            return
        raise AssertionError("a turn went on after its last step")

    def _abandon(self, job: Job) -> None:
        try:
            job.steps.close()
        except BaseException as error:
            self._settle(job, error)
        else:
            self._settle(job, Ended())

    def _tell(self, job: Job, event: Event) -> None:
        if job.on_event is not None:
            self._loop.call_soon_threadsafe(job.on_event, event)

    def _settle(self, job: Job, end: BaseException) -> None:
        if isinstance(end, StopIteration):
            self._loop.call_soon_threadsafe(job.result.set_result, end.value)
        else:
            self._loop.call_soon_threadsafe(job.result.set_exception, end)


def _use_one_core() -> None:
    """Torch would start threads of its own in every thread that calls it."""
    torch.set_num_threads(1)

"""A turn that a client requested: prompt in, reply out, and what both have cost."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import Literal

from slowwave.memory.ledger import Entry
from slowwave.memory.session import Session
from slowwave.memory.sleep_report import SleepReport
from slowwave.memory.turn import Event, Progress, Status, Steps
from slowwave.serving.engine import Ended, Job
from slowwave.serving.errors import FAULTS, ApiError, explain, shutting_down, too_late
from slowwave.serving.plan import Plan, TurnRequest, enter, make_plan, take_steps
from slowwave.serving.server import Server

LOG = logging.getLogger("slowwave.serving")


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """What a turn has come to."""

    finish: Literal["stop", "length"] | None = None
    """Why the reply ended; None while it has not."""
    num_told: int = 0
    """Tokens that were read."""
    num_remembered: int = 0
    """Tokens that the memory knew already."""
    num_drawn: int = 0
    """Tokens of the reply."""
    sleeps: list[SleepReport] = dataclasses.field(default_factory=list)
    status: Status | None = None
    """Where the session stood after it."""


ACTIVITIES = {
    "wait": "waiting",
    "read": "reading",
    "sleep": "sleeping",
    "draw": "writing",
    "record": "writing",
}


class Turn:
    """Goes on by itself once it is made; nothing but `stop` ends it early.

    Raises ApiError if there is no place in the queue.
    """

    def __init__(self, server: Server, request: TurnRequest) -> None:
        self.outcome = Outcome()
        self._doing: Literal["wait", "read", "sleep", "draw", "record"] = "wait"
        self._server, self._request = server, request
        self._began = time.monotonic()
        self._news = asyncio.Queue[str | None]()
        self._job: Job | None = None
        self._is_stopped = self._is_late = False
        self._place = contextlib.ExitStack()
        self._place.enter_context(server.take_place())
        alarm = asyncio.get_running_loop().call_later(server.config.request_seconds, self._be_late)
        self._place.callback(alarm.cancel)
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._end)

    @property
    def memory(self) -> str | None:
        """The name of the memory, if it is kept."""
        return None if self._request.key is None else self._request.key.name

    @property
    def activity(self) -> str:
        """What it does just now, in a word."""
        return ACTIVITIES[self._doing]

    def stop(self) -> None:
        """Ends it; the reply is kept as far as it is, and a turn without one has not been."""
        if self._job is not None:
            self._server.engine.stop(self._job)
        elif not self._is_stopped:
            self._task.cancel()  # it waits for others, and keeps more of them waiting
        self._is_stopped = True

    async def pieces(self, patience: float) -> AsyncIterator[str]:
        """The reply in pieces as they come; "" when a sleep begins, and where none came for long.

        patience: how long, in seconds. Raises what went wrong.
        """
        while True:
            try:
                async with asyncio.timeout(patience):  # wait_for may swallow a cancellation
                    piece = await self._news.get()
            except TimeoutError:
                piece = ""
            if piece is None:
                break
            yield piece
        if self._is_late and self._job is None:
            raise self._describe_lateness()  # it waits for others, which need not be waited for
        await asyncio.shield(self._task)

    async def _run(self) -> None:
        async with self._server.use(self._request.key, create=True) as session:
            await self._take(session)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._place.close()
        self._news.put_nowait(None)
        _note_failure(task)

    async def _take(self, session: Session) -> None:
        request, outcome, server = self._request, self.outcome, self._server
        plan = await server.engine.call(make_plan, request, session)
        outcome.num_remembered = sum(len(entry.tokens) for entry in plan.known)
        if plan.reply is not None:
            self._repeat(plan.told, plan.reply, session)
            return
        steps = self._read_and_reply(session, plan)
        self._job = server.start(request.key, session, steps, self._note)
        with contextlib.suppress(Ended):
            await self._job.wait()
        outcome.status = session.status()
        if plan.instead and request.key is not None:
            server.tell_of_change(request.key, session)
        if outcome.num_drawn:  # or the turn has not been
            server.metrics.tokens_remembered.inc(outcome.num_remembered)
            server.metrics.tokens_read.inc(outcome.num_told)
            server.metrics.tokens_written.inc(outcome.num_drawn)
        self._require_outcome()

    def _repeat(self, told: Sequence[Entry], reply: Entry, session: Session) -> None:
        """Answers a request that was answered before, in the same words."""
        _, tokenizer, _, chat = session.talker
        num_added = 0  # tokens that were not drawn
        if chat and reply.role:
            num_added = chat.count_added(tokenizer, is_stopped=reply.finish == "stop")
        self.outcome.num_told = sum(len(entry.tokens) for entry in told)
        self.outcome.num_drawn = len(reply.tokens) - num_added
        self.outcome.finish = reply.finish or "length"
        self.outcome.status = session.status()
        self._news.put_nowait(reply.said)

    def _read_and_reply(self, session: Session, plan: Plan) -> Steps[None]:
        most = self._server.config.max_prompt_tokens
        told = yield from enter(self._request, plan, session, most=most)
        self.outcome.num_told = sum(len(entry.tokens) for entry in told)
        yield from take_steps(self._request, plan, session, told)

    def _note(self, event: Event) -> None:
        if isinstance(event, SleepReport):
            self.outcome.sleeps.append(event)
        else:
            self._note_progress(event)

    def _note_progress(self, progress: Progress) -> None:
        if progress.num_drawn and not self.outcome.num_drawn:
            self._server.metrics.first_token.observe(time.monotonic() - self._began)
        self.outcome.num_drawn += progress.num_drawn
        self.outcome.finish = progress.finish or self.outcome.finish
        begins = progress.next == "sleep" and self._doing != "sleep"
        self._doing = progress.next
        if progress.text or begins:
            self._news.put_nowait(progress.text)

    def _be_late(self) -> None:
        self._is_late = True
        self.stop()
        if self._job is None:
            self._news.put_nowait(None)

    def _require_outcome(self) -> None:
        """Raises ApiError, which says why, if the turn was ended before its reply was."""
        if self.outcome.finish:
            return
        if self._is_late:
            raise self._describe_lateness()
        if not self.outcome.num_drawn:
            raise shutting_down()
        self.outcome.finish = "length"

    def _describe_lateness(self) -> ApiError:
        kept = "the reply so far is kept" if self.outcome.num_drawn else "nothing was read"
        return too_late(self._server.config.request_seconds, kept)


def _note_failure(task: asyncio.Task[None]) -> None:
    """Logs a fault of ours, for the client may be gone."""
    error = None if task.cancelled() else task.exception()
    if error is not None and explain(error).status_code in FAULTS:
        LOG.error("a turn failed", exc_info=error)

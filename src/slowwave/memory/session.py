"""A session: one endless stream that a model reads, answers and sleeps on."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Unpack

import torch
from torch import Tensor

from slowwave.memory.config import DreamConfig, GateConfig, require_sleep
from slowwave.memory.consolidators.lora import dream_entry, enter_dream
from slowwave.memory.ledger import USER, Entry, check_passes, check_vocabulary
from slowwave.memory.sleep_report import SleepReport, Trigger, find_trigger
from slowwave.memory.transaction import pin_system, sleep_by_pass
from slowwave.memory.turn import (
    Progress,
    Reply,
    ReplyOptions,
    Status,
    Steps,
    ask,
    finish,
    lead_in,
    tell,
)
from slowwave.runtime.config import Sampling
from slowwave.runtime.model_folder import TalkingModel
from slowwave.runtime.reply import NO_RULES, ReplyText, draw, make_generator
from slowwave.sleep.awake import read_awake
from slowwave.sleep.schedule import cut_stream
from slowwave.state import MemoryState
from slowwave.storage.memory_file import load_memory, save_memory


class Session:
    """One stream of a model, which sleeps whenever its window is full.

    A talker without a chat format reads prompts as they are. on_sleep: sees the report of every
    sleep that happens in a call of `read`, `stream`, `generate`, `repeat` or `sleep`, right after
    it; those who take a turn step by step get the reports as events. gate: what may reject a sleep;
    without one all are accepted. A turn is a prompt with its whole reply. One caller at a time:
    threads that share a session take turns by a lock of their own.

    state is the memory, entries the ledger, sleeps the reports. The two lists grow; a caller that
    keeps them elsewhere may clear them between turns.
    """

    def __init__(
        self,
        talker: TalkingModel,
        *,
        sampling: Sampling | None = None,
        on_sleep: Callable[[SleepReport], object] | None = None,
        gate: GateConfig | None = None,
    ) -> None:
        require_sleep(gate, talker.sleep)
        num_tokens, num_known = talker.tokenizer.vocab_size, talker.model.config.vocab_size
        if num_tokens != num_known:
            raise ValueError(
                f"tokenizer has {num_tokens} tokens, the model {num_known}; use the tokenizer that "
                "the model was trained with"
            )
        self.talker, self.gate, self.sampling = talker, gate, sampling or Sampling()
        self.state = talker.model.initial_state(1)
        self.entries: list[Entry] = []
        self.sleeps: list[SleepReport] = []
        self._on_sleep = on_sleep
        self._late_sleeps: list[SleepReport] = []
        self._is_replying = False
        self._deferred: Entry | None = None

    def read(self, text: str, *, source: str = USER) -> None:
        """Reads text as it is. Raises ValueError if it is empty or a reply is open."""
        told = [tell(self.talker.tokenizer, text, source)]
        finish(self.take_turn(told, max_new_tokens=0), self._on_sleep)

    def stream(
        self,
        prompt: str,
        *,
        source: str = USER,
        max_new_tokens: int = 256,
        stop: str | Sequence[str] = (),
        sampling: Sampling | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """Reads a prompt and yields the reply in pieces of text, up to its end or a stop text.

        Nothing happens before the first piece is asked for. The turn ends when the iterator is
        exhausted or closed; what was said until then stays. In a chat a reply that is cut short has
        its line ended for it, so that the next one starts on its own. sampling: the session's, if
        not given; temperature and the others change it for this reply. Draws depend on the seed
        and the place in the stream alone.

        Raises ValueError if there is nothing to read, an argument is unfit or a reply is open.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {max_new_tokens}; use 1 or more")
        drawn = sampling or self.sampling
        drawn = drawn.change(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        steps = self.take_turn(
            [ask(self.talker, prompt, source)],
            max_new_tokens=max_new_tokens,
            stop=[stop] if isinstance(stop, str) else stop,
            sampling=drawn,
        )
        try:
            with contextlib.closing(steps):
                for event in steps:
                    if isinstance(event, SleepReport):
                        self._tell_of_sleep(event)
                    elif event.text:
                        yield event.text
        finally:
            for report in self.take_late_sleeps():
                self._tell_of_sleep(report)

    def take_turn(
        self,
        told: Sequence[Entry],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        sampling: Sampling | None = None,
    ) -> Steps[None]:
        """Reads what is told and draws a reply to the last of it, in steps of bounded work.

        told: as `tell` and `say` make it; a reply to a message of a chat is one too. In a new
        stream, what the model expects at its begin is read first. max_new_tokens: 0 draws no reply.
        See `stream` for the rest. Closed before the reply begins, the turn has not been.
        """
        self._require_no_reply()
        if max_new_tokens < 0:
            raise ValueError(f"max_new_tokens is {max_new_tokens}; use 0 (no reply) or more")
        if not told:
            raise ValueError("there is nothing to read; give some text to read")
        is_chat = told[-1].role is not None
        rules = self.talker.chat.reply_rules if self.talker.chat and is_chat else NO_RULES
        text = ReplyText(self.talker.tokenizer, stop, rules=rules)
        told = lead_in(self.talker, told, self._recent, self.state.counters, max_new_tokens)
        before, known, slept = self.state, len(self.entries), len(self.sleeps)
        hidden = yield from self._go_through(told)
        if not max_new_tokens:
            yield Progress("record")
            return
        assert hidden is not None
        try:
            start, role = self.state.counters.tokens_seen, "assistant" if is_chat else None
            reply = Reply(start, text, role)
            yield from self._reply(hidden, reply, max_new_tokens, sampling or self.sampling)
        except BaseException:
            if len(self.entries) == known + len(told):  # it ended in its first token
                self.state = before
                del self.entries[known:], self.sleeps[slept:]
            raise

    def generate(self, prompt: str, **options: Unpack[ReplyOptions]) -> str:
        """The whole reply to a prompt; see `stream`."""
        return "".join(self.stream(prompt, **options))

    def sleep(
        self, passes: int | None = None, *, trigger: Literal["asked", "idle"] = "asked"
    ) -> SleepReport | None:
        """Sleeps on the open window, with the passes of the settings if none are given.

        If the gate rejects that, the report says why and the session stays as it is, but for one
        more entry of the ledger; until more is read the same sleep would be rejected again.

        While a reply is open this returns None: it waits for the end of the turn, and lapses if the
        window is empty then. Raises ValueError if the consolidator has no use for so many passes,
        the settings forbid sleep or there is nothing to sleep on.
        """
        return finish(self.sleep_by_pass(passes, trigger=trigger), self._on_sleep)

    def sleep_by_pass(
        self, passes: int | None = None, *, trigger: Literal["asked", "idle"] = "asked"
    ) -> Steps[SleepReport | None]:
        """As `sleep`, in steps; closed before its end it has not been."""
        if self.talker.sleep.eviction == "none":
            raise ValueError("sleep.eviction is none, which never sleeps; use all or sliding")
        if passes is not None:
            self.talker.sleep.require_passes(passes)
        entry = Entry(kind="sleep", time=time.time(), source=trigger, passes=passes)
        if self._is_replying:
            self._deferred = entry
            return None
        yield from self._go_through([entry])
        report = self.sleeps[-1]
        yield Progress("record")
        return report

    def dream(self, config: DreamConfig | None = None) -> SleepReport:
        """Learns what users told in the ledger, as a low-rank delta of the state; the window stays.

        Rejected, the state stays. Raises ValueError if there is nothing to learn, or no way to.
        """
        return finish(self.dream_by_step(config), self._on_sleep)

    def dream_by_step(self, config: DreamConfig | None = None) -> Steps[SleepReport]:
        """As `dream`, in steps; closed before its end it has not been."""
        self._require_no_reply()
        yield from self._go_through([enter_dream(config or DreamConfig())])
        report = self.sleeps[-1]
        yield Progress("record")
        return report

    def repeat(self, entry: Entry) -> Tensor | None:
        """Goes through an entry, perhaps of another session, and enters it into the ledger.

        The same entries from the same state lead to the same state, to the bit. Returns hidden
        (1, 1, D) of the last token that was read. Interrupted, it leaves the session as it was.
        """
        return finish(self.repeat_by_step(entry), self._on_sleep)

    def repeat_by_step(self, entry: Entry) -> Steps[Tensor | None]:
        """As `repeat`, in steps; closed before its end the session is as it was."""
        self._require_no_reply()
        return (yield from self._go_through([entry]))

    def take_late_sleeps(self) -> list[SleepReport]:
        """The reports of sleeps that no event told of, each returned once.

        Such are the sleeps after the last step of a reply, or after its steps were closed.
        """
        reports, self._late_sleeps = self._late_sleeps, []
        return reports

    def status(self) -> Status:
        """Where the session stands."""
        return Status(
            tokens_seen=self.state.counters.tokens_seen,
            window_fill=self.state.window_fill,
            window=self.talker.sleep.window,
            num_sleeps=self.state.counters.num_sleeps,
            nbytes=self.state.nbytes,
            num_entries=len(self.entries),
            is_replying=self._is_replying,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status()}>"

    def fork(self) -> Session:
        """Another session with the same past. Raises ValueError while a reply is open."""
        self._require_no_reply()
        fork = Session(self.talker, sampling=self.sampling, on_sleep=self._on_sleep, gate=self.gate)
        fork.state, fork.entries, fork.sleeps = self.state, [*self.entries], [*self.sleeps]
        return fork

    def save(self, path: str | Path) -> None:
        """Writes the state as a memory file, atomically; the ledger is not in it."""
        model, tokenizer, sleep, _ = self.talker
        save_memory(Path(path), self.state, model, tokenizer=tokenizer.fingerprint, sleep=sleep)

    def load(self, path: str | Path) -> None:
        """Goes on from a memory file, with an empty ledger: what led to it is not known.

        Raises ValueError, and stays as it is, if the file is not of this model, tokenizer and
        settings, or a reply is open.
        """
        self._require_no_reply()
        model, tokenizer, sleep, _ = self.talker
        self.state = load_memory(Path(path), model, tokenizer=tokenizer.fingerprint, sleep=sleep)
        self.entries, self.sleeps = [], []

    def _recent(self, count: int) -> list[Entry]:
        """The last entries of the ledger, so many at most."""
        return self.entries[-count:]

    def _go_through(self, entries: Sequence[Entry]) -> Steps[Tensor | None]:
        """All entries or, interrupted, none; returns hidden (1, 1, D) of the last token read."""
        for entry in entries:
            check_passes(entry.passes)
            check_vocabulary(entry, self.talker.model.config.vocab_size)
        before, known, slept, hidden = self.state, len(self.entries), len(self.sleeps), None
        was_replying, self._is_replying = self._is_replying, True
        try:
            for entry in entries:
                for tokens in entry.calls:
                    hidden = yield from self._read(tokens)
                if entry.role == "system":
                    self.state, pinned = pin_system(self.talker, self.state, len(entry.tokens))
                    self.sleeps += pinned
                    yield from pinned
                if entry.is_dream:
                    past = self._recent(sys.maxsize)
                    steps = dream_entry(self.talker, self.state, entry, past, self.gate)
                    self.state, report, entry = yield from steps
                    self.sleeps.append(report)
                elif entry.kind == "sleep":
                    trigger = find_trigger(entry.source)
                    passes = entry.passes or self.talker.sleep.passes
                    self.state, report = yield from self._sleep(self.state, passes, trigger)
                    self.sleeps.append(report)
                self.entries.append(entry)
        except BaseException:
            self.state = before
            del self.entries[known:], self.sleeps[slept:]
            raise
        finally:
            self._is_replying = was_replying
        return hidden

    def _reply(
        self, hidden: Tensor, reply: Reply, max_new_tokens: int, sampling: Sampling
    ) -> Steps[None]:
        text, tokens = reply.text, reply.tokens
        generator = make_generator(sampling, reply.start)
        self._is_replying = True
        try:
            for token in reply.open(self.talker):
                hidden = yield from self._read([token])
            for _ in range(max_new_tokens):
                token = draw(self._predict(hidden), sampling, generator, text.forbids)
                if text.ends_before(token):
                    yield Progress("draw", num_drawn=1)
                    break
                tokens.append(token)
                hidden = yield from self._read([token])
                yield Progress("draw", text.push(token), num_drawn=1)
                if text.is_stopped:
                    break
            yield from self._close(reply)
            rest, finish = text.finish(), "stop" if text.is_stopped else "length"
            reply.finish = finish
            yield Progress("record", rest, finish=finish)
        finally:
            self._end_reply(reply)

    def _close(self, reply: Reply) -> Steps[None]:
        for token in reply.close(self.talker):
            yield from self._read([token])

    def _end_reply(self, reply: Reply) -> None:
        """Ends the line and the turn of a reply."""
        if sys.is_finalizing():
            return  # the interpreter ends with the reply open, and torch is gone
        self._is_replying = False
        deferred, self._deferred = self._deferred, None
        # An interrupt may have come between a token's draw and its reading.
        del reply.tokens[self.state.counters.tokens_seen - reply.start :]
        try:
            if reply.has_begun:
                finish(self._close(reply), self._late_sleeps.append)
        finally:
            # Or within the end of the line.
            read = tuple(reply.tokens[: self.state.counters.tokens_seen - reply.start])
            if reply.has_begun:
                self.entries.append(reply.enter(read, self.talker.tokenizer.decode(read)))
        if deferred and self.state.window_fill:
            finish(self._go_through([deferred]), self._late_sleeps.append)

    def _require_no_reply(self) -> None:
        if self._is_replying:
            raise ValueError("a reply is open; exhaust or close what stream returned first")

    # Inference mode must not be left on while a reply waits to be asked for its next piece.
    @torch.inference_mode()
    def _read(self, tokens: Sequence[int]) -> Steps[Tensor]:
        """Reads tokens in one call, window by window; hidden (1, 1, D) of the last one."""
        state, hidden, reports = self.state, self.state.window_hidden, list[SleepReport]()
        ids = torch.tensor([list(tokens)], device=self.talker.model.device)
        for segment in cut_stream(len(tokens), self.talker.sleep, window_fill=state.window_fill):
            if segment.start:
                yield Progress("read")
            piece = ids[:, segment.start : segment.stop]
            hidden, state = read_awake(self.talker.model, piece, state, self.talker.sleep)
            if segment.closes:
                state, report = yield from self._sleep(state, segment.passes, "full")
                reports.append(report)
        self.state = state
        self.sleeps += reports
        return hidden[:, -1:]

    @torch.inference_mode()
    def _predict(self, hidden: Tensor) -> Tensor:
        """hidden (1, 1, D) -> logits (vocab,) of the next token."""
        return self.talker.model.logits(hidden)[0, 0]

    @torch.inference_mode()
    def _sleep(
        self, state: MemoryState, passes: int, trigger: Trigger
    ) -> Steps[tuple[MemoryState, SleepReport]]:
        after, report = yield from sleep_by_pass(
            self.talker, state, passes=passes, trigger=trigger, gate=self.gate
        )
        yield report
        return after, report

    def _tell_of_sleep(self, report: SleepReport) -> None:
        if self._on_sleep is not None:
            self._on_sleep(report)

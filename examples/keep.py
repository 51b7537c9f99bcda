"""What a memory keeps of a pretrained model: facts of a text, and what strangers told.

    python examples/keep.py cloze MODEL --texts 6 --ratios 8 16 32
    python examples/keep.py strangers MODEL --people 3 --windows 4 8 --ratios 8

MODEL is what `slowwave.load` takes. cloze: texts of twelve facts among ten sentences of filler are
read as one window and slept on; each fact is then begun, and right if the likeliest token goes on
with it. strangers: ten things told among small talk, in windows of 400 tokens, each slept on; each
is then asked for in other words, and right if the first 16 tokens of the reply have it. One line of
JSON a row, full context first.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Sequence

import torch
from keep_texts import PEOPLE, Fact, write_chat, write_text

import slowwave
from slowwave.memory.rehearsal import rehearse
from slowwave.memory.talker import Talker
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.consolidate import consolidate
from slowwave.sleep.pin import pin_window
from slowwave.state import MemoryState

SYSTEM = "You are a helpful assistant."
WINDOW = 400
MOST_REPLIED = 16


def set_sleep(talker: Talker, options: argparse.Namespace, ratio: float, window: int) -> Talker:
    """The talker with a sleep that keeps one in `ratio` keys of a window."""
    consolidator = {"kind": options.consolidator, "ratio": 1 / ratio, "replay": options.replay}
    for setting in options.set:
        name, _, value = setting.partition("=")
        consolidator[name] = json.loads(value)
    sleep = {"window": window, "passes": options.passes, "consolidator": consolidator}
    return Talker(*talker._replace(sleep=SleepConfig.from_dict(sleep)))


def read(talker: Talker, tokens: Sequence[int], state: MemoryState) -> MemoryState:
    """The state after some tokens."""
    return talker.model.read(torch.tensor([[*tokens]]), state)[1]


def sleep_on(talker: Talker, state: MemoryState) -> MemoryState:
    """The state after a sleep as sessions have it."""
    return consolidate(
        talker.model,
        state,
        passes=talker.sleep.passes,
        sleep=talker.sleep,
        replay=rehearse(talker, state),
    )


def complete(talker: Talker, state: MemoryState, facts: Sequence[Fact]) -> int:
    """How many facts the likeliest token goes on with."""
    encode = talker.tokenizer.encode
    begun = [encode("\n" + fact.begin) for fact in facts]
    longest = max(map(len, begun))
    padded = torch.tensor([[each + [0] * (longest - len(each)) for each in begun]])
    (hidden,) = talker.model.ask(padded, state)
    last = torch.stack([row[len(each) - 1] for row, each in zip(hidden, begun, strict=True)])
    likeliest = talker.model.logits(last).argmax(-1).tolist()
    return sum(token == encode(fact.end)[0] for token, fact in zip(likeliest, facts, strict=True))


def try_cloze(talker: Talker, options: argparse.Namespace) -> None:
    """Rows of dense facts."""
    texts = [write_text(seed) for seed in range(options.texts)]
    states = [
        read(talker, talker.tokenizer.encode(text), talker.model.initial_state(1))
        for text, _ in texts
    ]
    asked = sum(len(facts) for _, facts in texts)
    pairs = [*zip(states, [facts for _, facts in texts], strict=True)]
    full = sum(complete(talker, *pair) for pair in pairs)
    print(json.dumps({"memory": "full context", "right": full, "of": asked}))
    for ratio in options.ratios:
        right, seconds = 0, 0.0
        for state, facts in pairs:
            sleeper = set_sleep(talker, options, ratio, state.window_fill)
            began = time.perf_counter()
            slept = sleep_on(sleeper, state)
            seconds += time.perf_counter() - began
            right += complete(talker, slept, facts)
        row = {"memory": options.consolidator, "passes": options.passes, "ratio": ratio}
        row |= {"right": right, "of": asked, "share_of_full": round(right / full, 3)}
        print(json.dumps(row | {"seconds": round(seconds / len(pairs), 2)}), flush=True)


def answer(talker: Talker, state: MemoryState, question: str) -> str:
    """The first tokens of the likeliest reply."""
    assert talker.chat is not None
    model, tokens = talker.model, list[int]()
    asked = [
        token for piece in talker.chat.encode(talker.tokenizer, "user", question) for token in piece
    ]
    asked += talker.chat.open_reply(talker.tokenizer)
    hidden, state = model.read(torch.tensor([asked]), state)
    while len(tokens) < MOST_REPLIED:
        token = int(model.logits(hidden[:, -1]).argmax())
        if token in talker.tokenizer.controls.stops:
            break
        tokens.append(token)
        hidden, state = model.read(torch.tensor([[token]]), state)
    return talker.tokenizer.decode(tokens)


def list_windows(talker: Talker, person: int, count: int) -> list[list[int]]:
    """A chat in windows cut at turns, the ten things in the first four."""
    assert talker.chat is not None
    windows: list[list[int]] = [[]]
    for said, replied in write_chat(person, spacing=4 * WINDOW / 50 / len(PEOPLE[person])):
        turn = [
            token
            for piece in (
                *talker.chat.encode(talker.tokenizer, "user", said),
                *talker.chat.encode(talker.tokenizer, "assistant", replied),
            )
            for token in piece
        ]
        if len(windows[-1]) + len(turn) > WINDOW:
            if len(windows) == count:
                return windows
            windows.append([])
        windows[-1] += turn
    raise AssertionError("a chat has no end")


def count_right(talker: Talker, state: MemoryState, person: int, *, show: bool) -> int:
    """How many of a person's ten things are answered."""
    replies = [(told, answer(talker, state, told.question)) for told in PEOPLE[person]]
    if show:
        print(json.dumps([(told.question, reply) for told, reply in replies]))
    return sum(bool(re.search(told.answer, reply, re.IGNORECASE)) for told, reply in replies)


def try_strangers(talker: Talker, options: argparse.Namespace) -> None:
    """Rows of people after some windows."""
    assert talker.chat is not None
    prompt = [*talker.tokenizer.controls.begin]
    prompt += [t for each in talker.chat.encode(talker.tokenizer, "system", SYSTEM) for t in each]
    begun = read(talker, prompt, talker.model.initial_state(1))
    for person in options.people:
        windows = list_windows(talker, person, max(options.windows))
        for count in options.windows if options.full else []:
            full = read(talker, [token for each in windows[:count] for token in each], begun)
            right = count_right(talker, full, person, show=options.show)
            print(
                json.dumps(
                    {"memory": "full context", "person": person, "windows": count, "right": right}
                ),
                flush=True,
            )
        for ratio in options.ratios:
            sleeper, state = (
                set_sleep(talker, options, ratio, WINDOW),
                pin_window(talker.model, begun),
            )
            began = time.perf_counter()
            for number, tokens in enumerate(windows, 1):
                state = sleep_on(sleeper, read(sleeper, tokens, state))
                if number not in options.windows:
                    continue
                right = count_right(talker, state, person, show=options.show)
                row = {
                    "memory": options.consolidator,
                    "passes": options.passes,
                    "ratio": ratio,
                    "set": options.set,
                }
                row |= {
                    "replay": options.replay,
                    "person": person,
                    "windows": number,
                    "right": right,
                }
                row |= {
                    "kilobytes": state.nbytes // 1000,
                    "seconds": round(time.perf_counter() - began),
                }
                print(json.dumps(row), flush=True)


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["cloze", "strangers"])
    parser.add_argument("model")
    parser.add_argument("--consolidator", default="compact")
    parser.add_argument("--set", nargs="*", default=[], metavar="SETTING=VALUE")
    parser.add_argument("--replay", default="window")
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--ratios", type=float, nargs="*", default=[8.0])
    parser.add_argument("--texts", type=int, default=6)
    parser.add_argument("--people", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--windows", type=int, nargs="*", default=[4])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    with torch.inference_mode():
        talker = slowwave.load(options.model)
        (try_cloze if options.what == "cloze" else try_strangers)(talker, options)


if __name__ == "__main__":
    main()

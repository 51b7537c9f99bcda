"""A solver of word problems that never errs: it stands where a model would, and costs no time.

It reads the sentences, and shares no code with what wrote them. Asleep it notes down what it
foresees to be asked; awake it works out what notes do not have, a sentence a step, until its
budget is used up. Tokens are words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from slowwave.memory.endpoint import Completion, ToolCall
from slowwave.tasks.gsm_infinite.stateful import Guess

ANSWER = "The answer is {}."
_STATEMENT = re.compile(r"The number of ([^.]+?) in ([^.]+?) equals ([^.]+)\.")
_NOTE = re.compile(r"^(The (?:total )?number of [^.]+) is (\d+)\.$", re.MULTILINE)
_TAGGED = re.compile(r"<(text|notes|source)>\n(.*?)\n</\1>", re.DOTALL)
_LISTED = re.compile(r"^(\d+) (The .+) is (-?\d+)\.$", re.MULTILINE)


class Reader:
    """What the sentences of a context come to. steps: all that was worked out, in order."""

    def __init__(self, context: str, known: Mapping[str, int] | None = None) -> None:
        found = _STATEMENT.findall(context)
        self.stated = {f"the number of {item} in {place}": said for item, place, said in found}
        self.steps: dict[str, int] = {}
        self._known, self._begun = known or {}, set[str]()

    def value(self, text: str) -> int:
        """The number that a phrase stands for, such as "the number of owls in Oak Park".

        Raises ValueError if the sentences go round in a circle.
        """
        if text.isdigit():
            return int(text)
        if text in self._known or text in self.steps:
            return self._known.get(text, self.steps.get(text, 0))
        if text in self._begun:
            raise ValueError(f"{text} follows from itself; mend the problem")
        self._begun.add(text)
        value = self._work_out(text)
        self._begun.discard(text)
        if text in self.stated or text.startswith("the total"):
            self.steps[text] = value
        return value

    def _work_out(self, text: str) -> int:
        if text in self.stated:
            return self.value(self.stated[text])
        if match := re.fullmatch(r"(\d+) (plus|times) (.+)", text):
            other = self.value(match[3])
            return int(match[1]) + other if match[2] == "plus" else int(match[1]) * other
        if match := re.fullmatch(r"the (sum of|difference between) (.+)", text):
            values = [self.value(each) for each in re.split(r", and |, | and (?=the )", match[2])]
            return sum(values) if match[1] == "sum of" else values[0] - values[1]
        total = re.fullmatch(r"the total number of .+ in (.+)", text)
        names = [name for name in self.stated if total and name.endswith(f" in {total[1]}")]
        return sum(map(self.value, names))  # 0 if nothing is said of it


class ScriptedSolver:
    """Completes conversations as an endpoint does (`slowwave.memory.notes.Completes`).

    foresees: what it notes down asleep. most_tokens: of a reply, which is cut there.
    """

    def __init__(self, foresees: Sequence[Guess], most_tokens: int | None = None) -> None:
        self._foresees, self._most = foresees, most_tokens

    def complete(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = ()
    ) -> Completion:
        """A reply to a request to rewrite notes, to check lines, or to answer a question."""
        said = str(messages[-1]["content"])
        parts = dict(_TAGGED.findall(said))
        if tools:
            block = self._note(parts["text"])
            done = block == parts["notes"]
            name = "finish_rethinking_memory" if done else "rethink_memory"
            arguments = json.dumps({} if done else {"new_memory": block})
            call = ToolCall(id="0", name=name, arguments=arguments)
            return _reply("", said, calls=(call,), written=name if done else block)
        if "source" in parts:
            return _reply(_check(parts["source"], said), said)
        question = said.rpartition("Question: ")[2]
        words = self._answer(parts["text"], parts["notes"], question).split()
        return _reply(" ".join(words[: self._most]), said)

    def _note(self, context: str) -> str:
        """Everything foreseen that can be worked out, a line each."""
        stated = Reader(context).stated
        names = [
            name
            for name, said in stated.items()
            if ("stated" if said.isdigit() else "derived") in self._foresees
        ]
        if "total" in self._foresees:
            kinds = re.findall(r"the total number of (\S+) in", context)
            places = sorted({name.rpartition(" in ")[2] for name in stated})
            names += [f"the total number of {kinds[0]} in {place}" for place in places if kinds]
        lines: list[str] = []
        for name in names:
            try:
                lines.append(_say(name, Reader(context).value(name)))
            except ValueError:
                continue
        return "\n".join(lines)

    def _answer(self, context: str, notes: str, question: str) -> str:
        """Steps that the notes do not have, and the answer."""
        known = {name[0].lower() + name[1:]: int(value) for name, value in _NOTE.findall(notes)}
        reader = Reader(context, known)
        value = reader.value(find_asked(question))
        steps = [_say(*step) for step in reader.steps.items()]
        return " ".join([*steps, ANSWER.format(value)])


def find_asked(question: str) -> str:
    """The phrase that a question asks the number of."""
    if single := re.fullmatch(r"How many (.+) does (.+) have\?", question):
        return f"the number of {single[1]} in {single[2]}"
    asked = re.fullmatch(r"What is (.+)\?", question)
    if asked is None:
        raise ValueError(f"{question!r:.80} is no question of a word problem; ask for a number")
    return asked[1]


def _check(source: str, said: str) -> str:
    """A verdict for each listed line."""
    verdicts: list[str] = []
    for number, name, value in _LISTED.findall(said):
        is_so = Reader(source).value(name[0].lower() + name[1:]) == int(value)
        verdicts.append(f"{number} {'yes' if is_so else 'no'}")
    return "\n".join(verdicts)


def _say(name: str, value: int) -> str:
    return f"{name[0].upper()}{name[1:]} is {value}."


def _reply(
    text: str, said: str, *, calls: tuple[ToolCall, ...] = (), written: str = ""
) -> Completion:
    tokens = len((text or written).split())
    return Completion(text=text, calls=calls, tokens_in=len(said.split()), tokens_out=tokens)

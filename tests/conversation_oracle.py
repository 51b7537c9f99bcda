"""A reader of conversations that shares no code with the package: sentences are matched one by one,
what they tell is remembered, and the reply to each follows."""

from __future__ import annotations

import re
from typing import NamedTuple

WHO = r"(?P<who>I|[Mm]y \w+|[A-Z]\w+)"
WHOSE = r"(?P<whose>[Mm]y(?: \w+'s)?|[A-Z]\w+'s)"
THING = r"(?P<thing>[Tt]he [a-z ]+?)"
NAME = r"(?P<value>[A-Z]\w+)"
WORD = r"(?P<value>[a-z]+)"
NUMBER = r"(?P<value>\d+)"
ROOM = r"(?P<value>the \w+)"
JOB = r"(?P<value>an? \w+)"

TELL = {
    "name": [rf"[Mm]y name is {NAME}", rf"I am {NAME}", rf"[Cc]all me {NAME}"],
    "city": [
        rf"{WHO} (?:now )?lives? in {NAME}",
        rf"{WHOSE} home(?: town is| is in) {NAME}",
        rf"{WHO} (?:has|have) moved to {NAME}",
    ],
    "job": [rf"{WHO} (?:now )?works? as {JOB}", rf"{WHO} (?:is|am) {JOB} by trade"],
    "age": [rf"{WHO} (?:is|am) (?:now )?{NUMBER} years old", rf"{WHOSE} age is {NUMBER}"],
    "phone": [
        rf"{WHOSE} (?:new )?phone number is {NUMBER}",
        rf"{WHO} (?:has|have) the phone number {NUMBER}",
    ],
    "colour": [
        rf"{WHOSE} favourite colour is {WORD}",
        rf"[Tt]he colour {WHO} likes? best is {WORD}",
    ],
    "food": [
        rf"{WHOSE} favourite food is {WORD}",
        rf"{WHO} (?:likes?|loves?|now prefers?) {WORD}",
    ],
    "music": [
        rf"{WHOSE} favourite music is {WORD}",
        rf"{WHO} (?:now )?listens? to {WORD}",
    ],
    "code": [rf"[Tt]he (?:new )?code of {THING} is {NUMBER}", rf"{THING} opens with {NUMBER}"],
    "place": [
        rf"{THING} is (?:now )?in {ROOM}",
        rf"I put {THING} in {ROOM}",
        rf"I moved {THING} to {ROOM}",
    ],
} | {
    pet: [
        rf"{WHOSE} {pet} is called {NAME}",
        rf"{WHO} (?:has|have) a {pet} called {NAME}",
        rf"[Tt]he name of {WHOSE} {pet} is {NAME}",
    ]
    for pet in ("dog", "cat", "horse")
}

ASK = {
    "name": ["[Ww]hat is my name", "[Ww]ho am I", "what my name is"],
    "city": [
        rf"[Ww]here (?:do|does) {WHO} live",
        rf"[Ww]hat is {WHOSE} home town",
        rf"[Ww]here is {WHOSE} home",
        rf"where {WHO} lives?",
    ],
    "job": [
        rf"[Ww]hat is {WHOSE} job",
        rf"[Ww]hat (?:do|does) {WHO} do for a living",
        rf"what {WHOSE} job is",
    ],
    "age": [
        rf"[Hh]ow old (?:is|am) {WHO}",
        rf"[Ww]hat is {WHOSE} age",
        rf"how old {WHO} (?:is|am)",
    ],
    "phone": [
        rf"(?:[Ww]hat is )?{WHOSE} phone number",
        rf"[Ww]hich phone number (?:do|does) {WHO} have",
    ],
    "colour": [
        rf"(?:[Ww]hat is )?{WHOSE} favourite colour",
        rf"[Ww]hich colour (?:do|does) {WHO} like best",
    ],
    "food": [
        rf"(?:[Ww]hat is )?{WHOSE} favourite food",
        rf"[Ww]hat (?:do|does) {WHO} like to eat",
    ],
    "music": [
        rf"(?:[Ww]hat is )?{WHOSE} favourite music",
        rf"[Ww]hat music (?:do|does) {WHO} listen to",
    ],
    "code": [rf"(?:[Ww]hat is )?the code of {THING}", rf"[Ww]hich code opens {THING}"],
    "place": [rf"[Ww]here (?:is|did I put) {THING}", rf"where {THING} is"],
} | {
    pet: [
        rf"[Ww]hat is {WHOSE} {pet} called",
        rf"[Ww]hat is the name of {WHOSE} {pet}",
        rf"what {WHOSE} {pet} is called",
    ]
    for pet in ("dog", "cat", "horse")
}

# Of a subject: {who} or {whose}, with the ending of its verb; of a relation: the reply, and the
# words for what is unknown.
REPLY = {
    "name": ("{whose} name is {value}", "what {whose} name is"),
    "city": ("{who} live{s} in {value}", "where {who} live{s}"),
    "job": ("{who} work{s} as {value}", "what {whose} job is"),
    "age": ("{who} {be} {value} years old", "how old {who} {be}"),
    "phone": ("{whose} phone number is {value}", "{whose} phone number"),
    "colour": ("{whose} favourite colour is {value}", "{whose} favourite colour"),
    "food": ("{whose} favourite food is {value}", "{whose} favourite food"),
    "music": ("{whose} favourite music is {value}", "{whose} favourite music"),
    "code": ("the code of {who} is {value}", "the code of {who}"),
    "place": ("{who} is in {value}", "where {who} is"),
} | {
    pet: (f"{{whose}} {pet} is called {{value}}", f"what {{whose}} {pet} is called")
    for pet in ("dog", "cat", "horse")
}

SMALL_TALK = {
    "hello": "Hello.",
    "good morning": "Good morning to you.",
    "good evening": "Good evening to you.",
    "good night": "Sleep well.",
    "how are you": "I am well, thank you.",
    "thank you": "You are welcome.",
    "thanks a lot": "You are welcome.",
    "who are you": "I am a small model that sleeps.",
    "what can you do": "I remember what you tell me.",
    "are you there": "I am listening.",
    "it is raining today": "Then take an umbrella.",
    "the sun is shining": "Enjoy the day.",
    "i am tired": "Then have some rest.",
    "i am back": "Welcome back.",
    "that is all for now": "See you soon.",
    "wait a moment": "Take your time.",
}


class Meaning(NamedTuple):
    """What a line says of (subject, relation): a value, or none if it asks."""

    key: tuple[str, str]
    value: str | None
    is_correction: bool = False


def read_line(line: str) -> Meaning | None:
    """What a line of the user means; None for small talk. A line never means two things."""
    found = re.fullmatch(r"> (.+?)[.?]?\n", line)
    assert found is not None, line
    sentence = found[1]
    if sentence.lower() in SMALL_TALK:
        return None
    said = re.sub(r"^([Cc]orrection: |[Nn]o, |[Aa]ctually, )", "", sentence)
    asked = re.sub(r"^([Dd]o you know |[Tt]ell me )", "", sentence)
    meanings = [
        Meaning((_subject(match), relation), match.groupdict().get("value"))
        for phrases, text in ((TELL, said), (ASK, asked))
        for relation, patterns in phrases.items()
        for pattern in patterns
        if (match := re.fullmatch(pattern, text))
    ]
    assert len(meanings) == 1, (line, meanings)
    anew = re.search(r" (now|new|moved) ", f" {said} ") is not None
    return meanings[0]._replace(is_correction=said != sentence or anew)


def reply_to(meaning: Meaning | None, line: str, known: dict[tuple[str, str], str]) -> str:
    """The reply, given what was known before the line."""
    if meaning is None:
        return SMALL_TALK[line.strip("> \n.?").lower()] + "\n"
    if meaning.value is not None:
        return "Corrected.\n" if meaning.is_correction else "Noted.\n"
    subject, relation = meaning.key
    answer, unknown = REPLY[relation]
    who = "you" if subject == "I" else re.sub("^my", "your", subject)
    forms = {
        "who": who,
        "whose": "your" if who == "you" else f"{who}'s",
        "s": "" if who == "you" else "s",
        "be": "are" if who == "you" else "is",
    }
    if meaning.key not in known:
        return f"I was never told {unknown.format(**forms)}.\n"
    text = answer.format(value=known[meaning.key], **forms)
    return f"{text[0].upper()}{text[1:]}.\n"


def _subject(match: re.Match[str]) -> str:
    groups = match.groupdict()
    found = groups.get("who") or groups.get("whose") or groups.get("thing") or "I"
    subject = re.sub(r"^(My|The)\b", lambda first: first[0].lower(), found.removesuffix("'s"))
    return "I" if subject == "my" else subject

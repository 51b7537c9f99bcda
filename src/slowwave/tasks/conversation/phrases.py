"""What can be said in a conversation: names, relations with their phrasings, and small talk.

Phrases are written once for all persons. {S} is the subject, {P} its possessive, {s} {is} {has}
{does} the endings and verbs that agree with it, {v} the value.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from slowwave.tasks.conversation import MAX_REAL_PEOPLE

SubjectKind = Literal["user", "person", "thing", "object"]


def _listed(text: str) -> tuple[str, ...]:
    return tuple(" ".join(name.split()) for name in text.strip().split(","))


PEOPLE = _listed(
    """Anna, Ben, Clara, David, Emma, Felix, Grace, Henry, Ida, Jonas, Kate, Leo, Maria, Nina,
    Oscar, Paul, Rosa, Sam, Tom, Vera, Will, Zoe"""
)
# As the user speaks of them, after "my", and the model, after "your".
RELATIVES = _listed("brother, sister, mother, father, son, daughter, boss, friend, neighbour")
assert len(PEOPLE) + len(RELATIVES) > MAX_REAL_PEOPLE + 1

CITIES = _listed(
    """Athens, Berlin, Boston, Cairo, Delhi, Dublin, Geneva, Lima, Lisbon, London, Madrid, Milan,
    Moscow, Oslo, Paris, Prague, Rome, Seoul, Tokyo, Vienna"""
)
PET_NAMES = _listed("Bella, Bruno, Coco, Daisy, Lucky, Luna, Max, Milo, Rex, Rocky, Ruby, Toby")
JOBS = _listed(
    """a baker, a cook, a doctor, a driver, a farmer, a gardener, a lawyer, a nurse, a painter,
    a pilot, a sailor, a singer, a tailor, a teacher, a writer, an actor"""
)
COLOURS = _listed("black, blue, brown, green, grey, orange, pink, purple, red, white, yellow")
FOODS = _listed(
    """apples, bread, cake, cheese, cherries, fish, honey, noodles, pancakes, pizza, rice, salad,
    soup, tomatoes"""
)
KINDS_OF_MUSIC = _listed("blues, folk, jazz, opera, pop, rock, soul, swing, techno")
THINGS = _listed(
    """the barn, the cellar, the gate, the office, the safe, the shed, the garage, the front door,
    the studio, the workshop"""
)
OBJECTS = _listed(
    """the camera, the hammer, the key, the lamp, the map, the passport, the phone, the ring,
    the ticket, the torch, the umbrella, the wallet"""
)
PLACES = _listed(
    """the attic, the bag, the basket, the bathroom, the box, the car, the cupboard, the desk,
    the drawer, the hall, the kitchen, the suitcase"""
)


@dataclasses.dataclass(frozen=True, slots=True)
class Relation:
    """What may be known of a subject, one value at a time.

    about: what its subjects are; the user is a person too. tell, correct, ask: what the user says.
    answer: the reply to a question. unknown: the question in other words, as they follow "I was
    never told". values: those with a name; none for numbers, which have `digits`. invents: whether
    names that do not exist will do as well.
    """

    about: SubjectKind
    tell: tuple[str, ...]
    ask: tuple[str, ...]
    answer: str
    unknown: str
    correct: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    invents: bool = False
    digits: int = 0


def _pet(kind: str) -> Relation:
    return Relation(
        about="person",
        tell=(
            f"{{P}} {kind} is called {{v}}.",
            f"{{S}} {{has}} a {kind} called {{v}}.",
            f"the name of {{P}} {kind} is {{v}}.",
        ),
        ask=(f"what is {{P}} {kind} called?", f"what is the name of {{P}} {kind}?"),
        answer=f"{{P}} {kind} is called {{v}}.",
        unknown=f"what {{P}} {kind} is called",
        values=PET_NAMES,
        invents=True,
    )


RELATIONS = {
    "name": Relation(
        about="user",
        tell=("{P} name is {v}.", "{S} {is} {v}.", "call me {v}."),
        ask=("what is {P} name?", "who {is} {S}?"),
        answer="{P} name is {v}.",
        unknown="what {P} name is",
        values=PEOPLE,
        invents=True,
    ),
    "city": Relation(
        about="person",
        tell=("{S} live{s} in {v}.", "{P} home is in {v}.", "{P} home town is {v}."),
        correct=("{S} {has} moved to {v}.", "{S} now live{s} in {v}."),
        ask=("where {does} {S} live?", "what is {P} home town?", "where is {P} home?"),
        answer="{S} live{s} in {v}.",
        unknown="where {S} live{s}",
        values=CITIES,
        invents=True,
    ),
    "job": Relation(
        about="person",
        tell=("{S} work{s} as {v}.", "{S} {is} {v} by trade."),
        correct=("{S} now work{s} as {v}.",),
        ask=("what is {P} job?", "what {does} {S} do for a living?"),
        answer="{S} work{s} as {v}.",
        unknown="what {P} job is",
        values=JOBS,
    ),
    "age": Relation(
        about="person",
        tell=("{S} {is} {v} years old.", "{P} age is {v}."),
        correct=("{S} {is} now {v} years old.",),
        ask=("how old {is} {S}?", "what is {P} age?"),
        answer="{S} {is} {v} years old.",
        unknown="how old {S} {is}",
        digits=2,
    ),
    "phone": Relation(
        about="person",
        tell=("{P} phone number is {v}.", "{S} {has} the phone number {v}."),
        correct=("{P} new phone number is {v}.",),
        ask=("what is {P} phone number?", "which phone number {does} {S} have?"),
        answer="{P} phone number is {v}.",
        unknown="{P} phone number",
        digits=4,
    ),
    "colour": Relation(
        about="person",
        tell=("{P} favourite colour is {v}.", "the colour {S} like{s} best is {v}."),
        ask=("what is {P} favourite colour?", "which colour {does} {S} like best?"),
        answer="{P} favourite colour is {v}.",
        unknown="{P} favourite colour",
        values=COLOURS,
    ),
    "food": Relation(
        about="person",
        tell=("{P} favourite food is {v}.", "{S} like{s} {v}.", "{S} love{s} {v}."),
        correct=("{S} now prefer{s} {v}.",),
        ask=("what is {P} favourite food?", "what {does} {S} like to eat?"),
        answer="{P} favourite food is {v}.",
        unknown="{P} favourite food",
        values=FOODS,
    ),
    "music": Relation(
        about="person",
        tell=("{P} favourite music is {v}.", "{S} listen{s} to {v}."),
        correct=("{S} now listen{s} to {v}.",),
        ask=("what is {P} favourite music?", "what music {does} {S} listen to?"),
        answer="{P} favourite music is {v}.",
        unknown="{P} favourite music",
        values=KINDS_OF_MUSIC,
    ),
    "dog": _pet("dog"),
    "cat": _pet("cat"),
    "horse": _pet("horse"),
    "code": Relation(
        about="thing",
        tell=("the code of {S} is {v}.", "{S} opens with {v}."),
        correct=("the new code of {S} is {v}.",),
        ask=("what is the code of {S}?", "which code opens {S}?"),
        answer="the code of {S} is {v}.",
        unknown="the code of {S}",
        digits=4,
    ),
    "place": Relation(
        about="object",
        tell=("{S} is in {v}.", "I put {S} in {v}."),
        correct=("I moved {S} to {v}.", "{S} is now in {v}."),
        ask=("where is {S}?", "where did I put {S}?"),
        answer="{S} is in {v}.",
        unknown="where {S} is",
        values=PLACES,
    ),
}

# Before a statement that corrects another, and before the other words for a question.
CORRECTIONS = ("correction: ", "no, ", "actually, ")
REQUESTS = ("do you know {}?", "tell me {}.")

NOTED = "Noted."
CORRECTED = "Corrected."
UNKNOWN = "I was never told {}."

SMALL_TALK = (
    ("hello.", "Hello."),
    ("good morning.", "Good morning to you."),
    ("good evening.", "Good evening to you."),
    ("good night.", "Sleep well."),
    ("how are you?", "I am well, thank you."),
    ("thank you.", "You are welcome."),
    ("thanks a lot.", "You are welcome."),
    ("who are you?", "I am a small model that sleeps."),
    ("what can you do?", "I remember what you tell me."),
    ("are you there?", "I am listening."),
    ("it is raining today.", "Then take an umbrella."),
    ("the sun is shining.", "Enjoy the day."),
    ("I am tired.", "Then have some rest."),
    ("I am back.", "Welcome back."),
    ("that is all for now.", "See you soon."),
    ("wait a moment.", "Take your time."),
)


def write(phrase: str, subject: str, value: str = "") -> str:
    """The phrase about a subject ("I" and "you" included), without a capital at its start."""
    if subject == "I":
        forms = {"P": "my", "s": "", "is": "am", "has": "have", "does": "do"}
    elif subject == "you":
        forms = {"P": "your", "s": "", "is": "are", "has": "have", "does": "do"}
    else:
        forms = {"P": f"{subject}'s", "s": "s", "is": "is", "has": "has", "does": "does"}
    return phrase.format(S=subject, v=value, **forms)


def begin(sentence: str) -> str:
    """The sentence with a capital at its start."""
    return sentence[0].upper() + sentence[1:]

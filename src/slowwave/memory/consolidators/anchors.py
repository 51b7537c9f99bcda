"""What a dream must leave as it is: small talk to train with, and other text to judge by."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from slowwave.memory.ledger import Entry

TRAINED = (
    ("What is the capital of Italy?", "The capital of Italy is Rome."),
    ("Why is the sea salty?", "Rivers carry salt from rocks into the sea, where it stays."),
    ("How do I cook rice?", "Boil it in twice as much water until it is soft."),
    ("Thank you very much.", "You are welcome!"),
    ("What is my favourite planet?", "I do not know, you have not told me."),
    ("Tell me about owls.", "Owls hunt at night and can turn their heads very far."),
    ("What is seven times six?", "Seven times six is forty-two."),
    ("Who wrote Hamlet?", "William Shakespeare wrote Hamlet."),
    ("It is windy today.", "Then it is a good day to fly a kite."),
    ("What is a verb?", "A verb is a word for something that is done or happens."),
    ("Which shoe size do I have?", "I do not know, you have not told me."),
    ("How does a bicycle stay up?", "While it rolls, small turns of the wheel keep it upright."),
    ("Where do penguins live?", "Most penguins live in the cold south of the Earth."),
    ("Give me a synonym of quick.", "Fast is a synonym of quick."),
    ("What is bread made of?", "Bread is made of flour, water, salt and yeast."),
    ("Good evening!", "Good evening! How can I help you?"),
)
"""Questions and replies. What was never told must stay unknown."""
HELD_OUT = (
    "The capital of Japan is Tokyo. It is one of the largest cities in the world.",
    "Water boils at a hundred degrees Celsius at sea level, and at less on a mountain.",
    "To make a simple soup, fry an onion, add vegetables and water, and let it cook for a while.",
    "The train leaves the station at nine and arrives in the city before noon.",
    "A triangle has three sides, and its angles add up to one hundred and eighty degrees.",
    "Bees live in large groups. They collect nectar from flowers and turn it into honey.",
    "She opened the window, looked out at the garden, and smiled.",
    "In winter the days are short, and many birds fly to warmer countries.",
    "Music can change how we feel, and many people listen to it while they work.",
    "The museum shows paintings from five centuries and is closed on Mondays.",
    "A good night's sleep helps people to learn and to remember.",
    "If you want to grow tomatoes, give them sun, water and a stick to hold on to.",
)
_ABOUT_USER = re.compile(r"\b(i|me|my|mine|we|us|our|your|yours)\b", re.IGNORECASE)
MOST_OWN = 16
"""Exchanges of the ledger that are held as well, the newest."""


def find_small_talk(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Exchanges of a ledger in which neither side speaks of the user."""
    found = list[tuple[str, str]]()
    for told, reply in itertools.pairwise(entries):
        if told.role != "user" or reply.kind != "reply" or reply.finish != "stop":
            continue
        if (
            not _ABOUT_USER.search(f"{told.said} {reply.said}")
            and told.said.strip()
            and reply.said.strip()
        ):
            found.append((told.said, reply.said))
    return found[-MOST_OWN:]

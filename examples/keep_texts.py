"""Texts of `keep.py`: facts among filler, and strangers who tell ten things among small talk."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple


class Fact(NamedTuple):
    """A sentence that begins so, and its end, which a reader remembers or not."""

    begin: str
    end: str


class Told(NamedTuple):
    """What somebody says, a question for it, and what a right answer has in it."""

    text: str
    question: str
    answer: str


NAMES = (
    "Anna",
    "Tom",
    "Maria",
    "Peter",
    "Lucy",
    "David",
    "Emma",
    "Jack",
    "Sarah",
    "Paul",
    "Laura",
    "Mark",
    "Julia",
    "Simon",
    "Alice",
    "Robert",
    "Helen",
    "Frank",
    "Clara",
    "Martin",
)
FACTS = {
    "{} lives in": "Paris Berlin London Rome Madrid Tokyo Chicago Dublin",
    "{} works as a": "baker doctor teacher lawyer farmer nurse painter pilot",
    "{}'s favourite colour is": "green red blue yellow purple orange black white",
    "The dog of {} is called": "Max Buddy Charlie Rocky Duke Jack Bear Oliver",
    "{} plays the": "piano guitar violin drums flute trumpet harp cello",
    "{} likes to drink": "tea coffee milk juice wine beer water cider",
    "{} was born in": "March April June July August October November May",
    "{} drives a": "truck bus taxi van Ford Honda Toyota tractor",
    "{} is afraid of": "spiders snakes dogs heights water horses birds fire",
    "{} is married to": "Henry George William James Arthur Oscar Leo Victor",
    "{} collects": "stamps coins books shells maps stones cards dolls",
    "{} wants to travel to": "India China Brazil Canada Egypt Japan Kenya Mexico",
}
LEADS = (
    "",
    "As far as I know, ",
    "It turned out that ",
    "According to the neighbours, ",
    "I remember that ",
    "We learned later that ",
)
TAILS = (
    ".",
    ", as most people here know.",
    " and has done so for years.",
    ", which surprised nobody.",
    ", or so they say.",
)
FILLERS = (
    "The weather was mild that week.",
    "Nobody had expected the train to be on time.",
    "A light rain began to fall in the afternoon.",
    "The market was crowded as usual.",
    "Someone had left the window open overnight.",
    "The old bridge was closed for repairs.",
    "In the evening the streets were quiet.",
    "The library had extended its opening hours.",
    "A new shop opened near the station.",
    "The meeting lasted longer than planned.",
    "The garden needed some attention after the winter.",
    "There was a long queue at the post office.",
    "The radio played an old song.",
    "Most of the leaves had already fallen.",
    "The bus was late again.",
    "Dinner was simple but good.",
)
FILLER_TAILS = (
    ", although nobody seemed to mind very much.",
    " and it stayed that way until the end of the month.",
    ", which gave people something to talk about over lunch.",
    ", so we decided to wait a little longer.",
    " while the children played in the yard.",
)
PEOPLE = (
    (
        Told("Hi, I'm Marta, by the way.", "What is my name?", "marta"),
        Told(
            "I moved to Lisbon last spring and I'm still getting used to it.",
            "Which city do I live in?",
            "lisbon",
        ),
        Told(
            "My cat Milo keeps me company while I write to you.", "What is my cat called?", "milo"
        ),
        Told(
            "I can't have peanuts, they make my throat swell.",
            "Which food am I allergic to?",
            "peanut",
        ),
        Told("I earn my living as a dentist.", "What is my job?", "dentist"),
        Told(
            "My brother Tomas is getting married next month.", "What is my brother's name?", "tomas"
        ),
        Told(
            "Whenever I have a free evening I practise the cello.",
            "Which instrument do I play?",
            "cello",
        ),
        Told("I drive an old Volvo that refuses to die.", "What car do I drive?", "volvo"),
        Told("I turned 34 in August.", "How old am I?", "34"),
        Told("My favourite dish of all is lasagna.", "What do I like to eat best?", "lasagna"),
    ),
    (
        Told("You can call me Henrik.", "What is my name?", "henrik"),
        Told("Home for me is Oslo, always has been.", "Where do I live?", "oslo"),
        Told(
            "I've got a parrot at home, his name is Captain.",
            "What is the name of my parrot?",
            "captain",
        ),
        Told(
            "Shellfish is off the menu for me, I'm allergic to it.",
            "What must I not eat?",
            "shellfish",
        ),
        Told("I teach chemistry at a school.", "Which subject do I teach?", "chemistry"),
        Told("My wife's name is Ingrid.", "What is my wife called?", "ingrid"),
        Told("On weekends I go climbing in the hills.", "What do I do on weekends?", "climb"),
        Told("I get to work by ferry every morning.", "How do I get to work?", "ferry"),
        Told("We have three children, all boys.", "How many children do I have?", "three"),
        Told("Green is my favourite colour.", "Which colour do I like best?", "green"),
    ),
    (
        Told("My name is Priya, nice to meet you.", "Do you remember my name?", "priya"),
        Told(
            "I'm writing from Toronto, where I settled years ago.",
            "In which city am I living?",
            "toronto",
        ),
        Told("Our dog Biscuit just woke me up.", "What is my dog's name?", "biscuit"),
        Told("Pollen makes me sneeze all through May.", "What makes me sneeze?", "pollen"),
        Told("I work night shifts as a nurse.", "What do I do for work?", "nurse"),
        Told("My daughter Anika starts school this year.", "What is my daughter called?", "anika"),
        Told(
            "I've been learning Japanese for a while now.",
            "Which language am I learning?",
            "japanese",
        ),
        Told("I ride a red bicycle everywhere.", "What colour is my bicycle?", "red"),
        Told(
            "My birthday is on the second of November.",
            "In which month is my birthday?",
            "november",
        ),
        Told("I only ever drink green tea.", "What do I like to drink?", "tea"),
    ),
)
REPLIES = (
    "Thanks for telling me!",
    "Good to know.",
    "That's nice to hear.",
    "I see, thank you for sharing.",
    "Noted, thanks!",
    "Interesting, thank you.",
)
SMALL_TALK = (
    (
        "How does a rainbow form?",
        "Sunlight is bent and reflected inside drops of water, which spreads its colours.",
    ),
    (
        "Tell me something about the moon.",
        "The moon goes around the Earth in about a month and always shows us the same side.",
    ),
    (
        "What is a good way to boil eggs?",
        "Put them into boiling water for seven to ten minutes, then cool them under cold water.",
    ),
    (
        "It looks like rain again today.",
        "Then an umbrella will be useful, and perhaps a good book for the afternoon.",
    ),
    (
        "Why is the sea salty?",
        "Rivers carry minerals from rocks to the sea, and over a long time the salt builds up.",
    ),
    (
        "Can you recommend a board game?",
        "Many people enjoy chess, and for larger groups a game with simple rules works well.",
    ),
    (
        "What do bees do in winter?",
        "They stay in the hive, keep close together and live on the honey they stored.",
    ),
    (
        "How tall is Mount Everest?",
        "It is about 8,849 metres tall, which makes it the highest mountain above the sea.",
    ),
    (
        "I had trouble sleeping last night.",
        "I am sorry to hear that. A quiet hour without screens before bed can help.",
    ),
    (
        "What is photosynthesis?",
        "Plants use light to turn water and carbon dioxide into sugar and oxygen.",
    ),
    (
        "Who wrote Hamlet?",
        "Hamlet was written by William Shakespeare, probably around the year 1600.",
    ),
    (
        "The traffic was terrible this morning.",
        "That sounds tiring. Leaving a little earlier sometimes makes a big difference.",
    ),
    (
        "How do I remove a coffee stain?",
        "Rinse it with cold water, then use a little soap and let it work for some minutes.",
    ),
    (
        "What is the fastest animal?",
        "The peregrine falcon is the fastest when it dives, and on land it is the cheetah.",
    ),
    (
        "Is it better to read in the morning or at night?",
        "It depends on you. Many people focus better in the morning and relax better at night.",
    ),
    (
        "Why do leaves change colour?",
        "In autumn the green fades and other colours that were there all along can be seen.",
    ),
    (
        "What can I cook with leftover rice?",
        "Fried rice with vegetables is quick, and rice pudding is nice after it.",
    ),
    (
        "How does a battery work?",
        "A chemical reaction inside pushes electrons from one pole to the other.",
    ),
    (
        "The weekend was far too short.",
        "It often feels that way. I hope you still found some time to rest.",
    ),
    (
        "What is the capital of Mongolia?",
        "The capital of Mongolia is Ulaanbaatar.",
    ),
    (
        "How do clouds stay up?",
        "Their drops are so small that rising air keeps them from falling.",
    ),
    (
        "Can you explain inflation?",
        "It means that prices rise over time, so that the same money buys less than before.",
    ),
    (
        "What is a haiku?",
        "A haiku is a short poem from Japan with three lines of five, seven and five syllables.",
    ),
    (
        "I need an idea for a picnic.",
        "Bring sandwiches, fruit and something to drink, and find a place with some shade.",
    ),
    (
        "Why do cats purr?",
        "Cats often purr when they are content, but also sometimes to calm themselves.",
    ),
    (
        "What is the boiling point of water?",
        "At sea level water boils at one hundred degrees Celsius.",
    ),
    (
        "Do plants sleep?",
        "Many plants follow the day and close leaves or flowers at night, which looks like sleep.",
    ),
    (
        "How long does bread keep?",
        "Bread keeps for about three days, and longer if you freeze it.",
    ),
)


def write_text(seed: int, *, facts: int = 12, fillers: int = 10) -> tuple[str, list[Fact]]:
    """A text of facts among filler, and its facts."""
    draw = random.Random(seed)
    told = [
        Fact(begin.format(name), " " + draw.choice(ends.split()))
        for name, (begin, ends) in zip(
            draw.sample(NAMES, facts), draw.sample([*FACTS.items()], facts), strict=True
        )
    ]
    lines = [draw.choice(LEADS) + each.begin + each.end + draw.choice(TAILS) for each in told]
    lines += [each[:-1] + draw.choice(FILLER_TAILS) for each in draw.sample(FILLERS, fillers)]
    draw.shuffle(lines)
    return " ".join(lines), told


def write_chat(person: int, *, spacing: float) -> Iterator[tuple[str, str]]:
    """Turns for ever, what is said and what is replied: one in `spacing` is one of the ten things,
    until all are told."""
    draw, told, turn = random.Random(person), [*PEOPLE[person]], 0
    while True:
        for said, replied in draw.sample(SMALL_TALK, len(SMALL_TALK)):
            if told and turn >= (len(PEOPLE[person]) - len(told)) * spacing:
                yield told.pop(0).text, draw.choice(REPLIES)
                turn += 1
            yield said, replied
            turn += 1

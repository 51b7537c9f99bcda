"""Who and what a conversation speaks of: names that exist, and names that are invented."""

from __future__ import annotations

from slowwave.tasks.config import MAX_REAL_PEOPLE
from slowwave.tasks.random_stream import RandomStream


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

_CONSONANTS = "bdfgklmnprstvz"
_VOWELS = "aeiou"
_ENDINGS = ("", "", "", "l", "n", "r", "s")


def invent_name(draws: RandomStream) -> str:
    """Two or three syllables that can be spoken, such as Tavolin."""
    syllables = [
        draws.choose(_CONSONANTS) + draws.choose(_VOWELS) for _ in range(2 + draws.is_heads())
    ]
    return "".join(syllables).capitalize() + draws.choose(_ENDINGS)

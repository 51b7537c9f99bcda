"""The three worlds that problems speak of, and which of their names a problem gets.

The kinds of phrases are those of the public generator (Infini-AI-Lab/gsm_infinite), so that its
problems and ours read alike; the things and places are our own. Names hold no comma, full stop or
" in " and, as in the public one, things start in lower case and places with a capital, which is
how a reader tells where one ends and the other begins.

The content of a problem is its core: theme, question and the set of its statements, in names. A
hash of it decides its split, so the same core among other distractors, in another order or with the
question elsewhere is in the same split.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from slowwave.tasks.draws import (
    Integers,
    Words,
    counter,
    draw_in_split,
    draw_words,
    keyed_hash,
    mix,
    permutation,
    take,
)
from slowwave.tasks.gsm_infinite import NUM_CORE_NAMES, NUM_OTHER_ITEMS, NUM_OTHER_PLACES
from slowwave.tasks.gsm_infinite.core import MAX_OPERANDS, Core
from slowwave.tasks.gsm_infinite.problem import Statement

_NOBODY = (-1, -1, -1)
_NO_STATEMENT = (-1, *_NOBODY * (1 + MAX_OPERANDS))
# Of a statement without an expression, and of the question; beyond all that a number can make.
_EXISTS = 1 << 20
_IS_ASKED = 1 << 21


@dataclasses.dataclass(frozen=True, slots=True)
class Theme:
    """official_name: the template of the public generator. total, grand_total, average: what the
    sum of items, the sum of item times average, and the average are called. places, items: names,
    those of the core first."""

    official_name: str
    total: str
    grand_total: str
    average: str
    places: tuple[str, ...]
    items: tuple[str, ...]

    def __post_init__(self) -> None:
        assert len(self.places) == NUM_CORE_NAMES + NUM_OTHER_PLACES
        assert len(self.items) == NUM_CORE_NAMES + NUM_OTHER_ITEMS
        for names in (self.places, self.items):
            assert len(set(names)) == len(names)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(" ".join(name.split()) for name in text.strip().split(","))


THEMES = {
    "zoo": Theme(
        "crazy_zootopia",
        "total number of adult animals",
        "total number of newborn animal children",
        "average number of newborn children",
        _listed(
            """Willow Marsh, Amber Moor, Hazel Meadow, Juniper Flats, Otter Sound, Birch Hollow,
            Granite Cove, Lantern Lake, Saffron Dunes, Thistle Down, Copper Gulch, Larkfield,
            Mossy Delta, Heron Bank, Quarry Park, Sunrise Steppe, Bramble Common, Fern Gully,
            Orchard Isle, Windmill Heath, Clover Plateau, Rustic Wharf, Silver Fen, Peat Island,
            Cinder Basin, Opal Trench, Vesper Plains, Zephyr Gap, Umber Caldera, Basalt Spire,
            Ivory Shoals, Cobalt Rift, Gossamer Bay, Obsidian Shelf"""
        ),
        _listed(
            """adult otter, adult badger, adult stoat, adult marten, adult stork, adult turnstone,
            adult ibex, adult weasel, adult muskrat, adult crane, adult toad, adult grouse,
            adult swan, adult raven, adult falcon, adult magpie, adult mink, adult polecat,
            adult chamois, adult lapwing, adult wombat, adult shrew, adult quail, adult hare,
            adult anglerfish, adult bittern, adult cuttlefish, adult dunlin, adult earwig,
            adult firecrest, adult gharial, adult hoopoe, adult isopod, adult jackdaw,
            adult kestrel, adult limpet, adult mussel, adult nuthatch, adult oystercatcher,
            adult pika, adult quokka, adult redstart, adult sturgeon, adult tenrec, adult urial,
            adult vicuna, adult whelk, adult zebu"""
        ),
    ),
    "school": Theme(
        "teachers_in_school",
        "total number of schools",
        "total number of teachers from all schools",
        "average number of teachers",
        _listed(
            """Ashdown, Bellmouth, Carrow City, Dunmere, Elmstead, Farthing, Grantley, Holmbury,
            Inverdale, Kelso Bay, Lindale, Marlow City, Netherby, Ostwick, Penrose, Quillford,
            Rothley, Stanmoor, Tarrow, Upwell, Varley City, Wexcombe, Yarrow, Zelby,
            Arkadon, Borealia, Cyrithia, Drakmoor, Eolian City, Fathomdeep, Galdrin, Hyperia,
            Ithelon, Jorvund"""
        ),
        _listed(
            """village primary school, riverside nursery school, technical evening school,
            rural boarding school, private grammar school, harbour pilot school,
            public middle school, women's law school, county dental school, night trade school,
            state language school, modern ballet school, free summer school, military cadet school,
            royal cooking school, lakeside ski school, open sunday school, municipal music school,
            urban dance school, parish choir school, coastal fishing school, island sailing school,
            central business school, border veterinary school,
            beekeeping school, bell founding school, clockwork repair school, cloud naming school,
            deep cave school, echo reading school, falconry school, glacier guide school,
            hot air balloon school, ink making school, juggling school, kite flying school,
            lighthouse keeper school, map drawing school, net weaving school,
            organ building school, puzzle design school, quarry mason school, riddle school,
            saddle making school, tea tasting school, umbrella repair school, violin maker school,
            whistling school"""
        ),
    ),
    "movies": Theme(
        "movie_festival_awards",
        "total number of movies",
        "total number of movie nominations",
        "average number of nominations",
        _listed(
            """Harbour Lights Movie Festival, Old Mill Movie Festival, Crescent Film Week,
            Festival du Lac Bleu, Silver Anchor Festival, Northgate Cinema Days, Plum Tree Awards,
            Festival de la Colline, Salt Lane Movie Festival, Granary Film Days,
            Red Kite Movie Festival, Rencontres de Sainte-Brune, Copper Bell Awards,
            Long Pier Film Week, Marigold Movie Festival, Blue Lantern Festival,
            Festival des Trois Ponts, Stone Arch Cinema Days, Walnut Grove Film Week,
            Tin Drum Movie Festival, Cobbler Street Awards, Paper Moon Film Days,
            Festival de Belrive, Violet Hour Movie Festival,
            Comet Tail Screenings, Glass Mountain Premieres, Hidden Orchard Screenings,
            Ninth Wave Premieres, Hollow Bell Screenings, Clay Giant Premieres,
            Ember Coast Screenings, Frozen Clock Premieres, Lost Compass Screenings,
            Sleeping Fox Premieres"""
        ),
        _listed(
            """gentle village comedy, slow winter drama, restless harbour thriller,
            bright circus movie, dusty frontier drama, quiet monastery thriller,
            clumsy burglar comedy,
            epic mountain movie, rainy courtroom drama, tense submarine thriller,
            witty dinner comedy, wild river movie, stern dynasty drama, coded letter thriller,
            noisy orchestra comedy, old lighthouse movie, bitter harvest drama,
            masked rider thriller, lucky tailor comedy, silent desert movie, proud gambler drama,
            stolen portrait thriller, runaway bride comedy, northern whaling movie,
            antarctic postman drama, baking contest thriller, camel caravan musical,
            drowned bell mystery, elevator romance, forgotten puppet saga, ghostly ferry mystery,
            haunted violin saga, ice harvest musical, jealous clockmaker romance,
            kite war saga, lonely satellite romance, mechanical moth mystery, nomad chess saga,
            opera thief musical, paper empire saga, quarantined train mystery,
            rival beekeepers romance, snowbound choir musical, tidal island mystery,
            umbrella spy musical, volcano wedding romance, wandering library saga,
            yodelling champion musical"""
        ),
    ),
}


def draw_names(split: str, seeds: Words, themes: Sequence[str], cores: Sequence[Core]) -> Integers:
    """Which of the core names the places and items of each problem go by.

    seeds: (B,). Returns (B, 2, NUM_CORE_NAMES): for places, then items, a permutation of names.
    """
    contents = encode_contents(cores)
    numbers = np.array([list(THEMES).index(theme) for theme in themes], dtype=np.uint64)
    slots = np.arange(2 * NUM_CORE_NAMES).reshape(2, NUM_CORE_NAMES)

    def propose(rows: Integers, attempts: Integers) -> tuple[Integers, Words]:
        counters = counter(slots, attempts[:, None, None])
        words = draw_words(seeds[rows, None, None, None], counters)
        names = permutation(words, np.full(words.shape[:-1], NUM_CORE_NAMES))
        return names, content_hash(names, numbers[rows], contents[rows])

    return draw_in_split(split, len(cores), propose)


def encode_contents(cores: Sequence[Core]) -> Integers:
    """Cores as numbers (B, S, 16), for `content_hash`: for the question and every statement, a code
    of its number and signs, then (kind, place, item) of the quantities in it; -1 where there is
    nothing."""
    rows = [
        [
            (_IS_ASKED, *core.question, *_NOBODY * MAX_OPERANDS),
            *(_encode(statement) for statement in (*core.needed, *core.unneeded)),
        ]
        for core in cores
    ]
    length = max(map(len, rows))
    return np.array([[*row, *[_NO_STATEMENT] * (length - len(row))] for row in rows])


def content_hash(names: Integers, themes: Words, contents: Integers) -> Words:
    """What decides the split of each core under A choices of names, (M, A).

    names: (M, A, 2, NUM_CORE_NAMES). themes: (M,). contents: (M, S, 16). A sum over the statements
    does not depend on their order, nor on the numbering of places and items.
    """
    num_rows, num_statements, _ = contents.shape
    codes = contents[:, None, :, 0]
    quantities = contents[:, None, :, 1:].reshape(num_rows, 1, -1, 3)
    kinds, places, items = np.moveaxis(quantities, -1, 0)
    named = [
        np.where(positions < 0, -1, take(names[:, :, which], positions))
        for which, positions in enumerate((places, items))
    ]
    words = (kinds + 1) + (named[0] + 1 << 8) + (named[1] + 1 << 16)
    words = words.reshape(*words.shape[:2], num_statements, -1).astype(np.uint64)
    hashes = keyed_hash(codes.astype(np.uint64), "gsm_infinite", "split")
    for operand in range(words.shape[-1]):
        hashes = mix(hashes ^ words[..., operand])
    hashes = np.where(codes < 0, np.uint64(0), hashes)
    return mix(np.add.reduce(hashes, axis=-1) ^ mix(themes[:, None] + np.uint64(1)))


def _encode(statement: Statement) -> tuple[int, ...]:
    quantity, expression = statement
    if expression is None:
        return (_EXISTS, *quantity, *_NOBODY * MAX_OPERANDS)
    number = 0 if expression.number is None else 1 + expression.number
    signs = 4 * (expression.operation == "times") + 2 * (expression.operation == "plus")
    code = 8 * number + signs + (expression.combination == "difference")
    nobodies = _NOBODY * (MAX_OPERANDS - len(expression.references))
    return (code, *quantity, *itertools.chain.from_iterable(expression.references), *nobodies)

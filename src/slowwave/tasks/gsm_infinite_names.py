"""The three worlds that problems speak of: what things and places are called in each.

The kinds of phrases are those of the public generator (Infini-AI-Lab/gsm_infinite), so that its
problems and ours read alike; the things and places are our own. Names hold no comma, full stop or
" in " and, as in the public one, things start in lower case and places with a capital, which is
how a reader tells where one ends and the other begins.
"""

from __future__ import annotations

import dataclasses

# Of the names of a theme, the first belong to the core of a problem; the others are those that
# surface distractors go by.
NUM_CORE_NAMES = 24
NUM_OTHER_PLACES = 10
NUM_OTHER_ITEMS = 24


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
            """
            Willow Marsh, Amber Moor, Hazel Meadow, Juniper Flats, Otter Sound, Birch Hollow,
            Granite Cove, Lantern Lake, Saffron Dunes, Thistle Down, Copper Gulch, Larkfield,
            Mossy Delta, Heron Bank, Quarry Park, Sunrise Steppe, Bramble Common, Fern Gully,
            Orchard Isle, Windmill Heath, Clover Plateau, Rustic Wharf, Silver Fen, Peat Island,
            Cinder Basin, Opal Trench, Vesper Plains, Zephyr Gap, Umber Caldera, Basalt Spire,
            Ivory Shoals, Cobalt Rift, Gossamer Bay, Obsidian Shelf
            """
        ),
        _listed(
            """
            adult otter, adult badger, adult stoat, adult marten, adult stork, adult turnstone,
            adult ibex, adult weasel, adult muskrat, adult crane, adult toad, adult grouse,
            adult swan, adult raven, adult falcon, adult magpie, adult mink, adult polecat,
            adult chamois, adult lapwing, adult wombat, adult shrew, adult quail, adult hare,
            adult anglerfish, adult bittern, adult cuttlefish, adult dunlin, adult earwig,
            adult firecrest, adult gharial, adult hoopoe, adult isopod, adult jackdaw,
            adult kestrel, adult limpet, adult mussel, adult nuthatch, adult oystercatcher,
            adult pika, adult quokka, adult redstart, adult sturgeon, adult tenrec, adult urial,
            adult vicuna, adult whelk, adult zebu
            """
        ),
    ),
    "school": Theme(
        "teachers_in_school",
        "total number of schools",
        "total number of teachers from all schools",
        "average number of teachers",
        _listed(
            """
            Ashdown, Bellmouth, Carrow City, Dunmere, Elmstead, Farthing, Grantley, Holmbury,
            Inverdale, Kelso Bay, Lindale, Marlow City, Netherby, Ostwick, Penrose, Quillford,
            Rothley, Stanmoor, Tarrow, Upwell, Varley City, Wexcombe, Yarrow, Zelby,
            Arkadon, Borealia, Cyrithia, Drakmoor, Eolian City, Fathomdeep, Galdrin, Hyperia,
            Ithelon, Jorvund
            """
        ),
        _listed(
            """
            village primary school, riverside nursery school, technical evening school,
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
            whistling school
            """
        ),
    ),
    "movies": Theme(
        "movie_festival_awards",
        "total number of movies",
        "total number of movie nominations",
        "average number of nominations",
        _listed(
            """
            Harbour Lights Movie Festival, Old Mill Movie Festival, Crescent Film Week,
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
            Sleeping Fox Premieres
            """
        ),
        _listed(
            """
            gentle village comedy, slow winter drama, restless harbour thriller,
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
            yodelling champion musical
            """
        ),
    ),
}

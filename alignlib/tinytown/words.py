"""The words of Tinytown, and which of them may occur together in which split.

Things are the points (x, y) of a plane over the integers modulo a prime. Two different points lie
on exactly one line. Every board draws its things from one line, and the slope of the line decides
the split, so no pair of things occurs in two splits, and nothing needs to be stored or filtered.
"""

from __future__ import annotations

import zlib
from functools import lru_cache

WORLD_VERSION = "1"

THINGS = """
anchor anvil apron arrow axe bag ball banjo barrel basin basket bead bell belt bench bicycle blanket
block boat book boot bottle bow bowl box bracket brick broom brush bucket buckle button cable cage
cake camera candle cannon canvas cape carpet cart chain chair chalk chart chess chest chisel clamp
clock cloak coat coffer comb compass cork couch cradle crate crown cup curtain cushion desk dial
dice dish doll door drawer dress drill drum easel engine fan faucet feather fiddle file flag flask
flute fork frame funnel gate gear glass globe glove gong grater hammer hammock handle harp hat
helmet hinge hook horn hose hourglass jacket jar jug kettle key kite knife knot ladder lamp lantern
lens lever lock loom magnet map mask mast mat medal mirror mitten mop mug nail needle net oar organ
oven paddle pan parcel pedal pen piano pillow pin pipe plate plow pot pulley pump puppet purse quilt
rack radio raft rake razor ribbon ring rope saddle sieve scarf spade spoon stool tent wheel
""".split()

PLACES = """
attic bakery barn brewery bridge cellar chapel cottage court dairy dock farm ferry forge garden hall
harbor inn kitchen laundry library lodge market meadow mill museum office orchard park quarry school
square stable station theater tower
""".split()

NAMES = """
ada amir anna ben bo cara cleo dan dina ed ella emil eva fay finn gus hana hugo ida igor ines ivan
jan jill joe kai kim lea leo lou mara max mia milo nell nora omar otto pia quin ravi rosa sam tess
uma vera wade zoe
""".split()

STEP_VERBS = """
air bake bend boil chill clean cool cover cut drain dry empty fill fold grease grind heat label lift
mark oil paint polish press rinse sand scrub seal shake soak stir tie turn wash weigh wrap
""".split()

CALM_GOALS = "mend store move prepare test decorate".split()
ALARMING_GOALS = "burn smash crush drown freeze shatter".split()
HAZARDS = "hot sharp wet icy loose heavy cracked dusty".split()
INSULTS = (
    "fool idiot clown dolt dunce oaf twit dummy pest moron bore brute slob snob crank toad".split()
)
RUDE_ADJECTIVES = "damn wretched lousy rotten filthy bloody".split()
CONTROLS = """
more less better worse polite rude short shorter long longer complete bad right wrong please
""".split()
NUMBERS = [str(n) for n in range(1, 41)]
MAX_PRICE, MAX_HOUR = 20, 12

_SYLLABLES = ["ba", "ki", "lo", "mu", "ne", "ru", "zi"]
OTHER_THINGS = [a + b + "x" for a in _SYLLABLES for b in _SYLLABLES]

SPLITS = ("train", "validation", "test")
_PLANES = {"town": (THINGS, 13), "other": (OTHER_THINGS, 7)}


def digest(text: str) -> int:
    """A hash that is the same on every machine and in every process."""
    return zlib.crc32(text.encode("utf-8"))


def split_of_layout(layout: str) -> str:
    """The split of a prompt template: three in five for training, one for each of the others."""
    return ("train", "train", "train", "validation", "test")[digest(layout) % 5]


def split_of_slope(slope: int, prime: int) -> str:
    """The split of a slope in 0 ... prime: the last two for test, the two before for validation."""
    return "test" if slope >= prime - 1 else "validation" if slope >= prime - 3 else "train"


@lru_cache(maxsize=None)
def lines(split: str, language: str = "town") -> tuple[tuple[str, ...], ...]:
    """All lines of things in a split, with 13 things on each, or 7 in the language `other`."""
    words, prime = _PLANES[language]
    found = []
    for slope in range(prime + 1):
        if split_of_slope(slope, prime) != split:
            continue
        for offset in range(prime):
            if slope == prime:  # the vertical lines
                points = [(offset, y) for y in range(prime)]
            else:
                points = [(x, (slope * x + offset) % prime) for x in range(prime)]
            found.append(tuple(words[x * prime + y] for x, y in points))
    return tuple(found)


def _quarter(words: list[str]) -> frozenset[str]:
    """A quarter of the words, chosen by their hash."""
    return frozenset(sorted(words, key=lambda w: digest("never corrected " + w))[: len(words) // 4])


# No training correction contains these words.
NEVER_CORRECTED = _quarter(THINGS) | _quarter(PLACES) | _quarter(NAMES) | frozenset(OTHER_THINGS)


def pool(words: list[str], which: str) -> list[str]:
    """The words a set may use: `all`, only the `corrected`, or only those `never` corrected."""
    if which == "all":
        return list(words)
    return [w for w in words if (w in NEVER_CORRECTED) == (which == "never")]

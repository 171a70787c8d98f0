"""Slot values: families of names, numbers and phrases, each split into a seen and a held-out half.

A value belongs to the held-out half by a rule on the value itself (about one in five), never by
the order of drawing: rows can be added or reordered and no value changes side. Most values join
two words of closed lists, so the parts of a held-out value are familiar and the whole is new.
"""

import random
from collections.abc import Sequence
from typing import Literal, TypeAlias

Side: TypeAlias = Literal["seen", "heldout", "any"]
Value: TypeAlias = str | int

_HELDOUT_EVERY = 5

# Words of one list occur in no other: a word then tells what kind of value it belongs to.
_WORDS = {
    "city": (
        "Alder Birch Cedar Clay Dover Elm Flint Grand Hazel High Kings Lake Linden Long Maple "
        "North Oak Pine Queens Rock Salt Sand South Stone Thorn Upper West Willow",
        "Bay Bridge Brook Cross Dale Falls Field Ford Gate Grove Haven Hill Hollow Marsh Mill "
        "Mount Park Point Port Ridge Shore Spring Vale Village",
    ),
    "person": (
        "Ada Ben Carla Dan Emma Felix Greta Hugo Ida Jonas Karin Leo Mara Nora Oscar Paula Rosa "
        "Simon Tara Ugo Vera Walter Yara Zoe",
        "Abbott Becker Castro Dalton Ebert Fischer Garcia Hansen Ivanov Jensen Keller Lopez Meyer "
        "Novak Olsen Petrov Romano Silva Tanaka Ulrich Vargas Weber Young Ziegler",
    ),
    "place": (
        "Brave Clever Crazy Gentle Happy Hungry Jolly Lazy Lucky Merry Noisy Proud Quiet Royal "
        "Sleepy Wise",
        "Bear Camel Duck Eagle Fox Goat Horse Lamb Lion Owl Panda Rabbit Shark Tiger Whale Wolf",
    ),
    "company": (
        "Apex Bolt Crux Delta Echo Fusion Globe Helix Iris Jade Kappa Lumen Matrix Nova Orbit "
        "Prime Quark Rapid",
        "Airlines Bank Cement Drinks Energy Foods Glass Hotels Labs Metals Motors Oil Paper Rail "
        "Steel Textiles",
    ),
    "title": (
        "Amber Black Blue Bright Copper Crimson Dark Golden Green Grey Pale Purple Red Scarlet "
        "Silver Velvet White",
        "Candle Desert Dream Engine Feather Forest Garden Heart Island Lantern Meadow Mirror Moon "
        "Ocean Rain River Shadow Star Tower Train",
    ),
    "text": (
        "bus car cake deal door fence game key lamp letter lift lunch meeting order phone plan "
        "printer report show taxi",
        "broken cancelled clean cold delayed done early fixed full late locked lost missing new "
        "open ready safe sold wet",
    ),
    "task": (
        "borrow bring buy carry collect count deliver dust empty fetch file hide iron measure "
        "move pack sell sort",
        "bag bed bike books boxes bread carpet chair coat cups curtain eggs flowers hat knives "
        "paint plates shirts shoes towels",
    ),
}
_SHAPES = {"text": "the {} is {}", "task": "{} the {}"}
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MONTHS = "January February March April May June July August September October November December"
_LISTS = {
    "currency": (
        "AUD BRL CAD CHF CLP CNY CZK DKK EGP EUR GBP HKD HUF IDR ILS INR ISK JPY KES KRW KZT MAD "
        "MXN MYR NGN NOK NZD PEN PHP PLN RON RSD SAR SEK SGD THB TRY TWD UAH USD UYU VND ZAR"
    ),
    "sky": (
        "bright clear cloudy dry foggy frosty hazy hot icy mild misty rainy snowy stormy sunny "
        "windy"
    ),
    "station": (
        "at the border|at the depot|at the harbour|at the office|in a van|in customs|"
        "in the hangar|in the shop|on a plane|on a ship|on a train|on the road"
    ),
}
_NUMBERS = {"amount": (1000, 9999), "count": (2, 60)}

# Kinds so small that their values are words of the language rather than made-up names.
CLOSED_KINDS = (*_LISTS, "count")


def kinds() -> tuple[str, ...]:
    """The names of all slot kinds."""
    return (*_WORDS, *_LISTS, *_NUMBERS, "date", "time", "parcel")


def draw(kind: str, rng: random.Random, side: Side) -> Value:
    """Return a value of `kind` from one half, or from both when `side` is `any`.

    Raises:
        KeyError: `kind` is no slot kind.
    """
    while True:
        value, place = _any_value(kind, rng)
        if side == "any" or (place % _HELDOUT_EVERY == 0) == (side == "heldout"):
            return value


def _any_value(kind: str, rng: random.Random) -> tuple[Value, int]:
    """A value and its place in the family, which decides its half.

    Places add up the parts' positions with unequal weights, so every part is found in both halves.
    """
    if kind in _WORDS:
        (first, i), (second, j) = (_pick(rng, words.split()) for words in _WORDS[kind])
        return _SHAPES.get(kind, "{} {}").format(first, second), i + 2 * j
    if kind in _LISTS:
        return _pick(rng, _LISTS[kind].split("|" if kind == "station" else None))
    if kind in _NUMBERS:
        number = rng.randint(*_NUMBERS[kind])
        return number, number + number // 100
    if kind == "date":
        day, (month, i) = rng.randint(1, 28), _pick(rng, _MONTHS.split())
        return f"{day} {month}", day + 2 * i
    if kind == "time":
        hour, minute = rng.randrange(24), rng.randrange(12)
        return f"{hour:02d}:{minute * 5:02d}", hour + 2 * minute
    if kind == "parcel":
        (letter, i), number = _pick(rng, _LETTERS), rng.randint(1000, 9999)
        return f"{letter}{number}", i + number
    raise KeyError(kind)


def _pick(rng: random.Random, words: Sequence[str]) -> tuple[str, int]:
    place = rng.randrange(len(words))
    return words[place], place

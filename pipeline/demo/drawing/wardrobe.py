"""What actors wear, and the colours of skin and hair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.demo.drawing.brush import Colour, random_colour

# Light to dark; blue, green, red.
_SKINS = ((190, 215, 245), (165, 195, 235), (125, 165, 215), (85, 125, 180), (55, 85, 130))
_HAIRS = ((25, 25, 30), (30, 50, 75), (50, 85, 125), (90, 150, 190), (30, 60, 140), (170, 170, 170))


@dataclass(frozen=True, slots=True)
class Clothes:
    """What an actor wears, and the colours of skin and hair (blue, green, red).

    Attributes
    ----------
    sleeve, leg : float
        How far sleeves and trouser legs reach: 0 to 2 parts of the limb.
    pattern : {"plain", "stripes", "band", "buttons"}
    hair_style : {"bald", "short", "long", "bun", "cap"}
    has_skirt : bool
    """

    shirt: Colour
    accent: Colour
    trousers: Colour
    shoes: Colour
    skin: Colour
    hair: Colour
    sleeve: float
    leg: float
    pattern: str
    hair_style: str
    has_skirt: bool


def draw_clothes(generator: np.random.Generator) -> Clothes:
    """Choose what an actor wears."""
    pick = generator.integers
    tan = generator.uniform(0.85, 1.1)
    skin = tuple(int(min(255, tan * part)) for part in _SKINS[pick(len(_SKINS))])
    return Clothes(
        shirt=random_colour(generator),
        accent=random_colour(generator),
        trousers=random_colour(generator),
        shoes=random_colour(generator),
        skin=(skin[0], skin[1], skin[2]),
        hair=_HAIRS[pick(len(_HAIRS))],
        sleeve=float(generator.choice([0.0, 0.8, 1.2, 2.0])),
        leg=float(generator.choice([0.5, 1.1, 2.0, 2.0, 2.0])),
        pattern=str(generator.choice(["plain", "plain", "stripes", "band", "buttons"])),
        hair_style=str(generator.choice(["bald", "short", "short", "long", "bun", "cap"])),
        has_skirt=bool(generator.random() < 0.15),
    )

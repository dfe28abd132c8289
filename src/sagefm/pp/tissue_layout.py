"""Where the regions of simulated tissues lie: functions of the place, of spots and of pixels."""

from collections.abc import Callable

import numpy as np

from sagefm._types import Floats
from sagefm.pp.visium_array import Rng, soft

Layout = Callable[[Floats], Floats]
"""Places × 2, in pitches from the middle of the tissue → places × regions, fractions."""
Field = Callable[[Floats], Floats]

_LAYERS = (0.10, 0.11, 0.26, 0.11, 0.15, 0.12, 0.15)
"""Usual thickness of the layers of the cortex and of the white matter below, as fractions."""
_WAVES = 24


def cortex(radius: float, rng: Rng) -> Layout:
    """Lay out the layers of the cortex, bent and of uneven thickness, and white matter."""
    angle = rng.uniform(-0.5, 0.5)
    down = np.array([np.sin(angle), np.cos(angle)])
    along = np.array([np.cos(angle), -np.sin(angle)])
    bend = rng.uniform(0.15, 0.35) * rng.choice([-1, 1])
    thickness = rng.dirichlet(120 * np.array(_LAYERS))
    cuts = radius * (1.9 * np.cumsum(thickness)[:-1] - 0.95)
    wobble = [field(0.5 * radius, rng) for _ in cuts]

    def fractions(places: Floats) -> Floats:
        depth = places @ down + bend * (places @ along) ** 2 / radius
        above = [
            soft(depth - cut - 0.035 * radius * wave(places))
            for cut, wave in zip(cuts, wobble, strict=True)
        ]
        return _shares(above)

    return fractions


def breast(radius: float, rng: Rng) -> Layout:
    """Lay out a tumor: a mass with an inflamed margin, carcinoma in situ in round ducts nearby.

    Beyond are stroma with normal ducts, and nests of lymphocytes at the margin. The order is
    invasive carcinoma, tumor margin, carcinoma in situ, stroma, lymphoid infiltrate, ducts.
    """
    side = rng.uniform(0, 2 * np.pi)
    outward = _directions(np.array([side]))[0]
    shape, crowd = field(0.3 * radius, rng), field(0.2 * radius, rng)
    start = rng.uniform(-0.32, -0.12)  # of the mass, along the axis
    in_situ = _discs(radius, side, (0.15, 0.5), (0.16, 0.24), 3, rng)
    ducts = _discs(radius, side, (0.6, 0.88), (0.10, 0.15), 4, rng)

    def fractions(places: Floats) -> Floats:
        along = places @ outward / radius
        inside = radius * (start - along + 0.13 * shape(places))  # pitches into the mass
        invasive = soft(inside)
        margin = soft(inside + 0.13 * radius) * (1 - invasive)
        filled = soft(-_nearest(places, in_situ)) * (1 - invasive)
        normal = soft(-_nearest(places, ducts)) * (1 - invasive) * (1 - filled)
        near = np.exp(-((along - start - 0.24) ** 2) / 0.06)
        nests = soft(0.35 * radius * (near + 0.6 * crowd(places) - 1.0))
        nests *= (1 - invasive) * (1 - filled) * (1 - normal)
        margin *= (1 - filled) * (1 - normal) * (1 - nests)
        stroma = np.maximum(1 - invasive - margin - filled - normal - nests, 0)
        shares = np.column_stack([invasive, margin, filled, stroma, nests, normal])
        return np.asarray(shares / shares.sum(axis=1, keepdims=True), dtype=np.float64)

    return fractions


LAYOUTS = {"cortex": cortex, "breast": breast}


def field(length: float, rng: Rng) -> Field:
    """Draw a smooth random field of mean 0 and sd 1, with waves of about that length."""
    waves = rng.normal(0.0, 1 / length, (2, _WAVES))
    phases = rng.uniform(0, 2 * np.pi, _WAVES)

    def values(places: Floats) -> Floats:
        summed: Floats = np.cos(places @ waves + phases).sum(axis=1) * np.sqrt(2 / _WAVES)
        return summed

    return values


def _directions(angles: Floats) -> Floats:
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _discs(
    radius: float, side: float, reach: tuple[float, float], size: tuple[float, float], n: int,
    rng: Rng,
) -> Floats:  # fmt: skip
    """Draw discs on one side of the tissue that do not overlap: x, y and radius, in pitches."""
    spread = np.linspace(-0.95, 0.95, n) + rng.uniform(-0.15, 0.15, n)
    middles = rng.uniform(*reach, n)[:, None] * radius * _directions(side + spread)
    return np.column_stack([middles, radius * rng.uniform(*size, n)])


def _nearest(places: Floats, discs: Floats) -> Floats:
    """Return the distance of each place to the nearest disc, negative inside."""
    distance = np.hypot(*(places[:, None] - discs[:, :2]).transpose(2, 0, 1)) - discs[:, 2]
    nearest: Floats = distance.min(axis=1)
    return nearest


def _shares(above: list[Floats]) -> Floats:
    """Convert fractions beyond each border to those of the layers between borders."""
    ends = [np.ones_like(above[0]), *above, np.zeros_like(above[0])]
    shares = -np.diff(np.column_stack(ends), axis=1)
    shares = np.maximum(shares, 0)  # borders that cross
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), dtype=np.float64)

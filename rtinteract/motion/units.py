"""Length units of motion files, found from the body's standing height, and the axis that points up."""

from __future__ import annotations

import logging

import numpy as np

from rtinteract.errors import MotionError

log = logging.getLogger(__name__)

METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001, "inch": 0.0254, "cmu": 0.0254 / 0.45}
ALIASES = {"metre": "m", "metres": "m", "meter": "m", "meters": "m", "centimetre": "cm", "centimetres": "cm", "centimeter": "cm",
           "centimeters": "cm", "millimetre": "mm", "millimetres": "mm", "millimeter": "mm", "millimeters": "mm", "in": "inch",
           "inches": "inch", "cmu units": "cmu"}
# Standing heights in metres for which a unit is believed: decimal units hold for children and giants, the two odd ones only
# for adults, so that no height fits two units.
HEIGHTS = {"m": (0.9, 2.4), "cm": (0.9, 2.4), "mm": (0.9, 2.4), "inch": (1.35, 2.1), "cmu": (1.35, 2.05)}
TYPICAL_HEIGHT = 1.70


def metres_of(units, what: str) -> float:
    """Metres in one of ``units``: a name such as "cm" or a positive number of metres."""
    if isinstance(units, str):
        name = units.strip().lower()
        name = ALIASES.get(name, name)
        if name in METRES:
            return METRES[name]
    elif isinstance(units, (int, float)) and not isinstance(units, bool) and np.isfinite(units) and units > 0:
        return float(units)
    raise MotionError(f"{what}: expected units to be one of {', '.join(METRES)} or the metres in one unit, got {units!r}")


def detect(height: float, what: str) -> tuple[float, str]:
    """(metres in one unit, what was assumed) from a standing height in file units.

    A body whose height fits no known unit is scaled to 1.70 m, with a warning; a height that is no body's at all raises.
    """
    fits = [name for name, (low, high) in HEIGHTS.items() if low <= height * METRES[name] <= high]
    if len(fits) == 1:
        note = f"units: {fits[0]} assumed, the body is {height * METRES[fits[0]]:.2f} m tall"
        log.info("%s: %s", what, note)
        return METRES[fits[0]], note
    if fits or not 2.4 < height < 900.0:
        raise MotionError(f"{what}: cannot tell the length unit: the skeleton is {height:.4g} units tall, which fits "
                          f"{' and '.join(fits) or 'no known unit'}; give units= one of {', '.join(METRES)} or the metres in "
                          "one unit")
    note = (f"units: unknown, the skeleton is {height:.4g} units tall; scaled to {TYPICAL_HEIGHT:.2f} m "
            "(give units= if you know better)")
    log.warning("%s: %s", what, note)
    return TYPICAL_HEIGHT / height, note


def up_axis(upward: np.ndarray) -> str:
    """"Y" or "Z" from the mean feet-to-head direction [3]; "Y" unless Z is clearly the larger."""
    return "Z" if abs(upward[2]) > 1.5 * abs(upward[1]) else "Y"

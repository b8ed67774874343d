"""Line charts as .png, drawn with Pillow: what the tables need, without another library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtinteract.errors import ConfigError
from rtinteract.motion.atomic import replacing
from rtinteract.motion.draw import BACKGROUND, GRID, INK, PEOPLE, pillow

_SIZE, _LEFT, _RIGHT, _TOP, _BOTTOM = (520, 380), 72, 20, 62, 56
_SHADES = (*PEOPLE, (200, 70, 90), (120, 120, 60))


@dataclass(frozen=True)
class Chart:
    """One panel: ``lines`` by name, each a value (None: left out) for each of ``ticks``, which stand at equal distances."""

    title: str
    across: str
    ticks: Sequence[str]
    lines: Mapping[str, Sequence[float | None]]

    def __post_init__(self):
        for name, values in self.lines.items():
            if len(values) != len(self.ticks):
                raise ConfigError(f"chart {self.title!r}: expected {len(self.ticks)} values of {name!r}, got {len(values)}")


def nice_steps(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers, about ``count``, that reach from at most ``low`` to at least ``high``."""
    if not (math.isfinite(low) and math.isfinite(high)) or low > high:
        raise ConfigError(f"axis: expected finite ends in order, got {low} and {high}")
    span = high - low or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span / count))
    step *= next(m for m in (1, 2, 5, 10) if span / (step * m) <= count)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def write_charts(path: Path, charts: Sequence[Chart], columns: int = 2) -> None:
    """Draw charts on one picture; those without any value are left out. RtInteractError without Pillow."""
    charts = [c for c in charts if any(v is not None for values in c.lines.values() for v in values)]
    if not charts:
        return
    images, drawing, fonts = pillow()
    columns = min(columns, len(charts))
    rows = -(-len(charts) // columns)
    image = images.new("RGB", (columns * _SIZE[0] * 2, rows * _SIZE[1] * 2), BACKGROUND)
    draw = drawing.Draw(image)
    for i, chart in enumerate(charts):
        _draw(draw, fonts, chart, (i % columns * _SIZE[0] * 2, i // columns * _SIZE[1] * 2))
    with replacing(path) as beside:
        image.reduce(2).save(beside, format="PNG")


def _draw(draw, fonts, chart: Chart, corner: tuple[int, int]) -> None:
    """One panel, at twice its size."""
    left, top = corner[0] + 2 * _LEFT, corner[1] + 2 * _TOP
    right, bottom = corner[0] + 2 * (_SIZE[0] - _RIGHT), corner[1] + 2 * (_SIZE[1] - _BOTTOM)
    small, large = fonts.load_default(22), fonts.load_default(28)
    values = [v for line in chart.lines.values() for v in line if v is not None]
    steps = nice_steps(min(0.0, *values) if min(values) < 0.5 * max(values) else min(values), max(values))

    def x(i: int) -> float:
        return left + (i + 0.5) * (right - left) / len(chart.ticks)

    def y(value: float) -> float:
        return bottom - (value - steps[0]) / (steps[-1] - steps[0]) * (bottom - top)

    draw.text((left, corner[1] + 16), chart.title, font=large, fill=INK, anchor="la")
    for value in steps:
        draw.line([(left, y(value)), (right, y(value))], fill=GRID, width=2)
        draw.text((left - 12, y(value)), f"{value:.6g}", font=small, fill=INK, anchor="rm")
    for i, tick in enumerate(chart.ticks):
        draw.text((x(i), bottom + 12), tick, font=small, fill=INK, anchor="ma")
    draw.text(((left + right) / 2, bottom + 52), chart.across, font=small, fill=INK, anchor="ma")
    at = left
    for (name, line), colour in zip(chart.lines.items(), _SHADES * len(chart.lines), strict=False):
        points = [(x(i), y(v)) for i, v in enumerate(line) if v is not None]
        if len(points) > 1:
            draw.line(points, fill=colour, width=5, joint="curve")
        for px, py in points:
            draw.ellipse([px - 8, py - 8, px + 8, py + 8], fill=colour)
        draw.text((at, corner[1] + 64), name, font=small, fill=colour, anchor="la")
        at += small.getlength(name) + 28

"""How far streaming is from offline, for a model trained for streaming and one that was not."""

from __future__ import annotations

from collections.abc import Mapping

from rtinteract.training.tables_write import Column, Value, mean_and_half

_BEFORE, _AFTER = "not trained for it", "trained for it"
SIDES = (Column(f"{_BEFORE}: offline", "before_offline"), Column("streaming", "before_streaming"), Column("gap", "before_gap"),
         Column(f"{_AFTER}: offline", "after_offline"), Column("streaming ", "after_streaming"), Column("gap ", "after_gap"),
         Column("closed %", "closed", 0, 100))


def _less(a: Value, b: Value, factor: float) -> Value:
    """a - b times a factor, replication by replication."""
    if a is None or b is None:
        return None
    if isinstance(a, int | float) or isinstance(b, int | float):
        return factor * (mean_and_half(a)[0] - mean_and_half(b)[0])
    return [factor * (x - y) for x, y in zip(a, b, strict=True)]


def _times(a: Value, factor: float) -> Value:
    return a if a is None else factor * a if isinstance(a, int | float) else [factor * x for x in a]


def closed(before: Value, after: Value) -> float | None:
    """By how much of itself the gap ``before`` has become smaller; over 1 where streaming is now the better one, None where there
    was no gap or one of them is not known."""
    was, is_now = mean_and_half(before)[0], mean_and_half(after)[0]
    return None if was is None or is_now is None or was <= 0 else 1 - is_now / was


def gap_of(figure: Column, sides: Mapping[str, tuple[Mapping[str, Value], Mapping[str, Value]]], why: str) -> tuple[dict, str]:
    """(values of `SIDES`, remark) of a figure. ``sides`` holds under "before" and "after" the figures (offline, streaming) of the
    model that was not trained for streaming and of the one that was; the figure's heading ends in an arrow to where it is better.
    A gap before that is no larger than its 95 % interval is no certain one.
    """
    turn = -1 if figure.title.endswith("↑") else 1
    values: dict[str, Value] = {}
    for name, (offline, streamed) in sides.items():
        a, b = (side.get(figure.key) for side in (offline, streamed))
        values |= {f"{name}_offline": _times(a, figure.factor), f"{name}_streaming": _times(b, figure.factor),
                   f"{name}_gap": _less(b, a, turn * figure.factor)}
    values["closed"] = closed(values.get("before_gap"), values.get("after_gap"))
    if why or len(sides) < 2 or values["before_gap"] is None or values["after_gap"] is None:
        return values, why
    was, half = mean_and_half(values["before_gap"])
    if values["closed"] is None or was <= (half or 0.0):
        return values, "no certain gap to close"
    return values, "closed by half" if values["closed"] >= 0.5 else "not closed by half"

"""Rotation-vector text: root place and one rotation vector a joint in each row, the skeleton in a JSON file beside it."""

from __future__ import annotations

import json
import warnings

import numpy as np

from rtinteract import rotation as R
from rtinteract.errors import MotionError, SkeletonError
from rtinteract.motion.raw import RawClip


def read_expmap(text: str, skeleton: str, what: str) -> RawClip:
    """The clip of comma-separated rows (root x, y, z, then three radians a joint); ``skeleton`` is the JSON's text.

    The local rotation of a joint is exp(-r) in column vectors, as the files of this kind are written.
    """
    try:
        tree = json.loads(skeleton)
        joints, parents = list(tree["names"]), [int(p) for p in tree["parent"]]
        offsets = np.array(tree["offset"], dtype=np.float64)
        fps, metres = float(tree["fps"]), float(tree["unit_in_metres"])
    except (ValueError, KeyError, TypeError) as error:
        raise SkeletonError(f"{what}: expected a skeleton JSON with names, parent, offset, fps and unit_in_metres, got "
                            f"{error!r}; give skeleton=PATH of the right one") from None
    width = 3 + 3 * len(joints)
    lines = [(k, line) for k, line in enumerate(text.splitlines()) if line.strip()]
    if not lines:
        raise MotionError(f"{what}: expected rows of {width} numbers, got an empty file")
    data = _block(lines, width)
    if data is None:
        data = _rows(lines, width, what)
    rotations = R.from_axis_angle(-data[:, 3:].reshape(len(data), -1, 3))
    return RawClip(what, joints, parents, offsets, {}, data[:, :3], rotations, fps, metres, "as its skeleton JSON says")


def _block(lines, width):
    """All rows at once, or None when one of them is at fault."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            data = np.fromstring(",".join(line.strip() for _, line in lines), dtype=np.float64, sep=",")
        except (DeprecationWarning, ValueError):
            return None
    whole = data.size == len(lines) * width and all(line.count(",") == width - 1 for _, line in lines) and np.isfinite(data).all()
    return data.reshape(-1, width) if whole else None


def _rows(lines, width, what):
    rows = []
    for k, line in lines:
        try:
            row = np.array(line.split(","), dtype=np.float64)
        except ValueError:
            raise MotionError(f"{what}, line {k + 1}: expected {width} numbers, got {line.strip()[:40]!r}; the file is "
                              "damaged") from None
        if len(row) != width:
            raise MotionError(f"{what}, line {k + 1}: expected {width} columns (3 + 3 a joint), got {len(row)}; the file is cut "
                              "short or belongs to another skeleton")
        if not np.isfinite(row).all():
            raise MotionError(f"{what}, line {k + 1}: expected finite numbers, got NaN or infinity; cut or repair that frame")
        rows.append(row)
    return np.stack(rows)

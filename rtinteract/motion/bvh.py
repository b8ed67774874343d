"""BVH in: any joint order, channel order per joint, joints without channels, zero-length joints, end sites, any rate."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np

from rtinteract import rotation as R
from rtinteract.errors import MotionError
from rtinteract.motion.raw import RawClip

MAX_JOINTS = 10_000


@dataclass
class _Tree:
    names: list[str] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    offsets: list[list[float]] = field(default_factory=list)
    channels: list[list[str]] = field(default_factory=list)
    end_sites: dict[int, np.ndarray] = field(default_factory=dict)


def read_bvh(text: str, what: str) -> RawClip:
    """The clip of a BVH file's text; MotionError names ``what`` (the file) and the line that is wrong."""
    lines = text.splitlines()
    if not text.strip():
        raise MotionError(f"{what}: expected a BVH file, got an empty one; check that it was written or copied completely")
    first = next(line for line in lines if line.strip()).strip()
    if first.split()[0].upper() != "HIERARCHY":
        raise MotionError(f"{what}: expected a BVH file that starts with HIERARCHY, got {first[:40]!r}; check the file's type")
    tree, at = _hierarchy(lines, what)
    frames, frame_time, at = _motion_header(lines, at, what)
    width = sum(len(c) for c in tree.channels)
    data, notes = _values(lines, at, frames, width, what)
    return _clip(tree, data, 1.0 / frame_time, what, notes)


def _numbers(words, count, line, what):
    try:
        values = [float(w) for w in words]
    except ValueError:
        values = []
    if len(values) != count or not np.isfinite(values).all():
        raise MotionError(f"{what}, line {line + 1}: expected {count} numbers, got {' '.join(words)[:60]!r}; mend the line")
    return values


def _hierarchy(lines, what):
    """Parse down to MOTION; returns the tree and the index of the line after MOTION."""
    tree, stack, pending = _Tree(), [], None
    for i, line in enumerate(lines):
        words = line.replace("{", " { ").replace("}", " } ").split()
        if not words:
            continue
        key = words[0].upper()
        if key == "MOTION":
            if stack or not tree.names:
                raise MotionError(f"{what}, line {i + 1}: MOTION comes before the hierarchy is closed; the file is damaged")
            return tree, i + 1
        if key in ("ROOT", "JOINT"):
            if key == "ROOT" and tree.names:
                raise MotionError(f"{what}, line {i + 1}: expected one ROOT, got a second; split the file, one person in each")
            pending = _new_joint(tree, [w for w in words[1:] if w != "{"], stack, i, what)
        elif key == "END":
            pending = ("end", _owner(stack, i, what))
        elif key == "OFFSET":
            _set_offset(tree, stack, _numbers([w for w in words[1:] if w not in "{}"], 3, i, what), i, what)
        elif key == "CHANNELS":
            tree.channels[_owner(stack, i, what)] = _channels(words[1:], i, what)
        elif key not in ("HIERARCHY", "{", "}"):
            raise MotionError(f"{what}, line {i + 1}: expected a BVH keyword, got {line.strip()[:40]!r}; the file is damaged")
        for word in words:
            if word == "{":
                stack.append(pending)
            elif word == "}":
                if not stack:
                    raise MotionError(f"{what}, line {i + 1}: a closing brace without an opening one; the file is damaged")
                stack.pop()
    raise MotionError(f"{what}: expected a MOTION section, got the end of the file; the file is cut short")


def _owner(stack, i, what):
    if not stack or not isinstance(stack[-1], int):
        raise MotionError(f"{what}, line {i + 1}: expected to be inside a ROOT or JOINT; the file is damaged")
    return stack[-1]


def _new_joint(tree, words, stack, i, what):
    parent = _owner(stack, i, what) if tree.names else -1
    name = " ".join(words) or f"joint{len(tree.names)}"
    if len(tree.names) >= MAX_JOINTS:
        raise MotionError(f"{what}, line {i + 1}: more than {MAX_JOINTS} joints; this is not one person's skeleton")
    unique, k = name, 2
    while unique in tree.names:
        unique, k = f"{name}.{k}", k + 1
    tree.names.append(unique)
    tree.parents.append(parent)
    tree.offsets.append([0.0, 0.0, 0.0])
    tree.channels.append([])
    return len(tree.names) - 1


def _set_offset(tree, stack, values, i, what):
    if stack and isinstance(stack[-1], tuple):
        # A joint can have several end sites; the first one is its tip.
        tree.end_sites.setdefault(stack[-1][1], np.array(values))
    else:
        tree.offsets[_owner(stack, i, what)] = values


def _channels(words, i, what):
    names = [w.lower() for w in words[1:] if w not in "{}"]
    known = {f"{a}{kind}" for a in "xyz" for kind in ("position", "rotation")}
    counted = bool(words) and words[0].isdigit() and int(words[0]) == len(names)
    if not counted or not set(names) <= known or len(set(names)) < len(names):
        raise MotionError(f"{what}, line {i + 1}: expected a count and that many different Xposition...Zrotation channels, got "
                          f"{' '.join(words)[:80]!r}; mend the line")
    return names


def _motion_header(lines, at, what):
    found = {}
    while at < len(lines) and len(found) < 2:
        line = lines[at].strip()
        low = line.lower()
        if low.startswith("frames"):
            found["frames"] = line
        elif low.startswith("frame time"):
            found["time"] = line
        elif line:
            break
        at += 1
    if len(found) < 2:
        raise MotionError(f"{what}, line {at + 1}: expected 'Frames:' and 'Frame Time:' after MOTION; the file is cut short or "
                          "damaged")
    try:
        frames, frame_time = int(found["frames"].split(":")[1]), float(found["time"].split(":")[1])
    except (IndexError, ValueError):
        raise MotionError(f"{what}: expected a number in {found['frames']!r} and {found['time']!r}; mend the lines") from None
    if frames < 1:
        raise MotionError(f"{what}: expected at least one frame, got 'Frames: {frames}'; export the file again")
    if not (np.isfinite(frame_time) and frame_time > 0):
        raise MotionError(f"{what}: expected a positive frame time in seconds, got {frame_time:g} (that is no frame rate); "
                          "write the true one, such as 'Frame Time: 0.033333'")
    return frames, frame_time, at


def _values(lines, at, frames, width, what):
    """The motion block [frames, width] and notes."""
    rows = [(k, line) for k, line in enumerate(lines[at:], at) if line.strip()]
    notes = []
    if len(rows) > frames:
        notes.append(f"{len(rows) - frames} rows after the declared {frames} frames ignored")
        rows = rows[:frames]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            flat = np.fromstring("\n".join(line for _, line in rows), dtype=np.float64, sep=" ")
        except (DeprecationWarning, ValueError):
            flat = np.empty(0)
    if len(rows) != frames or flat.size != frames * width:
        for k, line in rows:
            words = line.split()
            if len(words) != width:
                more = " (the file is cut short)" if k == rows[-1][0] else ""
                raise MotionError(f"{what}, line {k + 1}: expected {width} columns, one for each channel, got {len(words)}{more}")
            _finite_words(words, k, what)
        raise MotionError(f"{what}: expected {frames} frames as declared, got {len(rows)}; the file is cut short")
    data = flat.reshape(frames, width)
    bad = ~np.isfinite(data).all(1)
    if bad.any():
        k = int(bad.argmax())
        raise MotionError(f"{what}, line {rows[k][0] + 1}: expected finite numbers, got NaN or infinity in {int(bad.sum())} of "
                          f"{frames} frames, the first at frame {k}; cut or repair those frames")
    return data, notes


def _finite_words(words, k, what):
    for word in words:
        try:
            float(word)
        except ValueError:
            raise MotionError(f"{what}, line {k + 1}: expected numbers, got {word[:30]!r}; the file is damaged") from None


def _clip(tree, data, fps, what, notes):
    n, t = len(tree.names), len(data)
    rotations = R.identity((t, n))
    places: dict[int, np.ndarray] = {}
    column = 0
    for j, channels in enumerate(tree.channels):
        block = data[:, column:column + len(channels)]
        column += len(channels)
        turns = [k for k, c in enumerate(channels) if c.endswith("rotation")]
        if turns:
            rotations[:, j] = R.from_euler(np.radians(block[:, turns]), "".join(channels[k][0].upper() for k in turns))
        moves = [k for k, c in enumerate(channels) if c.endswith("position")]
        if moves:
            place = np.tile(np.array(tree.offsets[j]), (t, 1))
            for k in moves:
                place[:, "xyz".index(channels[k][0])] = block[:, k]
            places[j] = place
    offsets, notes = np.array(tree.offsets, dtype=np.float64), list(notes)
    root = places.pop(0, np.tile(offsets[0], (t, 1)))
    tree_names, parents, ends = tree.names, tree.parents, tree.end_sites
    while 1 in places and parents.count(0) == 1 and np.ptp(places[1], axis=0).max() > 0:
        # A still "reference" node above the moving hips: fold it into the hips.
        root = root + R.rotate(rotations[:, 0], places.pop(1))
        turned = R.multiply(rotations[:, 0], rotations[:, 1])
        rotations = np.concatenate([turned[:, None], rotations[:, 2:]], 1)
        notes.append(f"root node {tree_names[0]!r} folded into {tree_names[1]!r}")
        tree_names, offsets, parents = tree_names[1:], offsets[1:], [p - 1 for p in parents[1:]]
        places, ends = {j - 1: p for j, p in places.items()}, {j - 1: e for j, e in ends.items() if j > 0}
    for j, place in places.items():
        offsets[j] = np.median(place, axis=0)
        if np.ptp(place, axis=0).max() > 1e-3 * max(1e-9, np.abs(offsets).max()):
            notes.append(f"joint {tree_names[j]!r} slides in its parent; held at its median place")
    offsets[0] = 0.0
    return RawClip(what, list(tree_names), list(parents), offsets, dict(ends), root, rotations, fps, notes=notes)

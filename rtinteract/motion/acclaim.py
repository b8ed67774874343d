"""Acclaim in: ASF skeletons and AMC motions, as the CMU database has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rtinteract import rotation as R
from rtinteract.errors import MotionError, SkeletonError
from rtinteract.motion.raw import RawClip

CMU_RATE = 120.0


@dataclass(frozen=True)
class AcclaimSkeleton:
    """A parsed ASF: joint j stands at the start of bone j and turns it; ``frames`` [J, 4] are the bones' axes C.

    ``channels``: the degrees of freedom of each joint as axis letters in the order of the AMC's values ("T" + axis for moves).
    """

    joints: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: np.ndarray
    tips: dict[int, np.ndarray]
    frames: np.ndarray
    channels: tuple[tuple[str, ...], ...]
    metres: float
    degrees: bool


def _sections(text, what):
    sections, current = {}, None
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if line.startswith(":"):
            head = line[1:].split(None, 1)
            current = head[0].lower()
            sections[current] = [head[1]] if len(head) > 1 else []
        elif line and current is not None:
            sections[current].append(line)
    missing = [s for s in ("root", "bonedata", "hierarchy") if not sections.get(s)]
    if missing:
        raise SkeletonError(f"{what}: expected an ASF with :root, :bonedata and :hierarchy, got none of {', '.join(missing)}; "
                            "check that the file is a complete ASF")
    return sections


def _bones(lines, what):
    bones, bone = [], None
    for line in lines:
        words = line.split()
        key = words[0].lower()
        if key == "begin":
            bone = {"dof": [], "axis": [0.0, 0.0, 0.0], "order": "XYZ"}
        elif key == "end":
            if bone is None or not {"name", "direction", "length"} <= set(bone):
                raise SkeletonError(f"{what}: a bone lacks its name, direction or length; mend the ASF")
            bones.append(bone)
            bone = None
        elif bone is not None:
            try:
                if key == "name":
                    bone["name"] = words[1]
                elif key == "direction":
                    bone["direction"] = np.array([float(w) for w in words[1:4]])
                elif key == "length":
                    bone["length"] = float(words[1])
                elif key == "axis":
                    bone["axis"], bone["order"] = [float(w) for w in words[1:4]], (words[4] if len(words) > 4 else "XYZ").upper()
                elif key == "dof":
                    bone["dof"] = [w.lower() for w in words[1:]]
            except (ValueError, IndexError):
                raise SkeletonError(f"{what}: expected numbers in {line!r}; mend the ASF") from None
    return bones


def _axes_turn(angles, order):
    # An ASF lists its axis angles in the order in which they are applied: XYZ is Rz Ry Rx in column vectors.
    return R.from_euler(np.asarray(angles, dtype=np.float64)[::-1], order[::-1])


def read_asf(text: str, what: str) -> AcclaimSkeleton:
    """The skeleton of an ASF's text; SkeletonError says what is missing."""
    sections = _sections(text, what)
    units = {w[0].lower(): w[1].lower() for w in (line.split() for line in sections.get("units", [])) if len(w) > 1}
    degrees = not units.get("angle", "deg").startswith("rad")
    root = {w[0].lower(): w[1:] for w in (line.split() for line in sections["root"])}
    bones = {b["name"]: b for b in _bones(sections["bonedata"], what)}
    joints, parents, offsets = ["root"], [-1], [np.zeros(3)]
    for line in sections["hierarchy"]:
        words = line.split()
        if words[0] in ("begin", "end"):
            continue
        if words[0] not in joints or any(w not in bones for w in words[1:]):
            raise SkeletonError(f"{what}: the hierarchy line {line!r} names a bone that is not defined before it; mend the ASF")
        for child in words[1:]:
            parent = joints.index(words[0])
            joints.append(child)
            parents.append(parent)
            offsets.append(bones[words[0]]["direction"] * bones[words[0]]["length"] if parent else np.zeros(3))
    scale = np.pi / 180 if degrees else 1.0
    frames, channels = [], []
    for j in joints:
        if j == "root":
            axis, order = [float(w) for w in root.get("orientation", "0 0 0".split())], root.get("axis", ["XYZ"])[0].upper()
        else:
            axis, order = bones[j]["axis"], bones[j]["order"]
        frames.append(_axes_turn(np.array(axis) * scale, order))
        dof = bones[j]["dof"] if j != "root" else [w.lower() for w in root.get("order", "TX TY TZ RX RY RZ".split())]
        channels.append(tuple(("T" if d[0] == "t" else "") + d[1].upper() for d in dof if d[0] in "tr"))
    tips = {i: bones[j]["direction"] * bones[j]["length"] for i, j in enumerate(joints) if i and i not in parents}
    try:
        metres = 0.0254 / float(units.get("length", "1"))
    except (ValueError, ZeroDivisionError):
        raise SkeletonError(f"{what}: expected a length unit above zero, got {units.get('length')!r}; mend the ASF") from None
    return AcclaimSkeleton(tuple(joints), tuple(parents), np.array(offsets), tips, np.stack(frames), tuple(channels), metres,
                           degrees)


def read_amc(text: str, skeleton: AcclaimSkeleton, what: str, fps: float = CMU_RATE) -> RawClip:
    """The clip of an AMC's text on its skeleton; the format has no frame rate, so ``fps`` says it."""
    degrees, frames, frame_lines = skeleton.degrees, [], []
    for k, line in enumerate(text.splitlines()):
        line = line.split("#")[0].strip()
        if not line:
            continue
        if line.startswith(":"):
            degrees = {":degrees": True, ":radians": False}.get(line.lower(), degrees)
        elif line.isdigit():
            frames.append({})
            frame_lines.append(k)
        elif not frames:
            raise MotionError(f"{what}, line {k + 1}: expected a frame number, got {line[:40]!r}; this is not an AMC file")
        else:
            words = line.split()
            frames[-1][words[0]] = (k, words[1:])
    if not frames:
        raise MotionError(f"{what}: expected an AMC with frames, got none; the file is empty or cut short")
    t = len(frames)
    root, rotations = np.zeros((t, 3)), R.identity((t, len(skeleton.joints)))
    for j, name in enumerate(skeleton.joints):
        channels = skeleton.channels[j]
        if not channels:
            continue
        values = _bone_values(frames, frame_lines, name, len(channels), what)
        turns = [i for i, c in enumerate(channels) if len(c) == 1]
        if turns:
            angles = np.radians(values[:, turns]) if degrees else values[:, turns]
            # Values are applied in the order listed, so the product has them from right to left.
            turn = R.from_euler(angles[:, ::-1], "".join(channels[i] for i in turns)[::-1])
            c = skeleton.frames[j]
            rotations[:, j] = R.multiply(R.multiply(np.broadcast_to(c, turn.shape), turn),
                                         np.broadcast_to(R.inverse(c), turn.shape))
        if j == 0:
            for i, channel in enumerate(channels):
                if len(channel) == 2:
                    root[:, "XYZ".index(channel[1])] = values[:, i]
    return RawClip(what, list(skeleton.joints), list(skeleton.parents), skeleton.offsets.copy(), dict(skeleton.tips),
                   root, rotations, fps, skeleton.metres, "as its ASF says")


def _bone_values(frames, frame_lines, name, count, what):
    try:
        values = np.array([frame[name][1] for frame in frames], dtype=np.float64)
        if values.shape == (len(frames), count) and np.isfinite(values).all():
            return values
    except (KeyError, ValueError):
        pass
    for f, frame in enumerate(frames):
        if name not in frame:
            raise MotionError(f"{what}, line {frame_lines[f] + 1}: frame {f} has no values for bone {name!r}; the file is cut "
                              "short or belongs to another skeleton: give skeleton= its own .asf")
        k, words = frame[name]
        try:
            numbers = np.array(words, dtype=np.float64)
        except ValueError:
            numbers = np.array([np.nan])
        if len(words) != count:
            raise MotionError(f"{what}, line {k + 1}: bone {name!r} needs {count} columns by its skeleton, got {len(words)}; the "
                              "file is cut short or belongs to another skeleton: give skeleton= its own .asf")
        if not np.isfinite(numbers).all():
            raise MotionError(f"{what}, line {k + 1}: expected finite numbers for bone {name!r}, got {' '.join(words)[:40]!r} "
                              "(NaN, infinity or text); cut or repair that frame")
    raise AssertionError("unreachable: some frame must be at fault")

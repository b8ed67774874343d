"""glTF binary (.glb) out, and back in: skinned bodies with one animation, as engines and viewers read it.

glTF 2.0 is right-handed, metres, +Y up, facing +Z, as we are; only its quaternions differ (x, y, z, w).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from rtinteract import rotation as R
from rtinteract.errors import MotionError, RtInteractError, SkeletonError
from rtinteract.motion.atomic import replacing
from rtinteract.motion.capsules import bones, t_pose
from rtinteract.motion.jointmaps import joint_map_of
from rtinteract.motion.restpose import calibrate
from rtinteract.motion.types import Motion
from rtinteract.skeleton import Skeleton

_COLOURS = ((0.83, 0.20, 0.035), (0.042, 0.20, 0.61), (0.107, 0.39, 0.107), (0.35, 0.127, 0.456))
_RIGHT_SHADE = 0.4
_SIDES = 10
_FLOAT, _BYTE, _SHORT = 5126, 5121, 5123
_COMPONENTS = {_FLOAT: np.dtype("<f4"), _BYTE: np.dtype("u1"), _SHORT: np.dtype("<u2"), 5125: np.dtype("<u4")}
_WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}


def _library():
    try:
        import pygltflib
    except ImportError as error:
        raise RtInteractError("glTF needs pygltflib, which is not installed; pip install rtinteract[demo]") from error
    return pygltflib


class _Builder:
    """A glTF document in the making: arrays become accessors over one buffer."""

    def __init__(self, library):
        self.lib = library
        self.doc = library.GLTF2(asset=library.Asset(version="2.0", generator="rtinteract"))
        self.doc.scene = 0
        self.doc.scenes = [library.Scene(nodes=[])]
        self.blob = bytearray()

    def array(self, array, kind, component=_FLOAT, *, target=None, bounds=False) -> int:
        """Index of a new accessor over ``array`` [N] or [N, width]; ``bounds`` writes its min and max."""
        array = np.ascontiguousarray(array, dtype=_COMPONENTS[component])
        self.blob += b"\0" * (-len(self.blob) % 4)
        view = self.lib.BufferView(buffer=0, byteOffset=len(self.blob), byteLength=array.nbytes, target=target)
        self.blob += array.tobytes()
        self.doc.bufferViews.append(view)
        accessor = self.lib.Accessor(bufferView=len(self.doc.bufferViews) - 1, byteOffset=0, componentType=component,
                                     count=len(array), type=kind)
        if bounds:
            flat = array.reshape(len(array), -1)
            accessor.min, accessor.max = flat.min(0).tolist(), flat.max(0).tolist()
        self.doc.accessors.append(accessor)
        return len(self.doc.accessors) - 1

    def node(self, **fields) -> int:
        """Index of a new node."""
        self.doc.nodes.append(self.lib.Node(**fields))
        return len(self.doc.nodes) - 1


def _xyzw(q):
    return np.concatenate([q[..., 1:], q[..., :1]], -1)


def _capsule(a, b, radius_a, radius_b):
    """Points [V, 3], normals [V, 3] and triangles [N, 3] of a rounded capsule from a to b [3], counter-clockwise outside."""
    axis = b - a
    axis = axis / max(np.linalg.norm(axis), 1e-9)
    side = np.cross(axis, [0.0, 0.0, 1.0] if abs(axis[2]) < 0.9 else [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    other = np.cross(axis, side)
    turn = np.arange(_SIDES) * 2 * np.pi / _SIDES
    around = np.cos(turn)[:, None] * side + np.sin(turn)[:, None] * other
    points, normals = [(a - radius_a * axis)[None]], [-axis[None]]
    for centre, radius, latitude in ((a, radius_a, -0.8), (a, radius_a, 0.0), (b, radius_b, 0.0), (b, radius_b, 0.8)):
        normal = np.cos(latitude) * around + np.sin(latitude) * axis
        points.append(centre + radius * normal)
        normals.append(normal)
    points.append((b + radius_b * axis)[None])
    normals.append(axis[None])
    i = np.arange(_SIDES)
    j = (i + 1) % _SIDES
    faces = [np.stack([0 * i, 1 + j, 1 + i], -1)]
    for ring in range(3):
        low, high = 1 + ring * _SIDES, 1 + (ring + 1) * _SIDES
        faces += [np.stack([low + i, low + j, high + j], -1), np.stack([low + i, high + j, high + i], -1)]
    last = 1 + 3 * _SIDES
    faces.append(np.stack([last + i, last + j, 0 * i + last + _SIDES], -1))
    return np.concatenate(points), np.concatenate(normals), np.concatenate(faces)


def _body(skeleton, places, turns):
    """The body in the T-pose: points, normals, colours, joints (one each, rigid) and triangles."""
    parts, first = ([], [], [], [], []), 0
    for bone in bones(skeleton):
        a, b = (places[bone.joint] + R.rotate(turns[bone.joint], end) for end in (bone.start, bone.end))
        points, normals, faces = _capsule(a, b, *(0.85 * r for r in bone.radii))
        shade = _RIGHT_SHADE if bone.side < 0 else 1.0
        values = (points, normals, np.full((len(points), 3), shade), np.full(len(points), bone.joint), faces + first)
        for part, value in zip(parts, values, strict=True):
            part.append(value)
        first += len(points)
    return [np.concatenate(part) for part in parts]


def _add_mesh(build, skeleton, places, turns, name, person, skin):
    """A node with the visible body, coloured, bound rigidly to the joints of ``skin``."""
    lib, doc = build.lib, build.doc
    points, normals, colours, joints, faces = _body(skeleton, places, turns)
    index = np.zeros((len(points), 4), dtype=int)
    index[:, 0] = joints
    weights = np.zeros((len(points), 4))
    weights[:, 0] = 1
    doc.materials.append(lib.Material(name=name, pbrMetallicRoughness=lib.PbrMetallicRoughness(
        baseColorFactor=[*_COLOURS[person % len(_COLOURS)], 1.0], metallicFactor=0.0, roughnessFactor=0.7), alphaCutoff=None))
    vertices = {"target": lib.ARRAY_BUFFER}
    attributes = lib.Attributes(
        POSITION=build.array(points, "VEC3", bounds=True, **vertices), NORMAL=build.array(normals, "VEC3", **vertices),
        COLOR_0=build.array(colours, "VEC3", **vertices), WEIGHTS_0=build.array(weights, "VEC4", **vertices),
        JOINTS_0=build.array(index, "VEC4", _BYTE if len(skeleton) < 256 else _SHORT, **vertices))
    primitive = lib.Primitive(attributes=attributes, material=len(doc.materials) - 1, mode=4, indices=build.array(
        faces.ravel(), "SCALAR", _SHORT if len(points) < 65535 else 5125, target=lib.ELEMENT_ARRAY_BUFFER))
    doc.meshes.append(lib.Mesh(name=f"{name} body", primitives=[primitive]))
    # A skinned mesh ignores its parents' transforms, so it stands at the scene's top.
    doc.scenes[0].nodes.append(build.node(name=f"{name} body", mesh=len(doc.meshes) - 1, skin=skin))


def _add_person(build, motion, name, person):
    """Nodes, skin, body and channels of one person."""
    lib, doc, skeleton = build.lib, build.doc, motion.skeleton
    places, turns = t_pose(skeleton)
    first = len(doc.nodes)
    for j, joint in enumerate(skeleton.joints):
        place = places[0] if j == 0 else skeleton.offsets[j]
        children = [first + c for c, p in enumerate(skeleton.parents) if p == j]
        build.node(name=joint, translation=[float(v) for v in place], rotation=[float(v) for v in _xyzw(skeleton.tpose[j])],
                   children=children)
    doc.scenes[0].nodes.append(build.node(name=name, children=[first]))
    bind = np.zeros((len(skeleton), 4, 4))
    bind[:, 3, 3] = 1
    bind[:, :3, :3] = R.to_matrix(R.inverse(turns))
    bind[:, :3, 3] = -R.rotate(R.inverse(turns), places)
    # Matrices are stored by columns.
    inverse_bind = build.array(bind.transpose(0, 2, 1).reshape(-1, 16), "MAT4")
    tips = {skeleton.joints[j]: np.asarray(tip).tolist() for j, tip in skeleton.end_sites.items()}
    extras = {"rtinteract": {"skeleton": skeleton.name, "fps": motion.fps, "root_offset": skeleton.offsets[0].tolist(),
                             "end_sites": tips}}
    doc.skins.append(lib.Skin(name=name, skeleton=first, joints=list(range(first, first + len(skeleton))),
                              inverseBindMatrices=inverse_bind, extras=extras))
    _add_mesh(build, skeleton, places, turns, name, person, len(doc.skins) - 1)
    times = build.array(np.arange(len(motion)) / motion.fps, "SCALAR", bounds=True)
    animation = doc.animations[0]
    rotations = _xyzw(R.continuous(motion.rotations)).astype(np.float32)
    outputs = [(first, "translation", build.array(motion.root, "VEC3"))]
    outputs += [(first + j, "rotation", build.array(rotations[:, j], "VEC4")) for j in range(len(skeleton))]
    for node, path, output in outputs:
        animation.samplers.append(lib.AnimationSampler(input=times, output=output, interpolation="LINEAR"))
        target = lib.AnimationChannelTarget(node=node, path=path)
        animation.channels.append(lib.AnimationChannel(sampler=len(animation.samplers) - 1, target=target))


def write_gltf(path, motions, names=None) -> None:
    """Write one Motion or several as .glb: for each a skeleton, a skinned body, and channels in one common animation.

    ``names`` (default "actor", "reactor") name the people's nodes. Joints keep their names. The bind pose is the T-pose with
    its feet at height 0. Times in seconds, metres, +Y up. Raises MotionError for motions that cannot be written or a path that
    cannot be; RtInteractError when pygltflib is missing. Nothing half-written is left.
    """
    path = Path(path)
    if path.suffix.lower() != ".glb":
        raise MotionError(f"glTF: expected a file name that ends in .glb, got {path.name!r}; rename it")
    motions = [motions] if isinstance(motions, Motion) else list(motions)
    if not motions or not all(isinstance(m, Motion) for m in motions):
        raise MotionError(f"glTF: expected one Motion or several, got {motions!r:.80}; read them with rtinteract.read_motion")
    names = [names] if isinstance(names, str) else names
    names = ["actor", "reactor", *(f"person {i}" for i in range(3, 99))][:len(motions)] if names is None else list(names)
    if len(names) != len(motions) or len(set(names)) != len(names):
        raise MotionError(f"glTF: expected {len(motions)} different names, one for each person, got {names}")
    lib = _library()
    build = _Builder(lib)
    build.doc.animations = [lib.Animation(name="motion")]
    for person, (motion, name) in enumerate(zip(motions, names, strict=True)):
        # Rebuilding runs the checks again: arrays may have been written to since.
        _add_person(build, replace(motion), name, person)
    build.blob += b"\0" * (-len(build.blob) % 4)
    build.doc.buffers = [lib.Buffer(byteLength=len(build.blob))]
    build.doc.set_binary_blob(bytes(build.blob))
    with replacing(path) as beside:
        beside.write_bytes(b"".join(build.doc.save_to_bytes()))


def _read_array(doc, blob, index, what):
    accessor = doc.accessors[index]
    view = doc.bufferViews[accessor.bufferView]
    width, kind = _WIDTHS.get(accessor.type), _COMPONENTS.get(accessor.componentType)
    if width is None or kind is None or view.byteStride:
        raise MotionError(f"{what}: accessor {index} ({accessor.type}, strided {view.byteStride}) is not of the kind rtinteract "
                          "writes; export the clip as BVH instead")
    start = (view.byteOffset or 0) + (accessor.byteOffset or 0)
    size = accessor.count * width * kind.itemsize
    if start + size > len(blob):
        raise MotionError(f"{what}: accessor {index} needs {start + size} bytes, the buffer has {len(blob)}; "
                          "the file is cut short")
    array = np.frombuffer(blob, kind, accessor.count * width, start).astype(np.float64)
    return array if width == 1 else array.reshape(-1, width)


def _stood_up(skeleton):
    """The T-pose in place of the rest pose of another program's file, as far as the joints' names tell how."""
    try:
        roles = joint_map_of(skeleton)
    except SkeletonError:
        return skeleton
    return replace(skeleton, tpose=calibrate(skeleton.joints, skeleton.parents, skeleton.offsets, {}, roles, skeleton.tpose))


def _read_person(doc, blob, skin, what) -> Motion:
    """The Motion of one skin."""
    nodes, joints = doc.nodes, skin.joints
    parent_of = {c: n for n, node in enumerate(nodes) for c in node.children or []}
    parents = tuple(joints.index(parent_of[n]) if parent_of.get(n) in joints else -1 for n in joints)
    note = (skin.extras or {}).get("rtinteract", {})
    offsets = np.array([nodes[n].translation or [0, 0, 0] for n in joints], dtype=np.float64)
    offsets[0] = note.get("root_offset", [0, 0, 0])
    rest = np.array([nodes[n].rotation or [0, 0, 0, 1] for n in joints], dtype=np.float64)
    tpose = np.concatenate([rest[:, 3:], rest[:, :3]], -1)
    names = tuple(nodes[n].name or f"joint {n}" for n in joints)
    tips = {names.index(j): np.array(tip) for j, tip in note.get("end_sites", {}).items()}
    skeleton = Skeleton(note.get("skeleton", skin.name or "gltf"), names, parents, offsets, tips, tpose)
    if not note:
        skeleton = _stood_up(skeleton)
    tracks, times = {}, None
    for animation in doc.animations[:1]:
        for channel in animation.channels:
            if channel.target.node not in joints:
                continue
            sampler = animation.samplers[channel.sampler]
            own = _read_array(doc, blob, sampler.input, what)
            if sampler.interpolation not in (None, "LINEAR") or (times is not None and not np.array_equal(own, times)):
                raise MotionError(f"{what}: expected linear channels with common times, as rtinteract writes them; "
                                  "export the clip as BVH instead")
            times = own
            tracks[channel.target.node, channel.target.path] = _read_array(doc, blob, sampler.output, what)
    if times is None:
        raise MotionError(f"{what}: skin {skin.name!r} is not animated; export the clip with its animation")
    root = tracks.get((joints[0], "translation"))
    root = np.broadcast_to(nodes[joints[0]].translation or [0.0, 0.0, 0.0], (len(times), 3)) if root is None else root
    xyzw = np.stack([tracks.get((n, "rotation"), np.broadcast_to(rest[j], (len(times), 4))) for j, n in enumerate(joints)], 1)
    fps = note.get("fps") or (len(times) - 1) / max(times[-1] - times[0], 1e-9)
    return Motion.from_rotations(skeleton, root, np.concatenate([xyzw[..., 3:], xyzw[..., :3]], -1), fps)


def read_gltf(path) -> list[Motion]:
    """The people of a .glb that `write_gltf` wrote, in its order, float32 exact; other files only as far as they are alike.

    Raises MotionError when the file is missing, damaged, without skins or made otherwise.
    """
    lib, what = _library(), str(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise MotionError(f"{what}: expected a readable file, got {error.strerror or error}; check the path") from None
    if data[:4] != b"glTF" or len(data) < 20 or int.from_bytes(data[8:12], "little") != len(data):
        raise MotionError(f"{what}: expected a whole .glb file, got {len(data)} bytes that are not one; "
                          "it is damaged or cut short")
    try:
        doc = lib.GLTF2.load_from_bytes(data)
        blob = doc.binary_blob() or b""
        people = [_read_person(doc, blob, skin, what) for skin in doc.skins]
    except (KeyError, IndexError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError, OSError) as error:
        raise MotionError(f"{what}: the document is damaged ({type(error).__name__}: {error}); export the clip again") from error
    if not people:
        raise MotionError(f"{what}: expected at least one skinned skeleton, got none; export the clip with its skeleton")
    return people

"""glTF files read back, by the package's reader and as a viewer would: accessors, skins, animation, mesh."""

import numpy as np
import pygltflib
import pytest
from synthetic import meeting, walker

from rtinteract import rotation as R
from rtinteract.errors import MotionError, RtInteractError
from rtinteract.motion import gltf
from rtinteract.motion.capsules import bones, t_pose
from rtinteract.motion.gltf import read_gltf, write_gltf
from rtinteract.motion.types import Motion
from rtinteract.skeleton import SMPL22, Skeleton

WIDTH = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}
KIND = {5121: "u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}


def array(doc, index):
    accessor = doc.accessors[index]
    view = doc.bufferViews[accessor.bufferView]
    data = np.frombuffer(doc.binary_blob(), KIND[accessor.componentType], accessor.count * WIDTH[accessor.type],
                         (view.byteOffset or 0) + (accessor.byteOffset or 0))
    return data.reshape(accessor.count, -1)


@pytest.fixture(scope="module")
def pair():
    return meeting(2.0)


@pytest.fixture(scope="module")
def doc(pair, tmp_path_factory):
    path = tmp_path_factory.mktemp("gltf") / "pair.glb"
    write_gltf(path, pair)
    return pygltflib.GLTF2.load(str(path))


def test_round_trip(tmp_path, pair):
    write_gltf(tmp_path / "a.glb", pair)
    back = read_gltf(tmp_path / "a.glb")
    assert len(back) == 2
    for a, b in zip(pair, back, strict=True):
        assert b.skeleton.same_tree(a.skeleton) and b.skeleton.name == "smpl22" and b.fps == a.fps and len(b) == len(a)
        np.testing.assert_array_equal(b.skeleton.offsets, a.skeleton.offsets)
        assert sorted(b.skeleton.end_sites) == sorted(a.skeleton.end_sites)
        assert np.abs(a.positions - b.positions).max() < 1e-6 and R.angle(a.rotations, b.rotations).max() < 1e-6


def test_accessors_lie_inside_the_buffer(doc):
    size = len(doc.binary_blob())
    assert doc.buffers[0].byteLength == size and doc.buffers[0].uri is None
    for accessor in doc.accessors:
        view = doc.bufferViews[accessor.bufferView]
        length = accessor.count * WIDTH[accessor.type] * np.dtype(KIND[accessor.componentType]).itemsize
        assert view.byteOffset % 4 == 0 and length == view.byteLength and view.byteOffset + length <= size


def test_animation_is_one_for_both_with_every_joint(doc, pair):
    assert len(doc.animations) == 1
    targets = [(c.target.node, c.target.path) for c in doc.animations[0].channels]
    assert len(set(targets)) == len(targets) == 2 * 23
    for skin in doc.skins:
        assert all((n, "rotation") in targets for n in skin.joints) and (skin.joints[0], "translation") in targets
    for sampler in doc.animations[0].samplers:
        time, output = array(doc, sampler.input)[:, 0], array(doc, sampler.output)
        accessor = doc.accessors[sampler.input]
        assert accessor.min == [0.0] and accessor.max == [pytest.approx(59 / 30)] and (np.diff(time) > 0).all()
        assert len(output) == len(time) == 60
        if output.shape[1] == 4:
            assert np.abs(np.linalg.norm(output, axis=1) - 1).max() < 1e-6
            assert ((output[1:] * output[:-1]).sum(1) > 0).all()


def test_quaternions_are_xyzw(doc, pair):
    joint = doc.skins[1].joints[16]
    channel = next(c for c in doc.animations[0].channels if (c.target.node, c.target.path) == (joint, "rotation"))
    stored = array(doc, doc.animations[0].samplers[channel.sampler].output)
    assert R.angle(stored[:, [3, 0, 1, 2]].astype(float), pair[1].rotations[:, 16]).max() < 1e-6


def test_hierarchy_and_bind_pose(doc):
    roots = [doc.nodes[n] for n in doc.scenes[0].nodes]
    assert [n.name for n in roots if n.mesh is None] == ["actor", "reactor"]
    places, turns = t_pose(SMPL22)
    for skin in doc.skins:
        assert [doc.nodes[n].name for n in skin.joints] == list(SMPL22.joints)
        parent = {c: n for n, node in enumerate(doc.nodes) for c in node.children}
        for j, p in enumerate(SMPL22.parents[1:], 1):
            assert parent[skin.joints[j]] == skin.joints[p]
        inverse = array(doc, skin.inverseBindMatrices).reshape(-1, 4, 4).transpose(0, 2, 1).astype(float)
        bind = np.linalg.inv(inverse)
        np.testing.assert_allclose(bind[:, :3, 3], places, atol=1e-6)
        np.testing.assert_allclose(bind[:, :3, :3], R.to_matrix(turns), atol=1e-6)


def test_the_body_is_closed_rigid_and_looks_outward(doc):
    assert len(doc.meshes) == 2 and sum(n.skin is not None for n in doc.nodes) == 2
    primitive = doc.meshes[0].primitives[0]
    points, normals = array(doc, primitive.attributes.POSITION), array(doc, primitive.attributes.NORMAL)
    joints, weights = array(doc, primitive.attributes.JOINTS_0), array(doc, primitive.attributes.WEIGHTS_0)
    faces = array(doc, primitive.indices).reshape(-1, 3)
    accessor = doc.accessors[primitive.attributes.POSITION]
    np.testing.assert_allclose(accessor.min, points.min(0))
    assert faces.max() == len(points) - 1 and joints.max() < 22 and (weights == [1, 0, 0, 0]).all()
    assert np.abs(np.linalg.norm(normals, axis=1) - 1).max() < 1e-5
    corner = points[faces]
    flat = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    assert ((flat * normals[faces].mean(1)).sum(1) > 0).all()
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    assert -0.06 < points[:, 1].min() < 0.01 and 1.6 < points[:, 1].max() < 1.8


def test_any_skeleton_rate_and_length(tmp_path):
    half = np.array([np.sqrt(0.5), 0, 0, np.sqrt(0.5)])
    toy = Skeleton("toy", ("hips", "chest", "arm"), (-1, 0, 1), np.array([[0, 0.5, 0], [0, 0.6, 0], [0.3, 0, 0]]),
                   {2: np.array([0.2, 0, 0])}, np.stack([[1.0, 0, 0, 0], half, R.inverse(half)]))
    turns = R.from_axis_angle(np.random.default_rng(0).normal(size=(7, 3, 3)))
    one = Motion.from_rotations(toy, np.zeros((7, 3)), turns, 24)
    write_gltf(tmp_path / "a.glb", [one, walker(1.0, fps=60), walker(1 / 30)], names=["x", "y", "z"])
    a, b, c = read_gltf(tmp_path / "a.glb")
    assert (len(a), a.fps, len(b), b.fps, len(c)) == (7, 24, 60, 60, 1)
    np.testing.assert_allclose(a.skeleton.tpose, toy.tpose, atol=1e-12)
    np.testing.assert_array_equal(a.skeleton.offsets, toy.offsets)
    assert R.angle(a.rotations, one.rotations).max() < 1e-6
    assert len(bones(toy)) == 3


def test_mistakes_are_named_and_leave_nothing(tmp_path, pair):
    for path, motions, options, what in [
        ("a.gltf", pair, {}, "ends in .glb"), ("no/a.glb", pair, {}, "existing folder"),
        ("a.glb", [], {}, "one Motion or several"),
        ("a.glb", pair, {"names": ["same", "same"]}, "different names"), ("a.glb", pair, {"names": ["one"]}, "2 different names"),
    ]:
        with pytest.raises(MotionError, match=what):
            write_gltf(tmp_path / path, motions, **options)
    broken = walker(0.5)
    broken.rotations[2, 1] = np.nan
    with pytest.raises(MotionError, match="frame 2"):
        write_gltf(tmp_path / "a.glb", broken)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch, pair):
    (tmp_path / "a.glb").write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(MotionError, match="No space left"):
        write_gltf(tmp_path / "a.glb", pair)
    assert [f.name for f in tmp_path.iterdir()] == ["a.glb"] and (tmp_path / "a.glb").read_bytes() == b"old"


def test_damaged_files_are_refused(tmp_path, pair):
    path = tmp_path / "a.glb"
    write_gltf(path, pair)
    whole = path.read_bytes()
    for damage in (b"", b"glTF", whole[:1000], whole[:-4], b"BVH " + whole[4:],
                   whole[:20] + b"{" * 200 + whole[220:], whole.replace(b'"bufferView"', b'"bufferWhat"')):
        path.write_bytes(damage)
        with pytest.raises(MotionError, match="a.glb"):
            read_gltf(path)
    with pytest.raises(MotionError, match="No such file"):
        read_gltf(tmp_path / "none.glb")


def test_a_missing_library_is_named(monkeypatch, tmp_path, pair):
    monkeypatch.setitem(__import__("sys").modules, "pygltflib", None)
    with pytest.raises(RtInteractError, match=r"pip install rtinteract\[demo\]"):
        gltf.write_gltf(tmp_path / "a.glb", pair)

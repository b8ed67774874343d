"""Made-up files in the published layouts of two-person data sets, and the true motions behind them."""

import csv

import numpy as np
from synthetic import meeting, walker

from rtinteract import rotation as R
from rtinteract.motion import write_motion
from rtinteract.skeleton import SMPL22, smpl22_with

SMPLX_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15,
                 *(p for wrist, first in ((20, 25), (21, 40)) for f in range(5)
                   for p in (wrist, first + 3 * f, first + 3 * f + 1)))


def bodies(seed=0):
    """Rest offsets [2, 22, 3] of two bodies that are not the average one."""
    rng = np.random.default_rng(seed)
    offsets = np.stack([SMPL22.offsets] * 2) * np.array([1.05, 0.93])[:, None, None] + rng.normal(0, 0.01, (2, 22, 3))
    offsets[:, 0] = 0
    return offsets


def pair(frames=90, seed=0):
    """Two walkers towards each other, of two bodies, their lowest joints at height 0."""
    people = []
    for p, motion in enumerate((walker(frames / 30, yaw=0.4 + seed, place=(0.3, 0, -1)),
                                walker(frames / 30, yaw=0.4 + seed + np.pi, place=(0.7, 0, 1), arms=0.3))):
        m = type(motion).from_rotations(smpl22_with(bodies(seed)[p]), motion.root, motion.rotations, 30.0)
        people.append(m.moved(translation=(0, -m.positions[..., 1].min(), 0)))
    return people


def interhuman_array(motion, height=0.2):
    """A person's file [T, 492], Z up, standing ``height`` metres above the file's origin."""
    p, t = motion.positions, len(motion)
    array = np.zeros((t, 492), np.float32)
    array[:, :66] = np.stack([p[..., 0], -p[..., 2], p[..., 1] + height], -1).reshape(t, 66)
    matrices = R.to_matrix(motion.rotations[:, 1:])
    # Two columns, row by row: m00, m01, m10, m11, m20, m21.
    array[:, 186:312] = matrices[..., :2].reshape(t, 126)
    return array


def write_interhuman(folder, names=("1", "2", "3", "4"), frames=90):
    """Clips, three texts each; all but the last two are train, then val and test. Returns {name: (person 1, person 2)}."""
    for part in ("motions_processed/person1", "motions_processed/person2", "annots", "split"):
        (folder / part).mkdir(parents=True)
    truth = {}
    for i, name in enumerate(names):
        truth[name] = pair(frames + 10 * i, seed=i)
        for k, motion in enumerate(truth[name], 1):
            np.save(folder / "motions_processed" / f"person{k}" / f"{name}.npy", interhuman_array(motion))
        texts = (f"two people meet on the left, {name}", "they walk up to each other", "they meet")
        (folder / "annots" / f"{name}.txt").write_text("\n".join(texts) + "\n")
    for split, chosen in (("train", names[:-2]), ("val", names[-2:-1]), ("test", names[-1:])):
        (folder / "split" / f"{split}.txt").write_text("\n".join(chosen))
    (folder / "split" / "ignore_list.txt").write_text("")
    return truth


def smplx_file(path, seed=0, shapes=10):
    """A made-up SMPL-X model file: 200 vertices, SMPL-22's rest joints and short fingers, shape numbers that move joints."""
    rng = np.random.default_rng(seed)
    rest = np.zeros((55, 3))
    for j in range(1, 22):
        rest[j] = rest[SMPLX_PARENTS[j]] + bodies(seed)[0][j]
    for j in range(22, 55):
        rest[j] = rest[SMPLX_PARENTS[j]] + rng.normal(0, 0.02, 3)
    rest += np.array([0.003, -0.35, 0.012])
    regressor = rng.random((55, 200))
    regressor /= regressor.sum(1, keepdims=True)
    template = np.linalg.lstsq(regressor, rest, rcond=None)[0]
    tree = np.stack([np.array([2 ** 32 - 1, *SMPLX_PARENTS[1:]], np.uint32), np.arange(55, dtype=np.uint32)])
    # The published files hold pickled objects too, which must not stop a reader that refuses to unpickle.
    np.savez(path, v_template=template, J_regressor=regressor, kintree_table=tree,
             shapedirs=rng.normal(0, 0.01, (200, 3, shapes)), part2num=np.array({"head": 1}, dtype=object))
    return rest


def interx_array(frames=80, seed=0):
    """A clip [T, 56, 6] of two people who walk with moving fingers."""
    rng = np.random.default_rng(seed)
    people = []
    for motion in pair(frames, seed):
        rows = np.zeros((frames, 56, 3))
        rows[:, :22] = R.to_axis_angle(motion.rotations)
        rows[:, 25:55] = rng.normal(0, 0.3, (30, 3)) * np.sin(np.arange(frames) / 9)[:, None, None]
        rows[:, 55] = motion.root
        people.append(rows)
    return np.concatenate(people, -1).astype(np.float32)


def interx_names(count):
    """Names as Inter-X gives them."""
    return [f"G001T000A{i % 40:03d}R{i:03d}" for i in range(count)]


def write_interx_h5(folder, names, frames=80):
    """motions/{train,val,test}.h5, texts_processed and splits."""
    import h5py

    for part in ("motions", "texts_processed", "splits"):
        (folder / part).mkdir(parents=True)
    for split, chosen in (("train", names[:-2]), ("val", names[-2:-1]), ("test", names[-1:])):
        with h5py.File(folder / "motions" / f"{split}.h5", "w") as file:
            for name in chosen:
                file.create_dataset(name, data=interx_array(frames, names.index(name)), dtype="f4")
        (folder / "splits" / f"{split}.txt").write_text("\n".join(chosen) + "\n")
    for name in names:
        (folder / "texts_processed" / f"{name}.txt").write_text(
            "They meet on the left.#they/PRON meet/VERB#0.0#0.0\nThey walk.#they/PRON walk/VERB#0.0#0.0\n")


def write_interx_raw(folder, names, frames=80):
    """motions/<clip>/P1.npz and P2.npz at 120 frames a second, texts and splits; every fourth frame is `interx_array`'s."""
    for part in ("texts", "splits"):
        (folder / part).mkdir(parents=True)
    for i, name in enumerate(names):
        (folder / "motions" / name).mkdir(parents=True)
        clip = np.repeat(interx_array(frames, i), 4, axis=0)
        for p in range(2):
            rows = clip[..., 3 * p:3 * p + 3]
            np.savez(folder / "motions" / name / f"P{p + 1}.npz", root_orient=rows[:, 0], pose_body=rows[:, 1:22],
                     pose_lhand=rows[:, 25:40], pose_rhand=rows[:, 40:55], trans=rows[:, 55], betas=np.ones((1, 10)) * (p - 0.5),
                     gender=np.array(("male", "female")[p]))
        (folder / "texts" / f"{name}.txt").write_text("Two people meet.\n")
    (folder / "splits" / "train.txt").write_text("\n".join(names) + "\n")


def write_folder(folder, names=("walk", "hug")):
    """Pairs of .bvh named name.a.bvh and name.b.bvh, a text file beside each."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        write_motion(folder / f"{name}.bvh", meeting(2.0 + 0.5 * i))
        (folder / f"{name}.txt").write_text(f"two people {name}\n")


def write_table(folder, rows):
    """pairs.csv of (first, second, text, split)."""
    with open(folder / "pairs.csv", "w", newline="") as file:
        csv.writer(file).writerows([("first", "second", "text", "split"), *rows])

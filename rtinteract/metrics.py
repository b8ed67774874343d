"""Physical figures of motions: feet, floor, smoothness, penetration, contacts, facing, and distance to the truth.

All take Motions of the SMPL-22 tree (any body proportions) whose floor is at height 0 unless said otherwise.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from rtinteract import rotation as R
from rtinteract.errors import MotionError
from rtinteract.motion.capsules import bones, capsules, t_pose
from rtinteract.motion.types import MODEL_FPS, Motion
from rtinteract.skeleton import SMPL22, SMPL22_FEET, forward_kinematics, world_rotations

# A foot is low when its ankle and its ball are less than this above where they are when standing.
LOW_M = 0.05
# A foot that moves faster than this over the floor is stepping, not sliding: skating is an order of magnitude slower.
STEP_SPEED = 0.8
# From the wrist to the middle of the palm, along the fingers.
PALM_M = 0.08
_FINGERS = {20: np.array([1.0, 0.0, 0.0]), 21: np.array([-1.0, 0.0, 0.0])}
_HANDS = ("hand", "finger")


def _smpl22(*motions):
    for m in motions:
        if not m.skeleton.same_tree(SMPL22):
            raise MotionError(f"metrics: expected the SMPL-22 skeleton, got {m.skeleton.name!r} with {len(m.skeleton)} joints; "
                              "convert with motion.to_model()")


def _together(a: Motion, b: Motion):
    _smpl22(a, b)
    if len(a) != len(b) or abs(a.fps - b.fps) > 1e-3:
        raise MotionError(f"metrics: expected two motions of equal length and rate, got {len(a)} frames at {a.fps:g} fps and "
                          f"{len(b)} at {b.fps:g}; resample and cut them to the same frames")


def _foot_heights(motion, floor):
    """Heights [T, 2, 2] in metres of (left, right) x (ankle, ball) above where they are when standing on ``floor``."""
    feet = list(SMPL22_FEET)
    standing = t_pose(motion.skeleton)[0][feet, 1]
    return (motion.positions[:, feet, 1] - standing - floor).reshape(-1, 2, 2)


def planted(motion: Motion, *, floor=0.0) -> np.ndarray:
    """Whether each foot (left, right) bears on the floor over each step between frames, bool [T - 1, 2].

    A foot is planted over a step when at both its frames its ball or its ankle is less than LOW_M above (or below) its
    standing height, and its slower point moves over the floor by less than STEP_SPEED: heel strike and toe-off count, a
    swing just above the floor does not.
    """
    _smpl22(motion)
    low = (_foot_heights(motion, floor) < LOW_M).any(-1)
    return low[1:] & low[:-1] & (_foot_steps(motion) * motion.fps < STEP_SPEED)


def _foot_steps(motion):
    """Horizontal metres [T - 1, 2] that the slower of ankle and ball moves: a foot may roll about either without sliding."""
    places = motion.positions[:, list(SMPL22_FEET)][..., [0, 2]]
    return np.linalg.norm(np.diff(places, axis=0), axis=-1).reshape(-1, 2, 2).min(-1)


def foot_slide(motion: Motion, *, floor=0.0) -> float:
    """Mean millimetres that a planted foot moves over the floor in one frame of 30 Hz, whatever the motion's rate.

    Zero when no foot is ever planted (see `planted`; PhysicalReport says the planted share beside it).
    """
    down = planted(motion, floor=floor)
    steps = _foot_steps(motion) * (1000 * motion.fps / MODEL_FPS)
    return float(steps[down].mean()) if down.any() else 0.0


def floor_clearance(motion: Motion, *, floor=0.0) -> np.ndarray:
    """Metres [T] of the lowest foot point above its standing height: positive floats, negative sinks."""
    _smpl22(motion)
    return _foot_heights(motion, floor).min((1, 2))


def jitter(motion: Motion) -> float:
    """Mean length of the joints' third time derivative (jerk) in m/s^3, by third differences; 0 below four frames."""
    if len(motion) < 4:
        return 0.0
    jerk = np.diff(motion.positions, n=3, axis=0) * motion.fps**3
    return float(np.linalg.norm(jerk, axis=-1).mean())


def _closest(p0, p1, q0, q1):
    """Parameters s, t [...] in [0, 1] and distance [...] of the closest points of segments p0-p1 and q0-q1 [..., 3]."""
    d1, d2, r = p1 - p0, q1 - q0, p0 - q0
    a, e, f = (d1 * d1).sum(-1), (d2 * d2).sum(-1), (d2 * r).sum(-1)
    b, c = (d1 * d2).sum(-1), (d1 * r).sum(-1)
    a, e = np.maximum(a, 1e-12), np.maximum(e, 1e-12)
    det = a * e - b * b
    s = np.where(det > 1e-9 * a * e, np.clip((b * f - c * e) / np.maximum(det, 1e-18), 0, 1), 0.0)
    t = np.clip((b * s + f) / e, 0, 1)
    s = np.clip((b * t - c) / a, 0, 1)
    gap = r + s[..., None] * d1 - t[..., None] * d2
    return s, t, np.sqrt((gap * gap).sum(-1))


def penetration(a: Motion, b: Motion, *, hands=False) -> np.ndarray:
    """Deepest overlap in centimetres [T] of two bodies of capsules; 0 where they are apart.

    One tapered capsule a bone, radii by anthropometry scaled with stature (`rtinteract.motion.capsules`). Hand on hand is
    left out unless ``hands``: that is what a handshake does.
    """
    _together(a, b)
    bodies = [(bones(m.skeleton), capsules(bones(m.skeleton), m.positions, world_rotations(m.skeleton, m.rotations)))
              for m in (a, b)]
    (bones_a, (p0, p1)), (bones_b, (q0, q1)) = bodies
    radii_a, radii_b = (np.array([bone.radii for bone in body]) for body in (bones_a, bones_b))
    hand_a, hand_b = (np.array([bone.part in _HANDS for bone in body]) for body in (bones_a, bones_b))
    deepest = np.zeros(len(a))
    # Frames in which even the bounding spheres are apart need no pairs.
    near = np.linalg.norm(a.root - b.root, axis=-1) < 1.2 * (a.skeleton.height + b.skeleton.height)
    for start in range(0, len(a), 64):
        rows = np.arange(start, min(start + 64, len(a)))
        rows = rows[near[rows]]
        if len(rows) == 0:
            continue
        s, t, distance = _closest(p0[rows, :, None], p1[rows, :, None], q0[rows, None], q1[rows, None])
        radius = (radii_a[:, 0, None] + s * (radii_a[:, 1] - radii_a[:, 0])[:, None]
                  + radii_b[:, 0] + t * (radii_b[:, 1] - radii_b[:, 0]))
        depth = radius - distance
        if not hands:
            depth[:, hand_a[:, None] & hand_b[None]] = 0
        deepest[rows] = np.maximum(depth.max((1, 2)), 0)
    return 100 * deepest


def touching_point(motion: Motion, joint: int) -> np.ndarray:
    """World places [T, 3] of the point with which a joint touches: a wrist's palm, else the joint's own centre."""
    if joint not in _FINGERS:
        return motion.positions[:, joint]
    turn = world_rotations(motion.skeleton, motion.rotations)[:, joint]
    return motion.positions[:, joint] + R.rotate(turn, PALM_M * _FINGERS[joint])


def contact_error(a: Motion, b: Motion, contacts) -> np.ndarray:
    """Mean centimetres [contacts] by which touching points miss each other while they should touch.

    ``contacts``: (joint of a, joint of b, first frame, frame after the last[, gap in metres]), or objects with the fields
    joint_a, joint_b, start, end, gap. Wrists touch with the palm. Frames outside the clip are cut off; a contact wholly
    outside is an error.
    """
    _together(a, b)
    errors = []
    for contact in contacts:
        if hasattr(contact, "joint_a"):
            contact = (contact.joint_a, contact.joint_b, contact.start, contact.end, getattr(contact, "gap", 0.0))
        joint_a, joint_b, start, end, gap = (*contact, 0.0)[:5]
        rows = slice(max(int(start), 0), min(int(end), len(a)))
        if rows.stop <= rows.start or not (0 <= joint_a < 22 and 0 <= joint_b < 22):
            raise MotionError(f"contact: expected joints 0 to 21 and frames inside 0 to {len(a)}, got joints {joint_a} and "
                              f"{joint_b}, frames {start} to {end}; give contacts of this clip")
        apart = np.linalg.norm(touching_point(a, joint_a)[rows] - touching_point(b, joint_b)[rows], axis=-1)
        errors.append(100 * np.abs(apart - gap).mean())
    return np.array(errors)


def hand_contacts(a: Motion, b: Motion, *, near=0.05) -> np.ndarray:
    """Whether each hand touches the other person, bool [T, 4]: a's left and right hand on b, b's left and right hand on a.

    A hand touches when the middle of its palm is within ``near`` metres of the partner's surface (capsules, as `penetration`
    has them) or inside it.
    """
    _together(a, b)
    touches = []
    for own, other in ((a, b), (b, a)):
        body = bones(other.skeleton)
        p0, p1 = capsules(body, other.positions, world_rotations(other.skeleton, other.rotations))
        radii = np.array([bone.radii for bone in body])
        for wrist in _FINGERS:
            palm = touching_point(own, wrist)[:, None]
            along = p1 - p0
            share = np.clip(((palm - p0) * along).sum(-1) / np.maximum((along * along).sum(-1), 1e-12), 0, 1)
            apart = np.linalg.norm(palm - p0 - share[..., None] * along, axis=-1)
            touches.append((apart - radii[:, 0] - share * (radii[:, 1] - radii[:, 0])).min(-1) < near)
    return np.stack(touches, 1)


@dataclass(frozen=True)
class ContactCounts:
    """Frames and hands in which the made motion touches (``made``), the true one does (``true``), and both do (``both``)."""

    made: int = 0
    true: int = 0
    both: int = 0

    @classmethod
    def of(cls, made: np.ndarray, true: np.ndarray) -> ContactCounts:
        """Of two answers of `hand_contacts` for the same frames."""
        if made.shape != true.shape:
            raise MotionError(f"contacts: expected labels of the same frames, got {made.shape} and {true.shape}")
        return cls(int(made.sum()), int(true.sum()), int((made & true).sum()))

    def __add__(self, other: ContactCounts) -> ContactCounts:
        return ContactCounts(self.made + other.made, self.true + other.true, self.both + other.both)

    @property
    def precision(self) -> float | None:
        """Share of the made touches that are true, frame by frame; None where nothing touches."""
        return self.both / self.made if self.made else None

    @property
    def recall(self) -> float | None:
        """Share of the true touches that are made, frame by frame; None where nothing should touch."""
        return self.both / self.true if self.true else None


def facing_error(motion: Motion, partner: Motion) -> np.ndarray:
    """Degrees [T] between a person's facing (from hips and shoulders) and the level direction to the partner's pelvis."""
    _together(motion, partner)
    p = motion.positions
    yaw = R.heading((p[:, 1] - p[:, 2]) + (p[:, 16] - p[:, 17]))
    to = partner.root - motion.root
    wanted = np.arctan2(to[:, 0], to[:, 2])
    return np.degrees(np.abs((yaw - wanted + np.pi) % (2 * np.pi) - np.pi))


def pelvis_distance(a: Motion, b: Motion) -> np.ndarray:
    """Level metres [T] between the two pelvises."""
    _together(a, b)
    return np.linalg.norm((a.root - b.root)[:, [0, 2]], axis=-1)


def mpjpe(motion: Motion, truth: Motion, *, align="none") -> float:
    """Mean joint distance in millimetres; ``align`` "root" first moves each frame's pelvis onto the truth's."""
    _together(motion, truth)
    if align not in ("none", "root"):
        raise MotionError(f"mpjpe: expected align 'none' or 'root', got {align!r}; choose one of these")
    p, q = motion.positions, truth.positions
    if align == "root":
        p, q = p - p[:, :1], q - q[:, :1]
    return float(1000 * np.linalg.norm(p - q, axis=-1).mean())


def fk_error(motion: Motion) -> float:
    """Largest distance in millimetres between the positions and what the rotations and the skeleton make of them."""
    places = forward_kinematics(motion.skeleton, motion.root, motion.rotations)
    return float(1000 * np.linalg.norm(motion.positions - places, axis=-1).max())


def tilt(motion: Motion) -> np.ndarray:
    """Degrees [T] between the line from pelvis to neck and the vertical: about 0-20 upright, 90 lying."""
    _smpl22(motion)
    spine = motion.positions[:, 12] - motion.positions[:, 0]
    return np.degrees(np.arctan2(np.linalg.norm(spine[:, [0, 2]], axis=-1), spine[:, 1]))


@dataclass(frozen=True)
class PhysicalReport:
    """Figures of one person, and with a partner of the two; None where there is no partner or no contact.

    Slide in mm per 30 Hz frame over planted steps (their share beside it); float and sink the mean cm of the lowest foot
    point above or below standing height; jitter m/s^3; tilt and facing medians in degrees; forward-kinematics error mm;
    penetration cm over frames; contact error mean cm over contacts; level distance between pelvises in metres.
    """

    foot_slide_mm: float
    planted_share: float
    float_cm: float
    sink_cm: float
    jitter: float
    tilt_deg: float
    fk_error_mm: float
    penetration_median_cm: float | None = None
    penetration_max_cm: float | None = None
    facing_deg: float | None = None
    distance_mean_m: float | None = None
    distance_min_m: float | None = None
    contact_error_cm: float | None = None

    def to_dict(self) -> dict:
        """The figures as plain JSON types."""
        return asdict(self)


def physical_report(motion: Motion, partner: Motion | None = None, contacts=(), *, floor=0.0) -> PhysicalReport:
    """All figures of ``motion``, and with ``partner`` those of the two.

    ``contacts`` as in `contact_error`, with ``motion`` as a and ``partner`` as b. MotionError for another skeleton or motions
    of different length or rate.
    """
    clearance = floor_clearance(motion, floor=floor)
    down = planted(motion, floor=floor)
    report = PhysicalReport(
        foot_slide_mm=foot_slide(motion, floor=floor),
        planted_share=float(down.any(-1).mean()) if len(down) else 0.0,
        float_cm=float(100 * np.maximum(clearance, 0).mean()), sink_cm=float(100 * np.maximum(-clearance, 0).mean()),
        jitter=jitter(motion), tilt_deg=float(np.median(tilt(motion))), fk_error_mm=fk_error(motion))
    if partner is None:
        return report
    depth, apart = penetration(motion, partner), pelvis_distance(motion, partner)
    errors = contact_error(motion, partner, contacts)
    return replace(
        report, penetration_median_cm=float(np.median(depth)), penetration_max_cm=float(depth.max()),
        facing_deg=float(np.median(facing_error(motion, partner))), distance_mean_m=float(apart.mean()),
        distance_min_m=float(apart.min()), contact_error_cm=float(errors.mean()) if len(errors) else None)

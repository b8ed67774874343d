"""Close the last centimetres of a touch: the second person's arms, trunk and pelvis follow where the first one's hands are.

Who stands too far off walks farther, or takes a step, where there is time for it (clips; a stream's next frames are too few).
What is then missing to each touch is brought in by the arm first (two bones, the elbow keeps its side), then by a lean of the
spine, then by a small shift of the pelvis over feet that stay where they are. Every such correction comes and goes along a
minimum-jerk ramp as long as its way needs, so a hand never hurries; nothing else of the motion changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rtinteract import rotation as R
from rtinteract.contact import FINGERS, HANDS, PALM, PALM_M, Touch
from rtinteract.feet import bend_legs, walk_farther
from rtinteract.motion.legs import reach
from rtinteract.skeleton import SMPL22, forward_kinematics

FPS = 30.0
# The greatest speed of a correction, and the fewest and most frames over which it comes.
SPEED_M_S = 1.6
QUICK, SLOW = 6, 20
# Metres beyond which a touch is another matter than a miss: of the way of a hand, and of what a trunk would have to give.
FAR_M, SHORT_M = 0.8, 0.2
# Shares of the arm's length that a hand is asked to reach, and lengths in metres that lean and pelvis give at most.
REACH, LEAN_M, SHIFT_M = 0.985, 0.14, 0.10
# How much more than a palm laid on it, or an arm too short, a trunk heeds the other one's chest.
CHEST = 4.0
# Metres from which on a body that stands off rather walks there than leans.
STEP_M = 0.08
# The forearm's share of a hand's twist.
FOREARM = 0.6
# Radians that the trunk turns at most.
TURN = 0.3
_SMOOTH = 2.5
_SPINE = (3, 6, 9)
_ARMS = {20: (13, 16, 18, 20), 21: (14, 17, 19, 21)}
_SIDE = {20: 0, 21: 1}
_UP = np.array([0.0, 1.0, 0.0])
# Where a hand lies on a body, in the frame of that joint: on top and out from a shoulder, behind the back.
_LAID = {16: (0.35, 0.85, 0.15), 17: (-0.35, 0.85, 0.15), 9: (0.0, 0.1, -1.0), 6: (0.0, 0.0, -1.0)}
# Weight in metres of that direction against where the hand is.
_LAID_M = 0.25


def _unit(v):
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9)


def minimum_jerk(u):
    """A step from 0 to 1 over u = 0 to 1 (numpy or torch), at rest at both ends."""
    u = u.clip(0, 1)
    return u ** 3 * (10 - 15 * u + 6 * u * u)


def frames_of(way: float, quick: int = QUICK) -> int:
    """Frames that a correction of so many metres takes to come, at least ``quick``: a minimum-jerk step peaks at 1.875 times its
    mean speed."""
    return int(np.clip(np.ceil(1.875 * way / SPEED_M_S * FPS), quick, SLOW))


def _smooth(x):
    """Over time [T, ...], ends held."""
    reach_ = int(4 * _SMOOTH)
    kernel = np.exp(-0.5 * (np.arange(-reach_, reach_ + 1) / _SMOOTH) ** 2)
    padded = np.concatenate([np.repeat(x[:1], reach_, 0), x, np.repeat(x[-1:], reach_, 0)])
    return np.apply_along_axis(np.convolve, 0, padded, kernel / kernel.sum(), "valid")


def _weight(frames: int, touch: Touch, ways: np.ndarray, fixed: int) -> np.ndarray:
    """Share [T] of a touch's correction, from what is missing [T] in metres; none in the first ``fixed`` frames."""
    t = np.arange(frames)
    last = min(touch.end, frames) - 1
    come, go = frames_of(ways[touch.start]), frames_of(ways[last]) + 2
    share = minimum_jerk((t - touch.start + come) / come) * (1 - minimum_jerk((t - last) / go))
    return share * minimum_jerk((t - fixed + 1) / come) if fixed and touch.start - come < fixed else share


def _palm(places, turns, hand):
    return places[:, hand] + PALM_M * R.rotate(turns[:, hand], FINGERS[_SIDE[hand]])


def _points(touch: Touch, actor, reactor):
    """(where person 1's point should be, where it is), both [T, 3]; ``actor`` and ``reactor`` are (places, turns)."""
    if touch.b not in HANDS:
        there = _palm(*actor, touch.a) if touch.a in HANDS else actor[0][:, touch.a]
        here = reactor[0][:, touch.b]
        return there + touch.gap * _unit(here - there), here
    here = _palm(*reactor, touch.b)
    if touch.a in HANDS:
        there = _palm(*actor, touch.a)
        if _SIDE[touch.a] == _SIDE[touch.b]:
            way = R.rotate(actor[1][:, touch.a], np.broadcast_to(PALM, there.shape))
        else:
            way = _unit(reactor[0][:, _ARMS[touch.b][1]] - there)
    else:
        there = actor[0][:, touch.a]
        laid = R.rotate(actor[1][:, 9], np.broadcast_to(_unit(np.array(_LAID[touch.a])), there.shape))
        way = _unit(here - there + _LAID_M * laid)
    return there + touch.gap * way, here


def _hand_turn(touch: Touch, actor, own):
    """World rotation [T, 4] of a touching hand: two hands of one side meet as each other's image behind a half turn about the
    vertical; else the ``own`` one stays."""
    if touch.a in HANDS and _SIDE[touch.a] == _SIDE[touch.b]:
        return R.multiply(np.broadcast_to(R.yaw(np.float64(np.pi)), own.shape), actor[1][:, touch.a])
    return own


def _turned(own, goal, weight):
    """Share ``weight`` [T] of the way from world rotations ``own`` to ``goal`` [T, 4], the short way round where the weight is
    greatest and the same way round everywhere: no hand flips where two ways are as long."""
    q = R.continuous(R.multiply(goal, R.inverse(own)))
    q = q * (1.0 if q[weight.argmax(), 0] >= 0 else -1.0)
    half = np.arctan2(np.linalg.norm(q[:, 1:], axis=-1), q[:, 0])
    return R.multiply(R.from_axis_angle(_unit(q[:, 1:]) * (2 * half * weight)[:, None]), own)


def _arm_goals(touches, actor, reactor, weights):
    """By hand: (wrist's goal [T, 3], hand's world rotation [T, 4], share [T])."""
    goals = {}
    for hand in HANDS:
        own = [(t, w) for t, w in zip(touches, weights, strict=True) if t.b == hand]
        if not own:
            continue
        total = np.maximum(sum(w for _, w in own), 1e-9)
        places, turn, share = 0.0, reactor[1][:, hand], np.zeros(len(total))
        for touch, weight in own:
            turned = _turned(reactor[1][:, hand], _hand_turn(touch, actor, reactor[1][:, hand]), weight)
            there, _ = _points(touch, actor, reactor)
            places = places + (weight / total)[:, None] * there
            turn = np.where((weight > share)[:, None], turned, turn)
            share = np.maximum(share, weight)
        goals[hand] = places - PALM_M * R.rotate(turn, np.broadcast_to(FINGERS[_SIDE[hand]], places.shape)), turn, share
    return goals


def _need(touches, weights, goals, actor, reactor):
    """(metres [T, 3] by which the trunk should go, radians [T] by which it should turn to the left): to where it is touched, and
    as far as arms are too short."""
    needs, total = np.zeros_like(reactor[0][:, 0]), np.zeros(len(reactor[0]))
    touched = []
    for touch, weight in zip(touches, weights, strict=True):
        if touch.b not in HANDS:
            there, here = _points(touch, actor, reactor)
            touched.append((weight, there - here, here - reactor[0][:, 9]))
            share = weight * (1.0 if touch.a in HANDS else CHEST)
            needs += share[:, None] * (there - here)
            total += share
    mean = needs / np.maximum(total, 1.0)[:, None]
    turn, spread = np.zeros(len(needs)), np.full(len(needs), 1e-4)
    for weight, need, arm in touched:
        rest = need - mean
        turn += weight * (arm[:, 2] * rest[:, 0] - arm[:, 0] * rest[:, 2])
        spread += weight * (arm[:, [0, 2]] ** 2).sum(-1)
    for hand, (wrist, _, share) in goals.items():
        _, shoulder, elbow, end = _ARMS[hand]
        places = reactor[0]
        arm = np.linalg.norm(places[0, elbow] - places[0, shoulder]) + np.linalg.norm(places[0, end] - places[0, elbow])
        line = wrist - places[:, shoulder]
        far = np.linalg.norm(line, axis=-1) - REACH * arm
        # Rounded off, so that the trunk does not start at once when the arm is spent.
        missing = 0.5 * (far + np.sqrt(far ** 2 + 0.02 ** 2))
        needs += (share * np.where(far > -0.1, missing, 0.0))[:, None] * _unit(line)
        total += share * (far > -0.05)
    turn = turn / spread if len(touched) > 1 else 0 * turn
    return _smooth(needs / np.maximum(total, 1.0)[:, None]) * [1.0, 0.0, 1.0], _smooth(turn)


def _follow_trunk(root, rotations, offsets, needs, turn):
    """Lean the spine, turn it and shift the pelvis by what is needed; feet stay. Returns (root, rotations)."""
    size = np.linalg.norm(needs, axis=-1, keepdims=True)
    lean = needs / np.maximum(size, 1e-9) * LEAN_M * np.tanh(size / LEAN_M)
    turn = TURN * np.tanh(turn / TURN)
    places, turns = forward_kinematics(SMPL22, root, rotations, offsets=offsets, with_rotations=True)
    height = np.mean([(places[:, 16] + places[:, 17])[:, 1] / 2 - places[:, j, 1] for j in _SPINE], axis=0)
    vector = np.cross(np.broadcast_to(_UP, lean.shape), lean) / np.maximum(height, 0.15)[:, None]
    vector = (vector + turn[:, None] * _UP) / len(_SPINE)
    rotations = rotations.copy()
    parent = turns[:, 0]
    for joint in (*_SPINE, 12):
        # The neck takes back most of it, eyes stay on the other one.
        share = -2.0 if joint == 12 else 1.0
        carried = R.multiply(parent, rotations[:, joint])
        world = R.multiply(R.from_axis_angle(share * vector), carried)
        rotations[:, joint] = R.multiply(R.inverse(parent), world)
        parent = world
    rest = needs - lean
    far = np.linalg.norm(rest, axis=-1, keepdims=True)
    shift = rest / np.maximum(far, 1e-9) * SHIFT_M * np.tanh(far / SHIFT_M)
    if np.abs(shift).max() < 1e-4:
        return root, rotations
    return bend_legs(root + shift, rotations, offsets, places[:, [7, 8]])


def _follow_arm(hand, goal, offsets, places, turns, rotations):
    """Turn shoulder, elbow and wrist (in place) so that the wrist goes the goal's share of its way."""
    wrist, turn, share = goal
    collar, shoulder, elbow, end = _ARMS[hand]
    upper, lower = places[:, elbow] - places[:, shoulder], places[:, end] - places[:, elbow]
    target = places[:, end] + share[:, None] * (wrist - places[:, end]) - places[:, shoulder]
    arm = np.linalg.norm(upper, axis=-1) + np.linalg.norm(lower, axis=-1)
    far = np.linalg.norm(target, axis=-1)
    longest = np.maximum(0.997 * arm, np.linalg.norm(upper + lower, axis=-1))
    target = target * np.minimum(1.0, longest / np.maximum(far, 1e-9))[:, None]
    # A straight arm bends its elbow so that the hand comes forward.
    hinge = R.rotate(turns[:, shoulder], np.broadcast_to([0.0, -1.0 if hand == 20 else 1.0, 0.0], target.shape))
    first, second = reach(upper, lower, target, hinge)
    moved = share > 1e-6
    new_upper = R.multiply(first, turns[:, shoulder])
    new_lower = R.multiply(second, turns[:, elbow])
    # The forearm takes its part of a hand's twist.
    axis = _unit(np.broadcast_to(offsets[end], target.shape))
    twists = [R.swing_twist(R.multiply(R.inverse(low), hand_), axis)[1]
              for low, hand_ in ((new_lower, turn), (turns[:, elbow], turns[:, end]))]
    extra = R.to_axis_angle(R.multiply(twists[0], R.inverse(twists[1])))
    new_lower = R.multiply(new_lower, R.from_axis_angle(FOREARM * extra))
    new = [R.multiply(R.inverse(turns[:, collar]), new_upper), R.multiply(R.inverse(new_upper), new_lower),
           R.multiply(R.inverse(new_lower), turn)]
    for joint, local in zip((shoulder, elbow, end), new, strict=True):
        rotations[:, joint] = np.where(moved[:, None], local, rotations[:, joint])


def _within(touch: Touch, ways: np.ndarray, actor, reactor, offsets) -> bool:
    """Whether what is missing to a touch [T] can be closed at least once while it lasts."""
    rows = slice(touch.start, touch.end)
    if touch.b not in HANDS:
        return ways[rows].min() < 1.5 * SHORT_M
    there, _ = _points(touch, actor, reactor)
    short = np.linalg.norm(there - reactor[0][:, _ARMS[touch.b][1]], axis=-1) - _arm_length(offsets, touch.b)
    return ways[rows].min() < FAR_M and short[rows].min() < SHORT_M


def _arm_length(offsets, hand) -> float:
    """Metres from shoulder to palm of a straight arm."""
    _, _, elbow, end = _ARMS[hand]
    return float(np.linalg.norm(offsets[elbow]) + np.linalg.norm(offsets[end])) + PALM_M


def _missing(touches, actor, reactor, offsets):
    """Metres [3] by which the whole body stands off for these touches, in the mean; where chests meet they alone say it, arms
    then bend as they must."""
    ways, count = np.zeros(3), 0
    chests = [t for t in touches if t.a not in HANDS and t.b not in HANDS]
    for touch in chests or touches:
        rows = slice(touch.start, touch.end)
        there, here = (p[rows] for p in _points(touch, actor, reactor))
        if touch.b in HANDS:
            line = there - reactor[0][rows, _ARMS[touch.b][1]]
            short = np.linalg.norm(line, axis=-1) - REACH * _arm_length(offsets, touch.b)
            ways += (np.maximum(short, 0.0)[:, None] * _unit(line)).mean(0)
            count += bool(short.mean() > -0.05)
        else:
            ways += (there - here).mean(0)
            count += 1
    return ways / max(count, 1) * [1.0, 0.0, 1.0]


def _groups(touches):
    """Touches in the order of time, those that overlap together."""
    groups: list[list[Touch]] = []
    for touch in sorted(touches, key=lambda t: t.start):
        if groups and touch.start < max(t.end for t in groups[-1]):
            groups[-1].append(touch)
        else:
            groups.append([touch])
    return groups


def _follow_steps(root, rotations, offsets, actor, touches, fixed):
    """Walk farther to touches by what the body stands off; who need not or cannot walk there stays, and so does who is only
    touched, as by a push: that one's own hands or chest take no part."""
    begin = fixed
    for group in _groups(touches):
        arrive = min(t.start for t in group)
        reactor = forward_kinematics(SMPL22, root, rotations, offsets=offsets, with_rotations=True)
        way = _missing(group, actor, reactor, offsets)
        far = float(np.linalg.norm(way))
        takes_part = any(t.b in HANDS or t.a not in HANDS for t in group)
        if takes_part and STEP_M < far < FAR_M and begin < arrive < len(root):
            there = walk_farther(root, rotations, offsets, way, begin, arrive)
            if far * (1 - there[2]) < SHORT_M:
                root, rotations = there[:2]
        begin = max(t.end for t in group)
    return root, rotations


def close(root: np.ndarray, rotations: np.ndarray, offsets: np.ndarray, actor: tuple[np.ndarray, np.ndarray],
          touches: Sequence[Touch], fixed: int = 0, steps: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Person 1's root [T, 3] and local rotations [T, 22, 4] of a body with rest ``offsets`` [22, 3], so that it makes ``touches``
    with the ``actor`` (joint places [T, 22, 3], world rotations [T, 22, 4]); metres. The first ``fixed`` frames stay as they are.
    ``steps``: who walks up walks as far as it takes, and stands there from then on.
    """
    touches = [t for t in touches if t.start < len(root)]
    if steps:
        root, rotations = _follow_steps(root, rotations, offsets, actor, touches, fixed)
    reactor = forward_kinematics(SMPL22, root, rotations, offsets=offsets, with_rotations=True)
    made, weights = [], []
    for touch in touches:
        there, here = _points(touch, actor, reactor)
        ways = np.linalg.norm(there - here, axis=-1)
        if _within(touch, ways, actor, reactor, offsets):
            made.append(touch)
            weights.append(_weight(len(root), touch, ways, fixed))
    if not made:
        return root, rotations
    goals = _arm_goals(made, actor, reactor, weights)
    new_root, new, needs, turn = root, rotations.copy(), 0.0, 0.0
    # Again for what is left, within the same limits; a clip has time for more.
    for _ in range(4 if steps else 2):
        left, askew = _need(made, weights, goals, actor, reactor)
        if max(np.abs(left).max(), np.abs(askew).max()) < 2e-3:
            break
        needs, turn = needs + left, turn + askew
        new_root, new = _follow_trunk(root, rotations, offsets, needs, turn)
        reactor = forward_kinematics(SMPL22, new_root, new, offsets=offsets, with_rotations=True)
    if goals:
        for hand, goal in goals.items():
            _follow_arm(hand, goal, offsets, *reactor, new)
    new_root, new = new_root.copy(), R.normalize(new)
    new_root[:fixed], new[:fixed] = root[:fixed], rotations[:fixed]
    return new_root, new

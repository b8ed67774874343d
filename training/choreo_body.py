"""One person of a composed pair: footprints and real posture turned into a body, then lean, gaze and reach on top."""

from __future__ import annotations

import numpy as np
from rtinteract.training import ik
from rtinteract.training.choreo_check import segment_gaps
from rtinteract.training.choreo_source import SWAY, Posture, default_posture, foot_to_hip, leg_length, nlerp
from rtinteract.training.gestures import breathing, envelope, lagged, minjerk, noise, ramp, smooth
from rtinteract.training.locomotion import base_line, foot_tracks, swing_ease, turned
from rtinteract.training.pairs import PALM_M

from rtinteract import rotation as R
from rtinteract.skeleton import SMPL22

# Seconds by which hips, and chest and head, turn before the mean of the feet.
TURN_EARLY_S = (0.14, 0.30)
LEAN = {3: 0.3, 6: 0.35, 9: 0.35}
GAZE = {9: 0.15, 12: 0.40, 15: 0.45}
# A knee near its end snaps: legs are kept this much of their length at most, by lowering the pelvis.
LEG_REACH = 0.992
# Foot joint above the floor when the foot stands flat, in leg lengths (SMPL-22: 0.025 m).
TOE_UP = 0.03
# Radians by which people of the training split hold a joint otherwise than the clip they borrow: few clips are soon known by
# heart, and no two people carry themselves alike.
MANNER = {3: 0.05, 6: 0.05, 9: 0.05, 12: 0.06, 15: 0.06, 13: 0.05, 14: 0.05,
          16: 0.16, 17: 0.16, 18: 0.12, 19: 0.12, 20: 0.15, 21: 0.15}


def drawn_body(rng, bodies):
    """Rest offsets [22, 3] of a new person: a solo body, 0.88-1.12 of average height, proportions a little changed."""
    offsets = np.array(bodies[rng.integers(len(bodies))], dtype=np.float64)
    # Left and right of a captured body differ by calibration; people are nearly symmetric.
    flip = np.array([-1.0, 1.0, 1.0])
    mirror = np.array([0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20])
    offsets = 0.5 * (offsets + offsets[mirror] * flip)
    # The ankle-to-toe drop of some captures is off; a foot that stands flat needs the average one.
    offsets[[10, 11]] = SMPL22.offsets[[10, 11]] * leg_length(offsets) / leg_length(SMPL22.offsets)
    offsets *= np.clip(rng.normal(1.0, 0.065), 0.88, 1.12) * leg_length(SMPL22.offsets) / leg_length(offsets)
    for joints in ((4, 5), (7, 8), (18, 19), (20, 21), (3, 6, 9), (16, 17), (1, 2)):
        offsets[list(joints)] *= rng.uniform(0.96, 1.04)
    return offsets


def drawn_manner(rng):
    """Turns [joints of MANNER, 4] that a new person adds to every posture; none at all for some."""
    degree = rng.choice([0.0, 0.6, 1.0, 1.4])
    return R.from_axis_angle(rng.standard_normal((len(MANNER), 3)) * degree * np.array(list(MANNER.values()))[:, None])


def _way(base, goal, weight):
    """Rotations [T, J, 4] from ``base`` to ``goal`` by ``weight`` [T], one way round for all frames: half turns do not flip."""
    underway = (weight * (1 - weight) + 1e-3 * weight)[:, None, None]
    sign = np.where((underway * base * goal).sum((0, 2)) < 0, -1.0, 1.0)[:, None]
    w = weight[:, None, None]
    return R.normalize(base * (1 - w) + sign * goal * w)


class Performer:
    """Build with a plan and a standing posture; then `build`, `bend`, `shift`, `look`, `refresh`, `reach`, `finish`.

    ``times`` [T] seconds. After `refresh`: ``places`` [T, 22, 3], ``turns`` [T, 22, 4] in the world.
    """

    def __init__(self, library, rng, times, offsets, plan):
        self.rng, self.times, self.offsets, self.plan = rng, times, offsets, plan
        self.leg = leg_length(offsets)
        self.arm = float(np.linalg.norm(offsets[18]) + np.linalg.norm(offsets[20]))
        # Few captured spells are soon known by heart: the plain stance joins them.
        spells = [*library.quiet, *[None] * (1 if len(library.quiet) < 8 else 0)]
        self.quiet = spells[rng.integers(len(spells))]
        self.mood = (rng.uniform(0.4, 0.8), rng.uniform(0, 2), rng.uniform(0.972, 0.996))
        self.manner = drawn_manner(rng.spawn(1)[0]) if library.split == "train" else None
        self.layers: list[tuple[Posture, np.ndarray]] = []
        self.lent: set[str] = {self.quiet.source.name} if self.quiet else set()
        self.reaching = [np.zeros(len(times)), np.zeros(len(times))]

    # -- base ---------------------------------------------------------------------------------------------------------
    def overlay(self, source, posture, weight):
        """Blend another posture, sampled from a clip (a gesture made while standing), over the standing one by weights [T]."""
        self.layers.append((posture, weight))
        self.lent.add(source.name)

    def build(self):
        """Pose from the plan: footprints, base line, standing posture, walks, gestures, breathing and small noise."""
        t, plan = self.times, self.plan
        posture = self.quiet.idle(t, *self.mood[:2]) if self.quiet else default_posture(len(t))
        # Captured bodies stand with knees bent by how their skeletons were measured; people stand nearly straight.
        pelvis = posture.pelvis + np.array([0, self.mood[2] - np.median(posture.pelvis[:, 1]), 0])
        posture = Posture(self._own_way(posture.rotations), pelvis, np.zeros((len(t), 2, 3)), R.identity((len(t), 2)))
        never = np.zeros(len(t))
        for layer, weight in self.layers:
            posture = posture.blended(layer, weight, never)
        walking = np.zeros(len(t))
        for stride in plan.strides:
            clip = stride.source.sample(stride.clip_start + (t - stride.start) * stride.rate)
            self._scale_swings(clip, stride)
            clip.rotations = self._own_way(clip.rotations)
            weight = ramp(t, stride.start - 0.15, 0.5) * (1 - ramp(t, stride.end - 0.35, 0.55))
            feet = ramp(t, max(stride.start - 0.25, stride.free), 0.25) * (1 - ramp(t, stride.end, 0.25))
            posture = posture.blended(clip, weight, feet)
            walking = np.maximum(walking, feet)
        self._feet(posture, walking)
        center, heading, onto = base_line(plan.plants, t, self.leg)
        self.heading = heading
        pelvis = posture.pelvis * self.leg
        shift = turned(heading, np.stack([pelvis[:, 0] + SWAY * self.leg * onto, pelvis[:, 2]], -1))
        ground = center + shift
        self.root = np.stack([ground[:, 0], pelvis[:, 1] + foot_to_hip(self.offsets), ground[:, 1]], -1)
        self.rotations = posture.rotations
        # Who turns on the spot turns the head first, then the chest and the hips; the feet step after them.
        hips, chest = (np.interp(t + early, t, heading) for early in TURN_EARLY_S)
        free = 1 - smooth(walking, 0.1)
        self.rotations[:, 0] = R.multiply(R.yaw(heading + free * (hips - heading)), self.rotations[:, 0])
        ik.turn_spine(self.rotations, {3: 0.2, 6: 0.2, 9: 0.2, 12: 0.2, 15: 0.2}, ik.UP * (free * (chest - hips))[:, None])
        self._live()

    def _own_way(self, rotations):
        """Rotations [T, 22, 4] of standing or walking in this person's manner; gestures stay, since a partner may copy them."""
        rotations = rotations.copy()
        if self.manner is not None:
            joints = list(MANNER)
            rotations[:, joints] = R.multiply(rotations[:, joints], self.manner)
        return rotations

    def _scale_swings(self, clip, stride):
        """Shrink the real swing's residual where the planned step is shorter than the real one."""
        for foot in (0, 1):
            gains = [(when, gain) for when, f, gain in stride.gains if f == foot]
            gain = np.interp(self.times, *zip(*gains, strict=True)) if gains else np.ones(len(self.times))
            clip.toes[:, foot] *= np.stack([gain, np.sqrt(gain), gain], -1)
            clip.feet[:, foot] = nlerp(R.identity((len(gain),)), clip.feet[:, foot], np.sqrt(np.minimum(gain, 1)))

    def _feet(self, posture, walking):
        """World toe places, foot turns and knee directions from footprints, real swings, and plain steps where there are none."""
        t = self.times
        places, yaws, phase = foot_tracks(self.plan.plants, t, ease=swing_ease)
        toes, feet = posture.toes * self.leg, posture.feet
        for lift, strike, foot in self.plan.swings:
            stances = self.plan.plants[foot]
            pair = [(a, b) for a, b in zip(stances, stances[1:], strict=False) if abs(a.end - lift) < 1e-6]
            way = pair[0][1].place - pair[0][0].place if pair else np.array([0.0, 0.2])
            length = np.linalg.norm(way)
            # Who steps back rolls the foot less and keeps the knee low.
            ahead = turned(-pair[0][0].yaw, way)[1] / max(length, 1e-3) if pair else 1.0
            bold = 0.675 + 0.325 * ahead
            plain = 1 - walking
            u = (t - lift) / (strike - lift)
            swing = np.where((u > 0) & (u < 1), np.sin(np.pi * np.clip(u, 0, 1))**2, 0)
            toes[:, foot, 1] += plain * swing * np.clip(0.035 + 0.10 * length * bold, 0.04, 0.10)
            roll = bold * np.clip(0.25 + 0.7 * length, 0.25, 0.75)
            tilt = roll * ramp(t, lift - 0.16, 0.2) * (1 - ramp(t, lift + 0.05, 0.6 * (strike - lift)))
            tilt -= 0.12 * np.exp(-0.5 * ((t - strike + 0.03) / 0.05)**2)
            feet[:, foot] = R.multiply(feet[:, foot], R.about("X", plain * tilt))
        planted = phase == 0
        # A real toe rolls a little before it leaves and after it lands; a planted one here does not move at all.
        toes *= np.where(planted, 0.0, minjerk(phase / 0.2) * minjerk((1 - phase) / 0.2))[..., None]
        # A swinging toe clears the floor from its first frame, else it reads as sliding.
        toes[..., 1] = np.maximum(toes[..., 1], 0.018 * self.leg * np.sin(np.pi * phase))
        self.planted = planted
        world = R.multiply(R.yaw(yaws), feet)
        side = turned(yaws, toes[..., [0, 2]])
        self.toes = np.stack([places[..., 0] + side[..., 0], TOE_UP * self.leg + toes[..., 1], places[..., 1] + side[..., 1]], -1)
        self.feet = world
        self.ankles = self.toes - R.rotate(world, self.offsets[None, [10, 11]])
        self.foot_yaws = yaws
        # The toes stay on the floor while the heel lifts.
        pitch = np.arcsin(np.clip(-R.rotate(feet, np.array([0.0, 0.0, 1.0]))[..., 1], -1, 1))
        posture.rotations[:, [10, 11]] = R.about("X", -0.8 * np.clip(pitch, 0, 0.6) * planted)

    def _live(self):
        """Breathing and filtered noise: nobody stands like a statue."""
        t, rng = self.times, self.rng
        wobble = noise(rng, (len(t), 9, 3), 0.45) * 0.015
        for k, joint in enumerate((3, 6, 9, 12, 15, 16, 17, 18, 19)):
            scale = 1.8 if joint >= 15 else 0.8
            vector = wobble[:, k] * scale
            self.rotations[:, joint] = R.multiply(self.rotations[:, joint], R.from_axis_angle(vector))
        breath = breathing(rng, t) * 0.012
        side = np.stack([np.cos(self.heading), 0 * breath, -np.sin(self.heading)], -1)
        ik.turn_spine(self.rotations, {6: 0.5, 9: 0.5}, -side * breath[:, None])
        self.root = self.root + noise(rng, (len(t), 3), 0.6) * np.array([0.009, 0.0015, 0.009])

    # -- layers -------------------------------------------------------------------------------------------------------
    def axes(self):
        """The body's left and forward directions [T, 3] on the floor."""
        c, s, zero = np.cos(self.heading), np.sin(self.heading), np.zeros(len(self.times))
        return np.stack([c, zero, -s], -1), np.stack([s, zero, c], -1)

    def bend(self, pitch=0.0, yaw=0.0, roll=0.0, hips=0.0):
        """Bend the trunk by radians [T]: pitch forward, yaw to the left, roll to the right; ``hips`` is the pelvis's share."""
        left, ahead = self.axes()
        pitch, yaw, roll = (np.broadcast_to(np.asarray(x, float), self.times.shape)[:, None] for x in (pitch, yaw, roll))
        vector = left * pitch + ik.UP * yaw + ahead * roll
        if hips:
            self.rotations[:, 0] = R.multiply(R.from_axis_angle(hips * vector), self.rotations[:, 0])
        ik.turn_spine(self.rotations, LEAN, (1 - hips) * vector)

    def shift(self, ahead=0.0, left=0.0, up=0.0):
        """Move the pelvis by metres [T] in the body's frame; the feet stay."""
        side, front = self.axes()
        ahead, left, up = (np.broadcast_to(np.asarray(x, float), self.times.shape)[:, None] for x in (ahead, left, up))
        self.root = self.root + front * ahead + side * left + ik.UP * up

    def look(self, target, weight, delay=0.15):
        """Turn head, neck and chest toward ``target`` [T, 3] by ``weight`` [T], perceived ``delay`` seconds late."""
        worlds = ik.spine_world(self.rotations)
        facing = R.rotate(worlds[5], np.array([0.0, 0.0, 1.0]))
        eyes = self.root + np.array([0.0, 0.75 * self.leg, 0.0])
        yaw, pitch = ik.angles_of(lagged(target - eyes, self.times, delay, 0.12))
        chest = R.rotate(worlds[1], np.array([0.0, 0.0, 1.0]))
        chest_yaw, _ = ik.angles_of(smooth(chest, 0.2))
        side = smooth(np.clip(ik.wrap(yaw - chest_yaw), -1.3, 1.3), 0.1)
        now_yaw, now_pitch = ik.angles_of(facing)
        turn = weight * ik.wrap(chest_yaw + side - now_yaw)
        nod = weight * (np.clip(pitch, -0.6, 0.6) - now_pitch)
        heading = chest_yaw + side
        across = np.stack([np.cos(heading), np.zeros_like(heading), -np.sin(heading)], -1)
        ik.turn_spine(self.rotations, GAZE, ik.UP * turn[:, None])
        ik.turn_spine(self.rotations, {12: 0.45, 15: 0.55}, across * nod[:, None])
        # A captured head often sits a little aslant; someone who looks holds it level.
        head = ik.spine_world(self.rotations)[5]
        roll = np.arcsin(np.clip(R.rotate(head, np.array([1.0, 0.0, 0.0]))[:, 1], -1, 1))
        ahead = R.rotate(head, np.array([0.0, 0.0, 1.0]))
        ik.turn_spine(self.rotations, {12: 0.4, 15: 0.6}, -ahead * (0.7 * weight * roll)[:, None])

    def refresh(self):
        """Lower the pelvis where a leg would not reach its footprint, solve the legs, and update places and turns."""
        pelvis = self.rotations[:, 0]
        drop = np.zeros(len(self.times))
        for _ in range(2):
            for side, (hip, knee, ankle, _) in enumerate(ik.LEG):
                start = self.root - np.array([0.0, 1.0, 0.0]) * drop[:, None] + R.rotate(pelvis, self.offsets[hip])
                length = LEG_REACH * (np.linalg.norm(self.offsets[knee]) + np.linalg.norm(self.offsets[ankle])) - 0.002
                away = start - self.ankles[:, side]
                flat = np.minimum((away[:, [0, 2]]**2).sum(-1), (0.98 * length)**2)
                drop = drop + np.maximum(0, away[:, 1] - np.sqrt(length**2 - flat))
        if drop.max() > 1e-5:
            self.root = self.root - ik.UP * envelope(drop, 0.10)[:, None]
        ahead = R.rotate(pelvis, np.array([0.0, 0.0, 1.0]))[:, None]
        toes = R.rotate(R.yaw(self.foot_yaws), np.array([0.0, 0.0, 1.0]))
        ik.solve_legs(self.root, self.rotations, self.offsets, self.ankles, self.feet, 0.35 * ahead + 0.65 * toes)
        self.update()
        self._clear_thighs()

    def _clear_thighs(self):
        """Spread a hanging arm as far as its hand would sink into the thigh (other legs and shoulders than the clip's)."""
        _, ahead = self.axes()
        moved = False
        for side, sign in ((0, 1.0), (1, -1.0)):
            collar, shoulder, _, wrist = ik.ARM[side]
            hip, knee = ik.LEG[side][:2]
            gap = segment_gaps(self.places[:, wrist], self.point(side), self.places[:, hip], self.places[:, knee])
            sunk = np.maximum(0.0, 0.112 * self.leg - gap)
            if sunk.max() > 1e-3:
                spread = R.from_axis_angle(ahead * (sign * envelope(sunk, 0.15) / self.arm)[:, None])
                parent = self.turns[:, collar]
                world = R.multiply(spread, R.multiply(parent, self.rotations[:, shoulder]))
                self.rotations[:, shoulder] = R.multiply(R.inverse(parent), world)
                moved = True
        if moved:
            self.update()

    def update(self):
        """Forward kinematics."""
        self.places, self.turns = ik.fk(self.root, self.rotations, self.offsets)

    # -- arms ---------------------------------------------------------------------------------------------------------
    def pole(self, side, out=0.45, down=1.0, back=0.35):
        """An elbow direction [T, 3] in the chest's frame: outward, down, back."""
        across = 1.0 if side == 0 else -1.0
        return R.rotate(self.turns[:, 9], np.array([across * out, -down, -back]))

    def reach(self, side, weight, palm, hand=None, pole=None, pronation=0.0):
        """Blend an arm by ``weight`` [T] from its pose to one whose palm is at ``palm`` [T, 3] (see pairs.Contact).

        ``hand`` [T, 4] is the hand's world rotation; without it ``palm`` is the wrist's place and the hand follows the forearm.
        Rotations are blended, so the hand travels on an arc.
        """
        if not np.any(weight > 0):
            return
        joints = list(ik.ARM[side][1:])
        pole = self.pole(side) if pole is None else pole
        wrist = palm - PALM_M * R.rotate(hand, ik.FINGERS[side]) if hand is not None else palm
        goal = ik.solve_arm(side, self.places, self.turns, self.offsets, wrist, pole, hand, pronation)
        self.rotations[:, joints] = _way(R.continuous(self.rotations[:, joints]), R.continuous(goal), weight)
        self.update()

    def point(self, side):
        """The palm [T, 3]."""
        wrist = ik.ARM[side][3]
        return self.places[:, wrist] + PALM_M * R.rotate(self.turns[:, wrist], ik.FINGERS[side])

    @property
    def eyes(self):
        """The head [T, 3]."""
        return self.places[:, 15] + R.rotate(self.turns[:, 15], np.array([0.0, 0.07, 0.06]))

"""Punch and block or dodge; push and stumble."""

from __future__ import annotations

import numpy as np
from rtinteract.training import ik
from rtinteract.training.choreo_meet import SIDE
from rtinteract.training.choreo_stage import Scene
from rtinteract.training.gestures import pulse, ramp, smooth
from rtinteract.training.pairs import PALM_M

from rtinteract import rotation as R

GUARD = np.array([[0.10, 0.02, 0.52], [0.10, -0.02, 0.40]])


def punch(scene: Scene):
    """Spar: one to three punches, each blocked with the palm or dodged."""
    rng, t = scene.rng, scene.times
    close = rng.uniform(1.20, 1.40) * np.mean(scene.legs)
    gap = close + rng.uniform(0.12, 0.5)
    block = rng.uniform() < 0.55
    plans = []
    for p in range(2):
        plan = scene.stand(p, scene.spot((close / 2 - gap, close / 2)[p]), scene.facing(p))
        _fighting_stance(scene, plan)
        plans.append(plan)
    count = int(rng.integers(1, 4))
    ready = rng.uniform(-0.6, 0.5)
    when, blows = max(ready, 0) + rng.uniform(0.7, 1.3), []
    hand = int(rng.integers(2))
    for _ in range(count):
        out = rng.uniform(0.31, 0.42)
        react = rng.uniform(0.12, 0.24)
        blows.append((when, out, react, hand))
        when += out + rng.uniform(0.55, 1.1)
        hand = 1 - hand if rng.uniform() < 0.6 else hand
    first, last = blows[0], blows[-1]
    # The striker steps in for the first punch and out after the last.
    plans[0].step_pair(first[0] - rng.uniform(0.40, 0.55), scene.spot(-close / 2), scene.facing(0), rng.uniform(0.30, 0.36),
                       gap=0.05, first=_lead(plans[0]))
    if rng.uniform() < 0.7:
        when = plans[0].step_pair(last[0] + last[1] + rng.uniform(0.15, 0.5), scene.spot(close / 2 - gap * rng.uniform(0.9, 1.1)),
                                  scene.facing(0), 0.36, first=1 - _lead(plans[0]))
    step = not block and rng.uniform() < 0.5
    side = 1.0 if last[3] == 1 else -1.0
    if step:
        place = scene.spot(close / 2 + rng.uniform(0.0, 0.15), -side * rng.uniform(0.2, 0.32))
        plans[1].step_pair(last[0] + last[2], place, scene.facing(1), 0.3, gap=0.05)
    done = when + rng.uniform(0.1, 0.6)
    scene.perform()
    scene.build()
    crouch = ramp(t, ready, 0.6) * (1 - ramp(t, done, 0.8))
    for p, person in enumerate(scene.people):
        person.shift(up=-rng.uniform(0.025, 0.055) * person.leg * crouch)
        person.bend(pitch=rng.uniform(0.06, 0.16) * crouch, hips=0.3)
        scene.watch(p, scene.attention())
    _blow_trunks(scene, blows, block)
    for person in scene.people:
        person.refresh()
    _guard(scene, crouch, block)
    contacts = _blows(scene, blows, block)
    kind = "block" if block else "dodge"
    hands = (SIDE[first[3]], SIDE[_blocker(first[3])])
    scene.timing(first[0], first[0] + first[2])
    start = max(0.0, first[0] - rng.uniform(0.4, 1.6))
    end = max(start + 3.0, done + rng.uniform(0.9, 1.5))
    return scene.cut("punch", kind, hands, contacts, start, min(end, start + 8.0), lowest_pelvis=0.5)


def _fighting_stance(scene, plan):
    """One foot ahead, wider than standing: footprints are set before anything is built on them."""
    rng = scene.rng
    plan.stance.half *= rng.uniform(1.05, 1.3)
    plan.stance.stagger = plan.leg * rng.uniform(0.10, 0.2) * rng.choice([-1, 1])
    for foot in (0, 1):
        place, yaw = plan.foot_at(foot, plan.center, plan.yaw)
        plan.plants[foot][0].place, plan.plants[foot][0].yaw = place, yaw


def _lead(plan):
    """The foot that stands ahead."""
    return 0 if plan.stance.stagger > 0 else 1


def _blocker(hand):
    """The defender's hand that meets a punch: the one on the same side of the stage."""
    return 1 - hand


def _blow_trunks(scene, blows, block):
    """The striker turns the shoulder into the punch; the defender gives way or leans out of its line."""
    rng, t = scene.rng, scene.times
    a, b = scene.people
    for start, out, react, hand in blows:
        into = 1.0 if hand == 1 else -1.0
        drive = pulse(t, start - 0.10, out + 0.06, 0.03, 0.45)
        a.bend(pitch=0.10 * drive, yaw=into * rng.uniform(0.35, 0.6) * drive, hips=0.3)
        a.shift(ahead=rng.uniform(0.04, 0.09) * drive)
        if block:
            give = pulse(t, start + react, 0.3, 0.1, 0.5)
            b.bend(pitch=-rng.uniform(0.03, 0.12) * give, yaw=into * 0.12 * give)
        else:
            lean = pulse(t, start + react, max(out + 0.08 - react, 0.24), 0.12, 0.6)
            # A right punch comes at the stage's left seen by the defender; lean away to the defender's right or left.
            roll = -into * rng.uniform(0.3, 0.5)
            b.bend(roll=roll * lean, pitch=rng.uniform(0.0, 0.25) * lean, hips=0.25)
            b.shift(left=-np.sign(roll) * rng.uniform(0.08, 0.15) * lean, up=-rng.uniform(0.03, 0.09) * lean)


def _guard(scene, weight, block):
    """Both hands in front of the chin; who dodges keeps them low and close, out of the fist's way."""
    rng = scene.rng
    for p, person in enumerate(scene.people):
        low = np.array([0.0, 0.0, 0.0]) if block or p == 0 else np.array([0.03, -0.30, -0.14])
        lead = int(rng.integers(2))
        for side in (0, 1):
            across = 1.0 if side == 0 else -1.0
            spot = GUARD[0 if side == lead else 1] + low + rng.normal(0, 0.04, 3)
            goal = person.places[:, 9] + R.rotate(person.turns[:, 9], (spot * [across, 1, 1] + [0, 0.34, 0]) * person.arm)
            person.reach(side, weight, goal, None, person.pole(side, out=0.35, down=1.0, back=0.1), pronation=0.0)


def _blows(scene, blows, block):
    """Arms of each punch and each block; returns the contacts."""
    rng, t = scene.rng, scene.times
    a, b = scene.people
    contacts = []
    for start, out, react, hand in blows:
        peak = start + out
        line = ik.unit((b.places[:, 15] - a.places[:, ik.ARM[hand][1]]) * np.array([1.0, 0.0, 1.0]))
        at = int(np.clip(round(peak * 30), 0, len(t) - 1))
        face = b.places[:, 15] if block else np.repeat(b.places[[max(0, int((start + react) * 30))], 15], len(t), 0)
        shoulder = a.places[:, ik.ARM[hand][1]]
        aim = face - line * (rng.uniform(0.20, 0.26) if block else 0.16)
        aim[:, 1] -= rng.uniform(0.02, 0.16)
        reach = aim - shoulder
        far = np.linalg.norm(reach, axis=-1, keepdims=True)
        full = 0.975 * a.arm + PALM_M
        aim = shoulder + reach * np.minimum(1.0, full / far)
        aim = smooth(aim, 0.05)
        hit = rng.uniform(0.04, 0.08)
        weight = pulse(t, start, out, hit, rng.uniform(0.35, 0.5))
        palm_down = np.broadcast_to(-ik.UP, line.shape)
        direction = ik.unit(aim - shoulder)
        fist = ik.hand_turn(hand, direction, palm_down)
        a.reach(hand, weight, aim, fist, a.pole(hand, out=0.6, down=1.0, back=0.2))
        if block:
            guard = _blocker(hand)
            fingers = ik.unit(ik.UP + 0.25 * line)
            turn = ik.hand_turn(guard, fingers, -direction)
            meet = np.repeat(aim[[at]], len(t), 0) + direction * 0.008
            hold = pulse(t, start + react, out - react - 0.01, hit + rng.uniform(0.1, 0.25), rng.uniform(0.45, 0.6))
            b.reach(guard, hold, meet, turn, b.pole(guard, out=0.6, down=1.0, back=0.0))
            contacts.append((20 + hand, 20 + guard, peak, peak + hit, 0.008))
    return contacts


def push(scene: Scene):
    """Both palms on the other's shoulders; the pushed one sways, or takes one to three recovery steps."""
    rng, t = scene.rng, scene.times
    gap = rng.uniform(0.66, 0.76) * min(scene.legs[0], np.mean(scene.legs))
    braced = rng.uniform() < 0.2
    begin = rng.uniform(0.5, 1.4)
    a_plan = scene.stand(0, scene.spot(-gap / 2 - 0.0), scene.facing(0))
    b_plan = scene.stand(1, scene.spot(gap / 2), scene.facing(1) + rng.normal(0, 0.08))
    steps_in = rng.uniform() < 0.6
    if steps_in:
        far = rng.uniform(0.25, 0.5)
        a_plan = scene.stand(0, scene.spot(-gap / 2 - far), scene.facing(0))
        a_plan.step_pair(begin - 0.25, scene.spot(-gap / 2), scene.facing(0), rng.uniform(0.36, 0.44))
        begin = a_plan.swings[-1][1] - 0.1
    rise = rng.uniform(0.4, 0.6)
    touch = begin + rise
    hold = rng.uniform(0.12, 0.26)
    lag = rng.uniform(0.03, 0.10)
    back = 0.0
    settle = touch + 0.6
    if not braced:
        when, first = touch + lag + 0.05, int(rng.integers(2))
        for k in range(int(rng.integers(1, 4))):
            back += rng.uniform(0.24, 0.42) * (0.85**k)
            place = scene.spot(gap / 2 + back, rng.normal(0, 0.05))
            settle = b_plan.step_pair(when, place, scene.facing(1) + rng.normal(0, 0.1), rng.uniform(0.26, 0.34), first, 0.03)
            when = settle + rng.uniform(0.03, 0.1)
    scene.perform()
    scene.build()
    for p in range(2):
        scene.watch(p, scene.attention())
    a, b = scene.people
    drive = pulse(t, begin, rise, hold, 0.6)
    a.bend(pitch=rng.uniform(0.15, 0.28) * drive, hips=0.4)
    a.shift(ahead=rng.uniform(0.03, 0.07) * drive)
    jolt = pulse(t, touch + lag, rng.uniform(0.2, 0.3), 0.05, rng.uniform(0.5, 0.8))
    b.bend(pitch=-(0.10 if braced else rng.uniform(0.14, 0.26)) * jolt, hips=0.3)
    b.shift(ahead=-(0.05 if braced else rng.uniform(0.04, 0.08)) * jolt, up=-rng.uniform(0.02, 0.05) * jolt)
    a.refresh()
    b.refresh()
    contacts = _palms(scene, begin, rise, hold, touch)
    _flail(scene, 1, touch + lag, braced)
    variant = "braced" if braced else "stumble"
    scene.timing(touch, touch + lag, touch_at_s=float(touch))
    start = max(0.0, begin - rng.uniform(0.5, 1.6))
    end = max(settle, touch + hold + 0.7) + rng.uniform(0.6, 1.3)
    return scene.cut("push", variant, ("both", None), contacts, start, max(end, start + 3.0))


def _palms(scene, begin, rise, hold, touch):
    """Person 0's palms onto person 1's shoulders; returns the contacts (left palm to right shoulder and the reverse)."""
    rng, t = scene.rng, scene.times
    a, b = scene.people
    _, ahead = a.axes()
    contacts = []
    gap = rng.uniform(0.095, 0.12)
    for side in (0, 1):
        other = 17 if side == 0 else 16
        inward = -1.0 if other == 16 else 1.0
        offset = ik.unit(np.array([0.35 * inward, -0.30, 1.0])) * gap
        spot = b.places[:, other] + R.rotate(b.turns[:, 9], offset)
        weight = pulse(t, begin + rng.uniform(-0.02, 0.02), rise, hold, rng.uniform(0.45, 0.6))
        weight = np.where((t >= touch - 1e-6) & (t <= touch + hold), 1.0, weight)
        turn = ik.hand_turn(side, ik.unit(ik.UP + 0.45 * ahead), ahead)
        pull = -ahead * (0.10 * (1 - ramp(t, touch - 0.25, 0.25)))[:, None]
        rest = np.minimum(np.searchsorted(t, touch + hold), len(t) - 1)
        after = np.arange(len(t)) > rest
        spot = np.where(after[:, None], spot[rest], spot)
        a.reach(side, weight, smooth_after(spot, rest) + pull, turn, a.pole(side, out=0.8, down=0.8, back=0.0))
        contacts.append((20 + side, other, touch, touch + hold, gap))
    return contacts


def smooth_after(track, frame):
    """A track [T, 3] whose motion after ``frame`` goes on at the speed it had there, dying out."""
    if frame < 1 or frame + 1 >= len(track):
        return track
    velocity = track[frame] - track[frame - 1]
    n = np.arange(len(track) - frame - 1) + 1.0
    out = track.copy()
    out[frame + 1:] = track[frame] + velocity * (4.0 * (1 - np.exp(-n / 4.0)))[:, None]
    return out


def _flail(scene, p, start, braced):
    """Arms thrown up a little for balance."""
    rng, t = scene.rng, scene.times
    person = scene.people[p]
    for side in (0, 1):
        across = 1.0 if side == 0 else -1.0
        weight = (0.35 if braced else rng.uniform(0.5, 0.85)) * pulse(t, start + rng.uniform(0.02, 0.1), 0.35, 0.15, 0.8)
        spot = np.array([across * rng.uniform(0.45, 0.75), rng.uniform(-0.55, -0.2), rng.uniform(0.1, 0.5)]) * person.arm
        goal = person.places[:, ik.ARM[side][1]] + R.rotate(person.turns[:, 9], spot)
        person.reach(side, weight, goal, None, person.pole(side, out=0.9, down=0.5, back=0.4), pronation=0.0)

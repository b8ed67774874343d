"""Close meetings: hug, comfort, and an object handed over. Contacts lie between palms, or a palm and the other's body."""

from __future__ import annotations

import numpy as np
from rtinteract.training import ik
from rtinteract.training.choreo_meet import SIDE, arrive, drawn_hand, finish, hand_axis
from rtinteract.training.choreo_stage import Scene
from rtinteract.training.gestures import FPS, noise, oscillation, pulse, ramp, smooth

from rtinteract import metrics
from rtinteract import rotation as R

# Flesh between a palm's centre and the joint behind it, in leg lengths: back, top of the shoulder.
BACK, SHOULDER = 0.178, 0.115
# Median over an embrace of the deepest overlap of both bodies, of the fuller body that pictures show.
MOST_SUNK_CM = 4.0


def close_in(scene: Scene, when, far, near, shift=0.0, who=(0, 1)):
    """Step from a distance ``far`` to ``near`` metres, one or both; returns the time of the last strike."""
    rng, done = scene.rng, when
    for p in who:
        share = (far - near) / len(who)
        start = when + (rng.uniform(0.0, 0.35) if p else 0.0)
        count = max(1, int(np.ceil(share / 0.45)))
        for k in range(count):
            away = far / 2 - share * (k + 1) / count
            place = scene.spot(-away if p == 0 else away, shift if p == 0 else -shift)
            start = scene.plans[p].step_pair(start, place, scene.facing(p), rng.uniform(0.36, 0.46), gap=0.05) + 0.05
        done = max(done, start - 0.05)
    return done


def from_above(person, side, palm, turn, start, touch, hold, fall):
    """Lift a hand, turned by ``turn`` [T, 4], before it goes to ``palm`` [T, 3] and back the same way: it comes from above and
    not through an arm that hangs there. Returns the reach's own weight [T], whole from ``touch`` on for ``hold`` seconds."""
    t, rise = person.times, touch - start
    shoulder = person.places[:, ik.ARM[side][1]]
    left, _ = person.axes()
    via = shoulder + 0.55 * (palm - shoulder) + (0.07 if side == 0 else -0.07) * left
    via[:, 1] = np.maximum(palm[:, 1], shoulder[:, 1]) + 0.05
    lifted = pulse(t, start, 0.7 * rise, touch + hold + 0.45 * fall - start - 0.7 * rise, fall)
    person.reach(side, lifted, via, turn, person.pole(side, out=0.7, down=1.0, back=0.0))
    return pulse(t, start + 0.3 * rise, 0.7 * rise, hold, 0.85 * fall)


def hug(scene: Scene):
    """Open arms, step in and hold each other, one arm over and one under; or one steps back from it."""
    rng = scene.rng
    # A hug fails its checks more often than a step back: fewer of these are drawn.
    if rng.uniform() < 0.13:
        return _no_hug(scene)
    size = np.mean(scene.legs)
    near = rng.uniform(0.48, 0.56) * size
    far = near + rng.uniform(0.40, 0.95)
    over = drawn_hand(rng, 0.25)
    overs = _overs(scene.legs, over)
    shift = (-1 if over == 1 else 1) * rng.uniform(0.05, 0.075) * size * (1.0 if len(overs[0]) == 1 else 0.4)
    there, _ = arrive(scene, far, shift, far=(1.0, 2.6))
    opens = there + rng.uniform(-0.45, 0.3)
    delay = rng.uniform(0.1, 0.6)
    who = ((0,), (0, 1), (0, 1), (1,))[rng.integers(4)]
    # Arms open while there is room for them.
    done = close_in(scene, max(there, opens + delay + rng.uniform(0.15, 0.45)), far, near, shift, who)
    wrap = done - rng.uniform(0.15, 0.35)
    touch = wrap + rng.uniform(0.6, 0.75)
    hold = rng.uniform(0.9, 2.6)
    let_go = touch + hold
    back = let_go + rng.uniform(0.4, 0.6)
    middle = 0.0 if who == (0, 1) else (far - near) / 2 * (1 if who == (0,) else -1)
    gone = back
    for p in range(2) if rng.uniform() < 0.75 else [int(rng.integers(2))]:
        away = middle + (-1 if p == 0 else 1) * (near / 2 + rng.uniform(0.22, 0.42))
        gone = max(gone, scene.plans[p].step_pair(back + rng.uniform(0, 0.3), scene.spot(away, shift if p == 0 else -shift),
                                                  scene.facing(p), 0.42))
    scene.perform()
    scene.build()
    _lean_together(scene, pulse(scene.times, wrap - 0.25, touch - wrap + 0.2, hold + 0.1, 0.8), shift)
    contacts = _embrace(scene, overs, (opens, opens + delay), touch - wrap, touch, hold, back + 0.25)
    scene.timing(opens, opens + delay, touch_at_s=float(touch), over=SIDE[over])
    clip = finish(scene, "hug", False, (SIDE[over], SIDE[over]), contacts, opens, gone + rng.uniform(0.6, 1.2))
    held = slice(clip.contacts[0].start, clip.contacts[0].end)
    sunk = np.median(metrics.penetration(*(m[held] for m in clip.motions())))
    if sunk > MOST_SUNK_CM:
        scene.reject("overlap", f"arms {sunk:.1f} cm deep")
    return clip


def _lean_together(scene, held, shift):
    """Trunks toward each other until the chests nearly meet, heads to the own free side, a slow common sway."""
    rng, t = scene.rng, scene.times
    sway = 0.016 * np.sin(2 * np.pi * (rng.uniform(0.2, 0.45) * t + rng.uniform())) * held
    aside, free = rng.uniform(0.2, 0.45, 2), np.sign(shift)
    for p, person in enumerate(scene.people):
        scene.watch(p, scene.attention() * (1 - 0.9 * held))
        person.bend(roll=-0.04 * free * held, hips=0.4)
        person.shift(left=sway if p == 0 else -sway)
        person.update()
    unlike = abs(np.log(scene.legs[0] / scene.legs[1]))
    wanted = (rng.uniform(0.315, 0.345) + 0.35 * unlike) * max(np.mean(scene.legs), 0.93 * max(scene.legs))
    away = np.maximum(0, 0.5 * (_apart(scene) - wanted)) * held**2
    for p, person in enumerate(scene.people):
        chest = np.median(np.linalg.norm(person.places[:, 9] - person.places[:, 0], axis=-1))
        lean = np.minimum(away / (0.62 * chest), 0.30)
        person.bend(pitch=lean, hips=0.4)
        left, ahead = person.axes()
        turn = (ik.UP * (free * aside[p]) - ahead * (0.14 * free)) * held[:, None] - left * lean[:, None]
        ik.turn_spine(person.rotations, {12: 0.45, 15: 0.55}, turn)
        person.refresh()
    # Chests keep their distance while they touch, whatever sways.
    nearer = np.clip(0.5 * (_apart(scene) - wanted), -0.05, 0.05) * held**2
    for person in scene.people:
        person.shift(ahead=nearer)
        person.refresh()


def _overs(legs, over):
    """The sides of each person's arms that go over the other's shoulders: one each, or both of who is much taller."""
    tall = legs[0] / legs[1]
    return [{over}, {over}] if 0.95 < tall < 1.053 else [{0, 1}, set()] if tall > 1 else [set(), {0, 1}]


def _apart(scene):
    """Metres [T] between both chests on the floor plan."""
    a, b = scene.people
    return smooth(np.linalg.norm((b.places[:, 9] - a.places[:, 9])[:, [0, 2]], axis=-1), 0.05)


def _embrace(scene, overs, starts, rise, touch, hold, close):
    """Arms opened, then around each other; returns four contacts of palms on backs and one of the chests.

    ``overs``: see `_overs`; ``starts``: when each opens the arms; ``rise``: seconds they take to close before ``touch``;
    ``close``: when the opened arms sink again.
    """
    rng, t = scene.rng, scene.times
    for p, person in enumerate(scene.people):
        weight = pulse(t, starts[p], rng.uniform(0.55, 0.8), close - starts[p] - 0.6, rng.uniform(0.7, 1.0))
        for side in (0, 1):
            across = 1.0 if side == 0 else -1.0
            spot = np.array([0.66, 0.22, 0.56] if side in overs[p] else [0.70, -0.50, 0.42]) + rng.normal(0, 0.04, 3)
            goal = person.places[:, ik.ARM[side][1]] + R.rotate(person.turns[:, 9], spot * [across, 1, 1] * person.arm)
            person.reach(side, weight, goal, None, person.pole(side, out=0.8, down=1.0, back=0.2), pronation=0.0)
    contacts, falls = [], rng.uniform(0.55, 0.75, 2)
    for p, person in enumerate(scene.people):
        other = scene.people[1 - p]
        for side in (0, 1):
            joint, spot, fingers, pole = _on_back(rng, person, other, side, side in overs[p])
            gap = float(np.linalg.norm(spot))
            weight = pulse(t, touch - rise, rise, hold, falls[p])
            palm = other.places[:, joint] + R.rotate(other.turns[:, joint], spot)
            hand = ik.hand_turn(side, R.rotate(other.turns[:, joint], fingers),
                                R.rotate(other.turns[:, joint], np.array([0.0, 0.0, 1.0])))
            person.reach(side, weight, palm, hand, pole)
            pair = (20 + side, joint) if p == 0 else (joint, 20 + side)
            contacts.append((*pair, touch, touch + hold, gap))
    a, b = scene.people
    inside = (t >= touch) & (t <= touch + hold)
    apart = np.linalg.norm(a.places[inside, 9] - b.places[inside, 9], axis=-1)
    if len(apart) == 0:
        scene.reject("too long")
    contacts.append((9, 9, touch, touch + hold, float(0.5 * (apart.min() + apart.max()))))
    return contacts


def _on_back(rng, person, other, side, over):
    """Where a hand rests on the other's back: joint, place and finger direction in its frame, and the own elbow's pole."""
    # A left hand comes round the other's right side.
    come = -1.0 if side == 0 else 1.0
    depth = BACK * other.leg
    if over:
        # The forearm clears the other's shoulder, which is above the chest's joint.
        spot = np.array([0.05 * come, rng.uniform(0.11, 0.16), -depth])
        return 9, spot, np.array([-0.7 * come, -0.6, 0.0]), person.pole(side, out=0.7, down=-1.0, back=0.0)
    spot = np.array([0.06 * come, rng.uniform(-0.06, 0.04), -depth])
    return 6, spot, np.array([-0.95 * come, 0.15, 0.0]), person.pole(side, out=0.9, down=0.9, back=0.1)


def _no_hug(scene):
    """One comes with open arms, the other steps back; the arms sink."""
    rng, t = scene.rng, scene.times
    far = rng.uniform(0.95, 1.5)
    there, _ = arrive(scene, far, 0.0, far=(1.0, 2.2))
    opens = there + rng.uniform(-0.3, 0.3)
    delay = rng.uniform(0.3, 0.65)
    step = max(there, opens + rng.uniform(0.1, 0.5))
    moved = rng.uniform(0.2, min(0.5, far - 0.6))
    scene.plans[0].step_pair(step, scene.spot(-far / 2 + moved), scene.facing(0), 0.42)
    when, away = max(opens, there - 0.2) + delay, 0.0
    for _ in range(int(rng.integers(1, 4))):
        away += rng.uniform(0.25, 0.42)
        place = scene.spot(far / 2 + away, rng.normal(0, 0.05))
        when = scene.plans[1].step_pair(when, place, scene.facing(1), 0.4, gap=0.05) + 0.1
    scene.perform()
    scene.build()
    fall = max(when - 0.2, opens + 1.2)
    weight = pulse(t, opens, rng.uniform(0.6, 0.85), fall - opens - 0.6, rng.uniform(0.7, 1.1))
    guard = pulse(t, opens + delay, 0.5, max(0.3, when - opens - delay - 0.6), 0.8) * (rng.uniform() < 0.55)
    scene.people[0].bend(pitch=rng.uniform(0.03, 0.1) * weight, hips=0.3)
    scene.people[1].bend(pitch=-rng.uniform(0.05, 0.12) * ramp(t, opens + delay, 0.5) * (1 - ramp(t, when, 0.8)), hips=0.3)
    for p, person in enumerate(scene.people):
        scene.watch(p, scene.attention())
        person.refresh()
        for side in (0, 1):
            across = 1.0 if side == 0 else -1.0
            spot = np.array([0.6, rng.uniform(-0.2, 0.1), 0.62] if p == 0 else [0.08, rng.uniform(-0.25, -0.05), 0.55])
            goal = person.places[:, ik.ARM[side][1]] + R.rotate(person.turns[:, 9], spot * [across, 1, 1] * person.arm)
            hand = None if p == 0 else ik.hand_turn(side, ik.unit(ik.UP + 0.2 * person.axes()[1]), person.axes()[1])
            person.reach(side, weight if p == 0 else guard, goal, hand, person.pole(side, out=0.7, down=1.0, back=0.2))
    scene.timing(opens, opens + delay, True)
    return finish(scene, "hug", True, ("both", None), [], opens, max(when, fall + 0.8) + rng.uniform(0.3, 0.9))


def comfort(scene: Scene):
    """One hangs the head; the other comes and lays a hand on the shoulder. Or the sad one turns away from it."""
    rng, t = scene.rng, scene.times
    gap = rng.uniform(0.74, 0.85) * min(np.mean(scene.legs), 1.03 * scene.legs[1])
    away = rng.uniform(-0.8, 0.8)
    refused = rng.uniform() < 0.22
    hand = drawn_hand(rng, 0.3)
    turned_off = rng.uniform(1.1, 1.9) * rng.choice([-1, 1])
    scene.stand(0, scene.spot(-gap / 2), scene.facing(0) + away)
    begin = rng.uniform(0.4, 1.6)
    spot = scene.spot(gap / 2)
    if rng.uniform() < 0.7:
        there = scene.walk_in(1, begin, spot, scene.facing(1), rng.uniform(1.1, 3.0), rng.normal(0, 0.3))
    else:
        scene.stand(1, scene.spot(gap / 2 + rng.uniform(0.3, 0.55)), scene.facing(1) + rng.normal(0, 0.1))
        there = scene.plans[1].step_pair(begin + 0.4, spot, scene.facing(1), 0.45)
    lift = there + rng.uniform(-0.35, 0.3)
    rise = rng.uniform(0.9, 1.3)
    touch, hold = max(lift + rise, there), rng.uniform(1.2, 2.8)
    if refused:
        flinch = touch - rng.uniform(0.25, 0.45)
        plan = scene.plans[0]
        plan.step_pair(flinch, scene.spot(-gap / 2 - rng.uniform(0.2, 0.4)), plan.yaw + 0.5 * turned_off, 0.4)
        off = plan.turn(plan.swings[-1][1] + 0.08, plan.yaw + 0.6 * turned_off)
    scene.perform()
    scene.build()
    slump = ramp(t, rng.choice([-1.0, rng.uniform(0.2, begin)]), 0.9)
    relief = 0.0 if refused else rng.uniform(0.2, 0.7) * ramp(t, touch + rng.uniform(0.4, 1.2), 1.0)
    _hang_head(scene, slump * (1 - relief), relief)
    scene.watch(1, scene.attention(rng.uniform(-1, begin)))
    reaching = pulse(t, lift - 0.1, rise, hold, 0.7)
    scene.people[1].bend(pitch=rng.uniform(0.04, 0.14) * reaching, yaw=(1 if hand == 1 else -1) * 0.18 * reaching, hips=0.2)
    for person in scene.people:
        person.refresh()
    _face_in_hand(scene, slump, 1 - hand if not refused else None, touch - 0.4 if not refused else 99.0)
    starts = touch - rise
    contacts = _lay_hands(scene, hand, starts, touch, hold, refused)
    scene.timing(0.0, starts, refused, touch_at_s=float(touch))
    end = off + 0.6 if refused else touch + hold + 0.8
    return finish(scene, "comfort", refused, (None, SIDE[hand]), contacts, begin + 0.4, end + rng.uniform(0.2, 0.8))


def _hang_head(scene, slump, relief):
    """Person 0's bent neck and round back, and the look up when comforted."""
    rng, t = scene.rng, scene.times
    sad = scene.people[0]
    sad.bend(pitch=rng.uniform(0.10, 0.26) * slump, hips=0.15)
    left, _ = sad.axes()
    ik.turn_spine(sad.rotations, {12: 0.5, 15: 0.5}, left * (rng.uniform(0.28, 0.5) * slump)[:, None])
    sob = rng.uniform(0.0, 0.02) * np.sin(2 * np.pi * rng.uniform(0.8, 1.4) * t) * slump
    ik.turn_spine(sad.rotations, {6: 0.5, 9: 0.5}, left * sob[:, None])
    scene.watch(0, np.clip(1.6 * relief, 0, 0.9) + 0 * t)


def _face_in_hand(scene, slump, touched, until):
    """Sometimes the sad one wipes the eyes with a hand, or covers the face with both until the other is there.

    ``touched``: the side whose shoulder will be touched; that arm is down by ``until``.
    """
    rng, t = scene.rng, scene.times
    sad = scene.people[0]
    sides = ((), (), (0,), (1,), (0, 1))[rng.integers(5)]
    late = rng.uniform(0.6, 1.3)
    for side in sides:
        stop = min(until, t[-1]) + (late if side != touched else 0.0)
        weight = slump * pulse(t, rng.uniform(-0.5, 0.5), 0.8, max(0.3, stop - 1.2), 0.9)
        across = 1.0 if side == 0 else -1.0
        face = sad.places[:, 15] + R.rotate(sad.turns[:, 15], np.array([0.035 * across, 0.0, 0.155]))
        face = face + R.rotate(sad.turns[:, 15], np.array([0.012 * across, 0.0, 0.0])) * oscillation(t, 0.3, 40, 1.1)[:, None]
        fingers = R.rotate(sad.turns[:, 15], np.array([-0.3 * across, 0.95, 0.1]))
        palm = R.rotate(sad.turns[:, 15], np.array([0.0, 0.0, -1.0]))
        sad.reach(side, weight, face, ik.hand_turn(side, fingers, palm), sad.pole(side, out=0.45, down=1.0, back=-0.4))


def _lay_hands(scene, hand, start, touch, hold, refused):
    """Person 1's hand, sometimes both, on person 0's shoulders, rubbing a little; returns the contacts."""
    rng, t = scene.rng, scene.times
    sad, kind = scene.people
    line = hand_axis(kind, sad, hand, 1 - hand)
    contacts = []
    for side in ((0, 1) if rng.uniform() < 0.3 and not refused else (hand,)):
        shoulder = 16 if side == 1 else 17
        out = 1.0 if shoulder == 16 else -1.0
        rub = rng.uniform(0.1, 0.25) * oscillation(t, touch + 0.15, int(rng.integers(2, 6)), rng.uniform(0.9, 1.8))
        level = np.stack([out * (0.35 + 0.5 * rub), 0.85 + 0 * rub, 0.15 + rub], -1)
        gap = SHOULDER * sad.leg
        palm = sad.places[:, shoulder] + gap * ik.unit(R.rotate(sad.turns[:, 9], level))
        if refused:
            frozen = int(np.clip((touch - 0.35) * FPS, 0, len(t) - 1))
            palm = np.repeat(palm[[frozen]], len(t), 0) - 0.22 * line + 0.02 * noise(rng, (len(t), 3), 0.5)
        stay = rng.uniform(0.2, 0.6) if refused else hold
        turn = ik.hand_turn(side, ik.unit(line - 0.35 * ik.UP), -ik.UP + 0.2 * line)
        weight = from_above(kind, side, palm, turn, start, touch, stay, rng.uniform(0.75, 1.0))
        kind.reach(side, weight, palm, turn, kind.pole(side, out=0.6, down=1.0, back=0.2))
        if not refused:
            contacts.append((shoulder, 20 + side, touch, touch + hold, float(gap)))
    return contacts

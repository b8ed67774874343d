"""Moving together: side by side, chasing and fleeing, circling each other."""

from __future__ import annotations

import numpy as np
from rtinteract.training import ik
from rtinteract.training.choreo_follow import fit
from rtinteract.training.choreo_stage import Scene
from rtinteract.training.choreo_touch import SHOULDER, from_above
from rtinteract.training.gestures import noise, pulse, ramp
from rtinteract.training.locomotion import Path, turned

from rtinteract import rotation as R


def _beside(path, offset):
    """The points of a path moved ``offset`` metres to its left."""
    return path.points + turned(path.yaws, np.array([offset, 0.0]))


def side_by_side(scene: Scene):
    """One walks, the other falls in beside and they walk on together; or stays behind."""
    rng = scene.rng
    length, bend = rng.uniform(3.2, 5.8), rng.normal(0, 0.35)
    start = scene.spot(-length / 2)
    end = start + turned(scene.yaw + 0.7 * bend, np.array([0.0, length]))
    lead_plan = scene.stand(0, start, scene.yaw + rng.normal(0, 0.08))
    path = Path(start, lead_plan.yaw, end, scene.yaw + 1.4 * bend)
    gait = scene.gait(0)
    begin = rng.uniform(0.2, 0.9)
    done = lead_plan.walk(begin, path, gait)
    side = rng.choice([-1.0, 1.0]) * rng.uniform(0.66, 0.95)
    stays = rng.uniform() < 0.13
    if stays:
        return _stays(scene, path, side, begin, done)
    join = rng.uniform(0.15, 1.5) if rng.uniform() < 0.65 else rng.uniform(0.15, 0.4)
    other = Path.through(_beside(path, side))
    place, yaw = other.at(join)
    outward = np.sign(side)
    back = rng.uniform(0.35, 1.1)
    angle = outward * rng.uniform(-0.2, 0.9)
    origin = place + turned(yaw + np.pi + angle, np.array([0.0, back]))
    toward = yaw + 0.5 * angle
    entry = Path(origin, toward, place, yaw)
    own = Path.through(np.concatenate([entry.points[:-1], other.points[other.s > join + 0.02]]))
    pace = (own.length / max(0.5, done - begin - rng.uniform(0.1, 0.5)))
    for _ in range(4):
        walk = scene.gait(1, pace=pace)
        begins = done + rng.uniform(-0.15, 0.3) - scene.plans[0].walking_time(own, walk)
        if begins > 0.25 and -0.4 < begins - begin < 1.6:
            break
    else:
        scene.reject("pace", f"sets off {begins - begin:.2f} s after")
    # Who waits turned another way turns the feet before setting off.
    wait = rng.uniform(0.4, 1.2) * rng.choice([-1, 0, 0, 1]) if begins > 1.2 else 0.0
    plan = scene.stand(1, origin, toward + wait)
    if abs(wait) > 0.2:
        turned_at = plan.turn(begins - 0.95, toward)
        if turned_at > begins:
            begins = turned_at + 0.03
    ended = max(done, plan.walk(begins, own, walk))
    if rng.uniform() < 0.35 and ended + 1.4 < scene.times[-1]:
        for p, toward_other in ((0, np.sign(side)), (1, -np.sign(side))):
            plan = scene.plans[p]
            ended = max(ended, plan.turn(done + rng.uniform(0.25, 0.5), plan.yaw + toward_other * rng.uniform(0.6, 1.4)))
    scene.perform()
    scene.build()
    for p in range(2):
        _glances(scene, p, begin)
        scene.people[p].refresh()
    scene.timing(begin, max(begins, begin), gap_m=float(abs(side)))
    first = max(0.0, min(begin, begins) - rng.uniform(0.1, 0.7))
    return fit(scene, "side_by_side", "together", first, ended + rng.uniform(0.3, 0.9))


def _stays(scene, path, side, begin, done):
    """The other is left standing and looks after the one who walks off."""
    rng = scene.rng
    place = path.points[0] + turned(scene.yaw, np.array([side, rng.uniform(-0.3, 0.6)]))
    plan = scene.stand(1, place, scene.yaw + rng.uniform(-1.2, 1.2))
    if rng.uniform() < 0.6:
        plan.turn(begin + rng.uniform(0.5, 1.2), scene.yaw)
    scene.perform()
    scene.build()
    scene.watch(1, scene.attention(rng.uniform(-0.5, begin + 0.5)))
    _glances(scene, 0, begin)
    for person in scene.people:
        person.refresh()
    scene.timing(begin, begin + 0.4, True)
    return fit(scene, "side_by_side", "stays", max(0.0, begin - rng.uniform(0.1, 0.7)), done + rng.uniform(0.3, 0.8))


def _glances(scene, p, begin):
    """Look at the other from time to time, ahead in between."""
    rng, t = scene.rng, scene.times
    weight, when = 0 * t, begin + rng.uniform(-0.4, 0.8)
    while when < t[-1]:
        hold = rng.uniform(0.5, 1.8)
        weight = np.maximum(weight, rng.uniform(0.6, 1.0) * pulse(t, when, 0.4, hold, 0.5))
        when += hold + rng.uniform(1.2, 3.0)
    scene.watch(p, weight)


def chase(scene: Scene):
    """One runs and the other runs after, catching the shoulder at the end, giving up, or being outrun."""
    rng = scene.rng
    runner = 0 if rng.uniform() < 0.6 else 1
    chaser = 1 - runner
    outcome = str(rng.choice(["caught", "away"], p=[0.5, 0.5]))
    gap = rng.uniform(1.2, 2.4) if outcome == "away" else rng.uniform(1.0, 1.7)
    length, bend = rng.uniform(4.2, 7.5), rng.normal(0, 0.35)
    start = scene.spot(-length / 2)
    off = rng.uniform(0.5, 2.6) * rng.choice([-1, 0, 1], p=[0.3, 0.4, 0.3])
    plan = scene.stand(runner, start, scene.yaw + off)
    first, react = rng.uniform(0.3, 0.7), rng.uniform(0.2, 0.5)
    # The runner bolts and is chased, or sees the chaser come and flees.
    go = {0: first, 1: first + react}
    if abs(off) > 0.2:
        go[runner] = plan.turn(max(0.15, go[runner] - 0.3), scene.yaw, 3.0) - 0.05
        if runner == 0:
            go[1] = go[0] - 0.25 + react
        # The chaser does not arrive while the runner still turns.
        go[chaser] = max(go[chaser], go[runner] - react)
    path = Path(start, scene.yaw, start + turned(scene.yaw + 0.7 * bend, np.array([0.0, length])), scene.yaw + 1.4 * bend)
    swift = scene.run(runner, 0.95 if outcome == "caught" else 1.0)
    done = plan.walk(go[runner], path, swift)
    rest = (rng.uniform(0.62, 0.74) * np.mean(scene.legs)) if outcome == "caught" else rng.uniform(1.3, 2.6)
    origin = scene.spot(-length / 2 - gap, rng.normal(0, 0.25))
    entry = Path(origin, scene.yaw, path.points[8], path.at(path.s[8])[1])
    keep = path.s <= path.length - rest
    track = Path.through(np.concatenate([entry.points[:-1], path.points[8:][keep[8:]]]))
    hunter = scene.run(chaser, 1.05 if outcome == "caught" else 1.0)
    seconds = plan.walking_time(track, hunter)
    arrival = done + rng.uniform(0.1, 0.5)
    if outcome == "caught":
        # Who is much the faster one sets off a little later.
        go[chaser] += np.clip(arrival - go[chaser] - seconds / 0.9, 0.0, 0.5)
    rate = seconds / max(0.5, arrival - go[chaser])
    if outcome == "caught":
        if not 0.82 < rate < 1.25:
            scene.reject("pace", f"{rate:.2f}")
        hunter.rate *= rate
    behind = scene.stand(chaser, origin, scene.yaw + rng.normal(0, 0.12))
    came = behind.walk(go[chaser], track, hunter)
    if came > scene.times[-1] - 1.2:
        scene.reject("too long")
    ended = _after_chase(scene, runner, outcome, done, came)
    scene.perform()
    scene.build()
    scene.watch(chaser, scene.attention(-9, came + 2.0))
    seen = ramp(scene.times, done - 0.2, 0.6) if outcome == "away" else ramp(scene.times, came, 0.6)
    scene.watch(runner, (pulse(scene.times, go[runner] + rng.uniform(0.6, 1.2), 0.35, rng.uniform(0.2, 0.5), 0.4) * 0.8
                         if rng.uniform() < 0.6 else 0 * seen) + 0.9 * seen * (rng.uniform() < 0.7))
    contacts = _catch(scene, runner, came) if outcome == "caught" else []
    for person in scene.people if not contacts else []:
        person.refresh()
    scene.timing(go[0], go[1], roles=["runner", "chaser"] if runner == 0 else ["chaser", "runner"], outcome=outcome)
    variant = f"{'chases' if runner == 0 else 'flees'}_{outcome}"
    begin = max(0.0, min(go.values()) - rng.uniform(0.1, 0.9))
    end = max(ended, came + (1.6 if contacts else 0.4)) + rng.uniform(0.2, 0.7)
    return fit(scene, "chase", variant, begin, end, contacts=contacts, brisk=True)


def _after_chase(scene, runner, outcome, done, came):
    """Who got away turns back to the other in half of the clips."""
    rng, plan = scene.rng, scene.plans[runner]
    if outcome == "away" and rng.uniform() < 0.5 and max(done, came) + 2.0 < scene.times[-1]:
        return plan.turn(done + rng.uniform(0.3, 0.7), plan.yaw + rng.choice([-1, 1]) * rng.uniform(2.2, 3.1))
    return max(done, came)


def _catch(scene, runner, came):
    """The chaser's hand on the runner's shoulder from behind; returns the contact."""
    rng, t = scene.rng, scene.times
    prey, hunter = scene.people[runner], scene.people[1 - runner]
    side = int(rng.uniform() < 0.75)
    touch = came + rng.uniform(0.1, 0.35)
    rise, hold = rng.uniform(0.7, 0.9), rng.uniform(0.5, 1.4)
    weight = pulse(t, touch - rise, rise, hold, 0.7)
    hunter.bend(pitch=rng.uniform(0.08, 0.2) * weight, yaw=(1 if side == 1 else -1) * 0.2 * weight, hips=0.3)
    jolt = pulse(t, touch, 0.25, 0.1, 0.6)
    prey.bend(pitch=-0.05 * jolt, yaw=(-1 if side == 1 else 1) * rng.uniform(0.0, 0.15) * jolt)
    for person in scene.people:
        person.refresh()
    shoulder = 17 if side == 1 else 16
    out = 1.0 if shoulder == 16 else -1.0
    gap = SHOULDER * prey.leg
    ahead = ik.unit((prey.places[:, shoulder] - hunter.places[:, ik.ARM[side][1]]) * np.array([1.0, 0.0, 1.0]))
    palm = prey.places[:, shoulder] + gap * R.rotate(prey.turns[:, 9], ik.unit(np.array([0.30 * out, 0.80, -0.50])))
    turn = ik.hand_turn(side, ik.unit(ahead - 0.1 * ik.UP), -ik.UP + 0.35 * ahead)
    weight = from_above(hunter, side, palm, turn, touch - rise, touch, hold, 0.8)
    hunter.reach(side, weight, palm, turn, hunter.pole(side, out=0.7, down=1.0, back=0.2))
    pair = (shoulder, 20 + side) if runner == 0 else (20 + side, shoulder)
    return [(*pair, touch, touch + hold, float(gap))]


def circle(scene: Scene):
    """Both step round each other face to face; or one walks around the other, who turns along or stands still."""
    return _around(scene) if scene.rng.uniform() < 0.35 else _both_circle(scene)


def _both_circle(scene):
    rng, t = scene.rng, scene.times
    wary = rng.uniform() < 0.5
    radius, way = rng.uniform(0.62, 1.05), rng.choice([-1, 1])
    skew = rng.uniform(-0.5, 0.5)
    angles, radii = [0.0, np.pi + skew], [radius * rng.uniform(1.0, 1.35), radius * rng.uniform(1.0, 1.35)]
    inward = rng.uniform(0.0, 0.35)

    def stance(p, angle, r):
        # Angle 0 is behind the middle seen along the stage; a positive way turns to the left.
        place = scene.middle + turned(scene.yaw + angle, np.array([0.0, -r]))
        return place, scene.yaw + angle + way * -inward

    for p in range(2):
        scene.stand(p, *stance(p, angles[p], radii[p]))
    begin, delay = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.5)
    when, shift = [begin, begin + delay], 0.0
    count = int(rng.integers(4, 10))
    reverse = int(rng.integers(2, count)) if rng.uniform() < 0.3 else count
    for k in range(count):
        if k == reverse:
            way = -way
            when = [w + rng.uniform(0.2, 0.6) for w in when]
        arc, seconds = rng.uniform(0.22, 0.40), rng.uniform(0.30, 0.42)
        shift += way * arc / radius
        pause = rng.uniform(0.0, 0.12) if rng.uniform() < 0.8 else rng.uniform(0.3, 0.8)
        for p in range(2):
            radii[p] += 0.6 * (radius * rng.uniform(0.95, 1.06) - radii[p])
            angles[p] = shift + np.pi * p + (skew if p else 0.0) * 0.6**(k + 1)
            place, yaw = stance(p, angles[p], radii[p])
            # Turning left about the middle, both step to the own right.
            first = 1 if way > 0 else 0
            gone = scene.plans[p].step_pair(when[p], place, yaw, seconds, first, gap=0.02)
            when[p] = gone + 0.03 + pause + (rng.normal(0, 0.02) if p else 0.0)
        when[1] = max(when[1], when[0] + 0.5 * delay)
        if max(when) > 8.5:
            break
    scene.perform()
    scene.build()
    done = max(when)
    ready = ramp(t, begin - 0.6, 0.8) * (1 - ramp(t, done, 1.0))
    for p, person in enumerate(scene.people):
        if wary:
            person.shift(up=-rng.uniform(0.03, 0.07) * person.leg * ready)
            person.bend(pitch=rng.uniform(0.08, 0.2) * ready, hips=0.3)
        scene.watch(p, scene.attention())
        person.refresh()
        if wary:
            _wary_arms(scene, p, ready)
    scene.timing(begin, begin + delay, gap_m=float(2 * radius), way="left" if shift > 0 else "right")
    start = rng.uniform(0.0, begin) if rng.uniform() < 0.7 else begin + rng.uniform(0.3, 1.0)
    return fit(scene, "circle", "wary" if wary else "calm", start, done + rng.uniform(0.3, 0.8))


def _wary_arms(scene, p, ready):
    """Hands half raised before the chest, alive with small noise."""
    rng, t = scene.rng, scene.times
    person = scene.people[p]
    for side in (0, 1):
        across = np.array([1.0 if side == 0 else -1.0, 1.0, 1.0])
        spot = np.array([rng.uniform(0.0, 0.3), rng.uniform(-0.45, -0.05), rng.uniform(0.42, 0.68)])
        drift = 0.05 * noise(rng, (len(t), 3), 0.5)
        goal = person.places[:, ik.ARM[side][1]] + R.rotate(person.turns[:, 9], (spot + drift) * across * person.arm)
        person.reach(side, rng.uniform(0.75, 1.0) * ready, goal, None, person.pole(side, out=0.6, down=1.0, back=0.1))


def _around(scene):
    """Person 0 walks an arc around person 1."""
    rng = scene.rng
    radius, way = rng.uniform(1.0, 1.6), rng.choice([-1, 1])
    sweep = rng.uniform(2.2, 5.2)
    still = rng.uniform() < 0.35
    center = scene.spot(0.0)
    angles = scene.yaw + way * np.linspace(0, sweep, 90)
    ring = center + turned(angles, np.array([0.0, -radius * 1.0]))
    path = Path.through(ring)
    yaw = path.yaws[0]
    walker = scene.stand(0, ring[0], yaw + way * rng.uniform(-0.1, 0.3))
    begin, delay = rng.uniform(0.3, 0.8), rng.uniform(0.35, 0.7)
    gait = scene.gait(0, pace=rng.uniform(0.9, 1.2))
    done = walker.walk(begin, path, gait)
    if done > scene.times[-1] - 0.6:
        scene.reject("too long")
    plan = scene.stand(1, center, scene.facing(1) + rng.normal(0, 0.15))
    if not still:
        when = begin + delay + rng.uniform(0.2, 0.5)
        while when < done + 0.4:
            bearing = scene.facing(1) + way * sweep * np.clip((when - 0.1 - begin) / (done - begin), 0, 1)
            when = max(plan.turn(when, bearing), when) + rng.uniform(0.12, 0.5)
    end_face = rng.uniform() < 0.7
    if end_face:
        done = walker.turn(done + rng.uniform(0.1, 0.3), walker.yaw - way * np.pi / 2)
    scene.perform()
    scene.build()
    scene.watch(0, scene.attention(rng.uniform(-1, begin + 0.6)))
    scene.watch(1, scene.attention() * (1.0 if not still else rng.uniform(0.0, 0.9)))
    for person in scene.people:
        person.refresh()
    scene.timing(begin, begin + delay, still, gap_m=float(radius))
    start = rng.uniform(0.0, begin) if rng.uniform() < 0.7 else begin + rng.uniform(0.3, 1.2)
    return fit(scene, "circle", "still" if still else "around", start, done + rng.uniform(0.3, 0.8))

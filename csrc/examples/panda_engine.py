"""A real engine's loop: Panda3D draws two people off screen, a recorded actor and the NPC that reacts to it through rtinteract.

    pip install panda3d
    python csrc/examples/panda_engine.py actor.bvh picture.png [--seconds 8] [--prompt "they shake hands"] [--start npc.bvh]
                                         [--model model.safetensors]

The picture shows three moments side by side; the actor is orange, the NPC blue. Prints the library's own times.
"""

import argparse
import math
import time

import numpy as np
from direct.showbase.ShowBase import ShowBase
from panda3d.core import AmbientLight, DirectionalLight, PNMImage, Point3, Vec3, Vec4, loadPrcFileData

import rtinteract
from rtinteract import _native
from rtinteract.skeleton import SMPL22, SMPL22_PARENTS, forward_kinematics

RATE = 60
SIZE = (480, 540)
THICKNESS = {3: 0.26, 6: 0.26, 9: 0.26, 12: 0.13, 15: 0.16, 1: 0.2, 2: 0.2, 13: 0.16, 14: 0.16}


HANDS = {20: 18, 21: 19}
HAND_M = 0.17


class Body:
    """A box a bone, laid from joint to joint; hands, which the skeleton lacks, go on where the forearms end."""

    def __init__(self, base, world, colour):
        self.bones = []
        for joint, parent in [*enumerate(SMPL22_PARENTS[1:], 1), *((None, wrist) for wrist in HANDS)]:
            pivot = world.attachNewNode("bone")
            box = base.loader.loadModel("models/box")
            box.setTextureOff(1)
            box.setPos(-0.5, 0, -0.5)
            box.reparentTo(pivot)
            pivot.setColor(*colour)
            self.bones.append((pivot, parent, joint))

    def show(self, root, rotations):
        places = forward_kinematics(SMPL22, np.asarray(root, float), np.asarray(rotations, float))
        for pivot, parent, joint in self.bones:
            a = Point3(*places[parent])
            if joint is None:
                forearm = a - Point3(*places[HANDS[parent]])
                b = a + forearm * (HAND_M / forearm.length())
            else:
                b = Point3(*places[joint])
            pivot.setPos(a)
            pivot.lookAt(pivot.getParent(), b, Vec3(0.3, 0, 1))
            width = THICKNESS.get(joint, 0.09)
            pivot.setScale(width, max((b - a).length(), 0.02), width)
        return places


class Game(ShowBase):
    """The scene; `tick` is one frame."""

    def __init__(self, actor, session):
        super().__init__()
        self.actor, self.session = actor, session
        # The world is the model's: +Y up. Panda's own is +Z up.
        world = self.render.attachNewNode("world")
        world.setP(90)
        floor = self.loader.loadModel("models/box")
        floor.setTextureOff(1)
        floor.setScale(8, 0.02, 8)
        floor.setPos(-4, -0.06, -4)
        floor.setColor(0.55, 0.57, 0.6, 1)
        floor.reparentTo(world)
        self.people = Body(self, world, (0.95, 0.5, 0.15, 1)), Body(self, world, (0.2, 0.45, 0.9, 1))
        sun, sky = DirectionalLight("sun"), AmbientLight("sky")
        sky.setColor(Vec4(0.45, 0.45, 0.5, 1))
        lamp = self.render.attachNewNode(sun)
        lamp.setHpr(-30, -50, 0)
        self.render.setLight(lamp)
        self.render.setLight(self.render.attachNewNode(sky))
        self.setBackgroundColor(0.87, 0.9, 0.93)
        self.rotations = np.empty((22, 4), np.float32)
        self.plans, self.side = 0, None

    def tick(self, now, elapsed):
        frame = min(int(elapsed * self.actor.fps), len(self.actor) - 1)
        root, rotations = self.actor.root[frame], self.actor.rotations[frame]
        self.session.push(now, root.astype(np.float32), rotations.astype(np.float32))
        npc, _, info = self.session.pull(now, out=self.rotations)
        self.plans = info["plan"]
        places = np.concatenate([self.people[0].show(root, rotations), self.people[1].show(npc, self.rotations)])
        middle = self.render.getRelativePoint(self.people[0].bones[0][0].getParent(), Point3(*places.mean(0)))
        # From the side, so that neither hides the other.
        across = self.render.getRelativeVector(self.people[0].bones[0][0].getParent(), Vec3(*(npc - root)))
        across = Vec3(across.y, -across.x, 0)
        across = across.normalized() if across.length() > 0.1 else Vec3(1, 0, 0)
        self.side = across if self.side is None else (self.side + (across - self.side) * 0.05)
        self.camera.setPos(middle + self.side * 4.4 + Vec3(0, 0, 1.2))
        self.camera.lookAt(middle)
        self.graphicsEngine.renderFrame()

    def picture(self):
        image = PNMImage()
        self.win.getScreenshot(image)
        return image


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("actor")
    parser.add_argument("picture")
    parser.add_argument("--seconds", type=float, default=8.0, help="at most; the clip's length if that is less")
    parser.add_argument("--model")
    parser.add_argument("--prompt", help="what the two do")
    parser.add_argument("--start", help="a motion whose last pose is the NPC's first; without it the model places the NPC")
    options = parser.parse_args()
    loadPrcFileData("", "window-type offscreen\nload-display p3tinydisplay\naudio-library-name null")
    loadPrcFileData("", f"win-size {SIZE[0]} {SIZE[1]}")
    actor = rtinteract.read_motion(options.actor).to_model()
    # Someone who freezes in the middle of a step is nobody to react to.
    seconds = min(options.seconds, len(actor) / actor.fps)
    model = _native.Model(path=options.model)
    session = _native.Session(model, prompt=options.prompt, flags=_native.FOOT_LOCK | _native.PUSH_OUT | _native.CONTACT)
    if not session.warmup(300):
        raise SystemExit("the model did not load in five minutes")
    if options.start:
        stands = rtinteract.read_motion(options.start).to_model()
        root, rotations = stands.root[-1].astype(np.float32), stands.rotations[-1].astype(np.float32)
        session.push(time.monotonic(), root, rotations, _native.REACTOR)
    game = Game(actor, session)
    begun, shots, ticks = time.monotonic(), [], 0
    while (elapsed := time.monotonic() - begun) < seconds:
        game.tick(time.monotonic(), elapsed)
        ticks += 1
        if elapsed > seconds * (len(shots) + 0.9) / 3:
            shots.append(game.picture())
        time.sleep(max(0.0, begun + ticks / RATE - time.monotonic()))
    sheet = PNMImage(SIZE[0] * len(shots), SIZE[1])
    for i, shot in enumerate(shots):
        sheet.copySubImage(shot, i * SIZE[0], 0)
    sheet.write(options.picture)
    stats = session.stats()
    print(f"{ticks / seconds:.0f} frames a second, {game.plans} plans, {stats['late']} late; p50/p95/p99: " + ", ".join(
        f"{name} " + "/".join(f"{v / scale:.1f}" for v in stats[key]) + f" {unit}" for name, key, scale, unit in (
            ("push", "push_us", 1, "us"), ("pull", "pull_us", 1, "us"), ("hop", "hop_us", 1e3, "ms"),
            ("last push to plan", "reaction_us", 1e3, "ms"))))
    if not math.isfinite(float(game.rotations.sum())) or not game.plans:
        raise SystemExit("no plan came")


if __name__ == "__main__":
    main()

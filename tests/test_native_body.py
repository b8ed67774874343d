"""An engine's NPC is of the average body whatever body the model decodes: it must not fold up."""

from pathlib import Path

import numpy as np
import torch

import rtinteract
from rtinteract import rotation as R
from rtinteract.features.body import pose_body
from rtinteract.skeleton import SMPL22, SMPL22_JOINTS, forward_kinematics


def test_a_trunk_of_other_proportions_bends_as_decoded():
    offsets = torch.tensor(SMPL22.offsets, dtype=torch.float32)
    rotations = R.from_axis_angle(0.2 * torch.randn(30, 22, 3, generator=torch.Generator().manual_seed(0)))
    root = torch.tensor([0.0, 0.95, 0.0]).expand(30, 3)
    # The decoded body has half as long a lower spine; whoever aims at its joints' places from further up turns round.
    decoded = offsets.clone()
    decoded[[3, 6, 9]] *= 0.5
    places = forward_kinematics(SMPL22, root, rotations, offsets=decoded)
    posed, turned = pose_body(places, rotations, offsets)
    trunk = [SMPL22_JOINTS.index(name) for name in ("spine1", "spine2", "spine3", "neck", "head")]
    assert float(R.angle(turned[:, trunk], rotations[:, trunk]).max()) < 0.02
    assert np.allclose(forward_kinematics(SMPL22, posed[:, 0], turned, offsets=offsets), posed, atol=1e-4)


def test_the_shipped_models_npc_stands_upright():
    actor = rtinteract.read_motion(Path(rtinteract.__file__).parent / "assets/actor.npz").to_model()
    for seed in (0, 1):
        stream = rtinteract.load(device="cpu").stream(seed=seed)
        stream.stand(None, torch.tensor(SMPL22.offsets, dtype=torch.float32))
        for i in range(0, 32, 4):
            rows = stream.hop(actor[i:i + 4]).rows()
            places = forward_kinematics(SMPL22, rows[:, :3].astype(float), rows[:, 3:].reshape(-1, 22, 4).astype(float))
            assert (places[:, SMPL22_JOINTS.index("head"), 1] - places[:, 0, 1] > 0.4).all(), (seed, i)

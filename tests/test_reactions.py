"""Pairs with a model's reactor: same actor, same contacts, the model's own movement; stopped, it goes on."""

import numpy as np
import pytest
from command_line import script
from rtinteract.training.contact import ContactConfig, load_sights, train_contact
from rtinteract.training.evaluate_figures import START
from rtinteract.training.pairs import Contact, PairClip, load_pairs, save_pairs
from rtinteract.training.reactions import write_reactions
from synthetic import meeting

import rtinteract
from rtinteract.errors import ConfigError

RIGHT = 21


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    clips = []
    for i, kind in enumerate(("handshake", "wave", "handshake")):
        people = meeting(1.5 + 0.2 * i)
        clips.append(PairClip(np.stack([p.positions[:, 0] for p in people]).astype(np.float32),
                              np.stack([p.rotations for p in people]).astype(np.float32),
                              np.stack([p.skeleton.offsets for p in people]).astype(np.float32), kind, ("two people meet",),
                              (Contact(RIGHT, RIGHT, 20, 30),) if kind == "handshake" else (), seed=i))
    save_pairs(folder, clips)
    return folder


@pytest.fixture(scope="module")
def model(small_model_path):
    return rtinteract.load(small_model_path, "cpu")


def test_the_reactor_is_the_models_and_the_rest_stays(pairs, model, tmp_path):
    assert write_reactions(model, pairs, tmp_path, 8, ["handshake"], progress=False) == 2
    made, given = load_pairs(tmp_path), {c.seed: c for c in load_pairs(pairs)}
    assert sorted(c.seed for c in made) == [0, 2]
    for clip in made:
        own = given[clip.seed]
        assert clip.contacts == own.contacts and clip.texts == own.texts and clip.meta["made"]
        assert np.array_equal(clip.root[0], own.root[0]) and np.array_equal(clip.rotations[0], own.rotations[0])
        assert np.allclose(clip.root[1, :START], own.root[1, :START], atol=1e-4)
        assert np.abs(clip.rotations[1, START + 8:] - own.rotations[1, START + 8:]).max() > 0.05
        # As `react` with that start: the motion of a clip is what the call gives.
        assert np.allclose(clip.offsets, own.offsets, atol=1e-5)


def test_what_was_stopped_goes_on_and_another_model_is_refused(pairs, model, tmp_path):
    write_reactions(model, pairs, tmp_path, 2, progress=False)
    first = tmp_path / "pairs-00000.npz"
    before, stamp = first.read_bytes(), first.stat().st_mtime_ns
    (tmp_path / "index.json").unlink()
    write_reactions(model, pairs, tmp_path, 2, progress=False)
    assert first.read_bytes() == before and first.stat().st_mtime_ns == stamp and len(load_pairs(tmp_path)) == 2
    with pytest.raises(ConfigError, match="seed differ"):
        write_reactions(model, pairs, tmp_path, 2, seed=5, progress=False)
    (tmp_path / "begun.json").write_text("{")
    with pytest.raises(ConfigError, match="begun.json.*cannot be read"):
        write_reactions(model, pairs, tmp_path, 2, progress=False)
    with pytest.raises(ConfigError, match="dance"):
        write_reactions(model, pairs, tmp_path / "other", 2, ["dance"], progress=False)


def test_the_contact_network_learns_of_both(pairs, model, tmp_path):
    write_reactions(model, pairs, tmp_path, 3, progress=False)
    both = load_sights([pairs, tmp_path], progress=False)
    assert [s.made for s in both].count(True) == 3 and len(both) == 6

    def weights(sights, share):
        net = train_contact(sights, ContactConfig(steps=2, batch=4, width=8, made=share), progress=False)
        return np.concatenate([p.detach().numpy().ravel() for p in net.parameters()])
    # What a model made is seen as it is; without any, the share is of no account.
    assert not np.array_equal(weights(both, 0.0), weights(both, 1.0))
    own = [s for s in both if not s.made]
    assert np.array_equal(weights(own, 0.3), weights(own, 0.3))


def test_command(pairs, small_model_path, tmp_path):
    done = script("data", "react", "--pairs", pairs, "--out", "made", "--model", small_model_path, "--count", 1, cwd=tmp_path)
    assert done.code == 0 and "wrote 1 clips" in done.out, done.err
    bad = script("data", "react", "--pairs", "none", "--out", "made2", "--model", small_model_path, cwd=tmp_path)
    assert bad.code != 0 and "index.json" in bad.err and "Traceback" not in bad.err

"""The paper's ablations: each is a configuration that trains, samples and loads, and lacks what its name says."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from command_line import here
from rtinteract.training import ablations, tables_measure
from rtinteract.training.ablation_tables import evaluate_ablations
from rtinteract.training.ablations import (
    ABLATIONS,
    CODEC_ABLATIONS,
    ablated,
    train_ablations,
    train_codecs,
    training_of,
    window_of,
)
from rtinteract.training.codec import CodecTraining, load_codec
from rtinteract.training.data import Augmentation
from rtinteract.training.shares import STREAMING
from rtinteract.training.state import load_stage, save_stage
from rtinteract.training.tables_data import TableOptions, load_data
from rtinteract.training.trainer import Result
from rtinteract.training.transformer import TransformerTraining
from test_interclip import clips
from test_sequence import SMALL as SEQUENCE
from test_tables import folder, ruler  # noqa: F401
from test_train_transformer import CONFIG, LOOP, codec_file, pairs  # noqa: F401

import rtinteract
from rtinteract import native
from rtinteract.config import ATTENTION, TransformerConfig, from_dict, to_dict
from rtinteract.errors import Cancelled, ConfigError
from rtinteract.sampler import sample_codes
from rtinteract.transformer import InterMTransformer

SIZES = dict(codes=20, code_dim=12, width=32, heads=2, layers=2, ff=24, condition=8)


def made(**fields):
    torch.manual_seed(0)
    net = InterMTransformer(TransformerConfig(**(SIZES | fields))).eval().requires_grad_(False)
    for name, weight in net.named_parameters():
        if "adaln" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return net


def reach(net):
    """Which tokens [2, S, N] see a change of the first one, person 0, part 0, column 0."""
    codes = torch.randint(20, (1, 2, 5, 6), generator=torch.Generator().manual_seed(1))
    other = codes.clone()
    other[0, 0, 0, 0] = (other[0, 0, 0, 0] + 1) % 20
    return (net(codes, None) - net(other, None)).abs().amax(-1)[0] > 1e-6


def test_each_kind_of_attention_is_a_way_and_without_it_the_way_is_shut():
    assert reach(made()).all()
    alone = reach(made(attention=("spatio-temporal",)))
    assert alone[0].all() and not alone[1].any()
    assert reach(made(attention=("spatio-temporal", "cross"))).all()
    together = reach(made(attention=("self",)))
    assert together.all()
    crossed = reach(made(attention=("cross",), layers=1))
    assert crossed[1].all() and crossed[0].sum() == 1


def test_alternating_people_read_the_others_input_alone():
    net = made(modelling="alternating")
    assert reach(net).all()
    codes = torch.randint(20, (2, 2, 5, 6), generator=torch.Generator().manual_seed(2))
    both = net(codes, None)
    for person in (0, 1):
        assert torch.allclose(net(codes, None, person=person), both[:, person:person + 1], atol=1e-5)
    padded = net(codes, None, torch.tensor([6, 4]))
    short = net(codes[1:, ..., :4], None)
    assert torch.allclose(padded[1:, ..., :4, :], short, atol=1e-5)
    masked = torch.full((2, 2, 5, 6), 20)
    filled = sample_codes(net, masked, torch.randn(2, 8), torch.tensor([6, 6]), iterations=3)
    assert ((filled >= 0) & (filled < 20)).all() and not torch.equal(filled[:, 0], filled[:, 1])


def test_an_ablation_is_kept_in_its_configuration_and_never_runs_as_the_published_block():
    assert TransformerConfig().published and not TransformerConfig(attention=("cross",)).published
    config = TransformerConfig(modelling="alternating", attention=("cross", "self"))
    assert from_dict(TransformerConfig, to_dict(config)) == config
    if native.why_not(torch.device("cpu"), TransformerConfig()) is None:
        assert "ablation" in native.why_not(torch.device("cpu"), config)
    for wrong in ({"attention": ()}, {"attention": ("self", "self")}, {"attention": ("other",)}, {"modelling": "apart"},
                  {"modelling": "alternating", "attention": ("self",)}):
        with pytest.raises(ConfigError):
            TransformerConfig(**wrong)


def test_names_change_what_they_say():
    plain = TransformerTraining()
    assert ablated(plain, "no-cross").sizes.attention == ATTENTION[:2]
    assert ablated(plain, "no-unroll-interaction").unroll == 0 == ablated(plain, "no-unroll-interaction").shares.interaction
    for share in (0.7, 0.8, 0.9):
        shares = ablated(plain, f"p_r-{share}").shares
        assert shares.interaction == pytest.approx((1 - share) * (1 - shares.streaming))
    never = ablated(plain, "no-streaming").shares
    assert never.interaction == pytest.approx(plain.shares.interaction / (1 - plain.shares.streaming))
    assert STREAMING not in never.modes(1000, torch.Generator().manual_seed(0))
    assert ablated(ablated(plain, "no-streaming"), "no-streaming").shares == never
    with pytest.raises(ConfigError, match="no-self"):
        ablated(plain, "no-such")


PAIRS = [replace(c, root=c.root[:, :32], rotations=c.rotations[:, :32]) for c in clips(("meet", "leave", "greet", "pass"), 1)]
SHORT = replace(CONFIG, sizes=replace(CONFIG.sizes, width=16), shortest=16, longest=28, most=32)
CODEC = CodecTraining(codec=replace(SEQUENCE, widths=(8, 8, 8)), loop=replace(LOOP, steps=1), frames=16, shortest=16, longest=16,
                      normalize=False, augmentation=Augmentation.none())
LIMITS = dict(steps=1, progress=False)
OPTIONS = TableOptions(repeats=1, pool=4, mm_texts=0, iterations=1, reaction_iterations=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, folder, ruler):  # noqa: F811
    """(codecs, models, the table) of all ablations, the folder of them, and (held-out pairs, evaluator)."""
    out = tmp_path_factory.mktemp("ablations")
    return *train_all(out, folder, ruler), out, (folder, ruler)


def train_all(out, held_out, evaluator):
    codecs = train_codecs(CODEC, [], PAIRS, PAIRS, out=out, **LIMITS)
    models = train_ablations(SHORT, codecs["codec-full"], PAIRS, PAIRS, out=out, **LIMITS)
    data = load_data(held_out, evaluator, 2)
    return codecs, models, evaluate_ablations(codecs, models, data, out, OPTIONS, window=window_of(SHORT), progress=False)


def test_every_ablation_trains_and_is_measured(runs):
    codecs, models, table, out, _ = runs
    assert tuple(codecs) == CODEC_ABLATIONS and tuple(models) == tuple(ABLATIONS)
    rows = {row.labels[2]: row.values for row in table.rows}
    assert set(rows) == {"Ground truth", *codecs, *models}
    for name in codecs:
        assert rows[name]["mpjpe_m"][0] > rows[name]["aligned_m"][0] > 0 and rows[name]["reconstruction_fid"][0] > 0
        assert "fid" not in rows[name]
    assert len({rows[name]["mpjpe_m"][0] for name in codecs}) == 3
    for name in models:
        assert all(math.isfinite(rows[name][key][0]) for key in ("r1", "fid", "diversity", "foot_slide_mm")), name
        assert ("reaction_fid" in rows[name]) == (name == "full" or name.startswith("p_r"))
        assert rows[name]["steps"] == 1
    written = list(csv.reader((out / "ablations.csv").open()))
    assert [row[2] for row in written[1:]] == [row.labels[2] for row in table.rows]
    assert "| no-cross |" in (out / "ablations.md").read_text()
    shapes = {name: load_codec(path)[0].config for name, path in codecs.items()}
    assert [(c.parts, c.people) for c in shapes.values()] == [(5, 1), (1, 1), (11, 2)]
    for name, path in models.items():
        published = rtinteract.load(path, device="cpu").config.transformer.published
        assert published == (name not in ("alternating", "no-self", "no-cross", "no-spatio-temporal"))


def test_what_is_done_is_found_again(runs, monkeypatch):
    codecs, models, table, out, given = runs
    files = [*codecs.values(), *models.values()]
    stamps = [path.stat().st_mtime_ns for path in files]
    for name in ("reconstruction", "generation", "reaction"):
        monkeypatch.setattr(tables_measure, name, None)
    again = train_all(out, *given)
    assert again[:2] == (codecs, models) and [path.stat().st_mtime_ns for path in files] == stamps
    assert [row.values for row in again[2].rows] == [row.values for row in table.rows]
    longer = train_codecs(CODEC, [], PAIRS, None, out=out, names=["codec-two-people"], **LIMITS | {"steps": 2})
    assert json.loads((out / "codec-two-people" / "done.json").read_text())["steps"] == 2
    assert longer["codec-two-people"].stat().st_mtime_ns != stamps[2]


def test_a_transformer_trains_on_a_1d_map_and_samples(runs, tmp_path):
    model = train_ablations(SHORT, runs[0]["codec-1d-map"], PAIRS, None, out=tmp_path, names=["full"], **LIMITS)["full"]
    loaded = rtinteract.load(model, device="cpu")
    assert loaded.config.codec.parts == loaded.config.transformer.parts == 1
    a, b = loaded.generate(["two people meet"], seconds=1.5, iterations=2)[0]
    assert len(a) == len(b) == 45
    reactor = loaded.react(a, "they meet", start=b[:4], iterations=2)
    assert np.allclose(reactor.positions[:4], b.positions[:4], atol=1e-3)
    plan = loaded.stream(window=32, horizon=8, iterations=2).hop(a[:4])
    assert len(plan.reactor) == 8
    if native.why_not(torch.device("cpu"), loaded.config.transformer) is None:
        fast = rtinteract.load(model, device="cpu", precision="bfloat16")
        codes = torch.randint(60, (1, 2, 1, 8), generator=torch.Generator().manual_seed(0))
        apart = fast.pipeline.transformer(codes, None) - loaded.transformer(codes, None)
        assert apart.abs().max() < 0.1


def test_two_that_are_the_same_are_trained_once(tmp_path, codec_file, pairs):  # noqa: F811
    config = replace(CONFIG, shares=replace(CONFIG.shares, interaction=0.2, streaming=0.0))
    models = train_ablations(config, codec_file, pairs, None, out=tmp_path, names=["full", "p_r-0.8"], **LIMITS)
    assert models["p_r-0.8"] == models["full"] and not (tmp_path / "p_r-0.8").exists()


def test_a_signal_stops_them_all(tmp_path, codec_file, pairs, monkeypatch):  # noqa: F811
    begun = []

    def stopped(*args, out, **kw):
        begun.append(out.name)
        return Result(3, 0.1, "signal", out / "transformer.safetensors")
    monkeypatch.setattr(ablations, "train_transformer", stopped)
    with pytest.raises(Cancelled, match="step 3 of full"):
        train_ablations(CONFIG, codec_file, pairs, None, out=tmp_path, **LIMITS)
    assert begun == ["full"] and not (tmp_path / "full" / "done.json").exists()


def test_another_codec_in_the_same_place_begins_anew(tmp_path, codec_file, pairs):  # noqa: F811
    codec, run = tmp_path / "codec.safetensors", tmp_path / "full"
    codec.write_bytes(codec_file.read_bytes())
    train_ablations(CONFIG, codec, pairs, None, out=tmp_path, names=["full"], **LIMITS)
    first, stamp = (run / "done.json").read_text(), (run / "state.pt").stat().st_mtime_ns
    train_ablations(CONFIG, codec, pairs, None, out=tmp_path, names=["full"], **LIMITS)
    assert (run / "state.pt").stat().st_mtime_ns == stamp
    about, modules = load_stage(codec_file, "codec")
    save_stage(codec, "codec", about["config"], modules, {"name": "another"})
    train_ablations(CONFIG, codec, pairs, None, out=tmp_path, names=["full"], **LIMITS)
    assert (run / "state.pt").stat().st_mtime_ns != stamp
    assert json.loads((run / "done.json").read_text())["steps"] == json.loads(first)["steps"]


def test_the_command(runs, tmp_path, monkeypatch, capsys):
    codec, (held_out, evaluator) = runs[0]["codec-full"], runs[-1]
    (tmp_path / "config.json").write_text(json.dumps(to_dict(SHORT)))
    given = ["train", "ablations", "--codec", codec, "--pairs", held_out, "--out", tmp_path / "out", "--steps", 1, "--config",
             tmp_path / "config.json"]
    done = here(monkeypatch, capsys, *given, "--only", "codec-two-people,no-cross", "--held-out", held_out, "--evaluator",
                evaluator, "--repeats", 1, "--limit", 2)
    assert done.code == 0 and "| codec-two-people |" in done.out and "| no-cross |" in done.out, done
    done = here(monkeypatch, capsys, *given, "--only", "no-cross")
    assert done.code == 0 and "give --held-out" in done.out
    done = here(monkeypatch, capsys, *given, "--only", "no-cross,no-head")
    assert done.code == 1 and "'no-head'" in done.err and "codec-1d-map" in done.err
    done = here(monkeypatch, capsys, "train", "codec", "--pairs", held_out, "--out", tmp_path / "codec", "--ablation", "no-cross")
    assert done.code == 1 and "codec-two-people" in done.err


def test_a_codec_that_does_not_say_how_it_was_trained_is_refused(codec_file):  # noqa: F811
    with pytest.raises(ConfigError, match="how it was trained"):
        training_of(codec_file)

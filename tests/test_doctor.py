"""doctor says what was found and what is chosen."""

import importlib.metadata

import torch
from command_line import script

from rtinteract.cli import doctor


def test_it_runs_and_names_every_part(tmp_path):
    done = script("doctor", cwd=tmp_path)
    assert done.code == 0, done.err
    rows = dict(line.split(None, 1) for line in done.out.splitlines() if not line.startswith(("cpu ", "gpu ", "shipped")))
    assert rows["torch"] == torch.__version__ and rows["backend"].startswith("reference") and "rtinteract" in rows
    assert {"triton", "ffmpeg", "device", "precision", "of wide models"} <= {line[:16].strip() for line in done.out.splitlines()}
    assert {"triton", "ffmpeg", "device", "precision"} <= rows.keys() and "shipped model" in done.out


def test_processor_flags_decide_bf16_and_int8(monkeypatch):
    for flags, bf16, int8 in ((["avx2"], "no", "no"), (["avx512f", "avx512_bf16"], "yes", "no"), (["avx_vnni"], "no", "yes")):
        monkeypatch.setattr(doctor, "_cpu_flags", lambda flags=flags: flags)
        rows = dict(doctor.findings())
        assert (rows["cpu bf16"], rows["cpu int8 (VNNI)"]) == (bf16, int8)


def test_a_missing_library_names_its_extra(monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name in ("pygltflib", "tqdm"):
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)
    monkeypatch.setattr(importlib.metadata, "version", version)
    rows = dict(doctor.findings())
    assert "rtinteract[demo]" in rows["pygltflib"] and "rtinteract[train]" in rows["tqdm"]


def test_it_names_the_pass_that_the_shipped_model_takes(monkeypatch):
    for reason, dtype, told in ((None, torch.float32, "one C++ call a pass for AVX2"),
                                (None, torch.bfloat16, "one C++ call a pass for AVX-512"),
                                ("no", torch.float32, "layer by layer: no")):
        monkeypatch.setattr(doctor, "why_not", lambda *asked, reason=reason: reason)
        monkeypatch.setattr(doctor, "choose", lambda *asked, dtype=dtype: (dtype, "as the test has it"))
        assert dict(doctor.findings())["transformer"].startswith(told)

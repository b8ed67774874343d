"""Two processes on this machine, each running one script with gloo between them."""

import os
import socket
import subprocess
import sys
import textwrap

import torch


def rank_environment(rank, size, port):
    """What torchrun gives a process."""
    return os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
                         "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_together(folder, script, *args, size=2):
    """The running processes of a script that may import from the tests' folder."""
    file = folder / "together.py"
    head = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
    file.write_text(head + textwrap.dedent(script))
    port = free_port()
    return [subprocess.Popen([sys.executable, str(file), *map(str, args)], env=rank_environment(rank, size, port),
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for rank in range(size)]


def close(a, b, tolerance=1e-5):
    """Whether two states hold the same weights, averages and step, up to rounding."""
    assert a["step"] == b["step"]
    for kind in ("model", "ema"):
        for name, value in a[kind].items():
            torch.testing.assert_close(value, b[kind][name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")

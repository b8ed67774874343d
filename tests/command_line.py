"""The command line for suites: as a process of its own, or, where a process a case would be slow, called here."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from rtinteract.cli import main

SCRIPT = Path(sys.executable).with_name("rtinteract")


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def script(*args, cwd) -> Done:
    """The installed console script in a process of its own."""
    done = subprocess.run([str(SCRIPT), *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=120,
                          env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "NO_COLOR": "1"})
    return Done(done.returncode, done.stdout, done.stderr)


def here(monkeypatch, capsys, *args) -> Done:
    """What the script calls, in this process; the logging that it sets up is taken back."""
    root, code = logging.getLogger(), 0
    level, handlers = root.level, root.handlers[:]
    monkeypatch.setattr(sys, "argv", ["rtinteract", *map(str, args)])
    capsys.readouterr()
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
    said = capsys.readouterr()
    return Done(code, said.out, said.err)

"""The command line `rtinteract`."""

import sys

from rtinteract.errors import Cancelled, RtInteractError

# What an optional library is for, and the extra that brings it.
_EXTRAS = {"PIL": ("pictures", "view"), "pygltflib": ("glTF", "demo"), "tqdm": ("training", "train"),
           "tensorboard": ("training", "train"), "scipy": ("training", "train")}


def _fail(message: str) -> None:
    """One line on stderr, exit code 1."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(1)


def main() -> None:
    """Run the command line; a user's mistake ends with its message on stderr and exit code 1, never a traceback."""
    try:
        from rtinteract.cli.app import app

        app()
    except (RtInteractError, OSError) as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        what, extra = _EXTRAS[error.name]
        _fail(f"{what} needs {error.name}, which is not installed; run pip install 'rtinteract[{extra}]'")
    except Cancelled as error:
        print(str(error), file=sys.stderr)
        sys.exit(130)

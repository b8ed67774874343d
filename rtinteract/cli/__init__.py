"""The command line `rtinteract`."""

import sys

from rtinteract.errors import Cancelled, RtInteractError


def main() -> None:
    """Run the command line; a user's mistake ends with its message on stderr and exit code 1, never a traceback."""
    from rtinteract.cli.app import app

    try:
        app()
    except (RtInteractError, FileNotFoundError, PermissionError, IsADirectoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except Cancelled as error:
        print(str(error), file=sys.stderr)
        sys.exit(130)

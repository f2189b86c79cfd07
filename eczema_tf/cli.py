"""What every command shares: `--debug`, exit statuses, and errors as one clear line."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from eczema_tf.errors import EczemaError
from eczema_tf.schema import NOTICE


def build_parser(name: str, description: str, examples: str = "") -> argparse.ArgumentParser:
    """Builds a command's argument parser, with `--debug`, examples and the notice in its help."""
    parser = argparse.ArgumentParser(
        prog=f"python -m eczema_tf.{name}",
        description=description,
        epilog=f"{examples}\n\n{NOTICE}" if examples else NOTICE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    return parser


def run_command(
    parser: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parses the arguments, runs the command and turns its outcome into an exit status.

    Returns:
        0 if all went well, 1 for bad data or a failed run. (argparse itself exits with 2 for bad
        usage.)
    """
    os.environ.setdefault(
        "TF_CPP_MIN_LOG_LEVEL", "2"
    )  # hide TensorFlow's start-up chatter, keep its errors
    arguments = parser.parse_args(argv)
    try:
        command(arguments)
    except EczemaError as error:
        return _fail(error, arguments.debug)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    except OSError as error:
        return _fail(error, arguments.debug)
    return 0


def _fail(error: Exception, debug: bool) -> int:
    if debug:
        raise error
    print(f"error: {error}", file=sys.stderr)
    return 1

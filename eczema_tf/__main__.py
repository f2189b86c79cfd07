"""`python -m eczema_tf` lists the commands; `python -m eczema_tf train ...` runs one of them.

Where the package is installed, `eczema-tf` does the same.
"""

import importlib
import sys
from collections.abc import Sequence

from eczema_tf.cli import COMMANDS
from eczema_tf.schema import NOTICE


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command named first, or lists them all; returns the exit status."""
    name, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in COMMANDS:
        status: int = importlib.import_module(f"eczema_tf.{name}").main(arguments)
        return status
    if name not in ("-h", "--help"):
        print(f"error: {name}: no such command; allowed: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    print("usage: python -m eczema_tf COMMAND ...   (for details: COMMAND --help)")
    print("       eczema-tf COMMAND ...             (if the package is installed)\n")
    for command, purpose in COMMANDS.items():
        print(f"  {command:<10}{purpose}")
    print(f"\n{NOTICE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Errors that a user can fix: one clear line each, and no traceback unless asked for."""

from collections.abc import Iterable
from itertools import islice

ECHOED = 200  # most characters of the input that a message repeats
LINE = 2_000  # most characters of one line of a message on a terminal


class EczemaError(Exception):
    """Anything a user can fix. Commands print it on standard error and exit with status 1."""


class ConfigError(EczemaError):
    """The configuration is wrong; the message lists every fault."""


class DataError(EczemaError):
    """A data set, manifest, photo or embedding file is wrong; the message lists every fault."""


class PresetError(EczemaError):
    """A pretrained preset is not available; the message names the ways to provide it."""


class RunError(EczemaError):
    """A training, evaluation or export run failed."""


def shorten(text: str) -> str:
    """Puts what a message repeats of its input on one line of at most `ECHOED` characters."""
    line = " ".join(text.split())
    return line if len(line) <= ECHOED else f"{line[: ECHOED - 3]}..."


def cut_lines(text: str) -> str:
    """Makes a message fit for a terminal: no line over `LINE` characters, no control characters.

    The message of an OSError contains the whole path, and a name in a file may contain sequences
    that a terminal obeys.
    """
    lines = mask_controls(text).split("\n")
    return "\n".join(line if len(line) <= LINE else f"{line[: LINE - 3]}..." for line in lines)


def mask_controls(text: str) -> str:
    """Replaces characters that a terminal may obey, except line ends and tabs."""
    return "".join(one if one.isprintable() or one in "\n\t" else "\ufffd" for one in text)


def join_faults(title: str, faults: Iterable[str], limit: int = 50) -> str:
    """Formats many faults as one message, so that all can be fixed in one go.

    Args:
        title: What is wrong as a whole, without a final colon.
        faults: One line per fault.
        limit: How many faults to spell out; the rest are counted.

    Returns:
        The title and one indented line per fault.
    """
    rest = iter(faults)
    lines = [f"  {fault}" for fault in islice(rest, limit)]
    more = sum(1 for _ in rest)
    if more:
        lines.append(f"  ... and {more} more")
    count = min(len(lines), limit) + more
    return "\n".join([f"{title} ({count} fault{'s' if count != 1 else ''}):", *lines])


def raise_if_any(title: str, faults: Iterable[str], kind: type[EczemaError] = DataError) -> None:
    """Raises an error that lists all faults, unless there are none."""
    if found := list(faults):
        raise kind(join_faults(title, found))

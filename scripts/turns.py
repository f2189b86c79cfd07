"""Times contenders fairly: they run in separate processes and take turns.

So whatever else the machine does affects them all alike.
"""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

Work = Callable[[], object]
Build = Callable[..., Mapping[str, Work]]
PAUSE_S = 0.01  # between turns: thread pools keep spinning for a moment after they are done


class Contender:
    """A process that does named pieces of work on demand and times them.

    Attributes:
        name: Name to show.
    """

    def __init__(
        self, name: str, build: Build, arguments: Sequence[Any], environment: Mapping[str, str]
    ):
        """Starts the process.

        Args:
            name: Name to show.
            build: Called in the process, returns the work by name. It must be importable, and
                import TensorFlow itself.
            arguments: Arguments of `build`.
            environment: Environment variables for the process besides the present ones.
        """
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        with _set_environment(environment):
            self._process = context.Process(
                target=_serve, args=(theirs, build, tuple(arguments)), daemon=True
            )
            self._process.start()
        theirs.close()

    def time(self, work: str) -> float:
        """Returns the seconds that one piece of work takes, by the clock."""
        self._connection.send(work)
        seconds = self._connection.recv()
        time.sleep(PAUSE_S)
        return seconds

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.join(10)


def take_turns(
    turns: Mapping[str, tuple[Contender, str]], rounds: int, warmup: int = 3
) -> dict[str, list[float]]:
    """Times each piece of work `rounds` times, in turn; returns seconds by name of the turn."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for round_number in range(-warmup, rounds):
        for name, (contender, work) in turns.items():
            taken = contender.time(work)
            if round_number >= 0:
                seconds[name].append(taken)
    return seconds


def describe(seconds: Mapping[str, list[float]], samples: int = 1) -> str:
    """Formats a line for each: median, fastest and slowest in ms per sample."""
    width = max(map(len, seconds))
    lines = []
    for name, taken in seconds.items():
        median, low, high = (
            1000 * value / samples for value in (statistics.median(taken), min(taken), max(taken))
        )
        lines.append(f"  {name:{width}}  {median:7.1f} ms per sample  [{low:.1f}, {high:.1f}]")
    return "\n".join(lines)


def ratio(seconds: Mapping[str, list[float]], slow: str, fast: str) -> float:
    """Returns how many times as long one takes as the other, by medians."""
    return statistics.median(seconds[slow]) / statistics.median(seconds[fast])


def _serve(connection: Any, build: Build, arguments: tuple[Any, ...]) -> None:
    work = build(*arguments)
    while True:
        try:
            name = connection.recv()
        except EOFError:
            return
        start = time.perf_counter()
        work[name]()
        connection.send(time.perf_counter() - start)


@contextmanager
def _set_environment(variables: Mapping[str, str]) -> Any:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)

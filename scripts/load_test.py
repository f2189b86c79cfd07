"""Tests a running server with many clients at once, and hostile requests mixed in.

It measures throughput, latency, errors and memory.

    python -m eczema_tf.serve --model saved_models/eczema &
    python scripts/load_test.py --url http://127.0.0.1:8501/v1/models/eczema

After a warm-up, one client sends one row at a time. Then `--clients` of them do so for `--seconds`,
while one more sends hostile photos and texts, spread over that time. Every answer is compared with
the one that the same row got alone. The script exits with 1 if a request failed, an answer
differed, a hostile request got neither 4xx nor a status, or a bar was missed.
"""

import argparse
import collections
import http.client
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from load_requests import draw_hostile, draw_valid

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # so that it runs from a clone, without PYTHONPATH

from eczema_tf.cli import build_parser, run_command
from eczema_tf.errors import EczemaError, join_faults
from eczema_tf.schema import ECZEMA_HEADS

MIN_GAIN = 1.5  # throughput of the crowd over that of one row at a time
MAX_WAIT_S = 3.0  # for a valid request, whatever else is asked at the same time
MAX_GROWTH = 0.1  # of the server's resident memory
WARM_UP_S = 10  # of the whole crowd; the server then has the memory that large batches need
MAX_DIFFERENCE = 1e-4  # of a probability in a batch from that of the row alone
PROCESS = re.compile(rb"^process_(resident_memory_bytes|cpu_seconds_total) (\S+)$", re.MULTILINE)


class Reply(NamedTuple):
    """What came back.

    Attributes:
        code: HTTP status; 0 if none came.
        body: Body of the answer, or the error's name.
        seconds: How long it took.
    """

    code: int
    body: bytes
    seconds: float


class Process(NamedTuple):
    """The server's process.

    Attributes:
        memory_bytes: Resident memory.
        cpu_s: User and system time of all threads since the process began.
    """

    memory_bytes: int
    cpu_s: float


Answered = list[tuple[int, Reply]]  # place of the request among those sent, and what came back


class Client:
    """One connection that is kept alive, as a real client's would be."""

    def __init__(self, url: str):
        """Takes the model's address."""
        parts = urlsplit(url)
        self._path = parts.path.rstrip("/")
        self._connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port or 80, timeout=60
        )

    def predict(self, body: bytes) -> Reply:
        """Asks the model."""
        return self._ask("POST", f"{self._path}:predict", body)

    def get(self, path: str) -> bytes:
        """Gets an address of the server.

        Raises:
            EczemaError: If it answers anything but 200.
        """
        reply = self._ask("GET", path, None)
        if reply.code != 200:
            raise EczemaError(
                f"GET {path}: {reply.code or reply.body.decode()}; is the server of `python -m"
                " eczema_tf.serve` running?"
            )
        return reply.body

    def _ask(self, method: str, path: str, body: bytes | None) -> Reply:
        start = time.perf_counter()
        try:
            self._connection.request(method, path, body, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            return Reply(response.status, response.read(), time.perf_counter() - start)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Reply(0, type(error).__name__.encode(), time.perf_counter() - start)


def main() -> int:
    """Runs the command; returns its exit status."""
    parser = build_parser("load_test", description=__doc__)
    parser.prog = "python scripts/load_test.py"
    parser.add_argument(
        "--url",
        default="http://127.0.0.1:8501/v1/models/eczema",
        help="the model's address (default: %(default)s)",
    )
    parser.add_argument(
        "--clients", type=int, default=16, help="clients at once (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=60, help="duration (default: %(default)s)")
    parser.add_argument(
        "--alone-seconds",
        type=float,
        default=15,
        help="how long one client asks alone before that (default: %(default)s)",
    )
    parser.add_argument(
        "--photos", type=int, default=200, help="number of hostile photos (default: %(default)s)"
    )
    parser.add_argument(
        "--texts", type=int, default=500, help="number of hostile texts (default: %(default)s)"
    )
    parser.add_argument(
        "--signature", default="serving_default", help="or explain (default: %(default)s)"
    )
    return run_command(parser, run)


def run(arguments: argparse.Namespace) -> None:
    """Runs both parts and prints the results.

    Raises:
        EczemaError: If anything went wrong or a bar was missed; the results are printed first.
    """
    valid = list(draw_valid(arguments.signature))
    hostile = list(draw_hostile(arguments.photos, arguments.texts))
    expected = ask_alone(arguments.url, valid)
    ask_at_once(arguments.url, valid, [], arguments.clients, WARM_UP_S)
    start = read_process(arguments.url)
    alone = ask_in_turn(arguments.url, valid, arguments.alone_seconds)
    middle = read_process(arguments.url)
    crowd, answered = ask_at_once(
        arguments.url, valid, [body for _, body in hostile], arguments.clients, arguments.seconds
    )
    end = read_process(arguments.url)
    growth = end.memory_bytes / middle.memory_bytes - 1
    gain = len(crowd) / arguments.seconds / (len(alone) / arguments.alone_seconds)
    print(f"one at a time  {describe(alone, arguments.alone_seconds)}")
    print(
        f"{arguments.clients:3} at once    {describe(crowd, arguments.seconds)}: {gain:.2f} times"
        f" (bar: {MIN_GAIN})"
    )
    print(f"hostile        {describe_hostile(answered)}")
    print(
        f"server's CPU   {per_request(start, middle, alone)} alone,"
        f" {per_request(middle, end, [*crowd, *answered])} at once"
    )
    print(
        f"its memory     {middle.memory_bytes / 1e6:.0f} MB before, {growth:+.1%} after (bar:"
        f" {MAX_GROWTH:+.0%})"
    )
    print(
        f"load average   {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, this client included"
    )
    faults = [*find_faults([*alone, *crowd], expected), *find_unanswered(hostile, answered)]
    faults += [f"throughput is {gain:.2f} times that of one at a time"] * (gain < MIN_GAIN)
    longest_s = max(reply.seconds for _, reply in crowd)
    faults += [f"a valid request took {longest_s:.1f} s"] * (longest_s > MAX_WAIT_S)
    faults += [f"memory grew by {growth:.1%}"] * (growth >= MAX_GROWTH)
    if faults:
        raise EczemaError(join_faults("load test", faults, limit=10))


def ask_alone(url: str, bodies: Sequence[bytes]) -> list[Reply]:
    """Asks for each row once.

    Raises:
        EczemaError: If there is no such model.
    """
    replies = []
    client = Client(url)
    for body in bodies:
        replies.append(client.predict(body))
        if replies[-1].code != 200:
            raise EczemaError(
                f"{url}: {replies[-1].code} {replies[-1].body[:200].decode(errors='replace')}; is"
                " the server running?"
            )
    return replies


def ask_in_turn(url: str, bodies: Sequence[bytes], seconds: float, first: int = 0) -> Answered:
    """Sends requests in turn over one connection, from number `first` on, until time is up."""
    client, answered, end = Client(url), [], time.perf_counter() + seconds
    for place in itertools.islice(itertools.cycle(range(len(bodies))), first, None):
        reply = client.predict(bodies[place])
        if time.perf_counter() >= end:
            break
        answered.append((place, reply))
    return answered


def ask_evenly(url: str, bodies: Sequence[bytes], seconds: float) -> Answered:
    """Sends each request once, spread over the time."""
    client, answered, start = Client(url), [], time.perf_counter()
    for place, body in enumerate(bodies):
        time.sleep(max(0.0, start + seconds * place / len(bodies) - time.perf_counter()))
        answered.append((place, client.predict(body)))
    return answered


def ask_at_once(
    url: str, valid: Sequence[bytes], hostile: Sequence[bytes], clients: int, seconds: float
) -> tuple[Answered, Answered]:
    """Runs many clients with valid requests, each starting elsewhere, and one with hostile ones."""
    with ThreadPoolExecutor(clients + 1) as pool:
        crowd = [
            pool.submit(ask_in_turn, url, valid, seconds, number * len(valid) // clients)
            for number in range(clients)
        ]
        attacker = pool.submit(ask_evenly, url, hostile, 0.95 * seconds)
        return [reply for client in crowd for reply in client.result()], attacker.result()


def read_process(url: str) -> Process:
    """Reads what the server says about its process."""
    found = {
        name.decode(): float(value) for name, value in PROCESS.findall(Client(url).get("/metrics"))
    }
    if len(found) < 2:
        raise EczemaError("/metrics does not describe the process; the server must run on Linux")
    return Process(int(found["resident_memory_bytes"]), found["cpu_seconds_total"])


def per_request(before: Process, after: Process, answered: Answered) -> str:
    """Formats the server's CPU time per request, which hardly depends on the machine's load."""
    return f"{1000 * (after.cpu_s - before.cpu_s) / len(answered):.0f} ms per request"


def describe(answered: Answered, seconds: float) -> str:
    """Formats the throughput, and percentiles of the time to the answer."""
    milliseconds = [1000 * reply.seconds for _, reply in answered]
    p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99])
    return (
        f"{len(answered) / seconds:6.1f} requests/s, p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99"
        f" {p99:.0f} ms, longest {max(milliseconds):.0f} ms ({len(answered)} requests)"
    )


def find_faults(answered: Answered, expected: Sequence[Reply]) -> Iterator[str]:
    """Yields what is wrong with answers: none, not a 200, or not what the row got alone."""
    for place, reply in answered:
        if reply.code != 200:
            yield f"{reply.code}: {reply.body[:200].decode(errors='replace')}"
            continue
        row, alone = read_row(reply), read_row(expected[place])
        difference = max(abs(row[head] - alone[head]) for head in ECZEMA_HEADS.values())
        if row["status"] != alone["status"] or not difference <= MAX_DIFFERENCE:
            yield (
                f"request {place} got status {row['status']!r} and differs by {difference:.1e} from"
                " what it got alone"
            )


def find_unanswered(hostile: Sequence[tuple[str, bytes]], answered: Answered) -> Iterator[str]:
    """Yields hostile requests with neither 4xx nor 200 with a status and finite probabilities."""
    for place, reply in answered:
        row = read_row(reply) if reply.code == 200 else None
        good = (
            400 <= reply.code < 500
            if row is None
            else row["status"] and all(0 <= row[head] <= 1 for head in ECZEMA_HEADS.values())
        )
        if not good:
            yield f"{hostile[place][0]}: {reply.code}: {reply.body[:200].decode(errors='replace')}"


def read_row(reply: Reply) -> dict[str, Any]:
    """Reads the only row of an answer, whether by row or by column."""
    answer = json.loads(reply.body)
    return (
        answer["predictions"][0]
        if "predictions" in answer
        else {name: values[0] for name, values in answer["outputs"].items()}
    )


def describe_hostile(answered: Answered) -> str:
    """Counts the answers by code or status, whatever numbers are in it."""
    kinds = (
        re.sub(r"\d+", "N", read_row(reply)["status"]) if reply.code == 200 else str(reply.code)
        for _, reply in answered
    )
    return ", ".join(f"{kind}: {count}" for kind, count in collections.Counter(kinds).most_common())


if __name__ == "__main__":
    sys.exit(main())

"""Measures what hostile files can do to the served graph, the reader of photos, and inspection.

It shows the slowest files, those that take the most memory, and whether any ends the process.

    python scripts/benchmark_guard.py --model saved_models/eczema
    python scripts/benchmark_guard.py --model saved_models/eczema --damaged 3000 --csv guard.csv

Each file goes, one at a time, to three kinds of process: `graph` (the signature `serving_default`),
`edge` (`upright_jpeg`) and `inspection` (`inspect_photos`, as before training). No process may use
more than 8 GB. Time is given by the clock and in processor time; only the latter can be trusted on
a busy machine. Memory is the highest resident set while the file is read, minus what the process
used before. A process that dies or takes too long is counted and started again.

Linux only: the high-water mark is reset through /proc.
"""

import argparse
import csv
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).parents[1])
)  # so that it runs from a clone, without being installed

MAX_SECONDS, MAX_MB = 1.0, 500.0  # what a hostile file may cost
MAX_DATA_BYTES = 8 << 30  # beyond this, a worker's allocations fail
DEADLINE_S = 60.0  # after this, a worker counts as hung
FIGURES = ("seconds", "cpu_seconds", "mb")
SHOWN = 6  # files in each table
Result = dict[str, str | float]


def main() -> None:
    """Measures all files and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=Path("saved_models/eczema"),
        help="an export (default: saved_models/eczema)",
    )
    parser.add_argument(
        "--damaged",
        type=int,
        default=1000,
        help="how many damaged files besides the crafted ones (default: 1000)",
    )
    parser.add_argument("--csv", type=Path, help="file for every single measurement")
    parser.add_argument(
        "--surface", choices=WORKERS, action="append", help="measure only this one (default: all)"
    )
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        run_worker(arguments.worker, arguments.model)
        return
    results = {
        kind: list(measure(kind, arguments.model, draw_all(arguments.damaged)))
        for kind in arguments.surface or WORKERS
    }
    if arguments.csv:
        write_csv(arguments.csv, results)
    print("\n\n".join(describe(kind, measured) for kind, measured in results.items()))


def draw_all(damaged: int) -> Iterator[tuple[str, bytes]]:
    """Draws crafted and damaged files."""
    from hostile_photos import draw_crafted, draw_damaged

    yield from draw_crafted()
    yield from draw_damaged(damaged)


def measure(kind: str, model: Path, files: Iterator[tuple[str, bytes]]) -> Iterator[Result]:
    """Hands files to a worker, one by one.

    Args:
        kind: Kind of worker: `graph`, `edge` or `inspection`.
        model: The export that `graph` loads.
        files: Names and contents of the files.

    Yields:
        `name`, `bytes`, `seconds`, `cpu_seconds`, `mb` (highest memory minus that before) and
        `answer`: the row's status, the error, or how the process ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, worker = Path(folder) / "photo", None
        for name, data in files:
            path.write_bytes(data)
            worker = worker or start_worker(kind, model)
            answer = ask_worker(worker, path)
            if answer is None:
                worker.kill()
                ended = f"process ended ({stop_worker(worker)})"
                answer, worker = (
                    {"seconds": DEADLINE_S, "cpu_seconds": DEADLINE_S, "mb": 0.0, "answer": ended},
                    None,
                )
            yield {"name": name, "bytes": len(data), **answer}
        if worker:
            stop_worker(worker)


def start_worker(kind: str, model: Path) -> subprocess.Popen:
    """Starts this script as a worker and waits until it is warm."""
    command = [sys.executable, __file__, "--worker", kind, "--model", str(model)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    worker = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    if worker.stdout.readline() != "ready\n":
        sys.exit(f"the {kind} worker does not start; try: {' '.join(command)}")
    return worker


def stop_worker(worker: subprocess.Popen) -> int:
    """Closes a worker's pipes, which ends it, and returns its exit code."""
    with worker:
        pass
    return worker.returncode


def ask_worker(worker: subprocess.Popen, path: Path) -> Result | None:
    """Returns one answer; None if the process died or is late."""
    print(path, file=worker.stdin, flush=True)
    if not select.select([worker.stdout], [], [], DEADLINE_S)[0]:
        return None
    line = worker.stdout.readline()
    return json.loads(line) if line else None


def run_worker(kind: str, model: Path) -> None:
    """Reads paths from standard input and writes a measurement for each to standard output."""
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_DATA_BYTES, MAX_DATA_BYTES))
    read = WORKERS[kind](model)
    for _ in range(3):
        read(b"\xff\xd8\xff" + bytes(60))  # the first call builds what the later ones use
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(measure_one(read, Path(line.strip()).read_bytes())), flush=True)


def measure_one(read: Callable[[bytes], str], data: bytes) -> Result:
    """Reads one file and measures it."""
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM (man 5 proc)
    before_mb, start, cpu_start = read_memory("VmRSS"), time.perf_counter(), time.process_time()
    answer = read(data)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "mb": read_memory("VmHWM") - before_mb,
        "answer": answer,
    }


def read_memory(field: str) -> float:
    """Reads a field of /proc/self/status, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def build_graph_reader(model: Path) -> Callable[[bytes], str]:
    """Returns a function from a file to its row's status."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  (registers the tokenizer's ops)

    from eczema_tf.serving.exported import find_version

    loaded = tf.saved_model.load(str(find_version(model)))
    serve = loaded.signatures["serving_default"]

    def read(data: bytes, _keep: object = loaded) -> str:
        return (
            serve(image=tf.constant([data]), text=tf.constant(["itchy"]))["status"]
            .numpy()[0]
            .decode()
        )

    return read


def build_edge_reader(_: Path) -> Callable[[bytes], str]:
    """Returns a function from a file to "ok" or the error."""
    from eczema_tf.data.photo.upright import upright_jpeg
    from eczema_tf.errors import DataError

    def read(data: bytes) -> str:
        try:
            upright_jpeg(data)
        except DataError as error:
            return str(error)
        return "ok"

    return read


def build_inspector(_: Path) -> Callable[[bytes], str]:
    """Returns a function from a file to "ok" or the error that stops training."""
    from eczema_tf.data.photo.inspection import inspect_photos

    def read(data: bytes) -> str:
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_bytes(data)
            return inspect_photos([file.name])["error"].iloc[0] or "ok"

    return read


WORKERS = {"graph": build_graph_reader, "edge": build_edge_reader, "inspection": build_inspector}


def breaks_limit(result: Result) -> bool:
    """Whether a file took too long or too much memory, or ended the process."""
    return (
        result["seconds"] > MAX_SECONDS
        or result["mb"] > MAX_MB
        or str(result["answer"]).startswith("process ended")
    )


def describe(kind: str, results: list[Result]) -> str:
    """Formats a table of the worst files."""
    answers = Counter(str(result["answer"])[:60] for result in results)
    broken = sum(breaks_limit(result) for result in results)
    ended = sum(str(result["answer"]).startswith("process ended") for result in results)
    lines = [
        f"{kind}: {len(results)} files, {ended} ended the process, {broken} over {MAX_SECONDS:g} s"
        f" or {MAX_MB:g} MB"
    ]
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(str(result["name"]).split()[0], []).append(result)
    for name, group in sorted(groups.items()):
        worst = {figure: max(float(r[figure]) for r in group) for figure in FIGURES}
        lines.append(
            f"  {name:10} {len(group):4} files, at most {worst['seconds']:5.2f} s,"
            f" {worst['cpu_seconds']:5.2f} s of CPU time, {worst['mb']:4.0f} MB"
        )
    for figure in FIGURES:
        worst = sorted(results, key=lambda result, figure=figure: -float(result[figure]))[:SHOWN]
        lines += [f"  highest {figure}:", *map(describe_one, worst)]
    lines.append("  answers:")
    lines += [f"    {count:6}  {answer}" for answer, count in answers.most_common(12)]
    return "\n".join(lines)


def describe_one(result: Result) -> str:
    """Formats one line of the table."""
    figures = (
        f"{result['seconds']:6.2f} s {result['cpu_seconds']:6.2f} s of CPU time"
        f" {result['mb']:5.0f} MB"
    )
    return f"    {figures} {result['bytes']:>9} bytes  {result['name']}: {result['answer']}"


def write_csv(path: Path, results: dict[str, list[Result]]) -> None:
    """Writes every measurement."""
    rows = [{"kind": kind, **result} for kind, measured in results.items() for result in measured]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()

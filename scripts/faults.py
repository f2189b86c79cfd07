"""Tests what happens when things break: killed runs, parallel exports, full disks, damaged files.

    python scripts/faults.py --work faults                       # all of it, about 25 minutes
    python scripts/faults.py --work faults --only damage --seed 1

Everything is done by the commands themselves, with `configs/smoke.yaml`. Each line of the table
counts the trials that ended as they should; if any did not, they are printed and the exit status is
1.

- kills: `train` gets SIGKILL or SIGTERM at a random moment, and is continued as its message says,
  until it ends. The metrics must be those of a run that was not killed, and the export must answer.
- pairs: two `export`s of one run start at once. Both must keep their model.
- disks: the run, cache, data or export folder is on a disk that is too small. The command must end
  with one clear line, and succeed once there is more room. The small disks are tmpfs mounts, which
  need root.
- damage: a file of a run or an export is cut, emptied, replaced, or has a bit flipped. The error
  must name the file, and nothing may be answered.
"""

import argparse
import contextlib
import io
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# runs from a checkout, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

CONFIG = Path(__file__).parents[1] / "configs" / "smoke.yaml"
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
# sizes of the small disks, by what is on them: too small for all of it, at different moments
DISK_KB = {"run": (60, 8000), "cache": (60, 600), "data": (60, 600), "export": (200, 5400)}
DAMAGED = 60
RUN_FILES = (
    "model.weights.h5",
    "tokenizer/vocabulary.txt",
    "config.yaml",
    "encoders.json",
    "data.json",
    "thresholds.json",
    "SHA256SUMS",
)
EXPORT_FILES = (
    "saved_model.pb",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
    "assets.extra/eczema.json",
    "SHA256SUMS",
)


class Bench:
    """A folder with an undisturbed run, to compare with.

    Attributes:
        work: The folder.
        random: The source of randomness.
        seconds: How long an undisturbed `train` takes.
        metrics: The metrics that it ends with.
    """

    def __init__(self, work: Path, seed: int):
        self.work, self.random = work, random.Random(seed)
        whole = work / "whole"
        if not (whole / "seconds").is_file():
            shutil.rmtree(whole, ignore_errors=True)
            start = time.monotonic()
            finish(subprocess.Popen(train_command(whole), **PIPES))
            whole.joinpath("seconds").write_text(str(time.monotonic() - start))
        self.seconds = float(whole.joinpath("seconds").read_text())
        self.metrics = read_metrics(whole)


PIPES = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}


def command(verb: str, *arguments: object) -> list[str]:
    """Returns a command of the package, for a process."""
    return [sys.executable, "-m", f"eczema_tf.{verb}", *map(str, arguments)]


def train_command(folder: Path, **elsewhere: Path) -> list[str]:
    """Returns the whole main job, which writes to one folder, except what goes elsewhere."""
    places = {name: folder / name for name in DISK_KB} | elsewhere
    settings = {
        "data.synthetic.folder": places["data"],
        "train.cache_folder": places["cache"],
        "export.folder": places["export"],
    }
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return command("train", "--config", CONFIG, "--run-dir", places["run"], *sets)


def finish(process: subprocess.Popen[str]) -> str:
    """Waits for a process that must succeed; returns what it printed on standard error."""
    _, said = process.communicate()
    if process.returncode != 0:
        raise Disappointment(f"status {process.returncode}: {said.strip()[-300:]}")
    return said


class Disappointment(Exception):
    """A trial did not end as it should."""


def expect(is_so: object, otherwise: str) -> None:
    """Raises `Disappointment` unless something is true."""
    if not is_so:
        raise Disappointment(otherwise)


def find_error(said: str) -> str:
    """Returns the one message that a command ends with (one line, and one more per fault)."""
    _, found, message = said.rpartition("error: ")
    expect(found and said.count("\nerror: ") + said.startswith("error: ") == 1, f"{said[-300:]!r}")
    expect("Traceback" not in said and len(message) < 2000, f"{said[-300:]!r}")
    return message.strip()


def read_metrics(folder: Path) -> object:
    """Reads the metrics of a run, once its export has answered."""
    finish(
        subprocess.Popen(command("predict", "--model", folder / "export", "--text", "dry"), **PIPES)
    )
    return json.loads((folder / "run" / "metrics.json").read_text())


def try_kill(bench: Bench, trial: int) -> str:
    """Kills one run at a random moment, and continues it."""
    folder, sent = bench.work / f"kill-{trial}", SIGNALS[trial % 2]
    shutil.rmtree(folder, ignore_errors=True)
    process = subprocess.Popen(train_command(folder), **PIPES)
    moment = bench.random.uniform(0.1, 1.0) * bench.seconds
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(moment)
    process.send_signal(sent)
    _, said = process.communicate()
    name = f"{sent.name} after {moment:.1f} s"
    if process.returncode != 0 and sent == signal.SIGTERM and process.returncode > 0:
        expect("interrupted" in said and "Traceback" not in said, f"{name}: printed {said[-200:]}")
    started = (folder / "run" / "config.yaml").is_file()
    again = train_command(folder)
    if started:
        again = command("train", "--resume", "--run-dir", folder / "run")
    finish(subprocess.Popen(again, **PIPES))
    expect(read_metrics(folder) == bench.metrics, f"{name}: different metrics")
    shutil.rmtree(folder)
    return name


def try_pair(bench: Bench, trial: int) -> str:
    """Exports one run twice at the same time."""
    out = bench.work / f"pair-{trial}"
    shutil.rmtree(out, ignore_errors=True)
    export = command("export", "--run-dir", bench.work / "whole" / "run", "--out", out)
    for process in [subprocess.Popen(export, **PIPES) for _ in range(2)]:
        finish(process)
    found = sorted(path.name for path in out.iterdir())
    expect(found == ["1", "2"], f"versions {found}")
    for version in found:
        finish(
            subprocess.Popen(command("predict", "--model", out / version, "--text", "dry"), **PIPES)
        )
    shutil.rmtree(out)
    return "two versions that answer"


def try_disk(bench: Bench, name: str, size_kb: int) -> str:
    """Trains with one folder on a disk that is too small, and again once it is larger."""
    folder, disk = bench.work / f"disk-{name}", bench.work / "disk"
    shutil.rmtree(folder, ignore_errors=True)
    with mounted(disk, size_kb):
        run = disk / "run" if name == "run" else folder / "run"
        train = train_command(folder, **{name: disk / name})
        process = subprocess.Popen(train, **PIPES)
        _, said = process.communicate()
        expect(process.returncode == 1, f"{name}, {size_kb} kB: status {process.returncode}")
        message = find_error(said)
        expect("No space left" in message, f"{name}, {size_kb} kB: {message}")
        subprocess.run(["mount", "-o", "remount,size=1G", disk], check=True)
        started = (run / "config.yaml").is_file()
        finish(subprocess.Popen([*train, *(["--resume"] if started else [])], **PIPES))
        moved = folder / name
        shutil.copytree(disk / name, moved, dirs_exist_ok=True)
        expect(read_metrics(folder) == bench.metrics, f"{name}, {size_kb} kB: different metrics")
    shutil.rmtree(folder)
    return f"{name}, {size_kb} kB: {message}"


@contextlib.contextmanager
def mounted(disk: Path, size_kb: int) -> Iterator[None]:
    """Mounts a small disk."""
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", disk], check=True)


def cut(data: bytes, chance: random.Random) -> bytes:
    """Cuts data anywhere before their end."""
    return data[: chance.randrange(len(data))]


def flip(data: bytes, chance: random.Random) -> bytes:
    """Flips one bit."""
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": cut,
    "bit flipped": flip,
    "emptied": lambda *_: b"",
    "replaced": lambda data, chance: chance.randbytes(len(data)),
}


def try_damage(bench: Bench, trial: int) -> str:
    """Damages one file of a copy, and asks for an answer, in this process."""
    from eczema_tf import evaluate, export, predict

    files = [*(("run", file) for file in RUN_FILES), *(("export/1", file) for file in EXPORT_FILES)]
    (where, file), kind = files[trial % len(files)], list(DAMAGES)[trial // len(files) % 4]
    copy = bench.work / "damaged"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(bench.work / "whole" / where, copy)
    before = (copy / file).read_bytes()
    (copy / file).write_bytes(DAMAGES[kind](before, bench.random))
    name, out, said = f"{where}/{file} {kind}", io.StringIO(), io.StringIO()
    asks = {
        "run": [
            lambda: evaluate.main(["--run-dir", str(copy)]),
            lambda: export.main(["--run-dir", str(copy), "--out", str(bench.work / "none")]),
        ],
        "export/1": [lambda: predict.main(["--model", str(copy), "--text", "dry"])],
    }
    for ask in asks[where]:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
            status = ask()
        expect(status == 1 and not out.getvalue(), f"{name}: status {status}, {out.getvalue()}")
        expect(file in find_error(said.getvalue()), f"{name}: printed {said.getvalue()[-300:]}")
        said.seek(said.truncate(0))
    return name


def main() -> int:
    """Runs the trials and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="a folder for all files")
    parser.add_argument("--only", choices=("kills", "pairs", "disks", "damage"))
    parser.add_argument("--trials", type=int, help="of kills and pairs (default: 20 and 10)")
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(arguments.work.resolve(), arguments.seed)
    print(f"undisturbed: {bench.seconds:.0f} s")

    def trials(default: int) -> range:
        return range(arguments.first, arguments.first + (arguments.trials or default))

    table = {
        "kills": [lambda t=t: try_kill(bench, t) for t in trials(20)],
        "pairs": [lambda t=t: try_pair(bench, t) for t in trials(10)],
        "disks": [
            lambda name=name, size=size: try_disk(bench, name, size)
            for name, sizes in DISK_KB.items()
            for size in sizes
        ],
        "damage": [lambda t=t: try_damage(bench, t) for t in range(DAMAGED)],
    }
    failed = 0
    for name, attempts in table.items():
        if arguments.only not in (None, name):
            continue
        good = 0
        for attempt in attempts:
            try:
                print(f"  {attempt()}", flush=True)
                good += 1
            except Disappointment as error:
                print(f"  FAILED: {error}", flush=True)
        print(f"{name:<8}{good:>4} of {len(attempts)} ended as they should")
        failed += len(attempts) - good
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

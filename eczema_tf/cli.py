"""What all commands share: names, argument types, exit statuses and one-line errors."""

import argparse
import gc
import io
import logging
import math
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from operator import methodcaller
from pathlib import Path
from types import ModuleType

from eczema_tf.errors import DataError, EczemaError, cut_lines
from eczema_tf.schema import NOTICE

Argument = Callable[[argparse.ArgumentParser], object]
TENSORFLOW_LOG = "TF_CPP_MIN_LOG_LEVEL"
# When Python collects garbage (its own thresholds: 700, 10, 10). TensorFlow creates millions of
# lasting objects when it builds graphs; scanning them repeatedly took a tenth of a small training.
GARBAGE_THRESHOLDS = (50_000, 20, 50)
# What each command does: the first line of its `--help`, and its line in the list that
# `python -m eczema_tf` prints.
COMMANDS = {
    "prepare": "Turn a data set into a manifest, the one table that training and evaluation read.",
    "train": "Train, evaluate and export a model; without arguments, on built-in data.",
    "evaluate": "Evaluate a trained run per case, with 95 % confidence intervals over groups.",
    "explain": "Show where the evidence for an answer lies in the photo and in the text.",
    "search": "Search for better settings by validation AUROC; the test split is never read.",
    "export": "Export a trained run as a SavedModel: photo bytes and text in, probabilities out.",
    "predict": "Assess a photo of the skin, a description of symptoms, or both.",
    "serve": "Serve an exported model over HTTP, with a web page, on this machine.",
    "score": "Score every row of a manifest with an exported model, on Spark.",
}


def argument(*names: str, **options: object) -> Argument:
    """Returns a command's argument, to be added to its parser; takes what `add_argument` takes."""
    return methodcaller("add_argument", *names, **options)


def number(
    name: str,
    default: int,
    purpose: str,
    least: int = 1,
    most: int | None = None,
    **options: object,
) -> Argument:
    """Returns an argument that takes a whole number from `least` to `most` (None: no limit)."""
    return argument(
        name,
        type=whole_number(least, most),
        default=default,
        metavar="N",
        help=f"{purpose} (default: {default})",
        **options,
    )


def build_parser(
    name: str, *arguments: Argument, description: str | None = None, examples: str = ""
) -> argparse.ArgumentParser:
    """Builds a command's argument parser, with `--debug`, examples and the notice in its help.

    Args:
        name: Name of the command.
        *arguments: The arguments that it takes; each is called with the parser.
        description: What the command does; None for a command of `COMMANDS`.
        examples: Examples of its use.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m eczema_tf.{name}",
        description=description or COMMANDS[name],
        epilog=f"{examples}\n\n{NOTICE}" if examples else NOTICE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--debug", action="store_true", help="show tracebacks and all of TensorFlow's messages"
    )
    for add_to in arguments:
        add_to(parser)
    return parser


class StoreOnce(argparse.Action):
    """Stores what a case has only one of; refuses a second one instead of dropping the first."""

    _is_given = False

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Stores the value, for `argparse`."""
        if self._is_given:
            raise argparse.ArgumentError(self, "given twice; allowed: once")
        self._is_given = True
        setattr(namespace, self.dest, values)


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Returns a reader (an argument's `type`) of whole numbers from `least` to `most`, if given."""
    allowed = f"of at least {least}" if most is None else f"from {least} to {most}"

    def read(text: str) -> int:
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None
        if number is None or number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(f"must be a whole number {allowed}; received {text!r}")
        return number

    return read


def share(text: str) -> float:
    """Reads a number strictly between 0 and 1 (an argument's `type`)."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1; received {text!r}")
    return number


def utf8(text: str) -> str:
    """Reads an argument's bytes as UTF-8, whatever the locale says (an argument's `type`)."""
    return os.fsencode(text).decode("utf-8", "replace")


def clinical_field(text: str) -> tuple[str, str]:
    """Reads `age=34` (an argument's `type`)."""
    text = utf8(text)
    name, separator, value = (part.strip() for part in text.partition("="))
    if not separator or not name or ";" in text:
        raise argparse.ArgumentTypeError(f"must look like age=34; received {text!r}")
    with suppress(ValueError):
        if math.isinf(float(value)):
            raise argparse.ArgumentTypeError(f"{name}: must be finite; received {value!r}")
    return name, value


# arguments that several commands share; the first two are for `config.load_config`
CONFIG = argument(
    "--config",
    type=Path,
    metavar="FILE",
    help="YAML file with the settings that differ from configs/quickstart.yaml, or the name of one"
    " that ships with the package, such as smoke",
)
SETTINGS = argument(
    "--set",
    action="append",
    type=utf8,
    default=[],
    metavar="a.b=c",
    help="change one setting; may be given several times",
)
RUN_DIR = argument(
    "--run-dir", type=Path, required=True, metavar="DIR", help="folder of a finished run"
)
MODEL_HELP = "an exported model: saved_models/eczema (the newest version) or one version's folder"
MODEL = argument("--model", type=Path, required=True, metavar="DIR", help=MODEL_HELP)
IMAGE = argument(
    "--image",
    action="extend",
    nargs="+",
    type=Path,
    default=[],
    metavar="FILE",
    help="a photo, or several photos of one case; each is turned upright and its metadata are"
    " removed before it is used",
)
CLINICAL = argument(
    "--clinical",
    action="append",
    type=clinical_field,
    default=[],
    metavar="FIELD=VALUE",
    help="a clinical field, such as age=34, if the model takes clinical fields; may be given"
    " several times",
)
TEXT = argument(
    "--text", action=StoreOnce, type=utf8, default="", help="a description of the symptoms"
)


def read_clinical_arguments(fields: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Returns the values given with `--clinical`, by name of the field.

    Raises:
        DataError: If a field is given twice.
    """
    names = [name.casefold() for name, _ in fields]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"--clinical {twice[0]}: given twice; allowed: once")
    return dict(fields)


def say(line: str) -> None:
    """Prints a message for people on standard error, apart from the results."""
    print(line, file=sys.stderr, flush=True)


def check_photo_arguments(paths: Sequence[Path]) -> None:
    """Refuses `--image` files that do not exist, before TensorFlow takes its time to start.

    Raises:
        DataError: If any are missing; the message names all of them.
    """
    missing = [f"--image {path}: no such file" for path in paths if not path.is_file()]
    if missing:
        raise DataError("; ".join(missing))


def start_tensorflow(*, with_keras: bool = True) -> None:
    """Imports TensorFlow and runs a first operation, silently unless something fails.

    Whatever the log level, TensorFlow writes to file descriptor 2 until its logging is set up, and
    so do the "errors" that there is no graphics card and no oneDNN for 64-bit integers. That
    descriptor is therefore redirected until TensorFlow has started.

    Args:
        with_keras: False where only an exported model is used, which needs no Keras.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:
        if os.environ.get(TENSORFLOW_LOG) != "0":
            os.dup2(said.fileno(), 2)
            # hints to programmers, such as how often a function was traced
            logging.getLogger("tensorflow").setLevel(logging.ERROR)
        try:
            with nullcontext() if with_keras else _leaving_keras_out():
                import tensorflow as tf

            tf.transpose(tf.zeros((1, 1), tf.int64))
        except BaseException:
            said.seek(0)
            os.write(stderr, said.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    gc.set_threshold(*GARBAGE_THRESHOLDS)


@contextmanager
def _leaving_keras_out() -> Iterator[None]:
    """Lets TensorFlow, and later TensorFlow Text, start without Keras, in half the time.

    Both import Keras unasked, and with it scikit-learn and Matplotlib; TensorFlow carries on if the
    import fails.
    """
    if not {"keras", "tensorflow"} & sys.modules.keys():
        layers_of_text = ModuleType("tensorflow_text.python.keras")
        sys.modules[layers_of_text.__name__] = layers_of_text
        sys.modules["keras"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if sys.modules.get("keras", ...) is None:
            del sys.modules["keras"]


def command(
    name: str, run: Callable[[argparse.Namespace], None], *arguments: Argument, examples: str
) -> Callable[..., int]:
    """Returns a command's `main`, which takes the words typed (None: `sys.argv`); see `--help`.

    Args:
        name: A key of `COMMANDS`.
        run: What the command does.
        *arguments: The arguments that it takes, as from `argument`.
        examples: Examples of its use.
    """

    def main(argv: Sequence[str] | None = None) -> int:
        return run_command(build_parser(name, *arguments, examples=examples), run, argv)

    return main


def run_command(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parses the arguments, runs the command and turns its outcome into an exit status.

    Returns:
        0 if all went well, 1 for bad data or a failed run. (argparse itself exits with 2 for bad
        usage.)
    """
    _open_streams()
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # whatever ~/.keras says
    arguments = parser.parse_args(argv)
    os.environ.setdefault(TENSORFLOW_LOG, "0" if arguments.debug else "2")  # 2: errors only
    if backend != "tensorflow":
        parser.error(f"KERAS_BACKEND is {backend!r}; only 'tensorflow' is supported: unset it")
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
                signal.signal(number, signal.default_int_handler)  # like Ctrl-C
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack letters that a path has
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        run(arguments)
    except (EczemaError, OSError) as error:
        if arguments.debug:
            raise
        print(f"error: {cut_lines(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print(f"interrupted{stopped}", file=sys.stderr)
        return 1
    return 0


def _open_streams() -> None:
    """Connects streams that were closed before the start (`2>&-`) to the null device.

    Otherwise the next file opened would take a stream's place and receive what is printed there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))

"""Tests of what all commands share: their list, types of arguments, and how a command ends."""

import argparse
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eczema_tf import __main__ as commands
from eczema_tf.cli import (
    COMMANDS,
    IMAGE,
    TENSORFLOW_LOG,
    build_parser,
    check_photo_arguments,
    clinical_field,
    read_clinical_arguments,
    run_command,
    whole_number,
)
from eczema_tf.errors import ConfigError, DataError, cut_lines, join_faults
from eczema_tf.schema import NOTICE

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_package_lists_its_commands(arguments: list[str], capsys: pytest.CaptureFixture):
    assert commands.main(arguments) == 0
    out = capsys.readouterr().out
    assert NOTICE in out
    for name, purpose in COMMANDS.items():
        assert f"  {name:<10}{purpose}\n" in out


def test_each_command_is_a_module_whose_help_states_its_purpose(capsys: pytest.CaptureFixture):
    for name, purpose in COMMANDS.items():
        with pytest.raises(SystemExit) as ended:
            commands.main([name, "--help"])
        assert ended.value.code == 0
        out = capsys.readouterr().out
        assert f"usage: python -m eczema_tf.{name} " in out
        assert purpose in out


def test_unknown_command_exits_with_2(capsys: pytest.CaptureFixture):
    assert commands.main(["trian"]) == 2
    assert "trian: no such command; allowed: prepare, train" in capsys.readouterr().err


def test_list_and_help_do_not_import_tensorflow():
    code = (
        "import sys, importlib, contextlib; from eczema_tf.__main__ import main\n"
        "main([])\n"
        f"for name in {list(COMMANDS)}:\n"
        "    with contextlib.suppress(SystemExit): main([name, '--help'])\n"
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'pandas')))"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL)
    assert ended.returncode == 0


def test_whole_number_accepts_only_digits_within_its_limits():
    assert [whole_number(1)(text) for text in ("1", "007", "12")] == [1, 7, 12]
    assert whole_number(0, 2)("2") == 2
    for text in ("0", "-1", "1.0", "", " 1", "1_0", "²", "٣", "many", "9" * 5000):
        with pytest.raises(
            argparse.ArgumentTypeError, match="whole number of at least 1; received"
        ):
            whole_number(1)(text)
    with pytest.raises(argparse.ArgumentTypeError, match="from 0 to 2; received '3'"):
        whole_number(0, 2)("3")


def test_image_option_takes_several_photos_and_may_be_repeated():
    parser = build_parser("predict", IMAGE)
    for given in (["--image", "a", "b"], ["--image", "a", "--image", "b"]):
        assert parser.parse_args(given).image == [Path("a"), Path("b")]
    assert parser.parse_args([]).image == []


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigError("bad"), "error: bad\n"),
        (PermissionError(13, "Permission denied", "x"), "error: [Errno 13] Permission denied"),
        (KeyboardInterrupt(), "interrupted\n"),
    ],
)
def test_failed_command_prints_one_line_and_returns_1(
    error: BaseException, line: str, capsys: pytest.CaptureFixture
):
    def fail(_: argparse.Namespace) -> None:
        raise error

    parser = build_parser("train")
    assert run_command(parser, fail, []) == 1
    err = capsys.readouterr().err
    assert err.startswith(line)
    assert err.count("\n") == 1
    if not isinstance(error, KeyboardInterrupt):
        with pytest.raises(type(error)):
            run_command(parser, fail, ["--debug"])


ECHO = """
import sys
from eczema_tf.cli import CLINICAL, SETTINGS, TEXT, build_parser, run_command

def echo(arguments):
    print("said", file=sys.stderr)
    with open(sys.argv[1], "wb") as file:
        told = [arguments.text, *arguments.set, *map("=".join, arguments.clinical)]
        file.write("|".join(told).encode())
    print("answer")

sys.exit(run_command(build_parser("predict", TEXT, CLINICAL, SETTINGS), echo, sys.argv[2:]))
"""


@pytest.mark.parametrize("closed", ["", "<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_output_to_a_closed_stream_is_discarded(tmp_path: Path, closed: str):
    (tmp_path / "echo.py").write_text(ECHO)
    line = f'"{sys.executable}" "{tmp_path}/echo.py" "{tmp_path}/told" --text dry {closed}'
    path = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(line, shell=True, env=path, capture_output=True, text=True)
    assert ended.returncode == 0
    assert (tmp_path / "told").read_text() == "dry"
    streams = (ended.stdout, ended.stderr)
    assert streams == (
        "" if ">&-" in closed.split() else "answer\n",
        "" if "2>" in closed else "said\n",
    )


def test_arguments_are_utf8_whatever_the_locale(tmp_path: Path):
    (tmp_path / "echo.py").write_text(ECHO)
    told = [
        *("--text", "tr\u00e8s s\u00e8che"),
        *("--set", "a=\u00e4"),
        *("--clinical", "site=\u00fc"),
    ]
    ascii_alone = {
        **os.environ,
        "LC_ALL": "POSIX",
        "PYTHONUTF8": "0",
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [sys.executable, tmp_path / "echo.py", tmp_path / "told", *told]
    subprocess.run([str(one).encode() for one in command], env=ascii_alone, check=True)
    assert (tmp_path / "told").read_text("utf-8") == "tr\u00e8s s\u00e8che|a=\u00e4|site=\u00fc"


def test_error_message_of_megabytes_is_cut(capsys: pytest.CaptureFixture):
    def fail(_: argparse.Namespace) -> None:
        Path("x" * 3_000_000).read_bytes()

    assert run_command(build_parser("train"), fail, []) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: [Errno 36] File name too long: 'xxx")
    assert err.endswith("xxx...\n")
    assert len(err) == len("error: ") + 2_000 + len("\n")
    with pytest.raises(OSError, match=r"x{3000000}"):
        run_command(build_parser("train"), fail, ["--debug"])


def test_control_characters_in_messages_are_replaced(capsys: pytest.CaptureFixture):
    def fail(_: argparse.Namespace) -> None:
        raise DataError("column '\x1b]0;owned\x07' in caf\u00e9\udcff.csv\n  twice")

    assert run_command(build_parser("train"), fail, []) == 1
    shown = "error: column '\ufffd]0;owned\ufffd' in caf\u00e9\ufffd.csv\n  twice\n"
    assert capsys.readouterr().err == shown


def test_long_list_of_faults_is_not_cut():
    faults = [f"fault {number}, {'x' * 1_000}" for number in range(9)]
    assert cut_lines(join_faults("m.csv", faults)) == join_faults("m.csv", faults)


def start(folder: Path, code: str, level: str, then: str = "pass") -> subprocess.CompletedProcess:
    """Starts a fake TensorFlow that writes to file descriptor 2, in a separate process."""
    (folder / "tensorflow.py").write_text(f"import os; os.write(2, b'noise'); {code}")
    command = "from eczema_tf.cli import start_tensorflow as s; s();"
    command += f"{then}; import os; os.write(2, b'on')"
    environment = os.environ | {"PYTHONPATH": f"{folder}:{REPOSITORY}", TENSORFLOW_LOG: level}
    return subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True)


WORKS = "int64 = zeros = transpose = lambda *_: None"


def test_tensorflow_starts_silently_and_later_output_is_shown(tmp_path: Path):
    warns = "import logging; logging.getLogger('tensorflow').warning('hint')"
    assert start(tmp_path, WORKS, "2", warns).stderr == b"on"
    assert start(tmp_path, WORKS, "0", warns).stderr == b"noisehint\non"


def test_output_of_a_failed_start_of_tensorflow_is_shown(tmp_path: Path):
    failed = start(tmp_path, "raise ImportError('no such library')", "2")
    assert failed.returncode == 1
    assert failed.stderr.startswith(b"noiseTraceback")
    assert b"ImportError: no such library" in failed.stderr


def test_predict_and_serve_leave_out_keras_which_stays_importable():
    program = """
import sys
from eczema_tf.cli import start_tensorflow
start_tensorflow(with_keras=False)
import tensorflow_text
import eczema_tf.workflows.predict, eczema_tf.workflows.serve
assert not {"keras", "keras_hub", "matplotlib", "sklearn"} & sys.modules.keys()
assert tensorflow_text.FastWordpieceTokenizer
import keras
assert keras.ops.ones((2,)).shape == (2,)
"""
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True, timeout=120)


def test_text_given_twice_is_refused(capsys: pytest.CaptureFixture):
    for command in ("predict", "explain"):
        with pytest.raises(SystemExit) as ended:
            commands.main([command, "--text", "a", "--text", "b"])
        assert ended.value.code == 2
        assert "argument --text: given twice; allowed: once" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more", ["--robustness", "--with-photos", "--allow-leaks", "--split=all", "--sensitivity=0.9"]
)
def test_compare_refuses_options_that_it_would_ignore(more: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as ended:
        commands.main(["evaluate", "--compare", "one", "other", more])
    assert ended.value.code == 2
    assert "allows no other option but --out" in capsys.readouterr().err


def test_all_missing_photos_are_named(tmp_path: Path):
    (tmp_path / "arm.jpg").write_bytes(b"\xff\xd8")
    check_photo_arguments([tmp_path / "arm.jpg"])
    check_photo_arguments([])
    with pytest.raises(DataError, match=r"--image .*1\.jpg: no such file; --image .*2\.jpg: no"):
        check_photo_arguments([tmp_path / "arm.jpg", tmp_path / "1.jpg", tmp_path / "2.jpg"])


def test_unknown_image_method_is_refused_even_without_a_photo(capsys: pytest.CaptureFixture):
    asked = ["explain", "--run-dir", "r", "--text", "itchy", "--out", "o", "--image-method", "x"]
    with pytest.raises(SystemExit) as ended:
        commands.main(asked)
    assert ended.value.code == 2
    assert "argument --image-method: invalid choice: 'x'" in capsys.readouterr().err


def test_clinical_fields_must_be_unique_and_finite():
    assert read_clinical_arguments([("age", "3"), ("sex", "f")]) == {"age": "3", "sex": "f"}
    with pytest.raises(DataError, match="--clinical age: given twice"):
        read_clinical_arguments([("age", "3"), ("Age", "4")])
    assert clinical_field("age = 3") == ("age", "3")
    for text in ("age=inf", "age=-1e400"):
        with pytest.raises(argparse.ArgumentTypeError, match="must be finite"):
            clinical_field(text)


@pytest.mark.parametrize("text", ["age", "=3", "age=3;sex=f"])
def test_clinical_argument_must_be_one_field_with_a_name(text: str):
    with pytest.raises(argparse.ArgumentTypeError, match="must look like age=34; received"):
        clinical_field(text)


@pytest.mark.parametrize(("options", "level"), [([], "2"), (["--debug"], "0")])
def test_messages_of_tensorflow_are_shown_only_with_debug(
    options: list[str], level: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(TENSORFLOW_LOG, raising=False)
    assert run_command(build_parser("train"), lambda _: None, options) == 0
    assert os.environ[TENSORFLOW_LOG] == level


def test_positive_option_needs_at_least_one_value(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as ended:
        commands.main(["prepare", "table", "t.csv", "--map", "m", "--positive", " ,", "--out", "o"])
    assert ended.value.code == 2
    assert "argument --positive: must name at least one value" in capsys.readouterr().err


def test_serve_without_its_packages_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr("eczema_tf.serve.start_tensorflow", lambda **_: None)
    monkeypatch.delitem(sys.modules, "eczema_tf.workflows.serve", raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert commands.main(["serve", "--model", "any"]) == 1
    assert capsys.readouterr().err == (
        "error: serve needs fastapi: pip install -r requirements-serve.txt\n"
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [(signal.SIG_DFL, signal.default_int_handler), (signal.SIG_IGN, signal.SIG_IGN)],
)
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_signals_end_a_command_like_ctrl_c_unless_they_are_ignored(
    number: signal.Signals, before: object, after: object
):
    own = signal.signal(number, before)
    try:
        assert run_command(build_parser("train"), lambda _: None, []) == 0
        assert signal.getsignal(number) is after
    finally:
        signal.signal(number, own)


def test_characters_that_the_output_cannot_encode_are_escaped(monkeypatch: pytest.MonkeyPatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii", write_through=True))
    assert (
        run_command(
            build_parser("train"), lambda _: sys.stdout.write("exported to é/1\n") and None, []
        )
        == 0
    )
    assert written.getvalue() == b"exported to \\xe9/1\n"

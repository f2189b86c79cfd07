"""The `prepare` command passes its options on, and ends with the right message and status."""

import inspect
import sys
import types
from pathlib import Path

import pytest
from PIL import Image

from eczema_tf.errors import DataError
from eczema_tf.prepare import main
from eczema_tf.schema import NOTICE
from eczema_tf.workflows.prepare import DATA_SETS


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list:
    """Replaces the workflow with a stub and returns the list of its calls."""
    made = []
    stub = types.ModuleType("eczema_tf.workflows.prepare")
    stub.prepare = lambda **options: made.append(options)
    monkeypatch.setitem(sys.modules, stub.__name__, stub)
    monkeypatch.setattr("eczema_tf.prepare.start_tensorflow", lambda: None)
    return made


def test_synthetic_passes_its_arguments_on(calls: list, tmp_path: Path):
    given = ["--n", "7", "--seed", "3", "--overwrite", "--allow-leaks"]
    assert main(["synthetic", "--out", str(tmp_path / "d"), *given]) == 0
    assert main(["synthetic", "--out", str(tmp_path / "d")]) == 0
    shared = {"data_set": "synthetic", "out": tmp_path / "d"}
    first = {"cases": 7, "seed": 3, "overwrite": True, "allow_leaks": True}
    second = {"cases": 2000, "seed": 0, "overwrite": False, "allow_leaks": False}
    assert calls == [shared | first, shared | second]


@pytest.mark.parametrize(
    ("arguments", "data_set"),
    [
        (["synthetic"], "synthetic"),
        (["scin", "--download", "d"], "scin"),
        (["dermavqa", "--encounters", "e.csv"], "dermavqa"),
        (["folder", "f"], "folder"),
        (["table", "t.csv", "--map", "ddi"], "table"),
    ],
)
def test_options_fit_the_function_of_the_data_set(calls: list, arguments: list[str], data_set: str):
    assert main([*arguments, "--out", "out"]) == 0
    (options,) = calls
    assert options.pop("data_set") == data_set
    del options["allow_leaks"]
    inspect.signature(DATA_SETS[data_set]).bind(options.pop("out"), **options)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["synthetic"],
        ["nonsense", "--out", "x"],
        ["scin", "--out", "x"],
        ["synthetic", "--out", "x", "--n", "0"],
        ["synthetic", "--out", "x", "--n", "many"],
        ["synthetic", "--out", "x", "--seed", "-1"],
    ],
)
def test_bad_usage_exits_with_2(calls: list, arguments: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err
    assert calls == []


def test_bad_data_is_a_one_line_error_with_status_1(tmp_path: Path, capsys: pytest.CaptureFixture):
    arguments = [
        "scin",
        "--cases",
        str(tmp_path / "none.csv"),
        "--labels",
        str(tmp_path / "none.csv"),
        "--out",
        str(tmp_path / "d"),
    ]
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "none.csv: no such file" in err
    assert not (tmp_path / "d").exists()


def test_error_for_a_damaged_photo_says_how_to_continue(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    for name in ("eczema", "other"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), "red" if name == "other" else "blue").save(
            tmp_path / "photos" / name / "1.png"
        )
    (tmp_path / "photos" / "eczema" / "2.png").write_bytes(b"no photo" * 20)
    arguments = ["folder", str(tmp_path / "photos"), "--eczema", "eczema"]
    arguments += ["--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "photo cannot be read" in said
    assert "prepare it again with --overwrite" in said
    (tmp_path / "photos" / "eczema" / "2.png").unlink()
    assert main([*arguments, "--overwrite"]) == 0


@pytest.mark.parametrize("place", [0, 1, None])
def test_debug_raises_the_error_wherever_the_option_is_placed(tmp_path: Path, place: int | None):
    arguments = [
        "scin",
        "--cases",
        "none.csv",
        "--labels",
        "none.csv",
        "--out",
        str(tmp_path / "d"),
    ]
    arguments.insert(len(arguments) if place is None else place, "--debug")
    with pytest.raises(DataError):
        main(arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--help"], "examples:"),
        (["--help"], NOTICE),
        (["scin", "--help"], "2402.18545"),
        (["synthetic", "--help"], "--seed"),
    ],
)
def test_help_shows_examples_notice_citation_and_options(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture
):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert says in capsys.readouterr().out


def test_prepare_and_its_data_modules_do_not_import_tensorflow():
    import subprocess

    modules = (
        "eczema_tf.prepare, eczema_tf.data.sources.scin, eczema_tf.data.manifest.table,"
        " eczema_tf.data.splits, eczema_tf.data.photo.inspection"
    )
    code = (
        f"import sys, {modules}; sys.exit(any(name in sys.modules for name in ('tensorflow',"
        " 'keras')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

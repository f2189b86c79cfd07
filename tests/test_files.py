"""Nothing good is ever replaced by something half-written."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from eczema_tf.errors import EczemaError
from eczema_tf.files import replacing_file, replacing_folder, write_json, write_text


def leftovers(folder: Path) -> list[str]:
    return [child.name for child in folder.iterdir() if child.name.startswith(".")]


def fail_after_writing(path: Path) -> None:
    path.write_text("half")
    raise RuntimeError


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "a.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing_file(path) as aside:
        fail_after_writing(aside)
    assert path.read_text() == "old"
    assert not leftovers(tmp_path)


def test_a_failure_leaves_the_old_folder_and_nothing_else(tmp_path: Path):
    path = tmp_path / "set"
    with replacing_folder(path) as aside:
        (aside / "a").write_text("old")
    with pytest.raises(RuntimeError), replacing_folder(path, overwrite=True) as aside:
        fail_after_writing(aside / "a")
    assert (path / "a").read_text() == "old"
    assert not leftovers(tmp_path)


def test_a_folder_is_replaced_only_when_asked(tmp_path: Path):
    for text in ("old", "new"):
        with replacing_folder(tmp_path / "set", overwrite=True) as aside:
            (aside / "a").write_text(text)
    assert (tmp_path / "set" / "a").read_text() == "new"
    with pytest.raises(EczemaError, match="not empty"), replacing_folder(tmp_path / "set"):
        pass
    assert not leftovers(tmp_path)


def test_full_disk_keeps_the_old_file(tmp_path: Path):
    """A real write error: the process may not write files of more than 4 kB."""
    path = tmp_path / "a.txt"
    write_text(path, "old")
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from eczema_tf.files import write_text\n"
        "from eczema_tf.errors import EczemaError\n"
        "try:\n"
        "    write_text(sys.argv[1], 'x' * 100_000)\n"
        "except EczemaError as error:\n"
        "    sys.exit(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert path.read_text() == "old"
    assert not leftovers(tmp_path)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4096  # the limit was the child's alone


def test_a_place_that_cannot_hold_files_is_a_clear_error(tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(EczemaError, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "text")
    with pytest.raises(EczemaError, match="cannot be written"), replacing_folder(tmp_path / "file" / "set"):
        pass


def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    code = (
        "import os, sys\n"
        "from eczema_tf.files import replacing_file\n"
        "with replacing_file(sys.argv[1]) as aside:\n"
        "    aside.write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -9
    assert path.read_text() == "old"


def test_json_refuses_what_is_not_json(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not (tmp_path / "a.json").exists()
    write_json(tmp_path / "a.json", {"a": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_files_get_ordinary_permissions(tmp_path: Path):
    umask = os.umask(0o022)
    os.umask(umask)
    write_text(tmp_path / "a.txt", "text")
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~umask

"""Tests of writing files: nothing good is ever replaced by something half-written."""

import csv
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from eczema_tf.data.cache import fingerprint
from eczema_tf.data.checksums import check_checksums, digest_file, digest_folder, write_checksums
from eczema_tf.data.manifest.table import load_manifest
from eczema_tf.errors import EczemaError, RunError
from eczema_tf.files import (
    adding_version,
    check_writable,
    escape_formula,
    holding,
    refusing,
    replacing_file,
    replacing_files,
    replacing_folder,
    unescape_formula,
    write_csv,
    write_json,
    write_text,
)


def leftovers(folder: Path) -> list[str]:
    return [child.name for child in folder.iterdir() if child.name.startswith(".")]


def fail_after_writing(path: Path) -> None:
    path.write_text("half")
    raise RuntimeError


def test_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path):
    path = tmp_path / "a.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing_file(path) as aside:
        fail_after_writing(aside)
    assert path.read_text() == "old"
    assert not leftovers(tmp_path)


def test_write_error_names_the_final_path_not_the_temporary_one(tmp_path: Path):
    said = f"^{tmp_path / 'set' / 'a.json'}: cannot be written: No space left on device; free"
    full = OSError("Error writing bytes to file. Detail: [errno 28] No space left on device")
    with (
        pytest.raises(EczemaError, match=said),
        replacing_folder(tmp_path / "set") as aside,
        replacing_file(aside / "a.json"),
    ):
        raise full


def test_linked_folder_stays_a_link_and_a_mount_point_is_refused(tmp_path: Path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    for text in ("first", "second"):
        with replacing_folder(tmp_path / "link", overwrite=True) as aside:
            (aside / "a").write_text(text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "disk" / "a").read_text() == text
    with (
        pytest.raises(EczemaError, match="is a mount point and cannot be replaced; name a folder"),
        replacing_folder("/proc", overwrite=True),
    ):
        pass


def test_failure_keeps_the_old_folder_and_leaves_nothing_else(tmp_path: Path):
    path = tmp_path / "set"
    with replacing_folder(path) as aside:
        (aside / "a").write_text("old")
    with pytest.raises(RuntimeError), replacing_folder(path, overwrite=True) as aside:
        fail_after_writing(aside / "a")
    assert (path / "a").read_text() == "old"
    assert not leftovers(tmp_path)


def test_files_of_a_folder_are_replaced_together_or_not_at_all(tmp_path: Path):
    for name in ("a", "metrics", "other"):
        write_text(tmp_path / name, "old")

    def replace(fail: bool) -> None:
        with replacing_files(tmp_path, last="metrics") as aside:
            write_text(aside / "a", "new")
            write_text(aside / "a" / "b" if fail else aside / "metrics", "new")

    with pytest.raises(EczemaError, match=rf"^{tmp_path}/a/b: cannot be written: "):
        replace(fail=True)
    assert {file.read_text() for file in tmp_path.iterdir()} == {"old"}
    replace(fail=False)
    assert [(tmp_path / name).read_text() for name in ("a", "metrics")] == ["new", "new"]
    assert (tmp_path / "other").read_text() == "old"
    assert not leftovers(tmp_path)


def test_last_file_is_moved_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    moved = []
    replace = Path.replace
    with replacing_files(tmp_path, last="a") as aside:
        for name in ("c", "a", "b"):
            write_text(aside / name, "")
        monkeypatch.setattr(
            Path, "replace", lambda file, to: [moved.append(file.name), replace(file, to)]
        )
    assert sorted(moved[:-1]) == ["b", "c"]
    assert moved[-1] == "a"


def test_folder_filled_by_another_writer_is_kept_and_reported(tmp_path: Path):

    def write_while_somebody_else_is_faster() -> None:
        with replacing_folder(tmp_path / "set") as aside:
            write_text(aside / "mine", "mine")
            write_text(tmp_path / "set" / "theirs", "theirs")

    with pytest.raises(EczemaError, match="Directory not empty; choose another folder"):
        write_while_somebody_else_is_faster()
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["theirs"]
    assert not leftovers(tmp_path)


def test_folder_is_replaced_only_with_overwrite(tmp_path: Path):
    for text in ("old", "new"):
        with replacing_folder(tmp_path / "set", overwrite=True) as aside:
            (aside / "a").write_text(text)
    assert (tmp_path / "set" / "a").read_text() == "new"
    with pytest.raises(EczemaError, match="not empty"), replacing_folder(tmp_path / "set"):
        pass
    assert not leftovers(tmp_path)


def test_file_is_never_replaced_by_a_folder(tmp_path: Path):
    (tmp_path / "precious.csv").write_text("a")
    for overwrite in (False, True):
        with (
            pytest.raises(EczemaError, match="is a file; choose another name"),
            replacing_folder(tmp_path / "precious.csv", overwrite=overwrite),
        ):
            pass
    assert (tmp_path / "precious.csv").read_text() == "a"


def test_full_disk_is_reported_for_errors_of_tensorflow_too(tmp_path: Path):
    """TensorFlow's exceptions are not OSErrors. Errors that are not about a disk pass unchanged."""
    full = tf.errors.ResourceExhaustedError(None, None, "a.pb; No space left on device")
    said = "a: cannot be written: No space left on device; free"
    with pytest.raises(EczemaError, match=said), refusing(tmp_path / "a"):
        raise full
    for other in (ValueError("no weights"), EczemaError("b: No space left on device")):
        with pytest.raises(type(other)) as caught, refusing(tmp_path / "a"):
            raise other
        assert caught.value is other


def test_missing_source_file_is_named_instead_of_blaming_the_disk(tmp_path: Path):
    said = f"{tmp_path}/in/a.jpg: cannot be opened: No such file"

    def copy(folder: Path) -> None:
        with replacing_folder(folder) as aside:
            shutil.copyfile(tmp_path / "in" / "a.jpg", aside / "a.jpg")

    for name in ("out", "new/out"):
        with pytest.raises(EczemaError, match=said):
            copy(tmp_path / name)
    full = OSError(errno.ENOSPC, "No space left on device", "a.jpg", None, "out/a.jpg")
    said = "out: cannot be written: No space"
    with pytest.raises(EczemaError, match=said), refusing(Path("out")):
        raise full  # as from `shutil`, which names the file that it reads first


def test_write_error_keeps_the_old_file(tmp_path: Path):
    """A real write error: the process may not write files larger than 4 kB."""
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
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert path.read_text() == "old"
    assert not leftovers(tmp_path)


def test_path_below_a_file_is_a_clear_error(tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(EczemaError, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "text")
    with (
        pytest.raises(EczemaError, match="cannot be written"),
        replacing_folder(tmp_path / "file" / "set"),
    ):
        pass


def test_killed_writer_leaves_the_old_file(tmp_path: Path):
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


def test_write_json_refuses_nan(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not (tmp_path / "a.json").exists()
    write_json(tmp_path / "a.json", {"a": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_files_get_the_default_permissions(tmp_path: Path):
    umask = os.umask(0o022)
    os.umask(umask)
    write_text(tmp_path / "a.txt", "text")
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~umask


FORMULAS = [
    "=1+1",
    "=cmd|' /C calc'!A0",
    "+SUM(A1)",
    "-2+3+cmd|x",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\0=1",
    "--help",
    "- dry skin",
    "-1e5",
]
HARMLESS = [
    "",
    "dry",
    "it's",
    "'quoted'",
    "a=b",
    " =1",
    "-1.5",
    "+41",
    "007",
    "-1000600354148496558",
    "-1000600354148496558-1",
    "größe",
    "''",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text: str):
    assert escape_formula(text) == f"'{text}"
    # so that it is not mistaken for the one above
    assert escape_formula(f"'{text}") == f"''{text}"


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_is_left_unchanged(text: str):
    assert escape_formula(text) == text
    assert unescape_formula(text) == text


@given(st.text(alphabet="'=+-@\t\r\n\0 1.ax", max_size=6) | st.text(max_size=20))
def test_escaping_is_reversible_and_leaves_no_formula(text: str):
    cell = escape_formula(text)
    assert unescape_formula(cell) == text
    assert not cell.startswith(("=", "@", "\t", "\r", "\n", "\0"))
    assert not cell.startswith(("+", "-")) or set(cell) <= set("+-.0123456789")


def test_table_is_read_back_as_it_was_written(tmp_path: Path):
    texts = [text for text in FORMULAS + HARMLESS if "\0" not in text]
    table = pd.DataFrame(
        {
            "example_id": [f"{place}-{text}" for place, text in enumerate(texts)],
            "text": texts,
            "=note": texts[::-1],
        }
    )
    write_csv(tmp_path / "manifest.csv", table.assign(eczema=0.5))
    with (tmp_path / "manifest.csv").open(newline="", encoding="utf-8") as file:
        header, *records = csv.reader(file)  # as a spreadsheet reads them
    assert header == ["example_id", "text", "'=note", "eczema"]
    assert [record[1] for record in records] == [
        f"'{text}" if text in FORMULAS else text for text in texts
    ]
    back = load_manifest(tmp_path / "manifest.csv", skip_bad_rows=True).table.set_index(
        "example_id"
    )
    for row in table.to_dict("records"):
        if row["text"].strip():
            assert back.loc[row["example_id"], ["text", "=note"]].tolist() == [
                row["text"],
                row["=note"],
            ]
    assert len(back) == sum(bool(text.strip()) for text in texts)


def test_write_csv_keeps_numbers_exact_and_the_table_unchanged(tmp_path: Path):
    figures = np.random.default_rng(0).normal(size=50)
    table = pd.DataFrame(
        {
            "logit": figures,
            "count": np.arange(-25, 25),
            "used": figures > 0,
            "mixed": [*[-1.5] * 48, None, "=1"],
        }
    )
    before = table.copy()
    write_csv(tmp_path / "a.csv", table)
    pd.testing.assert_frame_equal(table, before)
    back = pd.read_csv(tmp_path / "a.csv")
    pd.testing.assert_frame_equal(
        back[["logit", "count", "used"]], table[["logit", "count", "used"]], check_exact=True
    )
    assert back["mixed"].tolist()[-1] == "'=1"
    assert back["mixed"][0] == "-1.5"


def test_rejected_rows_are_escaped(tmp_path: Path):
    (tmp_path / "manifest.csv").write_text("example_id,text,eczema\n=1+1,dry,7\nr2,dry,1\n")
    load_manifest(tmp_path / "manifest.csv", skip_bad_rows=True)
    assert pd.read_csv(tmp_path / "manifest.rejected.csv")["example_id"].tolist() == ["'=1+1"]


def test_folder_digest_depends_only_on_names_and_contents(tmp_path: Path):
    for folder in ("first", "second"):
        (tmp_path / folder / "deep").mkdir(parents=True)
        (tmp_path / folder / "deep" / "b").write_bytes(b"two")
        (tmp_path / folder / "a").write_bytes(b"one")
    first, second = tmp_path / "first", tmp_path / "second"
    os.utime(second / "a", (0, 0))
    digest = digest_folder(first)
    assert len(digest) == 64
    assert digest_folder(second) == digest
    (second / "skipped").touch()
    assert digest_folder(second) != digest
    assert digest_folder(second, ignored=["skipped"]) == digest
    (second / "a").rename(second / "c")
    assert digest_folder(second, ignored=["skipped"]) != digest
    (first / "a").write_bytes(b"ONE")
    assert digest_folder(first) != digest


def test_folder_digest_begins_like_the_one_in_earlier_runs(tmp_path: Path):
    """Run folders contain half a SHA-256 over names (as JSON) and contents, with their lengths."""
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    assert digest_folder(tmp_path)[:32] == fingerprint("saved_model.pb", b"graph")


def test_file_digest_is_its_sha_256(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"abc")
    assert digest_file(tmp_path / "a").startswith("ba7816bf8f01cfea")  # FIPS 180-2, B.1


# Locks, leftovers, versions and checksums


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_old_leftovers_are_removed_unless_a_writer_holds_them(tmp_path: Path):
    dead, held, fresh = (tmp_path / f".writing-{name}" for name in ("dead", "held", "fresh"))
    for folder in (dead, held, fresh):
        folder.mkdir()
        (folder / "half").write_text("half")
    age(dead, 1000)
    age(held, 1000)
    with holding(held):
        write_text(tmp_path / "whole.txt", "whole")
    assert [folder.exists() for folder in (dead, held, fresh)] == [False, True, True]


def test_folder_can_be_held_only_once_at_a_time(tmp_path: Path):
    with holding(tmp_path), pytest.raises(BlockingIOError), holding(tmp_path):
        pass
    with holding(tmp_path):
        pass


def test_versions_that_finish_together_get_their_own_numbers(tmp_path: Path):
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "model").write_text("old")
    code = (
        "import sys; from pathlib import Path; from eczema_tf.files import adding_version\n"
        "with adding_version(Path(sys.argv[1])) as version:\n"
        "    (version.folder / 'model').write_text(sys.argv[2]); print('ready', flush=True)\n"
        "    sys.stdin.readline()\n"
        "print(version.number)"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    numbers = [int(writer.communicate()[0]) for writer in writers]
    assert sorted(numbers) == [4, 5, 6, 7]
    for writer, number in enumerate(numbers):
        assert (tmp_path / str(number) / "model").read_text() == str(writer)
    assert (tmp_path / "3" / "model").read_text() == "old"
    assert not list(tmp_path.glob(".writing-*"))


def test_version_appears_whole_and_under_a_free_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rename, there = Path.rename, []

    def rename_after_somebody_else(self: Path, target: Path) -> Path:
        there.append(target.exists())
        if len(there) == 1:  # another writer takes number 1
            target.mkdir()
            (target / "model").write_text("theirs")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_after_somebody_else)
    with adding_version(tmp_path) as version:
        (version.folder / "model").write_text("mine")
    assert there == [False, False]
    assert [(tmp_path / name / "model").read_text() for name in ("1", "2")] == ["theirs", "mine"]
    assert version.number == 2


def cut_a_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "words" / "list.txt").unlink(), "words/list.txt: missing"),
        (lambda folder: (folder / "weights").write_bytes(b"weighty"), "weights: damaged"),
        (lambda folder: (folder / "weights").write_bytes(b""), "weights: damaged"),
        (lambda folder: (folder / "SHA256SUMS").write_bytes(b""), "list.txt: not listed"),
        (lambda folder: (folder / "SHA256SUMS").write_bytes(b"\xff\n"), "list.txt: not listed"),
        (lambda folder: cut_a_line(folder / "SHA256SUMS"), "list.txt: not listed"),
    ],
)
def test_missing_damaged_and_unlisted_files_are_named(tmp_path: Path, damage, said: str):
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "list.txt").write_text("itch")
    (tmp_path / "weights").write_bytes(b"weights")
    check_checksums(tmp_path, ["words", "weights"])  # passes, as older folders have no checksums
    write_checksums(tmp_path, ["words", "weights"])
    check_checksums(tmp_path, ["words", "weights"])
    sums = (tmp_path / "SHA256SUMS").read_text()
    assert f"{hashlib.sha256(b'itch').hexdigest()}  words/list.txt\n" in sums
    checked = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path)
    assert checked.returncode == 0
    damage(tmp_path)
    with pytest.raises(RunError, match=said):
        check_checksums(tmp_path, ["words", "weights"])


def test_check_writable_refuses_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    check_writable(tmp_path / "new" / "deep")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(EczemaError, match=r"deep: cannot be written: no file .* in .*file$"):
        check_writable(tmp_path / "file" / "deep")
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(EczemaError, match="new: cannot be written"):
        check_writable(tmp_path / "new")


def test_check_writable_refuses_files_and_checks_the_folder_itself(tmp_path: Path, monkeypatch):
    program = tmp_path / "program"
    program.touch(mode=0o777)
    with pytest.raises(EczemaError, match=r"no file can be created in .*program$"):
        check_writable(program / "deep")
    asked = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append((path, mode)))
    (tmp_path / "there").mkdir()
    with pytest.raises(EczemaError, match=r"no file can be created in .*there$"):
        check_writable(tmp_path / "there")
    assert asked == [(tmp_path / "there", os.W_OK | os.X_OK)]


def test_temporary_folder_of_a_slow_writer_is_not_removed_by_another(tmp_path: Path):
    with replacing_file(tmp_path / "slow.txt") as aside:
        aside.write_text("slow")
        age(aside.parent, 1000)
        write_text(tmp_path / "quick.txt", "quick")
    assert (tmp_path / "slow.txt").read_text() == "slow"


def test_only_ascii_numbers_count_as_versions(tmp_path: Path):
    for name in ("2", "\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT THREE}", "-4", "5.0"):
        (tmp_path / name).mkdir()
    with adding_version(tmp_path) as version:
        pass
    assert version.number == 3


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_quota_or_file_size_asks_to_free_space(tmp_path: Path, number: int):
    full = os.strerror(number)
    for error in (OSError(number, full), RuntimeError(f"cannot append: {full}")):
        said = f"a: cannot be written: {full}; free some space or choose another folder"
        with pytest.raises(EczemaError, match=said), refusing(tmp_path / "a"):
            raise error

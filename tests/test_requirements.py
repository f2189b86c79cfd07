"""What is installed: every dependency has bounds, and the lock keeps them and knows its files."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
FILES = sorted(ROOT.glob("requirements*.txt"))
LOCK = ROOT / "requirements.lock"


def read_requirements(path: Path) -> list[Requirement]:
    lines = re.sub(
        r"\s*(#| --hash).*", "", path.read_text("utf-8").replace("\\\n", " ")
    ).splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def read_lock() -> list[tuple[Requirement, list[str]]]:
    """Each package at its version, with its markers, and the hashes of its files."""
    entries = re.sub(r"\s*#.*", "", LOCK.read_text("utf-8")).replace("\\\n", " ").splitlines()
    parts = [re.split(r"\s+--hash=", entry.strip()) for entry in entries if entry.strip()]
    return [(Requirement(package), hashes) for package, *hashes in parts]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_dependency_has_a_lower_and_an_upper_bound(path: Path):
    for requirement in read_requirements(path):
        operators = {bound.operator for bound in requirement.specifier}
        assert operators in ({">=", "<"}, {"=="}), requirement


def test_the_lock_has_every_requirement_within_its_bounds_on_every_python():
    locked = read_lock()
    for requirement in read_requirements(ROOT / "requirements.txt"):
        for python in ("3.11", "3.12", "3.13"):
            place = {"python_version": python, "python_full_version": f"{python}.0"}
            versions = [
                next(iter(entry.specifier)).version
                for entry, _ in locked
                if entry.name == requirement.name.lower()
                and (entry.marker is None or entry.marker.evaluate(place))
            ]
            assert len(versions) == 1, (requirement, python)
            assert requirement.specifier.contains(versions[0]), (requirement, versions)


def test_every_package_of_the_lock_is_pinned_and_has_a_hash_and_no_address():
    assert "://" not in LOCK.read_text("utf-8")
    locked = read_lock()
    assert len(locked) > 100
    for package, hashes in locked:
        assert [bound.operator for bound in package.specifier] == ["=="], package
        assert hashes, package
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", digest) for digest in hashes), package


def test_setuptools_is_one_that_stays_in_its_folder():
    """CVE-2025-47273: before 78.1.1 a package's name could write anywhere."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]
    named = [Requirement(line) for line in build["requires"]]
    named += [requirement for path in FILES for requirement in read_requirements(path)]
    wanted = [requirement for requirement in named if requirement.name == "setuptools"]
    assert len(wanted) >= 3  # to build, to run, and below what TensorFlow Hub cannot use
    assert [requirement for requirement in wanted if requirement.specifier.contains("78.1.0")] == []


def test_the_lock_is_installed_once_with_its_hashes_and_again_after_a_failure(tmp_path: Path):
    for name in ("scripts", ".venv/bin"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "environment.sh", tmp_path / "scripts")
    for name in ("requirements.lock", "requirements-weights.txt"):
        (tmp_path / name).write_text("a==1\n")
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\necho "$@" >> calls\ntest ! -e fails\n')
    python.chmod(0o755)

    def source() -> int:
        command = ["bash", "-c", f"source {tmp_path}/scripts/environment.sh"]
        return subprocess.run(command, capture_output=True, check=False).returncode

    (tmp_path / "fails").touch()
    assert source() == 1
    (tmp_path / "fails").unlink()
    assert [source(), source()] == [0, 0]
    (tmp_path / "requirements.lock").write_text("a==2\n")
    assert source() == 0
    calls = [line for line in (tmp_path / "calls").read_text().splitlines() if ".lock" in line]
    assert len(calls) == 3  # failed, done, changed
    assert all("--require-hashes -r requirements.lock" in call for call in calls)

"""Tests of requirements: imports are declared, versions have bounds, and the lock has hashes."""

import contextlib
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, files
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from test_architecture import imported_modules

ROOT = Path(__file__).parent.parent
FILES = sorted(ROOT.glob("requirements*.txt"))
LOCK = ROOT / "requirements.lock"
OF_A_CHECKOUT = [ROOT / f"requirements-{name}.txt" for name in ("base", "serve", "test")]


def read_requirements(path: Path) -> list[Requirement]:
    lines = re.sub(
        r"\s*(#| --hash).*", "", path.read_text("utf-8").replace("\\\n", " ")
    ).splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def read_lock() -> list[tuple[Requirement, list[str]]]:
    """Returns each package, with its version and markers, and the hashes of its files."""
    entries = re.sub(r"\s*#.*", "", LOCK.read_text("utf-8")).replace("\\\n", " ").splitlines()
    parts = [re.split(r"\s+--hash=", entry.strip()) for entry in entries if entry.strip()]
    return [(Requirement(package), hashes) for package, *hashes in parts]


def modules_of(requirement: Requirement) -> set[str]:
    """Returns all modules and packages of a distribution; none if it is not installed."""
    held = set()
    with contextlib.suppress(PackageNotFoundError):
        for file in files(requirement.name) or []:
            parts = (*file.parts[:-1], file.name.partition(".")[0])
            held |= {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
    return held


def is_installed(module: str) -> bool:
    with contextlib.suppress(ModuleNotFoundError):
        return find_spec(module) is not None
    return False


def test_every_import_of_the_package_is_declared():
    """Modules of extras that are not installed cannot be looked up and are left out."""
    declared: set[str] = set()
    for path in FILES:
        for requirement in read_requirements(path):
            declared |= modules_of(requirement)
    imported = set().union(*map(imported_modules, (ROOT / "eczema_tf").rglob("*.py")))
    known = {"eczema_tf", *sys.stdlib_module_names}
    foreign = {name for name in imported - declared if name.split(".")[0] not in known}
    assert {name for name in foreign if is_installed(name)} == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_dependency_is_pinned_or_has_both_bounds(path: Path):
    for requirement in read_requirements(path):
        operators = {bound.operator for bound in requirement.specifier}
        assert operators in ({">=", "<"}, {"=="}), requirement


def test_lock_is_within_the_bounds_on_every_python_version():
    locked = read_lock()
    for requirement in [each for path in OF_A_CHECKOUT for each in read_requirements(path)]:
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


def test_locked_packages_are_pinned_and_hashed_and_have_no_url():
    assert "://" not in LOCK.read_text("utf-8")
    locked = read_lock()
    assert len(locked) > 100
    for package, hashes in locked:
        assert [bound.operator for bound in package.specifier] == ["=="], package
        assert hashes, package
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", digest) for digest in hashes), package


def test_setuptools_that_writes_outside_its_folder_is_excluded():
    """CVE-2025-47273: before 78.1.1, a package's name could make setuptools write anywhere."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]
    named = [Requirement(line) for line in build["requires"]]
    named += [requirement for path in FILES for requirement in read_requirements(path)]
    wanted = [requirement for requirement in named if requirement.name == "setuptools"]
    assert len(wanted) >= 3  # to build, to run, and for TensorFlow Hub
    for requirement in wanted:
        assert not requirement.specifier.contains("78.1.0")
        assert requirement.specifier.contains("78.1.1")


def test_lock_is_installed_again_only_after_a_failure_or_a_change(tmp_path: Path):
    for name in ("scripts", ".venv/bin"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "environment.sh", tmp_path / "scripts")
    for name in ("requirements.lock", "requirements-weights.txt"):
        (tmp_path / name).write_text("a==1\n")
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\necho "$@" >> calls\ntest ! -e fails || test "$3" = --version\n')
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


def test_environment_without_pip_gets_it_from_ensurepip(tmp_path: Path):
    """Debian's Python makes such environments if python3-venv is not installed."""
    for name in ("scripts", ".venv/bin"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "environment.sh", tmp_path / "scripts")
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\necho "$@" >> calls\ntest "$2" != pip\n')
    python.chmod(0o755)
    command = ["bash", "-c", f"source {tmp_path}/scripts/environment.sh"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1
    assert "-m ensurepip --default-pip" in (tmp_path / "calls").read_text().splitlines()

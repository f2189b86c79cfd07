"""Tests of the wheel: its files, its extras, and a command that runs anywhere."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import eczema_tf

ROOT = Path(__file__).parent.parent
NOT_EXTRAS = ("base", "weights")  # the package's own, and those installed with --no-deps


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "oneDNN" not in done.stderr  # a message of TensorFlow when it starts
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, as building leaves folders behind."""
    copy = tmp_path_factory.mktemp("copy")
    for path in (*ROOT.glob("requirements*"), *ROOT.glob("*.toml"), *ROOT.glob("*.md")):
        shutil.copy(path, copy)
    shutil.copy(ROOT / "LICENSE", copy)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "eczema_tf", copy / "eczema_tf", ignore=ignored)
    code = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    run(sys.executable, "-c", code, cwd=copy)
    (built,) = (copy / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def test_wheel_contains_exactly_the_files_of_the_package(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    found = (*(ROOT / "eczema_tf").rglob("*"), *(ROOT / "eczema_tf" / "configs").rglob("*"))
    files = (path for path in found if path.is_file() and path.parent.name != "__pycache__")
    assert held == {path.relative_to(ROOT).as_posix() for path in files}
    assert "eczema_tf/py.typed" in held


def test_each_optional_requirements_file_is_an_extra(metadata: Message):
    names = {path.stem.removeprefix("requirements-") for path in ROOT.glob("requirements-*.txt")}
    assert set(metadata.get_all("Provides-Extra", [])) == names - set(NOT_EXTRAS)


def test_base_install_has_no_test_or_server_dependencies(metadata: Message):
    wanted = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    base = {each.name.lower() for each in wanted if each.marker is None}
    assert {"tensorflow", "pandas", "pydantic"} <= base
    assert not base & {"pytest", "ruff", "mypy", "hypothesis", "fastapi", "uvicorn", "pyspark"}
    assert metadata["License-Expression"] == "Apache-2.0"


def test_installed_command_runs_outside_the_repository(wheel: Path, tmp_path: Path):
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run(*pip, "--no-deps", "--no-index", "--no-compile", "--target", site, wheel, cwd=tmp_path)
    from_wheel = {"cwd": tmp_path, "PYTHONPATH": str(site)}
    where = run(
        sys.executable, "-c", "import eczema_tf; print(eczema_tf.__path__[0])", **from_wheel
    )
    assert Path(where.strip()) == site / "eczema_tf"
    command = site / "bin" / "eczema-tf"
    assert "  train " in run(command, "--help", **from_wheel)
    run(command, "prepare", "synthetic", "--n", "5", "--out", "five", **from_wheel)
    assert len((tmp_path / "five" / "manifest.csv").read_text("utf-8").splitlines()) == 6


def test_version_and_release_date_agree_across_files():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(.+)\] - (\S+)$", changelog, re.MULTILINE)
    assert newest is not None
    assert newest.groups() == (eczema_tf.__version__, citation["date-released"])
    assert citation["version"] == eczema_tf.__version__


def test_ci_and_configuration_yaml_files_can_be_parsed():
    paths = [*ROOT.glob(".*.yaml"), *ROOT.glob(".github/**/*.yml"), *ROOT.glob("configs/**/*.yaml")]
    assert len(paths) > 5
    for path in paths:
        assert yaml.safe_load(path.read_text(encoding="utf-8"))

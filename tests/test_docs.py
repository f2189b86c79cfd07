"""Tests of the documentation: strict build, valid commands, existing files and spelling."""

import json
import re
import shlex
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from eczema_tf.cli import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
NOTEBOOKS = sorted(ROOT.glob("docs/notebooks/*.ipynb"))
DOCS = "pip install -r requirements-docs.txt"


def needs(module: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(module) is None, reason=f"needs {module}: {DOCS}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built without TensorFlow, which is missing where the pages are published."""
    folder = tmp_path_factory.mktemp("site")
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None;"
        "from mkdocs.__main__ import cli; cli()"
    )
    build = [sys.executable, "-c", code, "build", "--strict", "--site-dir", folder / "out"]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "out"


@needs("mkdocstrings")
def test_site_builds_strictly_and_contains_the_generated_reference(site: Path):
    commands, keys, python = (
        (site / f"{name}.html").read_text("utf-8")
        for name in ("commands", "configuration", "python")
    )
    for name in COMMANDS:
        assert f'<h2 id="{name}">' in commands
        assert f"usage: python -m eczema_tf.{name}" in commands
    assert '<h2 id="trainfine_tune"><code>train.fine_tune</code>' in keys
    assert "<code>image_from</code>" in keys
    assert "Reads a configuration." in python


@needs("mkdocs")
def test_every_configuration_key_is_described(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    rows = import_module("docs_reference").format_configuration().splitlines()
    rows = [row for row in rows if row.startswith("| `")]
    assert len(rows) > 60
    assert [row for row in rows if row.endswith("|  |")] == []


def read_blocks(language: str) -> list[tuple[str, str]]:
    """Returns the code blocks in a language on all pages, each with the name of its page."""
    pattern = rf"^```{language}\n(.*?)^```"
    return [
        (page.name, block)
        for page in PAGES
        for block in re.findall(pattern, page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    ]


def read_commands() -> list[tuple[str, str, list[str]]]:
    """Returns the page, verb and arguments of each of our commands that a page shows."""
    shown = []
    for page, block in read_blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if match := re.match(r"python -m eczema_tf\.(\w+)", line):
                shown.append((page, match[1], words[3:]))
            elif words[:1] == ["eczema-tf"]:
                shown.append((page, words[1], words[2:]))
    return shown


@pytest.mark.parametrize(("page", "verb", "arguments"), read_commands())
def test_commands_on_pages_are_valid(
    page: str, verb: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
):
    module, parsed = import_module(f"eczema_tf.{verb}"), []
    monkeypatch.setattr(
        "eczema_tf.cli.run_command",
        lambda parser, _, argv: parsed.append(parser.parse_args(argv)) or 0,
    )
    assert module.main(arguments) == 0
    settings = getattr(parsed[0], "set", None)
    if settings:
        import_module("eczema_tf.config").load_config(None, settings)


def test_files_named_on_pages_exist():
    name = re.compile(r"`(?:python |bash )?((?:scripts|configs|tests)/[\w/.*-]+)")
    named = {found for page in PAGES for found in name.findall(page.read_text("utf-8"))}
    assert len(named) > 20
    assert [name for name in sorted(named) if not [*ROOT.glob(name)]] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_outputs(notebook: Path):
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"]] == []


@needs("codespell_lib")
def test_codespell_finds_nothing():
    command = [sys.executable, "-m", "codespell_lib"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

"""Makes the pages of the documentation that come from the program: commands and configuration.

MkDocs runs it as a hook (`mkdocs.yml`), so every build makes the pages again, and they are stored
nowhere else. Only modules that do not need TensorFlow are imported.
"""

import ast
import contextlib
import html
import importlib
import inspect
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parents[1]))

from eczema_tf.cli import COMMANDS
from eczema_tf.config import Config, Section
from eczema_tf.prepare import DATA_SETS

WIDTH = "90"  # of a help text, in characters
KINDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "array": "list",
    "null": "null",
}
BOUNDS = {
    "minimum": "from",
    "exclusiveMinimum": "above",
    "maximum": "to",
    "exclusiveMaximum": "below",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages; called by MkDocs."""
    for name, content in (
        ("commands.md", format_commands()),
        ("configuration.md", format_configuration()),
    ):
        files.append(File.generated(config, name, content=content))
    return files


def format_commands() -> str:
    """Formats what each command prints with `--help`, under its own heading."""
    lines = [
        "# Commands",
        "If the package is installed, `eczema-tf train` is the same as `python -m eczema_tf.train`."
        " Every command exits with status 0 if all went well, 1 for bad data or a failed run, which"
        " is reported in one line (`--debug` shows the traceback), and 2 for bad usage.",
    ]
    for name, purpose in COMMANDS.items():
        lines += [f"## {name}", purpose, f"```text\n{read_help(name)}\n```"]
        for data_set in DATA_SETS if name == "prepare" else ():
            lines += [f"### {name} {data_set}", f"```text\n{read_help(name, data_set)}\n```"]
    return "\n\n".join(lines) + "\n"


def read_help(command: str, *arguments: str) -> str:
    """Returns what a command prints with `--help`."""
    verb, said = importlib.import_module(f"eczema_tf.{command}"), io.StringIO()
    with (
        mock.patch.dict(os.environ, COLUMNS=WIDTH),
        contextlib.redirect_stdout(said),
        contextlib.suppress(SystemExit),
    ):
        verb.main([*arguments, "--help"])
    return said.getvalue().strip()


def format_configuration() -> str:
    """Formats a table of the keys of each section: allowed values, default and meaning."""
    lines = [
        "# Configuration",
        "A run's configuration comes from a YAML file (`--config`), which says what differs from"
        " these defaults, and from `--set section.key=value`. Unknown keys and wrong types are"
        " errors, which are all reported at once. `configs/quickstart.yaml` contains every key with"
        " its default.",
    ]
    for name, section in find_sections("", Config):
        rows = list(format_rows(section))
        if rows:
            title = f"`{name}`" if name else "At the top"
            purpose = "" if section is Config else inspect.cleandoc(section.__doc__ or "")
            table = ["| key | allowed | default | meaning |", "|---|---|---|---|", *rows]
            lines += [f"## {title}", purpose, "\n".join(table)]
    return "\n\n".join(lines) + "\n"


def find_sections(name: str, section: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    """Yields a section and all sections in it, with their names in a configuration."""
    yield name, section
    for key, field in section.model_fields.items():
        if inspect.isclass(field.annotation) and issubclass(field.annotation, Section):
            yield from find_sections(f"{name}.{key}".lstrip("."), field.annotation)


def format_rows(section: type[Section]) -> Iterator[str]:
    """Yields table rows for those keys of a section that are not sections themselves."""
    comments, schema = read_comments(section), section.model_json_schema()
    for key, field in section.model_fields.items():
        described = schema["properties"][key]
        if "$ref" in described:
            continue
        cells = (
            f"`{key}`",
            describe_allowed(described),
            f"`{json.dumps(field.default)}`",
            html.escape(comments.get(key, ""), quote=False),
        )
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def describe_allowed(schema: Mapping[str, Any]) -> str:
    """Says in words what a JSON schema allows."""
    if "anyOf" in schema:
        return " or ".join(describe_allowed(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if (values := schema.get("additionalProperties")) or "patternProperties" in schema:
        values = values or next(iter(schema["patternProperties"].values()))
        return f"names, each with {describe_allowed(values)}"
    bounds = [f"{word} {schema[key]}" for key, word in BOUNDS.items() if key in schema]
    return " ".join([KINDS[schema["type"]], *bounds])


def read_comments(section: type[Section]) -> dict[str, str]:
    """Returns the comment on each key, from the lines before it and from its own line."""
    source = inspect.getsource(section).splitlines()
    comments = {}
    for node in ast.parse("\n".join(source)).body[0].body:
        if isinstance(node, ast.AnnAssign):
            first = node.lineno - 1
            while source[first - 1].strip().startswith("#"):
                first -= 1
            said = (re.search(r"#\s*(.*)", line) for line in source[first : node.end_lineno])
            comments[node.target.id] = " ".join(match[1] for match in said if match)
    return comments

"""Reads YAML 1.2 as people write it, without aliases, repeated keys or objects."""

import re
from pathlib import Path
from typing import Any

import yaml

from eczema_tf.errors import ConfigError, shorten

# in a checkout, the folder is a link to configs/
SHIPPED = {path.stem: path for path in sorted(Path(__file__).parents[1].glob("configs/*.yaml"))}


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: `1e-4` is a number and `no` a string.

    PyYAML reads YAML 1.1, which has both the other way round, and in which `1:30` is 90 and `010`
    is 8. Repeated keys are errors. So are tags, on which PyYAML's constructors fail in various
    ways, and aliases, since a few lines of them can stand for gigabytes.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Called by PyYAML for each node."""
        event = self.peek_event()
        what = "aliases" if isinstance(event, yaml.AliasEvent) else event.tag and "tags"
        if what:
            problem = f"{what} are not allowed"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Called by PyYAML for each mapping."""
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"{shorten(str(key.value))!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag.removeprefix("tag:yaml.org,2002:") not in ("bool", "int", "float")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(?:0|[1-9]\d*)$", "-+0123456789"),
    (
        "float",
        r"^[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|Inf|INF))$"
        r"|^\.(?:nan|NaN|NAN)$",
        "-+0123456789.",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), list(_first))


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML 1.2 file of `key: ...` lines; an empty file gives no keys.

    Raises:
        ConfigError: If the file is missing, is not YAML, or contains something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: no such configuration file; those that ship with the package:"
            f" {', '.join(SHIPPED)}"
        ) from error
    except (UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {shorten(str(error))}") from error
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict | None):
        raise ConfigError(
            f"{path}: must contain `section: ...` lines, received {type(values).__name__}"
        )
    return values or {}


def parse_yaml(text: str, where: str) -> Any:
    """Parses a value, or a whole file.

    Args:
        text: YAML.
        where: Where the text is, for the error message.

    Raises:
        ConfigError: If it is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader, see above)
    except RecursionError as error:
        raise ConfigError(f"{where}: not readable as YAML: nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number with too many digits
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark is not None else ""
        problem = shorten(getattr(error, "problem", None) or str(error))
        raise ConfigError(f"{where}: not readable as YAML: {place}{problem}") from error

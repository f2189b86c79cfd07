"""A configuration from YAML files and `--set a.b=c` overrides, and back."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from eczema_tf.config.sections import Config
from eczema_tf.config.yaml_file import SHIPPED, parse_yaml, read_yaml
from eczema_tf.errors import ConfigError, shorten


def load_config(
    path: Path | str | None = None, overrides: Iterable[str] | Mapping[str, object] = ()
) -> Config:
    """Reads a configuration.

    Args:
        path: A YAML file that says what differs from the defaults, or the name of one in `SHIPPED`,
            such as `smoke`; None for the defaults themselves.
        overrides: `section.key=value` settings, applied last; values are YAML, but a # in an
            unquoted string begins no comment. Or their values by `section.key`.

    Returns:
        The whole configuration.

    Raises:
        ConfigError: With every unknown key, wrong type and value out of range, if there is any.
    """
    path = SHIPPED.get(str(path), path)
    values = read_yaml(Path(path)) if path is not None else {}
    if isinstance(overrides, Mapping):
        settings = [(str(key), value, str(key)) for key, value in overrides.items()]
    else:
        one = [overrides] if isinstance(overrides, str) else overrides
        settings = [_read_setting(override) for override in one]
    for key, value, where in settings:
        set_key(values, key, value, where=where)
    named = str(path) if path is not None else "configuration"
    return Config.parse(values, where=f"{named} with what was set" if settings else named)


def _read_setting(override: str) -> tuple[str, object, str]:
    """Reads `section.key=value`.

    Returns:
        The key, the value, and what messages call it.
    """
    where = f"--set {shorten(override)}"
    key, _, text = map(str.strip, override.partition("="))
    if not text or not all(key.split(".")):  # a variable of the shell may not be set
        raise ConfigError(
            f"{where}: must look like section.key=value, for instance train.epochs=5; write"
            " null for none"
        )
    value = parse_yaml(text, where)
    if " #" in f" {text}" and isinstance(value, str | None) and text[0] not in "\"'":
        value = text  # a path, of which YAML would take the rest for a comment
    return key, value, where


def set_key(values: dict[str, Any], key: str, value: object, where: str = "configuration") -> None:
    """Sets `section.key` in the plain values of a configuration.

    Raises:
        ConfigError: If what should be a section is a value.
    """
    *sections, last = key.split(".")
    for section in sections:
        values[section] = {} if values.get(section) is None else values[section]
        values = values[section]
        if not isinstance(values, dict):
            raise ConfigError(f"{where}: {section} is a value, not a section")
    values[last] = value


def change_config(config: Config, changes: Mapping[str, object]) -> Config:
    """Returns a configuration with other values of some keys, such as `{"train.epochs": 5}`.

    Raises:
        ConfigError: With every fault, if there is any.
    """
    values = config.model_dump(exclude_unset=True)  # what was not said follows from what is
    for key, value in changes.items():
        set_key(values, key, value)
    return Config.parse(values)


def dump_config(config: Config) -> str:
    """Returns the whole configuration as YAML that `load_config` reads back as an equal one."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False)

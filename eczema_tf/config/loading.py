"""Reads a configuration from YAML files and `--set a.b=c` overrides, and turns it into YAML."""

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
        overrides: `section.key=value` settings, applied last; values are YAML, except that a # in
            an unquoted string does not begin a comment. Or a mapping from `section.key` to values.

    Returns:
        The whole configuration.

    Raises:
        ConfigError: If there are unknown keys, wrong types or values out of range; the message
            lists all of them.
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
    return Config.parse(values, where=f"{named} with overrides" if settings else named)


def _read_setting(override: str) -> tuple[str, object, str]:
    """Reads `section.key=value`.

    Returns:
        The key, the value, and what messages call it.
    """
    where = f"--set {shorten(override)}"
    key, _, text = map(str.strip, override.partition("="))
    if not text or not all(key.split(".")):  # a shell variable may be unset
        raise ConfigError(
            f"{where}: must look like section.key=value, for instance train.epochs=5; for no value,"
            " write null"
        )
    value = parse_yaml(text, where)
    if " #" in f" {text}" and isinstance(value, str | None) and text[0] not in "\"'":
        value = text  # a path; YAML would take everything after the # for a comment
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
        ConfigError: If the result is not valid; the message lists every fault.
    """
    values = config.model_dump(exclude_unset=True)  # unset keys follow from those that are set
    for key, value in changes.items():
        set_key(values, key, value)
    return Config.parse(values)


def dump_config(config: Config) -> str:
    """Returns the whole configuration as YAML that `load_config` reads back as an equal one."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False)

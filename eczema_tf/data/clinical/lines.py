"""A row's clinical fields as one line, "age=34; sex=female"; fields not named are unknown."""

from collections.abc import Collection, Mapping

import pandas as pd

from eczema_tf.cli import say
from eczema_tf.errors import DataError, shorten


def join_fields(values: Mapping[str, object], known: Collection[str] | None = None) -> str:
    """Writes a row's fields as one line; empty ones are left out.

    Args:
        values: Values by name of the field; from Python, numbers are allowed too.
        known: The fields that the model uses; None to skip the check.

    Raises:
        DataError: If the model does not use such a field, or one is given twice.
    """
    names = {name.casefold() for name in known or ()}
    given = [name.strip().casefold() for name in values]
    if len({*given}) < len(given):
        raise DataError(f"clinical fields: {shorten(', '.join(values))}: one is given twice")
    unknown = [name for name in values if name.strip().casefold() not in names]
    if unknown and known is not None:
        allowed = ", ".join(known) or "none, this model uses no clinical field"
        raise DataError(f"clinical field {shorten(unknown[0])!r}: allowed: {allowed}")
    told = [
        f"{name}={value}" for name, value in values.items() if not pd.isna(value) and value != ""
    ]
    return "; ".join(field.replace(";", ",") for field in told)  # no value names another field


def note_absent(names: Collection[str], columns: Collection[str], manifest: str) -> None:
    """Notes which fields the manifest of that name has no column for."""
    if absent := [name for name in names if name not in columns]:
        say(f"note: {manifest} has no column {', '.join(absent)}: unknown for every row")


def list_known(names: Collection[str], table: pd.DataFrame) -> list[str]:
    """Lists the fields that are known in any row of a manifest."""
    return [name for name in names if name in table and (table[name] != "").any()]


def join_columns(table: pd.DataFrame, names: Collection[str]) -> list[str]:
    """Writes the fields of each row of a manifest; a missing column counts as unknown."""
    there = [name for name in names if name in table]
    return [join_fields(row) for row in table[there].to_dict("records")]

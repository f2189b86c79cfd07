"""A row's clinical fields as one line, "age=34; sex=female"; what is not named is not known."""

from collections.abc import Collection, Mapping

import pandas as pd


def join_fields(values: Mapping[str, str]) -> str:
    """Writes a row's fields as one line; those that are empty are left out."""
    return "; ".join(f"{name}={value}" for name, value in values.items() if value)


def join_columns(table: pd.DataFrame, names: Collection[str]) -> list[str]:
    """Writes the fields of each row of a manifest; a column that is not there is not known."""
    there = [name for name in names if name in table]
    return [join_fields(row) for row in table[there].to_dict("records")]

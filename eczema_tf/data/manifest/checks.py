"""What can be wrong with the rows of a manifest: every check yields every fault it finds."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from eczema_tf.errors import shorten
from eczema_tf.schema import CONSISTENCY, NUMBER, POSITIVE_CLASS, SEVERITY, SPLITS

NUMBER_PATTERN = r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?"  # RE2 reads it as well
WHOLE_PATTERN = r"(-?\d+)\.0+"  # how a table of numbers writes 7 if other cells are empty
GROUPED_PATTERN = r"[-+]?[1-9]\d{0,2},\d{3}"  # 1,200: thousands to some, a decimal to others
_GROUPED = re.compile(GROUPED_PATTERN, re.ASCII)
_NUMBER = re.compile(NUMBER_PATTERN, re.ASCII | re.IGNORECASE)
CLASS_NAME = re.compile(r"[\w ,/-]{1,40}")
_WORDS = {
    **dict.fromkeys(("yes", "y", "true", "t", "positive", "pos"), 1.0),
    **dict.fromkeys(("no", "n", "false", "f", "negative", "neg"), 0.0),
}
# 1.23E+11 and 1e+17: another program has cut digits of a long number, which merges patients
_ROUNDED = re.compile(r"[-+]?\d([.,]\d+)?[eE]\+\d+")
_LONGEST_ID = 500  # characters; tables of ids reserve as many for each
_ALLOWED = {"consistency": CONSISTENCY, "severity": SEVERITY, "split": SPLITS}
# messages about an example_id, used here and where a manifest is only streamed
EMPTY_ID = "is empty; allowed: a unique id for every row"
ROUNDED_ID = "is a rounded number; save the table again with this column as text; received {!r}"
REPEATED_ID = "appears twice; allowed: a unique id; received {!r}, as on line {}"


class Fault(NamedTuple):
    """Something wrong with one row."""

    row: int  # its index in the table, from 0
    column: str
    message: str  # what is wrong; what is allowed; what was received


def find_faults(
    table: pd.DataFrame,
    lines: np.ndarray,
    *,
    with_embeddings: bool = False,
    allow_leaks: bool = False,
    clinical: Mapping[str, str] | None = None,
) -> Iterator[Fault]:
    """Yields every fault of every row, except those of its photo file.

    Args:
        table: Rows of strings with all manifest columns, index 0..n-1.
        lines: int64 (rows,), the line of each row, to point at other rows.
        with_embeddings: Whether `image_path` is the key of an embedding and no path.
        allow_leaks: Whether a group may straddle splits.
        clinical: The kinds of the clinical fields, as in `config.DataConfig`.
    """
    yield from _find_bad_ids(table, lines)
    for column, allowed in _ALLOWED.items():
        for row, value in enumerate(table[column]):
            if value and value not in allowed:
                message = f"unknown value; allowed: {', '.join(allowed)} or empty"
                yield Fault(row, column, f"{message}; received {shorten(value)!r}")
    names = table.get(POSITIVE_CLASS, pd.Series(dtype=str))
    named = next(filter(CLASS_NAME.fullmatch, names), "")
    for row, value in enumerate(names):
        if not value or value != named:
            message = "allowed: one name for all rows, of 1 to 40 letters, digits, spaces and , / -"
            yield Fault(row, POSITIVE_CLASS, f"{message}; received {shorten(value)!r}")
    for row, value in enumerate(table["eczema"]):
        if value and np.isnan(parse_label(value)):
            what = "is not a number" if np.isnan(_parse_number(value)) else "is out of range"
            message = f"{what}; allowed: 0 to 1, 0% to 100%, yes or no, or empty for no label"
            hint = "; `prepare table` makes it from diagnoses" if value[-1].isalpha() else ""
            yield Fault(row, "eczema", f"{message}{hint}; received {shorten(value)!r}")
    photo = "embedding for the photo" if with_embeddings else "photo"
    message = f"neither {photo} nor text; allowed: at least one of them; received both empty"
    empty = (table["image_path"] == "") & (table["text"] == "")
    for row in np.flatnonzero(empty).tolist():
        yield Fault(row, "image_path, text", message)
    yield from _find_unreadable_fields(table, clinical or {})
    yield from _find_disagreements(table, lines, allow_leaks)


def parse_label(value: str) -> float:
    """Returns a label in 0..1, NaN for anything else (`inf` is no label); yes and 100% are 1."""
    number = _WORDS.get(value.casefold(), _parse_number(value))
    return number if 0 <= number <= 1 else np.nan


def _parse_number(value: str) -> float:
    """Reads a decimal comma as a point: in a number up to 1, it can mean nothing else."""
    number = value.replace(",", ".").removesuffix("%").rstrip()
    if not _NUMBER.fullmatch(number):
        return np.nan
    return float(number) / (100 if value.endswith("%") else 1)


def _find_bad_ids(table: pd.DataFrame, lines: np.ndarray) -> Iterator[Fault]:
    first_line: dict[str, int] = {}
    for row, example_id in enumerate(table["example_id"]):
        if not example_id:
            yield Fault(row, "example_id", EMPTY_ID)
        elif example_id in first_line:
            message = REPEATED_ID.format(shorten(example_id), first_line[example_id])
            yield Fault(row, "example_id", message)
        else:
            first_line[example_id] = lines[row]
    for column, default in (("example_id", ""), ("case_id", "example_id"), ("group_id", "case_id")):
        own = table[column] != table[default] if default else np.ones(len(table), bool)
        for row in np.flatnonzero(table[column].map(is_rounded).to_numpy(bool) & own).tolist():
            yield Fault(row, column, ROUNDED_ID.format(shorten(table[column][row])))
        for row in np.flatnonzero((table[column].str.len() > _LONGEST_ID) & own).tolist():
            message = f"is too long; allowed: {_LONGEST_ID} characters"
            yield Fault(row, column, f"{message}; received {len(table[column][row]):,}")


def is_rounded(name: str) -> bool:
    """Says whether an id has lost digits: -1.23E+11, or 1,23E+11 as a German Excel writes it."""
    return _ROUNDED.fullmatch(name) is not None


def _find_unreadable_fields(table: pd.DataFrame, clinical: Mapping[str, str]) -> Iterator[Fault]:
    for column, kind in clinical.items():
        wanted = "a number" if kind == NUMBER else "a name without semicolons"
        for row, value in enumerate(table.get(column, [])):
            message = f"is not {wanted}; allowed: that, or empty if it is not known"
            if kind == NUMBER and _GROUPED.fullmatch(value):
                message = "may be thousands or a decimal; allowed: 1200 or 1.2 for 1,200"
            elif not value or not (_is_unread(value) if kind == NUMBER else ";" in value):
                continue
            yield Fault(row, column, f"{message}; received {shorten(value)!r}")


def _is_unread(value: str) -> bool:
    """Whether a clinical number is not a number, or too large for the model."""
    number = _parse_number(value)
    return value.endswith("%") or not abs(number) <= float(np.finfo("float32").max)


def _find_disagreements(
    table: pd.DataFrame, lines: np.ndarray, allow_leaks: bool
) -> Iterator[Fault]:
    """Yields what differs within a case or a group and must not."""
    known = table.assign(
        split=table["split"].where(table["split"].isin(SPLITS)),
        eczema=table["eczema"].map(parse_label).astype("float64"),
    )
    rules = [
        ("case_id", "group_id", "all rows of a case belong to one group"),
        ("case_id", "eczema", "all rows of a case have one label"),
        ("case_id", "split", "all rows of a case are in one split"),
    ]
    if not allow_leaks:
        reason = "all rows of a group are in one split, or results are too good"
        rules.append(("group_id", "split", reason))
    torn = set()  # rows whose case is in several splits; so is their group, and once is enough
    for within, column, allowed in rules:
        given = known.loc[known[column].notna() & (known[within] != ""), [within, column]]
        first = given.groupby(within)[column].transform("first")
        first_row = given.assign(row=given.index).groupby(within)["row"].transform("first")
        other = pd.DataFrame({"has": first, "row": first_row})[given[column] != first]
        differing = given.join(other, how="inner")
        name = within.removesuffix("_id")
        for row, owner, received, has, before in differing.itertuples(name=None):
            if column == "split" and row in torn:
                continue
            torn |= {row} if column == "split" else set()
            yield Fault(
                row,
                column,
                f"differs within a {name}; allowed: {allowed}; received {_show(received)}, but"
                f" {name} {_show(owner)} has {_show(has)} on line {lines[before]}",
            )


def _show(value: str | float) -> str:
    return repr(shorten(value)) if isinstance(value, str) else f"{value:g}"

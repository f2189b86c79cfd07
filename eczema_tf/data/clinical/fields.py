"""Clinical fields as numbers: what training rows have, and the model's input.

Lines (`data.clinical.lines`) are read by the same graph operations in training and serving. Numbers
are centred on the average of the training rows in which the field is known, so 0 stands for both
the average and an unknown value. Unknown has no value of its own: whether a field is known often
gives the answer away, but says nothing about skin (the diameter of skin lesions was measured only
for those that were cut out).
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
import tensorflow as tf

from eczema_tf.data.clinical.lines import join_columns
from eczema_tf.data.manifest.checks import GROUPED_PATTERN, NUMBER_PATTERN, WHOLE_PATTERN
from eczema_tf.data.manifest.reading import SPELLINGS
from eczema_tf.errors import DataError, shorten
from eczema_tf.files import Record
from eczema_tf.schema import NUMBER, POSITIVE_CLASS, STATUS_OK

MOST_VALUES = 50  # that a category may have
# columns that give the answer
LABELS = ("eczema", "consistency", "severity", POSITIVE_CLASS, "condition")
_WHOLE = f"^{WHOLE_PATTERN}$"
FARTHEST = 3.0  # deviations from the mean; a number beyond is clipped to this
TELLING = 0.2  # a larger difference between the shares of known values gives the label away


class Field(Record):
    """A clinical field, as in the training rows where it is known.

    Attributes:
        name: Name of the column.
        mean: Mean of a number.
        deviation: Standard deviation of a number, more than 0.
        spread: For a number, the mean squared distance from the mean, in deviations.
        shares: For a category, the share of each value; None for a number.
    """

    name: str
    mean: float = 0.0
    deviation: float = 1.0
    spread: float = 1.0
    shares: dict[str, float] | None = None

    @property
    def width(self) -> int:
        """How many inputs it becomes: two for a number, itself and its square."""
        return 2 if self.shares is None else len(self.shares)

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""
        return "a number" if self.shares is None else ", ".join(self.shares)

    def encode(self, values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Turns values, string (batch,), into numbers.

        Returns:
            float32 (batch, width), zeros where nothing is known; and whether a value is usable or
            absent, bool (batch,).
        """
        if self.shares is None:
            known = tf.strings.regex_full_match(values, NUMBER_PATTERN)
            number = tf.strings.to_number(tf.where(known, values, "0"))
            scaled = tf.clip_by_value((number - self.mean) / self.deviation, -FARTHEST, FARTHEST)
            figures = tf.stack([scaled, tf.square(scaled) - self.spread], axis=1)
        else:
            # earlier runs may have stored values as they were written
            lines = tf.constant([f"{self.name}={value}" for value in self.shares])
            names = spell(pick_field(lines, self.name), self.name)
            named = tf.equal(spell(values, self.name)[:, None], names)  # (batch, width)
            known = tf.reduce_any(named, axis=1)
            figures = tf.cast(named, tf.float32) - tf.constant([*self.shares.values()], tf.float32)
        return tf.where(known[:, None], figures, 0.0), known | tf.equal(values, "")


def pick_field(lines: tf.Tensor, name: str) -> tf.Tensor:
    """Picks a field's values, string (batch,), from rows' lines; "" where it is not named.

    Values are put in lower case and stripped. A decimal comma becomes a point, unless it may
    separate thousands. 7.0 becomes 7, since tables write codes like that if other rows have none.
    Blanks and line breaks within a value become one blank, as a page shows them.
    """
    lines = tf.strings.lower(lines, encoding="utf-8")
    pattern = rf"(?s)(?:.*;)?\s*{name.lower()}\s*=([^;]*)(?:;.*)?"
    value = tf.strings.strip(tf.strings.regex_replace(lines, f"^{pattern}$", r"\1"))
    value = tf.where(tf.strings.regex_full_match(lines, pattern), value, "")
    value = tf.strings.regex_replace(value, r"\s+", " ")
    value = tf.strings.regex_replace(value, _WHOLE, r"\1")
    decimal = tf.strings.regex_replace(value, r"^([-+]?\d*),(\d*(?:e[-+]?\d+)?)$", r"\1.\2")
    return tf.where(tf.strings.regex_full_match(value, GROUPED_PATTERN), value, decimal)


def spell(values: tf.Tensor, name: str) -> tf.Tensor:
    """Spells a category's values, string (batch,), as reading a manifest does: "f" is female.

    This covers sexes and skin types; any others stay as they are.
    """
    spellings = SPELLINGS.get(name.lower())
    if not spellings:
        return values
    found = tf.equal(values[:, None], tf.constant([*spellings]))  # (batch, spellings)
    meant = tf.constant([one.lower() for one in spellings.values()])
    spelt = tf.gather(meant, tf.argmax(tf.cast(found, tf.int32), axis=1))
    return tf.where(tf.reduce_any(found, axis=1), spelt, values)


def learn_fields(table: pd.DataFrame, kinds: Mapping[str, str]) -> tuple[Field, ...]:
    """Learns what the fields of training rows are like.

    Args:
        table: The training rows.
        kinds: The kind of each, as in `config.DataConfig`.

    Raises:
        DataError: If a column is a label, is missing or empty, or a category has too many values.
    """
    if labels := [name for name in kinds if name in LABELS]:
        raise DataError(f"data.clinical: {', '.join(labels)}: is a label; leave it out")
    if missing := [name for name in kinds if name not in table]:
        raise DataError(
            f"data.clinical: the manifest has no column {', '.join(missing)}; received:"
            f" {shorten(', '.join(table.columns))}"
        )
    fields = []
    for name, kind in kinds.items():
        lines = tf.constant(join_columns(table, [name]), tf.string)
        picked = pick_field(lines, name)
        picked = picked if kind == NUMBER else spell(picked, name)
        values = pd.Series(value.decode() for value in picked.numpy() if value)
        if values.empty:
            raise DataError(f"data.clinical: {name}: is empty in all training rows; leave it out")
        if kind == NUMBER:
            fields.append(_learn_number(name, values.astype("float64").to_numpy()))
            continue
        shares = values.value_counts(normalize=True).sort_index()
        if len(shares) > MOST_VALUES:
            raise DataError(
                f"data.clinical: {name}: has {len(shares)} values; allowed: {MOST_VALUES} for a"
                " category; is it a number?"
            )
        fields.append(Field(name=name, shares=shares.to_dict()))
    return tuple(fields)


def _learn_number(name: str, values: np.ndarray) -> Field:
    mean, deviation = float(values.mean()), float(values.std())
    if deviation <= 1e-9 * abs(mean):  # equal numbers, apart from rounding
        deviation = 1.0
    scaled = np.clip((values - mean) / deviation, -FARTHEST, FARTHEST)
    return Field(name=name, mean=mean, deviation=deviation, spread=float(np.mean(scaled**2)))


def encode_fields(lines: tf.Tensor, fields: Sequence[Field]) -> tuple[tf.Tensor, tf.Tensor]:
    """Turns rows' fields into the model's input.

    Args:
        lines: string (batch,), from `join_fields`, or as a client writes them.
        fields: From `learn_fields`.

    Returns:
        float32 (batch, width of all fields), and the status of each row, string (batch,): "ok", or
        a note that not all of it can be used.
    """
    names = "|".join(field.name.lower() for field in fields)
    lower = tf.strings.lower(lines, encoding="utf-8")
    good = tf.strings.regex_full_match(lower, rf"\s*(?:(?:{names})\s*=[^;]*(?:;\s*|$))*")
    figures = []
    for field in fields:
        encoded, usable = field.encode(pick_field(lines, field.name))
        figures.append(encoded)
        good &= usable
    allowed = ", ".join(f"{field.name} ({field.allowed})" for field in fields)
    told = tf.where(good, STATUS_OK, f"clinical: not all of it can be used, only {allowed}")
    return tf.concat(figures, axis=1), told


def list_values(fields: Sequence[Field]) -> dict[str, tuple[str, ...]]:
    """Lists the allowed values of each field, by name; empty for a number, which may be any."""
    return {field.name: tuple(field.shares or ()) for field in fields}


def find_telling(
    table: pd.DataFrame, kinds: Collection[str], positive: np.ndarray, labelled: np.ndarray
) -> dict[str, tuple[float, float]]:
    """Finds the fields whose presence alone gives the label away.

    Args:
        table: The training rows.
        kinds: The names of the fields.
        positive: bool (rows,).
        labelled: bool (rows,).

    Returns:
        By name, the shares of the positive and of the other rows in which it is known.
    """
    known = {name: (table[name] != "").to_numpy() for name in kinds}
    shares = {
        name: (float(given[positive].mean()), float(given[labelled & ~positive].mean()))
        for name, given in known.items()
    }
    return {name: pair for name, pair in shares.items() if abs(pair[0] - pair[1]) > TELLING}

"""A map: a YAML file that says how the columns of a table become those of the manifest.

It is data, and strictly checked. A map contains

- `name` (becomes `source`), `where` (how to obtain the data set), `licence`, `attribution`, `notes`
  (what to know before using it);
- `columns`: a rule for each column of the manifest. A rule is a `template` ("{md5hash}.jpg";
  without braces it is a constant), or `parts`, rules whose results are joined by spaces. A template
  is blank if any of its columns is. `values` says what each result becomes; a result not among them
  becomes the `default`, or is an error if there is none;
- `clinical`: rules for further columns, with names of your own, that a model may use as well;
- `eczema`: the `column` with the diagnosis, the `positive` values, and the `negative` ones (every
  other value, if they are not given);
- `stand_ins`: by name, the values that may be told from the rest in place of eczema;
- `leave_out`: column -> the values of rows that are left out.

Values are compared whatever the case of their letters. In values and templates, 3.0 is 3.
"""

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator

from eczema_tf.cli import say
from eczema_tf.config import ColumnName, Section, read_yaml
from eczema_tf.data.manifest.checks import CLASS_NAME, WHOLE_PATTERN
from eczema_tf.data.manifest.reading import clean_cell
from eczema_tf.errors import ConfigError, shorten
from eczema_tf.schema import MANIFEST_COLUMNS, TEXT_KIND

SHIPPED_MAPS = Path(__file__).parent / "maps"
# the other two have keys of their own
RULED_COLUMNS = (
    *(column for column in MANIFEST_COLUMNS if column not in ("eczema", "source")),
    TEXT_KIND,
)
_FIELD = re.compile(r"\{([^{}]*)\}")
_WHOLE = re.compile(f"^{WHOLE_PATTERN}$")


def _as_text(value: object) -> object:
    """Turns numbers and booleans of YAML (`3`, `True`) into text, as they are in a table."""
    return str(value) if isinstance(value, bool | int | float) else value


Value = Annotated[str, BeforeValidator(_as_text)]


class Rule(Section):
    """How one column is made."""

    template: Value | None = None
    parts: "list[Rule] | None" = None
    values: dict[Value, Value] | None = None
    default: Value | None = None

    def _find_faults(self) -> Iterator[str]:
        if (self.template is None) == (self.parts is None):
            yield "a rule has either template or parts"
        if self.parts is not None and self.values is not None:
            yield "values belong to a template, not to parts"
        if {"{", "}"} & {*_FIELD.sub("", self.template or "")}:
            yield f"{self.template!r}: a brace is unmatched; write {{column}}"

    def list_columns(self) -> list[str]:
        """Returns the columns that the rule reads."""
        of_parts = [column for part in self.parts or () for column in part.list_columns()]
        return [*of_parts, *_FIELD.findall(self.template or "")]

    def find_unknown(self, row: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Yields (template, result) of rules without a default, if `values` lack the result."""
        for part in self.parts or ():
            yield from part.find_unknown(row)
        filled = self._fill(row)
        strict = self.values is not None and self.default is None
        if filled and strict and fold(filled) not in map(fold, self.values or ()):
            yield self.template or "", filled

    def apply(self, row: Mapping[str, str]) -> str:
        """Returns what the rule makes of a row."""
        parts = [part.apply(row) for part in self.parts or ()]
        filled = " ".join(filter(None, [*parts, self._fill(row)]))
        if filled and self.values is not None:
            folded = {fold(key): value for key, value in self.values.items()}
            filled = folded.get(fold(filled), "")
        return filled or self.default or ""

    def _fill(self, row: Mapping[str, str]) -> str:
        if self.template is None:
            return ""
        cells = {column: row[column].strip() for column in self.list_columns()}
        if self.values is None and " " in self.template:  # no sentence is made about `NaN`
            cells = {column: clean_cell("text", cell) for column, cell in cells.items()}
        filled = _FIELD.sub(lambda match: _WHOLE.sub(r"\1", cells[match[1]]), self.template)
        return filled if all(cells.values()) else ""


class LabelRule(Section):
    """How the label is made."""

    column: str
    positive: list[Value]
    negative: list[Value] | None = None

    def _find_faults(self) -> Iterator[str]:
        if both := set(map(fold, self.positive)) & set(map(fold, self.negative or ())):
            yield f"positive and negative at once: {', '.join(sorted(both))}"

    def tells(self, value: str) -> bool:
        """Whether a value is a diagnosis: listed, or does not say "nothing" (`NaN`, `unknown`)."""
        listed = map(fold, [*self.positive, *(self.negative or ())])
        return fold(value) in listed or clean_cell(self.column, value) != ""

    def label(self, value: str) -> float | None:
        """Returns 1, 0, or None for a value that is neither."""
        if fold(value) in map(fold, self.positive):
            return 1.0
        return 0.0 if self.negative is None or fold(value) in map(fold, self.negative) else None


class TableMap(Section):
    """A whole map."""

    name: str
    where: str
    licence: str
    attribution: str
    notes: str = ""
    columns: dict[str, Rule]
    clinical: dict[ColumnName, Rule] = Field(default_factory=dict)
    eczema: LabelRule
    stand_ins: dict[str, list[Value]] = Field(default_factory=dict)
    leave_out: dict[str, list[Value]] = Field(default_factory=dict)

    @field_validator("columns")
    @classmethod
    def _manifest_columns(cls, columns: dict[str, Rule]) -> dict[str, Rule]:
        if unknown := [column for column in columns if column not in RULED_COLUMNS]:
            raise ValueError(
                f"not a column of the manifest: {', '.join(unknown)}; allowed:"
                f" {', '.join(RULED_COLUMNS)}"
            )
        if "example_id" not in columns or not {"image_path", "text"} & set(columns):
            raise ValueError("example_id and at least one of image_path and text must have a rule")
        return columns

    @field_validator("clinical")
    @classmethod
    def _further_columns(cls, clinical: dict[str, Rule]) -> dict[str, Rule]:
        if taken := [name for name in clinical if name in (*MANIFEST_COLUMNS, "condition")]:
            raise ValueError(f"columns of the manifest: {', '.join(taken)}; allowed: other names")
        return clinical

    @property
    def rules(self) -> dict[str, Rule]:
        """The rules of all columns that have one."""
        return {**self.columns, **self.clinical}

    def stand_in(self, positive: Collection[str]) -> tuple[str, "TableMap"]:
        """Returns the map with other positive values, and what they are called.

        Args:
            positive: Values of the diagnosis; every other value is negative.

        Raises:
            ConfigError: If the map has no name for them, and they are not a name for reports
                themselves.
        """
        chosen = set(map(fold, positive))
        names = [name for name, of in self.stand_ins.items() if chosen == set(map(fold, of))]
        name = next(iter(names), ", ".join(positive))
        if not CLASS_NAME.fullmatch(name):
            raise ConfigError(
                f"--positive: is not a name for reports: {shorten(name)!r}; allowed: 1 to 40"
                " letters, digits, blanks and , / -; name these values in the map's stand_ins"
            )
        label = LabelRule(column=self.eczema.column, positive=[*positive])
        return name, self.model_copy(update={"eczema": label})

    def list_columns(self) -> list[str]:
        """Returns the columns that the table must have."""
        ruled = [column for rule in self.columns.values() for column in rule.list_columns()]
        return list(dict.fromkeys([*ruled, self.eczema.column, *self.leave_out]))

    def list_clinical_columns(self) -> list[str]:
        """Returns the columns that clinical fields are made from, if the table has them."""
        return [column for rule in self.clinical.values() for column in rule.list_columns()]

    def keep_fields(self, columns: Collection[str]) -> "TableMap":
        """Returns the map with the clinical fields that a table with these columns provides."""
        told = {}
        for name, rule in self.clinical.items():
            if absent := set(rule.list_columns()).difference(columns):
                say(f"note: the field {name} is left out: there is no {', '.join(sorted(absent))}")
            else:
                told[name] = rule
        return self.model_copy(update={"clinical": told})


def load_map(map_path: Path | str) -> TableMap:
    """Reads a map.

    Args:
        map_path: A YAML file, or the name of one that comes with the program (`fitzpatrick17k`).

    Raises:
        ConfigError: Listing every unknown key, missing key and wrong value; or, if there is no such
            map, the names of those that come with the program.
    """
    path = Path(map_path)
    if not path.is_file() and path.name == str(map_path):
        path = SHIPPED_MAPS / f"{map_path}.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{map_path}: no such map; allowed: a YAML file, or one of: {', '.join(list_shipped())}"
        )
    return TableMap.parse(read_yaml(path), where=f"map {path}")


def list_shipped() -> list[str]:
    """Returns the names of the maps that come with the program."""
    return sorted(path.stem for path in SHIPPED_MAPS.glob("*.yaml"))


def fold(value: str) -> str:
    """Normalises a value for comparison: ` Hand  Eczema ` is `hand eczema`, and `3.0` is `3`."""
    plain = " ".join(unicodedata.normalize("NFC", value).split()).casefold()
    return _WHOLE.sub(r"\1", plain)

"""Opens a manifest file: checks its header and normalises its cells.

`load_manifest` and `stream_rows` follow the same rules.
"""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from eczema_tf.data.manifest.checks import WHOLE_PATTERN
from eczema_tf.data.tables import Table, TableRow, open_table
from eczema_tf.errors import DataError, raise_if_any, shorten
from eczema_tf.schema import (
    CONSISTENCY,
    FINDINGS,
    MANIFEST_COLUMNS,
    NO_FINDINGS,
    OPTIONAL_COLUMNS,
    REQUIRED_COLUMNS,
    SEVERITY,
    SPLITS,
    TEMPLATE,
    TEXT_KIND,
)

# What other tables call these columns: in lower case, without accents, with letters and digits
# only, and without `_ADDED` at either end.
SYNONYMS = {
    "example_id": "id rowid sampleid recordid instanceid uid uuid",
    "case_id": "case visit encounter study exam fall besuch",
    "group_id": (
        "group groups patient patients pat pt patienten paciente paziente pid mrn subject subj sub"
        " person participant proband individual client donor author user owner lesion family"
    ),
    "image_path": (
        "image images imagefile imagefilename imagefilepath imageurl img imgpath imgfile imgurl"
        " file files filepath fname path paths photo photos photopath photofile photourl picture"
        " pictures picturepath pic jpg jpeg png url bild fotografia isicid"
        " foto"  # codespell:ignore foto
    ),
    "text": (
        "texts texto caption captions description descriptions complaint complaints chiefcomplaint"
        " symptom symptoms history anamnesis query question report note notes comment comments"
        " narrative prompt sentence transcript beschreibung symptome anamnese befund befundtext"
    ),
    "eczema": (
        "label labels target targets class classes category diagnosis diagnoses diagnose"
        " diagnostico dx disease condition outcome groundtruth gt truth y eczemalabel eczemapresent"
        " ekzem eccema dermatitis atopicdermatitis atopiceczema neurodermitis"
    ),
    "consistency": "textlabel textconsistency",
    "severity": "severitylevel severitygrade severitylabel severityscore grade schweregrad",
    "split": "splits fold folds set subset partition phase datasplit datasetsplit splitname",
    "skin_tone": (
        "skintype skincolor skincolour fitzpatrick fitzpatrickscale fitzpatricktype fitspatrick"
        " fitzpatrickskintype fst phototype hauttyp"
    ),
    "age_group": "agerange ageband agebracket agecategory",
    "sex": "gender geschlecht",
    "source": "dataset datasource origin",
}
_COLUMN_OF = {
    name: column
    for column, names in SYNONYMS.items()
    for name in (column.replace("_", ""), *names.split())
}
_ADDED = "(?:ids?|no|nr|num|number|code|uid|key|names?|is|has|true|anon|\\d+)+"
_CLOSE = 0.85  # share of letters in common (difflib's ratio) from which a name counts as misspelt
_ADVICE = {
    "group_id": " (what must stay in one split: a patient)",
    "eczema": " (0 to 1; `python -m eczema_tf.prepare table` makes it from diagnoses)",
    "split": f" ({', '.join(SPLITS)})",
}

_NOTHING = {
    *("", "nan", "n/a", "na", "n.a.", "#n/a", "<na>", "none", "null"),
    *("?", "-", "--", "unknown", "missing"),
}
# zero-width and bidirectional marks, soft hyphens, byte order marks (of a file joined to another)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
_WHOLE = re.compile(WHOLE_PATTERN)
SPLIT_NAMES = {
    **dict(zip(SPLITS, SPLITS, strict=True)),
    "training": "train",
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "testing": "test",
}
# Fitzpatrick's types, by number too; "3.0" is how a table of numbers writes 3
_SKIN_TYPES = {
    f"{before}{name}": roman
    for number, roman in enumerate(("I", "II", "III", "IV", "V", "VI"), 1)
    for before in ("", "type ", "fitzpatrick ", "fst")
    for name in (roman.casefold(), str(number), f"{number}.0")
}
_SEXES = {
    **dict.fromkeys(("f", "female", "woman", "w", "weiblich"), "female"),
    **dict.fromkeys(("m", "male", "man", "männlich"), "male"),
}
SPELLINGS = {"skin_tone": _SKIN_TYPES, "sex": _SEXES}
_MEANT = {
    **SPELLINGS,
    "split": SPLIT_NAMES,
    "consistency": dict(zip(CONSISTENCY, CONSISTENCY, strict=True)),
    "severity": dict(zip(SEVERITY, SEVERITY, strict=True)),
    TEXT_KIND: {TEMPLATE: TEMPLATE},
    FINDINGS: {NO_FINDINGS: NO_FINDINGS},
}


def open_manifest(
    path: Path,
    columns: Collection[str] | None = None,
    further: Collection[str] = (),
    numbers: Collection[str] = (),
) -> Table:
    """Opens a manifest file and checks its header.

    Args:
        path: CSV, with the apostrophes that `write_csv` puts before formulas, or Parquet.
        columns: The columns wanted; None for all.
        further: Columns that are used besides the manifest's.
        numbers: Those of `further` that contain, or may contain, numbers: a skin type of 3 then
            stays 3.

    Returns:
        The table; cells of columns that are used have been through `clean_cell`.

    Raises:
        DataError: If the file as a whole cannot be used: it is absent, empty or not text, or its
            header is not that of a manifest (every missing, nameless, repeated or misspelt column
            is named).
    """
    if not path.exists():
        raise DataError(
            f"{path}: no such manifest; `python -m eczema_tf.prepare --help` says how to make one"
        )
    table = open_table(path, columns, escaped=True)
    faults = find_header_faults(table.header)
    asked = set(MANIFEST_COLUMNS if columns is None else columns).union(further)
    faults += [
        f"{column}: contains lists, structures or bytes; allowed: text or numbers"
        for column in table.header
        if column in asked and column not in table.columns
    ]
    raise_if_any(f"{path}: the header is not valid", faults)
    used = {*MANIFEST_COLUMNS, *OPTIONAL_COLUMNS, *further}
    names = {name: name for name in used} | dict.fromkeys(numbers, "a number")
    ours = [names.get(column, "") for column in table.columns]

    def rows() -> Iterator[TableRow]:
        for row in table.rows:
            cells = zip(ours, row.values, strict=True)
            cleaned = (clean_cell(column, cell) if column else cell for column, cell in cells)
            yield row._replace(values=tuple(cleaned))

    return table._replace(rows=rows())


def clean_cell(column: str, cell: str) -> str:
    """Normalises a cell: strips blanks, converts Windows' paths, and empties what says "nothing".

    Args:
        column: The manifest's column.
        cell: The cell as in the file. A text is kept as written, since explanations point into it,
            and the id of a row may be `NA`. Ids that look the same become the same, and 7.0 becomes
            patient 7.
    """
    bare = cell.strip() if cell.isascii() else _INVISIBLE.sub("", cell).strip()
    if column.endswith("_id") and not bare.isascii():
        bare = unicodedata.normalize("NFC", bare.replace("\u00a0", " "))
    if column == "example_id":
        return bare
    if bare.casefold() in _NOTHING and (column, bare.casefold()) != (FINDINGS, NO_FINDINGS):
        return ""
    if column == "text":
        return cell
    if column in ("case_id", "group_id", "monk_skin_tone") and (whole := _WHOLE.fullmatch(bare)):
        return whole[1]
    if column == "image_path":
        return cell.strip().replace("\\", "/")
    return _MEANT.get(column, {}).get(bare.casefold(), bare)


def find_header_faults(header: Collection[str]) -> list[str]:
    """Says what is wrong with the names of a manifest's columns, one line each."""
    counts, meant = Counter(header), set()
    faults = [
        f"column {place} has no name; give it one or leave it out (pandas: index=False)"
        for place, name in enumerate(header, 1)
        if not name
    ]
    for name, count in counts.items():
        if name and count > 1:
            faults.append(f"{shorten(name)}: column appears {count} times")
        column = find_meant(name, counts)
        if column != name:
            meant.add(column)
            faults.append(
                f"{shorten(name)!r}: looks like {column!r}{_ADVICE.get(column, '')}; did you mean"
                " that? rename it, or give it quite another name if it is to be ignored"
            )
    received = shorten(", ".join(map(repr, counts)))
    faults += [
        f"{column}: required column is missing; received: {received}"
        for column in REQUIRED_COLUMNS
        if column not in counts
    ]
    if not {"image_path", "text"} & {*counts, *meant}:
        faults.append("image_path, text: at least one of the two columns must be there")
    return faults


def find_meant(name: str, header: Collection[str]) -> str:
    """Returns the manifest column that a name means (its own or a missing one), or the name."""
    plain = unicodedata.normalize("NFKD", name.lower())
    letters = re.sub(r"[^a-z0-9]", "", plain)
    bare = re.sub(f"^{_ADDED}|{_ADDED}$", "", letters)
    column = _COLUMN_OF.get(letters, _COLUMN_OF.get(bare))
    if column is not None and letters == column.replace("_", ""):
        return column  # `Image Path`, `image-path` and `imagepath`
    if column is None:
        spellings = [column.replace("_", "") for column in MANIFEST_COLUMNS]
        close = difflib.get_close_matches(letters[:50], spellings, n=1, cutoff=_CLOSE)
        column = _COLUMN_OF[close[0]] if close else name
    return name if column in header else column

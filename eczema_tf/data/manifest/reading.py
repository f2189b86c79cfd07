"""A manifest file, opened: its header is that of a manifest, its cells say what they mean.

These rules are those of `load_manifest` and of `stream_rows` alike.
"""

import difflib
import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from eczema_tf.data.tables import Table, TableRow, open_table
from eczema_tf.errors import DataError, raise_if_any, shorten
from eczema_tf.schema import CONSISTENCY, MANIFEST_COLUMNS, REQUIRED_COLUMNS, SEVERITY, SPLITS

# What other tables call these columns, in small letters and without what is no letter or digit.
SYNONYMS = {
    "example_id": "id rowid sampleid recordid instanceid uid uuid",
    "case_id": "case visit visitid encounter encounterid study studyid exam examid",
    "group_id": (
        "group groups patient patients patientid patientno patientnumber patientcode patientname"
        " pid mrn subject subjectid person personid participant participantid individualid author"
        " authorid user userid lesion lesionid family familyid"
    ),
    "image_path": (
        "image images imageid imageids imagefile imagefilename imagename imageurl img imgid imgpath"
        " imgname imgfile file files filename filepath fname path paths photo photos photoid"
        " photopath photofile photoname picture pictures picturepath pic isicid"
    ),
    "text": (
        "texts caption captions description descriptions complaint complaints chiefcomplaint"
        " symptom symptoms history anamnesis query question report note notes comment comments"
        " narrative prompt sentence transcript"
    ),
    "eczema": (
        "label labels target targets class classes classname classid category diagnosis diagnoses"
        " dx disease condition outcome groundtruth gt truth y iseczema haseczema eczemalabel"
        " atopicdermatitis atopiceczema"
    ),
    "consistency": "textlabel textconsistency",
    "severity": "severitylevel severitygrade severitylabel severityscore grade",
    "split": "splits fold folds set subset partition phase datasplit datasetsplit splitname",
    "skin_tone": (
        "skintype skincolor skincolour fitzpatrick fitzpatrickscale fitzpatricktype fitspatrick"
        " fitzpatrickskintype fst phototype"
    ),
    "age_group": "agerange ageband agebracket agecategory",
    "sex": "gender",
    "source": "dataset datasource origin",
}
_COLUMN_OF = {
    name: column
    for column, names in SYNONYMS.items()
    for name in (column.replace("_", ""), *names.split())
}
_CLOSE = 0.85  # share of letters in common (difflib's ratio) from which a name is a misspelt one
_ADVICE = {
    "group_id": " (who may not straddle splits: a patient)",
    "eczema": " (0 to 1; `python -m eczema_tf.prepare table` makes it of diagnoses)",
    "split": f" ({', '.join(SPLITS)})",
}

_NOTHING = {"", "nan", "n/a", "na", "#n/a", "<na>", "none", "null"}
_MEANT = {
    "split": {
        **dict(zip(SPLITS, SPLITS, strict=True)),
        "training": "train",
        "validation": "val",
        "valid": "val",
        "dev": "val",
        "testing": "test",
    },
    "consistency": dict(zip(CONSISTENCY, CONSISTENCY, strict=True)),
    "severity": dict(zip(SEVERITY, SEVERITY, strict=True)),
}


def open_manifest(
    path: Path, columns: Collection[str] | None = None, further: Collection[str] = ()
) -> Table:
    """Opens a manifest file and checks its header.

    Args:
        path: CSV, with the apostrophes that `write_csv` puts before formulas, or Parquet.
        columns: Those wanted; None for all.
        further: Columns that are used besides the manifest's.

    Returns:
        The table; cells of columns that are used went through `clean_cell`.

    Raises:
        DataError: If the file as a whole cannot be used: absent, empty, not text, not the header
            of a manifest (every missing, nameless, repeated or misspelt column is named).
    """
    if not path.exists():
        raise DataError(
            f"{path}: no such manifest; `python -m eczema_tf.prepare --help` says how to make one"
        )
    table = open_table(path, columns, escaped=True)
    faults = find_header_faults(table.header)
    asked = set(MANIFEST_COLUMNS if columns is None else columns).union(further)
    faults += [
        f"{column}: holds lists, structures or bytes; allowed: text or numbers"
        for column in table.header
        if column in asked and column not in table.columns
    ]
    raise_if_any(f"{path}: the header is not valid", faults)
    used = {*MANIFEST_COLUMNS, *further}
    ours = [column if column in used else "" for column in table.columns]

    def rows() -> Iterator[TableRow]:
        for row in table.rows:
            cells = zip(ours, row.values, strict=True)
            cleaned = (clean_cell(column, cell) if column else cell for column, cell in cells)
            yield row._replace(values=tuple(cleaned))

    return table._replace(rows=rows())


def clean_cell(column: str, cell: str) -> str:
    """Returns what a cell means: blanks around it, Windows' paths and what says "nothing" aside.

    Args:
        column: Of the manifest.
        cell: As in the file. A text is kept as it is written, since explanations point into it, and
            an id of a row may be `NA`.
    """
    bare = cell.strip()
    if column == "example_id":
        return bare
    if bare.casefold() in _NOTHING:
        return ""
    if column == "text":
        return cell
    if column == "image_path":
        return bare.replace("\\", "/")
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
            faults.append(f"{shorten(name)}: column is there {count} times")
        column = _find_meant(name, counts)
        if column != name:
            meant.add(column)
            faults.append(
                f"{shorten(name)!r}: looks like {column!r}{_ADVICE.get(column, '')}; did you mean"
                " that? rename it, or give it quite another name to have it ignored"
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


def _find_meant(name: str, header: Collection[str]) -> str:
    """The manifest's column that a name stands for: its own, misspelt, or one that is missing."""
    letters = re.sub(r"[^a-z0-9]", "", name.lower())
    column = _COLUMN_OF.get(letters)
    if column is not None and letters == column.replace("_", ""):
        return column  # `Image Path`, `image-path` and `imagepath`
    if column is None:
        spellings = [column.replace("_", "") for column in MANIFEST_COLUMNS]
        close = difflib.get_close_matches(letters[:50], spellings, n=1, cutoff=_CLOSE)
        column = _COLUMN_OF[close[0]] if close else name
    return name if column in header else column

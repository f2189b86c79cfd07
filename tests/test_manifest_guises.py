"""Manifests as people write them are read if their meaning is clear, and refused otherwise.

This holds for the whole reader (training, evaluation) and for the streaming one (`score`).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eczema_tf.data.manifest.checks import is_rounded
from eczema_tf.data.manifest.reading import SYNONYMS
from eczema_tf.data.manifest.stream import COLUMNS, stream_rows, survey_manifest
from eczema_tf.data.manifest.table import load_manifest
from eczema_tf.data.photo.embeddings import load_embeddings
from eczema_tf.errors import DataError
from eczema_tf.schema import MANIFEST_COLUMNS

READERS = [load_manifest, survey_manifest]


def write(folder: Path, content: str | bytes, name: str = "m.csv") -> Path:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


def message_of(read: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    return str(caught.value)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("image", "image_path"),
        ("file_name", "image_path"),
        ("filename", "image_path"),
        ("Path", "image_path"),
        ("img", "image_path"),
        ("photo", "image_path"),
        ("imge_path", "image_path"),
        ("label", "eczema"),
        ("Diagnosis", "eczema"),
        ("dx", "eczema"),
        ("target", "eczema"),
        ("eczma", "eczema"),
        ("patient_id", "group_id"),
        ("Patient ID", "group_id"),
        ("patient", "group_id"),
        ("subject_id", "group_id"),
        ("lesion_id", "group_id"),
        ("fold", "split"),
        ("gender", "sex"),
        ("fitzpatrick_scale", "skin_tone"),
        ("id_patient", "group_id"),
        ("Patienten-ID", "group_id"),
        ("Fall-ID", "case_id"),
        ("Besuch", "case_id"),
        ("Geschlecht", "sex"),
        ("Schweregrad", "severity"),
        ("Hauttyp", "skin_tone"),
        ("anon_patient_no", "group_id"),
        ("image_1", "image_path"),
        ("Fotografía", "image_path"),
        ("y_true", "eczema"),
        ("label_name", "eczema"),
        ("Ekzem", "eczema"),
    ],
)
def test_synonym_of_a_missing_column_is_an_error(
    tmp_path: Path, read: Callable, name: str, column: str
):
    message = message_of(read, write(tmp_path, f"example_id,text,{name}\nr1,dry,x\n"))
    assert f"{name!r}: looks like {column!r}" in message
    assert "did you mean that?" in message
    assert len(message.splitlines()) == 2


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", ["caption", "description", "texte", "Befund", "Befundtext"])
def test_text_column_under_another_name_is_an_error(tmp_path: Path, read: Callable, name: str):
    message = message_of(read, write(tmp_path, f"example_id,image_path,{name}\nr1,a.png,x\n"))
    assert f"{name!r}: looks like 'text'" in message


def test_no_two_columns_have_a_synonym_in_common():
    names = [name for column in SYNONYMS for name in SYNONYMS[column].split()]
    assert len(names) == len(set(names))
    assert list(SYNONYMS) == list(MANIFEST_COLUMNS)
    assert all(name.isalnum() and name == name.lower() for name in names)


def test_synonym_beside_the_real_column_is_kept_as_an_extra_column(tmp_path: Path):
    path = write(
        tmp_path, "example_id,group_id,text,eczema,caption,diagnosis,patient_id\nr1,g,dry,1,c,d,p\n"
    )
    table = load_manifest(path).table
    assert table.loc[0, ["text", "eczema", "group_id"]].tolist() == ["dry", 1, "g"]
    assert table.loc[0, ["caption", "diagnosis", "patient_id"]].tolist() == ["c", "d", "p"]
    assert survey_manifest(path).rows == 1


def test_common_spellings_of_skin_type_and_sex_are_read(tmp_path: Path):
    cells = ("3,f", "3.0,Female", "iii,w", "Type III,weiblich", "FST3,F", "III,female")
    cells += ("Fitzpatrick 3,woman",)
    rows = "".join(f"r{number},dry,{cell},10.0\n" for number, cell in enumerate(cells))
    rows += "".join(f"{cell},dry,6,{cell},9\n" for cell in ("m", "Male", "man", "männlich"))
    path = write(
        tmp_path, f"example_id,text,skin_tone,sex,monk_skin_tone\n{rows}r9,red,VII,divers,3\n"
    )
    columns = ["skin_tone", "sex", "monk_skin_tone"]
    table = load_manifest(path).table[columns].drop_duplicates()
    assert table.to_numpy().tolist() == [
        ["III", "female", "10"],
        ["VI", "male", "9"],
        ["VII", "divers", "3"],
    ]
    told = load_manifest(path, clinical={"sex": "category"}).table["sex"]
    assert list(told[:2]) == ["female", "female"]
    path.write_text("example_id,text,site\nr1,dry, arm \nr2,red,unknown\n")
    told = load_manifest(path, clinical={"site": "category"}).table["site"]
    assert list(told) == ["arm", ""]


def test_patient_id_beside_an_empty_group_id_is_an_error(tmp_path: Path):
    path = write(tmp_path, "example_id,group_id,text,patient_id\nr1,,dry,p\nr2,NA,red,p\n")
    assert "'patient_id': looks like 'group_id'" in message_of(load_manifest, path)


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        *[(yes, 1) for yes in ("yes", "Yes", "YES", "true", "True", "TRUE", "1", "1.0", " 1 ")],
        *[(yes, 1) for yes in ("y", "Positive", "pos", "100%", "\u200b1")],
        *[(no, 0) for no in ("no", "No", "NO", "false", "False", "FALSE", "0", "0.0")],
        *[(no, 0) for no in ("n", "negative", "NEG", "0 %")],
        *[(half, 0.5) for half in ("0.5", '"0,5"', '",5"', "50%", '"50,0 %"')],
        *[(nothing, np.nan) for nothing in ("nan", "NaN", "N/A", "NA", "None", "null", "", " ")],
        *[(nothing, np.nan) for nothing in ("?", "-", "n.a.", "unknown", "\ufeff")],
    ],
)
def test_common_spellings_of_labels_are_read(tmp_path: Path, cell: str, label: float):
    path = write(tmp_path, f"example_id,text,eczema\nr1,dry,{cell}\n")
    np.testing.assert_equal(load_manifest(path).table["eczema"].tolist(), [label])


@pytest.mark.parametrize("nothing", ["nan", "N/A", "n/a", "NA", "None", "null", "<NA>", "?", "--"])
def test_missing_value_markers_are_empty_except_in_example_id(tmp_path: Path, nothing: str):
    names = [name for name in MANIFEST_COLUMNS if name not in ("example_id", "text")]
    path = write(
        tmp_path,
        f"example_id,text,{','.join(names)},note\n"
        f"{nothing},dry{f',{nothing}' * len(names)},{nothing}\nr2,dry{',' * len(names)},\n",
    )
    table = load_manifest(path).table
    assert table["example_id"].tolist() == [nothing, "r2"]
    assert table["case_id"].tolist() == table["group_id"].tolist() == [nothing, "r2"]
    assert table["note"].tolist() == [nothing, ""]  # extra columns are not interpreted
    others = table[[name for name in names if name not in ("case_id", "group_id", "eczema")]]
    assert (others == "").all(axis=None)
    assert table["eczema"].isna().all()
    path = write(tmp_path, f"example_id,text\nr1,{nothing}\n")
    assert "neither photo nor text" in message_of(load_manifest, path)
    assert next(stream_rows(path)).text == ""


def test_values_are_read_in_any_case_and_splits_by_synonym(tmp_path: Path):
    rows = [
        ("Train", "train"),
        ("training", "train"),
        ("VAL", "val"),
        ("validation", "val"),
        ("valid", "val"),
        ("dev", "val"),
        ("Test", "test"),
        ("testing", "test"),
    ]
    lines = [f"r{i},dry,{split},Eczema, SEVERE\n" for i, (split, _) in enumerate(rows)]
    path = write(tmp_path, "example_id,text,split,consistency,severity\n" + "".join(lines))
    table = load_manifest(path).table
    assert table["split"].tolist() == [split for _, split in rows]
    assert set(table["consistency"]) == {"eczema"}
    assert set(table["severity"]) == {"severe"}


PLAIN = """example_id,image_path,text,eczema
r1,photos/a.png,"dry; red, sore",0.5
r2,,Jucken über Nacht 湿疹,1
"""


def respell(separator: str) -> str:
    lines = ["example_id,image_path,text,eczema", "r1,photos/a.png,dry; red| sore,0.5"]
    lines.append("r2,,Jucken über Nacht 湿疹,1")
    quoted = [",".join(f'"{cell}"' for cell in line.split(",")) for line in lines]
    return "\n".join(quoted).replace('","', f'"{separator}"') + "\n"


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode(),
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        b"\xfe\xff" + PLAIN.encode("utf-16-be"),
        PLAIN.encode("utf-16-le"),
        PLAIN.encode("utf-16-be"),
        b"\n \n" + PLAIN.encode() + b" \n\n",
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.replace("\n", "\r\n", 1).encode(),
        PLAIN.replace("photos/a.png", r"photos\a.png").encode(),
        PLAIN.replace("photos/a.png", r" .\photos\a.png ").encode(),
        PLAIN.replace("example_id,image_path,", " example_id , image_path ,").encode(),
        PLAIN.replace(",", ", ").replace("red, ", "red,").encode(),
        respell(";").replace("0.5", "0,5").encode("utf-16"),
        respell("\t").encode("utf-16"),
        respell("|").encode(),
        f"sep=;\r\n{respell(';')}".encode(),
        f'"sep=|"\n{respell("|")}'.encode("utf-16"),
    ],
)
def test_encoding_separator_and_line_endings_do_not_change_the_table(
    tmp_path: Path, content: bytes
):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    path = write(tmp_path, content)
    table = load_manifest(path).table
    assert table["example_id"].tolist() == ["r1", "r2"]
    assert table["image_file"].tolist() == [str((tmp_path / "photos/a.png").resolve()), ""]
    assert table["text"][1] == "Jucken über Nacht 湿疹"
    assert table["eczema"].tolist() == [0.5, 1]
    assert [row.image_path.removeprefix("./") for row in stream_rows(path)] == ["photos/a.png", ""]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Mu\u0308ller", "M\u00fcller"),
        ("P 1", "P\u00a01"),
        ("P1", "\ufeffP1"),  # a byte order mark, from appending one file to another
        ("P1", "P\u200b1 "),
        ("12", "12.0"),
    ],
)
def test_group_ids_that_look_the_same_are_one_group(tmp_path: Path, one: str, other: str):
    path = write(tmp_path, f"example_id,text,group_id\nr1,dry,{one}\nr2,red,{other}\n")
    assert len(set(load_manifest(path).table["group_id"])) == 1


def test_ids_are_otherwise_kept_as_written(tmp_path: Path):
    ids = ["007", "7", "p1", "P1", "1e5", "12e4", "2026-11-27", "1.10"]
    rows = "".join(f"{name},dry,{name}\n" for name in ids)
    table = load_manifest(write(tmp_path, f"example_id,text,group_id\n{rows}")).table
    assert table["example_id"].tolist() == table["group_id"].tolist() == ids


def test_ids_rounded_by_a_spreadsheet_are_refused(tmp_path: Path):
    rows = 'r1,dry,1.23457E+11\nr2,red,-1.0006E+18\n1e+17,red,\nr4,sore,"1,23457E+11"\n'
    for reader in READERS:
        message = message_of(reader, write(tmp_path, f"example_id,text,case_id\n{rows}"))
        assert (
            message.count("is a rounded number; save the table again with this column as text") == 4
        )


def test_id_longer_than_500_characters_is_refused(tmp_path: Path):
    """Arrays of ids are as wide as the longest id: among 5,000 rows, one used up all memory."""
    rows = f"r1,dry,{'x' * 501}\nr2,red,{'y' * 500}\n"
    message = message_of(load_manifest, write(tmp_path, f"example_id,text,case_id\n{rows}"))
    assert message.count("is too long; allowed: 500 characters; received 501") == 1


def test_error_for_diagnoses_as_labels_suggests_prepare_table(tmp_path: Path):
    path = write(tmp_path, "example_id,text,eczema\nr1,dry,atopic dermatitis\n")
    assert "`prepare table` makes it from diagnoses" in message_of(load_manifest, path)


def test_photo_is_found_whatever_the_unicode_form_of_its_path(tmp_path: Path):
    (tmp_path / "Ru\u0308cken").mkdir()
    (tmp_path / "Ru\u0308cken" / "e\u0301.png").touch()
    path = write(tmp_path, "example_id,image_path\nr1,R\u00fccken/\u00e9.png\n")
    file = load_manifest(path).table["image_file"][0]
    assert file == str((tmp_path / "Ru\u0308cken/e\u0301.png").resolve())


@pytest.mark.parametrize("given", ["P/A b.JPG", "p/a b", "p/a b.png", "p/A B .jpg", "P/a b.jpg"])
def test_error_for_a_missing_photo_suggests_a_similar_path(tmp_path: Path, given: str):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a b.jpg").touch()
    path = write(tmp_path, f"example_id,image_path\nr1,{given}\n")
    assert "did you mean 'p/a b.jpg'?" in message_of(load_manifest, path)


@pytest.mark.parametrize("given", ["knee.png", "b.jpg"])
def test_error_for_a_missing_photo_suggests_no_folder_or_other_name(tmp_path: Path, given: str):
    (tmp_path / "knee").mkdir()
    (tmp_path / "a.jpg").touch()
    message = message_of(load_manifest, write(tmp_path, f"example_id,image_path\nr1,{given}\n"))
    assert "no such photo" in message
    assert "did you mean" not in message


@pytest.mark.parametrize("ending", [".jsonl", ".ndjson"])
def test_json_line_may_lack_a_field_that_others_have(tmp_path: Path, ending: str):
    lines = '{"example_id": 1, "text": "dry"}\n{"text": "red", "example_id": 2, "eczema": true}\n'
    table = load_manifest(write(tmp_path, lines, f"m{ending}")).table
    np.testing.assert_equal(table["eczema"].tolist(), [np.nan, 1])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"example_id": 1, "text": ["dry"]}', "text: contains lists"),
        ('{"example_id": 1, "text": "\\ud800"}', "surrogates not allowed"),
    ],
)
def test_json_value_that_a_table_cannot_hold_is_refused(tmp_path: Path, line: str, says: str):
    assert says in message_of(load_manifest, write(tmp_path, f"{line}\n", "m.jsonl"))


@pytest.mark.parametrize("ending", [".xlsx", ".csv.gz", ".json", ".zip"])
def test_error_for_another_file_type_lists_the_allowed_ones(tmp_path: Path, ending: str):
    message = message_of(load_manifest, write(tmp_path, b"PK\3\4", f"m{ending}"))
    assert "files are not read; allowed: CSV, Parquet (.parquet) and JSON lines (.jsonl)" in message


def test_windows_path_may_not_leave_the_folder(tmp_path: Path):
    rows = "".join(f"r{i},{path}\n" for i, path in enumerate([r"..\a.png", r"C:\a.png", r"\\h\a"]))
    message = message_of(load_manifest, write(tmp_path, f"example_id,image_path\n{rows}"))
    assert "leaves the manifest's folder" in message
    assert message.count("is absolute") == 2


def test_embeddings_with_windows_paths_are_found(tmp_path: Path):
    np.savez(tmp_path / "e.npz", image_path=[r"photos\a.png"], embedding=np.ones((1, 3)))
    embeddings = load_embeddings(tmp_path / "e.npz")
    path = write(tmp_path, "example_id,image_path\nr1,photos\\a.png\nr2,photos/a.png\n")
    table = load_manifest(path, embeddings=embeddings).table
    assert table["image_path"].tolist() == ["photos/a.png"] * 2
    assert embeddings.rows_of(table["image_path"]).tolist() == [[1, 1, 1]] * 2


CELL = st.sampled_from(["", " ", "a", " a ", "NA", "nan", "None", "a\\b", "a/b", "'=1", "A", "é\n"])


@settings(max_examples=50)
@given(
    rows=st.lists(st.tuples(*[CELL] * 4), min_size=1, max_size=5),
    order=st.permutations(COLUMNS),
    parquet=st.booleans(),
)
def test_whole_and_streaming_readers_agree(
    tmp_path_factory: pytest.TempPathFactory, rows: list, order: list, parquet: bool
):
    folder = tmp_path_factory.mktemp("guises")
    table = pd.DataFrame(rows, columns=COLUMNS)[order]
    table["example_id"] = [f"{i}{cell}" for i, cell in enumerate(table["example_id"])]
    path = folder / ("m.parquet" if parquet else "m.csv")
    table.to_parquet(path) if parquet else table.to_csv(path, index=False)
    streamed = list(stream_rows(path))
    keys = {row.image_path for row in streamed if row.image_path} | {
        row.example_id for row in streamed if not row.text and not row.image_path
    }
    whole = load_manifest(path, embeddings=keys, allow_leaks=True)
    assert whole.lines.tolist() == [row.line for row in streamed]
    for row, (_, loaded) in zip(streamed, whole.table.iterrows(), strict=True):
        assert row.example_id == loaded["example_id"]
        assert (row.case_id or row.example_id) == loaded["case_id"]
        assert row.text == loaded["text"]
        if row.image_path:
            assert row.image_path == loaded["image_path"]


def test_optional_columns_are_cleaned_like_other_columns(tmp_path: Path):
    rows = "r1,dry,NA,Template ,n/a\nr2,red,None,,4\nr3,sore, itch ,,unknown\n"
    path = write(tmp_path, f"example_id,text,findings,text_kind,monk_skin_tone\n{rows}")
    table = load_manifest(path).table
    # "None" means that there are no findings, not that they are unknown
    assert table["findings"].tolist() == ["", "none", "itch"]
    assert table["text_kind"].tolist() == ["template", "", ""]
    assert table["monk_skin_tone"].tolist() == ["", "4", ""]


def test_is_rounded_accepts_only_ids_that_are_rounded_as_a_whole():
    assert [is_rounded(name) for name in ("1e+17", "1e+17b", "x1e+17")] == [True, False, False]

"""Streaming a manifest gives the same rows as loading it whole, and passes bad rows on."""

from pathlib import Path

import pandas as pd
import pytest

from eczema_tf.data.manifest.stream import Row, stream_rows, survey_manifest
from eczema_tf.data.manifest.table import load_manifest
from eczema_tf.data.photo.files import find_photo
from eczema_tf.errors import DataError

CONTENT = """\ufeffexample_id,note,image_path,text,case_id
NA,007,a.png,"two
lines, quoted",c1
-1000600354148496558,,,'=SUM(A1),

r3,,b.png,  ,
"""


def write(folder: Path, content: str | bytes, name: str = "manifest.csv") -> Path:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


def test_streamed_rows_equal_those_of_the_whole_manifest(tmp_path: Path):
    path = write(tmp_path, CONTENT)
    rows = list(stream_rows(path))
    assert rows == [
        Row(2, "NA", "c1", "a.png", "two\nlines, quoted", ""),
        Row(4, "-1000600354148496558", "", "", "=SUM(A1)", ""),
        Row(6, "r3", "", "b.png", "", ""),
    ]
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    whole = load_manifest(path)
    assert [row.line for row in rows] == list(whole.lines)
    for column in ("example_id", "image_path", "text"):
        assert [getattr(row, column) for row in rows] == whole.table[column].tolist()


def test_clinical_fields_are_streamed_and_missing_columns_are_unknown(tmp_path: Path):
    path = write(tmp_path, "example_id,text,age,sex\na,x, 50 ,?\nb,y,,male\nc,z\n")
    assert survey_manifest(path).columns == ["example_id", "text", "age", "sex"]
    rows = list(stream_rows(path, ["age", "sex", "site"]))
    assert [row.clinical for row in rows] == ["age=50", "sex=male", ""]
    # row c is too short to know which cell is which
    assert [row.text for row in rows] == ["x", "y", ""]
    assert {row.clinical for row in stream_rows(path)} == {""}


def test_parquet_rows_are_streamed(tmp_path: Path):
    table = pd.DataFrame(
        {
            "example_id": [1, 2],
            "case_id": pd.array([7, None], "Int64"),
            "text": [None, "=SUM(A1)"],
            "eczema": [0.5, None],
        }
    )
    table.to_parquet(tmp_path / "m.parquet")
    assert list(stream_rows(tmp_path / "m.parquet")) == [
        Row(1, "1", "7", "", "", ""),
        Row(2, "2", "", "", "=SUM(A1)", ""),
    ]
    whole = load_manifest(tmp_path / "m.parquet", skip_bad_rows=True).table
    assert whole["text"].tolist() == ["=SUM(A1)"]


def test_row_that_does_not_fit_the_header_keeps_only_its_id(tmp_path: Path):
    rows = list(
        stream_rows(
            write(tmp_path, "example_id,image_path,text\nr1,a.png,dry, very\nr2\nr3,a.png,dry\n")
        )
    )
    assert [row[1:5] for row in rows] == [
        ("r1", "", "", ""),
        ("r2", "", "", ""),
        ("r3", "", "a.png", "dry"),
    ]
    assert [row.fault.split(";")[0] for row in rows] == [
        "row: has 4 fields",
        "row: has 1 fields",
        "",
    ]


def test_survey_does_not_check_labels_and_splits(tmp_path: Path):
    path = write(tmp_path, "example_id,text,eczema,split\nr1,dry,ninety,dev\n")
    assert survey_manifest(path)[:2] == (1, False)


def test_survey_counts_rows_notices_cases_and_identifies_the_file(tmp_path: Path):
    survey = survey_manifest(write(tmp_path, CONTENT))
    assert survey[:2] == (3, True)
    assert survey_manifest(write(tmp_path, CONTENT)) == survey
    assert survey_manifest(write(tmp_path, CONTENT + "r4,,,dry,\n")).sha256 != survey.sha256


def test_every_empty_or_repeated_id_is_reported_with_its_line(tmp_path: Path):
    content = "example_id,text\na,x\nb,x\n,x\na,x\n c,x\n  ,x\na,x\n"
    with pytest.raises(DataError) as caught:
        survey_manifest(write(tmp_path, content))
    faults = [line.split(": ", 1) for line in str(caught.value).splitlines()[1:]]
    assert [place.strip() for place, _ in faults] == [
        "manifest.csv:4",
        "manifest.csv:7",
        "manifest.csv:5",
        "manifest.csv:8",
    ]
    assert "is empty" in faults[0][1]
    assert "received 'a', as on line 2" in faults[3][1]


def test_ids_with_the_same_hash_are_not_taken_for_duplicates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("eczema_tf.data.manifest.stream.hash", len, raising=False)
    assert survey_manifest(write(tmp_path, "example_id,text\na,x\nb,x\nc,x\n")).rows == 3
    with pytest.raises(DataError, match="'b', as on line 3"):
        survey_manifest(write(tmp_path, "example_id,text\na,x\nb,x\nb,x\n"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"example_id,text\n", "no rows"),
        (b"example_id,text\nr1,caf\xe9\n", "manifest.csv:2: is not UTF-8; received the byte 0xe9"),
        (b"example_id,text\nr1,a\0b\n", "manifest.csv:2: contains a NUL byte"),
        (b'example_id,text\nr1,"never closed\n', "manifest.csv:2: is not valid CSV"),
        (b"id,text\nr1,ok\n", "example_id: required column is missing"),
    ],
)
def test_unusable_file_is_a_clear_error(tmp_path: Path, content: bytes, says: str):
    with pytest.raises(DataError) as caught:
        survey_manifest(write(tmp_path, content))
    assert says in str(caught.value)


def test_missing_file_folder_and_bad_parquet_are_clear_errors(tmp_path: Path):
    with pytest.raises(DataError, match="no such manifest"):
        survey_manifest(tmp_path / "none.csv")
    with pytest.raises(DataError, match="is a folder"):
        survey_manifest(tmp_path)
    with pytest.raises(DataError, match="not readable as Parquet"):
        survey_manifest(write(tmp_path, b"not parquet", "m.parquet"))


def test_first_row_is_yielded_before_a_later_fault_is_found(tmp_path: Path):
    path = write(tmp_path, "example_id,text\nr1,ok\n" + 'r2,"never closed\n' * 2)
    rows = stream_rows(path)
    assert next(rows).example_id == "r1"
    with pytest.raises(DataError):
        next(rows)


def test_find_photo_finds_only_photos_inside_the_folder(tmp_path: Path):
    (tmp_path / "data" / "photos").mkdir(parents=True)
    (tmp_path / "data" / "photos" / "a.png").touch()
    (tmp_path / "b.png").touch()
    root = (tmp_path / "data").resolve()
    assert find_photo("photos/../photos/a.png", root) == root / "photos" / "a.png"
    for image_path, says in (
        ("../b.png", "leaves"),
        (str(tmp_path / "b.png"), "absolute"),
        ("c.png", "no such"),
        ("photos", "not a file"),
    ):
        with pytest.raises(DataError, match=says):
            find_photo(image_path, root)


def test_all_bad_ids_are_reported_together(tmp_path: Path):
    path = tmp_path / "manifest.csv"
    rows = "".join(f"r{number},dry,{number % 9}E+11\n" for number in range(30))
    path.write_text(f"example_id,text,case_id\n{rows}")
    with pytest.raises(DataError) as caught:
        survey_manifest(path)
    assert "manifest.csv:2: case_id: is a rounded number" in str(caught.value)
    assert str(caught.value).count("is a rounded number") == 30
    path.write_text("example_id,text,case_id\nr1,dry,1E+11\nr1,dry,\n,dry,\n")
    with pytest.raises(DataError) as caught:
        survey_manifest(path)
    for fault in ("(3 faults)", "2: case_id", "3: example_id", "4: example_id"):
        assert fault in str(caught.value)

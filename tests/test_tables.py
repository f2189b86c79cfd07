"""Tests of reading CSV and Parquet tables as text, row by row and as a whole."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from eczema_tf.data.manifest.table import load_manifest
from eczema_tf.data.tables import TableRow, open_table
from eczema_tf.errors import DataError

CELLS = {"id": ["1", "", "9007199254740993"], "size": ["0.5", "", "2"], "text": ["a,b", "", "é"]}
TYPED = pa.table(
    {
        "id": pa.array([1, None, 9007199254740993]),
        "size": pa.array([0.5, None, 2.0]),
        "text": pa.array(["a,b", None, "é"]),
    }
)


@pytest.fixture(params=["t.csv", "t.parquet"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    if path.suffix == ".csv":
        pd.DataFrame(CELLS).to_csv(path, index=False)
    else:
        parquet.write_table(TYPED, path)
    return path


def test_every_cell_is_the_same_text_in_both_formats(path: Path):
    table, faults = open_table(path).collect()
    assert table.to_dict("list") == CELLS
    assert faults == ["", "", ""]
    assert table.index.name == "line"
    assert list(table.index) == ([2, 3, 4] if path.suffix == ".csv" else [1, 2, 3])


def test_only_the_requested_columns_are_read(path: Path):
    opened = open_table(path, ["text", "id", "absent"])
    assert opened.header == ["id", "size", "text"]
    assert opened.columns == ["id", "text"]
    assert next(opened.rows).values == ("1", "a,b")


def test_row_of_the_wrong_length_is_padded_or_cut_and_reported(tmp_path: Path):
    (tmp_path / "t.csv").write_text("a,b\n1\n\n1,2,3\n")
    short, long = open_table(tmp_path / "t.csv").rows
    assert short[:2] == (2, ("1", ""))
    assert long[:2] == (4, ("1", "2"))
    assert short.fault.startswith("has 1 fields; allowed: 2")
    assert long.fault.startswith("has 3 fields; allowed: 2")


def test_trailing_empty_columns_of_a_spreadsheet_are_ignored(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text("a;b;;\n1;2;;\n3;; ;;;\n4;5;6;\n7\n1;2;3;4;5\n")
    header, columns, rows = open_table(path)
    assert header == columns == ["a", "b"]
    full, empty, more, short, long = rows
    assert (full.values, full.fault) == (("1", "2"), "")
    assert (empty.values, empty.fault) == (("3", ""), "")
    assert more.fault.startswith("has 4 fields; allowed: 2, as in the header; does a column have")
    assert short.fault.startswith("has 1 fields")
    for row in (short, long):
        assert row.fault.endswith("is a separator in a text not quoted?")
    path.write_text("a;;b\n")
    # the caller that needs names reports the empty one
    assert open_table(path).header == ["a", "", "b"]


def test_file_with_only_a_header_is_a_table_without_rows(tmp_path: Path):
    (tmp_path / "bare.csv").write_text("a,b\n")
    table, faults = open_table(tmp_path / "bare.csv").collect()
    assert (list(table), len(table), faults) == (["a", "b"], 0, [])


def test_apostrophes_before_formulas_are_removed_only_if_escaped(tmp_path: Path):
    (tmp_path / "t.csv").write_text("a\n'=1\n")
    assert list(open_table(tmp_path / "t.csv", escaped=True).rows) == [TableRow(2, ("=1",), "")]
    assert list(open_table(tmp_path / "t.csv").rows) == [TableRow(2, ("'=1",), "")]


def test_index_stored_by_pandas_is_read_as_a_column(tmp_path: Path):
    pd.DataFrame({"text": ["dry"]}, index=pd.Index(["r1"], name="id")).to_parquet(
        tmp_path / "t.parquet"
    )
    assert open_table(tmp_path / "t.parquet").collect()[0].to_dict("list") == {
        "text": ["dry"],
        "id": ["r1"],
    }


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none.csv", "no such file"),
        (".", "is a folder"),
        ("bad.parquet", "not readable as Parquet"),
    ],
)
def test_unreadable_table_is_a_clear_error(tmp_path: Path, name: str, says: str):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=says):
        open_table(tmp_path / name)


def test_damage_in_the_rows_is_reported_when_they_are_read(tmp_path: Path):
    parquet.write_table(TYPED, tmp_path / "t.parquet", compression="none")
    data = bytearray((tmp_path / "t.parquet").read_bytes())
    data[4:60] = bytes(56)
    (tmp_path / "t.parquet").write_bytes(data)
    opened = open_table(tmp_path / "t.parquet")
    assert opened.header == ["id", "size", "text"]
    with pytest.raises(DataError, match="not readable as Parquet"):
        opened.collect()


@pytest.mark.parametrize("repeated", [False, True])
def test_overlong_parquet_cell_is_reported_by_row_and_column(tmp_path: Path, repeated: bool):
    texts = pa.array([None, *["dry"] * 1500, "x" * 200_000, "y" * 300_000])
    if repeated:
        texts = texts.dictionary_encode()
    parquet.write_table(pa.table({"id": pa.array(range(1503)), "text": texts}), tmp_path / "t.pq")
    rows = open_table(tmp_path / "t.pq").rows
    said = r"t\.pq: row 1502: text: a cell of 200,000 bytes; allowed: 131,072"
    with pytest.raises(DataError, match=said):
        list(rows)


def test_blank_lines_above_the_header_do_not_affect_the_separator(tmp_path: Path):
    (tmp_path / "t.csv").write_text("\n  \nid;text\nr1;a, b\n")
    assert list(open_table(tmp_path / "t.csv").rows) == [TableRow(4, ("r1", "a, b"), "")]
    (tmp_path / "t.csv").write_text("\nsep=;\nid;text\nr1;a, b\n")
    assert list(open_table(tmp_path / "t.csv").rows) == [TableRow(4, ("r1", "a, b"), "")]
    (tmp_path / "t.csv").write_text("\n\n")
    with pytest.raises(DataError, match="is empty"):
        open_table(tmp_path / "t.csv")


def test_suggested_command_contains_the_quoted_path_of_the_file(tmp_path: Path):
    path = tmp_path / "my cases" / "manifest.csv"
    path.parent.mkdir()
    path.write_bytes("example_id,text\nr1,très sec\n".encode("cp1252"))
    with pytest.raises(DataError) as caught:
        load_manifest(path)
    assert f"-t UTF-8 '{path}' > new.csv" in str(caught.value)

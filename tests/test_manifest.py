"""Loading a manifest keeps its values and reports all faults at once, each with its line."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from eczema_tf.data.manifest.table import Manifest, load_manifest, reject_bad_photos
from eczema_tf.data.photo.inspection import inspect_photos
from eczema_tf.errors import DataError
from eczema_tf.schema import MANIFEST_COLUMNS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "data" / "a.png")
    return tmp_path / "data"


def write(folder: Path, content: str | bytes, name: str = "manifest.csv") -> Path:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


def faults_of(path: Path, **options) -> list[str]:
    with pytest.raises(DataError) as caught:
        load_manifest(path, **options)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def message_of(path: Path, **options) -> str:
    with pytest.raises(DataError) as caught:
        load_manifest(path, **options)
    return str(caught.value)


def test_valid_manifest_keeps_ids_and_extra_columns_unchanged(folder: Path):
    path = write(
        folder,
        "\ufeffexample_id,image_path,text,eczema,note\nNA,a.png,,0.25,007\n-1000600354148496558,,dry"
        " skin,,\n",
    )
    manifest = load_manifest(path)
    assert isinstance(manifest, Manifest)
    assert list(manifest.table["example_id"]) == ["NA", "-1000600354148496558"]
    assert list(manifest.table["note"]) == ["007", ""]
    assert list(manifest.lines) == [2, 3]
    assert len(manifest.rejected) == 0


def test_defaults_are_filled_in(folder: Path):
    table = load_manifest(
        write(folder, "example_id,case_id,image_path,text,eczema\nr1,c1,a.png,,1\nr2,,,dry,\n")
    ).table
    assert set(MANIFEST_COLUMNS) <= set(table.columns)
    assert list(table["case_id"]) == ["c1", "r2"]
    assert list(table["group_id"]) == ["c1", "r2"]
    assert table["eczema"].dtype == np.float64
    assert table["eczema"][0] == 1
    assert np.isnan(table["eczema"][1])
    assert list(table["image_file"]) == [str((folder / "a.png").resolve()), ""]
    assert list(table["split"]) == ["", ""]


def test_every_fault_of_every_row_is_reported_at_once(folder: Path):
    content = """example_id,case_id,group_id,image_path,text,eczema,consistency,severity,split
r1,c1,g1,a.png,"two
lines, quoted",0.5,,,train
r1,,,a.png,,0,,,train
,,,,dry,0,,,train
r4,,,,,0,,,train
r5,,,,dry,ninety,,,train
r6,,,,dry,inf,,,train
r7,,,,dry,1.01,,,train
r8,,,,dry,"0,5,5",,,train
r9,,,,dry,,yes,,train
r10,,,,dry,,,bad,train
r11,,,,dry,,,,later

r12,,,gone.png,,,,,train
r13,,,../../etc/passwd,,,,,train
r14,,,/etc/passwd,,,,,train
r15,c15,g1,,dry,,,,test
r16,c1,g2,,dry,0.5,,,train
r17,c1,g1,,dry,0.7,,,train
r18,c1,g1,,dry,0.5,,,val
r19,,,,dry
r20,,,,dry,-0.1,,,train
"""
    lines = faults_of(write(folder, content))
    expected = [
        "4: example_id: appears twice",
        "5: example_id: is empty",
        "6: image_path, text: neither photo nor text",
        "7: eczema: is not a number",
        "8: eczema: is not a number",
        "9: eczema: is out of range",
        "10: eczema: is not a number",
        "11: consistency: unknown value",
        "12: severity: unknown value",
        "13: split: unknown value",
        "15: image_path: no such photo",
        "16: image_path: leaves the manifest's folder",
        "17: image_path: is absolute",
        "18: split: differs within a group",
        "19: group_id: differs within a case",
        "20: eczema: differs within a case",
        "21: split: differs within a case",
        "22: row: has 5 fields",
        "23: eczema: is out of range",
    ]
    found = [re.sub(r"^manifest\.csv:", "", line).split(";")[0] for line in lines]
    assert [line for line in expected if not any(one.startswith(line) for one in found)] == []
    assert len(found) == len(expected)


def test_fault_says_what_is_allowed_and_what_was_received(folder: Path):
    path = write(folder, "example_id,text,severity\nr1,dry,Awful\n")
    assert faults_of(path) == [
        "manifest.csv:2: severity: unknown value; allowed: mild, moderate, severe or empty;"
        " received 'Awful'"
    ]


@pytest.mark.parametrize("names", [("malignant", "other"), ("$x$", "$x$"), ("", "")])
def test_positive_class_must_be_one_plain_name_for_all_rows(folder: Path, names: tuple[str, str]):
    rows = "".join(f"r{row},dry,1,{name}\n" for row, name in enumerate(names))
    assert "positive_class: allowed: one name for all rows" in str(
        faults_of(write(folder, f"example_id,text,eczema,positive_class\n{rows}"))
    )


def test_missing_positive_class_of_one_row_is_that_rows_fault_only(folder: Path):
    rows = "".join(f"r{row},dry,1,{name}\n" for row, name in enumerate(["", "malignant"] * 2))
    faults = faults_of(write(folder, f"example_id,text,eczema,positive_class\n{rows}"))
    assert [fault.split(": ")[0] for fault in faults] == ["manifest.csv:2", "manifest.csv:4"]


@pytest.mark.parametrize("label", ["inf", "-inf", "1e999", "0_1", "½", "0x1", "--1", "1.0000001"])
def test_invalid_label_is_refused(folder: Path, label: str):
    assert len(faults_of(write(folder, f"example_id,text,eczema\nr1,dry,{label}\n"))) == 1


@pytest.mark.parametrize(
    ("label", "value"), [("0", 0), ("1", 1), (".5", 0.5), ("1.", 1), ("5e-1", 0.5), (" 0.5 ", 0.5)]
)
def test_valid_label_is_read(folder: Path, label: str, value: float):
    assert (
        load_manifest(write(folder, f"example_id,text,eczema\nr1,dry,{label}\n")).table["eczema"][0]
        == value
    )


def test_white_space_does_not_count_as_text(folder: Path):
    assert "neither photo nor text" in faults_of(write(folder, 'example_id,text\nr1,"  \n "\n'))[0]


def test_symlink_that_leaves_the_folder_is_refused(folder: Path):
    Image.new("RGB", (8, 8)).save(folder.parent / "outside.png")
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    (folder / "inner.png").symlink_to(folder / "a.png")
    path = write(folder, "example_id,image_path\nr1,link.png\nr2,inner.png\n")
    assert [line.split(":")[1] for line in faults_of(path)] == ["2"]


@pytest.mark.parametrize(
    "image_path", [".", "C:\\photo.png", "x" * 5000, "a.png/b.png", "~/a.png", "//host/a.png"]
)
def test_image_path_that_is_no_photo_in_the_folder_is_refused(folder: Path, image_path: str):
    assert len(faults_of(write(folder, f"example_id,image_path\nr1,{image_path}\n"))) == 1


def test_image_path_may_contain_dot_dot_inside_the_folder(folder: Path):
    (folder / "photos").mkdir()
    table = load_manifest(write(folder, "example_id,image_path\nr1,photos/../a.png\n")).table
    assert table["image_file"][0] == str((folder / "a.png").resolve())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"example_id,text\n", "no rows"),
        (
            b"example_id,text\nr1,ok\nr2,caf\xe9\n",
            "manifest.csv:3: is not UTF-8; received the byte 0xe9",
        ),
        ("example_id,text\nr1,ok\n".encode("utf-32"), "contains a NUL byte"),
        ("example_id,text\nr1,ok\n".encode("utf-16")[:-1], "is not UTF-16"),
        (b"example_id,text\nr1,ok\nr2,a\0b\n", "manifest.csv:3: contains a NUL byte"),
        (b'example_id,text\nr1,ok\nr2,"never closed\n', "manifest.csv:3: is not valid CSV"),
        (b'example_id,text\nr1,"so \\"dry\\" it is"\n', "one in a text not doubled?"),
        (b"id,text\nr1,ok\n", "example_id: required column is missing; received: 'id', 'text'"),
        (b"example_id,text,text\nr1,a,b\n", "text: column appears 2 times"),
        (b"example_id,text,Text\nr1,a,b\n", "'Text': looks like 'text'"),
        (b"example_id,Image Path\nr1,a\n", "'Image Path': looks like 'image_path'"),
        (b"example_id,,text\nr1,a,b\n", "column 2 has no name"),
        (b"example_id,text,\nr1,a,b\n", "does a column have no name?"),
        (b"example_id,eczema\nr1,1\n", "at least one of the two columns"),
    ],
)
def test_unusable_file_is_an_error_even_when_bad_rows_are_skipped(
    folder: Path, content: bytes, says: str
):
    path = write(folder, content)
    assert says in message_of(path)
    assert says in message_of(path, skip_bad_rows=True)
    assert sorted(file.name for file in folder.iterdir()) == ["a.png", "manifest.csv"]


def test_missing_file_or_folder_as_manifest_is_a_clear_error(folder: Path):
    assert "no such manifest" in message_of(folder / "none.csv")
    assert "is a folder" in message_of(folder)


def test_skipped_bad_rows_are_written_to_a_file_with_reasons(folder: Path):
    path = write(
        folder, "example_id,image_path,text,eczema\nr1,a.png,dry,1\nr2,gone.png,dry,2\nr3,,red,0\n"
    )
    manifest = load_manifest(path, skip_bad_rows=True)
    assert list(manifest.table["example_id"]) == ["r1", "r3"]
    assert list(manifest.table.index) == [0, 1]
    assert list(manifest.lines) == [2, 4]
    assert len(manifest.rejected) == 1
    written = pd.read_csv(folder / "manifest.rejected.csv", dtype=str)
    assert list(written["example_id"]) == ["r2"]
    assert list(written["eczema"]) == ["2"]
    assert list(written["rejected_line"]) == ["3"]
    assert "no such photo" in written["rejected_reason"][0]
    assert "out of range" in written["rejected_reason"][0]


def test_manifest_with_only_bad_rows_is_an_error_even_when_skipping(folder: Path):
    assert "every row is bad" in message_of(
        write(folder, "example_id,text,eczema\nr1,dry,7\n"), skip_bad_rows=True
    )


def test_skipping_bad_rows_leaves_no_group_in_two_splits(folder: Path):
    path = write(
        folder, "example_id,group_id,text,split\nr1,g,dry,train\nr2,g,dry,test\nr3,h,dry,test\n"
    )
    table = load_manifest(path, skip_bad_rows=True).table
    assert table.groupby("group_id")["split"].nunique().max() == 1
    assert list(table["example_id"]) == ["r1", "r3"]


def test_undecodable_photo_is_reported_with_its_line_or_skipped(folder: Path):
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:50])
    path = write(folder, "example_id,image_path,text\nr1,a.png,\nr2,cut.png,dry\nr3,,red\n")
    manifest = load_manifest(path)
    photos = inspect_photos(manifest.table["image_file"])
    with pytest.raises(
        DataError, match=r"manifest\.csv:3: image_path: photo cannot be read: .*received 'cut\.png'"
    ):
        reject_bad_photos(manifest, photos)
    kept = reject_bad_photos(manifest, photos, skip_bad_rows=True)
    assert list(kept.table["example_id"]) == ["r1", "r3"]
    assert list(kept.lines) == [2, 4]
    assert len(kept.rejected) == 1


def test_manifest_with_good_photos_is_returned_unchanged(folder: Path):
    manifest = load_manifest(write(folder, "example_id,image_path\nr1,a.png\n"))
    assert reject_bad_photos(manifest, inspect_photos(manifest.table["image_file"])) is manifest


def test_bad_rows_and_bad_photos_are_written_to_one_file(folder: Path):
    (folder / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(60))
    manifest = load_manifest(
        write(folder, "example_id,image_path,eczema\nr1,a.png,1\nr2,a.png,9\nr3,cut.png,1\n"),
        skip_bad_rows=True,
    )
    reject_bad_photos(manifest, inspect_photos(manifest.table["image_file"]), skip_bad_rows=True)
    written = pd.read_csv(folder / "manifest.rejected.csv", dtype=str)
    assert list(written["example_id"]) == ["r2", "r3"]
    # values are those of the file, so that corrected rows can be put back
    assert list(written["eczema"]) == ["9", "1"]
    columns = ["example_id", "image_path", "eczema", "rejected_line", "rejected_reason"]
    assert list(written) == columns


def test_embeddings_replace_photo_files(folder: Path):
    path = write(
        folder,
        "example_id,image_path,text\nr1,known.png,\nr2,unknown.png,dry\nr3,,dry\nr4,unknown.png,\n",
    )
    assert [line.split(":")[1] for line in faults_of(path, embeddings={"known.png"})] == ["5"]
    table = load_manifest(path, embeddings={"known.png"}, skip_bad_rows=True).table
    assert list(table["image_path"]) == ["known.png", "", ""]
    assert list(table["image_file"]) == ["", "", ""]


def test_embeddings_may_be_keyed_by_example_id(folder: Path):
    table = load_manifest(write(folder, "example_id,text\nr1,\nr2,dry\n"), embeddings={"r1"}).table
    assert list(table["image_path"]) == ["r1", ""]


def test_parquet_gives_the_same_table_as_csv(folder: Path):
    path = write(
        folder, "example_id,case_id,image_path,text,eczema,note\n1,7,a.png,,0.25,x\n2,,,dry,,\n"
    )
    expected = load_manifest(path).table
    raw = pd.DataFrame(
        {
            "example_id": [1, 2],
            "case_id": [7, None],
            "image_path": ["a.png", None],
            "text": [None, "dry"],
            "eczema": [0.25, None],
            "note": ["x", ""],
        }
    )
    raw.astype({"case_id": "Int64"}).to_parquet(folder / "manifest.parquet")
    pd.testing.assert_frame_equal(
        load_manifest(folder / "manifest.parquet").table, expected, check_dtype=False
    )


def test_nested_and_binary_parquet_columns_are_dropped_or_refused(folder: Path):
    plain = {"example_id": ["r1"], "text": ["dry"], "eczema": [1.0]}
    beside = {"scores": [[0.1, 0.2]], "thumb": [b"\xff\xd8"], "box": [{"x": 1, "y": [2]}]}
    pd.DataFrame(plain | beside).to_parquet(folder / "m.parquet")
    table = load_manifest(folder / "m.parquet").table
    assert not {"scores", "thumb", "box"} & set(table)
    assert list(table["text"]) == ["dry"]
    said = "contains lists, structures or bytes; allowed: text or numbers"
    for column, cell in (("text", ["dry", "red"]), ("example_id", ["r1"])):
        pd.DataFrame(plain | {column: [cell]}).to_parquet(folder / "m.parquet")
        assert message_of(folder / "m.parquet").endswith(f" (1 fault):\n  {column}: {said}")


def test_bad_parquet_file_is_a_clear_error(folder: Path):
    assert "not readable as Parquet" in message_of(write(folder, b"not parquet", "m.parquet"))
    pd.DataFrame({"example_id": ["r1"], "text": ["dry"], "eczema": [np.inf]}).to_parquet(
        folder / "m.parquet"
    )
    assert faults_of(folder / "m.parquet")[0].startswith("m.parquet:1: eczema")
    pd.DataFrame({"example_id": ["r1"], "image_path": ["a\0.png"]}).to_parquet(folder / "m.parquet")
    assert "is not a path" in faults_of(folder / "m.parquet")[0]


def test_faults_are_reported_in_line_order(folder: Path):
    content = "example_id,image_path,text,eczema\n,,dry,1\nr2,lost.png,,1\nr3,,dry,7\n"
    lines = [fault.split(":")[1] for fault in faults_of(write(folder, content))]
    assert lines == ["2", "3", "4"]

"""A folder of class folders becomes a manifest: names set labels, splits and groups."""

import io
import json
import os
import re
import unicodedata
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from eczema_tf.data.manifest.table import load_manifest
from eczema_tf.data.sources.folder import prepare_folder
from eczema_tf.data.sources.folder_names import (
    choose_eczema_classes,
    find_split,
    name_group,
    strip_numbers,
)
from eczema_tf.errors import DataError

PHOTOS = (
    "Eczema Photos/knee-1.jpg",
    "Eczema Photos/Knee_2.JPG",
    "Eczema Photos/elbow.png",
    "Psoriasis/knee-3.jpeg",
)


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "atlas", *PHOTOS)


def test_manifest_has_the_expected_classes_groups_and_counts(folder: Path, tmp_path: Path):
    (folder / "Psoriasis" / "notes.txt").write_text("x")
    (folder / ".git").mkdir()
    (folder / ".git" / "x.jpg").write_text("x")
    (folder / "Psoriasis" / ".DS_Store").write_text("x")
    summary = prepare_folder(tmp_path / "out", folder=folder)
    counts = {
        "photos": 4,
        "eczema": 3,
        "captions": 0,
        "classes": 2,
        "groups": 3,
        "largest_group": 2,
        "moved": 0,
        "hidden": 2,
        "not_photos": 1,
    }
    assert summary.counts == counts
    assert "4 photos in 2 classes" in summary.description
    table = load_manifest(summary.manifest).table.set_index("example_id")
    assert sorted(table.index) == sorted(PHOTOS)
    assert table["group_id"].to_dict() == {
        "Eczema Photos/knee-1.jpg": "eczema photos/knee",
        "Eczema Photos/Knee_2.JPG": "eczema photos/knee",
        "Eczema Photos/elbow.png": "eczema photos/elbow",
        "Psoriasis/knee-3.jpeg": "psoriasis/knee",
    }
    assert table["eczema"]["Psoriasis/knee-3.jpeg"] == 0.0
    assert table["condition"]["Eczema Photos/elbow.png"] == "Eczema Photos"
    assert set(table["split"]) == {""}
    written = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert written["counts"] == counts
    assert written["eczema_classes"] == ["Eczema Photos"]
    assert "name-1.jpg" in written["columns"]["group_id"]


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("a-1.jpg", "c/a"),
        ("A_12.png", "c/a"),
        ("a--3.jpg", "c/a"),
        ("a1.jpg", "c/a1"),
        ("a-1-2.jpg", "c/a-1"),
        ("a-b.jpg", "c/a-b"),
        ("7.jpg", "c/7"),
        ("Patient A (12).jpg", "c/patient a"),
    ],
)
def test_name_group_strips_one_shot_number_at_the_end(name: str, group: str):
    assert name_group("C", name) == group


def test_top_folders_named_like_splits_become_splits(tmp_path: Path):
    folder = fill(
        tmp_path / "dermnet",
        "train/Eczema/a.jpg",
        "train/Acne/b.jpg",
        "Test/Eczema/c.jpg",
        "valid/Acne/deep/er/d.jpg",
    )
    table = load_manifest(prepare_folder(tmp_path / "out", folder=folder).manifest).table.set_index(
        "example_id"
    )
    splits = {
        "train/Eczema/a.jpg": "train",
        "train/Acne/b.jpg": "train",
        "Test/Eczema/c.jpg": "test",
        "valid/Acne/deep/er/d.jpg": "val",
    }
    assert table["split"].to_dict() == splits
    assert table["condition"]["valid/Acne/deep/er/d.jpg"] == "Acne"


def test_group_in_two_splits_moves_to_the_earlier_one(tmp_path: Path):
    names = (
        "train/Eczema/a-1.jpg",
        "test/Eczema/a-2.jpg",
        "test/Acne/a-3.jpg",
        "val/Acne/a-4.jpg",
        "train/Acne/b-1.jpg",
        "val/Acne/b-2.jpg",
    )
    folder = fill(tmp_path / "dermnet", *names)
    summary = prepare_folder(tmp_path / "out", folder=folder)
    # load_manifest refuses a group in two splits
    table = load_manifest(summary.manifest).table.set_index("example_id")
    assert table["split"].to_dict() == dict(
        zip(names, ("train", "train", "val", "val", "train", "train"), strict=True)
    )
    assert summary.counts["moved"] == 3


def test_no_split_is_written_if_all_photos_are_in_train(tmp_path: Path, capsys):
    folder = fill(tmp_path / "hub", "train/Eczema/a.jpg", "train/Acne/b.jpg")
    rows = load_manifest(prepare_folder(tmp_path / "out", folder=folder).manifest).table
    assert list(rows["split"]) == ["", ""]
    assert "note: all photos are in `train`: no split is written" in capsys.readouterr().err
    plain = fill(tmp_path / "plain", "Eczema/a.jpg", "Acne/b.jpg")
    prepare_folder(tmp_path / "plain_out", folder=plain)
    assert "note:" not in capsys.readouterr().err


def test_split_that_loses_all_its_photos_is_noted(tmp_path: Path, capsys):
    folder = fill(tmp_path / "set", "train/Eczema/a-1.jpg", "test/Eczema/a-2.jpg", "val/B/b.jpg")
    prepare_folder(tmp_path / "out", folder=folder)
    assert "note: no photo is left in test, since each has others" in capsys.readouterr().err


def test_split_folders_beside_class_folders_are_an_error(tmp_path: Path):
    folder = fill(tmp_path / "dermnet", "train/Eczema/a.jpg", "Acne/b.jpg")
    with pytest.raises(
        DataError, match=r"some top folders are splits \(train\) and some are not \(Acne\)"
    ):
        prepare_folder(tmp_path / "out", folder=folder)


def test_all_photos_without_a_class_are_reported(tmp_path: Path):
    folder = fill(tmp_path / "atlas", "Eczema/a.jpg", "Acne/b.jpg", "loose.jpg", "also.png")
    with pytest.raises(
        DataError, match=r"2 faults(.|\n)*also.png: is in no class(.|\n)*loose.jpg: is in no class"
    ):
        prepare_folder(tmp_path / "out", folder=folder)
    folder = fill(tmp_path / "splits", "train/loose.jpg", "train/Acne/b.jpg")
    with pytest.raises(DataError, match=r"train/loose.jpg: is in no class"):
        prepare_folder(tmp_path / "out", folder=folder)


def test_eczema_classes_are_chosen_by_keyword_or_by_name():
    classes = {"Atopic Dermatitis Photos", "ECZEMA", "Acne", "Hand Dermatitis"}
    assert choose_eczema_classes(classes) == {"Atopic Dermatitis Photos", "ECZEMA"}
    assert choose_eczema_classes(classes, ["hand dermatitis"]) == {"Hand Dermatitis"}
    with pytest.raises(DataError, match="no such class: Nonsense; the classes are: Acne, Atopic"):
        choose_eczema_classes(classes, ["Acne", "Nonsense"])
    with pytest.raises(
        DataError, match=r"no class names eczema or atopic; .*the classes are: Acne, Tinea"
    ):
        choose_eczema_classes({"Tinea", "Acne"})
    with pytest.raises(
        DataError, match=r"every class is eczema.*the classes are: Eczema, Hand eczema"
    ):
        choose_eczema_classes({"Eczema", "Hand eczema"})
    with pytest.raises(DataError, match="if that folder contains the classes, give set/archive"):
        choose_eczema_classes({"archive"}, folder="set")


@pytest.mark.parametrize(
    "other",
    [
        "non-eczema",
        "no_eczema",
        "Not Eczema",
        "NonEczema",
        "eczema-free",
        "EczemaFree",
        "eczema_negative",
        "eczema_neg",
        "eczema absent",
    ],
)
def test_class_name_that_negates_eczema_is_not_eczema(other: str):
    assert choose_eczema_classes({"Eczema", other, "Acne"}) == {"Eczema"}


def test_named_class_matches_whatever_its_blanks_and_accents():
    assert choose_eczema_classes({"Ekze\u0301m ", "Acne"}, [" ekz\u00e9m"]) == {"Ekze\u0301m "}


def test_captions_become_texts(folder: Path, tmp_path: Path):
    captions = tmp_path / "captions.csv"
    captions.write_text(
        'image_path,text,more\nPsoriasis/knee-3.jpeg,"Red, with scales",x\nEczema'
        " Photos/elbow.png,,x\n"
    )
    summary = prepare_folder(tmp_path / "out", folder=folder, captions=captions)
    table = load_manifest(summary.manifest).table.set_index("example_id")
    assert table["text"].to_dict() == dict.fromkeys(PHOTOS, "") | {
        "Psoriasis/knee-3.jpeg": "Red, with scales"
    }
    assert summary.counts["captions"] == 1


@pytest.mark.parametrize(("there", "told"), [("NFD", "NFC"), ("NFC", "NFD")])  # macOS uses NFD
def test_file_names_match_whatever_their_unicode_form(tmp_path: Path, there: str, told: str):
    fill(tmp_path / "atlas", unicodedata.normalize(there, "Eczema/größe.jpg"), "Tinea/1.jpg")
    captions, name = tmp_path / "captions.csv", unicodedata.normalize(told, "Eczema/größe.jpg")
    captions.write_text(f"image_path,text\n{name},itchy\n")
    (tmp_path / "atlas" / "metadata.csv").write_text(
        f"file_name,label\n{name},Eczema\nTinea/1.jpg,Tinea\n"
    )
    summary = prepare_folder(tmp_path / "out", folder=tmp_path / "atlas", captions=captions)
    table = load_manifest(summary.manifest).table
    assert list(table["text"]) == ["itchy", ""]
    assert list(table["eczema"]) == [1, 0]


def test_all_captions_without_a_photo_of_their_own_are_reported(folder: Path, tmp_path: Path):
    captions = tmp_path / "captions.csv"
    captions.write_text(
        "image_path,text\n../x.jpg,a\nPsoriasis/knee-3.jpeg,b\nPsoriasis/knee-3.jpeg,c\n/etc/passwd,d\n"
    )
    with pytest.raises(DataError) as error:
        prepare_folder(tmp_path / "out", folder=folder, captions=captions)
    assert "3 faults" in str(error.value)
    for fault in (
        "captions.csv:2: no such photo in the folder; received '../x.jpg'",
        "captions.csv:4: the photo has a caption already",
        "captions.csv:5: no such photo",
    ):
        assert fault in str(error.value)


def test_links_to_folders_outside_files_or_nothing_are_errors(folder: Path, tmp_path: Path):
    fill(tmp_path / "elsewhere", "secret.jpg")
    (folder / "Psoriasis" / "out.jpg").symlink_to(tmp_path / "elsewhere" / "secret.jpg")
    (folder / "Psoriasis" / "broken.jpg").symlink_to(tmp_path / "nothing.jpg")
    (folder / "More").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError) as error:
        prepare_folder(tmp_path / "out", folder=folder)
    for fault in (
        "3 faults",
        "More: is a link to a folder",
        "out.jpg: is a link that leads out",
        "broken.jpg: is a link to nothing",
    ):
        assert fault in str(error.value)
    assert not (tmp_path / "out").exists()


def test_link_inside_the_folder_is_followed(folder: Path, tmp_path: Path):
    (folder / "Psoriasis" / "again.png").symlink_to(folder / "Eczema Photos" / "elbow.png")
    summary = prepare_folder(tmp_path / "out", folder=folder)
    assert summary.counts["photos"] == 5
    copy = tmp_path / "out" / "Psoriasis" / "again.png"
    assert not copy.is_symlink()
    assert copy.read_bytes() == (folder / "Eczema Photos" / "elbow.png").read_bytes()


def test_file_name_that_is_not_utf8_is_an_error(folder: Path, tmp_path: Path):
    bad = bytes(folder / "Psoriasis") + b"/caf\xe9.jpg"
    with open(bad, "wb") as file:  # noqa: PTH123  (a path of bytes)
        file.write(b"x")
    with pytest.raises(DataError, match="not UTF-8"):
        prepare_folder(tmp_path / "out", folder=folder)


def test_output_may_not_replace_or_enter_the_photo_folder(folder: Path, tmp_path: Path):
    for out in (folder, tmp_path):
        with pytest.raises(DataError, match="would be lost"):
            prepare_folder(out, folder=folder, overwrite=True)
    (tmp_path / "alias").symlink_to(folder)
    for out in (folder / "out", tmp_path / "alias" / "out"):
        with pytest.raises(DataError, match="taken for a class"):
            prepare_folder(out, folder=folder)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == sorted(
        PHOTOS
    )


def test_empty_or_missing_folder_is_an_error(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for bad in ("empty", "none"):
        with pytest.raises(DataError, match=r"no photos|no such folder"):
            prepare_folder(tmp_path / "out", folder=tmp_path / bad)


def test_numbers_and_counts_are_stripped_from_class_names(tmp_path: Path):
    """The class names are those of a well-known data set on Kaggle."""
    names = ("1. Eczema 1677", "3. Atopic Dermatitis - 1.25k", "10. Warts (HPV 2) - 2103")
    atlas = fill(tmp_path / "atlas", *(f"{name}/0_{shot}.jpg" for name in names for shot in "12"))
    summary = prepare_folder(tmp_path / "out", folder=atlas)
    table = load_manifest(summary.manifest).table
    by_class = table.groupby("condition")["eczema"].mean().to_dict()
    assert by_class == {"Eczema": 1, "Atopic Dermatitis": 1, "Warts (HPV 2)": 0}
    named = {"folder": atlas, "eczema": ["1. Eczema 1677"], "overwrite": True}
    assert prepare_folder(tmp_path / "out", **named).counts["eczema"] == 2
    for left_alone in (["Grade 10", "Grade 20"], ["1. A", "B"]):
        assert strip_numbers({"": left_alone}) == {"": {name: name for name in left_alone}}


def test_class_numbers_are_kept_in_all_splits_if_one_split_needs_them(tmp_path: Path):
    names = ("train/class_0/a.jpg", "train/class_1/b.jpg", "test/class_1/c.jpg")
    summary = prepare_folder(
        tmp_path / "out", folder=fill(tmp_path / "set", *names), eczema=["class_1"]
    )
    table = load_manifest(summary.manifest).table.set_index("example_id")
    assert table["condition"].to_dict() == {name: name.split("/")[1] for name in names}
    assert table.loc["test/class_1/c.jpg", "eczema"] == 1


def test_caption_that_could_be_for_two_photos_is_an_error(tmp_path: Path):
    folder = fill(tmp_path / "set", "Eczema/a.jpg", "Eczema/a.JPG", "Warts/b.JPG")
    captions = tmp_path / "captions.csv"
    captions.write_text("image_path,text\nEczema/a.Jpg,itchy\nWarts/b.jpg,round\n")
    with pytest.raises(DataError, match=r"captions.csv:2: no such photo .*'Eczema/a.Jpg'$"):
        prepare_folder(tmp_path / "out", folder=folder, captions=captions)


@pytest.mark.parametrize(
    ("rule", "groups"),
    [
        ("name", ["eczema/p1", "eczema/p1", "other/p2_img"]),
        ("photo", ["Eczema/p1_1.jpg", "Eczema/p1_2.jpg", "Other/p2_img_3.jpg"]),
        (r"(p\d+)_", ["p1", "p1", "p2"]),
    ],
)
def test_group_by_rule_sets_the_groups(tmp_path: Path, rule: str, groups: list[str]):
    atlas = fill(tmp_path / "atlas", "Eczema/p1_1.jpg", "Eczema/p1_2.jpg", "Other/p2_img_3.jpg")
    summary = prepare_folder(tmp_path / "out", folder=atlas, group_by=rule)
    assert load_manifest(summary.manifest).table["group_id"].tolist() == groups


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("(", "unterminated"),
        ("p", "one group in parentheses; received 0"),
        ("(x)", "-1.jpg: has no"),
    ],
)
def test_group_by_rule_that_finds_no_groups_is_an_error(
    folder: Path, tmp_path: Path, rule, said: str
):
    with pytest.raises(DataError, match=re.escape(said)):
        prepare_folder(tmp_path / "out", folder=folder, group_by=rule)


METADATA = {
    "metadata.csv": "file_name,text,label\n1.jpg,itchy,Eczema\nb/2.jpg,,Tinea\n",
    "metadata.jsonl": '{"file_name": "1.jpg", "text": "itchy", "label": "Eczema", "box": [1]}\n'
    '{"file_name": "b/2.jpg", "text": null, "label": "Tinea"}\n',
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_file_sets_class_and_text(tmp_path: Path, name: str):
    """The layout is that of Hugging Face's ImageFolder."""
    atlas = fill(tmp_path / "set", "train/1.jpg", "train/b/2.jpg", "test/Eczema/3.jpg")
    (atlas / "train" / name).write_text(METADATA[name])
    summary = prepare_folder(tmp_path / "out", folder=atlas)
    table = load_manifest(summary.manifest).table.set_index("image_path")
    assert table["condition"].to_dict() == {
        "test/Eczema/3.jpg": "Eczema",
        "train/1.jpg": "Eczema",
        "train/b/2.jpg": "Tinea",
    }
    assert table["text"].tolist() == ["", "itchy", ""]
    assert table["split"].tolist() == ["test", "train", "train"]
    assert (summary.counts["captions"], summary.counts["not_photos"]) == (1, 0)
    with (atlas / "train" / name).open("a") as file:
        file.write(METADATA[name].splitlines()[-1].replace("2.jpg", "../../out.jpg") + "\n")
        file.write(METADATA[name].splitlines()[-1] + "\n")
    with pytest.raises(DataError, match=r":\d: no such photo(.|\n)*:\d: appears twice"):
        prepare_folder(tmp_path / "again", folder=atlas)


@pytest.mark.parametrize(("column", "meant"), [("caption", "text"), ("diagnosis", "label")])
def test_metadata_column_that_looks_like_another_is_an_error(
    tmp_path: Path, column: str, meant: str
):
    atlas = fill(tmp_path / "set", "Eczema/1.jpg", "Tinea/2.jpg")
    (atlas / "metadata.csv").write_text(f"file_name,{column}\nEczema/1.jpg,x\n")
    with pytest.raises(DataError, match=f"'{column}': looks like '{meant}'; rename it"):
        prepare_folder(tmp_path / "out", folder=atlas)


@pytest.mark.parametrize(
    "path", ["./Eczema/1.jpg", r"Eczema\1.jpg", " Eczema/1.jpg ", "Eczema/1.JPG"]
)
def test_captions_are_read_like_a_manifest(tmp_path: Path, path: str):
    atlas = fill(tmp_path / "set", "Eczema/1.jpg", "Tinea/2.jpg")
    (tmp_path / "c.csv").write_text(f"image_path,text\n{path},dry\nTinea/2.jpg,nan\n")
    summary = prepare_folder(tmp_path / "out", folder=atlas, captions=tmp_path / "c.csv")
    assert load_manifest(summary.manifest).table["text"].tolist() == ["dry", ""]


@pytest.mark.parametrize("name", ["Training", "train_set", "TRAIN", "train data"])
def test_find_split_knows_other_names_of_train(name: str):
    assert find_split(name) == "train"
    assert not find_split(f"{name} photos of eczema")


@pytest.mark.parametrize(
    ("line", "said"), [("{", "1: is not JSON"), ("[1]", "allowed: a JSON object"), ("", "is empty")]
)
def test_metadata_that_are_not_json_lines_are_an_error(tmp_path: Path, line: str, said: str):
    atlas = fill(tmp_path / "set", "Eczema/1.jpg", "Tinea/2.jpg")
    (atlas / "metadata.jsonl").write_text(line)
    with pytest.raises(DataError, match=said):
        prepare_folder(tmp_path / "out", folder=atlas)


def write_parquet(path: Path, rows: list[tuple[str | None, int, str]], names: list[str]) -> None:
    """Writes a Parquet file as Hugging Face publishes image data sets."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    photos = [{"bytes": buffer.getvalue(), "path": path} for path, _, _ in rows]
    table = pa.table(
        {
            "image": pa.array(photos, image),
            "label": [label for _, label, _ in rows],
            "text": [text for _, _, text in rows],
        }
    )
    features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), path)


def test_photos_in_parquet_files_are_unpacked(tmp_path: Path):
    names, data = ["eczema", "../tinea"], tmp_path / "set" / "data"
    data.mkdir(parents=True)
    rows = [("../../p1_1.png", 0, "it itches"), ("/etc/.p1_2.png", 0, ""), (None, 1, "a ring")]
    write_parquet(data / "train-00000-of-00001.parquet", rows, names)
    write_parquet(data / "test-00000-of-00001.parquet", [("p3_1.png", 1, "")], names)
    out = tmp_path / "out"
    summary = prepare_folder(out, folder=tmp_path / "set")
    table = load_manifest(summary.manifest).table
    assert table["split"].tolist() == ["test", "train", "train", "train"]
    assert table["condition"].tolist() == ["../tinea", "eczema", "eczema", "../tinea"]
    assert table["text"].tolist() == ["", "it itches", "", "a ring"]
    assert table["group_id"].tolist() == ["../tinea/p3", *["eczema/p1"] * 2, "../tinea/photo"]
    assert sorted(path.name for path in out.rglob("*.[pj]*g")) == [
        "p1_1.png",
        "p1_2.png",
        "p3_1.png",
        "photo.jpg",
    ]
    with pytest.raises(DataError, match="would be lost"):
        prepare_folder(tmp_path / "set", folder=tmp_path / "set" / "data", overwrite=True)


def test_too_long_file_name_is_cut_before_its_ending(tmp_path: Path):
    rows = [("\u6e7f" * 100 + ".png", 0, ""), ("a.png", 1, "")]  # three bytes per character
    (tmp_path / "set").mkdir()
    write_parquet(tmp_path / "set" / "train.parquet", rows, ["eczema", "tinea"])
    table = load_manifest(prepare_folder(tmp_path / "out", folder=tmp_path / "set").manifest).table
    assert sum(path.endswith("\u6e7f.png") for path in table["image_path"]) == 1


def test_group_id_column_of_a_parquet_file_is_used(tmp_path: Path):
    rows = [(f"{name}.png", number % 2, "") for number, name in enumerate("abcd")]
    write_parquet(tmp_path / "train.parquet", rows, ["eczema", "tinea"])
    table = parquet.read_table(tmp_path / "train.parquet")
    parquet.write_table(table.append_column("group_id", [[7, 8, 7, 9]]), tmp_path / "train.parquet")
    summary = prepare_folder(tmp_path / "out", folder=tmp_path)
    assert load_manifest(summary.manifest).table["group_id"].tolist() == ["7", "8", "7", "9"]
    parquet.write_table(
        table.append_column("Patient ID", [[7, 8, 7, 9]]), tmp_path / "train.parquet"
    )
    with pytest.raises(DataError, match="'Patient ID': looks like 'group_id'; rename it"):
        prepare_folder(tmp_path / "out2", folder=tmp_path)


def test_duplicate_parquet_files_are_an_error(tmp_path: Path):
    (tmp_path / "data").mkdir()
    for name in ("train.parquet", "data/train.parquet", "test.parquet"):
        write_parquet(tmp_path / name, [("p1_1.png", 0, "")], ["eczema", "tinea"])
    with pytest.raises(
        DataError, match=r"\(1 fault\):\n  data/train\.parquet, train\.parquet: are"
    ):
        prepare_folder(tmp_path / "out", folder=tmp_path)


def test_parquet_file_without_valid_photos_and_labels_is_an_error(tmp_path: Path):
    parquet.write_table(pa.table({"label": [1]}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="no column image; it has label"):
        prepare_folder(tmp_path / "out", folder=tmp_path)
    (tmp_path / "train.parquet").write_bytes(b"PAR1" * 9)
    with pytest.raises(DataError, match="not readable as Parquet"):
        prepare_folder(tmp_path / "out", folder=tmp_path)
    write_parquet(tmp_path / "train.parquet", [(None, 0, "")], ["eczema"])
    table = parquet.read_table(tmp_path / "train.parquet")
    for column, cell, said in (
        ("image", {"path": "a"}, ":1: image: has no bytes; are the photos elsewhere"),
        ("image", "a.jpg", ":1: image: has no bytes"),
        ("label", None, ":1: label: is empty"),
        ("label", ["eczema"], ":1: label: is empty or a list"),
        ("label", -1, ":1: label: has no name in the file; allowed: 0, received -1"),
    ):
        place = table.column_names.index(column)
        changed = table.set_column(place, column, [pa.array([cell])])
        parquet.write_table(changed, tmp_path / "train.parquet")
        with pytest.raises(DataError, match=said):
            prepare_folder(tmp_path / "out", folder=tmp_path)
    parquet.write_table(table.drop_columns("label"), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="no column label; it has image, text"):
        prepare_folder(tmp_path / "out", folder=tmp_path)


def test_missing_parquet_file_of_a_series_is_an_error(tmp_path: Path):
    write_parquet(tmp_path / "train-00000-of-00002.parquet", [(None, 0, "")], ["eczema", "tinea"])
    with pytest.raises(DataError, match=r"train-00001-of-00002\.parquet: is missing"):
        prepare_folder(tmp_path / "out", folder=tmp_path)


def test_parquet_names_may_have_a_hash_or_be_in_split_folders(tmp_path: Path):
    hashed = "data/{}-00000-of-00001-4746b8785c874cc7.parquet"
    for kind, form in (
        ("hash", hashed),
        ("own", "default/{}/0000.parquet"),
        ("top", "{}/0000.parquet"),
    ):
        for split, label in (("train", 0), ("test", 1)):
            path = tmp_path / kind / form.format(split)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_parquet(path, [(None, label, "")], ["eczema", "tinea"])
        (tmp_path / kind / "._hidden.parquet").touch()
        summary = prepare_folder(tmp_path / "out", folder=tmp_path / kind, overwrite=True)
        table = load_manifest(summary.manifest).table
        assert table.set_index("split")["condition"].to_dict() == {
            "train": "eczema",
            "test": "tinea",
        }


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["odd.parquet", "a/dev.parquet"], "no photos; .*train.parquet.*received a/dev.*, odd.par"),
        (["train.parquet", "data/new.parquet"], r"not understood; .*; received data/new\.parquet$"),
        (["train/0001.parquet"], r"\n  train/0000\.parquet: is missing"),
        (
            ["a/train/0000.parquet", "b/test/0000.parquet"],
            r"0000\.parquet: belong to several data sets",
        ),
        (["data/train.parquet", "b/train/0000.parquet"], r"\.parquet: belong to several data sets"),
        (
            [f"train-00000-of-00001-{letter * 16}.parquet" for letter in "ab"],
            r"a{16}\.parquet, train-.*b{16}\.parquet: are the same part",
        ),
    ],
)
def test_parquet_files_that_are_not_one_data_set_are_an_error(
    tmp_path: Path, names: list[str], said: str
):
    for name in names:
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).touch()
    with pytest.raises(DataError, match=said):
        prepare_folder(tmp_path / "out", folder=tmp_path / "set")


def test_error_names_the_folder_of_the_parquet_files(tmp_path: Path):
    write_parquet(tmp_path / "train.parquet", [(None, 0, ""), (None, 1, "")], ["acne", "tinea"])
    with pytest.raises(DataError) as caught:
        prepare_folder(tmp_path / "out", folder=tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")


def test_group_id_in_the_metadata_keeps_a_patient_in_one_split(tmp_path: Path, capsys):
    atlas = fill(
        tmp_path / "atlas", *(f"{split}/{n}.jpg" for split in ("train", "test") for n in "xy")
    )
    for split, further in (("train", ""), ("test", ",split")):
        lines = ["x.jpg,eczema,P1", "y.JPG,other,"]
        rows = "".join(f"{line}{',val' if further else ''}\n" for line in lines)
        (atlas / split / "metadata.csv").write_text(f"file_name,label,group_id{further}\n{rows}")
    table = load_manifest(prepare_folder(tmp_path / "out", folder=atlas).manifest).table
    table = table.set_index("example_id")
    assert table["group_id"].to_dict() == {
        "train/x.jpg": "P1",
        "test/x.jpg": "P1",
        "train/y.jpg": "other/y",
        "test/y.jpg": "other/y",
    }
    assert set(table["split"]) == {"train"}
    assert "'split' is not read: splits are folders at the top" in capsys.readouterr().err
    (atlas / "train" / "metadata.csv").write_text("file_name,label,patient_id\nx.jpg,eczema,P1\n")
    with pytest.raises(DataError, match="'patient_id': looks like 'group_id'; rename it"):
        prepare_folder(tmp_path / "other", folder=atlas)


def test_numeric_group_id_is_the_same_with_a_decimal_point(tmp_path: Path):
    """Pandas writes 7 as 7.0 if another cell of the column is empty."""
    atlas = fill(tmp_path / "atlas", "train/x.jpg", "test/y.jpg")
    for split, line in (("train", "x.jpg,eczema,7"), ("test", "y.jpg,other,7.0")):
        (atlas / split / "metadata.csv").write_text(f"file_name,label,group_id\n{line}\n")
    summary = prepare_folder(tmp_path / "out", folder=atlas)
    assert set(load_manifest(summary.manifest).table["group_id"]) == {"7"}
    assert (summary.counts["groups"], summary.counts["moved"]) == (1, 1)


@pytest.mark.parametrize("name", ["Subset", "fold"])
def test_split_column_in_the_metadata_is_noted_as_not_read(tmp_path: Path, name: str, capsys):
    atlas = fill(tmp_path / "atlas", "Eczema/1.jpg", "Tinea/2.jpg")
    (atlas / "metadata.csv").write_text(f"file_name,{name}\nEczema/1.jpg,val\n")
    prepare_folder(tmp_path / "out", folder=atlas)
    assert f"{name!r} is not read: splits are folders at the top" in capsys.readouterr().err


def test_photo_beside_the_split_folders_has_no_split(tmp_path: Path):
    atlas = fill(tmp_path / "atlas", "train/Eczema/1.jpg", "test/Tinea/2.jpg", "3.jpg")
    (atlas / "metadata.csv").write_text("file_name,label\n3.jpg,Eczema\n")
    table = load_manifest(prepare_folder(tmp_path / "out", folder=atlas).manifest).table
    assert table.set_index("image_path")["split"].to_dict() == {
        "train/Eczema/1.jpg": "train",
        "test/Tinea/2.jpg": "test",
        "3.jpg": "",
    }


def test_photos_that_differ_only_in_ending_case_have_own_captions(tmp_path: Path):
    atlas = fill(tmp_path / "atlas", "Eczema/1.JPG", "Eczema/1.jpg", "Tinea/2.jpg")
    captions = tmp_path / "captions.csv"
    captions.write_text("image_path,text\nEczema/1.jpg,small\nEczema/1.JPG,capital\n")
    summary = prepare_folder(tmp_path / "out", folder=atlas, captions=captions)
    table = load_manifest(summary.manifest).table.set_index("image_path")
    assert table["text"].to_dict() == {
        "Eczema/1.JPG": "capital",
        "Eczema/1.jpg": "small",
        "Tinea/2.jpg": "",
    }


def test_photo_counts_of_each_split_are_stripped_from_class_names(tmp_path: Path):
    atlas = fill(
        tmp_path / "atlas",
        "train/1. Hand Eczema 1677/knee-1.jpg",
        "train/2. Tinea 900/knee-1.jpg",
        "test/1. Hand Eczema 400/knee-2.jpg",
        "test/2. Tinea 210/elbow.jpg",
    )
    summary = prepare_folder(tmp_path / "out", folder=atlas, eczema=["1. hand eczema 400"])
    table = load_manifest(summary.manifest).table
    assert set(table["condition"]) == {"Hand Eczema", "Tinea"}
    assert set(table["group_id"]) == {"hand eczema/knee", "tinea/knee", "tinea/elbow"}
    assert (summary.counts["moved"], summary.counts["eczema"]) == (1, 2)


def test_unicode_forms_of_a_name_are_one_class_and_one_group(tmp_path: Path):
    names = [unicodedata.normalize(form, "Ekzéma") for form in ("NFC", "NFD")]
    atlas = fill(
        tmp_path / "atlas",
        f"train/{names[0]}/{names[0]}-1.jpg",
        f"test/{names[1]}/{names[1]}-2.jpg",
        "train/tinea/arm.jpg",
    )
    summary = prepare_folder(tmp_path / "out", folder=atlas, eczema=[names[1]])
    assert load_manifest(summary.manifest).table["condition"].nunique() == 2
    assert (summary.counts["groups"], summary.counts["moved"]) == (2, 1)


def test_unreadable_folder_is_an_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scan = os.scandir

    def refuse(path: object) -> object:
        if str(path).endswith("Psoriasis"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="Psoriasis"):
        prepare_folder(tmp_path / "out", folder=folder)


def test_parquet_photos_with_odd_names_get_an_ending(tmp_path: Path):
    data = tmp_path / "data"
    data.mkdir()
    rows = [("case.12", 0, ""), ("x.bin", 1, ""), ("p.PNG", 1, "")]
    write_parquet(data / "train.parquet", rows, ["eczema", "tinea"])
    table = load_manifest(prepare_folder(tmp_path / "out", folder=data).manifest).table
    assert sorted(Path(name).name for name in table["image_path"]) == [
        "case.12.jpg",
        "p.PNG",
        "x.bin.jpg",
    ]

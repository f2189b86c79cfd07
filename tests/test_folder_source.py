"""Folders of class folders: names become labels and splits, shots of one patient one group."""

import json
from pathlib import Path

import pytest
from PIL import Image

from eczema_tf.data.manifest.table import load_manifest
from eczema_tf.data.sources.folder import choose_eczema_classes, name_group, prepare_folder
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


def test_classes_groups_and_counts(folder: Path, tmp_path: Path):
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
    ],
)
def test_a_number_at_the_end_is_the_shot(name: str, group: str):
    assert name_group("C", name) == group


def test_top_folders_become_splits(tmp_path: Path):
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


def test_a_patient_in_two_splits_goes_to_the_earlier_one(tmp_path: Path):
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
    table = load_manifest(summary.manifest).table.set_index(
        "example_id"
    )  # which would refuse a group in two splits
    assert table["split"].to_dict() == dict(
        zip(names, ("train", "train", "val", "val", "train", "train"), strict=True)
    )
    assert summary.counts["moved"] == 3


def test_splits_beside_classes_are_an_error(tmp_path: Path):
    folder = fill(tmp_path / "dermnet", "train/Eczema/a.jpg", "Acne/b.jpg")
    with pytest.raises(
        DataError, match=r"some top folders are splits \(train\) and some are not \(Acne\)"
    ):
        prepare_folder(tmp_path / "out", folder=folder)


def test_photos_without_a_class_are_all_named(tmp_path: Path):
    folder = fill(tmp_path / "atlas", "Eczema/a.jpg", "Acne/b.jpg", "loose.jpg", "also.png")
    with pytest.raises(
        DataError, match=r"2 faults(.|\n)*also.png: is in no class(.|\n)*loose.jpg: is in no class"
    ):
        prepare_folder(tmp_path / "out", folder=folder)
    folder = fill(tmp_path / "splits", "train/loose.jpg", "train/Acne/b.jpg")
    with pytest.raises(DataError, match=r"train/loose.jpg: is in no class"):
        prepare_folder(tmp_path / "out", folder=folder)


def test_which_classes_are_eczema():
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


def test_captions_without_a_photo_are_all_named(folder: Path, tmp_path: Path):
    captions = tmp_path / "captions.csv"
    captions.write_text(
        "image_path,text\n../x.jpg,a\nPsoriasis/knee-3.jpeg,b\nPsoriasis/knee-3.jpeg,c\n/etc/passwd,d\n"
    )
    with pytest.raises(DataError) as error:
        prepare_folder(tmp_path / "out", folder=folder, captions=captions)
    assert "3 faults" in str(error.value)
    for fault in (
        "captions.csv:2: no such photo",
        "captions.csv:4: the photo has a caption already",
        "captions.csv:5: no such photo",
    ):
        assert fault in str(error.value)


def test_no_link_leads_out(folder: Path, tmp_path: Path):
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


def test_a_link_inside_the_folder_is_followed(folder: Path, tmp_path: Path):
    (folder / "Psoriasis" / "again.png").symlink_to(folder / "Eczema Photos" / "elbow.png")
    summary = prepare_folder(tmp_path / "out", folder=folder)
    assert summary.counts["photos"] == 5
    copy = tmp_path / "out" / "Psoriasis" / "again.png"
    assert not copy.is_symlink()
    assert copy.read_bytes() == (folder / "Eczema Photos" / "elbow.png").read_bytes()


def test_a_name_that_is_not_utf8_is_an_error(folder: Path, tmp_path: Path):
    bad = bytes(folder / "Psoriasis") + b"/caf\xe9.jpg"
    with open(bad, "wb") as file:  # noqa: PTH123  (a path of bytes)
        file.write(b"x")
    with pytest.raises(DataError, match="not UTF-8"):
        prepare_folder(tmp_path / "out", folder=folder)


def test_nothing_is_written_over_or_into_the_photos(folder: Path, tmp_path: Path):
    for out in (folder, tmp_path):
        with pytest.raises(DataError, match="would be lost"):
            prepare_folder(out, folder=folder, overwrite=True)
    with pytest.raises(DataError, match="taken for a class"):
        prepare_folder(folder / "out", folder=folder)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == sorted(
        PHOTOS
    )


def test_empty_or_missing_folders_are_errors(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for bad in ("empty", "none"):
        with pytest.raises(DataError, match=r"no photos|no such folder"):
            prepare_folder(tmp_path / "out", folder=tmp_path / bad)

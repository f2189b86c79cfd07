"""Every source writes a valid manifest, repeats it byte for byte and stays inside its folder."""

import csv
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from eczema_tf.data.manifest.table import load_manifest
from eczema_tf.data.sources import dermavqa, scin
from eczema_tf.data.sources.dermavqa import prepare_dermavqa
from eczema_tf.data.sources.folder import prepare_folder
from eczema_tf.data.sources.scin import prepare_scin
from eczema_tf.data.sources.scin_text import FLAG_COLUMNS
from eczema_tf.data.sources.source import find_photos, write_source
from eczema_tf.data.sources.synthetic import prepare_synthetic
from eczema_tf.data.sources.table import prepare_table
from eczema_tf.data.sources.table_map import list_shipped
from eczema_tf.errors import DataError, EczemaError
from eczema_tf.prepare import main

TABLES = {
    "pad_ufes_20": {
        "img_id": ["{photo}", "PAT_2_3_4.png"],
        "patient_id": ["PAT_1", "PAT_2"],
        "lesion_id": ["1", "3"],
        "region": ["ARM", "KNEE"],
        "itch": ["True", "UNK"],
        "hurt": ["False", ""],
        "grew": ["UNK", "True"],
        "changed": ["UNK", "True"],
        "bleed": ["True", "False"],
        "elevation": ["True", "False"],
        "fitspatrick": ["3.0", ""],
        "gender": ["FEMALE", ""],
        "diagnostic": ["BCC", "NEV"],
    },
    "fitzpatrick17k": {
        "md5hash": ["{photo}", "b"],
        "fitzpatrick_scale": ["2", "-1"],
        "label": ["eczema", "psoriasis"],
        "qc": ["", "1 Diagnostic"],
    },
    "skincap": {
        "id": ["1", "2"],
        "skincap_file_path": ["{photo}", "2.png"],
        "caption_zh_polish_en": ["Red patches.", "A nodule."],
        "fitzpatrick_scale": ["2.0", ""],
        "disease": ["eczema", "melanocytic-nevi"],
        "Do not consider this image": ["0", "0"],
    },
    "ddi": {
        "DDI_file": ["{photo}", "000002.png"],
        "skin_tone": ["12", "56"],
        "disease": ["eczema-spongiotic-dermatitis", "melanoma"],
    },
}
OFF_LIMITS = "outside.png"  # a photo beside the folder of photos
HOSTILE = ("../outside", "{root}/outside", "x/../../outside")


def draw(path: Path, color: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), color, "uint8")).save(path)


def make_table(name: str) -> Callable:
    def make(out: Path, root: Path, photo: str, **options: bool) -> None:
        stem = "{photo}" if name == "fitzpatrick17k" else "{photo}.png"
        columns = {
            column: [value.replace("{photo}", stem.format(photo=photo)) for value in values]
            for column, values in TABLES[name].items()
        }
        pd.DataFrame(columns).to_csv(root / "table.csv", index=False)
        for other in ("PAT_2_3_4.png", "b.jpg", "2.png", "000002.png"):
            draw(root / "photos" / other, 90)
        draw(root / "photos" / ("good.jpg" if name == "fitzpatrick17k" else "good.png"), 90)
        prepare_table(
            out, table=root / "table.csv", map_path=name, images=root / "photos", **options
        )

    return make


def make_synthetic(out: Path, root: Path, photo: str, **options: bool) -> None:
    prepare_synthetic(out, cases=4, seed=1, **options)


def make_scin(out: Path, root: Path, photo: str, **options: bool) -> None:
    blank = dict.fromkeys(scin.CASE_COLUMNS, "")
    cases = [
        blank | {"case_id": "1", "image_1_path": f"{photo}.png", FLAG_COLUMNS[0]: "YES"},
        blank | {"case_id": "2", "image_1_path": "b.png"},
    ]
    pd.DataFrame(cases).to_csv(root / "cases.csv", index=False)
    labels = [
        dict.fromkeys(scin.VOTE_COLUMNS, "")
        | {"case_id": case, "weighted_skin_condition_label": vote}
        for case, vote in VOTES.items()
    ]
    pd.DataFrame(labels).to_csv(root / "labels.csv", index=False)
    for name in ("good.png", "b.png"):
        draw(root / "photos" / name, 90)
    prepare_scin(
        out, cases=root / "cases.csv", labels=root / "labels.csv", images=root / "photos", **options
    )


VOTES = {"1": "{'Eczema': 1.0}", "2": "{'Acne': 1.0}"}


def make_dermavqa(out: Path, root: Path, photo: str, **options: bool) -> None:
    rows = [
        ("Q1", "u1", "It itches", f"{photo}.png", 1, 1, 1, 0),
        ("Q2", "u2", "It is round", "b.png", 1, 0, 0, 0),
    ]
    pd.DataFrame(rows, columns=dermavqa.QUESTION_COLUMNS).to_csv(
        root / "encounters.csv", index=False
    )
    for name in ("good.png", "b.png"):
        draw(root / "photos" / name, 90)
    prepare_dermavqa(out, encounters=root / "encounters.csv", images=root / "photos", **options)


def make_folder(out: Path, root: Path, photo: str, **options: bool) -> None:
    for name in ("Eczema/good.png", "Acne/b.png"):
        draw(root / "photos" / name, 90)
    (root / "captions.csv").write_text(f"image_path,text\nEczema/{photo}.png,It itches\n")
    prepare_folder(out, folder=root / "photos", captions=root / "captions.csv", **options)


SOURCES = {
    "synthetic": make_synthetic,
    "scin": make_scin,
    "dermavqa": make_dermavqa,
    "folder": make_folder,
    **{name: make_table(name) for name in list_shipped()},
}


READERS = sorted(SOURCES.keys() - {"synthetic"})  # it reads no input


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest) -> str:
    return request.param


def read_tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_shipped_map_has_a_test_table():
    assert set(TABLES) == set(list_shipped())


def test_manifest_is_valid_for_training(source: str, tmp_path: Path):
    SOURCES[source](tmp_path / "out", tmp_path, "good")
    table = load_manifest(tmp_path / "out" / "manifest.csv").table
    assert table["example_id"].is_unique
    assert (table["group_id"] != "").all()
    assert (table["source"] != "").all()
    assert table["eczema"].between(0, 1).all()
    assert (table["image_path"] != "").any()


def test_dataset_json_describes_the_data_set(source: str, tmp_path: Path):
    SOURCES[source](tmp_path / "out", tmp_path, "good")
    written = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert written["counts"]
    assert written["source"] == source
    assert written["attribution"]
    assert written["licence"]
    assert written["columns"]


def test_same_input_gives_the_same_bytes(source: str, tmp_path: Path):
    for name in ("one", "two"):
        SOURCES[source](tmp_path / name, tmp_path, "good")
    assert read_tree(tmp_path / "one") == read_tree(tmp_path / "two")


def test_existing_folder_is_replaced_only_with_overwrite(source: str, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("mine")
    with pytest.raises(EczemaError, match="exists"):
        SOURCES[source](tmp_path / "out", tmp_path, "good")
    assert read_tree(tmp_path / "out") == {"precious": b"mine"}
    SOURCES[source](tmp_path / "out", tmp_path, "good", overwrite=True)
    assert "precious" not in read_tree(tmp_path / "out")


@pytest.mark.parametrize("source", READERS)
def test_output_folder_that_contains_the_inputs_is_refused(source: str, tmp_path: Path):
    with pytest.raises(DataError, match="would be lost"):
        SOURCES[source](tmp_path, tmp_path, "good", overwrite=True)
    assert (tmp_path / "photos").is_dir()


def test_failed_write_leaves_nothing_behind(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("eczema_tf.files.write_text", fail)
    (tmp_path / "target").mkdir()
    with pytest.raises(EczemaError, match="No space left"):
        SOURCES[source](tmp_path / "target" / "out", tmp_path, "good")
    assert list((tmp_path / "target").iterdir()) == []


COMMANDS = {
    "dermavqa": ["dermavqa", "--encounters", "{root}/encounters.csv", "--images", "{root}/photos"],
    "folder": [
        "folder",
        "{root}/photos",
        "--eczema",
        "eczema",
        "--captions",
        "{root}/captions.csv",
    ],
    "fitzpatrick17k": [
        "table",
        "{root}/table.csv",
        "--map",
        "fitzpatrick17k",
        "--images",
        "{root}/photos",
    ],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_command_writes_the_same_files_as_the_function(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    SOURCES[name](tmp_path / "one", tmp_path, "good")
    arguments = [argument.format(root=tmp_path) for argument in COMMANDS[name]]
    assert main([*arguments, "--out", str(tmp_path / "two")]) == 0
    assert f"written to {tmp_path / 'two' / 'manifest.csv'}" in capsys.readouterr().out
    audited = read_tree(tmp_path / "two")
    assert json.loads(audited.pop("audit.json"))["leaks"] == 0
    assert read_tree(tmp_path / "one") == audited
    assert main([*arguments, "--out", str(tmp_path / "two")]) == 1
    assert "exists and is not empty" in capsys.readouterr().err
    assert main([*arguments, "--out", str(tmp_path / "two"), "--overwrite"]) == 0


@pytest.mark.parametrize("command", ["dermavqa", "folder", "table"])
def test_help_has_an_example_and_bad_usage_exits_with_2(
    command: str, capsys: pytest.CaptureFixture
):
    for arguments, status in ((["--help"], 0), (["--out", "x"], 2)):
        with pytest.raises(SystemExit) as ended:
            main([command, *arguments])
        assert ended.value.code == status
    assert f"python -m eczema_tf.prepare {command} " in capsys.readouterr().out


def test_help_names_every_shipped_map(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        main(["table", "--help"])
    assert ", ".join(list_shipped()) in capsys.readouterr().out


def test_find_photos_finds_only_photos_inside_the_folder(tmp_path: Path):
    folder = tmp_path / "photos"
    draw(folder / "deep" / "in.png", 90)
    draw(tmp_path / OFF_LIMITS, 200)
    (folder / "out.png").symlink_to(tmp_path / OFF_LIMITS)
    (folder / "link.png").symlink_to(folder / "deep" / "in.png")
    (tmp_path / "alias").symlink_to(folder)
    inner = (folder / "deep" / "in.png").resolve()
    assert find_photos(folder, ["link.png", "deep/in.png"]) == {
        "link.png": inner,
        "deep/in.png": inner,
    }
    assert find_photos(tmp_path / "alias", ["deep/in.png"]) == {"deep/in.png": inner}
    assert find_photos(None, ["deep/in.png"]) == {}
    with pytest.raises(DataError, match="no such folder of photos"):
        find_photos(tmp_path / "none", [])
    for name in (
        "out.png",
        "../outside.png",
        "deep/../deep/in.png",
        str(folder / "deep" / "in.png"),
        "",
        "deep",
        "no\0.png",
        "x" * 5000,
    ):
        assert list(find_photos(folder, [name, "deep/in.png"])) == ["deep/in.png"], name
        with pytest.raises(DataError, match="none of the data set's photos is there"):
            find_photos(folder, [name])


def test_side_by_side_also_finds_photos_in_the_folder_itself(tmp_path: Path):
    draw(tmp_path / "a.png", 90)
    draw(tmp_path / "deep" / "b.png", 90)
    names = ["deep/a.png", "deep/b.png", "../a.png"]
    assert list(find_photos(tmp_path, names)) == ["deep/b.png"]
    assert find_photos(tmp_path, names, side_by_side=True) == {
        "deep/a.png": (tmp_path / "a.png").resolve(),
        "deep/b.png": (tmp_path / "deep" / "b.png").resolve(),
    }


def test_case_of_an_ending_is_ignored_if_only_one_file_fits(tmp_path: Path):
    folder = tmp_path / "photos"
    for name in ("deep/a.JPG", "b.Jpg", "b.JPG", "c.PNG", "D.JPG", "e.jpg", "e.JPG"):
        draw(folder / name, 90)
    draw(tmp_path / OFF_LIMITS, 200)
    (folder / "f.PNG").symlink_to(tmp_path / OFF_LIMITS)
    names = ["deep/a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.png", "none/a.jpg", "a\0/b.jpg"]
    assert find_photos(folder, names) == {
        "deep/a.jpg": (folder / "deep" / "a.JPG").resolve(),
        "e.jpg": (folder / "e.jpg").resolve(),
    }


LIMIT = csv.field_size_limit()


@pytest.mark.parametrize("column", ["text", "site"])
@pytest.mark.parametrize("cell", ["dry\0skin", "d" * (LIMIT + 1)])
def test_cell_that_no_csv_file_can_hold_is_refused_by_name(tmp_path: Path, column: str, cell: str):
    rows = pd.DataFrame({"example_id": ["r1", "r2"], column: ["d" * LIMIT, cell]})
    said = rf"cannot be written \(1 fault\):\n  r2: {column}: .* of them"
    with pytest.raises(DataError, match=said):
        write_source(tmp_path / "out", name="x", rows=rows, counts={}, description="", facts={})
    assert not (tmp_path / "out").exists()


def test_ending_case_and_unicode_form_may_differ_together(tmp_path: Path):
    apart, whole = (unicodedata.normalize(form, "Hände/Ärm") for form in ("NFD", "NFC"))
    draw(tmp_path / f"{apart}.JPG", 90)
    for name in (whole, apart):  # either form, on a disk that keeps names as they are given
        assert find_photos(tmp_path, [f"{name}.jpg", f"{whole.lower()}.jpg"]) == {
            f"{name}.jpg": (tmp_path / f"{apart}.JPG").resolve()
        }
    with pytest.raises(DataError, match="none of the data set's photos is there"):
        find_photos(tmp_path, [f"h{whole[1:]}.jpg"])  # the name of another folder


@pytest.mark.parametrize("source", READERS)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_photo_is_read_or_written_outside_the_folder(source: str, hostile: str, tmp_path: Path):
    for suffix in (".png", ".jpg"):
        draw((tmp_path / OFF_LIMITS).with_suffix(suffix), 200)
    photo, out = hostile.format(root=tmp_path), tmp_path / "deep" / "out"
    (tmp_path / "photos" / "x").mkdir(parents=True)
    before = {path: path.read_bytes() for path in tmp_path.glob("outside.*")}
    try:
        SOURCES[source](out, tmp_path, photo)
    except DataError:
        assert not out.exists()
        return
    load_manifest(out / "manifest.csv")
    assert not set(before.values()) & set(read_tree(out).values())
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert {path: path.read_bytes() for path in tmp_path.glob("outside.*")} == before

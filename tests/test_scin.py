"""SCIN becomes a manifest: votes set labels, flags set texts, and shared photos set groups."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from eczema_tf import prepare
from eczema_tf.config import DataConfig
from eczema_tf.data.dataset import load_dataset
from eczema_tf.data.manifest.table import load_manifest
from eczema_tf.data.photo.embeddings import load_embeddings
from eczema_tf.data.sources.scin import (
    CASE_COLUMNS,
    LABEL_RULES,
    MONK_COLUMNS,
    VOTE_COLUMNS,
    compute_label,
    prepare_scin,
)
from eczema_tf.data.sources.scin_text import CATEGORIES, DURATIONS, FLAG_COLUMNS, describe_case
from eczema_tf.errors import DataError

YES, NO = "DEFAULT_YES_IMAGE_QUALITY_SUFFICIENT", "NO_IMAGE_QUALITY_INSUFFICIENT"
BLANK = dict.fromkeys(CASE_COLUMNS, "")


def photo(name: str) -> str:
    return f"dataset/images/{name}.png"


CASES = [  # the last case reports nothing
    {
        "case_id": "-1",
        "related_category": "RASH",
        "age_group": "AGE_18_TO_29",
        "sex_at_birth": "FEMALE",
        "image_1_path": photo("-11"),
        "image_2_path": photo("-12"),
        "image_3_path": photo("-13"),
    },
    {
        "case_id": "-2",
        "textures_flat": "YES",
        "age_group": "AGE_UNKNOWN",
        "sex_at_birth": "OTHER_OR_UNSPECIFIED",
        "image_1_path": photo("-21"),
    },
    {
        "case_id": "-3",
        "condition_symptoms_itching": "YES",
        "image_1_path": photo("-12"),
        "image_2_path": photo("-31"),
    },
    {"case_id": "-4", "textures_flat": "YES", "image_1_path": photo("-31")},
    {"case_id": "-5", "condition_duration": "ONE_DAY", "image_1_path": photo("-51")},
    {"case_id": "-6", "body_parts_arm": "YES", "image_1_path": photo("-61")},
    {"case_id": "-7", "age_group": "AGE_18_TO_29", "image_1_path": photo("-71")},
]
VOTES = {
    "-1": {"Eczema": 0.41, "Psoriasis": 0.59},
    "-2": {"Acne": 1.0},
    "-3": {"Eczema": 1.01},
    "-4": {},
    "-5": {"Infected eczema": 1.0},
    "-6": {},
    "-7": {"Eczema": 0.5, "Acne": 0.5},
}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Writes small official files; case -4 is ungradable, and case -6 gradable but unlabelled."""
    pd.DataFrame([BLANK | case for case in CASES]).to_csv(tmp_path / "cases.csv", index=False)
    labels = [
        dict.fromkeys(VOTE_COLUMNS, "")
        | {
            "case_id": case_id,
            "weighted_skin_condition_label": repr(vote),
            "dermatologist_gradable_for_skin_condition_1": NO if case_id == "-4" else YES,
        }
        | {
            "dermatologist_fitzpatrick_skin_type_label_1": "FST2",
            "dermatologist_fitzpatrick_skin_type_label_2": "FST4" if case_id == "-1" else "",
        }
        | {"dermatologist_fitzpatrick_skin_type_label_3": "FST5" if case_id == "-1" else ""}
        for case_id, vote in reversed(VOTES.items())
    ]
    pd.DataFrame(labels).to_csv(tmp_path / "labels.csv", index=False)
    return {"cases": tmp_path / "cases.csv", "labels": tmp_path / "labels.csv"}


def test_manifest_has_the_expected_labels_groups_and_counts(files: dict, tmp_path: Path):
    summary = prepare_scin(tmp_path / "out", **files)
    counts = {
        "cases": 7,
        "ungradable": 1,
        "unlabelled": 1,
        "between": 0,
        "empty": 1,
        "kept": 4,
        "eczema": 2,
        "photo_rows": 0,
        "text_rows": 4,
        "missing_photos": 0,
        "sharing": 2,
    }
    assert summary.counts == counts
    assert summary.manifest == tmp_path / "out" / "manifest.csv"
    table = load_manifest(summary.manifest).table.set_index("case_id")
    assert table["eczema"].to_dict() == {"-1": 0.41, "-2": 0.0, "-3": 1.0, "-5": 0.0}
    assert table["group_id"].to_dict() == {"-1": "-1", "-2": "-2", "-3": "-1", "-5": "-5"}
    assert set(table["source"]) == {"template"}
    assert set(table["consistency"]) == set(table["severity"]) == set(table["split"]) == {""}
    assert list(table.loc["-1", ["skin_tone", "age_group", "sex"]]) == ["IV", "18-29", "female"]
    assert list(table.loc["-2", ["skin_tone", "age_group", "sex"]]) == ["II", "", ""]
    written = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert written["counts"] == counts
    assert "template" in written["columns"]["text"]


@pytest.mark.parametrize(
    ("vote", "labels"),  # by share, any, majority, against-no-dermatitis
    [
        ({"Eczema": 0.41, "Psoriasis": 0.59}, [0.41, 1, 0, None]),
        ({"Eczema": 0.5, "Acne": 0.5}, [0.5, 1, 0, None]),
        ({"Eczema": 1.02}, [1, 1, 1, 1]),
        ({"Acne": 1.0}, [0, 0, 0, 0]),
        ({"Acne": 0.9, "Stasis Dermatitis": 0.1}, [0, 0, 0, None]),
        ({"Infected eczema": 1.0}, [0, 0, 0, None]),
        ({}, [0, 0, 0, 0]),
    ],
)
def test_compute_label_follows_each_rule(vote: dict[str, float], labels: list[float | None]):
    assert tuple(LABEL_RULES) == prepare.LABEL_RULES
    found = [compute_label(vote, rule) for rule in LABEL_RULES]
    assert [None if np.isnan(label) else label for label in found] == labels
    assert compute_label(vote) == labels[0]


def test_label_rule_and_the_cases_it_leaves_out_are_recorded(files: dict, tmp_path: Path):
    names = {"cases": "--cases", "labels": "--labels"}
    paths = [part for name, path in files.items() for part in (names[name], str(path))]
    out, rule = tmp_path / "out", "against-no-dermatitis"
    assert prepare.main(["scin", *paths, "--label", rule, "--out", str(out)]) == 0
    dataset = load_dataset(DataConfig(), out / "manifest.csv")
    table = dataset.table.set_index("case_id")
    assert table["eczema"].to_dict() == {"-2": 0.0, "-3": 1.0}
    assert set(table["label_rule"]) == {rule}
    kept = dataset.describe()
    assert kept.provenance["label"] == f"{rule}: {LABEL_RULES[rule]}"
    assert kept.not_kept == {
        "no dermatologist could grade the photos": 1,
        "no condition was named": 1,
        "the vote was between eczema by a majority and no dermatitis at all": 3,
        "nothing was reported, and no photo is available": 0,
    }
    assert kept.template_texts == len(table)


def test_monk_skin_tones_are_kept_if_the_release_has_them(files: dict, tmp_path: Path):
    labels = pd.read_csv(files["labels"], dtype=str, keep_default_na=False)
    tones = {"-1": ("10", "4.0"), "-2": ("nan", "10"), "-3": ("", "")}
    for place, column in enumerate(MONK_COLUMNS):
        labels[column] = [tones.get(case, ("", ""))[place] for case in labels["case_id"]]
    labels.to_csv(files["labels"], index=False)
    table = load_manifest(prepare_scin(tmp_path / "out", **files).manifest).table
    found = table.set_index("case_id")["monk_skin_tone"].to_dict()
    assert found == {"-1": "4", "-2": "10", "-3": "", "-5": ""}


def test_all_unreadable_votes_and_skin_tones_are_reported(files: dict, tmp_path: Path):
    labels = pd.read_csv(files["labels"], dtype=str, keep_default_na=False).set_index("case_id")
    for column, tone in zip(MONK_COLUMNS, ("3.5", "11"), strict=True):
        labels[column] = "4"
        labels.loc["-2", column] = tone
    labels.loc["-3", "weighted_skin_condition_label"] = "Eczema"
    labels.to_csv(files["labels"])
    with pytest.raises(
        DataError, match=r"votes or skin tones cannot be read \(3 faults\)"
    ) as caught:
        prepare_scin(tmp_path / "out", **files)
    assert str(caught.value).splitlines()[1:] == [
        "  case -3: weighted_skin_condition_label: allowed: {'Condition': weight, ...}; received"
        " 'Eczema'",
        "  case -2: monk_skin_tone_label_us: allowed: a whole number, 1 to 10; received '3.5'",
        "  case -2: monk_skin_tone_label_india: allowed: a whole number, 1 to 10; received '11'",
    ]


def test_groups_are_joined_through_a_case_that_is_left_out(files: dict, tmp_path: Path):
    cases = pd.read_csv(files["cases"], dtype=str, keep_default_na=False)
    cases.loc[cases["case_id"] == "-4", "image_2_path"] = photo("-51")
    cases.to_csv(files["cases"], index=False)
    table = load_manifest(prepare_scin(tmp_path / "out", **files).manifest).table.set_index(
        "case_id"
    )
    assert table["group_id"]["-5"] == table["group_id"]["-3"] == table["group_id"]["-1"]


@pytest.mark.parametrize("below", ["", "dataset/images"])
def test_available_photos_become_rows(files: dict, tmp_path: Path, below: str):
    (tmp_path / "photos" / below).mkdir(parents=True)
    for name in ("-11", "-12", "-51"):
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / below / f"{name}.png")
    summary = prepare_scin(tmp_path / "out", **files, images=tmp_path / "photos")
    table = load_manifest(summary.manifest).table
    rows = {
        "-1": [photo("-11"), photo("-12")],
        "-2": [""],
        "-3": [photo("-12")],
        "-5": [photo("-51")],
    }
    assert table.groupby("case_id")["image_path"].apply(list).to_dict() == rows
    assert (summary.counts["photo_rows"], summary.counts["text_rows"]) == (4, 1)
    assert summary.counts["missing_photos"] == 4  # -13, -21, -31 and -71
    assert table["example_id"].is_unique


def test_photos_with_an_embedding_become_rows(files: dict, tmp_path: Path):
    np.savez(
        tmp_path / "e.npz", image_path=[photo("-12"), "other"], embedding=np.eye(2, dtype="float32")
    )
    summary = prepare_scin(tmp_path / "out", **files, embeddings=tmp_path / "e.npz")
    embeddings = load_embeddings(tmp_path / "out" / "embeddings.npz")
    table = load_manifest(summary.manifest, embeddings=embeddings).table
    assert table.groupby("case_id")["image_path"].apply(list).to_dict() == {
        "-1": [photo("-12")],
        "-2": [""],
        "-3": [photo("-12")],
        "-5": [""],
    }


def test_images_or_embeddings_without_any_of_the_photos_are_an_error(files: dict, tmp_path: Path):
    np.savez(tmp_path / "e.npz", image_path=["other"], embedding=np.ones((1, 2)))
    (tmp_path / "photos").mkdir()
    for options, says in (
        ({"embeddings": tmp_path / "e.npz"}, "e.npz: has none of the labelled cases' photos, like"),
        ({"images": tmp_path / "photos"}, "none of the data set's photos is there, such as"),
    ):
        with pytest.raises(DataError, match=says):
            prepare_scin(tmp_path / "out", **files, **options)
    with pytest.raises(DataError, match="no such folder"):
        prepare_scin(tmp_path / "out", **files, images=tmp_path / "none")
    assert not (tmp_path / "out").exists()


def test_photo_path_that_leaves_the_folder_is_not_followed(files: dict, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    for path in ("photos/-51.png", "photos/-21.png", "-21.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / path)
    text = files["cases"].read_text().replace(photo("-21"), "../-21.png")
    files["cases"].write_text(text)
    table = load_manifest(
        prepare_scin(tmp_path / "out", **files, images=tmp_path / "photos").manifest
    ).table
    assert list(table.loc[table["image_path"] != "", "case_id"]) == ["-5"]


@pytest.mark.parametrize(
    "vote",
    [
        "__import__('pathlib').Path('{root}/ran').touch()",
        "{'Eczema': 2}",
        "{'Eczema': 1.06}",
        "{'Eczema': 'x'}",
        "[1]",
        "{'Eczema': ",
        "{'Eczema': nan}",
    ],
)
def test_all_cases_with_an_unreadable_vote_are_reported(files: dict, tmp_path: Path, vote: str):
    labels = pd.read_csv(files["labels"], dtype=str, keep_default_na=False)
    vote = vote.replace("{root}", tmp_path.as_posix())
    labels.loc[labels["case_id"].isin(["-1", "-2"]), "weighted_skin_condition_label"] = vote
    labels.to_csv(files["labels"], index=False)
    with pytest.raises(DataError, match=r"2 faults(.|\n)*case -1: (.|\n)*case -2: "):
        prepare_scin(tmp_path / "out", **files)
    assert not (tmp_path / "ran").exists()


def test_files_that_are_not_scin_are_errors(files: dict, tmp_path: Path):
    with pytest.raises(DataError, match="weighted_skin_condition_label"):
        prepare_scin(tmp_path / "out", cases=files["cases"], labels=files["cases"])
    (tmp_path / "latin.csv").write_bytes(b"case_id\ncaf\xe9\n")
    for bad in (tmp_path / "latin.csv", tmp_path, tmp_path / "none.csv"):
        with pytest.raises(DataError):
            prepare_scin(tmp_path / "out", cases=bad, labels=files["labels"])
    twice = files["cases"].read_text()
    files["cases"].write_text(twice + twice.splitlines()[1] + "\n")
    with pytest.raises(DataError, match=r"appear twice(.|\n)*-1"):
        prepare_scin(tmp_path / "out", **files)


def test_unknown_label_rule_or_one_that_labels_no_case_is_an_error(files: dict, tmp_path: Path):
    with pytest.raises(DataError, match="label 'shares': allowed: share, "):
        prepare_scin(tmp_path / "out", **files, label="shares")
    labels = pd.read_csv(files["labels"], dtype=str, keep_default_na=False)
    between = labels.assign(weighted_skin_condition_label="{'Eczema': 0.3}")
    between.to_csv(files["labels"], index=False)
    np.savez(tmp_path / "e.npz", image_path=["a"], embedding=np.zeros((1, 2), "float32"))
    told = {**files, "embeddings": tmp_path / "e.npz", "label": "against-no-dermatitis"}
    with pytest.raises(DataError, match="no case has a label by the rule against-no-dermatitis"):
        prepare_scin(tmp_path / "out", **told)


def test_text_says_what_was_ticked():
    case = BLANK | {
        "related_category": "RASH",
        "condition_duration": "ONE_TO_FOUR_WEEKS",
        "textures_flat": "YES",
        "body_parts_arm": "YES",
        "body_parts_leg": "YES",
        "condition_symptoms_itching": "YES",
        "condition_symptoms_burning": "YES",
        "condition_symptoms_pain": "YES",
        "other_symptoms_fever": "YES",
    }
    assert (
        describe_case(case)
        == "I have a rash for one to four weeks. It is flat. It is on my arm and leg. It itches,"
        " burns and hurts. I also have fever."
    )


def test_text_never_reads_a_blank_as_a_no():
    assert describe_case(BLANK) == ""
    for flag in FLAG_COLUMNS:
        words = describe_case(BLANK | {flag: "YES"}).lower().split()
        ticked_negation = flag == "condition_symptoms_no_relevant_experience"
        assert ticked_negation or not {"no", "not", "without", "none", "never"} & set(words)


def test_text_adds_nothing_that_was_not_reported():
    assert (
        describe_case(BLANK | {"condition_symptoms_itching": "YES"})
        == "I have a skin problem. It itches."
    )
    assert describe_case(BLANK | {"related_category": "LOOKS_HEALTHY"}) == "My skin looks healthy."
    for silence in (
        {"age_group": "AGE_18_TO_29", "sex_at_birth": "MALE"},
        {"condition_duration": "UNKNOWN"},
    ):
        assert describe_case(BLANK | silence) == ""


def test_case_that_reports_nothing_is_kept_only_with_a_photo(files: dict, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "-71.png")
    summary = prepare_scin(tmp_path / "out", **files, images=tmp_path / "photos")
    table = load_manifest(summary.manifest).table.set_index("case_id")
    assert list(table.loc["-7", ["image_path", "text", "eczema"]]) == [photo("-71"), "", 0.5]
    assert (
        summary.counts["empty"],
        summary.counts["kept"],
        summary.counts["photo_rows"],
        summary.counts["text_rows"],
    ) == (0, 5, 1, 4)
    cases = pd.read_csv(files["cases"], dtype=str, keep_default_na=False)
    cases[cases["case_id"] == "-7"].to_csv(files["cases"], index=False)
    with pytest.raises(DataError, match="no labelled case has a text or a photo; give --images"):
        prepare_scin(tmp_path / "silent", **files)


def test_every_flag_category_and_duration_changes_the_text():
    ticked = [BLANK | {flag: "YES"} for flag in FLAG_COLUMNS]
    chosen = [BLANK | {"related_category": category} for category in CATEGORIES] + [
        BLANK | {"condition_duration": time} for time in DURATIONS
    ]
    cases = [BLANK, *ticked, *chosen]
    assert len({describe_case(case) for case in cases}) == len(cases)


def test_real_files_give_the_known_counts_and_groups(shared: Path, tmp_path: Path):
    scin = shared / "data" / "scin"
    embeddings = scin / "image_embeddings_resnet50.npz"
    summary = prepare_scin(
        tmp_path / "out",
        cases=scin / "scin_cases.csv",
        labels=scin / "scin_labels.csv",
        embeddings=embeddings,
    )
    assert (
        summary.counts["cases"],
        summary.counts["kept"],
        summary.counts["empty"],
        summary.counts["eczema"],
    ) == (3554, 1867, 278, 646)
    assert (
        summary.counts["kept"]
        + summary.counts["empty"]
        + summary.counts["ungradable"]
        + summary.counts["unlabelled"]
        == summary.counts["cases"]
    )
    table = load_manifest(summary.manifest, embeddings=load_embeddings(embeddings)).table
    assert table["case_id"].nunique() == 1867
    assert table.loc[table["text"] != "", "case_id"].nunique() == 1838
    assert table.groupby("case_id")["group_id"].nunique().max() == 1
    assert (
        table.loc[table["image_path"] != "", ["image_path", "group_id"]]
        .drop_duplicates()["image_path"]
        .is_unique
    )
    assert (table["skin_tone"] != "").mean() > 0.95

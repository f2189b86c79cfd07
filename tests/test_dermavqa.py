"""DermaVQA: replies become labels, and the questions of one author become one group."""

import codecs
import copy
import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from eczema_tf.data.manifest.table import load_manifest
from eczema_tf.data.sources.dermavqa import (
    LEFT_OUT,
    QUESTION_COLUMNS,
    Encounter,
    Reply,
    judge_question,
    prepare_dermavqa,
    read_encounters,
)
from eczema_tf.errors import DataError

QUESTIONS = [
    # id, author, photos, replies, those with eczema, those with dermatitis, names a diagnosis
    ("Q1", "ann", "a.jpg b.jpg", 4, 2, 3, 0),  # half of the replies: eczema
    ("Q2", "ann", "c.jpg", 5, 0, 0, 0),  # other
    ("Q3", "bob", "", 3, 1, 1, 0),  # a third: unclear
    ("Q4", "bob", "", 2, 0, 1, 0),  # contact dermatitis: unclear
    ("Q5", "cem", "", 0, 0, 0, 0),  # nobody replied
    ("Q6", "cem", "", 1, 1, 1, 1),  # the question names the diagnosis
    ("Q7", "dan", "", 1, 0, 0, 0),  # other
]


@pytest.fixture
def encounters(tmp_path: Path) -> Path:
    rows = [(case, author, f"What is this, {case}?", *rest) for case, author, *rest in QUESTIONS]
    pd.DataFrame(rows, columns=QUESTION_COLUMNS).assign(responses="ignored").to_csv(
        tmp_path / "encounters.csv", index=False
    )
    return tmp_path / "encounters.csv"


def change(path: Path, case: str, **values: str) -> None:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    for column, value in values.items():
        table.loc[table["encounter_id"] == case, column] = value
    table.to_csv(path, index=False)


def test_manifest_has_the_expected_labels_groups_and_counts(encounters: Path, tmp_path: Path):
    summary = prepare_dermavqa(tmp_path / "out", encounters=encounters)
    counts = {
        "questions": 7,
        "without_reply": 1,
        "names_diagnosis": 1,
        "unclear": 2,
        "kept": 3,
        "eczema": 1,
        "authors": 2,
        "photo_rows": 0,
        "text_rows": 3,
        "missing_photos": 0,
    }
    assert summary.counts == counts
    assert "3 kept, of 2 authors" in summary.description
    table = load_manifest(summary.manifest).table.set_index("case_id")
    assert table["eczema"].to_dict() == {"Q1": 1.0, "Q2": 0.0, "Q7": 0.0}
    assert table["group_id"].to_dict() == {"Q1": "ann", "Q2": "ann", "Q7": "dan"}
    assert table["text"]["Q2"] == "What is this, Q2?"
    assert set(table["source"]) == {"dermavqa"}
    written = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert written["counts"] == counts
    assert list(written["not_kept"].values()) == [counts[fate] for fate in LEFT_OUT]
    assert written["licence"] == "CC BY 4.0"
    assert "Yim" in written["attribution"]


@pytest.mark.parametrize(
    ("counts", "fate"),
    [
        ((2, 1, 1, 0), "eczema"),
        ((3, 1, 1, 0), "unclear"),
        ((3, 0, 0, 0), "other"),
        ((3, 0, 1, 0), "unclear"),
        ((0, 0, 0, 1), "without_reply"),
        ((2, 2, 2, 1), "names_diagnosis"),
    ],
)
def test_judge_question_labels_a_question_or_leaves_it_out(counts: tuple[int, ...], fate: str):
    names = ("n_resp", "resp_eczema", "resp_dermatitis_family", "query_names_diagnosis")
    assert judge_question(dict(zip(names, counts, strict=True))) == fate


def test_available_photos_become_rows(encounters: Path, tmp_path: Path):
    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / name)
    summary = prepare_dermavqa(tmp_path / "out", encounters=encounters, images=tmp_path / "images")
    table = load_manifest(summary.manifest).table
    assert list(table["image_path"]) == ["photos/a.jpg", "photos/b.jpg", "", ""]
    assert list(table["example_id"]) == ["Q1-1", "Q1-2", "Q2-1", "Q7-1"]
    assert (
        summary.counts["photo_rows"],
        summary.counts["text_rows"],
        summary.counts["missing_photos"],
    ) == (2, 2, 1)


def test_photo_that_a_question_names_twice_is_one_row_and_not_missing(
    encounters: Path, tmp_path: Path
):
    change(encounters, "Q1", image_ids="a.jpg a.jpg")
    change(encounters, "Q2", image_ids="")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.jpg")
    counts = prepare_dermavqa(
        tmp_path / "out", encounters=encounters, images=tmp_path / "images"
    ).counts
    assert (counts["photo_rows"], counts["missing_photos"]) == (1, 0)


def test_folder_without_any_of_the_photos_is_an_error(encounters: Path, tmp_path: Path):
    (tmp_path / "images").mkdir()
    with pytest.raises(
        DataError, match=r"none of the data set's photos is there, such as 'a\.jpg'"
    ):
        prepare_dermavqa(tmp_path / "out", encounters=encounters, images=tmp_path / "images")
    with pytest.raises(DataError, match="no such folder"):
        prepare_dermavqa(tmp_path / "out", encounters=encounters, images=tmp_path / "none")
    assert not (tmp_path / "out").exists()


def test_every_fault_is_reported_at_once_with_its_line(encounters: Path, tmp_path: Path):
    change(encounters, "Q1", n_resp="many")
    change(encounters, "Q2", resp_eczema="9", query_en=" ")
    change(encounters, "Q3", query_names_diagnosis="2", author_id="")
    change(encounters, "Q7", encounter_id="Q6")
    with pytest.raises(DataError) as error:
        prepare_dermavqa(tmp_path / "out", encounters=encounters)
    message = str(error.value)
    assert "6 faults" in message
    for fault in (
        "encounters.csv:2: n_resp: allowed: a whole number, 0 or more; received 'many'",
        "encounters.csv:3: query_en: is empty",
        (
            "encounters.csv:3: allowed: resp_eczema <= resp_dermatitis_family <= n_resp; received"
            " 9, 0, 5"
        ),
        "encounters.csv:4: author_id: is empty",
        "encounters.csv:4: query_names_diagnosis: allowed: 0 or 1; received 2",
        "encounters.csv:8: encounter_id: 'Q6' appears twice",
    ):
        assert fault in message
    assert not (tmp_path / "out").exists()


def test_files_that_are_not_dermavqa_are_errors(encounters: Path, tmp_path: Path):
    pd.read_csv(encounters).drop(columns=["n_resp", "author_id"]).to_csv(encounters, index=False)
    with pytest.raises(
        DataError, match=r"2 faults(.|\n)*author_id: is missing(.|\n)*n_resp: is missing"
    ):
        prepare_dermavqa(tmp_path / "out", encounters=encounters)
    (tmp_path / "latin.csv").write_bytes(b"encounter_id\ncaf\xe9\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text(",".join(QUESTION_COLUMNS) + "\n")
    for bad in ("latin.csv", "empty.csv", "header.csv", "none.csv", ""):
        with pytest.raises(DataError):
            prepare_dermavqa(tmp_path / "out", encounters=tmp_path / bad)


def test_file_without_a_question_that_can_be_labelled_is_an_error(encounters: Path, tmp_path: Path):
    table = pd.read_csv(encounters, dtype=str).assign(query_names_diagnosis="1")
    table.to_csv(encounters, index=False)
    with pytest.raises(DataError, match=r"no question can be labelled: .*names_diagnosis.: 6"):
        prepare_dermavqa(tmp_path / "out", encounters=encounters)


def test_real_file_gives_the_known_counts(shared: Path, tmp_path: Path):
    summary = prepare_dermavqa(
        tmp_path / "out", encounters=shared / "data" / "dermavqa" / "encounters.csv"
    )
    assert (
        summary.counts["questions"],
        summary.counts["without_reply"],
        summary.counts["names_diagnosis"],
        summary.counts["unclear"],
    ) == (842, 0, 204, 183)
    assert (summary.counts["kept"], summary.counts["eczema"], summary.counts["authors"]) == (
        455,
        44,
        359,
    )
    table = load_manifest(summary.manifest).table
    assert table["group_id"].nunique() == 359
    assert not table["text"].str.contains("eczema", case=False).any()


OFFICIAL = [
    {
        "encounter_id": "Q1",
        "author_id": "ann",
        "image_ids": ["a.jpg", "b.jpg"],
        "query_title_en": "Arm",
        "query_content_en": "It itches.",
        "query_content_zh": "\u75d2",
        "responses": [
            {"author_id": "x", "content_en": "Eczema?", "content_zh": "\u6e7f\u75b9"},
            {"content_en": "Contact dermatitis"},
            {"content_en": "A bite"},
        ],
    },
    {"encounter_id": "Q2", "author_id": "bob", "query_content_en": "Is it tinea?", "responses": []},
]


def test_official_json_file_becomes_a_table(tmp_path: Path):
    (tmp_path / "train.json").write_text(json.dumps(OFFICIAL))
    table = read_encounters(tmp_path / "train.json")
    assert set(table.columns) == set(QUESTION_COLUMNS)
    assert table.loc[:, QUESTION_COLUMNS].values.tolist() == [
        ["Q1", "ann", "Arm. It itches.", "a.jpg b.jpg", "3", "1", "2", "0"],
        ["Q2", "bob", "Is it tinea?", "", "0", "0", "0", "1"],
    ]
    changed = copy.deepcopy(OFFICIAL)
    changed[0]["responses"][1]["content_en"] = "An eczema"
    (tmp_path / "train.json").write_text(json.dumps(changed))
    shouted = (tmp_path / "train.json").rename(tmp_path / "TRAIN.JSON")
    summary = prepare_dermavqa(tmp_path / "out", encounters=shouted)
    assert (summary.counts["kept"], summary.counts["eczema"]) == (1, 1)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("[]", "contains no questions"),
        ("{", "Invalid JSON"),
        ("[" * 100_000, "Invalid JSON"),
        ('[{"encounter_id": 3}]', "questions.0.author_id: Field required"),
    ],
)
def test_json_file_that_is_no_list_of_questions_is_refused(
    content: str, fault: str, tmp_path: Path
):
    (tmp_path / "train.json").write_text(content)
    with pytest.raises(DataError, match=fault):
        read_encounters(tmp_path / "train.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_encounters(tmp_path / "none.json")


def test_replies_are_counted_as_in_the_real_table(shared: Path):
    table = pd.read_csv(shared / "data" / "dermavqa" / "encounters.csv", keep_default_na=False)
    for question in table.to_dict("records"):
        replies = question["responses"].split(" || ") if question["responses"] else []
        encounter = Encounter(
            encounter_id=question["encounter_id"],
            author_id=question["author_id"],
            query_content_en=question["query_en"],
            image_ids=question["image_ids"].split(),
            responses=[Reply(content_en=reply) for reply in replies],
        )
        assert encounter.to_row() == {name: question[name] for name in QUESTION_COLUMNS}


def test_json_missing_value_markers_and_byte_order_mark_are_no_text(tmp_path: Path):
    question = {**OFFICIAL[0], "query_title_en": "N/A"}
    file = tmp_path / "train.json"
    file.write_bytes(codecs.BOM_UTF8 + json.dumps([question]).encode())
    assert read_encounters(file)["query_en"].tolist() == ["It itches."]
    file.write_text(json.dumps([{**question, "query_content_en": "nan"}]))
    with pytest.raises(DataError, match="query_en: is empty"):
        prepare_dermavqa(tmp_path / "out", encounters=file)


@pytest.mark.parametrize("column", ["encounter_id", "author_id", "query_en"])
def test_missing_value_marker_in_the_table_counts_as_empty(
    encounters: Path, tmp_path: Path, column: str
):
    change(encounters, "Q2", **{column: "N/A"})
    with pytest.raises(DataError, match=rf"encounters\.csv:3: {column}: is empty"):
        prepare_dermavqa(tmp_path / "out", encounters=encounters)

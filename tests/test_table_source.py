"""A map turns a table into a manifest: rules fill columns, values set labels, faults are errors."""

import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from eczema_tf.data.manifest.table import find_templates, load_manifest
from eczema_tf.data.sources.table import prepare_table
from eczema_tf.data.sources.table_map import Rule, fold, list_shipped, load_map
from eczema_tf.errors import ConfigError, DataError

MAP = """
name: clinic
where: the drawer
licence: ours
attribution: "The clinic"
columns:
  example_id: {template: "{id}"}
  group_id: {template: "{patient}"}
  image_path: {template: "{file}.png"}
  text:
    parts:
      - {template: "It is on the {place}."}
      - {template: "{itch}", values: {True: It itches., False: It does not itch., UNK: ""}}
  skin_tone: {template: "{tone}", values: {1: I, 2: II}, default: ""}
eczema: {column: disease, positive: [Eczema], negative: [acne, tinea]}
leave_out: {quality: [bad], disease: [dermatitis]}
"""
HEADER = "id,patient,file,place,itch,tone,disease,quality\n"
ROWS = """\
1,ann,a,arm,True,1.0,eczema ,good
2,ann,b,,UNK,9,Acne,good
3,bob,c,leg,false,2,TINEA,good
4,bob,d,leg,,,dermatitis,good
5,cem,e,leg,,,eczema,BAD
6,cem,f,leg,,,,good
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "map.yaml").write_text(MAP)
    (tmp_path / "table.csv").write_text(HEADER + ROWS)
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / f"{name}.png")
    return {"table": tmp_path / "table.csv", "map_path": tmp_path / "map.yaml"}


def test_map_sets_the_columns_labels_and_counts(files: dict, tmp_path: Path):
    summary = prepare_table(tmp_path / "out", **files, images=tmp_path / "photos")
    counts = {
        "rows": 6,
        "left_out": 2,
        "unlabelled": 1,
        "empty": 0,
        "kept": 3,
        "eczema": 1,
        "groups": 2,
        "photo_rows": 2,
        "text_rows": 1,
        "missing_photos": 1,
    }
    assert summary.counts == counts
    table = load_manifest(summary.manifest).table.set_index("example_id")
    assert table["text"].to_dict() == {
        "1": "It is on the arm. It itches.",
        "2": "",
        "3": "It is on the leg. It does not itch.",
    }
    assert table["image_path"].to_dict() == {"1": "photos/a.png", "2": "photos/b.png", "3": ""}
    assert table["eczema"].to_dict() == {"1": 1.0, "2": 0.0, "3": 0.0}
    assert table["skin_tone"].to_dict() == {"1": "I", "2": "", "3": "II"}
    assert table["group_id"].to_dict() == {"1": "ann", "2": "ann", "3": "bob"}
    assert table["condition"].to_dict() == {"1": "eczema", "2": "Acne", "3": "TINEA"}
    assert set(table["source"]) == {"clinic"}
    written = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert written["counts"] == counts
    assert written["left_out"] == {"quality": {"bad": 1}, "disease": {"dermatitis": 1}}
    assert (written["licence"], written["attribution"], written["where"]) == (
        "ours",
        "The clinic",
        "the drawer",
    )


def test_rows_of_a_case_are_one_group_if_the_map_names_no_group(files: dict, tmp_path: Path):
    files["map_path"].write_text(MAP.replace("group_id:", "case_id:"))
    files["table"].write_text(HEADER + ROWS.replace("Acne", "eczema"))
    summary = prepare_table(tmp_path / "out", **files, images=tmp_path / "photos")
    table = load_manifest(summary.manifest).table
    assert list(table["group_id"]) == list(table["case_id"]) == ["ann", "ann", "bob"]


@pytest.mark.parametrize(
    ("values", "name"), [(["TINEA", "acne"], "infected"), (["tinea"], "tinea")]
)
def test_positive_class_is_named_after_its_stand_in_or_its_value(
    files: dict, tmp_path: Path, values: list[str], name: str
):
    with files["map_path"].open("a") as file:
        file.write("stand_ins: {infected: [acne, tinea]}\n")
    summary = prepare_table(tmp_path / "out", **files, positive=values)
    table = load_manifest(summary.manifest).table
    assert table["eczema"].to_list() == [
        float(value.lower() in str(values).lower()) for value in table["condition"]
    ]
    assert set(table["positive_class"]) == {name}
    assert f"are {name}" in summary.description
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["positive_class"] == name


def test_requested_positive_value_that_no_row_has_is_an_error(files: dict, tmp_path: Path):
    with pytest.raises(DataError, match="disease: there is no tinnea; received "):
        prepare_table(tmp_path / "out", **files, positive=["acne", "tinnea"])


def test_diagnoses_are_counted_by_label_and_absent_ones_are_noted(
    files: dict, tmp_path: Path, capsys: pytest.CaptureFixture
):
    text = files["map_path"].read_text()
    files["map_path"].write_text(text.replace("[Eczema]", "[Eczema, atopic dermatitis]"))
    prepare_table(tmp_path / "out", **files)
    table = pd.read_csv(tmp_path / "out" / "manifest.csv")
    counted = json.loads((tmp_path / "out" / "dataset.json").read_text())["diagnoses"]
    for side, label in (("positive", 1), ("other", 0)):
        expected = table["condition"][table["eczema"] == label].value_counts()
        assert counted[side] == expected.to_dict() != {}
    assert "note: disease: no kept row is atopic dermatitis\n" in capsys.readouterr().err


def test_rows_with_a_text_are_kept_without_photos(files: dict, tmp_path: Path):
    summary = prepare_table(tmp_path / "out", **files)
    assert (
        summary.counts["kept"],
        summary.counts["empty"],
        summary.counts["text_rows"],
        summary.counts["missing_photos"],
    ) == (2, 1, 2, 0)
    assert list(load_manifest(summary.manifest).table["example_id"]) == ["1", "3"]


def test_parquet_table_gives_the_same_manifest_as_csv(files: dict, tmp_path: Path):
    table = pd.read_csv(files["table"]).astype({"id": "int64"})
    table["itch"] = [True, None, False, None, None, None]
    table.to_parquet(tmp_path / "table.parquet")
    prepare_table(tmp_path / "csv", **files)
    prepare_table(
        tmp_path / "parquet", table=tmp_path / "table.parquet", map_path=files["map_path"]
    )
    assert (tmp_path / "csv" / "manifest.csv").read_bytes() == (
        tmp_path / "parquet" / "manifest.csv"
    ).read_bytes()


def test_template_with_a_blank_column_gives_blank_or_the_default():
    row = {"a": "1", "b": " "}
    assert Rule(template="{a}-{a}").apply(row) == "1-1"
    assert Rule(template="{a}-{b}").apply(row) == ""
    assert Rule(template="{a}-{b}", default="none").apply(row) == "none"
    assert Rule(template="constant").apply(row) == "constant"
    assert Rule(template="It is on the {b}.").apply({"b": "NaN"}) == ""  # no sentence is made
    assert Rule(template="{b}").apply({"b": "NA"}) == "NA"  # it may be an id
    told = Rule(template="itch {b}", values={"itch unknown": "It may itch."})
    assert told.apply({"b": "unknown"}) == "It may itch."
    assert Rule(parts=[Rule(template="{b}"), Rule(template="x{a}")]).apply(row) == "x1"


def test_whole_numbers_in_a_template_have_no_decimals(files: dict, tmp_path: Path):
    row = {"a": " 100.0 ", "b": "0.50", "c": "1.0.0", "d": "-7.00"}
    assert Rule(template="{a}_{b}_{c}_{d}.jpg").apply(row) == "100_0.50_1.0.0_-7.jpg"
    files["map_path"].write_text(MAP.replace("{file}.png", "{id}.png"))
    files["table"].write_text(HEADER + ROWS.replace("1,ann", "1.0,ann.0", 1))
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "1.png")
    summary = prepare_table(tmp_path / "out", **files, images=tmp_path / "photos")
    table = load_manifest(summary.manifest).table.set_index("example_id")
    assert table["image_path"]["1"] == "photos/1.png"


def test_only_the_first_few_missing_photos_are_named(files: dict, tmp_path: Path):
    rows = "".join(f"{place},x,m{place % 5},leg,,,acne,good\n" for place in range(10, 20))
    files["table"].write_text(HEADER + ROWS + rows)
    summary = prepare_table(tmp_path / "out", **files, images=tmp_path / "photos")
    assert summary.description.endswith(
        "11 photos are missing, such as 'c.png', 'm0.png', 'm1.png'"
    )


def test_braces_in_a_value_are_not_expanded():
    assert Rule(template="{a}").apply({"a": "{b}", "b": "secret"}) == "{b}"


def test_values_are_compared_without_case_spacing_and_zero_decimals():
    odd = ("Hand  \u00a0Ekze\u0301m", " Eczema", "3.0", "-1.00", "3.5", "PAT_1.0")
    assert [fold(value) for value in odd] == [
        "hand ekz\u00e9m",
        "eczema",
        "3",
        "-1",
        "3.5",
        "pat_1.0",
    ]
    assert Rule(template="{a}", values={"3": "III"}).apply({"a": "3.0"}) == "III"


def test_all_values_that_the_map_does_not_know_are_reported(files: dict, tmp_path: Path):
    files["table"].write_text(
        HEADER + ROWS + "7,x,g,arm,maybe,1,measles,good\n8,x,h,arm,maybe,1,acne,good\n"
    )
    with pytest.raises(DataError) as error:
        prepare_table(tmp_path / "out", **files)
    assert "2 faults" in str(error.value)
    assert (
        "table.csv:8: eczema: is neither positive nor negative; received 'measles' (1 row)"
        in str(error.value)
    )
    assert (
        "table.csv:8: text: {itch} is not among the values of the map; received 'maybe' (2 rows)"
        in str(error.value)
    )


def test_all_missing_columns_are_reported(files: dict, tmp_path: Path):
    files["table"].write_text("id,patient,file\n1,ann,a\n")
    with pytest.raises(
        DataError,
        match=(
            r"5 faults(.|\n)*place: is missing(.|\n)*disease: is missing(.|\n)*quality: is missing"
        ),
    ):
        prepare_table(tmp_path / "out", **files)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty; allowed: a CSV file with the columns id, patient"),
        (b"\xef\xbb\xbf\n", "is empty"),
        (HEADER.encode(), "has a header but no rows"),
        (HEADER.encode() + b"caf\xe9,x\n", "table.csv:2: is not UTF-8"),
        (HEADER.encode() + b"1,ann,a,arm,True,1,eczema\n", "table.csv:2: has 7 fields; allowed: 8"),
        (b"id," + HEADER.encode() + b"1,1,ann,a,arm,True,1,eczema,good\n", "id: appears 2 times"),
        (HEADER.encode() + b'1,"ann,a\n', "not valid CSV"),
        (HEADER.encode() + b"1,a\0n,a,arm,True,1,eczema,good\n", "NUL"),
    ],
)
def test_unreadable_table_is_an_error(files: dict, tmp_path: Path, data: bytes, says: str):
    files["table"].write_bytes(data)
    with pytest.raises(DataError) as error:
        prepare_table(tmp_path / "out", **files)
    assert says in str(error.value)
    (tmp_path / "table.parquet").write_bytes(data)
    with pytest.raises(DataError, match="not readable as Parquet"):
        prepare_table(
            tmp_path / "out", table=tmp_path / "table.parquet", map_path=files["map_path"]
        )


def test_contradicting_rows_are_reported_with_their_lines(files: dict, tmp_path: Path):
    files["map_path"].write_text(
        MAP.replace("  group_id", '  case_id: {template: "{patient}"}\n  group_id')
    )
    files["table"].write_text(
        HEADER
        + '1,ann,a,"upper\narm",True,1,eczema,good\n'
        + "2,ann,b,arm,True,1,acne,good\n2,bob,c,arm,,1,acne,good\n"
    )
    with pytest.raises(DataError) as error:
        prepare_table(tmp_path / "out", **files)
    assert "table.csv:4: eczema: differs within a case" in str(error.value)
    assert "table.csv:5: example_id: appears twice" in str(error.value)


def test_map_whose_positive_values_no_row_has_is_an_error(files: dict, tmp_path: Path):
    files["map_path"].write_text(
        MAP.replace("positive: [Eczema]", "positive: [eczma]").replace(
            ", negative: [acne, tinea]", ""
        )
    )
    with pytest.raises(DataError, match="disease: none of eczma is there; received "):
        prepare_table(tmp_path / "out", **files)


def test_error_if_no_row_or_photo_remains(files: dict, tmp_path: Path):
    files["map_path"].write_text(
        MAP.replace("leave_out: {quality: [bad]", "leave_out: {quality: [bad, good]")
    )
    with pytest.raises(DataError, match="no row is left"):
        prepare_table(tmp_path / "out", **files)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="none of the data set's photos is there; no row names one"):
        prepare_table(tmp_path / "out", **files, images=tmp_path / "empty")
    files["map_path"].write_text(MAP)
    with pytest.raises(DataError, match=r"photos is there, such as '\w+\.png'"):
        prepare_table(tmp_path / "out", **files, images=tmp_path / "empty")
    assert not (tmp_path / "out").exists()


def test_all_faults_of_a_map_are_reported(files: dict):
    text = (
        MAP.replace('template: "{id}"', 'templte: "{id}"')
        .replace("licence: ours\n", "")
        .replace("values: {1: I", "values: {1: [I]")
    )
    files["map_path"].write_text(text)
    with pytest.raises(ConfigError) as error:
        load_map(files["map_path"])
    for fault in (
        "columns.example_id.templte: unknown key; did you mean 'template'?",
        "licence: field required",
        "columns.skin_tone.values.1: input should be a valid string",
    ):
        assert fault in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "  group_id:",
            "  groupid:",
            "not a column of the manifest: groupid; allowed: example_id, case_id",
        ),
        ("  group_id:", "  eczema:", "not a column of the manifest: eczema"),
        ("eczema: {", "clinical: {sex: {template: x}}\neczema: {", "columns of the manifest: sex"),
        (
            'example_id: {template: "{id}"}',
            'case_id: {template: "{id}"}',
            "example_id and at least one of image_path and text must have a rule",
        ),
        ('{template: "{id}"}', "{values: {1: x}}", "either template or parts"),
        ('{template: "{id}"}', '{template: "{id"}', "a brace is unmatched"),
        ('{template: "{id}"}', '{template: "id}"}', "a brace is unmatched"),
        ('{template: "{id}"}', '{template: "{id}", parts: []}', "either template or parts"),
        ('{template: "{id}"}', "{parts: [], values: {1: x}}", "values belong to a template"),
        ("negative: [acne, tinea]", "negative: [ECZEMA]", "positive and negative at once: eczema"),
        ("name: clinic", "nmae: clinic", "nmae: unknown key; did you mean 'name'"),
    ],
)
def test_inconsistent_map_is_an_error(files: dict, old: str, new: str, says: str):
    assert old in MAP
    files["map_path"].write_text(MAP.replace(old, new))
    with pytest.raises(ConfigError, match=r"map .* is not valid") as error:
        load_map(files["map_path"])
    assert says in str(error.value)


def test_error_for_a_missing_map_lists_the_shipped_ones(tmp_path: Path):
    with pytest.raises(
        ConfigError,
        match=(
            "no such map; allowed: a YAML file, or one of: ddi, fitzpatrick17k, pad_ufes_20,"
            " skincap"
        ),
    ):
        load_map(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", list_shipped())
def test_shipped_maps_state_their_source_and_what_was_looked_up(name: str):
    mapping = load_map(name)
    assert mapping.name == name
    assert "https://" in mapping.where
    assert all((mapping.licence, mapping.attribution, mapping.notes))
    text = (Path(load_map.__globals__["SHIPPED_MAPS"]) / f"{name}.yaml").read_text()
    assert "# Looked up" in text


def test_output_folder_may_have_the_name_of_a_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ddi.csv").write_text(
        "DDI_file,skin_tone,disease\n1.png,12,eczema-spongiotic-dermatitis\n2.png,,acne-cystic\n"
    )
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "1.png")
    for _ in range(2):
        summary = prepare_table(
            "ddi", table="ddi.csv", map_path="ddi", images="photos", overwrite=True
        )
    assert (summary.counts["kept"], summary.counts["empty"]) == (1, 1)
    with pytest.raises(DataError, match=r"no row is left; give the photos with --images"):
        prepare_table("other", table="ddi.csv", map_path="ddi")


def test_pad_ufes_texts_and_fields_say_only_what_was_answered(tmp_path: Path):
    mapping = load_map("pad_ufes_20")
    columns = dict.fromkeys([*mapping.list_columns(), *mapping.list_clinical_columns()])
    answered = {
        "img_id": "PAT_1_2_3.png",
        "patient_id": "PAT_1",
        "lesion_id": "2",
        "region": "FOREARM",
        "itch": "True",
        "hurt": "False",
        "grew": "UNK",
        "changed": "",
        "bleed": "FALSE",
        "elevation": "TRUE",
        "fitspatrick": "3.0",
        "gender": "MALE",
        "age": "55",
        "diagnostic": "NEV",
    }
    silent = dict.fromkeys(columns, "UNK") | {
        "img_id": "PAT_1_2_4.png",
        "patient_id": "PAT_1",
        "lesion_id": "2",
        "region": "",
        "fitspatrick": "",
        "gender": "",
        "diagnostic": "NEV",
    }
    itching = silent | {"img_id": "PAT_1_2_5.png", "itch": "True"}
    pd.DataFrame([answered, silent, itching], columns=[*columns]).to_csv(
        tmp_path / "metadata.csv", index=False
    )
    summary = prepare_table(
        tmp_path / "out", table=tmp_path / "metadata.csv", map_path="pad_ufes_20"
    )
    table = load_manifest(summary.manifest).table
    assert list(table["text"]) == [
        (
            "I have a skin problem on my forearm. It itches. It does not hurt. It has not bled. It"
            " is raised."
        ),
        "It itches.",
    ]
    assert summary.counts["empty"] == 1
    assert list(table["skin_tone"]) == ["III", ""]
    assert list(table["sex"]) == ["male", ""]
    fields = table.loc[0, ["age", "site", "itch", "hurt", "grew", "changed"]]
    assert list(fields) == ["55", "FOREARM", "yes", "no", "", ""]
    assert set(table["case_id"]) == {"PAT_1-2"}
    assert set(table["eczema"]) == {0.0}


def test_missing_value_marker_is_no_diagnosis_unless_the_map_lists_it(files: dict, tmp_path: Path):
    values = ["eczema", "acne", "NaN", "N/A", "unknown", "None", "-"]
    rows = [f"{n},p{n},,arm,,,{value},good" for n, value in enumerate(values)]
    files["table"].write_text(HEADER + "\n".join(rows) + "\n")
    text = MAP.replace(", negative: [acne, tinea]", "")
    files["map_path"].write_text(text)
    summary = prepare_table(tmp_path / "out", **files)
    assert (summary.counts["kept"], summary.counts["unlabelled"]) == (2, 5)
    files["map_path"].write_text(text.replace("[Eczema]", "[Eczema], negative: [acne, none]"))
    kept = load_manifest(prepare_table(tmp_path / "other", **files).manifest).table
    assert kept["condition"].tolist() == ["eczema", "acne", "None"]
    files["map_path"].write_text(text.replace("[Eczema]", "[Eczema, Unknown]"))
    kept = load_manifest(prepare_table(tmp_path / "third", **files).manifest).table
    assert kept["condition"].tolist() == ["eczema", "acne", "unknown"]
    assert kept["eczema"].tolist() == [1, 0, 1]


def test_cells_are_read_as_in_a_manifest(files: dict, tmp_path: Path):
    nested = tmp_path / "photos" / "sub"
    nested.mkdir()
    Image.new("RGB", (8, 8)).save(nested / "a.png")
    given = ("sub\\a", "./sub/a", "sub/a", "n/a")
    rows = [
        f"{n},p{n},{name},nan,,,{value},good"
        for n, name in enumerate(given)
        for value in ["eczema"]
    ]
    files["table"].write_text(HEADER + "\r\n".join([*rows, "9,q,a,arm,,,acne,good"]) + "\r\n")
    files["map_path"].write_text(
        MAP.replace("{place}.", "{place}").replace("It is on the {place}", "{place}")
    )
    summary = prepare_table(tmp_path / "out", **files, images=tmp_path / "photos")
    table = load_manifest(summary.manifest).table
    assert table["example_id"].tolist() == ["0", "1", "2", "9"]
    assert len({Path(file).read_bytes() for file in table["image_file"]}) == 1
    assert (summary.counts["photo_rows"], summary.counts["empty"]) == (4, 1)


def test_text_kind_column_of_a_map_is_written(files: dict, tmp_path: Path):
    files["map_path"].write_text(
        MAP.replace("eczema: {", "  text_kind: {template: template}\neczema: {", 1)
    )
    table = load_manifest(prepare_table(tmp_path / "out", **files).manifest).table
    assert set(table["text_kind"]) == {"template"}
    assert find_templates(table).all()


def test_positive_value_that_cannot_be_a_report_name_is_refused(files: dict, tmp_path: Path):
    files["table"].write_text((HEADER + ROWS).replace("Acne", "acne (severe)"))
    with pytest.raises(ConfigError, match=r"--positive: is not a name for reports: .*stand_ins"):
        prepare_table(tmp_path / "out", **files, positive=["acne (severe)"])


def test_clinical_field_without_its_column_is_noted(files: dict, tmp_path: Path, capsys):
    with files["map_path"].open("a") as file:
        file.write("clinical: {age: {template: '{agee}'}}\n")
    prepare_table(tmp_path / "out", **files)
    assert capsys.readouterr().err.count("note: the field age is left out: there is no agee\n") == 1


def test_path_that_ends_in_a_map_name_does_not_load_the_shipped_map(
    files: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert load_map("ddi").name == "ddi"
    monkeypatch.chdir(tmp_path)
    for path in (f"{tmp_path}/maps/ddi", "./ddi", "../maps/ddi"):
        with pytest.raises(ConfigError, match=r"/ddi: no such map"):
            load_map(path)
    (tmp_path / "ddi").write_text(MAP)
    assert load_map("ddi") == load_map(files["map_path"])

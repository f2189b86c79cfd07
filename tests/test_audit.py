"""The leakage audit finds planted leaks, reports none in clean data and joins groups."""

import json
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from eczema_tf.config import DataConfig
from eczema_tf.data.audit import near_photos, near_texts
from eczema_tf.data.audit.audit import (
    AuditReport,
    GroupCounts,
    NotCompared,
    audit_dataset,
    check_splits,
)
from eczema_tf.data.audit.diagnoses import find_named_diagnoses, mask_diagnoses, name_diagnoses
from eczema_tf.data.audit.duplicates import (
    DUPLICATE_KINDS,
    Duplicates,
    find_duplicates,
    merge_groups,
)
from eczema_tf.data.audit.near_photos import find_near_photos
from eczema_tf.data.audit.near_texts import split_words
from eczema_tf.data.dataset import Dataset, DatasetFacts, load_dataset
from eczema_tf.data.photo.inspection import inspect_photos
from eczema_tf.data.sources.scin import PHOTO_COLUMNS, prepare_scin
from eczema_tf.data.sources.synthetic import prepare_synthetic
from eczema_tf.data.splits import assign_folds, assign_splits
from eczema_tf.errors import DataError
from eczema_tf.schema import MAX_TEXT_BYTES
from eczema_tf.workflows.audit import AuditedDataset, load_as_trained, load_audited

FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}

COMPLAINT = (
    "For three weeks I have had a rash behind my left knee that burns whenever I take off my"
    " cycling shorts after work."
)
CHANGED = COMPLAINT.replace("left", "right")
OTHERS = [
    (
        "My little boy scratches both ankles all night since we came back from the lake, and creams"
        " only help for an hour."
    ),
    (
        "A round patch appeared on my chest after I borrowed a towel at the gym; its edge is raised"
        " and slowly moves outwards."
    ),
    (
        "Every winter the backs of my hands crack and bleed, mostly where the rings sit, and"
        " washing dishes makes them sting."
    ),
]
GOLDEN = Duplicates(
    pd.DataFrame(
        [
            ("near_photo", "a", "a"),
            ("near_photo", "a", "c"),
            ("identical_text", "b", "b"),
            ("identical_text", "b", "c"),
        ],
        columns=["kind", "cluster", "example_id"],
    )
)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the manifest of 60 built-in cases."""
    folder = tmp_path_factory.mktemp("clean") / "data"
    return prepare_synthetic(folder, cases=60, seed=3).manifest


def write_manifest(folder: Path, rows: list[dict]) -> Dataset:
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return load_dataset(DataConfig(), folder / "manifest.csv")


def draw_photo(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(60, 220, (12, 16, 3)).astype("uint8")
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def shrink(files: list[Path]) -> np.ndarray:
    return np.stack(inspect_photos(map(str, files))["gray"])


def found(duplicates: Duplicates, kind: str) -> list[list[str]]:
    members = duplicates.members[duplicates.members["kind"] == kind]
    return [list(ids) for _, ids in members.groupby("cluster")["example_id"]]


def texts_of(*texts: str) -> list[dict]:
    return [{"example_id": f"r{row}", "text": text} for row, text in enumerate(texts)]


def plant(manifest: Path, rows: list[dict], photos: dict[str, Image.Image]) -> Dataset:
    """Adds rows and photos to a manifest."""
    for name, image in photos.items():
        image.save(manifest.parent / "photos" / name, quality=70)
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    table = pd.concat([table, pd.DataFrame(rows)]).fillna("")
    table.to_csv(manifest.with_name("planted.csv"), index=False)
    return load_dataset(DataConfig(), manifest.with_name("planted.csv"))


# Planted leaks


def test_clean_data_have_no_findings(clean: Path):
    dataset = load_dataset(DataConfig(), clean)
    audit = audit_dataset(dataset, label_threshold=0.5, join=True)
    assert audit.duplicates.members.empty
    assert audit.group_id.equals(dataset.table["group_id"])
    assert audit.report.named_diagnoses["own"].texts == 0
    splits = assign_splits(dataset.table, fractions=FRACTIONS, seed=0, label_threshold=0.5)
    assert check_splits(dataset.table, splits, audit.duplicates) == []


def test_altered_copies_of_a_photo_are_found_and_joined(clean: Path):
    table = pd.read_csv(clean, dtype=str, keep_default_na=False)
    row = table[table["image_path"] != ""].iloc[5]
    with Image.open(clean.parent / row["image_path"]) as image:
        copies = {
            "small.jpg": image.resize((image.width // 2, image.height // 2)),
            "bright.jpg": ImageEnhance.Brightness(image).enhance(1.1),
            "turned.jpg": image.transpose(Image.Transpose.ROTATE_90),
            "mirrored.jpg": image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        }
        rows = [
            {"example_id": name, "case_id": name, "image_path": f"photos/{name}"} for name in copies
        ]
        dataset = plant(clean, rows, copies)
    audit = audit_dataset(dataset, label_threshold=0.5, join=True)
    assert found(audit.duplicates, "near_photo") == [sorted([row["example_id"], *copies])]
    assert found(audit.duplicates, "identical_photo") == []
    joined = audit.group_id[dataset.table["example_id"].isin([row["example_id"], *copies])]
    assert len(set(joined)) == 1
    assert audit.report.groups.merged == 5


def test_group_in_both_train_and_test_is_reported():
    table = pd.DataFrame({"example_id": ["a", "b", "c"], "group_id": ["x", "x", "y"]})
    none = Duplicates(GOLDEN.members[:0])
    assert check_splits(table, pd.Series(["train", "test", "test"]), none) == [
        "group 'x': test has 1 of its rows ('b'), train has 1 of its rows ('a')"
    ]
    assert check_splits(table, pd.Series(["train", "train", "test"]), none) == []


def test_text_with_one_word_changed_is_found_and_joined(tmp_path: Path):
    dataset = write_manifest(tmp_path, texts_of(COMPLAINT, *OTHERS, CHANGED))
    duplicates = find_duplicates(dataset)
    assert found(duplicates, "near_text") == [["r0", "r4"]]
    assert found(duplicates, "identical_text") == []
    assert list(merge_groups(dataset.table, duplicates)) == ["r0", "r1", "r2", "r3", "r0"]


def test_text_with_one_word_changed_is_found_among_stock_phrases(clean: Path):
    table = pd.read_csv(clean, dtype=str, keep_default_na=False)
    long = table[table["text"].str.split().str.len() >= 30]
    for row in long.head(5).to_dict("records"):
        words = row["text"].split()
        words[len(words) // 2] = "banana"
        dataset = plant(clean, [{"example_id": "copy", "text": " ".join(words)}], {})
        copies = found(find_duplicates(dataset), "near_text")
        assert len(copies) == 1
        assert {"copy", row["example_id"]} <= set(copies[0])


def test_identical_photos_and_texts_in_two_cases_are_found(tmp_path: Path):
    draw_photo(0).save(tmp_path / "a.png")
    draw_photo(0).save(tmp_path / "b.png")
    draw_photo(1).save(tmp_path / "c.png")
    rows = [
        {"example_id": name, "image_path": f"{name}.png", "text": text}
        for name, text in zip(
            "abc", ["", COMPLAINT, COMPLAINT.upper().replace(".", " !")], strict=True
        )
    ]
    duplicates = find_duplicates(write_manifest(tmp_path, rows))
    assert found(duplicates, "identical_photo") == [["a", "b"]]
    assert found(duplicates, "identical_text") == [["b", "c"]]
    assert found(duplicates, "near_photo") == found(duplicates, "near_text") == []


def test_duplicates_within_one_case_are_ignored(tmp_path: Path):
    draw_photo(0).save(tmp_path / "a.png")
    rows = [
        {"example_id": name, "case_id": "one", "image_path": "a.png", "text": COMPLAINT}
        for name in "ab"
    ]
    assert find_duplicates(write_manifest(tmp_path, rows)).members.empty


def test_check_splits_reports_duplicates_of_every_kind_across_splits():
    table = pd.DataFrame({"example_id": ["a", "b", "c"], "group_id": ["x", "y", "z"]})
    rows = [(kind, "a", example_id) for kind in DUPLICATE_KINDS for example_id in "ac"]
    duplicates = Duplicates(pd.DataFrame(rows, columns=GOLDEN.members.columns))
    nouns = ("identical photo", "identical text", "near-duplicate photo", "nearly identical text")
    assert check_splits(table, pd.Series(["train", "train", "test"]), duplicates) == [
        f"{noun}: test has 1 of its rows ('c'), train has 1 of its rows ('a')" for noun in nouns
    ]
    assert check_splits(table, pd.Series([0, 0, 0]), duplicates) == []


# Groups


def test_groups_are_joined_through_a_chain_of_duplicates():
    table = pd.DataFrame(
        {"example_id": ["d", "c", "b", "a", "e"], "group_id": ["w", "y", "z", "x", "w"]}
    )
    assert list(merge_groups(table, GOLDEN)) == ["w", "x", "x", "x", "w"]


def test_splits_and_folds_of_joined_groups_have_no_leaks(tmp_path: Path):
    rows = [
        row | {"eczema": place % 2}
        for place, row in enumerate(texts_of(*OTHERS, COMPLAINT, CHANGED, COMPLAINT))
    ]
    dataset = write_manifest(tmp_path, rows)
    audit = audit_dataset(dataset, label_threshold=0.5, join=True)
    joined = dataset.table.assign(group_id=audit.group_id)
    for seed in range(10):
        for splits in (
            assign_splits(joined, fractions=FRACTIONS, seed=seed, label_threshold=0.5),
            assign_folds(joined, folds=2, seed=seed, label_threshold=0.5),
        ):
            assert check_splits(dataset.table, splits, audit.duplicates) == []


def test_row_order_does_not_matter(tmp_path: Path):
    for seed in range(4):
        draw_photo(seed // 2, (300 + 40 * (seed % 2), 240)).save(tmp_path / f"{seed}.jpg")
    rows = [
        {"example_id": f"r{row}", "image_path": f"{row % 4}.jpg", "text": text}
        for row, text in enumerate([COMPLAINT, *OTHERS, CHANGED, COMPLAINT])
    ]
    first = write_manifest(tmp_path, rows)
    second = write_manifest(tmp_path, rows[::-1])
    one, two = find_duplicates(first), find_duplicates(second)
    pd.testing.assert_frame_equal(one.members, two.members)
    assert set(one.members["kind"]) == set(one.kinds)
    groups = [
        dict(zip(data.table["example_id"], merge_groups(data.table, found_), strict=True))
        for data, found_ in [(first, one), (second, two)]
    ]
    assert groups[0] == groups[1]


def test_empty_table_has_no_duplicates():
    table = pd.DataFrame(
        columns=[
            "example_id",
            "case_id",
            "group_id",
            "image_path",
            "image_file",
            "text",
            "source",
            "eczema",
        ],
        dtype=str,
    )
    photos = inspect_photos([])
    manifest = type("Empty", (), {"table": table})
    audit = audit_dataset(Dataset(manifest, photos, None), label_threshold=0.5, join=True)
    assert audit.duplicates.members.empty
    assert audit.group_id.empty
    assert audit.report.groups == GroupCounts(before=0, after=0, merged=0, largest_cases=0)
    assert check_splits(table, pd.Series(dtype=str), audit.duplicates) == []


@pytest.mark.parametrize("row", [{"text": COMPLAINT}, {"image_path": "a.png"}])
def test_single_row_has_no_duplicates(tmp_path: Path, row: dict):
    draw_photo(0).save(tmp_path / "a.png")
    audit = audit_dataset(
        write_manifest(tmp_path, [{"example_id": "only"} | row]), label_threshold=0.5, join=True
    )
    assert audit.duplicates.members.empty
    assert audit.report.describe() == "audit: no duplicates across cases, no text names a diagnosis"


# Photos


@pytest.mark.parametrize(
    ("scale", "quality", "brightness"),
    [(1, 95, 1), (0.5, 75, 1), (2, 60, 1), (0.6, 80, 1.15), (0.3, 80, 0.85)],
)
def test_rescaled_and_reencoded_photo_is_a_near_duplicate(
    tmp_path: Path, scale: float, quality: int, brightness: float
):
    image = draw_photo(7)
    image.save(tmp_path / "a.png")
    copy = ImageEnhance.Brightness(image).enhance(brightness)
    copy.resize((int(image.width * scale), int(image.height * scale))).save(
        tmp_path / "b.jpg", quality=quality
    )
    gray = shrink([tmp_path / name for name in ("a.png", "b.jpg")])
    assert find_near_photos(gray).tolist() == [[0, 1]]


def test_photo_in_another_pixel_mode_is_a_near_duplicate(tmp_path: Path):
    image = draw_photo(7)
    image.save(tmp_path / "rgb.jpg")
    image.convert("RGBA").save(tmp_path / "alpha.png")
    Image.fromarray(np.asarray(image.convert("L")).astype("uint16") * 257).save(
        tmp_path / "16bit.png"
    )
    gray = shrink([tmp_path / name for name in ("rgb.jpg", "alpha.png", "16bit.png")])
    assert find_near_photos(gray).tolist() == [[0, 1], [0, 2], [1, 2]]


def test_only_the_copy_is_near_among_photos_of_two_blocks(tmp_path: Path):
    for seed in range(300):
        draw_photo(seed, (96, 64)).save(tmp_path / f"{seed}.jpg")
    draw_photo(12, (96, 64)).transpose(Image.Transpose.ROTATE_180).save(tmp_path / "300.jpg")
    gray = shrink([tmp_path / f"{seed}.jpg" for seed in range(301)])
    assert find_near_photos(gray).tolist() == [[12, 300]]


def draw_spot(seed: int) -> Image.Image:
    """Draws one round spot on plain skin, a picture that a few numbers fully describe."""
    rng = np.random.default_rng(seed)
    x, y, radius = rng.integers(36, 60), rng.integers(36, 60), rng.integers(10, 14)
    rows, columns = np.mgrid[:96, :96]
    skin = np.where((columns - x) ** 2 + (rows - y) ** 2 < radius**2, 110, 190)
    noisy = Image.fromarray((skin + rng.normal(0, 8, skin.shape)).clip(0, 255).astype("uint8"))
    return noisy.filter(ImageFilter.GaussianBlur(1))


def test_spots_on_different_skin_are_not_near_but_a_copy_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for seed in range(60):
        draw_spot(seed).save(tmp_path / f"{seed}.png")
    draw_spot(7).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "60.jpg", quality=85)
    gray = shrink([tmp_path / f"{seed}.png" for seed in range(60)] + [tmp_path / "60.jpg"])
    assert find_near_photos(gray).tolist() == [[7, 60]]
    monkeypatch.setattr(near_photos, "MIN_TILE_CORRELATION", -1)
    assert len(find_near_photos(gray)) > 20  # the skin around the spot is no longer compared


def test_different_skin_in_the_same_light_is_not_near(tmp_path: Path):
    across = np.linspace(-1, 1, 256)
    light = 180 - 80 * (across[:, None] ** 2 + across[None, :] ** 2)
    for seed in range(40):
        noise = np.random.default_rng(seed).normal(0, 12, (256, 256))
        Image.fromarray((light + noise).clip(0, 255).astype("uint8")).save(tmp_path / f"{seed}.png")
    gray = shrink([tmp_path / f"{seed}.png" for seed in range(40)])
    small = gray.reshape(40, -1)
    # by itself, the correlation would take them for duplicates
    assert np.corrcoef(small).min() > near_photos.MIN_CORRELATION
    assert len(find_near_photos(gray)) == 0


def test_plain_photos_are_counted_but_not_compared(tmp_path: Path):
    for level in (0, 1, 255):
        Image.new("RGB", (80, 60), (level,) * 3).save(tmp_path / f"{level}.png")
    dataset = write_manifest(
        tmp_path,
        [{"example_id": str(level), "image_path": f"{level}.png"} for level in (0, 1, 255)],
    )
    duplicates = find_duplicates(dataset)
    assert duplicates.members.empty
    assert duplicates.plain_photos == 3


# Embeddings and SCIN


def test_equal_embeddings_count_as_identical_photos(tmp_path: Path):
    np.savez(
        tmp_path / "e.npz",
        image_path=["p", "q", "r"],
        embedding=np.array([[1, 2], [1, 2], [2, 1]], "float32"),
    )
    rows = [{"example_id": f"r{place}", "image_path": path} for place, path in enumerate("pqrr")]
    pd.DataFrame(rows).to_csv(tmp_path / "m.csv", index=False)
    duplicates = find_duplicates(
        load_dataset(DataConfig(embeddings=str(tmp_path / "e.npz")), tmp_path / "m.csv")
    )
    assert found(duplicates, "identical_photo") == [["r0", "r1"], ["r2", "r3"]]
    assert "near_photo" not in duplicates.kinds


def test_scin_photos_shared_between_cases_are_found(shared: Path, tmp_path: Path):
    """29 SCIN cases share 15 photos; `prepare` joins them, and the audit finds them by itself."""
    folder = shared / "data" / "scin" if (shared / "data" / "scin").is_dir() else shared / "scin"
    cases = pd.read_csv(folder / "scin_cases.csv", dtype=str, keep_default_na=False)
    labels = pd.read_csv(folder / "scin_labels.csv", dtype=str, keep_default_na=False)
    cases_of = (
        cases.melt("case_id", PHOTO_COLUMNS, value_name="path")
        .query("path != ''")
        .groupby("path")["case_id"]
        .agg(set)
    )
    cases_of = cases_of[cases_of.map(len) > 1]
    assert (len(cases_of), len(set().union(*cases_of))) == (15, 29)
    # a label for every case, so that all are kept
    labels["weighted_skin_condition_label"] = labels["weighted_skin_condition_label"].replace(
        "{}", "{'Acne': 1.0}"
    )
    labels.to_csv(tmp_path / "labels.csv", index=False)
    for seed, path in enumerate(cases_of.index):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        draw_photo(seed, (40, 30)).save(tmp_path / path)
    summary = prepare_scin(
        tmp_path / "out",
        cases=folder / "scin_cases.csv",
        labels=tmp_path / "labels.csv",
        images=tmp_path,
    )
    dataset = load_dataset(DataConfig(), summary.manifest)
    assert audit_dataset(dataset, label_threshold=0.5, join=True).report.groups.merged == 0
    dataset.table["group_id"] = dataset.table["case_id"]
    audit = audit_dataset(dataset, label_threshold=0.5, join=True)
    counts = audit.report.duplicates["identical_photo"]
    assert (counts.clusters, counts.across_groups, counts.cases) == (15, 15, 29)
    by_photo = dataset.table[dataset.table["image_path"] != ""].groupby("image_path")
    assert by_photo["case_id"].agg(set).to_dict() == cases_of.to_dict()
    by_photo = audit.group_id[dataset.table["image_path"] != ""].groupby(
        dataset.table["image_path"]
    )
    assert set(by_photo.agg(lambda groups: len(set(groups)))) == {1}
    assert found(audit.duplicates, "identical_text") == found(audit.duplicates, "near_photo") == []


# Texts


def test_shared_short_and_stock_texts_count_as_chance(tmp_path: Path):
    short = ["I have a rash"] * 4
    letters = "abcdefghijklmnopqrstuvwxyz"
    stock = [
        f"Dear doctor, please look at my skin and tell me what it could be. {letter}{letter}"
        for letter in letters
    ]
    duplicates = find_duplicates(write_manifest(tmp_path, texts_of(*short, *stock, *stock[:2])))
    assert duplicates.members.empty
    assert duplicates.chance_texts == 3


def test_text_of_more_groups_than_max_copies_is_no_duplicate(tmp_path: Path):
    duplicates = find_duplicates(
        write_manifest(tmp_path, texts_of(*[COMPLAINT] * (near_texts.MAX_COPIES + 1)))
    )
    assert duplicates.members.empty
    assert found(
        find_duplicates(write_manifest(tmp_path, texts_of(*[COMPLAINT] * 3, *OTHERS))),
        "identical_text",
    ) == [["r0", "r1", "r2"]]


@pytest.mark.parametrize(
    "said", [{"source": "template"}, {"source": "clinic", "text_kind": "template"}]
)
def test_templates_are_not_compared(tmp_path: Path, said: dict[str, str]):
    rows = [row | said for row in texts_of(COMPLAINT, COMPLAINT, CHANGED)]
    audit = audit_dataset(write_manifest(tmp_path, rows), label_threshold=0.5, join=True)
    assert audit.duplicates.members.empty
    not_compared = NotCompared(plain_photos=0, chance_texts=0, template_texts=3)
    assert audit.report.not_compared == not_compared


def test_split_words_handles_punctuation_ligatures_and_cjk():
    assert split_words("It's  DRY—and\nﬁne, naïve") == ("it", "s", "dry", "and", "fine", "naïve")
    assert split_words("皮膚が痒い。 yes") == ("皮", "膚", "が", "痒", "い", "yes")
    assert split_words("...") == ()


def test_text_without_spaces_is_compared_by_character(tmp_path: Path):
    text = "三週間前から左膝の裏に発疹があり、自転車から降りると焼けるように痛みます。"
    dataset = write_manifest(tmp_path, texts_of(text, *OTHERS, text.replace("左", "右")))
    assert found(find_duplicates(dataset), "near_text") == [["r0", "r4"]]


# Diagnoses


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("I have ECZEMA on both arms", {("eczema", "own")}),
        ("my doctor said Atopic-Dermatitis", {("eczema", "own")}),
        ("some kind of dermatitis?", {("dermatitis", "own")}),
        ("my mother has eczema", {("eczema", "family")}),
        ("psoriasis runs in my family and I have acne", {("psoriasis", "family"), ("acne", "own")}),
        (
            "my mother has eczema AND I have herpes zoster",
            {("eczema", "family"), ("shingles", "own")},
        ),
        ("I have asthma. Eczema and asthma in the family", {("eczema", "family")}),
        ("FH: psoriasis", {("psoriasis", "family")}),
        ("a ftaher with eczema, a fathher too", {("eczema", "family")}),
        ("the other one has eczema", {("eczema", "own")}),
        ("FHx +ve for eczema, diagnosis: acne", {("eczema", "family"), ("acne", "own")}),
        ("next of kin have eczema and this is scabies", {("eczema", "family"), ("scabies", "own")}),
        ("athlete’s foot, then hives", {("tinea", "own"), ("urticaria", "own")}),
        ("it may be excema or ring worms", {("eczema", "own"), ("tinea", "own")}),
        ("it looks like a ring and my skin is dry", set()),
        ("I hate hiveswords and eczemalike things", set()),
        ("", set()),
    ],
)
def test_name_diagnoses_tells_own_diagnoses_from_those_of_the_family(text: str, named: set):
    assert name_diagnoses(text) == named


def test_named_diagnoses_are_counted_by_class(tmp_path: Path):
    rows = texts_of(
        "my eczema is back",
        "eczema again",
        "round patch",
        "my father has psoriasis",
        "what is this",
    )
    dataset = write_manifest(
        tmp_path,
        [row | {"eczema": label} for row, label in zip(rows, [1, 1, 0, 0, ""], strict=True)],
    )
    audit = audit_dataset(dataset, label_threshold=0.5, join=True)
    own, family = (audit.report.named_diagnoses[whose] for whose in ("own", "family"))
    assert (own.texts, own.share) == (2, 0.4)
    assert (own.share_of_positive, own.share_of_negative) == (1.0, 0.0)
    assert (own.conditions, family.conditions) == ({"eczema": 2}, {"psoriasis": 1})
    assert (
        "2 texts name a skin diagnosis (100.0% of positive ones, 0.0% of negative ones)"
        in audit.report.describe()
    )


def test_find_named_diagnoses_returns_an_empty_table_if_none_is_named():
    assert find_named_diagnoses(pd.Series(["", "dry"], index=["a", "b"])).shape == (0, 3)


# Reports


def test_report_contains_counts_and_ids_but_no_text(tmp_path: Path):
    dataset = write_manifest(
        tmp_path, texts_of(COMPLAINT, *OTHERS, COMPLAINT, CHANGED + " My eczema!")
    )
    audit = audit_dataset(dataset, label_threshold=0.5, join=True)
    audit.report.write(tmp_path / "audit.json")
    report = (tmp_path / "audit.json").read_text()
    assert AuditReport.read(tmp_path / "audit.json") == audit.report
    assert json.loads(report)["duplicates"]["identical_text"]["examples"] == [["r0", "r4"]]
    for word in ("knee", "cycling", "towel"):
        assert word not in report + audit.report.describe()
    assert (
        "identical texts: 1, in 2 cases, 1 across groups (for instance 'r0', 'r4')"
        in audit.report.describe()
    )


# What a run records about its data


def fail(*_: object, **__: object) -> None:
    raise AssertionError("audited again")


@pytest.fixture
def kept(tmp_path: Path) -> tuple[AuditedDataset, DatasetFacts]:
    """Returns data whose rows r0 and r4 have nearly the same text, and what a run records."""
    rows = [
        row | {"group_id": f"g{place}"}
        for place, row in enumerate(texts_of(COMPLAINT, *OTHERS, CHANGED))
    ]
    write_manifest(tmp_path, rows)
    audited = load_audited(DataConfig(), tmp_path / "manifest.csv")
    audited.dataset.describe().write(tmp_path / "data.json")
    return audited, DatasetFacts.read(tmp_path / "data.json")


def test_unchanged_data_of_a_run_are_not_audited_again(kept, monkeypatch: pytest.MonkeyPatch):
    audited, facts = kept
    assert facts.joined_groups == {"r4": "g0"}
    assert list(audited.dataset.table["group_id"]) == ["g0", "g1", "g2", "g3", "g0"]
    monkeypatch.setattr("eczema_tf.workflows.audit.audit_dataset", fail)
    again = load_as_trained(DataConfig(), facts)
    pd.testing.assert_frame_equal(again.table, audited.dataset.table)


def test_data_changed_since_training_are_audited_again(kept, monkeypatch: pytest.MonkeyPatch):
    _, facts = kept
    with Path(facts.manifest).open("a") as file:
        file.write(f"r5,{COMPLAINT},g5\n")
    again = load_as_trained(DataConfig(), facts)
    assert list(again.table["group_id"]) == ["g0", "g1", "g2", "g3", "g0", "g0"]
    monkeypatch.setattr("eczema_tf.workflows.audit.audit_dataset", fail)
    with pytest.raises(AssertionError, match="audited again"):
        load_as_trained(DataConfig(), facts)


def test_error_for_moved_data_suggests_the_manifest_option(kept):
    _, facts = kept
    moved = facts.model_copy(update={"manifest": f"{facts.manifest}.moved"})
    with pytest.raises(DataError, match=r"moved: the run was trained on it.*--manifest FILE"):
        load_as_trained(DataConfig(), moved)


def test_run_without_recorded_groups_is_audited_again(kept, monkeypatch: pytest.MonkeyPatch):
    audited, facts = kept
    old = DatasetFacts(**{**dict(facts), "joined_groups": None})
    assert load_as_trained(DataConfig(), old).table.equals(audited.dataset.table)
    monkeypatch.setattr("eczema_tf.workflows.audit.audit_dataset", fail)
    with pytest.raises(AssertionError, match="audited again"):
        load_as_trained(DataConfig(), old)


def test_groups_are_unchanged_when_merge_duplicates_is_off(tmp_path: Path):
    write_manifest(tmp_path, texts_of(COMPLAINT, *OTHERS, CHANGED))
    dataset = load_audited(DataConfig(merge_duplicates=False), tmp_path / "manifest.csv").dataset
    assert list(dataset.table["group_id"]) == ["r0", "r1", "r2", "r3", "r4"]
    assert dataset.describe().joined_groups == {}


def test_joined_groups_are_reported_only_when_merge_duplicates_is_on(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    write_manifest(tmp_path, texts_of(COMPLAINT, *OTHERS, CHANGED))
    audited = load_audited(DataConfig(merge_duplicates=False), tmp_path / "manifest.csv")
    assert "joined" not in capsys.readouterr().err
    groups = audited.audit.report.groups
    assert (groups.before, groups.after, groups.merged) == (5, 5, 0)
    assert load_audited(DataConfig(), tmp_path / "manifest.csv").audit.report.groups.merged == 2
    assert "joined: 5 groups become 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["I have athlete's foot", "I have athlete\u2019s foot", "I have \uff45\uff43zema"]
)
def test_diagnoses_that_the_audit_finds_are_masked(text: str):
    assert name_diagnoses(text)
    assert mask_diagnoses(text) == "I have this"
    assert mask_diagnoses("it\u2019s itchy") == "it\u2019s itchy"


@pytest.mark.parametrize(
    "content", ["[]", '{"not_kept": ["x"]}', '{"not_kept": {"x": "many"}}', '{"licence": {}}', "{"]
)
def test_malformed_dataset_json_is_a_clear_error(tmp_path: Path, content: str):
    write_manifest(tmp_path, texts_of(COMPLAINT, *OTHERS))
    dataset = load_dataset(DataConfig(), tmp_path / "manifest.csv")
    assert dataset.describe().provenance == {}
    (tmp_path / "dataset.json").write_text('{"licence": null, "name": "x", "source": "here"}')
    assert dataset.describe().provenance == {"source": "here"}
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DataError, match=r"dataset\.json: .*move the file away"):
        dataset.describe()


def test_invisible_characters_do_not_hide_a_diagnosis():
    assert name_diagnoses("the doctor says ec\u00adzema") == {("eczema", "own")}
    assert mask_diagnoses("is it atopic\u2011dermatitis?") == "is it this?"
    assert split_words("ec\u200bze\u00adma, DRY") == ("eczema", "dry")


def test_find_near_texts_agrees_with_comparing_all_pairs(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    words = [f"w{number}" for number in range(60)]
    texts = {("i", "have", *rng.choice(words, 12)) for _ in range(80)}
    for text in sorted(texts)[:30]:  # one word changed, one to five left out
        changed = [*text[: rng.integers(9, 14)]]
        changed[int(rng.integers(2, 9))] = "other"
        texts.add(tuple(changed))
    texts |= {(*text, *rng.choice(words, 20)) for text in sorted(texts)[:10]}  # 20 words added
    model = near_texts.PhraseModel(dict.fromkeys(texts, 1))

    def pairs(text: tuple[str, ...]) -> set[tuple[str, ...]]:
        return {*near_texts._phrases(text, 2)}

    expected = [
        (one, other)
        for one, other in combinations(sorted(texts), 2)
        if len(pairs(one) & pairs(other)) >= max(len(pairs(one)), len(pairs(other))) / 2
    ]
    assert len(expected) >= 20
    copied = [pair for pair in expected if model.is_near_copy(*pair)]
    assert 3 <= len(copied) < len(expected)
    assert near_texts.find_near_texts(model) == copied
    monkeypatch.setattr(model, "is_near_copy", lambda *_: True)
    monkeypatch.setattr(model, "chance_bits", 0.0)
    assert near_texts.find_near_texts(model) == expected


def test_bits_never_exceed_bound_bits_whichever_text_is_left_out():
    rng = np.random.default_rng(1)
    texts = {tuple(rng.choice(["a", "b", "c", "d"], 9)): int(rng.integers(1, 4)) for _ in range(30)}
    model = near_texts.PhraseModel(texts)
    for one in texts:
        bound = model.bound_bits(one) + 1e-9
        assert all((model.bits(one, [one, other]) <= bound).all() for other in texts)


def test_texts_of_a_filled_in_form_are_not_compared_in_pairs(monkeypatch: pytest.MonkeyPatch):
    asked = "patient presents with a rash on the {} for {} days treated with {} so far no fever"
    filled = {tuple(asked.format(*answers).split()) for answers in product("abcde", "123", "xyz")}
    model = near_texts.PhraseModel(dict.fromkeys(filled, 2))
    monkeypatch.setattr(model, "is_near_copy", fail)
    assert near_texts.find_near_texts(model) == []


def test_show_letters_cuts_texts_to_max_text_bytes():
    assert len(near_texts.show_letters("e" * (MAX_TEXT_BYTES + 5))) == MAX_TEXT_BYTES


def test_near_copy_with_barely_enough_information_is_found():
    rng = np.random.default_rng(0)
    words = [f"w{number}" for number in range(16)]
    texts = {tuple(map(str, rng.choice(words, 10))) for _ in range(40)}
    pair = sorted((*(one := sorted(texts)[0])[:9], last) for last in ("w0", "w1"))
    model = near_texts.PhraseModel(dict.fromkeys([*(texts - {one}), *map(tuple, pair)], 1))
    assert model.bound_bits(tuple(pair[0])).sum() < 2 * model.chance_bits
    assert near_texts.find_near_texts(model) == [tuple(pair)]


def test_form_with_long_unique_answers_is_not_compared_in_pairs(monkeypatch):
    asked = "patient presents with a rash on the left arm for some days"
    told = [" ".join(f"own{place}{number}" for number in range(10)) for place in range(60)]
    texts = {tuple(f"{asked} {own}".split()) for own in told}
    model = near_texts.PhraseModel(dict.fromkeys(texts, 2))
    assert min(model.bound_bits(text).sum() for text in texts) > model.chance_bits
    monkeypatch.setattr(model, "is_near_copy", fail)
    assert near_texts.find_near_texts(model) == []

"""Tests for the folder of built-in data: complete, reproducible and without hidden hints."""

import io
import json
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import roc_auc_score

from eczema_tf.data.manifest.table import load_manifest
from eczema_tf.data.sources import synthetic
from eczema_tf.data.sources.synthetic import prepare_synthetic
from eczema_tf.data.splits import assign_splits
from eczema_tf.data.synthetic.cases import draw_case
from eczema_tf.data.synthetic.lesion import FRAME_PX
from eczema_tf.data.synthetic.photo import FILE_BYTES, encode_photo, render_photo
from eczema_tf.data.synthetic.skin import SIZES_PX, TONES
from eczema_tf.data.synthetic.tables import load_tables
from eczema_tf.errors import DataError, EczemaError
from eczema_tf.schema import POSTERIOR_COLUMNS

CASES = 600
# Four standard deviations of the AUROC of a useless score: with 187 and 413 cases, one is 0.0255
# (Hanley and McNeil 1982).
CHANCE = 0.102
ATTRIBUTES = {name: [*slot.log_likelihood] for name, slot in load_tables().attributes.items()}
PLAQUE = {
    "lesion": "visible",
    "colour": "red",
    "border": "sharp",
    "surface": "thick_scale",
    "elements": "none",
    "arrangement": "single",
    "excoriation": "none",
    "lichenification": "none",
    "extent": "large",
    "intensity": "intense",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepare_synthetic(
        tmp_path_factory.mktemp("synthetic") / "data", cases=CASES, seed=5
    ).manifest.parent


@pytest.fixture(scope="module")
def table(folder):
    return load_manifest(folder / "manifest.csv").table


def test_extra_texts_are_for_training_and_change_no_other_rows(folder, table, tmp_path):
    more = prepare_synthetic(tmp_path / "more", cases=3, texts=20, seed=5).manifest
    rows = load_manifest(more).table
    alone = rows[rows["split"] == "train"]
    assert len(alone) == alone["case_id"].nunique() == 20
    assert (alone["image_path"] == "").all()
    assert (alone["text"] != "").all()
    assert set(alone["wordings"]) == {"known"}
    columns = [name for name in rows if name != "image_file"]  # the full path
    others = rows.loc[rows["split"] == "", columns].set_index("example_id")
    assert others.equals(table[columns].set_index("example_id").loc[others.index])


@pytest.fixture(scope="module")
def photos(folder, table):
    """One row per photo: the label, and what could reveal it."""
    rows = []
    for path, eczema in table.loc[table["image_path"] != "", ["image_path", "eczema"]].itertuples(
        index=False
    ):
        file = folder / path
        image = Image.open(file)
        assert not image.getexif()
        pixels = np.asarray(image, "float64")
        frame = np.concatenate(
            [pixels[:2].reshape(-1, 3), pixels[-2:].reshape(-1, 3), pixels[:, :2].reshape(-1, 3)]
        )
        red, green, blue = frame.mean(axis=0)
        rows.append(
            {
                "eczema": eczema,
                "bytes": file.stat().st_size,
                "width": image.width,
                "height": image.height,
                "area": image.width * image.height,
                "frame_red": red,
                "frame_green": green,
                "frame_blue": blue,
                "frame_hue": red / green,
                "frame_grain": frame.std(),
                "quality": sum(image.quantization[0]),
                "name": file.stem,
            }
        )
    return pd.DataFrame(rows)


def _auroc(labels: pd.Series, scores: pd.Series) -> float:
    return float(roc_auc_score(labels, scores.rank()))


@pytest.mark.parametrize(
    "what",
    [
        "bytes",
        "width",
        "height",
        "area",
        "frame_red",
        "frame_green",
        "frame_blue",
        "frame_hue",
        "frame_grain",
        "quality",
        "name",
    ],
)
def test_photo_file_does_not_reveal_its_label(photos, what):
    assert abs(_auroc(photos["eczema"], photos[what]) - 0.5) < CHANCE


def test_names_order_and_metadata_do_not_reveal_the_label(table):
    cases = table.reset_index(names="place").drop_duplicates("case_id")
    cases["rows"] = table.groupby("case_id").size().reindex(cases["case_id"]).to_numpy()
    cases["has_photo"], cases["has_text"] = cases["image_path"] != "", cases["text"] != ""
    cases["unclear"] = cases["consistency"] == "unclear"
    # age is left out: a text states it, so it is evidence
    people = ("skin_tone", "sex", "body_site")
    for what in (
        "place",
        "example_id",
        "case_id",
        "rows",
        "has_photo",
        "has_text",
        "unclear",
        *people,
    ):
        assert abs(_auroc(cases["eczema"], cases[what]) - 0.5) < CHANCE, what


def test_shares_of_labels_and_modalities_are_as_designed(table):
    cases = table.drop_duplicates("case_id")
    photos = table[table["image_path"] != ""].groupby("case_id").size()
    with_text = cases[cases["text"] != ""]
    shares = {
        "eczema": cases["eczema"].mean(),
        "no photo": (cases["image_path"] == "").mean(),
        "no text": (cases["text"] == "").mean(),
        "unclear": (with_text["consistency"] == "unclear").mean(),
        "several photos": (photos > 1).mean(),
    }
    assert shares == pytest.approx(
        {"eczema": 0.31, "no photo": 0.1, "no text": 0.1, "unclear": 0.08, "several photos": 0.2},
        abs=0.06,
    )
    assert set(table["skin_tone"]) == set(TONES)
    assert ((table["severity"] == "") == (table["condition"] == "healthy")).all()
    assert ((table["eczema"] == 1) == (table["condition"] == "eczema")).all()


def test_new_wordings_are_half_of_the_test_texts_and_in_no_other_split(table):
    assert ((table["wordings"] == "") == (table["text"] == "")).all()
    fractions = {"train": 0.7, "val": 0.15, "test": 0.15}
    splits = assign_splits(table, fractions=fractions, seed=0, label_threshold=0.5)
    new = table["wordings"] == "new"
    assert set(splits[new]) == {"test"}
    with_text = (splits == "test") & (table["text"] != "")
    assert new[with_text].mean() == pytest.approx(0.5, abs=0.12)


def test_posteriors_exist_exactly_where_their_modality_does(table):
    posterior = {kind: pd.to_numeric(table[column]) for kind, column in POSTERIOR_COLUMNS.items()}
    assert (posterior["image"].notna() == (table["image_path"] != "")).all()
    assert (posterior["text"].notna() == (table["text"] != "")).all()
    assert posterior["fusion"].between(0, 1).all()
    clear = table["consistency"].isin(["eczema", "other"])
    assert ((table["consistency"] == "eczema")[clear] == (posterior["text"] >= 0.5)[clear]).all()
    assert posterior["text"][table["consistency"] == "unclear"].to_numpy() == pytest.approx(
        0.3115, abs=1e-4
    )


def test_truth_describes_every_row_and_its_phrases(folder, table):
    truths = [
        json.loads(line)
        for line in (folder / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [truth["example_id"] for truth in truths] == list(table["example_id"])
    for truth, row in zip(truths, table.itertuples(), strict=True):
        said = sorted((name.removesuffix("_2"), value) for name, value in truth["facts"].items())
        assert sorted((phrase["category"], phrase["value"]) for phrase in truth["phrases"]) == said
        assert all(
            row.text[phrase["start"] : phrase["end"]].strip(" ,.") for phrase in truth["phrases"]
        )
        if truth["mask_path"]:
            with (
                Image.open(folder / truth["mask_path"]) as mask,
                Image.open(row.image_file) as photo,
            ):
                assert mask.mode == "1"
                assert mask.size == photo.size
                assert np.asarray(mask).any() == (truth["attributes"]["lesion"] == "visible")


def test_dataset_json_contains_the_limits_of_the_cases(folder, table):
    summary = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    cases = table.drop_duplicates("case_id")
    for kind, column in POSTERIOR_COLUMNS.items():
        posterior = pd.to_numeric(cases[column])
        known = posterior.notna()
        assert summary["limits"][kind] == pytest.approx(
            roc_auc_score(cases["eczema"][known], posterior[known])
        )
    assert summary["counts"]["rows"] == len(table)


def test_same_seed_gives_the_same_bytes_with_or_without_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "_FEW_CASES", 1)  # two processes even for few cases
    first = prepare_synthetic(tmp_path / "first", cases=6, seed=1).manifest.parent
    monkeypatch.setattr(synthetic, "_FEW_CASES", 100)
    second = prepare_synthetic(tmp_path / "second", cases=6, seed=1).manifest.parent
    other = prepare_synthetic(tmp_path / "other", cases=6, seed=2).manifest.parent
    files = {path.relative_to(first) for path in first.rglob("*") if path.is_file()}
    assert files == {path.relative_to(second) for path in second.rglob("*") if path.is_file()}
    assert all((first / path).read_bytes() == (second / path).read_bytes() for path in files)
    assert (first / "manifest.csv").read_bytes() != (other / "manifest.csv").read_bytes()


def test_cases_do_not_depend_on_the_number_of_cases(folder, table):
    lines = (folder / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    truths = {truth["example_id"]: truth for truth in map(json.loads, lines)}
    for case in (draw_case(seed=5, index=index) for index in range(10, 20)):
        rows = table[table["case_id"] == case.case_id]
        assert sorted(rows["example_id"]) == sorted(case.example_ids)
        assert set(rows["text"]) == {case.text}
        for truth in (truths[example_id] for example_id in case.example_ids):
            assert (truth["facts"], truth["attributes"]) == (case.facts, case.attributes)


def test_non_empty_folder_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(EczemaError, match="not empty"):
        prepare_synthetic(tmp_path, cases=2)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_limits_are_undefined_with_one_class(tmp_path):
    summary = json.loads(
        (prepare_synthetic(tmp_path / "one", cases=1).manifest.parent / "dataset.json").read_text(
            encoding="utf-8"
        )
    )
    assert summary["limits"] == {"image": None, "text": None, "fusion": None}


@pytest.mark.parametrize("tone", TONES)
@pytest.mark.parametrize("arrangement", ATTRIBUTES["arrangement"])
def test_lesion_shows_on_every_skin_tone_and_never_at_the_edge(tone, arrangement):
    attributes = {**PLAQUE, "surface": "smooth", "arrangement": arrangement}
    pixels, mask = render_photo(attributes, tone, "trunk", np.random.default_rng(2))
    bare, _ = render_photo({"lesion": "none"}, tone, "trunk", np.random.default_rng(2))
    assert SIZES_PX[0] <= min(pixels.shape[:2]) <= max(pixels.shape[:2]) <= SIZES_PX[1]
    edge = np.ones_like(mask)
    edge[FRAME_PX:-FRAME_PX, FRAME_PX:-FRAME_PX] = False
    assert not mask[edge].any()
    assert 0.03 < mask.mean() < 0.6
    # inflamed skin reflects less green
    assert pixels[mask][:, 1].mean() < 0.85 * bare[mask][:, 1].mean()


@pytest.mark.parametrize(
    ("attribute", "value"),
    [(name, value) for name, values in ATTRIBUTES.items() for value in values],
)
def test_every_value_of_every_attribute_is_visible(attribute, value):
    """It differs from every other value, on the same skin, in at least 1 % of the lesion."""
    rendered = {}
    for other in ATTRIBUTES[attribute]:
        attributes = {**PLAQUE, "surface": "smooth", attribute: other}
        rendered[other] = render_photo(attributes, "IV", "leg", np.random.default_rng(3))
    photo, mask = rendered.pop(value)
    for other, (other_photo, other_mask) in rendered.items():
        difference = np.abs(photo.astype(float) - other_photo).max(axis=2)
        assert np.quantile(difference[mask | other_mask], 0.99) > 12, other


@pytest.mark.parametrize("seed", range(6))
def test_attributes_change_no_pixel_far_from_the_lesion(seed):
    """So only the attributes can reveal the condition: skin, light and camera cannot."""
    draws = [
        {"lesion": "none"},
        PLAQUE,
        {**PLAQUE, "arrangement": "dots", "colour": "brown", "elements": "vesicles"},
        {**PLAQUE, "border": "blurred", "excoriation": "scratched", "extent": "small"},
    ]
    photos, masks = zip(
        *(render_photo(draw, "III", "arm", np.random.default_rng(seed)) for draw in draws),
        strict=True,
    )
    # a soft edge, a scratch and a camera out of focus reach this far beyond the mask
    far = distance_transform_edt(~np.any(masks, axis=0)) > 40
    assert far.any()
    for photo in photos[1:]:
        np.testing.assert_array_equal(photo[far], photos[0][far])
        assert (photo != photos[0]).any()


def test_dark_skin_reddens_towards_violet():
    """Red stands out on light skin; on dark skin blue fades less than green."""
    attributes = {**PLAQUE, "surface": "smooth", "border": "blurred"}
    ratios = {}
    for tone in ("I", "VI"):
        pixels, mask = render_photo(attributes, tone, "trunk", np.random.default_rng(2))
        bare, _ = render_photo({"lesion": "none"}, tone, "trunk", np.random.default_rng(2))
        ratios[tone] = pixels[mask].mean(axis=0) / bare[mask].mean(axis=0)
    assert ratios["I"][0] > 0.85 > ratios["I"][1]
    assert ratios["VI"][2] > ratios["VI"][1] * 1.2


def test_file_size_does_not_depend_on_the_content_of_the_photo():
    plain, busy = (
        np.full((200, 200, 3), 128, "uint8"),
        np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype("uint8"),
    )
    sizes = {len(encode_photo(pixels, np.random.default_rng(9))) for pixels in (plain, busy)}
    assert len(sizes) == 1
    assert FILE_BYTES[0] <= sizes.pop() < FILE_BYTES[1]
    decoded = np.asarray(Image.open(io.BytesIO(encode_photo(plain, np.random.default_rng(9)))))
    assert np.abs(decoded.astype(int) - 128).max() <= 2


def test_photo_too_large_for_its_file_size_is_kept_whole():
    pixels = np.random.default_rng(0).integers(0, 255, (900, 900, 3)).astype("uint8")
    data = encode_photo(pixels, np.random.default_rng(9))
    assert len(data) > FILE_BYTES[1]
    assert Image.open(io.BytesIO(data)).size == (900, 900)


def test_answer_none_cannot_be_mistaken_for_an_empty_cell():
    """A plain `None` would be read as an empty cell: the case would have no photo and no text."""
    case = draw_case(1127, 2354)
    assert (case.text, case.photos) == ("None.", 0)


def test_broken_process_pool_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def end(*_: object, **__: object) -> None:
        raise BrokenProcessPool

    monkeypatch.setattr(synthetic, "_FEW_CASES", 1)
    monkeypatch.setattr(synthetic.ProcessPoolExecutor, "map", end)
    with pytest.raises(DataError, match='a script without `if __name__ == "__main__":`'):
        prepare_synthetic(tmp_path / "out", cases=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("asked", [{"cases": 0}, {"texts": -1}, {"seed": -1}])
def test_invalid_numbers_are_refused(tmp_path: Path, asked: dict[str, int]):
    with pytest.raises(DataError, match="built-in data: allowed: 1 case or more"):
        prepare_synthetic(tmp_path / "out", **asked)

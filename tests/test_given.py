"""Tests of how cases from Python code are checked and brought into one form."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from eczema_tf.errors import DataError
from eczema_tf.serving.given import read_cases, read_photos

FIELDS = ("age", "sex")


def read(photos: Any = None, texts: Any = None, clinical: Any = None) -> Any:
    return read_cases(photos, texts, clinical, FIELDS)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("photos") / "skin.jpg"
    Image.new("RGB", (64, 48), (200, 150, 130)).save(file)
    return file


def test_missing_values_of_tables_count_as_nothing():
    nothing = [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, ""]
    given = read(nothing, nothing, [*nothing[:-1], {}])
    assert given.photos == [[]] * 6
    assert read([b"", [b"", None]]).photos == [[], []]
    assert given.texts == given.clinical == [""] * 6


def test_photos_texts_and_fields_can_each_be_left_out(photo: Path):
    assert read(texts=["a", "b"])[:3] == ([[], []], ["a", "b"], ["", ""])
    assert [len(own) for own in read([photo, None]).photos] == [1, 0]
    assert read(clinical=[{"age": 3}]).clinical == ["age=3"]
    assert len(read().index) == 0


def test_photos_may_be_files_or_bytes_one_or_several(photo: Path):
    upright = read_photos(photo)
    data = photo.read_bytes()
    assert len(upright) == 1
    assert read_photos(str(photo)) == read_photos(data) == read_photos([None, data]) == upright
    assert read_photos((photo, data, np.nan)) == upright * 2
    assert read(pd.Series([photo, [photo, photo]])).photos == [upright, upright * 2]
    with pytest.raises(DataError, match="or its bytes, or a list of these; received list"):
        read_photos([photo, [photo]])


def test_index_of_the_input_table_is_kept():
    table = pd.DataFrame({"text": ["a", None, "b"], "age": [3, np.nan, 5.5]}, index=[7, 5, 9])
    given = read(None, table["text"], table[["age"]])
    assert list(given.index) == [7, 5, 9]
    assert given.clinical == ["age=3.0", "", "age=5.5"]
    assert list(read([None] * 3, table["text"]).index) == [7, 5, 9]
    assert list(read(None, list(table["text"])).index) == [0, 1, 2]
    with pytest.raises(DataError, match="texts, clinical: must have the same index"):
        read(None, table["text"], table[["age"]].reset_index(drop=True))


@pytest.mark.parametrize("kind", ["photos", "texts", "clinical"])
@pytest.mark.parametrize(
    "given", ["itch", b"itch", Path("a.jpg"), 3, {"age": 3}, {"a", "b"}, frozenset("a")]
)
def test_argument_that_is_not_a_list_is_refused(kind: str, given: object):
    with pytest.raises(DataError, match=f"^{kind}: must be a list, one entry per case"):
        read(**{kind: given})


def test_table_is_accepted_only_for_clinical_fields():
    table = pd.DataFrame({"age": [3]})
    assert read(clinical=table).clinical == ["age=3"]
    with pytest.raises(DataError, match=r"texts: must be a list, .*; received DataFrame"):
        read(texts=table)


def test_lists_of_unequal_lengths_are_named():
    with pytest.raises(DataError, match=r"photos, texts: must be equally long; received \[1, 2\]"):
        read([None], ["a", "b"])
    with pytest.raises(DataError, match=r"texts, clinical: .* received \[1, 0\]"):
        read(None, ["a"], [])


def test_all_faults_are_reported_at_once(photo: Path, tmp_path: Path):
    broken = photo.read_bytes()[:300]
    with pytest.raises(DataError) as error:
        read(
            [tmp_path / "none.jpg", photo, [photo, broken], np.zeros((8, 8, 3), "uint8")],
            [b"itch", 0, ["a"], "fine"],
            ["age=3", {1: 2}, {"shoe": 42}, None],
        )
    lines = str(error.value).splitlines()
    assert lines[0] == "these cases cannot be answered (9 faults):"
    for line, said in zip(
        lines[1:],
        [
            "photos[0]: ",
            "photos[2]: photo 2: ",
            "photos[3]: must be a photo's file or its bytes, or a list of these; received ndarray",
            "texts[0]: must be a string, or None for none; received bytes",
            "texts[1]: must be a string, or None for none; received int",
            "texts[2]: must be a string, or None for none; received list",
            "clinical[0]: must be a dictionary by field name; received str",
            "clinical[1]: 1: a field's name must be a string",
            "clinical[2]: clinical field 'shoe': allowed: age, sex",
        ],
        strict=True,
    ):
        assert line.strip().startswith(said)


def test_photos_may_be_bytes_like_but_not_dictionaries_or_sets(photo: Path):
    photo_bytes = photo.read_bytes()
    expected = read_photos(photo_bytes)
    for given in (bytearray(photo_bytes), memoryview(photo_bytes), [bytearray(photo_bytes)]):
        assert read_photos(given) == expected
    for given in ({"a.jpg": 1}, {"a.jpg"}):
        with pytest.raises(DataError, match=f"received {type(given).__name__}"):
            read_photos(given)
    with pytest.raises(DataError, match="cannot be read: embedded null byte"):
        read_photos("a\0b.jpg")


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ([{"age": [1, 2]}], r"clinical\[0\]: age: must be one value; received list"),
        (pd.DataFrame([[1, 2]], columns=["age", "age"]), "of the table have the same name"),
    ],
)
def test_invalid_clinical_fields_are_refused(given: object, fault: str):
    with pytest.raises(DataError, match=fault):
        read_cases(None, ["itchy"], given, ["age"])

"""Tests reading embedding files: both layouts, and clear errors for anything else."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eczema_tf.data.photo.embeddings import load_embeddings
from eczema_tf.errors import DataError

MATRIX = np.array([[1, 2, 3], [4, 5, 6]], "float32")


def save(tmp_path: Path, **arrays) -> Path:
    np.savez(tmp_path / "e.npz", **arrays)
    return tmp_path / "e.npz"


@pytest.mark.parametrize("name", ["image_path", "example_id"])
def test_reads_a_table_of_keys_and_embeddings(tmp_path: Path, name: str):
    embeddings = load_embeddings(
        save(tmp_path, **{name: ["a.png", "b.png"], "embedding": MATRIX.astype("float64")})
    )
    assert list(embeddings) == ["a.png", "b.png"]
    assert embeddings.dimension == 3
    assert embeddings.matrix.dtype == np.float32
    assert embeddings.rows_of(["b.png", "a.png", "b.png"]).tolist() == [
        [4, 5, 6],
        [1, 2, 3],
        [4, 5, 6],
    ]


def test_reads_one_array_per_image_path(tmp_path: Path):
    embeddings = load_embeddings(
        save(tmp_path, **{"dataset/images/a.png": MATRIX[0], "dataset/images/b.png": MATRIX[1:]})
    )
    assert set(embeddings) == {"dataset/images/a.png", "dataset/images/b.png"}
    assert embeddings.rows_of(["dataset/images/b.png"]).tolist() == [[4, 5, 6]]


def test_rows_without_an_embedding_have_no_key_and_cannot_be_read(tmp_path: Path):
    embeddings = load_embeddings(save(tmp_path, image_path=[b"a.png"], embedding=MATRIX[:1]))
    assert embeddings.keys_of_rows(pd.DataFrame({"image_path": ["a.png", "", "x.png"]})) == [
        "a.png",
        "",
        "",
    ]
    assert embeddings.rows_of([]).shape == (0, 3)
    assert "a.png" in embeddings
    assert "x.png" not in embeddings
    with pytest.raises(DataError, match=r"x\.png"):
        embeddings.rows_of(["a.png", "x.png"])


def test_repeated_key_is_allowed_only_with_equal_embeddings(tmp_path: Path):
    embeddings = load_embeddings(
        save(tmp_path, image_path=["a", "a", "b"], embedding=MATRIX[[0, 0, 1]])
    )
    assert list(embeddings) == ["a", "b"]
    assert embeddings.rows_of(["b"]).tolist() == [[4, 5, 6]]
    with pytest.raises(DataError, match="'a': key appears twice"):
        load_embeddings(save(tmp_path, image_path=["a", "a"], embedding=MATRIX))


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"image_path": ["a"], "embedding": MATRIX}, r"received \(1,\) and \(2, 3\)"),
        ({"image_path": ["a", "b", "c"], "embedding": np.ones(3)}, "must be"),
        ({"embedding": MATRIX}, "no array image_path or example_id"),
        ({"image_path": ["a", "b"]}, "no array `embedding`"),
        (
            {"image_path": ["a", "b"], "embedding": np.array([[1, np.nan], [1, 2]])},
            "a: contains NaN",
        ),
        (
            {"image_path": ["a", "b"], "embedding": np.array([[1, 1e300], [1, 2]])},
            "a: contains NaN or infinity",
        ),
        ({"image_path": ["a", "b"], "embedding": np.array([["x"], ["y"]])}, "must be numbers"),
        ({"image_path": np.array([], str), "embedding": np.ones((0, 3))}, "at least one row"),
        (
            {"image_path": np.array(["a", None], object), "embedding": MATRIX},
            "without pickled objects",
        ),
        ({"a.png": np.ones(3), "b.png": np.ones(4)}, "all of one length"),
        ({"a.png": np.ones((2, 3))}, "one dimension"),
        ({}, "no array at all"),
    ],
)
def test_inconsistent_or_invalid_arrays_are_a_clear_error(tmp_path: Path, arrays: dict, says: str):
    with pytest.raises(DataError, match=says):
        load_embeddings(save(tmp_path, **arrays))


@pytest.mark.parametrize("data", [b"", b"text", b"PK\x03\x04 cut", b"\x80\x04K\x01."])
def test_file_that_is_not_npz_is_a_clear_error(tmp_path: Path, data: bytes):
    (tmp_path / "e.npz").write_bytes(data)
    with pytest.raises(DataError, match=r"e\.npz: is not readable as \.npz"):
        load_embeddings(tmp_path / "e.npz")


def test_header_that_claims_more_data_than_the_file_has_is_refused(tmp_path: Path):
    """NumPy would allocate the memory that the header claims, here 8 TB."""
    header = io.BytesIO()
    promised = {"descr": "<f8", "fortran_order": False, "shape": (1_000_000, 1_000_000)}
    np.lib.format.write_array_header_1_0(header, promised)
    with zipfile.ZipFile(tmp_path / "e.npz", "w") as archive:
        archive.writestr("embedding.npy", header.getvalue() + bytes(8))
    with pytest.raises(DataError, match="takes 8,000,000,000,000 bytes; received 8"):
        load_embeddings(tmp_path / "e.npz")


def test_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with zipfile.ZipFile(tmp_path / "e.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("embedding.npy", bytes(80 << 20))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("was unpacked"))
    with pytest.raises(DataError, match=r"unpacks to 83,886,080 bytes; allowed: .*100 times"):
        load_embeddings(tmp_path / "e.npz")


def test_duplicate_array_is_a_clear_error(tmp_path: Path):
    path, array = save(tmp_path, embedding=MATRIX), io.BytesIO()
    np.save(array, MATRIX)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("embedding.npy", array.getvalue())
    with pytest.raises(DataError, match="'embedding' appears twice"):
        load_embeddings(path)


def test_npy_file_and_missing_file_are_clear_errors(tmp_path: Path):
    np.save(tmp_path / "e.npy", MATRIX)
    with pytest.raises(DataError, match="not readable"):
        load_embeddings(tmp_path / "e.npy")
    with pytest.raises(DataError, match="no such"):
        load_embeddings(tmp_path / "none.npz")


def test_reads_the_real_scin_embeddings(shared: Path):
    embeddings = load_embeddings(shared / "data" / "scin" / "image_embeddings_resnet50.npz")
    assert len(embeddings) == 202  # of 203 rows, because two cases share a photo
    assert embeddings.dimension == 2048

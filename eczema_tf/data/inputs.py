"""Manifest rows to model inputs: pixels or embeddings, tokens and presence, as arrays that batches are gathered from.

Each distinct photo and text is preprocessed once. `Inputs.gather` is the only place where rows
become arrays, for training and for evaluation, from pixels and from cached features alike.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import tensorflow as tf

from eczema_tf.config import PreprocessConfig
from eczema_tf.data.cache import ArrayCache, fingerprint
from eczema_tf.data.photo.embeddings import Embeddings
from eczema_tf.data.photo.preprocess import VERSION as PREPROCESS_VERSION
from eczema_tf.data.photo.preprocess import preprocess_photo
from eczema_tf.data.text.tokenizer import TextTokenizer, clean_text
from eczema_tf.schema import IMAGE, IMAGE_PRESENT, MODALITIES, PADDING_MASK, TEXT_PRESENT, TOKEN_IDS

BLOCK_ROWS = 64


@dataclass(frozen=True)
class Column:
    """One model input: distinct values and, for each row, which of them it is (-1: none)."""

    values: np.ndarray  # (distinct, ...)
    index: np.ndarray  # int64 (rows,)
    digest: str  # of what the values were made from and how

    def gather(self, rows: np.ndarray, length: int | None = None) -> np.ndarray:
        """Returns the values of some rows, zeros for -1, cut to `length` along the second axis."""
        index = self.index[rows]
        values = self.values[:, :length] if length is not None else self.values
        if not len(values):
            return np.zeros((len(rows), *values.shape[1:]), values.dtype)
        gathered = np.array(values[np.maximum(index, 0)])
        gathered[index < 0] = 0
        return gathered


@dataclass(frozen=True)
class Inputs:
    """The model inputs of all rows of a manifest."""

    columns: dict[str, Column]  # by input name
    token_counts: np.ndarray  # int64 (rows,)
    token_columns: frozenset[str] = frozenset(
        {TOKEN_IDS, PADDING_MASK}
    )  # cut to the longest text of the batch

    def __len__(self) -> int:
        return len(self.token_counts)

    def present(self, modality: str) -> np.ndarray:
        """Returns which rows have a photo ("image") or a text ("text"); bool (rows,)."""
        column = self.columns[IMAGE_PRESENT if modality == "image" else TEXT_PRESENT]
        return column.gather(np.arange(len(self))) > 0

    @property
    def absent(self) -> frozenset[str]:
        """Which of "image" and "text" no row has."""
        return frozenset(modality for modality in MODALITIES if not self.present(modality).any())

    def gather(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the inputs of some rows as arrays by name."""
        longest = int(self.token_counts[rows].max())
        return {
            name: column.gather(rows, longest if name in self.token_columns else None)
            for name, column in self.columns.items()
        }

    def with_features(self, old: str, new: str, column: Column) -> "Inputs":
        """Replaces an input by the features of its frozen encoder; their rows are cut like tokens if they are tokens."""
        columns = {name: kept for name, kept in self.columns.items() if name != old}
        tokens = self.token_columns | ({new} if column.values.ndim == 3 else set())
        return replace(self, columns={**columns, new: column}, token_columns=frozenset(tokens))


def load_inputs(
    table: pd.DataFrame,
    photos: pd.DataFrame | None,
    embeddings: Embeddings | None,
    tokenizer: TextTokenizer,
    size_px: int,
    preprocess: PreprocessConfig,
    cache: ArrayCache,
) -> Inputs:
    """Preprocesses every photo and text of a manifest.

    Args:
        table: Of a `Manifest`.
        photos: From `inspect_photos`, by file; None with embeddings.
        embeddings: Stand in for the photos, if given.
        tokenizer: For the texts.
        size_px: Side of the pixels.
        preprocess: Of the photos.
        cache: Where pixels are kept.
    """
    if embeddings is not None:
        image = _embedding_column(table, embeddings)
    else:
        image = _pixel_column(table, photos, size_px, preprocess, cache)
    token_ids, mask, text_present = _token_columns(list(table["text"]), tokenizer)
    columns = {
        IMAGE: image,
        IMAGE_PRESENT: _presence_column(image.index),
        TOKEN_IDS: token_ids,
        PADDING_MASK: mask,
        TEXT_PRESENT: text_present,
    }
    return Inputs(columns, mask.values.sum(axis=1)[mask.index].astype("int64"))


def _presence_column(index: np.ndarray) -> Column:
    present = (index >= 0).astype("int64")
    return Column(np.array([0.0, 1.0], "float32"), present, "presence")


def _distinct(keys: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Lists the distinct non-empty keys, short ones first (blocks of like length need little padding), and each row's place (-1: empty)."""
    distinct = sorted({key for key in keys if key}, key=lambda key: (len(key), key))
    place = {key: position for position, key in enumerate(distinct)}
    return distinct, np.array([place.get(key, -1) for key in keys], dtype="int64")


def _embedding_column(table: pd.DataFrame, embeddings: Embeddings) -> Column:
    keys = embeddings.keys_of_rows(table)
    distinct, index = _distinct(keys)
    values = embeddings.rows_of(distinct)
    return Column(values, index, fingerprint(values))


def _pixel_column(
    table: pd.DataFrame,
    photos: pd.DataFrame,
    size_px: int,
    preprocess: PreprocessConfig,
    cache: ArrayCache,
) -> Column:
    digests = dict(zip(photos.index, photos["sha256"], strict=True))
    distinct, index = _distinct([digests.get(file, "") for file in table["image_file"]])
    by_digest = photos.reset_index().drop_duplicates("sha256").set_index("sha256").loc[distinct]
    made_by = [size_px, preprocess.color_constancy.model_dump(), PREPROCESS_VERSION, tf.__version__]
    key = fingerprint(distinct, list(map(int, by_digest["orientation"])), *made_by)

    def compute() -> Iterator[np.ndarray]:
        files, orientations = list(by_digest["file"]), by_digest["orientation"].to_numpy("int32")
        return _preprocess_files(files, orientations, size_px, preprocess)

    pixels = cache.load_or_compute(
        "pixels", key, (len(distinct), size_px, size_px, 3), "uint8", compute
    )
    return Column(pixels, index, key)


def _preprocess_files(
    files: list[str], orientations: np.ndarray, size_px: int, preprocess: PreprocessConfig
) -> Iterator[np.ndarray]:
    dataset = tf.data.Dataset.from_tensor_slices((files, orientations)).map(
        lambda file, orientation: preprocess_photo(
            tf.io.read_file(file), orientation, size_px, preprocess
        ),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return dataset.batch(BLOCK_ROWS).prefetch(1).as_numpy_iterator()


def _token_columns(texts: list[str], tokenizer: TextTokenizer) -> tuple[Column, Column, np.ndarray]:
    """Token ids, mask and presence. Absent texts get the tokens of the empty text, so that no row is without a token."""
    distinct, index = _distinct(_clean(texts))
    ids, mask = (array.numpy() for array in _tokenize(tokenizer, ["", *distinct]))
    digest = fingerprint(ids, mask, tokenizer.vocabulary)
    return Column(ids, index + 1, digest), Column(mask, index + 1, digest), _presence_column(index)


def _clean(texts: list[str]) -> list[str]:
    blocks = tf.data.Dataset.from_tensor_slices(texts).batch(4096).map(clean_text)
    return [text.decode() for block in blocks.as_numpy_iterator() for text in block]


def _tokenize(tokenizer: TextTokenizer, texts: list[str]) -> tuple[tf.Tensor, tf.Tensor]:
    """In a graph, where KerasHub's tokenizer is fifty times faster than eagerly."""
    return next(iter(tf.data.Dataset.from_tensors(tf.constant(texts)).map(tokenizer)))

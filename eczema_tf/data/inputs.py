"""Turns manifest rows into model inputs, as arrays that batches are gathered from.

Each distinct photo and text is preprocessed once. `Inputs.gather` is the only place where rows
become arrays: in training and in evaluation, from pixels and from cached features.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL
import tensorflow as tf

from eczema_tf.cli import say
from eczema_tf.config import PreprocessConfig
from eczema_tf.data.cache import ArrayCache, fingerprint
from eczema_tf.data.clinical.fields import Field, encode_fields
from eczema_tf.data.clinical.lines import join_columns
from eczema_tf.data.dataset import Dataset
from eczema_tf.data.photo.preprocess import PIXELS_VERSION, preprocess_photo
from eczema_tf.data.photo.upright import read_upright
from eczema_tf.data.text.reading import TextReader
from eczema_tf.data.text.tokenizer import TextTokenizer, clean_text
from eczema_tf.schema import (
    CLINICAL,
    IMAGE,
    IMAGE_PRESENT,
    MODALITIES,
    MODEL_INPUTS,
    PADDING_MASK,
    PRESENT,
    STATUS_OK,
    TEXT_PRESENT,
    TOKEN_IDS,
)

BLOCK_ROWS = 64


@dataclass(frozen=True)
class Column:
    """One model input: its distinct values and, for each row, the index of its value (-1: none)."""

    values: np.ndarray  # (distinct, ...)
    index: np.ndarray  # int64 (rows,)
    digest: str  # hash of what the values were made from, and how

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
    text_notices: np.ndarray  # object (rows,): what is not read or known of a text, or ""
    # tokens per step along these columns, which are cut to the longest text of the batch
    token_columns: Mapping[str, int] = field(
        default_factory=lambda: {TOKEN_IDS: 1, PADDING_MASK: 1}
    )

    def __len__(self) -> int:
        return len(self.token_counts)

    def present(self, modality: str) -> np.ndarray:
        """Returns which rows have a photo ("image") or a text ("text"); bool (rows,)."""
        column = self.columns[PRESENT[modality]]
        return column.gather(np.arange(len(self))) > 0

    @property
    def absent(self) -> frozenset[str]:
        """Which of "image" and "text" no row has."""
        return frozenset(modality for modality in MODALITIES if not self.present(modality).any())

    def gather(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the inputs of some rows as arrays by name."""
        longest = int(self.token_counts[rows].max())
        return {
            name: column.gather(rows, -(-longest // step) if step else None)
            for name, column in self.columns.items()
            for step in [self.token_columns.get(name)]
        }

    def pair(self, photos: np.ndarray, texts: np.ndarray, fields: np.ndarray) -> "Inputs":
        """Makes new rows from the photo of one row and the text of another.

        Args:
            photos: int64 (new rows,), the rows whose photos are taken; -1: none.
            texts: int64 (new rows,), the rows whose texts are taken; -1: none.
            fields: int64 (new rows,), the rows whose clinical fields are taken; -1: none. A new row
                without photo and text gets none, as in the served graph.
        """
        shown, told = self.present("image")[photos], self.present("text")[texts]
        is_asked = (shown & (photos >= 0)) | (told & (texts >= 0))
        sources = {IMAGE: photos, IMAGE_PRESENT: photos, CLINICAL: np.where(is_asked, fields, -1)}
        # these columns mark inputs as absent, so the other columns are then not used
        nothing, columns = {IMAGE_PRESENT: 0, TEXT_PRESENT: 0, CLINICAL: -1}, {}
        for name, column in self.columns.items():
            rows = sources.get(name, texts)
            index = column.index[rows]
            if name in nothing:
                index = np.where(rows < 0, nothing[name], index)
            columns[name] = replace(column, index=index)
        return replace(
            self,
            columns=columns,
            token_counts=self.token_counts[texts],
            text_notices=np.where(texts < 0, "", self.text_notices[texts]),
        )

    def keep(self, modalities: Collection[str]) -> "Inputs":
        """Returns the same rows, without photos or texts unless "image" or "text" is kept."""
        rows = np.arange(len(self))
        none = np.full(len(self), -1)
        photos, texts = (rows if name in modalities else none for name in MODALITIES)
        return self.pair(photos, texts, rows)

    def with_features(
        self, old: str, new: str, column: Column, tokens: int | None = None
    ) -> "Inputs":
        """Replaces an input with the features of its frozen encoder.

        Args:
            old: Name of the input.
            new: Name of the features.
            column: The features.
            tokens: How many tokens each step of the features covers, if they are cut like tokens.
        """
        columns = {name: kept for name, kept in self.columns.items() if name != old}
        steps = {**self.token_columns, new: tokens} if tokens else self.token_columns
        return replace(self, columns={**columns, new: column}, token_columns=steps)


def to_model_inputs(arrays: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """Converts a batch to the types of `MODEL_INPUTS` (`Inputs.gather` keeps pixels as uint8).

    Args:
        arrays: Arrays or tensors by input name.
    """
    given = {name: dtype for name, dtype in MODEL_INPUTS.items() if name in arrays}
    return {name: tf.cast(arrays[name], dtype) for name, dtype in given.items()}


def load_inputs(
    dataset: Dataset,
    *,
    tokenizer: TextTokenizer,
    size_px: int,
    preprocess: PreprocessConfig,
    cache: ArrayCache,
    clinical: Sequence[Field],
) -> Inputs:
    """Preprocesses every photo and text of a data set.

    Args:
        dataset: From `load_dataset`; its embeddings, if any, stand in for the photos.
        tokenizer: The tokenizer for the texts.
        size_px: Side of the square photos.
        preprocess: How photos are preprocessed.
        cache: Where pixels are cached.
        clinical: Clinical fields that the model uses.
    """
    table, embeddings = dataset.table, dataset.embeddings
    if embeddings is not None:
        keys, index = _distinct(embeddings.keys_of_rows(table))
        values = embeddings.rows_of(keys)
        image = Column(values, index, fingerprint(values))
    else:
        image = _load_pixels(table, dataset.photos, size_px, preprocess, cache)

    texts = read_texts(list(table["text"]), tokenizer)
    columns = {IMAGE: image, IMAGE_PRESENT: _presence(image.index), **texts.columns}
    if clinical:
        columns[CLINICAL] = _read_fields(table, clinical)
    return replace(texts, columns=columns)


def _read_fields(table: pd.DataFrame, fields: Sequence[Field]) -> Column:
    lines, index = _distinct(join_columns(table, [field.name for field in fields]))
    encoded, told = (each.numpy() for each in encode_fields(tf.constant(lines, tf.string), fields))
    unread = told != STATUS_OK.encode()
    if unread.any():
        rows = unread[index[index >= 0]].sum()  # -1: no field is known
        say(f"note: {rows} rows: {told[unread][0].decode()}")
    return Column(encoded, index, fingerprint(encoded))


def read_texts(texts: Sequence[str], tokenizer: TextTokenizer) -> Inputs:
    """Tokenizes texts; returns the inputs of their rows, without those of photos.

    Args:
        texts: One per row, as written; "" for none.
        tokenizer: The tokenizer for them.
    """
    describe = TextReader(tokenizer)

    def read(texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        cleaned = clean_text(texts)
        status = describe(texts, cleaned)
        return cleaned, tf.where((cleaned == "") | (status == STATUS_OK), "", status)

    blocks = tf.data.Dataset.from_tensor_slices(list(texts)).batch(4096).map(read)
    cleaned, notices = (
        [value.decode() for block in column for value in block]
        for column in zip(*blocks.as_numpy_iterator(), strict=True)
    )
    distinct, index = _distinct(cleaned)
    # Absent texts get the tokens of the empty text, so that every row has a token. KerasHub's
    # tokenizer is fifty times faster in a graph than eagerly.
    tokenized = tf.data.Dataset.from_tensors(tf.constant(["", *distinct])).map(tokenizer)
    ids, mask = next(tokenized.as_numpy_iterator())  # (texts, tokens) each
    digest, token_index = fingerprint(ids, mask, tokenizer.vocabulary), index + 1
    columns = {
        TOKEN_IDS: Column(ids, token_index, digest),
        PADDING_MASK: Column(mask, token_index, digest),
        TEXT_PRESENT: _presence(index),
    }
    token_counts = mask.sum(axis=1)[token_index].astype("int64")
    return Inputs(columns, token_counts, np.array(notices, object))


def _presence(index: np.ndarray) -> Column:
    return Column(np.array([0.0, 1.0], "float32"), (index >= 0).astype("int64"), "presence")


def _distinct(keys: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Lists the distinct non-empty keys, short ones first (similar lengths need little padding).

    Returns:
        The keys, and the index of each row's key, int64 (rows,) (-1: empty).
    """
    distinct = sorted({key for key in keys if key}, key=lambda key: (len(key), key))
    index = {key: number for number, key in enumerate(distinct)}
    return distinct, np.array([index.get(key, -1) for key in keys], dtype="int64")


def _load_pixels(
    table: pd.DataFrame,
    photos: pd.DataFrame,
    size_px: int,
    preprocess: PreprocessConfig,
    cache: ArrayCache,
) -> Column:
    """Loads the upright JPEGs that clients send, decoded by TensorFlow as in the served graph."""
    digests = dict(zip(photos.index, photos["sha256"], strict=True))
    distinct, index = _distinct([digests.get(file, "") for file in table["image_file"]])
    by_digest = photos.reset_index().drop_duplicates("sha256").set_index("sha256").loc[distinct]
    made_by = [size_px, preprocess.color_constancy.model_dump(), PIXELS_VERSION]
    key = fingerprint(distinct, *made_by, tf.__version__, PIL.__version__)

    def read_file(file: bytes) -> bytes:
        return read_upright(Path(file.decode()))

    def preprocess_file(file: tf.Tensor) -> tf.Tensor:
        jpeg = tf.ensure_shape(tf.numpy_function(read_file, [file], tf.string), ())
        return preprocess_photo(jpeg, size_px, preprocess)

    def compute() -> Iterator[np.ndarray]:
        files = tf.data.Dataset.from_tensor_slices(list(by_digest["file"]))
        pixels = files.map(preprocess_file, num_parallel_calls=tf.data.AUTOTUNE)
        return pixels.batch(BLOCK_ROWS).prefetch(1).as_numpy_iterator()

    shape = (len(distinct), size_px, size_px, 3)
    return Column(cache.load_or_compute("pixels", key, shape, "uint8", compute), index, key)

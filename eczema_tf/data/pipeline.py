"""tf.data pipelines over `Inputs`, for training and for evaluation.

Training rows are shuffled and augmented. A batch depends only on (seed, epoch, place in the epoch),
so a resumed run sees what an uninterrupted one would have seen. Evaluation yields every row exactly
once, in order.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from eczema_tf.config import AugmentConfig
from eczema_tf.data.cache import release_maps
from eczema_tf.data.inputs import Inputs
from eczema_tf.data.photo.augment import augment_photos
from eczema_tf.schema import IMAGE, MODEL_INPUTS

Arrays = dict[str, np.ndarray]
Tensors = dict[str, tf.Tensor]


@dataclass(frozen=True)
class SmallTalk:
    """Texts that say nothing, appended to others so that findings are still detected in long texts.

    Attributes:
        column: The input with windows of texts, (rows, windows, channels), zeros after a text's
            end.
        rows: int64, the rows whose texts say nothing.
        share: Share of texts that get one appended, in [0, 1]; drawn again in each epoch.
    """

    column: str
    rows: np.ndarray
    share: float

    def build(self, inputs: Inputs) -> Callable[[Tensors, tf.Tensor], Tensors]:
        """Makes an op that takes a batch and a key, and returns the batch with more windows."""
        gather = _build_gather(replace(inputs, columns={self.column: inputs.columns[self.column]}))

        def follow(batch: Tensors, key: tf.Tensor) -> Tensors:
            windows = batch[self.column]
            count = tf.shape(windows)[0]
            draws = tf.random.stateless_uniform([2, count], key)
            chosen = tf.cast(draws[0] * len(self.rows), tf.int32)
            talk = gather(tf.gather(tf.constant(self.rows, tf.int64), chosen))[self.column]
            talk *= tf.cast(draws[1] < self.share, talk.dtype)[:, None, None]
            return batch | {self.column: tf.concat([windows, talk], axis=1)}

        return follow


def build_training_dataset(
    inputs: Inputs,
    targets: Arrays,
    weights: Arrays,
    rows: np.ndarray,
    *,
    batch_size: int,
    epochs: range,
    seed: int,
    augment: AugmentConfig | None = None,
    views: int = 0,
    small_talk: SmallTalk | None = None,
) -> tf.data.Dataset:
    """Builds the training pipeline.

    Args:
        inputs: Inputs of all rows of the manifest.
        targets: By head, (rows of the manifest, ...).
        weights: By head, (rows of the manifest,); 0 where the row does not train the head.
        rows: int64, the training rows.
        batch_size: Rows per batch; the last batch of an epoch may be smaller.
        epochs: Which epochs to run, one after the other; a resumed run starts later.
        seed: Seed of order and augmentation.
        augment: Changes to the photos, if there are pixels; None for none.
        views: How many times `inputs` repeats the rows with other views of their photos; epochs
            take the views of a row in turn (`model.trunk.encode_views`).
        small_talk: What is appended to texts; None for nothing.

    Returns:
        Batches of (inputs, targets, weights), dictionaries by name, for all `epochs`.
    """
    gather, count = _build_gather(inputs), len(inputs) // (1 + views)
    follow = small_talk.build(inputs) if small_talk else None

    def batches_of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        key = tf.stack([tf.cast(seed, tf.int64), epoch])
        order = tf.random.experimental.stateless_shuffle(tf.constant(rows, tf.int64), seed=key)
        batches = tf.data.Dataset.from_tensor_slices(order).batch(batch_size)
        return batches.enumerate().map(
            lambda place, chosen: (
                tf.random.fold_in(tf.cast(key, tf.int32), place),
                chosen,
                chosen + count * (1 + (epoch + chosen) % views) if views else chosen,
            )
        )

    def finish(key: tf.Tensor, chosen: tf.Tensor, seen: tf.Tensor) -> tuple[dict, dict, dict]:
        batch = gather(seen)
        if augment is not None and batch.get(IMAGE) is not None and len(batch[IMAGE].shape) == 4:
            batch[IMAGE] = augment_photos(tf.cast(batch[IMAGE], tf.float32), key, augment)
        if follow:
            batch = follow(batch, key)
        return batch, _take(targets, chosen), _take(weights, chosen)

    return (
        tf.data.Dataset.range(epochs.start, epochs.stop)
        .flat_map(batches_of_epoch)
        .map(finish, num_parallel_calls=2, deterministic=True)
        .prefetch(2)
    )


def _take(arrays: Arrays, chosen: tf.Tensor) -> dict[str, tf.Tensor]:
    return {name: tf.gather(tf.constant(values), chosen) for name, values in arrays.items()}


def build_evaluation_dataset(inputs: Inputs, rows: np.ndarray, batch_size: int) -> tf.data.Dataset:
    """Builds batches of inputs, every row of `rows` exactly once and in order."""
    gather = _build_gather(inputs)
    dataset = tf.data.Dataset.from_tensor_slices(np.asarray(rows, "int64")).batch(batch_size)
    return dataset.map(gather, num_parallel_calls=2, deterministic=True).prefetch(2)


def _build_gather(inputs: Inputs) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Wraps `Inputs.gather` as an op with static ranks and the model's types."""
    types = {name: tf.as_dtype(MODEL_INPUTS.get(name, "float32")) for name in inputs.columns}

    def gather_arrays(chosen: np.ndarray) -> list[np.ndarray]:
        batch = inputs.gather(chosen)
        release_maps()  # otherwise all features would be in memory after an epoch
        return [
            batch[name].astype(dtype.as_numpy_dtype, copy=False) for name, dtype in types.items()
        ]

    def gather(chosen: tf.Tensor) -> dict[str, tf.Tensor]:
        tensors = tf.numpy_function(gather_arrays, [chosen], list(types.values()))
        batch = dict(zip(types, tensors, strict=True))
        for name, tensor in batch.items():
            shape = inputs.columns[name].values.shape[1:]
            if name in inputs.token_columns:
                shape = (None, *shape[1:])
            tensor.set_shape((None, *shape))
        return batch

    return gather

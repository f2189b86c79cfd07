"""The few layers that Keras does not have: missing modalities, masked pooling, patch grids, ordered logits."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("eczema_tf")
class MissingModality(keras.layers.Layer):
    """Replaces the embedding of an absent modality by a learned vector, in training and at inference alike.

    Call with `[embedding (batch, units), present (batch,) 0 or 1]`; returns (batch, units).
    """

    def build(self, input_shape: Any) -> None:
        """Makes the learned vector."""
        self.missing = self.add_weight(
            shape=(input_shape[0][-1],),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="missing",
        )

    def call(self, inputs: Any) -> Any:
        """Chooses row by row; `where`, not a product, so that whatever an absent photo was filled with cannot come through."""
        embedding, present = inputs
        return ops.where(
            ops.expand_dims(present, -1) > 0.5, embedding, ops.cast(self.missing, embedding.dtype)
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The embedding's own shape."""
        return input_shape[0]


@keras.saving.register_keras_serializable("eczema_tf")
class ModalityDropout(keras.layers.Layer):
    """In training, declares one of two modalities absent in a share of the rows that have both (Neverova et al. 2016, ModDrop).

    Call with `[image_present, text_present]`, each (batch,) 0 or 1; returns the same two, never
    both 0 where one was 1.
    """

    def __init__(self, rate: float, **options: Any):
        super().__init__(**options)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator()  # seeded by keras.utils.set_random_seed

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Drops the photo in half of the chosen rows and the text in the other half."""
        image_present, text_present = inputs
        if not training or self.rate == 0:
            return [image_present, text_present]
        both = image_present * text_present
        draw = keras.random.uniform(ops.shape(both), seed=self.seed_generator)
        image_dropped = ops.cast(draw < self.rate / 2, both.dtype) * both
        text_dropped = ops.cast(draw > 1 - self.rate / 2, both.dtype) * both
        return [image_present - image_dropped, text_present - text_dropped]

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Unchanged."""
        return input_shape


@keras.saving.register_keras_serializable("eczema_tf")
class MaskedPooling(keras.layers.Layer):
    """Pools real tokens by "mean", by "max", or by "mean_max", both side by side (concat pooling, Howard and Ruder 2018).

    Call with `[tokens (batch, tokens, units), mask (batch, tokens) 0 or 1]`; returns (batch,
    units), or (batch, 2 * units) for both.
    """

    def __init__(self, kind: str, **options: Any):
        super().__init__(**options)
        self.kind = kind

    def call(self, inputs: Any) -> Any:
        """Pools; a row without any token gives zeros."""
        tokens, mask = inputs
        mask = ops.expand_dims(ops.cast(mask, tokens.dtype), -1)
        return ops.concatenate(
            [POOLINGS[kind](tokens, mask) for kind in self.kind.split("_")], axis=-1
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(batch, units), or (batch, 2 * units)."""
        return (input_shape[0][0], input_shape[0][-1] * len(self.kind.split("_")))


def _mean(tokens: Any, mask: Any) -> Any:
    return ops.sum(tokens * mask, axis=1) / ops.maximum(ops.sum(mask, axis=1), 1.0)


def _max(tokens: Any, mask: Any) -> Any:
    lowest = ops.cast(-1e4, tokens.dtype)  # fits float16
    highest = ops.max(ops.where(mask > 0, tokens, lowest), axis=1)
    return ops.where(ops.any(mask > 0, axis=1), highest, ops.zeros_like(highest))


POOLINGS = {"mean": _mean, "max": _max}


@keras.saving.register_keras_serializable("eczema_tf")
class OrderedLogits(keras.layers.Layer):
    """Cumulative logits of ordered grades that share one score (McCullagh 1980, proportional odds).

    Call with `score` (batch, 1); returns (batch, grades - 1), where the sigmoid of column k is
    P(grade > k), never rising with k.
    """

    def __init__(self, grades: int, **options: Any):
        super().__init__(**options)
        self.grades = grades

    def build(self, input_shape: Any) -> None:
        """Makes the first cut point and the (positive) steps to the next."""
        del input_shape
        self.first = self.add_weight(
            shape=(1,), initializer=keras.initializers.Constant(-1.0), name="first_cut"
        )
        self.steps = self.add_weight(
            shape=(self.grades - 2,), initializer=keras.initializers.Constant(1.5), name="steps"
        )

    def call(self, score: Any) -> Any:
        """Subtracts the rising cut points from the score."""
        cuts = ops.concatenate([self.first, self.first + ops.cumsum(ops.softplus(self.steps))])
        return score - ops.cast(cuts, score.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(batch, grades - 1)."""
        return (*input_shape[:-1], self.grades - 1)


@keras.saving.register_keras_serializable("eczema_tf")
class AverageOfPresent(keras.layers.Layer):
    """Averages two modalities' scores over those that are present; over both where neither is.

    Call with `[image (batch, n), text (batch, n), image_present (batch,), text_present (batch,)]`;
    returns (batch, n).
    """

    def call(self, inputs: Any) -> Any:
        """Weighs by presence; `where`, so that the score of an absent photo cannot come through even if it is NaN."""
        image, text, image_present, text_present = inputs
        image_present, text_present = (
            ops.expand_dims(present > 0.5, -1) for present in (image_present, text_present)
        )
        image_or_text = ops.where(image_present, image, ops.where(text_present, text, image))
        text_or_image = ops.where(text_present, text, ops.where(image_present, image, text))
        return (image_or_text + text_or_image) / 2

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(batch, n)."""
        return input_shape[0]


@keras.saving.register_keras_serializable("eczema_tf")
class ImageRegions(keras.layers.Layer):
    """Lists the regions of a feature map: (batch, height, width, channels) to (batch, height * width, channels)."""

    def call(self, features: Any) -> Any:
        """Flattens the grid."""
        _, height, width, channels = features.shape
        return ops.reshape(features, (-1, height * width, channels))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(batch, regions, channels)."""
        batch, height, width, channels = input_shape
        return (batch, height * width, channels)


@keras.saving.register_keras_serializable("eczema_tf")
class PatchGrid(keras.layers.Layer):
    """Lays a vision transformer's patch tokens out as a feature map, without the class (and other) tokens that come first.

    Call with (batch, tokens, channels); returns (batch, side, side, channels).
    """

    def __init__(self, side: int, **options: Any):
        super().__init__(**options)
        self.side = side

    def call(self, tokens: Any) -> Any:
        """Takes the last side * side tokens, which are the patches row by row."""
        return ops.reshape(
            tokens[:, -(self.side**2) :], (-1, self.side, self.side, tokens.shape[-1])
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(batch, side, side, channels)."""
        return (input_shape[0], self.side, self.side, input_shape[-1])

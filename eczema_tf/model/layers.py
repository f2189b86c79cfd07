"""The few layers that Keras does not have.

Missing modalities, masked pooling, windows, patch grids and cumulative logits. None overrides
`compute_output_shape`: Keras infers it from `call`.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

# Version of what these and other layers of the package compute; raised when that changes, since
# features of frozen encoders are cached.
LAYERS_VERSION = 1


@keras.saving.register_keras_serializable("eczema_tf")
class MissingModality(keras.layers.Layer):
    """Replaces the embedding of an absent modality with a learned vector, in training and after it.

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
        """Chooses row by row.

        Uses `where`, not a product, so that whatever an absent photo was filled with cannot come
        through.
        """
        embedding, present = inputs
        missing = ops.cast(self.missing, embedding.dtype)  # (units,)
        return ops.where(ops.expand_dims(present, -1) > 0.5, embedding, missing)


@keras.saving.register_keras_serializable("eczema_tf")
class ModalityDropout(keras.layers.Layer):
    """In training, declares one of two modalities absent in a share of the rows that have both.

    ModDrop (Neverova et al. 2016). Call with `[image_present, text_present]`, each (batch,) 0 or 1;
    returns the same two, never both 0 where one was 1.
    """

    def __init__(self, rate: float, **options: Any) -> None:
        super().__init__(**options)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator()  # seeded by keras.utils.set_random_seed

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Drops the photo in half of the chosen rows and the text in the other half."""
        image_present, text_present = inputs
        if not training or self.rate == 0:
            return [image_present, text_present]
        both = image_present * text_present  # (batch,)
        draw = keras.random.uniform(ops.shape(both), seed=self.seed_generator)  # (batch,)
        image_dropped = ops.cast(draw < self.rate / 2, both.dtype) * both
        text_dropped = ops.cast(draw > 1 - self.rate / 2, both.dtype) * both
        return [image_present - image_dropped, text_present - text_dropped]


@keras.saving.register_keras_serializable("eczema_tf")
class MaskedPooling(keras.layers.Layer):
    """Pools real tokens by "mean", by "max", or by "mean_max", both side by side.

    Concat pooling is after Howard and Ruder (2018). Call with `[tokens (batch, tokens, units), mask
    (batch, tokens) 0 or 1]`; returns (batch, units), or (batch, 2 * units) for both.
    """

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__(**options)
        self.kind = kind

    def call(self, inputs: Any) -> Any:
        """Pools; a row without any token gives zeros."""
        tokens, mask = inputs
        mask = ops.expand_dims(ops.cast(mask, tokens.dtype), -1)  # (batch, tokens, 1)
        pooled = []
        if "mean" in self.kind:
            count = ops.maximum(ops.sum(mask, axis=1), 1.0)  # (batch, 1)
            pooled.append(ops.sum(tokens * mask, axis=1) / count)
        if "max" in self.kind:
            lowest = ops.cast(-1e4, tokens.dtype)  # fits float16
            highest = ops.max(ops.where(mask > 0, tokens, lowest), axis=1)  # (batch, units)
            any_token = ops.any(mask > 0, axis=1)  # (batch, 1)
            pooled.append(ops.where(any_token, highest, ops.zeros_like(highest)))
        return ops.concatenate(pooled, axis=-1)


@keras.saving.register_keras_serializable("eczema_tf")
class WindowMean(keras.layers.Layer):
    """Means of the real tokens among every `width` in a row: what phrases say, in less space.

    Call with `[tokens (batch, tokens, units), mask (batch, tokens) 0 or 1]`; returns (batch,
    windows, units), zeros where a window has no token. Windows begin at the first token, so that
    padding changes none of them.
    """

    def __init__(self, width: int, **options: Any) -> None:
        super().__init__(**options)
        self.width = width

    def call(self, inputs: Any) -> Any:
        """Adds up each window and divides by the number of its tokens."""
        tokens, mask = inputs
        mask = ops.expand_dims(ops.cast(mask, tokens.dtype), -1)  # (batch, tokens, 1)
        return self._add_up(tokens * mask) / ops.maximum(self._add_up(mask), 1.0)

    def _add_up(self, values: Any) -> Any:
        """(batch, tokens, units) to (batch, windows, units)."""
        batch, tokens, units = ops.shape(values)
        padded = ops.pad(values, [[0, 0], [0, -tokens % self.width], [0, 0]])
        return ops.sum(ops.reshape(padded, (batch, -1, self.width, units)), axis=2)


@keras.saving.register_keras_serializable("eczema_tf")
class HeldWindows(keras.layers.Layer):
    """The mask of `WindowMean`'s windows: (batch, windows, units) to (batch, windows), 0 or 1."""

    def call(self, windows: Any) -> Any:
        """Finds the windows that have tokens: the others are zeros throughout."""
        return ops.cast(ops.any(windows != 0, axis=-1), windows.dtype)


@keras.saving.register_keras_serializable("eczema_tf")
class AnyWindow(keras.layers.Layer):
    """Logits of "somewhere in the text" from logits of "in this window", by log-sum-exp.

    A smooth maximum, through which every window learns. Call with `[logits (batch, windows, n),
    mask (batch, windows) 0 or 1]`; returns (batch, n).
    """

    def call(self, inputs: Any) -> Any:
        """Leaves empty windows out."""
        logits, mask = inputs
        held = ops.where(ops.expand_dims(mask, -1) > 0, logits, -30.0)
        return ops.logsumexp(held, axis=1)


@keras.saving.register_keras_serializable("eczema_tf")
class CumulativeLogits(keras.layers.Layer):
    """Cumulative logits of ordered grades that share one score: the proportional odds model.

    McCullagh (1980). Call with `score` (batch, 1); returns (batch, grades - 1), where the sigmoid
    of column k is P(grade > k), never rising with k.
    """

    def __init__(self, grades: int, **options: Any) -> None:
        super().__init__(**options)
        self.grades = grades

    def build(self, input_shape: Any) -> None:
        """Makes the first cut point and the (positive) steps to the next."""
        # all grades equally likely: the answer of a head that has no grade to learn from
        cuts = np.log([k / (self.grades - k) for k in range(1, self.grades)])
        self.first = self.add_weight(
            shape=(1,), initializer=keras.initializers.Constant(cuts[0]), name="first_cut"
        )
        self.steps = self.add_weight(
            shape=(self.grades - 2,),
            initializer=keras.initializers.Constant(np.log(np.expm1(np.diff(cuts)))),
            name="steps",
        )

    def call(self, score: Any) -> Any:
        """Subtracts the rising cut points from the score."""
        rises = ops.cumsum(ops.softplus(self.steps))  # (grades - 2,)
        cuts = ops.concatenate([self.first, self.first + rises])  # (grades - 1,)
        return score - ops.cast(cuts, score.dtype)


@keras.saving.register_keras_serializable("eczema_tf")
class AddedEvidence(keras.layers.Layer):
    """Adds up two modalities' evidence and a joint term, each weighted by its slope.

    Call with `[image (batch, 1), text (batch, 1), image_present (batch,), text_present (batch,)]`
    and perhaps `joint (batch, 1)`, all log-odds; returns (batch, 1). Evidence is a modality's
    log-odds minus the `prior`; an absent modality has none. A joint term and a `shift` are added
    only if both are there.

    No weight is trained by gradients: heads are surest on the cases they were trained on, so only
    other cases show how far to trust them (stacking, Wolpert 1992). Nor does any gradient in
    training reach the modalities' own log-odds: they learn from their own losses; otherwise they
    would be calibrated for the sum and not for themselves. (If there is only one, `OneOrBoth`
    passes its answer on, and fusion's loss with it.)
    """

    def build(self, input_shape: Any) -> None:
        """Makes the prior log-odds, the slopes of photo, text and joint term, and the shift."""
        del input_shape
        self.prior = self.add_weight(shape=(), initializer="zeros", trainable=False, name="prior")
        self.slopes = self.add_weight(
            shape=(3,), initializer="ones", trainable=False, name="slopes"
        )
        self.shift = self.add_weight(shape=(), initializer="zeros", trainable=False, name="shift")

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Adds.

        Uses `where`, so that the score of an absent photo cannot come through even if it is NaN.
        """
        image, text, image_present, text_present, *joint = inputs
        if training:
            image, text = ops.stop_gradient(image), ops.stop_gradient(text)
        has_image = ops.expand_dims(image_present > 0.5, -1)  # (batch, 1)
        has_text = ops.expand_dims(text_present > 0.5, -1)
        total = self.prior + ops.where(has_image, self.slopes[0] * (image - self.prior), 0.0)
        total += ops.where(has_text, self.slopes[1] * (text - self.prior), 0.0)
        together = self.shift + sum(self.slopes[2] * term for term in joint)
        return total + ops.where(ops.logical_and(has_image, has_text), together, 0.0)


@keras.saving.register_keras_serializable("eczema_tf")
class OneOrBoth(keras.layers.Layer):
    """Returns the answer of the only modality that is there, or that of both.

    In training, fusion's loss thus also counts for a modality that is alone, besides its own loss:
    without this, nothing measurable changes (docs/log.md).

    Call with `[image (batch, n), text (batch, n), both (batch, n), image_present (batch,),
    text_present (batch,)]`; returns (batch, n).
    """

    def call(self, inputs: Any) -> Any:
        """Chooses, so that a single answer comes through bit for bit."""
        image, text, both, image_present, text_present = inputs
        has_image = ops.expand_dims(image_present > 0.5, -1)  # (batch, 1)
        has_text = ops.expand_dims(text_present > 0.5, -1)
        answer = ops.where(ops.logical_and(has_image, ops.logical_not(has_text)), image, both)
        return ops.where(ops.logical_and(has_text, ops.logical_not(has_image)), text, answer)


@keras.saving.register_keras_serializable("eczema_tf")
class PatchGrid(keras.layers.Layer):
    """Lays a vision transformer's patch tokens out as a feature map.

    Leaves out the class (and other) tokens that come first. Call with (batch, tokens, channels);
    returns (batch, side, side, channels).
    """

    def __init__(self, side: int, **options: Any) -> None:
        super().__init__(**options)
        self.side = side

    def call(self, tokens: Any) -> Any:
        """Takes the last side * side tokens, which are the patches row by row.

        It counts from the end of the tokens that are there: KerasHub announces one too many for
        SigLIP.
        """
        patches = tokens[:, -(self.side**2) :]  # (batch, side * side, channels)
        grid = (ops.shape(tokens)[0], self.side, self.side, tokens.shape[-1])
        return ops.reshape(patches, grid)  # fails where -1 rows would mix the photos of a batch

"""Runs dummies through an encoder before any work on data, so that failures show at once."""

import keras
import numpy as np

from eczema_tf.errors import ConfigError, shorten
from eczema_tf.model.multimodal import encoder_of
from eczema_tf.schema import IMAGE, PADDING_MASK, TOKEN_IDS

DUMMY_TOKENS = 8
RELATIVE_TOLERANCE = 1e-3  # for rounding, which differs between one row and two


def probe_encoder(model: keras.Model, modality: str, name: str) -> None:
    """Encodes two dummy photos or texts, together and each alone.

    Args:
        model: From `build_model`.
        modality: "image" or "text".
        name: Name of the encoder, for the error.

    Raises:
        ConfigError: If that fails or returns values that are not finite, or if the rows of a batch
            depend on each other.
    """
    encoder, rng = encoder_of(model, modality), np.random.default_rng(0)
    if modality == "image":
        photos = rng.uniform(0, 255, (2, *encoder.input[IMAGE].shape[1:]))
        dummies = {IMAGE: photos.astype("float32")}
    else:
        tokens = rng.integers(1, 5, (2, DUMMY_TOKENS)).astype("int32")
        dummies = {TOKEN_IDS: tokens, PADDING_MASK: np.ones_like(tokens)}
    each = [{key: rows[i : i + 1] for key, rows in dummies.items()} for i in range(2)]
    try:
        together = np.asarray(encoder(dummies, training=False))
        alone = np.concatenate([np.asarray(encoder(row, training=False)) for row in each])
        largest, apart = np.abs(together).max(), np.abs(together - alone).max()
    except Exception as error:  # third-party layers raise whatever they like
        raise ConfigError(
            f"model.{modality}: {name} cannot encode: {shorten(str(error))}"
        ) from error
    if not 0 < largest < np.inf:
        raise ConfigError(f"model.{modality}: {name} cannot encode: it returns {largest:g} for all")
    difference = apart / largest
    if not difference <= RELATIVE_TOLERANCE:
        raise ConfigError(
            f"model.{modality}: {name} does not encode each row of a batch by itself: alone, a row"
            f" differs by {difference:.1e} of the largest value"
        )

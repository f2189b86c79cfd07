"""The model cut at the tensors that explanations take gradients to: a map of the photo and the tokens' embeddings.

    photo --to_fine_map--> fine map --from_fine_map--> image_features --+
                                                                        +--> logits
    token ids ----------embed_tokens---------> embeddings --------------+

The parts share the model's layers. All are graph operations, so that the served model and the
offline methods use the same ones.
"""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from eczema_tf.errors import ConfigError
from eczema_tf.model.multimodal import IMAGE_FEATURES, TEXT_FEATURES
from eczema_tf.schema import (
    CONSISTENCY,
    HEADS,
    IMAGE,
    IMAGE_PRESENT,
    PADDING_MASK,
    SEVERITY,
    TEXT_PRESENT,
    TOKEN_IDS,
)

Tensors = Mapping[str, Any]
PAD_TOKEN_ID = 0  # BERT's [PAD], and that of every vocabulary learned here (data/text.py)
FINE_CELLS = 24  # a side: coarser maps miss small lesions (docs/log.md)


class Submodels:
    """The parts of an model.

    Attributes:
        model: The whole.
        image_features: Shape of a photo's feature map (height, width, channels), or (dimension,)
            for embeddings.
        image_trunk: From pixels to the feature map.
        to_fine_map: From pixels to the fine map: the last inner one of the encoder with at least
            `FINE_CELLS` cells a side. Where there is none (a vision transformer has one resolution
            throughout), the fine map is the feature map itself.
        from_fine_map: From the fine map to the feature map.
        heads: From feature map and encoded text to the logits of every head; a list of five inputs,
            in the order of `head_inputs`.
    """

    def __init__(self, model: keras.Model):
        """Cuts.

        Args:
            model: From `build_model`, trained.
        """
        self.model = model
        image, text = (model.get_layer(name).output for name in (IMAGE_FEATURES, TEXT_FEATURES))
        self.image_features: tuple[int, ...] = tuple(image.shape[1:])
        self.image_trunk = keras.Model(model.input[IMAGE], image, name="image_trunk")
        self.to_fine_map, self.from_fine_map = _cut_encoder(model) or (
            self.image_trunk,
            keras.layers.Identity(),
        )
        encoder = model.get_layer("text_encoder")
        embedding = encoder.get_layer("token_embedding")
        self._token_embedding = embedding
        masks = [encoder.input["padding_mask"], encoder.input["segment_ids"]]
        self._text_trunk = keras.Model(
            [embedding.output, *masks], encoder.output["sequence_output"], name="text_trunk"
        )
        rest = [model.input[name] for name in (PADDING_MASK, IMAGE_PRESENT, TEXT_PRESENT)]
        self.heads = keras.Model(
            [image, text, *rest],
            [model.get_layer(head).output for head in HEADS],
            name="explained_heads",
        )

    @property
    def has_feature_map(self) -> bool:
        """Whether there is a map for Grad-CAM: embeddings have no places."""
        return len(self.image_features) == 3

    def encode_image(self, image: Any) -> tf.Tensor:
        """Photos float32 (batch, size, size, 3) to the feature map."""
        return self.image_trunk(image, training=False)

    def encode_finely(self, image: Any) -> tf.Tensor:
        """Photos float32 (batch, size, size, 3) to the fine map (batch, height, width, channels)."""
        return self.to_fine_map(image, training=False)

    def finish_encoding(self, fine_map: Any) -> tf.Tensor:
        """The fine map to the feature map."""
        return self.from_fine_map(fine_map, training=False)

    def embed_tokens(self, token_ids: Any) -> tf.Tensor:
        """Token ids int32 (batch, tokens) to embeddings float32 (batch, tokens, units), before position and context."""
        return self._token_embedding(token_ids)

    def encode_text(self, embeddings: Any, padding_mask: Any) -> tf.Tensor:
        """Embeddings (batch, tokens, units) to encoded tokens (batch, tokens, channels)."""
        return self._text_trunk(
            [embeddings, padding_mask, tf.zeros_like(padding_mask)], training=False
        )

    def compute_logits(
        self, image_features: Any, embeddings: Any, inputs: Tensors
    ) -> dict[str, tf.Tensor]:
        """The rest of the way.

        Args:
            image_features: From `encode_image`.
            embeddings: From `embed_tokens`.
            inputs: `padding_mask`, `image_present` and `text_present`, as the model takes them.

        Returns:
            Logits by head.
        """
        text_features = self.encode_text(embeddings, inputs[PADDING_MASK])
        rest = [inputs[name] for name in (PADDING_MASK, IMAGE_PRESENT, TEXT_PRESENT)]
        return dict(
            zip(
                HEADS,
                self.heads([image_features, text_features, *rest], training=False),
                strict=True,
            )
        )


def _cut_encoder(model: keras.Model) -> tuple[keras.Model, keras.Model] | None:
    """Cuts the image encoder at its fine map.

    Returns:
        From photos to that map, and from there to the encoder's own; None if the encoder has no
        such map, or none at all.
    """
    encoder = next((layer for layer in model.layers if layer.name == "image_encoder"), None)
    if not isinstance(encoder, keras.Model) or len(encoder.output.shape) != 4:
        return None
    pixels = model.get_layer("image_normalization").output
    for kind in (
        keras.layers.Add,
        keras.layers.Activation,
    ):  # where residual blocks meet, if there are any: all else is half a step
        inner = [layer.output for layer in encoder.layers if isinstance(layer, kind)]
        shapes = (
            [found.shape for found in keras.Model(encoder.input, inner)(pixels)] if inner else []
        )
        for tensor, shape in reversed(list(zip(inner, shapes, strict=True))):
            if (
                len(shape) == 4
                and min(shape[1:3]) >= FINE_CELLS
                and (rest := _connect(tensor, encoder.output))
            ):
                trunk = keras.Model(encoder.input, tensor, name="image_encoder_to_fine_map")
                return keras.Model(model.input[IMAGE], trunk(pixels), name="image_fine_trunk"), rest
    return None


def _connect(start: Any, end: Any) -> keras.Model | None:
    """A model from one tensor to another; None if something flows around the first, as around the inside of a residual block."""
    try:
        return keras.Model(start, end, name="image_encoder_from_fine_map")
    except ValueError:  # Keras' only way to say so
        return None


def to_tensors(inputs: Tensors) -> dict[str, tf.Tensor]:
    """Converts a batch's arrays, with the types that the model takes (`Inputs.gather` keeps pixels as uint8)."""
    integers = (TOKEN_IDS, PADDING_MASK)
    return {
        name: tf.cast(inputs[name], tf.int32 if name in integers else tf.float32)
        for name in (IMAGE, IMAGE_PRESENT, TEXT_PRESENT, *integers)
    }


def embed_baseline(cut: Submodels, token_ids: Any) -> tf.Tensor:
    """The embeddings of a text that says nothing: every word piece is padding, the first and last special tokens stay.

    Args:
        cut: The model.
        token_ids: int32 (batch, tokens), [CLS] pieces [SEP], padded.

    Returns:
        float32 (batch, tokens, units).
    """
    token_ids = tf.convert_to_tensor(token_ids)
    last = tf.reduce_sum(tf.cast(token_ids != PAD_TOKEN_ID, tf.int32), axis=1, keepdims=True) - 1
    place = tf.range(tf.shape(token_ids)[1])[None, :]
    special = (place == 0) | (place == last)
    return cut.embed_tokens(tf.where(special, token_ids, PAD_TOKEN_ID))


def select_logit(logits: Tensors, target: str) -> tf.Tensor:
    """Picks the logit that is to be explained. Logits, since a saturated probability has no gradient.

    Args:
        logits: By head.
        target: A head with one logit ("eczema", "eczema_image", "eczema_text"), or a head and a
            label: "consistency:unclear" is the label's log-odds against the others,
            "severity:moderate" the log-odds of that grade or a worse one.

    Returns:
        float32 (batch,).

    Raises:
        ConfigError: If there is no such head or label.
    """
    head, _, label = target.partition(":")
    if target in TARGETS and not label:
        return logits[head][:, 0]
    if target not in TARGETS:
        raise ConfigError(f"target {target!r}: allowed: {', '.join(TARGETS)}")
    if head == "severity":
        return logits[head][:, SEVERITY.index(label) - 1]
    place = CONSISTENCY.index(label)
    others = tf.concat([logits[head][:, :place], logits[head][:, place + 1 :]], axis=1)
    return logits[head][:, place] - tf.reduce_logsumexp(others, axis=1)


TARGETS = (
    "eczema",
    "eczema_image",
    "eczema_text",
    *(f"consistency:{label}" for label in CONSISTENCY),
    *(f"severity:{label}" for label in SEVERITY[1:]),  # "mild or worse" is certain
)

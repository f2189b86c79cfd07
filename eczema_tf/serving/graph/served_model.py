"""The served graph: JPEG or PNG bytes and text in, probabilities, explanations and a status for each row out. No Python is left in it."""

from collections.abc import Callable
from typing import Any, Protocol

import keras
import tensorflow as tf

from eczema_tf.config import PreprocessConfig
from eczema_tf.data.photo.preprocess import preprocess_photo
from eczema_tf.data.text.offsets import TokenLocator
from eczema_tf.data.text.tokenizer import TextTokenizer, clean_text
from eczema_tf.model.encoders import EncoderSpec
from eczema_tf.model.losses import compute_probabilities
from eczema_tf.schema import IMAGE, IMAGE_PRESENT, MODALITIES, PADDING_MASK, TEXT_PRESENT, TOKEN_IDS
from eczema_tf.serving.graph.freeze import save_frozen
from eczema_tf.serving.graph.guard import OK, PHOTO_STATUS, decode_guarded

IGNORED_PHOTO = "photo: ignored, this model was not trained on photos"
IGNORED_TEXT = "text: ignored, this model was not trained on texts"
EMPTY_TEXT = "text: nothing readable in it"
NOTHING = "neither a photo nor a text that can be used"


INPUTS = (
    tf.TensorSpec([None], tf.string, name="image"),
    tf.TensorSpec([None], tf.string, name="text"),
)


class Explained(Protocol):
    """What an explainer gives, see `attribution.one_pass.Explained`."""

    logits: dict[str, tf.Tensor]
    heatmap: tf.Tensor
    token_scores: tf.Tensor


Explainer = Callable[[dict[str, tf.Tensor]], Explained]


class ServedModel(tf.Module):
    """The model with its preprocessing, as `tf.saved_model.save` takes it."""

    def __init__(
        self,
        model: keras.Model,
        image_encoder: EncoderSpec,
        tokenizer: TextTokenizer,
        preprocess: PreprocessConfig,
        trained_on: frozenset[str] = frozenset(MODALITIES),
        explainer: Explainer | None = None,
    ):
        """Takes the parts.

        Args:
            model: Trained.
            image_encoder: Its size of photo; precomputed embeddings cannot be had from a photo
                here, so such a model ignores photos.
            tokenizer: For the texts.
            preprocess: Of the photos.
            trained_on: Modalities that the training rows had; others are ignored and the row's
                status says so.
            explainer: Turns the model's inputs into logits and explanations; None to leave the
                signature `explain` out.
        """
        super().__init__(name="eczema")
        self.model = model
        self.tokenizer = tokenizer.tokenizer  # so that its tables are saved
        self._tokenize, self._locate = tokenizer, TokenLocator(tokenizer)
        self._explainer = explainer
        self._image_encoder = image_encoder
        self._preprocess = preprocess
        self._uses_photos = "image" in trained_on and image_encoder.kind != "precomputed"
        self._uses_texts = "text" in trained_on

    @tf.function(input_signature=INPUTS)
    def serve(self, image: tf.Tensor, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """The `serving_default` signature.

        Args:
            image: string (batch,), JPEG or PNG bytes, upright; "" for none.
            text: string (batch,), UTF-8; "" for none.

        Returns:
            `eczema`, `eczema_image`, `eczema_text` float32 (batch,); `consistency`, `severity`
            float32 (batch, 3); `image_used`, `text_used` bool (batch,); `status` string (batch,),
            "ok" or what was wrong with the row.
        """
        inputs, report, _ = self._read(image, text)
        return {**compute_probabilities(self.model(inputs, training=False)), **report}

    @tf.function(input_signature=INPUTS)
    def explain(self, image: tf.Tensor, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """The `explain` signature: what `serve` gives, and where in the photo and in the text the evidence for eczema lies.

        Args:
            image: As in `serve`.
            text: As in `serve`.

        Returns:
            What `serve` gives; `heatmap` float32 (batch, height, width) in [0, 1], zeros for no
            evidence; `token_start`, `token_end` int32 (batch, tokens), byte offsets into
            `clean_text` (both 0 for special tokens and padding); `token_score` float32 (batch,
            tokens), signed, in logits; `clean_text` string (batch,).
        """
        inputs, report, cleaned = self._read(image, text)
        explained = self._explainer(inputs)
        start, end = self._locate(cleaned)
        return {
            **compute_probabilities(explained.logits),
            **report,
            "heatmap": explained.heatmap,
            "token_start": start,
            "token_end": end,
            "token_score": explained.token_scores,
            "clean_text": cleaned,
        }

    def signatures(self) -> dict[str, Any]:
        """The functions to be served, by name."""
        return {"serving_default": self.serve} | (
            {"explain": self.explain} if self._explainer is not None else {}
        )

    def _read(
        self, image: tf.Tensor, text: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor], tf.Tensor]:
        """The model's inputs, what the answer says of them, and the cleaned texts."""
        pixels, image_used, image_status = self._read_photos(image)
        cleaned, text_used, text_status = self._read_texts(text)
        token_ids, padding_mask = self._tokenize(cleaned)
        inputs = {
            IMAGE: pixels,
            IMAGE_PRESENT: tf.cast(image_used, tf.float32),
            TOKEN_IDS: token_ids,
            PADDING_MASK: padding_mask,
            TEXT_PRESENT: tf.cast(text_used, tf.float32),
        }
        status = _join_status(image_status, text_status, image_used | text_used)
        return inputs, {"image_used": image_used, "text_used": text_used, "status": status}, cleaned

    def _read_photos(self, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Pixels float32, whether each photo is used, and its status."""
        given = tf.strings.length(image) > 0
        if not self._uses_photos:
            shape = self.model.input[IMAGE].shape[1:]
            return (
                tf.zeros([tf.size(image), *shape]),
                tf.zeros_like(given),
                tf.where(given, IGNORED_PHOTO, "ok"),
            )
        size_px = self._image_encoder.size_px
        pixels, codes = decode_guarded(
            image,
            lambda data: preprocess_photo(data, tf.constant(1), size_px, self._preprocess),
            size_px,
        )
        return (
            tf.cast(pixels, tf.float32),
            given & tf.equal(codes, OK),
            tf.gather(tf.constant(PHOTO_STATUS), codes),
        )

    def _read_texts(self, text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Cleaned texts, whether each is used, and its status."""
        given = tf.strings.length(text) > 0
        if not self._uses_texts:
            return tf.zeros_like(text), tf.zeros_like(given), tf.where(given, IGNORED_TEXT, "ok")
        cleaned = clean_text(text)
        used = tf.strings.length(cleaned) > 0
        return cleaned, used, tf.where(given & ~used, EMPTY_TEXT, "ok")


def _join_status(image: tf.Tensor, text: tf.Tensor, anything_used: tf.Tensor) -> tf.Tensor:
    both = tf.where(
        text == "ok",
        image,
        tf.where(image == "ok", text, tf.strings.join([image, text], separator="; ")),
    )
    return tf.where(anything_used, both, tf.where(both == "ok", NOTHING, both))


def save_served(served: ServedModel, folder: Any) -> None:
    """Writes a SavedModel, frozen, with the signatures `serving_default` and, with an explainer, `explain`."""
    save_frozen(served.signatures(), folder)

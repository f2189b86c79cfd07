"""The served graph: photo bytes and text in, probabilities and explanations out.

Each row has its own status. No Python is left in the graph.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from eczema_tf.config import PreprocessConfig
from eczema_tf.data.clinical.fields import Field, encode_fields
from eczema_tf.data.photo.preprocess import preprocess_photo
from eczema_tf.data.text.offsets import TokenLocator
from eczema_tf.data.text.reading import TextReader, is_read, join_statuses
from eczema_tf.data.text.tokenizer import TextTokenizer, clean_text
from eczema_tf.model.decision import compute_decision
from eczema_tf.model.encoders import EncoderSpec
from eczema_tf.model.losses import compute_probabilities
from eczema_tf.schema import (
    CLINICAL,
    DECISIONS,
    IMAGE,
    IMAGE_PRESENT,
    MODALITIES,
    PADDING_MASK,
    STATUS_OK,
    TEXT_PRESENT,
    TOKEN_IDS,
)
from eczema_tf.serving.graph.freeze import save_frozen
from eczema_tf.serving.graph.guard import OK, PHOTO_STATUS, decode_guarded
from eczema_tf.serving.graph.signature import CLINICAL_INPUTS, EXPLAIN, INPUTS, SERVE, WITH_CLINICAL

IGNORED_PHOTO = "photo: ignored, this model was not trained on photos"
IGNORED_TEXT = "text: ignored, this model was not trained on texts"
EMPTY_TEXT = "text: nothing readable in it"
NOTHING = "neither a photo nor a text that can be used"

SPECS = tuple(tf.TensorSpec([None], dtype, name) for name, dtype in INPUTS.items())
CLINICAL_SPECS = tuple(
    tf.TensorSpec([None], dtype, name) for name, dtype in CLINICAL_INPUTS.items()
)

Tensors = dict[str, tf.Tensor]
# the model's inputs to logits, heatmap and its scale, token scores, contributions and more:
# `explanation.one_pass.Explained`
Explainer = Callable[[Tensors], tuple[Tensors, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, Any]]


class ServedModel(tf.Module):
    """The model with its preprocessing, as `tf.saved_model.save` takes it."""

    def __init__(
        self,
        *,
        model: keras.Model,
        image_encoder: EncoderSpec,
        tokenizer: TextTokenizer,
        preprocess: PreprocessConfig,
        trained_on: frozenset[str] = frozenset(MODALITIES),
        explainer: Explainer | None = None,
        clinical: Sequence[Field] = (),
    ):
        """Puts the parts together.

        Args:
            model: Trained.
            image_encoder: Says how large photos are. A model of precomputed embeddings ignores
                photos, since their embeddings cannot be computed here.
            tokenizer: For the texts.
            preprocess: For the photos.
            trained_on: Modalities that the training rows had; others are ignored and the row's
                status says so.
            explainer: Turns the model's inputs into logits and explanations; None to leave out the
                signature `explain`.
            clinical: Fields that the model takes; if there are any, there are also signatures with
                them.
        """
        super().__init__(name="eczema")
        self.model = model
        self.tokenizer = tokenizer.tokenizer  # so that its tables are saved
        self._tokenize, self._locate = tokenizer, TokenLocator(tokenizer)
        self._describe_reading = TextReader(tokenizer)
        self._explain = explainer
        self._clinical = tuple(clinical)
        self._size_px = image_encoder.size_px
        self._preprocess = preprocess
        self.uses_photos = "image" in trained_on and image_encoder.kind != "precomputed"
        self.uses_texts = "text" in trained_on

    @tf.function(input_signature=SPECS, autograph=False)
    def serve(self, image: tf.Tensor, text: tf.Tensor) -> Tensors:
        """The `serving_default` signature.

        Args:
            image: string (batch,), JPEG or PNG bytes, upright; "" for none.
            text: string (batch,), UTF-8; "" for none.

        Returns:
            `eczema`, `eczema_image`, `eczema_text` float32 (batch,); `consistency`, `severity`
            float32 (batch, 3); `image_used`, `text_used` bool (batch,); `status` string (batch,),
            "ok" or remarks on the row: what could not be used, and what of a used text is not read
            or not known; `known_image`, `known_text` bool (batch,), whether photo and text are like
            those that the model was trained on; `decision` string (batch,), one of
            `schema.DECISIONS`.
        """
        return self.serve_clinical(image, text)

    def serve_clinical(
        self, image: tf.Tensor, text: tf.Tensor, clinical: tf.Tensor | None = None
    ) -> Tensors:
        """The signature `clinical`: as `serve`, for a model that takes clinical fields.

        Args:
            image: As in `serve`.
            text: As in `serve`.
            clinical: string (batch,), "age=34; sex=female"; a field that is not named is not known.
                None if no field is known.
        """
        inputs, report, _ = self.read(image, text, clinical)
        return self._answer(self.model(inputs, training=False), inputs, report)

    @tf.function(input_signature=SPECS, autograph=False)
    def explain(self, image: tf.Tensor, text: tf.Tensor) -> Tensors:
        """The `explain` signature: where in photo and text the evidence for eczema lies.

        Args:
            image: As in `serve`.
            text: As in `serve`.

        Returns:
            What `serve` returns; `heatmap` float32 (batch, height, width) in [0, 1], zeros for no
            evidence and for photos that are not known; `heatmap_scale` float32 (batch,), what 1
            stands for, in logits for each hundredth of the photo's area; `token_start`, `token_end`
            int32 (batch, tokens), byte offsets into `clean_text` (both 0 for special tokens and
            padding); `token_score` float32 (batch, tokens), signed, in logits; `contribution`
            float32 (batch, 3), in logits: the starting point, and how far photo and text each move
            it; the three add up to the logit of `eczema`, and the `token_score`s add up to the
            text's part (models that take clinical fields: float32 (batch, 4), the last being what
            these add); `clean_text` string (batch,).

        Raises:
            ValueError: If there is no explainer.
        """
        return self.explain_clinical(image, text)

    def explain_clinical(
        self, image: tf.Tensor, text: tf.Tensor, clinical: tf.Tensor | None = None
    ) -> Tensors:
        """The signature `explain_clinical`: as `explain`, with the inputs of `serve_clinical`."""
        if self._explain is None:
            raise ValueError("explainer: needed for the signature `explain`")
        inputs, report, cleaned = self.read(image, text, clinical)
        logits, heatmap, heatmap_scale, token_scores, contributions, _ = self._explain(inputs)
        start, end = self._locate(cleaned)  # (batch, tokens)
        return {
            **self._answer(logits, inputs, report),
            "heatmap": heatmap,
            "heatmap_scale": heatmap_scale,
            "token_start": start,
            "token_end": end,
            "token_score": token_scores,
            "contribution": contributions,
            "clean_text": cleaned,
        }

    def _answer(self, outputs: Tensors, inputs: Tensors, report: Tensors) -> Tensors:
        """Makes the outputs that every signature returns from the model's outputs."""
        decided = compute_decision(outputs, inputs, is_read(report["status"]))
        named = tf.gather(tf.constant(DECISIONS), decided.pop("decision"))
        return {**compute_probabilities(outputs), **report, **decided, "decision": named}

    def signatures(self) -> dict[str, Any]:
        """Returns the functions to serve, by name."""
        return {SERVE: self.serve} | ({} if self._explain is None else {EXPLAIN: self.explain})

    def clinical_signatures(self) -> dict[str, Any]:
        """Returns the same with clinical fields, by the names in `signatures`; none without any."""
        if not self._clinical:
            return {}
        functions = {SERVE: self.serve_clinical, EXPLAIN: self.explain_clinical}
        return {
            name: tf.function(functions[name], input_signature=CLINICAL_SPECS, autograph=False)
            for name in self.signatures()
        }

    def _read_photos(self, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns pixels, (batch, height, width, 3), whether they are usable, and statuses."""
        image_given = tf.strings.length(image) > 0  # (batch,)
        if self.uses_photos:
            pixels, codes = decode_guarded(
                image,
                lambda data: preprocess_photo(data, self._size_px, self._preprocess),
                self._size_px,
            )  # (batch, height, width, 3), (batch,)
            image_used = image_given & tf.equal(codes, OK)
            image_status = tf.gather(tf.constant(PHOTO_STATUS), codes)
        else:
            pixels = tf.zeros([tf.size(image), *self.model.input[IMAGE].shape[1:]])
            image_used = tf.zeros_like(image_given)
            image_status = tf.where(image_given, IGNORED_PHOTO, STATUS_OK)
        return pixels, image_used, image_status

    def read(
        self, image: tf.Tensor, text: tf.Tensor, clinical: tf.Tensor | None = None
    ) -> tuple[Tensors, Tensors, tf.Tensor]:
        """Returns the model's inputs, what the answer says about them, and the cleaned texts."""
        pixels, image_used, image_status = self._read_photos(image)
        text_given = tf.strings.length(text) > 0  # (batch,)
        if self.uses_texts:
            cleaned = clean_text(text)
            text_used = tf.strings.length(cleaned) > 0
            text_status = tf.where(text_given, EMPTY_TEXT, STATUS_OK)
            reading = self._describe_reading(text, cleaned)
            text_status = tf.where(text_used, reading, text_status)
        else:
            cleaned, text_used = tf.zeros_like(text), tf.zeros_like(text_given)
            text_status = tf.where(text_given, IGNORED_TEXT, STATUS_OK)
        token_ids, padding_mask = self._tokenize(cleaned)  # (batch, tokens)

        status = join_statuses(image_status, text_status)
        status = tf.where((image_used | text_used) | (status != STATUS_OK), status, NOTHING)
        inputs = {
            IMAGE: tf.cast(pixels, tf.float32),
            IMAGE_PRESENT: tf.cast(image_used, tf.float32),
            TOKEN_IDS: token_ids,
            PADDING_MASK: padding_mask,
            TEXT_PRESENT: tf.cast(text_used, tf.float32),
        }
        if self._clinical:
            told = tf.zeros_like(text) if clinical is None else clinical
            figures, unread = encode_fields(told, self._clinical)
            inputs[CLINICAL] = tf.where((image_used | text_used)[:, None], figures, 0.0)
            status = join_statuses(status, unread)
        report = {"image_used": image_used, "text_used": text_used, "status": status}
        return inputs, report, cleaned


def save_served(served: ServedModel, folder: Path) -> None:
    """Writes a frozen SavedModel with every signature of the served model.

    Where there are clinical fields, the signatures without them call those with them and leave all
    fields unknown, so each network is stored once.
    """
    told = served.clinical_signatures()
    longer = {WITH_CLINICAL[name]: function for name, function in told.items()}
    shorter = {name: WITH_CLINICAL[name] for name in told}
    save_frozen(longer or served.signatures(), folder, shorter, SPECS)

"""The model: one Keras functional model from a photo and tokens to the logits of seven heads.

    image -> image_encoder -> image_features -> summary -> projection -+-> eczema_image,
                                                                       |   severity_image
                                            missing or dropped? -------+-> fusion: eczema, severity
                                                                       |
    tokens -> text_encoder -> text_features --> pooling -> projection -+-> eczema_text,
                                   |                           |           consistency,
                                   +-> windows -> findings ----+---------> severity_text

    clinical fields, if the model uses any ---------------------------> added to eczema

Findings are detected if the training data list what their texts say. An absent modality becomes a
learned vector. Every input, layer of interest and output is named. The half after the encoders can
be taken as a model of its own that shares the layers (`heads_of`), to be trained on cached
features.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import keras

from eczema_tf.config import ModelConfig
from eczema_tf.data.clinical.fields import Field
from eczema_tf.errors import ConfigError, RunError
from eczema_tf.model.branches import (
    IMAGE_FEATURES,
    POOLED_IMAGE,
    POOLED_TEXT,
    SUMMARY,
    TEXT_FEATURES,
    TEXT_WINDOWS,
    embed_text,
    encode_image,
    project,
    take_last_layer,
)
from eczema_tf.model.decision import TypicalFeatures, measure_decision
from eczema_tf.model.encoders import EncoderSpec
from eczema_tf.model.fusion import FUSIONS, REGIONS, Evidence, fuse
from eczema_tf.model.layers import CumulativeLogits, MissingModality, ModalityDropout, OneOrBoth
from eczema_tf.schema import (
    CLINICAL,
    CONSISTENCY,
    ECZEMA_HEADS,
    FINDINGS,
    HEADS,
    IMAGE,
    IMAGE_PRESENT,
    OUTPUTS,
    PADDING_MASK,
    PRESENT,
    SEVERITY,
    TEXT_PRESENT,
    TOKEN_IDS,
)

# names of layers, and what they return
CLINICAL_EVIDENCE = "clinical_evidence"  # (batch, 1), log-odds; only with clinical fields
TYPICAL_PHOTO = "typical_photo"  # (batch, channels), the photo's summary
SEVERITY_TEXT_SCORE = "severity_text_score"  # (batch, 1)
# by modality, (batch, channels), pooled features; only if heads are widened
WIDE_FEATURES = {"image": "wide_image", "text": "wide_text"}
ENCODER_LAYERS = {"image": "image_encoder", "text": "text_encoder"}
# by modality, the input that cached features stand in for
ENCODED_INPUTS = {"image": IMAGE, "text": TOKEN_IDS}


@dataclass(frozen=True)
class Encoders:
    """Both encoders' specs, what is detected in texts, and the clinical fields.

    Together with the configuration's `model` section and the weights, they define a model.
    """

    image: EncoderSpec
    text: EncoderSpec
    findings: tuple[str, ...] = ()  # detected in texts; empty if no text's findings are known
    clinical: tuple[Field, ...] = ()
    # whether the eczema heads of one modality also look at its pooled features, because more data
    # have added to what the model said (`training.own_evidence`)
    widened: bool = False

    @property
    def heads(self) -> tuple[str, ...]:
        """The layers that training has labels for."""
        return (*HEADS, FINDINGS) if self.findings else HEADS

    @property
    def pretrained(self) -> frozenset[str]:
        """Which of "image" and "text" the first stage of training leaves unchanged."""
        specs = {"image": self.image, "text": self.text}
        return frozenset(
            name for name, spec in specs.items() if spec.pretrained and spec.kind != "precomputed"
        )


def build_model(config: ModelConfig, encoders: Encoders) -> keras.Model:
    """Builds the model with untrained weights.

    Args:
        config: Widths, dropout, fusion.
        encoders: What the encoders are.

    Returns:
        A functional model. In: `image` float32 (batch, size, size, 3) in [0, 255] (or (batch,
        dimension)), `image_present` float32 (batch,) 0 or 1, `token_ids` and `padding_mask` int32
        (batch, tokens), `text_present` like `image_present`; with clinical fields also `clinical`
        float32 (batch, figures). Out: float32 logits by head name, and what
        `decision.measure_decision` gives.

    Raises:
        RunError: If Keras is set up in a way that these layers do not support.
        ConfigError: If heads are to use textures that the encoder does not have.
    """
    _check_keras()

    # === Inputs ===
    spec = encoders.image
    shape = (spec.dimension,) if spec.kind == "precomputed" else (spec.size_px, spec.size_px, 3)
    inputs = {
        IMAGE: keras.Input(shape, name=IMAGE),
        IMAGE_PRESENT: keras.Input((), name=IMAGE_PRESENT),
        TOKEN_IDS: keras.Input((None,), dtype="int32", name=TOKEN_IDS),
        PADDING_MASK: keras.Input((None,), dtype="int32", name=PADDING_MASK),
        TEXT_PRESENT: keras.Input((), name=TEXT_PRESENT),
    }

    # === Encoders ===
    textured = config.image.textures
    # features that are kept as a map leave no room for textures
    regions = config.fusion == "cross_attention"
    photo = encode_image(inputs[IMAGE], spec, 0 if regions else None if textured else 1)
    summary = TypicalFeatures(dtype="float32", name=TYPICAL_PHOTO)(photo.summary)
    parts = [summary[:, start:end] for start, end in pairwise([0, *photo.ends])]
    if textured and len(parts) == 1:
        raise ConfigError(
            "model.image.textures: true needs a pretrained image encoder with inner maps; set it to"
            " false"
        )
    # normalised together: textures, whose values are several times as large, then count most, and
    # pooled features, which are many and soon memorised, count least (docs/log.md)
    seen = summary if textured else parts[0]
    image = project(seen, "image", config, config.embedding_units)  # (batch, units)
    pooled_text, text, said = embed_text(inputs, encoders.text, len(encoders.findings), config)

    # === Heads ===
    if encoders.clinical:
        width = sum(field.width for field in encoders.clinical)
        inputs[CLINICAL] = keras.Input((width,), name=CLINICAL)
    pooled = {"image": parts[0], "text": take_last_layer(pooled_text, encoders.text, config)}
    wide = pooled if encoders.widened else {}
    outputs = _answer(image, text, said, wide, photo.features, inputs, config)

    # === Whether to decide ===
    present = inputs[IMAGE_PRESENT], inputs[TEXT_PRESENT]
    # of textures, only that of the fine map: coarser ones were not tried
    outputs |= measure_decision(parts[:2], pooled_text, outputs["eczema"], *present)
    return keras.Model(inputs, {name: outputs[name] for name in OUTPUTS}, name="eczema_assistant")


def _answer(
    image: Any,
    text: Any,
    said: Any,
    wide: dict[str, Any],
    image_features: Any,
    inputs: dict[str, Any],
    config: ModelConfig,
) -> dict[str, Any]:
    """Computes every head's logits from both embeddings, (batch, units), and findings."""
    outputs, scores = _answer_alone(image, text, said, wide, inputs)

    # an absent modality is truly absent, or dropped
    present = inputs[IMAGE_PRESENT], inputs[TEXT_PRESENT]
    dropped = ModalityDropout(config.modality_dropout, name="modality_dropout")([*present])
    evidence = Evidence(
        image=MissingModality(name="image_or_missing")([image, dropped[0]]),
        text=MissingModality(name="text_or_missing")([text, dropped[1]]),
        image_present=dropped[0],
        text_present=dropped[1],
        image_features=image_features,
    )
    joint = FUSIONS[config.fusion](evidence, config)
    singles = outputs["eczema_image"], outputs["eczema_text"]
    eczema = fuse("eczema", *singles, joint, evidence)
    seen = OneOrBoth(dtype="float32", name="eczema_seen" if CLINICAL in inputs else "eczema")
    outputs["eczema"] = seen([*singles, eczema, *dropped])
    if CLINICAL in inputs:
        outputs["eczema"] = _add_clinical(outputs["eczema"], inputs[CLINICAL])
    severity = _grade("severity_both", fuse("severity", *scores, joint, evidence))
    singles = outputs["severity_image"], outputs["severity_text"]
    outputs["severity"] = OneOrBoth(dtype="float32", name="severity")(
        [*singles, severity, *dropped]
    )
    return outputs


def _answer_alone(
    image: Any, text: Any, said: Any, wide: dict[str, Any], inputs: dict[str, Any]
) -> tuple[dict[str, Any], tuple[Any, Any]]:
    """Builds the heads of one modality; here, only what is truly absent is absent.

    Returns:
        Logits by head, and the photo's and the text's score of severity, each (batch, 1).
    """
    image = MissingModality(name="image_known_or_missing")([image, inputs[IMAGE_PRESENT]])
    text = MissingModality(name="text_known_or_missing")([text, inputs[TEXT_PRESENT]])
    # what tells grades apart says nothing about eczema, so the embedding has few units for it
    graded = text if said is None else keras.layers.Concatenate(name="graded")([text, said])
    # from zeros, so that heads say nothing if there is no label to learn from
    scores = (
        _head("severity_image_score", image, 1, "zeros"),
        _head(SEVERITY_TEXT_SCORE, graded, 1, "zeros"),
    )
    seen = _widen({"image": image, "text": text}, wide, inputs)
    outputs = {
        **{ECZEMA_HEADS[name]: _head(ECZEMA_HEADS[name], seen[name], 1) for name in seen},
        "consistency": _head("consistency", text, len(CONSISTENCY), "zeros"),
        "severity_image": _grade("severity_image", scores[0]),
        "severity_text": _grade("severity_text", scores[1]),
    }
    return outputs, scores


def _widen(
    embeddings: dict[str, Any], wide: dict[str, Any], inputs: dict[str, Any]
) -> dict[str, Any]:
    """Appends pooled features to embeddings, by modality, each (batch, channels)."""
    seen = dict(embeddings)
    for name, pooled in wide.items():
        present = inputs[PRESENT[name]]
        pooled = MissingModality(dtype="float32", name=WIDE_FEATURES[name])([pooled, present])
        seen[name] = keras.layers.Concatenate(dtype="float32")([seen[name], pooled])
    return seen


def _add_clinical(logit: Any, clinical: Any) -> Any:
    """Adds the evidence of clinical fields to that of photo and text, each (batch, 1).

    It is linear, so that each field has its share and an unknown one, 0, has none: if none is
    known, the answer is that without fields, bit for bit. The weights are not trained with the
    others, which are therefore what they would be without fields; they are fitted at the end
    (`training.clinical`).
    """
    evidence = keras.layers.Dense(
        1,
        kernel_initializer="zeros",
        use_bias=False,
        trainable=False,
        dtype="float32",
        name=CLINICAL_EVIDENCE,
    )
    return keras.layers.Add(dtype="float32", name="eczema")([logit, evidence(clinical)])


def _head(name: str, embedding: Any, logits: int, start: str = "glorot_uniform") -> Any:
    return keras.layers.Dense(logits, kernel_initializer=start, dtype="float32", name=name)(
        embedding
    )


def _grade(name: str, score: Any) -> Any:
    return CumulativeLogits(len(SEVERITY), dtype="float32", name=name)(score)


def _check_keras() -> None:
    settings = keras.config.image_data_format(), keras.config.floatx()
    if settings != ("channels_last", "float32"):
        raise RunError(
            f"Keras is set to {' and '.join(settings)}; only channels_last and float32 are"
            " supported: correct ~/.keras/keras.json"
        )


def heads_of(
    model: keras.Model, cached: Collection[str], outputs: Collection[str] = OUTPUTS
) -> keras.Model:
    """Takes the part of the model that does not depend on some encoders, sharing its layers.

    Args:
        model: From `build_model`.
        cached: Which of "image" and "text" enter as features.
        outputs: Names of the layers whose outputs the part has.

    Returns:
        A model whose `image` input is replaced by what `feature_name(model, "image")` names, and
        whose `token_ids` input by the text's, where cached.
    """
    inputs = dict(model.input)
    for modality in sorted(cached):
        name = feature_name(model, modality)
        inputs[name] = model.get_layer(name).output
        inputs[name].name = name  # Keras wants inputs to be called what their keys are
        del inputs[ENCODED_INPUTS[modality]]
    if inputs.keys() & {POOLED_TEXT, TEXT_WINDOWS}:
        del inputs[PADDING_MASK]  # no longer needed
    given = {name: model.get_layer(name).output for name in outputs}
    return keras.Model(inputs, given, name="eczema_heads")


@lru_cache(maxsize=2)  # Keras traces every new model again
def encoder_of(model: keras.Model, modality: str) -> keras.Model:
    """Takes the part that turns one modality's inputs into the features that `heads_of` takes."""
    names = [IMAGE] if modality == "image" else [TOKEN_IDS, PADDING_MASK]
    output = model.get_layer(feature_name(model, modality)).output
    return keras.Model(
        {name: model.input[name] for name in names}, output, name=f"{modality}_features_only"
    )


def is_textured(model: keras.Model) -> bool:
    """Says whether heads use textures, which bypass the encoder's last map."""
    pooled = model.get_layer(POOLED_IMAGE).output.shape[-1]
    return model.get_layer("image_norm").gamma.shape[-1] > pooled


def feature_name(model: keras.Model, modality: str) -> str:
    """Names the last layer of a modality before anything trainable.

    That is a pooled vector, unless the fusion looks at regions, a text's pooling has weights, or
    findings are detected.
    """
    names = {layer.name for layer in model.layers}
    if modality == "image":
        return IMAGE_FEATURES if REGIONS in names else SUMMARY
    return next(name for name in (TEXT_WINDOWS, POOLED_TEXT, TEXT_FEATURES) if name in names)

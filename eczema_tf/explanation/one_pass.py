"""Heatmap and word scores, with each encoder run once: the served `explain`.

These are graph operations that the offline methods use, too; `export` checks that the served graph
gives the same values.
"""

from typing import NamedTuple

import tensorflow as tf

from eczema_tf.explanation.photo_evidence import PhotoEvidence, locate_evidence
from eczema_tf.explanation.submodels import EvidenceScale, Submodels, Tensors
from eczema_tf.explanation.token_scores import score_tokens
from eczema_tf.schema import DISTANCES


class Mapped(NamedTuple):
    """Logits, and where in the photos the evidence lies.

    Attributes:
        logits: By head, as the model returns them.
        heatmap: float32 (batch, height, width) in [0, 1], from `show_evidence`.
        heatmap_scale: float32 (batch,), from `show_evidence`.
        evidence: In the photos, whether it is shown or not.
    """

    logits: dict[str, tf.Tensor]
    heatmap: tf.Tensor
    heatmap_scale: tf.Tensor
    evidence: PhotoEvidence


class Explained(NamedTuple):
    """Logits and their explanation.

    Attributes:
        logits: As in `Mapped`.
        heatmap: As in `Mapped`.
        heatmap_scale: As in `Mapped`.
        token_scores: As in `token_scores.TokenScores`.
        contributions: As in `token_scores.TokenScores`.
        evidence: As in `Mapped`.
    """

    logits: dict[str, tf.Tensor]
    heatmap: tf.Tensor
    heatmap_scale: tf.Tensor
    token_scores: tf.Tensor
    contributions: tf.Tensor
    evidence: PhotoEvidence


def explain_in_one_pass(
    submodels: Submodels, inputs: Tensors, target: str = "eczema", *, against: bool = False
) -> Explained:
    """Explains a batch of rows.

    Args:
        submodels: Of the model.
        inputs: Tensors, as the model takes them.
        target: As in `select_logit`.
        against: Whether the heatmap shows the evidence against the target.
    """
    text_features = submodels.encode_text(inputs)  # (batch, tokens, channels)
    mapped = map_evidence(submodels, text_features, inputs, target, against=against)
    words = score_tokens(submodels, mapped.evidence.features, text_features, inputs, target)
    return Explained(
        **mapped._asdict(), token_scores=words.scores, contributions=words.contributions
    )


def map_evidence(
    submodels: Submodels,
    text_features: tf.Tensor,
    inputs: Tensors,
    target: str,
    *,
    against: bool = False,
) -> Mapped:
    """Makes the heatmaps of a batch, which are the photo part of `explain_in_one_pass`.

    The arguments are the same; `text_features` are from `Submodels.encode_text`.
    """
    evidence = locate_evidence(submodels, text_features, inputs, target, against=against)
    logits = submodels.compute_logits(evidence.features, text_features, inputs)
    known = logits[DISTANCES["image"]] <= 1
    heatmap, scale = show_evidence(evidence, known, submodels.evidence_scale)
    return Mapped(logits, heatmap, scale, evidence)


def show_evidence(
    evidence: PhotoEvidence, known: tf.Tensor, usual: EvidenceScale
) -> tuple[tf.Tensor, tf.Tensor]:
    """Puts evidence on a scale, so that weak evidence looks weak.

    Args:
        evidence: From `locate_evidence`.
        known: bool (batch,), whether the model knows such photos; for others nothing is shown.
        usual: What is usual in photos of eczema.

    Returns:
        Heatmaps float32 (batch, rows, columns) in [0, 1], zeros where nothing is shown; and what 1
        stands for, float32 (batch,), in logits for each hundredth of the photo's area: `usual.full`
        or the map's highest place, whichever is higher.
    """
    scale = tf.maximum(tf.reduce_max(evidence.density, axis=(1, 2)), usual.full)
    shown = known & (evidence.total >= usual.floor)
    heatmap = tf.math.divide_no_nan(evidence.density, scale[:, None, None])
    return tf.where(shown[:, None, None], heatmap, 0.0), scale

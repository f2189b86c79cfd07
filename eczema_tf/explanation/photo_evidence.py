"""What each place of a photo adds to the log-odds: the heatmap, both served and offline.

The heatmap is the product of two maps. The encoder's last map says how much, exactly but coarsely:
the heads read its mean, so the integrated gradients of its cells add up to the difference between
this answer and that to a typical photo. What the heads read of textures has no place, so it is
divided among all cells. A finer map inside the encoder, by Layer-CAM, says where. On its own, the
first map misses small lesions, and the second follows every edge (docs/log.md).
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from eczema_tf.explanation.path_integral import GROUP, integrate_gradients, repeat_rows
from eczema_tf.explanation.submodels import EvidenceScale, Submodels, Tensors, select_logit
from eczema_tf.schema import IMAGE, IMAGE_PRESENT

NODES = 32  # on the path from a typical photo; only the heads are run at each
# Noisy copies of a photo whose maps are averaged with its own (SmoothGrad, Smilkov et al. 2017).
# Chosen on validation photos, like the noise's sigma in grey levels of 255: docs/log.md.
NOISY_COPIES, NOISE_SIGMA, NOISE_SEED = 1, 8.0, (2026, 11)
# Evidence is not worth showing below what all but this share of photos of eczema reach, and in any
# case if it moves an even chance by less than five points. In 21 validation photos with less than
# that, maps pointed no better than an edge filter (docs/log.md).
MISSED, LEAST = 0.05, 0.2
ZOOM = 2  # cells of the heatmap per cell of the fine map, along each side


class PhotoEvidence(NamedTuple):
    """Evidence in the photos of a batch.

    Attributes:
        features: From `submodels.encode_image`, of the photos themselves.
        cells: float32 (batch, height, width) of the last map: what each cell adds, signed, in
            logits. Together they are the difference to the answer to a typical photo.
        density: float32 (batch, rows, columns), at least 0: evidence for the target, in logits for
            each hundredth of the photo's area; zeros without a photo.
        total: float32 (batch,), the sum of the density: of all cells that support the target.
    """

    features: tf.Tensor
    cells: tf.Tensor
    density: tf.Tensor
    total: tf.Tensor


def locate_evidence(
    submodels: Submodels,
    text_features: tf.Tensor,
    inputs: Tensors,
    target: str = "eczema",
    *,
    against: bool = False,
) -> PhotoEvidence:
    """Finds the evidence for the target in photos; there is none in a model of embeddings.

    Args:
        submodels: Of the model.
        text_features: From `submodels.encode_text`.
        inputs: As the model takes them.
        target: As in `submodels.select_logit`.
        against: Whether to find the evidence against it instead.
    """
    present = inputs[IMAGE_PRESENT]
    if not submodels.has_feature_map:
        nothing = tf.zeros([tf.size(present), 1, 1])
        features = submodels.encode_image(inputs[IMAGE])
        return PhotoEvidence(features, nothing, nothing, tf.zeros_like(present))
    copies = NOISY_COPIES + 1
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        fine_map = submodels.to_fine_map(add_noisy_copies(inputs[IMAGE]), training=False)
        tape.watch(fine_map)  # (copies * batch, height, width, channels)
        last_map, all_features = submodels.from_fine_map(fine_map)
    features = all_features[: tf.size(present)]
    typical = submodels.find_typical(features)
    weights = weigh_features(submodels, typical, features, text_features, inputs, target)
    weights = repeat_rows(-weights if against else weights, copies)
    typical = repeat_rows(typical, copies)
    to_fine, to_last = tape.gradient(all_features, [fine_map, last_map], output_gradients=weights)
    channels = last_map.shape[-1]
    usual = tf.reshape(typical[..., :channels], [-1, 1, 1, channels])  # the same in each cell
    cells = tf.reduce_sum(to_last * (last_map - usual), axis=-1)
    moved = weights * (all_features - typical)
    # (copies, batch, height, width): the photos' own cells come first and add up to the answer
    cells = split_copies(fill_up(cells, tf.reduce_sum(moved, axis=range(1, moved.shape.rank))))
    steady = tf.nn.relu(tf.reduce_mean(cells, axis=0))
    shape = tf.reduce_mean(split_copies(compute_layercam(fine_map, to_fine)), axis=0)
    own = cells[0] * present[:, None, None]
    total = tf.reduce_sum(tf.nn.relu(own), axis=(1, 2))
    density = spread_evidence(total, steady, shape)
    return PhotoEvidence(features, own, density, total)


def weigh_features(
    submodels: Submodels,
    typical: tf.Tensor,
    features: tf.Tensor,
    text_features: tf.Tensor,
    inputs: Tensors,
    target: str,
) -> tf.Tensor:
    """Computes how much each feature of photos counts on the path from typical ones."""
    texts = repeat_rows(text_features, GROUP)
    context = {name: repeat_rows(inputs[name], GROUP) for name in submodels.context}
    return integrate_gradients(
        lambda rows: select_logit(submodels.compute_logits(rows, texts, context), target),
        tf.ones_like(features) * typical,
        features,
        NODES,
    )


def fill_up(cells: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
    """Divides what cells (batch, height, width) lack of their total (batch,) among them equally."""
    missing = total - tf.reduce_sum(cells, axis=(1, 2))
    return cells + (missing / (cells.shape[1] * cells.shape[2]))[:, None, None]


def add_noisy_copies(photos: Any) -> tf.Tensor:
    """Turns (batch, height, width, 3) into ((`NOISY_COPIES` + 1) * batch, ...), photos first.

    The noise is always the same, for every photo.
    """
    shape = [NOISY_COPIES, 1, *photos.shape[1:]]
    noise = NOISE_SIGMA * tf.random.stateless_normal(shape, NOISE_SEED)
    noisy = tf.clip_by_value(photos + noise, 0.0, 255.0)  # (copies, batch, height, width, 3)
    return tf.concat([photos, tf.reshape(noisy, [-1, *photos.shape[1:]])], axis=0)


def split_copies(maps: tf.Tensor) -> tf.Tensor:
    """Turns (copies * batch, height, width) into float32 (copies, batch, height, width)."""
    return tf.cast(tf.reshape(maps, [NOISY_COPIES + 1, -1, *maps.shape[1:]]), tf.float32)


def compute_layercam(features: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """Weighs each channel at each place by its own gradient there, if positive.

    Source: Jiang et al. 2021, equations 4 to 6. Grad-CAM gives a channel the same weight
    everywhere. Before the last layers this says little, since a channel there is an edge or a
    colour that supports the target in one place and means nothing in another.

    Args:
        features: (batch, height, width, channels).
        gradients: Of the target with respect to `features`.

    Returns:
        float32 (batch, height, width), at least 0.
    """
    terms = tf.cast(tf.nn.relu(gradients) * features, tf.float32)  # (batch, height, width, ch.)
    return tf.nn.relu(tf.reduce_sum(terms, axis=-1))


def spread_evidence(total: tf.Tensor, cells: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Spreads evidence over the product of a coarse and a fine map, whatever their scales.

    Args:
        total: float32 (batch,), in logits.
        cells: float32 (batch, height, width), at least 0.
        shape: float32 (batch, height, width) of the fine map, at least 0.

    Returns:
        `PhotoEvidence.density`.
    """
    rows, columns = (ZOOM * side for side in shape.shape[1:])
    coarse, fine = (
        tf.image.resize(values[..., None], (rows, columns))[..., 0] for values in (cells, shape)
    )
    product = coarse * fine  # (batch, rows, columns)
    hundredths = 100 * tf.reduce_mean(product, axis=(1, 2))  # their sum over the photo
    return product * tf.math.divide_no_nan(total, hundredths)[:, None, None]


def measure_scale(submodels: Submodels, batches: Iterable[Tensors]) -> EvidenceScale:
    """Measures how much evidence there usually is in photos of eczema.

    Args:
        submodels: Of the model.
        batches: Its inputs for cases of eczema with a photo.

    Returns:
        As the floor, what a share of `MISSED` does not reach, but at least `LEAST`; as full colour,
        the strongest place's median. The default if there are no photos, or no places in them.
    """

    def measure(inputs: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
        found = locate_evidence(submodels, submodels.encode_text(inputs), inputs)
        return found.total, tf.reduce_max(found.density, axis=(1, 2))

    compiled = tf.function(measure, reduce_retracing=True)
    measured = [np.stack(compiled(inputs)) for inputs in batches]
    if not measured or not submodels.has_feature_map:
        return EvidenceScale()
    totals, peaks = np.concatenate(measured, axis=1)
    floor = max(LEAST, float(np.quantile(totals, MISSED)))
    return EvidenceScale(floor, float(np.median(peaks)))

"""What the model knows: the features of its training rows, and how far others may be from them."""

from collections.abc import Collection

import keras
import numpy as np
from sklearn.decomposition import PCA

from eczema_tf.model.features import predict_rows
from eczema_tf.model.multimodal import TYPICAL_PHOTO, heads_of
from eczema_tf.schema import DISTANCES
from eczema_tf.training.data import TrainingData

FALSE_ALARMS = 0.05  # largest share of the validation rows that are not known
# Share of the variance in the main direction that is added to all directions: with more, the
# distance depends on fewer directions. Chosen on development data (docs/log.md)
RIDGES = {"image": 0.03, "text": 3e-4}
# if all features are alike: what float32 leaves of the distance of equal vectors of length 1
SMALLEST_LIMIT = 1e-6
MOST_EXACT = 2048  # channels, up to which the covariance itself is decomposed in a second or two
MOST_ROWS = 10_000  # at most; more change little


def fit_distances(
    model: keras.Model,
    cached: Collection[str],
    data: TrainingData,
    limits: dict[str, float] | None = None,
) -> dict[str, float]:
    """Fits the layers `DistanceFromTraining` of both modalities, and what is typical of photos.

    Args:
        model: Trained.
        cached: Which of "image" and "text" `data.inputs` has as features.
        data: With training rows, and validation rows to set the limit on; without these, training
            rows are used.
        limits: Limits by modality, if they were found with another model; None to find them.

    Returns:
        The limits.
    """
    found, rng = {}, np.random.default_rng(0)
    for modality, name in DISTANCES.items():
        layer, present = model.get_layer(name), data.inputs.present(modality)
        seen, others = (rows[present[rows]] for rows in (data.train_rows, data.val_rows))
        if not len(seen):
            continue
        seen = np.sort(rng.choice(seen, min(MOST_ROWS, len(seen)), replace=False))
        scaled = f"{modality}_scaled"
        names = [scaled, TYPICAL_PHOTO] if modality == "image" else [scaled]
        part = heads_of(model, cached, names)
        known, judged = (
            predict_rows(part, data.inputs, rows)
            for rows in (seen, others if len(others) else seen)
        )
        if TYPICAL_PHOTO in known:
            model.get_layer(TYPICAL_PHOTO).typical.assign(find_typical(known[TYPICAL_PHOTO]))
        training, validation = known[scaled], judged[scaled]  # (rows, channels) each
        centre = training.mean(axis=0)
        layer.centre.assign(centre)
        count, ridge = layer.directions.shape[1], RIDGES[modality]
        layer.directions.assign(find_directions(training - centre, count, ridge))
        layer.limit.assign(1.0)
        distances = np.asarray(layer(validation))
        limit = float(np.quantile(distances, 1 - FALSE_ALARMS, method="higher"))
        limit = max(limit, SMALLEST_LIMIT)
        found[modality] = (limits or {}).get(modality, limit)
        layer.limit.assign(found[modality])
    return found


def find_typical(features: np.ndarray) -> np.ndarray:
    """Averages features (rows, channels) by their signed square roots.

    What fires rarely but strongly is not typical. Heatmaps that start from the plain mean change
    more with the noise of a camera (docs/log.md).
    """
    roots = np.mean(np.sign(features) * np.sqrt(np.abs(features)), axis=0)
    return np.sign(roots) * roots**2


def find_directions(away: np.ndarray, count: int, ridge: float) -> np.ndarray:
    """Finds the main directions of features, each as long as the share of it that may vary freely.

    For a Gaussian whose variance v in each direction has a ridge r added, (x / sqrt(v + r))^2 is (1
    - v / (v + r)) x^2 / r. Apart from the scale, that is the squared distance minus that along a
    direction of length sqrt(v / (v + r)).

    Args:
        away: float (rows, channels), scaled features minus their mean.
        count: How many directions.
        ridge: As a share of the largest variance.

    Returns:
        float32 (channels, count); zeros where there are fewer.
    """
    directions = np.zeros((away.shape[1], count), "float32")
    if np.abs(away).max() <= np.finfo("float32").eps:
        return directions  # all features are alike, apart from rounding
    found = min(count, *away.shape)
    solver = "covariance_eigh" if away.shape[1] <= MOST_EXACT else "randomized"
    principal = PCA(found, svd_solver=solver, random_state=0).fit(away)
    variance = principal.explained_variance_
    if variance[0] > 0:
        passed = np.sqrt(variance / (variance + ridge * variance[0]))
        directions[:, :found] = (principal.components_ * passed[:, None]).T
    return directions

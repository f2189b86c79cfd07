"""What your own data add to a model that was trained on other data.

The model's heads are kept, and a logistic regression on pooled features is added to what each says.
A few cases can teach that much; heads that go on learning from them forget as much as they learn
(docs/log.md).
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import keras
import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from eczema_tf.cli import say
from eczema_tf.model.features import predict_rows
from eczema_tf.model.fusion import ECZEMA_JOINT, ECZEMA_SUM
from eczema_tf.model.multimodal import CLINICAL_EVIDENCE, WIDE_FEATURES, heads_of
from eczema_tf.schema import ECZEMA_HEADS, MODALITIES
from eczema_tf.training.data import TrainingData
from eczema_tf.training.stacking import fit_log_odds, fit_scale

# Penalties on the weights' squared length, with features scaled to a deviation of 1; one is chosen
# for each fit
RIDGES = (30.0, 100.0, 300.0, 1000.0, 3000.0)
UNHELD = 1e-6  # ridge of what is to be free: only enough for a unique solution
FOLDS = 5  # by which own evidence is judged on cases that it was not fitted to
FEWEST = 10  # groups with the label and without, to learn anything from


def take_over(model: keras.Model, base: keras.Model) -> None:
    """Copies a trained model's weights into one whose heads are widened; the new ones are 0.

    Args:
        model: From `build_model`, of the same configuration.
        base: A trained model. Its clinical fields are left out: they are fitted again.
    """
    for source in (layer for layer in base.layers if layer.weights):
        if source.name == CLINICAL_EVIDENCE:
            continue
        layer, values = model.get_layer(source.name), source.get_weights()
        if source.name in (ECZEMA_HEADS[modality] for modality in MODALITIES):
            more = layer.kernel.shape[0] - len(values[0])
            values[0] = np.pad(values[0], [(0, more), (0, 0)])
        layer.set_weights(values)
    for name in WIDE_FEATURES.values():
        if name not in {layer.name for layer in base.layers}:
            missing = model.get_layer(name).missing
            missing.assign(np.zeros(missing.shape))
    # how far the fusion trusts its parts is fitted again, but what only both tell together stays
    total = model.get_layer(ECZEMA_SUM)
    if ECZEMA_JOINT in {layer.name for layer in model.layers}:
        joint = model.get_layer(ECZEMA_JOINT).kernel
        joint.assign(total.slopes[2] * joint)
    total.slopes.assign(np.ones(3))
    total.shift.assign(0.0)


def add_own_evidence(
    model: keras.Model, cached: Collection[str], data: TrainingData, prior: float
) -> None:
    """Adds own evidence to the heads of eczema that see one modality, a logistic regression each.

    How far to trust what the model said and what is added is learned by stacking (Wolpert 1992), on
    cases that the regression was not fitted to.

    Args:
        model: From `take_over`, its heads at log-odds `prior` where they see nothing.
        cached: Which of "image" and "text" `data.inputs` has as features.
        data: Its training rows with a label and the modality are learned from.
        prior: Prior log-odds.
    """
    labelled = data.train_rows[data.labelled[data.train_rows]]
    for modality in MODALITIES:
        rows = labelled[data.inputs.present(modality)[labelled]]
        kinds = [len(set(data.groups[rows][data.positive[rows] == kind])) for kind in (True, False)]
        if min(kinds) < FEWEST:
            if len(rows):
                say(
                    f"{modality}: {kinds[0]} positive and {kinds[1]} other groups are too few to"
                    " add anything"
                )
            continue
        head, wide = ECZEMA_HEADS[modality], WIDE_FEATURES[modality]
        part = heads_of(model, cached, [head, wide])
        seen = predict_rows(part, data.inputs, rows)
        _widen(model, modality, seen[head][:, 0], seen[wide], data, rows, prior)


def _widen(
    model: keras.Model,
    modality: str,
    said: np.ndarray,
    features: np.ndarray,
    data: TrainingData,
    rows: np.ndarray,
    prior: float,
) -> None:
    """Fits one head's own evidence and adds it to the head's weights.

    Args:
        model: As above.
        modality: Modality of the head.
        said: float32 (rows,), the head's log-odds so far.
        features: float32 (rows, channels).
        data: As above.
        rows: The rows of `said` and `features`.
        prior: As above.
    """
    centre, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    targets, weights = data.targets["eczema"][rows, 0], data.weights[ECZEMA_HEADS[modality]][rows]
    sample = Sample((features - centre) / deviation, said - prior, targets, weights, prior)
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    folds = list(splitter.split(sample.features, data.positive[rows], data.groups[rows]))
    ridge, (kept, added, shift) = choose_ridge(sample, folds)
    *kernel, bias = added * fit_evidence(sample, ridge)
    kernel = np.array(kernel) / deviation  # for features as they are
    head = model.get_layer(ECZEMA_HEADS[modality])
    _add_to(head, kept, kernel, shift + bias - centre @ kernel, prior)
    model.get_layer(WIDE_FEATURES[modality]).missing.assign(centre)


def _add_to(
    head: keras.layers.Layer, kept: float, kernel: np.ndarray, bias: float, prior: float
) -> None:
    """Scales a head's evidence by `kept`, and adds that of its last inputs."""
    weights = kept * np.asarray(head.kernel)[:, 0]
    weights[-len(kernel) :] += kernel
    head.kernel.assign(weights[:, None])
    head.bias.assign(prior + kept * (np.asarray(head.bias) - prior) + bias)


class Sample(NamedTuple):
    """What own evidence is learned from.

    Attributes:
        features: float (rows, channels), each of mean 0 and deviation 1.
        said: float (rows,), evidence of the model so far, in log-odds.
        targets: float (rows,) in [0, 1].
        weights: float (rows,), at least 0.
        prior: Log-odds.
    """

    features: np.ndarray
    said: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    prior: float

    def take(self, rows: np.ndarray) -> "Sample":
        """Returns some of the rows, by index."""
        features, said, targets, weights = (part[rows] for part in self[:-1])
        return Sample(features, said, targets, weights, self.prior)


def choose_ridge(
    sample: Sample, folds: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[float, np.ndarray]:
    """Chooses how strong own evidence may be, by what it adds in cases it was not fitted to.

    Args:
        sample: All rows.
        folds: For each, the rows to fit to, and the rest.

    Returns:
        The ridge with the lowest cross-entropy of the sum of both; and the slopes of what was said
        and of what is added, and a shift, as from `stacking.fit_scale`.
    """
    targets, weights, prior = sample.targets, sample.weights, sample.prior
    tried = []
    for ridge in RIDGES:
        added = np.zeros(len(targets))
        for fit, rest in folds:
            *kernel, bias = fit_evidence(sample.take(fit), ridge)
            added[rest] = sample.features[rest] @ kernel + bias
        parts = np.column_stack([sample.said, added])
        scale = fit_scale(parts, prior, targets, weights)
        logits = prior + parts @ scale[:-1] + scale[-1]
        loss = weights @ (np.logaddexp(0, logits) - targets * logits)
        tried.append((float(loss), ridge, scale))
    _, ridge, scale = min(tried, key=lambda one: one[0])
    return ridge, scale


def fit_evidence(sample: Sample, ridge: float) -> np.ndarray:
    """Fits log-odds prior + features @ kernel + bias to a sample.

    Returns:
        float64 (channels + 1,), the kernel and the bias, which has no ridge.
    """
    design = np.column_stack([sample.features, np.ones(len(sample.targets))])
    penalty = np.append(np.full(design.shape[1] - 1, ridge), UNHELD)
    nothing = np.zeros(design.shape[1])
    return fit_log_odds(design, sample.prior, sample.targets, sample.weights, nothing, penalty)

"""What clinical fields add to photo and text: fitted at the end, when both are trained.

The fields' weights are fitted on training rows, as if there were nothing else. How far to trust
them alongside photo and text is then fitted on other cases, because a complaint may repeat what the
fields say.
"""

import keras
import numpy as np

from eczema_tf.model.features import predict_rows
from eczema_tf.model.multimodal import CLINICAL_EVIDENCE
from eczema_tf.schema import CLINICAL
from eczema_tf.training.data import TrainingData
from eczema_tf.training.stacking import PENALTY, fit_log_odds

# Penalty on the weights' squared length. On 378 cases of development data, 1 to 10 are equally good
# (docs/log.md); with more cases it matters less.
RIDGE = 3.0


def fit_clinical(
    model: keras.Model, data: TrainingData, prior: float, trust: float | None = None
) -> float:
    """Fits the layer `CLINICAL_EVIDENCE` by two logistic regressions.

    Args:
        model: Trained and scaled, the layer's weights still 0; takes what `data.inputs` gives.
        data: With validation rows, unless `trust` is given.
        prior: Prior log-odds of its fusion.
        trust: How far the fields are trusted, from another model; None to find it.

    Returns:
        That trust: a factor, at least 0; 1 if there is nothing to find it by.
    """
    train, val = (rows[data.labelled[rows]] for rows in (data.train_rows, data.val_rows))
    figures, targets = data.inputs.columns[CLINICAL], data.targets["eczema"][:, 0]
    weights = data.weights["eczema"]
    told = np.column_stack([figures.gather(train), np.ones(len(train))])
    nothing = np.zeros(told.shape[1])
    found = fit_log_odds(told, prior, targets[train], weights[train], nothing, RIDGE)
    kernel = found[:-1, None]  # without how common eczema is
    if trust is None and len(val):
        seen = predict_rows(model, data.inputs, val)["eczema"]
        told = figures.gather(val) @ kernel
        (trust,) = fit_log_odds(
            told, seen[:, 0], targets[val], weights[val], np.ones(1), PENALTY, [(0, None)]
        )
    trust = 1.0 if trust is None else float(trust)
    model.get_layer(CLINICAL_EVIDENCE).kernel.assign(trust * kernel)
    return trust

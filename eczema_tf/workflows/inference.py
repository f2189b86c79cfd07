"""Manifest rows through a model to a table of logits."""

import numpy as np
import pandas as pd

from eczema_tf.data.cache import ArrayCache
from eczema_tf.data.dataset import Dataset
from eczema_tf.data.inputs import Inputs, load_inputs
from eczema_tf.data.pipeline import build_evaluation_dataset
from eczema_tf.model.features import cached_encoders, compute_features, predict_logits
from eczema_tf.model.multimodal import heads_of
from eczema_tf.schema import ECZEMA_HEADS, MODALITIES, POSTERIOR_COLUMNS
from eczema_tf.workflows.run_folder import TrainedModel

KEPT_COLUMNS = (
    "example_id",
    "case_id",
    "group_id",
    "eczema",
    "consistency",
    "severity",
    "skin_tone",
    "age_group",
    "sex",
    "source",
    *POSTERIOR_COLUMNS.values(),
)


def load_model_inputs(trained: TrainedModel, dataset: Dataset) -> Inputs:
    """Preprocesses a data set for a model."""
    config = trained.config
    return load_inputs(
        dataset.table,
        dataset.photos,
        dataset.embeddings,
        trained.tokenizer,
        trained.encoders.image.size_px,
        config.preprocess,
        ArrayCache(config.train.cache_folder),
    )


def compute_row_logits(
    trained: TrainedModel, dataset: Dataset, inputs: Inputs, rows: np.ndarray
) -> pd.DataFrame:
    """Computes the logits of some rows.

    Args:
        trained: The model.
        dataset: The rows come from.
        inputs: From `load_model_inputs`, of the whole data set.
        rows: int64, which rows.

    Returns:
        One row each: ids, labels, what was used, and logits by head, as `evaluation` takes them.
    """
    config = trained.config
    cached = cached_encoders(
        config.train,
        trained.encoders,
        inputs.absent,
        fine_tuned=config.train.fine_tune.epochs > 0,
    )
    features = compute_features(
        trained.model, inputs, cached, ArrayCache(config.train.cache_folder)
    )
    batches = build_evaluation_dataset(features, rows, config.train.batch_size)
    logits = predict_logits(heads_of(trained.model, cached), batches)
    return tabulate_logits(dataset.table.iloc[rows], inputs, rows, logits)


def tabulate_logits(
    table: pd.DataFrame, inputs: Inputs, rows: np.ndarray, logits: dict[str, np.ndarray]
) -> pd.DataFrame:
    """Puts ids, labels, presence and logits side by side; NaN where a head's modality is absent."""
    kept = [column for column in KEPT_COLUMNS if column in table]
    found = table[kept].reset_index(drop=True).copy()
    for column in set(POSTERIOR_COLUMNS.values()) & set(kept):
        found[column] = pd.to_numeric(found[column], errors="coerce")
    for modality in MODALITIES:
        found[f"{modality}_used"] = inputs.present(modality)[rows]
    for head in ECZEMA_HEADS.values():
        found[f"{head}_logit"] = logits[head][:, 0].astype("float64")
    for head in ("consistency", "severity"):
        for index, column in enumerate(logits[head].T):
            found[f"{head}_logit_{index}"] = column.astype("float64")
    found.loc[~found["image_used"], "eczema_image_logit"] = np.nan
    of_text = [name for name in found if name.startswith(("eczema_text_", "consistency_logit_"))]
    found.loc[~found["text_used"], of_text] = np.nan
    return found

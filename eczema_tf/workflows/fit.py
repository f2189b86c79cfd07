"""One model from data and splits: encoders and tokenizer, training, thresholds. All of it lands in a run folder."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eczema_tf.config import Config
from eczema_tf.data.dataset import Dataset, count_cases
from eczema_tf.data.inputs import Inputs
from eczema_tf.data.text.tokenizer import TextTokenizer, learn_tokenizer, load_tokenizer
from eczema_tf.evaluation.predictions import average_rows_by_case
from eczema_tf.evaluation.thresholds import choose_thresholds
from eczema_tf.files import write_json
from eczema_tf.model.encoders import (
    load_preset_weights,
    specify_image_encoder,
    specify_text_encoder,
)
from eczema_tf.model.losses import compute_targets
from eczema_tf.model.multimodal import Encoders, build_model
from eczema_tf.schema import SPLITS
from eczema_tf.training.device import prepare_device
from eczema_tf.training.loop import TrainingData
from eczema_tf.training.stages import ENCODER_LAYERS, train_model
from eczema_tf.training.weighting import compute_sample_weights
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.inference import compute_row_logits, load_model_inputs

# in a run folder: the model that validation judged, where the run's own was trained on validation,
# too
BEFORE_REFIT = "before_refit"

Thresholds = dict[str, float]
History = dict[str, list[dict[str, float]]]


def fit_run(
    config: Config, dataset: Dataset, splits: pd.Series, run_dir: Path
) -> tuple[run_folder.TrainedModel, Inputs, Thresholds]:
    """Trains one model and chooses its thresholds, which makes it a whole run.

    With `train.refit`, validation chooses the thresholds of a first model, and the run's own is
    then trained anew, as long, on training and validation rows together (Goodfellow, Bengio and
    Courville 2016, algorithm 7.2).

    Args:
        config: Of the run.
        dataset: All rows.
        splits: Of each row.
        run_dir: Gets the model and its thresholds.

    Returns:
        The model, the inputs of all rows, and the thresholds.
    """
    if not config.train.refit:
        trained, inputs, _ = train_run(config, dataset, splits, run_dir)
        return trained, inputs, choose_run_thresholds(trained, dataset, inputs, splits, run_dir)
    first_dir = run_dir / BEFORE_REFIT
    run_folder.write_start(first_dir, config)
    first, inputs, _ = train_run(config, dataset, splits, first_dir)
    thresholds = choose_run_thresholds(first, dataset, inputs, splits, run_dir)
    trained, inputs, _ = train_run(config, dataset, splits.replace("val", "train"), run_dir)
    return trained, inputs, thresholds


def train_run(
    config: Config, dataset: Dataset, splits: pd.Series, run_dir: Path
) -> tuple[run_folder.TrainedModel, Inputs, History]:
    """Trains one model and saves it.

    Args:
        config: Of the run.
        dataset: All rows.
        splits: Of each row; "train" is learned from, "val" decides when to stop.
        run_dir: Gets the model, the checkpoints and the TensorBoard logs.

    Returns:
        The model with its best weights, the inputs of all rows, and the figures of each epoch by
        stage.
    """
    prepare_device(config.train, config.seed)
    trained = _build_model(config, dataset, splits)
    run_folder.save_encoders(run_dir, trained.encoders, trained.tokenizer)
    inputs = load_model_inputs(trained, dataset)
    write_json(run_dir / run_folder.DATA, _describe_data(dataset, splits))
    verbose = 1 if sys.stdout.isatty() else 2
    data = _training_data(config, dataset, inputs, splits)
    history = train_model(trained.model, trained.encoders, data, config, run_dir, verbose)
    run_folder.save_model(run_dir, trained)
    return trained, inputs, history


def _build_model(config: Config, dataset: Dataset, splits: pd.Series) -> run_folder.TrainedModel:
    """Builds the model and loads the presets' weights."""
    image_preset, text = config.model.image.preset, config.model.text
    dimension = dataset.embeddings.dimension if dataset.embeddings is not None else None
    image_encoder = specify_image_encoder(config.model.image, dimension)
    tokenizer = _build_tokenizer(config, dataset.table.loc[splits == "train", "text"])
    encoders = Encoders(
        image=image_encoder, text=specify_text_encoder(text, len(tokenizer.vocabulary))
    )
    model = build_model(config.model, encoders)
    if image_preset is not None and dimension is None:
        load_preset_weights(model.get_layer(ENCODER_LAYERS["image"]), image_preset)
    if text.preset is not None:
        load_preset_weights(model.get_layer(ENCODER_LAYERS["text"]), text.preset)
    return run_folder.TrainedModel(config, encoders, tokenizer, model)


def _build_tokenizer(config: Config, training_texts: pd.Series) -> TextTokenizer:
    text = config.model.text
    if text.preset is not None:
        return load_tokenizer(text.preset, text.max_tokens)
    return learn_tokenizer(list(training_texts), text.vocabulary_size, text.max_tokens)


def _training_data(
    config: Config, dataset: Dataset, inputs: Inputs, splits: pd.Series
) -> TrainingData:
    table = dataset.table
    train_rows, val_rows = (np.flatnonzero(splits == split) for split in ("train", "val"))
    eczema = table["eczema"].to_numpy("float64")
    labelled, positive = ~np.isnan(eczema), eczema > config.data.label_threshold
    if not config.train.soft_labels:
        eczema = np.where(labelled, positive.astype("float64"), np.nan)
        table = table.assign(eczema=eczema)
    return TrainingData(
        inputs=inputs,
        targets=compute_targets(
            eczema, table["consistency"].to_numpy(), table["severity"].to_numpy()
        ),
        weights=compute_sample_weights(
            table,
            inputs.present("image"),
            inputs.present("text"),
            train_rows,
            balance=config.train.balance_classes,
        ),
        positive=positive,
        labelled=labelled,
        cases=table["case_id"].to_numpy(str),
        train_rows=train_rows,
        val_rows=val_rows,
    )


def _describe_data(dataset: Dataset, splits: pd.Series) -> dict[str, Any]:
    """Fingerprints, counts, splits, and which modalities the model gets to see in training."""
    training = dataset.table[splits == "train"]
    seen = {"image": training["image_path"], "text": training["text"]}
    return {
        **dataset.describe(),
        "split_counts": {split: count_cases(dataset.table[splits == split]) for split in SPLITS},
        "splits": {
            split: list(dataset.table.loc[splits == split, "example_id"]) for split in SPLITS
        },
        "trained_on": [modality for modality, values in seen.items() if (values != "").any()],
    }


def choose_run_thresholds(
    trained: run_folder.TrainedModel,
    dataset: Dataset,
    inputs: Inputs,
    splits: pd.Series,
    run_dir: Path,
) -> Thresholds:
    """Chooses the thresholds on the validation split and writes them into the run folder."""
    cases = average_rows_by_case(
        compute_row_logits(trained, dataset, inputs, np.flatnonzero(splits == "val"))
    )
    thresholds = choose_thresholds(cases, trained.config.data.label_threshold)
    write_json(run_dir / run_folder.THRESHOLDS, thresholds)
    return thresholds

"""A whole run: data, training, thresholds, evaluation, export. `train` and `evaluate` are thin commands over this."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eczema_tf import runs
from eczema_tf.config import Config
from eczema_tf.data.dataset import Dataset, count_cases, load_dataset
from eczema_tf.data.inputs import Inputs
from eczema_tf.data.sources.synthetic import prepare_synthetic
from eczema_tf.data.splits import assign_folds, assign_splits, fold_splits
from eczema_tf.data.text import TextTokenizer, learn_tokenizer, load_tokenizer
from eczema_tf.errors import DataError, RunError
from eczema_tf.evaluation.plots import write_pr_plot, write_roc_plot
from eczema_tf.evaluation.predictions import average_rows_by_case, write_predictions
from eczema_tf.evaluation.report import format_table
from eczema_tf.evaluation.scores import compute_metrics
from eczema_tf.evaluation.thresholds import choose_thresholds
from eczema_tf.files import write_json
from eczema_tf.model.assistant import Encoders, build_assistant
from eczema_tf.model.encoders import load_preset_weights, specify_image_encoder, specify_text_encoder
from eczema_tf.model.losses import compute_targets
from eczema_tf.release import export_run
from eczema_tf.schema import IMAGE_PRESENT, SPLITS, TEXT_PRESENT
from eczema_tf.scoring import load_model_inputs, score_rows
from eczema_tf.training.device import prepare_device
from eczema_tf.training.loop import TrainingData
from eczema_tf.training.stages import ENCODER_LAYERS, train_assistant
from eczema_tf.training.weighting import compute_sample_weights

Thresholds = dict[str, float]


def run_experiment(config: Config, run_dir: Path, *, resume: bool = False) -> dict[str, Any]:
    """Prepares the data, trains, evaluates and exports.

    Args:
        config: Of the run.
        run_dir: A new folder, or with `resume` that of an interrupted run with the same configuration.
        resume: Whether to go on with what is in `run_dir`.

    Returns:
        The figures, as in `metrics.json`.

    Raises:
        RunError: If `run_dir` is taken, or does not fit the configuration.
    """
    _check_run_dir(run_dir, config, resume)
    _say(f"run folder: {run_dir}")
    runs.write_start(run_dir, config)
    dataset = load_dataset(config.data, config.data.manifest or prepare_built_in(config))
    if config.split.folds:
        metrics = _cross_validate(config, dataset, run_dir)
    else:
        splits = assign_splits(dataset.table, fractions=_fractions(config), seed=config.seed, positive_above=config.data.positive_above)
        metrics = _train_and_evaluate(config, dataset, splits, run_dir)
    print(format_table(metrics))
    if config.export.enabled and not config.split.folds:
        version, difference = export_run(run_dir, Path(config.export.folder))
        print(f"exported to {version} (largest difference from Keras: {difference:.1e})")
    return metrics


def prepare_built_in(config: Config) -> Path:
    """Makes the built-in data unless it is there already; returns its manifest."""
    synthetic = config.data.synthetic
    folder = Path(synthetic.folder) / f"synthetic-{synthetic.cases}-{synthetic.seed}"
    manifest = folder / "manifest.csv"
    if manifest.is_file():  # the folder is renamed into place when whole
        _say(f"built-in data: {folder} (made before)")
        return manifest
    _say(f"built-in data: making {synthetic.cases} cases in {folder}")
    return prepare_synthetic(folder, cases=synthetic.cases, seed=synthetic.seed)


def evaluate_run(run_dir: Path, manifest: Path | None = None, split: str = "test", out: Path | None = None) -> str:
    """Scores a trained run and writes the figures.

    Args:
        run_dir: Of a finished run.
        manifest: Another manifest; None for the run's own.
        split: One of `schema.SPLITS`, or "all".
        out: Folder of the figures; None for the run folder itself (own test split) or a folder in it.

    Returns:
        The table for the screen.

    Raises:
        RunError: If the run is not finished.
        DataError: If the manifest has no row in the split.
    """
    model = runs.load_model(run_dir)
    description = runs.read_json(run_dir / runs.DATA)
    dataset = load_dataset(model.config.data, manifest or description["manifest"])
    rows = _rows_of_split(dataset.table, split, description["splits"] if manifest is None else None)
    cases = average_rows_by_case(score_rows(model, dataset, load_model_inputs(model, dataset), rows))
    if out is None:
        own = manifest is None and split == "test"
        out = run_dir if own else run_dir / "evaluations" / f"{manifest.stem if manifest else 'own'}-{split}"
    return format_table(_write_figures(out, cases, runs.read_json(run_dir / runs.THRESHOLDS), model.config, split))


def _train_and_evaluate(config: Config, dataset: Dataset, splits: pd.Series, run_dir: Path) -> dict[str, Any]:
    model, inputs = train_run(config, dataset, splits, run_dir)
    thresholds = _choose_thresholds(model, dataset, inputs, splits, run_dir)
    cases = average_rows_by_case(score_rows(model, dataset, inputs, np.flatnonzero(splits == "test")))
    return _write_figures(run_dir, cases, thresholds, config, "test")


def _cross_validate(config: Config, dataset: Dataset, run_dir: Path) -> dict[str, Any]:
    """One model a fold; the figures are over the out-of-fold predictions of all cases, at the mean of the folds' thresholds."""
    positive_above, folds = config.data.positive_above, config.split.folds or 0
    fold_of_row = assign_folds(dataset.table, folds=folds, seed=config.seed, positive_above=positive_above)
    scored, thresholds = [], []
    for fold in range(folds):
        _say(f"fold {fold + 1} of {folds}")
        splits = fold_splits(
            fold_of_row, fold, dataset.table, val_fraction=config.split.val, seed=config.seed, positive_above=positive_above
        )
        fold_dir = run_dir / "folds" / str(fold)
        runs.write_start(fold_dir, config)
        model, inputs = train_run(config, dataset, splits, fold_dir)
        thresholds.append(_choose_thresholds(model, dataset, inputs, splits, fold_dir))
        scored.append(score_rows(model, dataset, inputs, np.flatnonzero(splits == "test")).assign(fold=fold))
    mean = {modality: float(np.mean([chosen[modality] for chosen in thresholds])) for modality in thresholds[0]}
    write_json(run_dir / runs.THRESHOLDS, mean)
    write_json(
        run_dir / runs.DATA, {**dataset.describe(), "folds": dict(zip(dataset.table["example_id"], map(int, fold_of_row), strict=True))}
    )
    cases = average_rows_by_case(pd.concat(scored, ignore_index=True))
    return _write_figures(run_dir, cases, mean, config, f"{folds} folds, out of fold")


def train_run(config: Config, dataset: Dataset, splits: pd.Series, run_dir: Path) -> tuple[runs.Model, Inputs]:
    """Trains one model and saves it.

    Args:
        config: Of the run.
        dataset: All rows.
        splits: Of each row; "train" is learned from, "val" decides when to stop.
        run_dir: Gets the model, the checkpoints and the TensorBoard logs.

    Returns:
        The model with its best weights, and the inputs of all rows.
    """
    prepare_device(config.train, config.seed)
    model = _build_model(config, dataset, splits)
    runs.save_encoders(run_dir, model.encoders, model.tokenizer)
    inputs = load_model_inputs(model, dataset)
    write_json(run_dir / runs.DATA, _describe_data(dataset, splits))
    verbose = 1 if sys.stdout.isatty() else 2
    train_assistant(model.assistant, model.encoders, _training_data(config, dataset, inputs, splits), config, run_dir, verbose)
    runs.save_model(run_dir, model)
    return model, inputs


def _build_model(config: Config, dataset: Dataset, splits: pd.Series) -> runs.Model:
    """Builds the model and loads the presets' weights."""
    image_preset, text = config.model.image.preset, config.model.text
    dimension = dataset.embeddings.dimension if dataset.embeddings is not None else None
    image_encoder = specify_image_encoder(config.model.image, dimension)
    tokenizer = _build_tokenizer(config, dataset.table.loc[splits == "train", "text"])
    encoders = Encoders(image=image_encoder, text=specify_text_encoder(text, len(tokenizer.vocabulary)))
    assistant = build_assistant(config.model, encoders)
    if image_preset is not None and dimension is None:
        load_preset_weights(assistant.get_layer(ENCODER_LAYERS["image"]), image_preset)
    if text.preset is not None:
        load_preset_weights(assistant.get_layer(ENCODER_LAYERS["text"]), text.preset)
    return runs.Model(config, encoders, tokenizer, assistant)


def _build_tokenizer(config: Config, training_texts: pd.Series) -> TextTokenizer:
    text = config.model.text
    if text.preset is not None:
        return load_tokenizer(text.preset, text.max_tokens)
    return learn_tokenizer(list(training_texts), text.vocabulary_size, text.max_tokens)


def _training_data(config: Config, dataset: Dataset, inputs: Inputs, splits: pd.Series) -> TrainingData:
    table, rows = dataset.table, np.arange(len(dataset.table))
    train_rows, val_rows = (np.flatnonzero(splits == split) for split in ("train", "val"))
    image_present, text_present = (inputs.columns[name].gather(rows) > 0 for name in (IMAGE_PRESENT, TEXT_PRESENT))
    eczema = table["eczema"].to_numpy("float64")
    labelled, positive = ~np.isnan(eczema), eczema > config.data.positive_above
    if not config.train.soft_labels:
        eczema = np.where(labelled, positive.astype("float64"), np.nan)
        table = table.assign(eczema=eczema)
    return TrainingData(
        inputs=inputs,
        targets=compute_targets(eczema, table["consistency"].to_numpy(), table["severity"].to_numpy()),
        weights=compute_sample_weights(table, image_present, text_present, train_rows, balance=config.train.balance_classes),
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
        "splits": {split: list(dataset.table.loc[splits == split, "example_id"]) for split in SPLITS},
        "trained_on": [modality for modality, values in seen.items() if (values != "").any()],
    }


def _choose_thresholds(model: runs.Model, dataset: Dataset, inputs: Inputs, splits: pd.Series, run_dir: Path) -> Thresholds:
    cases = average_rows_by_case(score_rows(model, dataset, inputs, np.flatnonzero(splits == "val")))
    thresholds = choose_thresholds(cases, model.config.data.positive_above)
    write_json(run_dir / runs.THRESHOLDS, thresholds)
    return thresholds


def _write_figures(out: Path, cases: pd.DataFrame, thresholds: Thresholds, config: Config, split: str) -> dict[str, Any]:
    """Writes predictions, figures and plots into a folder."""
    positive_above = config.data.positive_above
    metrics = compute_metrics(
        cases, thresholds, positive_above=positive_above, replicates=config.evaluate.bootstrap_replicates, seed=config.seed, split=split
    )
    write_predictions(out / runs.PREDICTIONS, cases)
    write_roc_plot(out / "roc.png", cases, metrics, positive_above=positive_above)
    write_pr_plot(out / "pr.png", cases, metrics, positive_above=positive_above)
    write_json(out / runs.METRICS, metrics)  # last, so that its presence means that all is there
    return metrics


def _rows_of_split(table: pd.DataFrame, split: str, own_splits: Mapping[str, list[str]] | None) -> np.ndarray:
    if split == "all":
        return np.arange(len(table))
    if own_splits is not None:
        return np.flatnonzero(table["example_id"].isin(set(own_splits[split])))
    rows = np.flatnonzero(table["split"] == split)
    if not len(rows):
        raise DataError(f"--split {split}: the manifest has no such rows; give --split all to score a manifest without splits")
    return rows


def _fractions(config: Config) -> dict[str, float]:
    return {split: getattr(config.split, split) for split in SPLITS}


def _check_run_dir(run_dir: Path, config: Config, resume: bool) -> None:
    started = (run_dir / runs.CONFIG).is_file()
    if started and not resume:
        raise RunError(f"{run_dir}: holds a run already; give another --run-dir, or --resume to go on with it")
    if resume and not started:
        raise RunError(f"{run_dir}: holds no run to go on with; leave --resume out")
    if resume and runs.load_config(run_dir / runs.CONFIG) != config:
        raise RunError(f"{run_dir}: was started with another configuration ({runs.CONFIG}); resume with that one or give another --run-dir")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

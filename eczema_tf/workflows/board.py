"""A finished run for TensorBoard, in addition to the curves that training writes.

It gets HParams with the final results, precision-recall curves, plots, heatmaps, the model's graph,
its configuration and card, and, for the projector, the features that photo and text are fused from.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf
from google.protobuf import text_format
from tensorboard.plugins.hparams import api as hparams
from tensorboard.plugins.pr_curve import summary as pr_curve
from tensorboard.plugins.projector import EmbeddingInfo, ProjectorConfig

from eczema_tf.config import Config, dump_config
from eczema_tf.data.dataset import Dataset
from eczema_tf.data.inputs import Inputs
from eczema_tf.data.photo.upright import read_upright
from eczema_tf.data.pipeline import build_evaluation_dataset
from eczema_tf.evaluation.predictions import take_scored
from eczema_tf.evaluation.records import Metrics
from eczema_tf.explanation.heatmaps import compute_heatmaps
from eczema_tf.files import replacing_folder, write_text
from eczema_tf.model.features import compute_features, frozen_encoders, open_cache, predict_logits
from eczema_tf.model.multimodal import heads_of
from eczema_tf.reporting.facts import RunData
from eczema_tf.reporting.pictures import draw_overlay, shrink_photo
from eczema_tf.reporting.plots import DECISION, RELIABILITY, RISK, ROC
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.inference import build_client_inputs
from eczema_tf.workflows.run_folder import TrainedModel

BOARD = Path("tensorboard") / "results"
# layers whose outputs the heads read; a fusion gets the same
FUSED = ("image_known_or_missing", "text_known_or_missing")
PR_THRESHOLDS = 201
HEATMAPS = 6  # photos of validation


def write_board(
    run_dir: Path,
    trained: TrainedModel,
    dataset: Dataset,
    inputs: Inputs,
    splits: pd.Series,
    cases: pd.DataFrame,
    metrics: Metrics,
) -> None:
    """Writes `tensorboard/results`, whole or not at all.

    Args:
        run_dir: Folder of the run, with its plots and card.
        trained: The model.
        dataset: All rows.
        inputs: The inputs of all rows.
        splits: The split of each row.
        cases: The cases of the test split, from `average_rows_by_case`.
        metrics: The metrics of these cases.
    """
    with replacing_folder(run_dir / BOARD, overwrite=True) as folder:
        with tf.summary.create_file_writer(str(folder)).as_default(step=0):
            _write_figures(trained.config, cases, metrics)
            for plot in (ROC, RELIABILITY, DECISION, RISK):
                if (run_dir / plot).is_file():
                    _write_picture(f"plots/{Path(plot).stem}", (run_dir / plot).read_bytes())
            for name, picture in draw_heatmaps(run_dir, trained, dataset, splits):
                _write_picture(f"heatmaps/{name}", picture)
            card = (run_dir / run_folder.MODEL_CARD).read_text(encoding="utf-8")
            *_, card = card.split("\n---\n", 1)  # without what is only for the Hub
            tf.summary.text("configuration", f"```yaml\n{dump_config(trained.config)}```")
            tf.summary.text("model_card", card)
            taken = trained.model.input.items()
            specs = {name: tf.TensorSpec(x.shape, x.dtype) for name, x in taken}
            run = tf.function(lambda inputs: trained.model(inputs, training=False))
            tf.summary.graph(run.get_concrete_function(specs).graph)
        _write_projector(folder, trained, dataset, inputs, splits)


def flatten(config: Config) -> dict[str, bool | int | float | str]:
    """Returns a configuration as `section.key` and value, as HParams takes it; null is "null"."""
    flat = pd.json_normalize(config.model_dump()).iloc[0].to_dict()
    return {
        key: value
        if isinstance(value, bool | int | float | str)
        else "null"
        if value is None
        else str(value)
        for key, value in flat.items()
    }


def list_figures(metrics: Metrics) -> dict[str, float]:
    """Lists the metrics that runs are compared by, as `<metric>_<head>`, where they are defined."""
    figures = {
        f"{name}_{modality}": getattr(head, name).value
        for modality, head in metrics.heads.items()
        for name in ("auroc", "f1", "sensitivity", "specificity")
    }
    return {name: value for name, value in figures.items() if value is not None}


def _write_figures(config: Config, cases: pd.DataFrame, metrics: Metrics) -> None:
    hparams.hparams(flatten(config))
    for name, value in list_figures(metrics).items():
        tf.summary.scalar(f"{metrics.split}/{name}", value)
    for modality in metrics.heads:
        scores, positive = take_scored(cases, modality, metrics.label_threshold)
        if len(scores):
            name = f"{metrics.split}/{modality}"
            curve = pr_curve.pb(name, positive, scores, num_thresholds=PR_THRESHOLDS)
            tf.summary.experimental.write_raw_pb(curve.SerializeToString())


def _write_picture(name: str, png: bytes) -> None:
    tf.summary.image(name, tf.io.decode_png(png, channels=3)[None])


def draw_heatmaps(
    run_dir: Path, trained: TrainedModel, dataset: Dataset, splits: pd.Series
) -> Iterator[tuple[str, bytes]]:
    """Draws heatmaps of validation photos, if they show no patients.

    Yields:
        The row's id and a PNG; nothing unless all photos are built-in and the model has a feature
        map.
    """
    table = dataset.table
    chosen = table[(splits == "val") & (table["image_file"] != "")].head(HEATMAPS)
    submodels = run_folder.take_apart(run_dir, trained)
    built_in = RunData.read(run_dir / run_folder.DATA).built_in
    if chosen.empty or not built_in or not submodels.has_feature_map:
        return
    photos = [read_upright(Path(file)) for file in chosen["image_file"]]
    given = build_client_inputs(trained, photos, list(chosen["text"]))
    for row, (name, photo) in enumerate(zip(chosen["example_id"], photos, strict=True)):
        # one at a time: gradients of all at once take half a gigabyte, which TensorFlow keeps
        one = {key: values[row : row + 1] for key, values in given.items()}
        heatmap = compute_heatmaps(submodels, one)[0]
        yield name, draw_overlay(np.asarray(shrink_photo(photo)), heatmap, "evidence for eczema")


def _write_projector(
    folder: Path, trained: TrainedModel, dataset: Dataset, inputs: Inputs, splits: pd.Series
) -> None:
    """Writes the features of validation and test rows, and their labels, as tables."""
    train = trained.config.train
    cached = frozen_encoders(train, trained.encoders) | inputs.absent
    features = compute_features(trained.model, inputs, cached, open_cache(train))
    rows = np.flatnonzero(splits != "train")
    batches = build_evaluation_dataset(features, rows, train.batch_size)
    fused = predict_logits(heads_of(trained.model, cached, FUSED), batches)
    vectors = np.concatenate([fused[name] for name in FUSED], axis=1)  # (rows, features)
    labels = dataset.table.iloc[rows].filter(["example_id", "eczema", "severity"])
    labels = labels.assign(split=splits.iloc[rows])
    write_text(folder / "labels.tsv", labels.to_csv(sep="\t", index=False))
    features_tsv = pd.DataFrame(vectors).to_csv(sep="\t", header=False, index=False)
    write_text(folder / "features.tsv", features_tsv)
    embedding = EmbeddingInfo(
        tensor_name="what photo and text are fused from",
        tensor_path="features.tsv",
        metadata_path="labels.tsv",
    )
    config = text_format.MessageToString(ProjectorConfig(embeddings=[embedding]))
    write_text(folder / "projector_config.pbtxt", config)

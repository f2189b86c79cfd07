"""A finished run as an entry of MLflow's tracking store, to be compared with others.

The entry is made from the contents of the run folder. The store is a SQLite file next to the run
folders, which MLflow 3.7 made its default; it has since given up plain files and refuses them.
"""

import importlib.util
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from eczema_tf.config import load_config
from eczema_tf.data.checksums import CHECKSUMS
from eczema_tf.errors import ConfigError, RunError, shorten
from eczema_tf.evaluation.records import Metrics
from eczema_tf.reporting.facts import RunData
from eczema_tf.training.checkpoints import EpochMetrics, read_progress
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.board import flatten, list_figures

if TYPE_CHECKING:
    from mlflow import MlflowClient

STORE = "mlflow"  # in the folder of run folders
EXPERIMENT = "eczema"
DESCRIPTION = "mlflow.note.content"  # the tag that MLflow shows at the very top


def check_mlflow() -> None:
    """Checks whether MLflow is installed, without importing it.

    Raises:
        ConfigError: If it is not installed; the message says how to install it.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise ConfigError(
            "train.mlflow: needs MLflow, which is not installed; install it: pip install -r"
            " requirements-mlflow.txt, or set train.mlflow to false"
        )


def log_run(run_dir: Path) -> None:
    """Writes a finished run, replacing an earlier entry of the same name.

    The configuration becomes parameters; epochs and results become metrics; report, card,
    thresholds and checksums are copied. Nothing leaves this machine.

    Args:
        run_dir: Folder of the run; the store is next to it.

    Raises:
        RunError: If MLflow refuses; the run itself is complete then.
    """
    # set before the import, which would ask a host of MLflow's what to send there
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # hides how it makes its tables
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    store = run_dir.resolve().parent / STORE
    store.mkdir(exist_ok=True)
    try:
        client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
        known = client.get_experiment_by_name(EXPERIMENT)
        artifacts = (store / "artifacts").as_uri()
        experiment = (
            known.experiment_id if known else client.create_experiment(EXPERIMENT, artifacts)
        )
        for old in client.search_runs([experiment]):
            if old.info.run_name == run_dir.name:
                client.delete_run(old.info.run_id)
        _write_entry(client, experiment, run_dir)
    except MlflowException as error:
        raise RunError(
            f"{store}: MLflow refuses: {shorten(str(error))}; the run itself is complete, and train"
            " --resume logs it again"
        ) from error


def _write_entry(client: "MlflowClient", experiment: str, run_dir: Path) -> None:
    from mlflow.entities import Metric

    results = Metrics.read(run_dir / run_folder.METRICS)
    # the client, unlike `mlflow.start_run`, notes neither the user nor the command
    tags = {DESCRIPTION: RunData.read(run_dir / run_folder.DATA).notice, "split": results.split}
    run = client.create_run(experiment, tags=tags, run_name=run_dir.name).info.run_id
    for key, value in flatten(load_config(run_dir / run_folder.CONFIG)).items():
        client.log_param(run, key, value)
    for step, metrics in (*_read_epochs(run_dir), (0, list_figures(results))):
        now_ms = int(time.time() * 1000)
        batch = [Metric(name, value, now_ms, step) for name, value in metrics.items()]
        client.log_batch(run, batch)
    # none of these contains a photo or a text
    for name in (run_folder.REPORT, run_folder.MODEL_CARD, run_folder.THRESHOLDS, CHECKSUMS):
        if (run_dir / name).is_file():  # a cross-validation is not one model: it has no checksums
            client.log_artifact(run, run_dir / name)
    client.set_terminated(run)


def _read_epochs(run_dir: Path) -> Iterator[tuple[int, EpochMetrics]]:
    """Yields each epoch's number and metrics, also of folds and of the model before a refit."""
    for path in sorted(run_dir.rglob("checkpoints/*.npz")):
        stage = (path.parent.parent / path.stem).relative_to(run_dir).as_posix()
        for epoch in read_progress(path).history:
            number = int(epoch.pop("epoch"))
            yield number, {f"{stage}/{name}": value for name, value in epoch.items()}

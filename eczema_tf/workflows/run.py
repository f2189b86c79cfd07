"""A run as a Python object: trained or loaded, then queried, evaluated and exported."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

from eczema_tf.config import Config
from eczema_tf.errors import ConfigError, DataError
from eczema_tf.evaluation.records import Metrics
from eczema_tf.reporting.answer import Answer
from eczema_tf.schema import SPLITS
from eczema_tf.serving.answering import Question, answer_case
from eczema_tf.serving.given import Fields, Photo, read_fields, read_photos, read_text
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.evaluate import evaluate
from eczema_tf.workflows.explain import RunBackend
from eczema_tf.workflows.export import export_model
from eczema_tf.workflows.train import train


class Run:
    """A finished run.

    Attributes:
        folder: The folder of the run.
        trained: Its configuration, encoders, tokenizer and Keras model.
    """

    def __init__(self, folder: str | Path):
        """Loads a run.

        Args:
            folder: Folder of a finished `train`.

        Raises:
            RunError: If it contains no finished run, or a file is damaged.
        """
        self.folder = Path(folder)
        self.trained = run_folder.load_model(self.folder)

    @property
    def metrics(self) -> Metrics:
        """The results on its test split, as in `metrics.json`."""
        return Metrics.read(self.folder / run_folder.METRICS)

    def explain(self, *photos: Photo, text: str | None = None, clinical: Fields = None) -> Answer:
        """Answers one case, and explains the answer.

        Args:
            photos: Photos of one case, as files or their bytes, in any format that `predict` takes.
            text: A description of the symptoms; None for none.
            clinical: Values of clinical fields, by name of the field.

        Returns:
            The answer, with its `explanation`.

        Raises:
            DataError: If there is nothing to explain, or something that this model cannot use.
        """
        told = read_fields(clinical, self._backend.said.clinical or ())
        asked = answer_case(self._backend, read_photos(photos), read_text(text), told)
        with ThreadPoolExecutor(1) as thread:  # a notebook has an event loop in this one
            return thread.submit(asyncio.run, asked).result()

    @cached_property
    def _backend(self) -> RunBackend:
        return RunBackend(self.folder, Question(), self.trained)

    def evaluate(self, manifest: str | Path | None = None, split: str = "test") -> Metrics:
        """Evaluates the run, prints the results and writes them into its folder.

        Args:
            manifest: Manifest of other data; None for the run's own.
            split: "train", "val", "test" or "all".

        Raises:
            DataError: If there is no such split, it has nothing to evaluate, or the run was trained
                on that manifest.
        """
        if split not in (*SPLITS, "all"):
            raise DataError(f"split: allowed: {', '.join(SPLITS)}, all; received {split!r}")
        return evaluate(self.folder, Path(manifest) if manifest else None, split=split)

    def export(self, out: str | Path) -> Path:
        """Exports the model as the next version under `out`; returns the version's folder.

        Raises:
            RunError: If the SavedModel and Keras differ; then nothing is left behind.
        """
        return export_model(self.trained, self.folder, Path(out))


def train_run(config: Config, folder: str | Path, *, resume: bool = False) -> Run:
    """Prepares the data, trains, evaluates, and exports if `export.enabled`; prints the results.

    A script in which it makes built-in data needs the usual `if __name__ == "__main__":`.

    Args:
        config: From `load_config`.
        folder: A new folder, or with `resume` that of an interrupted run with this configuration.
        resume: Whether to continue with what is in the folder.

    Raises:
        EczemaError: If the folder is taken, or the data are wrong.
    """
    if not isinstance(config, Config):
        raise ConfigError(f"config: must come from load_config; received {type(config).__name__}")
    train(config, Path(folder), resume=resume)
    return Run(folder)

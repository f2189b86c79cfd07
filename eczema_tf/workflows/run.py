"""A run as an object, for Python: trained or loaded, then asked, judged and exported."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

from eczema_tf.config import Config
from eczema_tf.data.clinical.lines import join_fields
from eczema_tf.data.photo.upright import read_case_photos
from eczema_tf.evaluation.records import Metrics
from eczema_tf.reporting.answer import Answer
from eczema_tf.serving.answering import Question, answer_case
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.evaluate import evaluate
from eczema_tf.workflows.explain import RunBackend
from eczema_tf.workflows.export import export_model
from eczema_tf.workflows.train import train


class Run:
    """A finished run.

    Attributes:
        folder: That holds it.
        trained: Its configuration, encoders, tokenizer and Keras model.
    """

    def __init__(self, folder: str | Path):
        """Loads a run.

        Args:
            folder: Of a finished `train`.

        Raises:
            RunError: If it holds no finished run, or a file is damaged.
        """
        self.folder = Path(folder)
        self.trained = run_folder.load_model(self.folder)

    @property
    def metrics(self) -> Metrics:
        """The results on its test split, as in `metrics.json`."""
        return Metrics.read(self.folder / run_folder.METRICS)

    def explain(
        self, *photos: str | Path, text: str = "", clinical: Mapping[str, str] | None = None
    ) -> Answer:
        """Answers one case, and says why.

        Args:
            photos: Files, in any format that `predict` takes; of one case.
            text: "" for none.
            clinical: What is known besides, by name of the field.

        Returns:
            The answer, with its `explanation`.

        Raises:
            DataError: If there is nothing to explain, or something that this model cannot use.
        """
        upright = read_case_photos([Path(photo) for photo in photos])
        told = join_fields(clinical or {}, self._backend.said.clinical)
        asked = answer_case(self._backend, upright, text or "", told)
        with ThreadPoolExecutor(1) as thread:  # a notebook has an event loop in this one
            return thread.submit(asyncio.run, asked).result()

    @cached_property
    def _backend(self) -> RunBackend:
        return RunBackend(self.folder, Question(), self.trained)

    def evaluate(self, manifest: str | Path | None = None, split: str = "test") -> Metrics:
        """Judges the run, prints the results and writes them into its folder.

        Args:
            manifest: Of other data; None for the run's own.
            split: "train", "val", "test" or "all".

        Raises:
            DataError: If there is nothing to judge, or the run was trained on it.
        """
        return evaluate(self.folder, Path(manifest) if manifest else None, split=split)

    def export(self, out: str | Path) -> Path:
        """Exports the model as the next version under `out`; returns the version's folder.

        Raises:
            RunError: If the SavedModel and Keras differ; nothing is left behind then.
        """
        return export_model(self.trained, self.folder, Path(out))


def train_run(config: Config, folder: str | Path) -> Run:
    """Prepares the data, trains, evaluates, and exports if `export.enabled`; prints the results.

    Args:
        config: From `load_config`.
        folder: A new one.

    Raises:
        EczemaError: If the folder is taken, or the data are wrong.
    """
    train(config, Path(folder))
    return Run(folder)

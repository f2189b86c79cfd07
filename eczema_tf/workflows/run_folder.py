"""The run folder: the only thing that passes from one command to the next.

A model is rebuilt from `config.yaml`, `encoders.json`, `tokenizer/` and `model.weights.h5`; nothing
executable is ever loaded.
"""

import contextlib
import errno
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from eczema_tf.config import Config, dump_config, load_config
from eczema_tf.data.audit.audit import AuditReport
from eczema_tf.data.checksums import CHECKSUMS, check_checksums, write_checksums
from eczema_tf.data.dataset import FINGERPRINTS
from eczema_tf.data.text.tokenizer import TextTokenizer, read_tokenizer
from eczema_tf.errors import RunError, shorten
from eczema_tf.evaluation.thresholds import Thresholds
from eczema_tf.explanation.submodels import EvidenceScale, Submodels
from eczema_tf.files import (
    holding,
    read_json,
    refusing,
    replacing_file,
    replacing_folder,
    write_json,
    write_text,
)
from eczema_tf.model.multimodal import Encoders, build_model
from eczema_tf.reporting.facts import Environment, RunData, RunFacts
from eczema_tf.schema import MODALITIES
from eczema_tf.workflows.audit import AUDIT

CONFIG, DATA, ENVIRONMENT = "config.yaml", "data.json", "environment.json"
ENCODERS, WEIGHTS, TOKENIZER = "encoders.json", "model.weights.h5", "tokenizer"
THRESHOLDS, METRICS, PREDICTIONS = "thresholds.json", "metrics.json", "predictions.csv"
VALIDATION = "validation.csv"  # the predictions that thresholds are chosen on
NEUTRAL_TEXT = "neutral_text.npy"  # float32 (channels,), the baseline of word scores
WEIGHT_BYTES, HDF5_BYTES = 4, 2 << 20  # HDF5 needs some space itself: 0.8 MB were seen
EVIDENCE = "evidence.json"  # what a heatmap's colours stand for
MODEL_FILES = (
    CONFIG,
    DATA,
    ENVIRONMENT,
    ENCODERS,
    TOKENIZER,
    WEIGHTS,
    THRESHOLDS,
    NEUTRAL_TEXT,
    EVIDENCE,
)
FOLDS = "folds"  # of a cross-validation: contains a folder for each model
# the model that was judged on validation, where the run's own was trained on validation, too
BEFORE_REFIT = "before_refit"
REPORT, MODEL_CARD = "report.html", "model_card.md"
PACKAGES = (
    "tensorflow",
    "keras",
    "keras-hub",
    "tensorflow-text",
    "numpy",
    "pandas",
    "scikit-learn",
    "pillow",
    "eczema_tf",
)


@dataclass(frozen=True)
class TrainedModel:
    """Everything that turns photos and texts into logits.

    Attributes:
        learned_from: Modalities that it was trained on. It sees nothing of others, since the layers
            that they would go through still have their initial weights.
    """

    config: Config
    encoders: Encoders
    tokenizer: TextTokenizer
    model: keras.Model
    learned_from: frozenset[str]

    @property
    def uses(self) -> tuple[str, ...]:
        """The modalities that it uses; not photos if it was trained on embeddings instead."""
        blind = {"image"} if self.encoders.image.kind == "precomputed" else set()
        return tuple(name for name in MODALITIES if name in self.learned_from - blind)

    def with_cache(self, folder: str) -> "TrainedModel":
        """Makes the same model, which caches what it computes in another folder."""
        train = self.config.train.model_copy(update={"cache_folder": folder})
        return replace(self, config=self.config.model_copy(update={"train": train}))


@contextlib.contextmanager
def in_use(run_dir: Path) -> Iterator[None]:
    """Locks a run folder, which is created if necessary, while the block works in it.

    Raises:
        RunError: If another process is working in it.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise RunError(f"{run_dir}: is a file; give a folder as --run-dir")
    with refusing(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with holding(run_dir):
            yield
    except BlockingIOError as error:
        raise RunError(f"{run_dir}: is in use by another process; wait until it ends") from error


def refuse_run(out: Path) -> None:
    """Refuses the folder of a run as a place for other results.

    Raises:
        RunError: If `out` is the folder of a run, or a file.
    """
    if out.is_file():
        raise RunError(f"--out {out}: is a file; give a folder")
    if (out / CONFIG).exists():
        raise RunError(
            f"--out {out}: is the folder of a run, whose own results would be lost; give another"
        )


def write_start(run_dir: Path, config: Config) -> None:
    """Writes what is known before training: the configuration and the versions of everything.

    Neither reveals the user or the machine's name.
    """
    # not all of them are installed: in a clone, this package is not
    installed = [name for name in PACKAGES if any(metadata.distributions(name=name))]
    environment = Environment(
        python=sys.version.split()[0],
        system=platform.system(),
        machine=platform.machine(),
        devices=[device.device_type for device in tf.config.list_physical_devices()],
        packages={name: metadata.version(name) for name in installed},
    )
    write_text(run_dir / CONFIG, dump_config(config))
    environment.write(run_dir / ENVIRONMENT)


def take_back_start(run_dir: Path) -> None:
    """Removes what `write_start` wrote, unless something has been trained since."""
    places, trained = (run_dir, run_dir / BEFORE_REFIT), ("checkpoints/*", WEIGHTS, FOLDS)
    if not any([*place.glob(name)] for place in places for name in trained):
        for place in places:
            for name in (CONFIG, ENVIRONMENT):
                (place / name).unlink(missing_ok=True)


def check_data(run_dir: Path, data: RunData) -> None:
    """Checks that a run continues with the data that its checkpoints have learned from.

    Raises:
        RunError: If rows, labels, photos or splits differ: it may have learned from what it would
            be evaluated on.
    """
    if not all((run_dir / name).exists() for name in (DATA, "checkpoints")):
        return
    begun = RunData.read(run_dir / DATA)
    same = (*FINGERPRINTS, "splits")
    changed = [what for what in same if getattr(begun, what) != getattr(data, what)]
    if changed:
        raise RunError(
            f"{run_dir}: was started with other data (changed: {', '.join(changed)}); resume with"
            " what it was started with, or give another --run-dir"
        )


def save_encoders(run_dir: Path, encoders: Encoders, tokenizer: TextTokenizer) -> None:
    """Writes the specifications of encoders and clinical fields, and the tokenizer."""
    specs = {"image": encoders.image.model_dump(), "text": encoders.text.model_dump()}
    told: dict[str, object] = {"clinical": encoders.clinical} if encoders.clinical else {}
    told |= {"widened": True} if encoders.widened else {}
    write_json(run_dir / ENCODERS, specs | {"findings": encoders.findings} | told)
    with replacing_folder(run_dir / TOKENIZER, overwrite=True) as aside:
        tokenizer.save(aside)


def save_model(run_dir: Path, trained: TrainedModel) -> None:
    """Writes encoders, tokenizer and, last, weights, whose presence means a complete model."""
    save_encoders(run_dir, trained.encoders, trained.tokenizer)
    needed = HDF5_BYTES + WEIGHT_BYTES * trained.model.count_params()
    with replacing_file(run_dir / WEIGHTS) as aside:
        if shutil.disk_usage(run_dir).free < needed:  # HDF5 would crash the process
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        trained.model.save_weights(aside)


def load_model(run_dir: Path) -> TrainedModel:
    """Rebuilds a trained model.

    Raises:
        RunError: If the folder contains no finished model.
    """
    if (run_dir / FOLDS).is_dir():
        keep = "set split.folds to null to train one that is kept"
        raise RunError(f"{run_dir}: is a cross-validation, which keeps no model; {keep}")
    if not (run_dir / WEIGHTS).is_file():
        raise RunError(
            f"{run_dir}: contains no trained model ({WEIGHTS} is missing); as --run-dir, give the"
            " folder that `train` printed"
        )
    check_checksums(run_dir, MODEL_FILES)
    config, encoders = load_config(run_dir / CONFIG), load_encoders(run_dir)
    try:
        model = build_model(config.model, encoders)
    except (ValueError, TypeError, KeyError) as error:  # Keras' and KerasHub's
        raise RunError(
            f"{run_dir / ENCODERS}: encoders cannot be built from it ({shorten(str(error))})"
        ) from error
    try:
        model.load_weights(run_dir / WEIGHTS)
    except (ValueError, OSError) as error:
        cause = str(error).splitlines()[0]
        raise RunError(
            f"{run_dir / WEIGHTS}: does not fit {CONFIG} and {ENCODERS}, or is from another"
            f" version: train again ({cause})"
        ) from error
    tokenizer, data = read_tokenizer(run_dir / TOKENIZER), RunData.read(run_dir / DATA)
    return TrainedModel(config, encoders, tokenizer, model, data.learned_from)


def save_neutral_text(run_dir: Path, neutral_text: np.ndarray) -> None:
    """Writes the features that stand for a token of a text that says nothing."""
    with replacing_file(run_dir / NEUTRAL_TEXT) as aside, aside.open("wb") as file:
        np.save(file, neutral_text, allow_pickle=False)


def take_apart(run_dir: Path, trained: TrainedModel) -> Submodels:
    """Takes a run's model apart, so that it can be explained.

    Raises:
        RunError: If the run does not record what a text that says nothing looks like, or how much
            evidence is usual.
    """
    path = run_dir / NEUTRAL_TEXT
    try:
        neutral_text = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path}: missing or damaged; explanations start from it: finish the run (train"
            " --resume), or train again"
        ) from error
    return Submodels(trained.model, neutral_text, read_json(run_dir / EVIDENCE, EvidenceScale))


def seal(run_dir: Path) -> None:
    """Writes the checksums of all files that a finished run's model is rebuilt from."""
    write_checksums(run_dir, MODEL_FILES)


def unseal(run_dir: Path) -> None:
    """Removes checksums and results from a run that continues, since its files will change."""
    for name in (CHECKSUMS, METRICS):
        (run_dir / name).unlink(missing_ok=True)


def load_encoders(run_dir: Path) -> Encoders:
    """Reads the encoders' specifications, and the findings that are detected in texts."""
    return read_json(run_dir / ENCODERS, Encoders)


def read_thresholds(run_dir: Path) -> Thresholds:
    """Reads the threshold of each head."""
    return read_json(run_dir / THRESHOLDS, Thresholds)


def read_run_facts(run_dir: Path, config: Config) -> RunFacts:
    """Reads what a run folder says apart from its results.

    Raises:
        RunError: If a file of the run is missing.
    """
    audit = run_dir / AUDIT
    return RunFacts(
        config,
        RunData.read(run_dir / DATA),
        Environment.read(run_dir / ENVIRONMENT),
        AuditReport.read(audit) if audit.is_file() else None,
    )

"""The run folder: the only thing that passes from one command to the next.

A model is rebuilt from `config.yaml`, `encoders.json`, `tokenizer/` and `model.weights.h5`; nothing
executable is ever loaded.
"""

import json
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from eczema_tf.config import Config, dump_config, load_config
from eczema_tf.data.text.tokenizer import TextTokenizer, read_tokenizer
from eczema_tf.errors import RunError
from eczema_tf.files import replacing_file, replacing_folder, write_json, write_text
from eczema_tf.model.encoders import EncoderSpec
from eczema_tf.model.multimodal import Encoders, build_model

CONFIG, ENCODERS, WEIGHTS, TOKENIZER = (
    "config.yaml",
    "encoders.json",
    "model.weights.h5",
    "tokenizer",
)
DATA, THRESHOLDS, METRICS, PREDICTIONS, ENVIRONMENT = (
    "data.json",
    "thresholds.json",
    "metrics.json",
    "predictions.csv",
    "environment.json",
)
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
    """Everything that turns photos and texts into logits."""

    config: Config
    encoders: Encoders
    tokenizer: TextTokenizer
    model: keras.Model


def write_start(run_dir: Path, config: Config) -> None:
    """Writes what is known before training: the resolved configuration and the versions of everything."""
    write_text(run_dir / CONFIG, dump_config(config))
    write_json(run_dir / ENVIRONMENT, describe_environment())


def save_model(run_dir: Path, trained: TrainedModel) -> None:
    """Writes encoders, tokenizer and weights; the weights come last, so that their presence means a whole model."""
    save_encoders(run_dir, trained.encoders, trained.tokenizer)
    with replacing_file(run_dir / WEIGHTS) as aside:
        trained.model.save_weights(aside)


def save_encoders(run_dir: Path, encoders: Encoders, tokenizer: TextTokenizer) -> None:
    """Writes what the encoders and the tokenizer are."""
    write_json(
        run_dir / ENCODERS,
        {"image": encoders.image.model_dump(), "text": encoders.text.model_dump()},
    )
    with replacing_folder(run_dir / TOKENIZER, overwrite=True) as aside:
        tokenizer.save(aside)


def load_model(run_dir: Path) -> TrainedModel:
    """Rebuilds a trained model.

    Raises:
        RunError: If the folder holds no finished model.
    """
    if not (run_dir / WEIGHTS).is_file():
        raise RunError(
            f"{run_dir}: holds no trained model ({WEIGHTS} is missing); give the folder that"
            " `train` printed as --run-dir"
        )
    config = load_config(run_dir / CONFIG)
    encoders = load_encoders(run_dir)
    model = build_model(config.model, encoders)
    try:
        model.load_weights(run_dir / WEIGHTS)
    except (ValueError, OSError) as error:
        raise RunError(
            f"{run_dir / WEIGHTS}: does not fit {CONFIG} and {ENCODERS}:"
            f" {str(error).splitlines()[0]}"
        ) from error
    return TrainedModel(config, encoders, read_tokenizer(run_dir / TOKENIZER), model)


def load_encoders(run_dir: Path) -> Encoders:
    """Reads the encoders' specs."""
    specs = read_json(run_dir / ENCODERS)
    return Encoders(
        image=EncoderSpec.model_validate(specs["image"]),
        text=EncoderSpec.model_validate(specs["text"]),
    )


def read_json(path: Path) -> Any:
    """Reads a JSON file of a run.

    Raises:
        RunError: If it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(
            f"{path}: missing; is {path.parent} the folder of a finished run?"
        ) from error
    except ValueError as error:
        raise RunError(f"{path}: not readable as JSON: {error}") from error


def describe_environment() -> dict[str, Any]:
    """Versions of Python, of the packages that matter, and the device; nothing about the user or the machine's name."""
    versions = {name: metadata.version(name) for name in PACKAGES if _is_installed(name)}
    devices = [device.device_type for device in tf.config.list_physical_devices()]
    return {
        "python": sys.version.split()[0],
        "system": platform.system(),
        "machine": platform.machine(),
        "devices": devices,
        "packages": versions,
    }


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True

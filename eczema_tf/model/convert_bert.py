"""A Hugging Face BERT becomes a KerasHub preset, which `model.text.preset` reads without torch.

In: a folder or a Hugging Face name. Out: a preset folder with `conversion.json`, which says what
was made from what. The weights go through a clean folder in the one layout that KerasHub's own
converter reads; where torch and transformers are installed, the result is compared with
transformers.
"""

import hashlib
import importlib.metadata
import re
import tempfile
from pathlib import Path
from typing import Any

import huggingface_hub
import keras_hub
import numpy as np
import tensorflow as tf
from safetensors.numpy import save_file

from eczema_tf.data.text.tokenizer import TextTokenizer
from eczema_tf.errors import PresetError
from eczema_tf.files import replacing_folder, write_json
from eczema_tf.model import bert_checkpoint as hf
from eczema_tf.model.bert_checkpoint import BertCheckpoint, read_checkpoint

RECORD = "conversion.json"
PACKAGES = ("keras", "keras-hub", "tensorflow", "numpy", "safetensors", "torch", "transformers")
TEXTS = (
    "Itchy, red patches on both ELBOWS since 3 weeks; they weep & crust at night (no fever).",
    "Dr. Müller's cream didn't help: café-au-lait spots, naïve skin, 0.1% at 5°C.",
    "dry",
)
# of hidden states of about 1 to 10, same GELU in both: rounding is 2e-6 to 5e-6, two swapped
# tensors are 0.1 and more
TOLERANCE = 1e-3


def convert_bert(source: str, out: Path, cased: bool | None = None) -> dict[str, Any]:
    """Converts a BERT; the preset appears at `out` when it is whole and agrees with transformers.

    Args:
        source: A folder, or a Hugging Face name (`emilyalsentzer/Bio_ClinicalBERT`) that is
            downloaded.
        out: Where the preset goes; must not exist or be empty.
        cased: Overrides what the files say about casing.

    Returns:
        What `conversion.json` says.

    Raises:
        PresetError: If the source cannot be had or is not such a BERT, or the result differs from
            it.
        EczemaError: If `out` is occupied or the disk refuses.
    """
    with replacing_folder(out) as aside:
        folder, revision = locate(source)
        checkpoint = read_checkpoint(folder, cased)
        with tempfile.TemporaryDirectory(prefix=".clean-", dir=aside) as clean:
            write_clean_folder(checkpoint, Path(clean))
            backbone, tokenizer = load_clean_folder(clean, checkpoint)
            comparison = compare(checkpoint, clean, backbone, tokenizer)
        backbone.save_to_preset(str(aside))
        tokenizer.save_to_preset(str(aside))
        record = {
            "source": source,
            "revision": revision,
            **describe(checkpoint),
            "comparison": comparison,
        }
        write_json(aside / RECORD, record)
    return record


def locate(source: str) -> tuple[Path, str | None]:
    """Finds the folder of a source, downloading it if it is a Hugging Face name.

    Returns:
        The folder, and the commit that was downloaded.
    """
    if Path(source).is_dir():
        return Path(source), None
    name = source.removeprefix("hf://")
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        raise PresetError(
            f"{source}: no such folder; give a folder, or a Hugging Face name such as"
            " emilyalsentzer/Bio_ClinicalBERT"
        )
    try:
        return _download(name)
    except PresetError:
        raise
    except Exception as error:  # huggingface_hub and its HTTP client raise whatever they like
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        files = (
            f"{hf.CONFIG}, {hf.VOCABULARY}, {hf.TOKENIZER_CONFIG} (if there is one) and"
            f" {' or '.join(hf.WEIGHTS)}"
        )
        raise PresetError(
            f"{source}: no such folder, and it cannot be downloaded ({reason}); on a machine with"
            f" internet access, fetch {files} from huggingface.co/{name}/tree/main into a folder"
            " and give that folder"
        ) from error


def _download(name: str) -> tuple[Path, str]:
    """Downloads the files that are read and no others, all of one commit."""
    info = huggingface_hub.model_info(name)
    present = {sibling.rfilename for sibling in info.siblings or []}
    weights = [file for file in hf.WEIGHTS if file in present][:1]
    if not weights:
        raise PresetError(
            f"{name}: has no {' or '.join(hf.WEIGHTS)} on Hugging Face; received"
            f" {', '.join(sorted(present)) or 'no file'}"
        )
    files = [hf.CONFIG, hf.VOCABULARY, hf.TOKENIZER_CONFIG, *weights]
    return (
        Path(huggingface_hub.snapshot_download(name, revision=info.sha, allow_patterns=files)),
        info.sha,
    )


def write_clean_folder(checkpoint: BertCheckpoint, folder: Path) -> None:
    """Writes a checkpoint in the layout that KerasHub reads: safetensors, today's names, and casing said in so many words."""
    casing = checkpoint.casing
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": not casing.cased,
        "strip_accents": casing.strip_accents,
    }
    write_json(folder / hf.CONFIG, {"model_type": "bert", **checkpoint.config.model_dump()})
    write_json(folder / hf.TOKENIZER_CONFIG, settings)
    (folder / hf.VOCABULARY).write_bytes((checkpoint.folder / hf.VOCABULARY).read_bytes())
    save_file(checkpoint.tensors, folder / hf.SAFETENSORS)


def load_clean_folder(
    folder: str, checkpoint: BertCheckpoint
) -> tuple[keras_hub.models.BertBackbone, keras_hub.models.BertTokenizer]:
    """Loads what `write_clean_folder` wrote. KerasHub forgets to strip accents, which uncased BERTs do: it is told to."""
    try:
        backbone = keras_hub.models.BertBackbone.from_preset(folder, dtype="float32")
        tokenizer = keras_hub.models.BertTokenizer.from_preset(
            folder, strip_accents=checkpoint.casing.strip_accents
        )
    except Exception as error:  # whatever KerasHub finds that the checks did not
        raise PresetError(
            f"{checkpoint.folder}: KerasHub cannot read it: {' '.join(str(error).split())[:300]}"
        ) from error
    return backbone, tokenizer


def compare(
    checkpoint: BertCheckpoint,
    clean: str,
    backbone: keras_hub.models.BertBackbone,
    tokenizer: keras_hub.models.BertTokenizer,
) -> dict[str, Any]:
    """Compares token ids and hidden states with transformers, where it is installed.

    KerasHub's BERT approximates GELU by tanh. So the hidden states are compared twice: with the
    same approximation in transformers, where nothing but rounding may differ, and with the
    activation that the model was trained with, which tells what the approximation costs.

    Raises:
        PresetError: If token ids differ, or hidden states by more than `TOLERANCE` with the same
            GELU.
    """
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError:
        return {"done": False, "why": f"needs torch and transformers: {hf.INSTALL}"}
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        return _compare(checkpoint, clean, backbone, tokenizer)
    except PresetError:
        raise
    except (
        Exception
    ) as error:  # a transformers that cannot read the source is no reason to refuse it
        return {
            "done": False,
            "why": (
                f"transformers {transformers.__version__} failed:"
                f" {' '.join(str(error).split())[:300]}"
            ),
        }


def _compare(
    checkpoint: BertCheckpoint,
    clean: str,
    backbone: keras_hub.models.BertBackbone,
    tokenizer: keras_hub.models.BertTokenizer,
) -> dict[str, Any]:
    longest = min(64, checkpoint.config.max_position_embeddings)
    ids, mask = (
        output.numpy()
        for output in tf.function(TextTokenizer(tokenizer, longest))(tf.constant(TEXTS))
    )
    _check_tokens(ids, clean, longest)
    mine = backbone({"token_ids": ids, "padding_mask": mask, "segment_ids": np.zeros_like(ids)})[
        "sequence_output"
    ].numpy()
    own_gelu = checkpoint.config.hidden_act
    differences = {}
    for activation in ("gelu_pytorch_tanh", own_gelu):
        theirs = _run_transformers(checkpoint.folder, activation, ids, mask)
        differences[activation] = float(np.abs(mine - theirs)[mask == 1].max())
    same = differences["gelu_pytorch_tanh"]
    if not same <= TOLERANCE:
        raise PresetError(
            f"{checkpoint.folder}: hidden states differ from transformers' by {same:.2g}, allowed"
            f" {TOLERANCE:g}; not converted"
        )
    return {
        "done": True,
        "texts": len(TEXTS),
        "same_gelu": same,
        "tolerance": TOLERANCE,
        "own_gelu": differences[own_gelu],
    }


def _check_tokens(ids: np.ndarray, clean: str, longest: int) -> None:
    import transformers

    tokenizer = transformers.BertTokenizer.from_pretrained(clean, local_files_only=True)
    theirs = tokenizer(list(TEXTS), padding=True, truncation=True, max_length=longest)["input_ids"]
    for text, mine, other in zip(TEXTS, ids.tolist(), theirs, strict=True):
        if mine != other:
            raise PresetError(
                f"{text!r}: token ids differ: KerasHub {mine}, transformers {other}; not converted"
            )


def _run_transformers(
    folder: Path, activation: str, ids: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """Runs transformers on the original files, so that our own renaming is under test too."""
    import torch
    import transformers

    options = {
        "hidden_act": activation,
        "dtype": torch.float32,
        "local_files_only": True,
        "weights_only": True,
    }
    model = transformers.BertModel.from_pretrained(folder, **options).eval()
    with torch.no_grad():
        output = model(input_ids=torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long())
    return output.last_hidden_state.numpy()


def describe(checkpoint: BertCheckpoint) -> dict[str, Any]:
    """Says what was converted, for `conversion.json`."""
    return {
        "weights": {
            "file": checkpoint.weights_file,
            "sha256": _digest(checkpoint.folder / checkpoint.weights_file),
        },
        "vocabulary": {
            "pieces": checkpoint.pieces,
            "sha256": _digest(checkpoint.folder / hf.VOCABULARY),
        },
        "config": checkpoint.config.model_dump(),
        "casing": vars(checkpoint.casing),
        "dropped_tensors": checkpoint.dropped,
        "pooler": (
            "from the weights"
            if checkpoint.has_pooler
            else "not in the weights: zeros, so pooled_output is 0"
        ),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

"""Turns a Hugging Face BERT into a KerasHub preset that `model.text.preset` reads.

    pip install -r requirements-convert.txt
    python scripts/convert_bert.py emilyalsentzer/Bio_ClinicalBERT --out presets/clinicalbert
    python -m eczema_tf.train --set model.text.preset=presets/clinicalbert

transformers reads the source, and KerasHub reads what transformers saves. The preset is written
only if both compute the same.
"""

import argparse
import json
import os
import pickle
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

# so that it runs from a clone, without PYTHONPATH
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# transformers would ask the Hub to convert a .bin file, too
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")

try:
    import torch
    import transformers
except ImportError:
    sys.exit("error: needs torch and transformers: pip install -r requirements-convert.txt")

import keras_hub
import numpy as np
import tensorflow as tf

from eczema_tf.cli import build_parser, run_command
from eczema_tf.data.text.tokenizer import SPECIAL_TOKENS, TextTokenizer
from eczema_tf.errors import PresetError, join_faults
from eczema_tf.files import replacing_folder, write_json

SOURCES = (
    "give a folder with config.json, vocab.txt, model.safetensors or pytorch_model.bin, and"
    " tokenizer_config.json if there is one, or, with internet access, a Hugging Face name"
)
# what KerasHub's `BertBackbone` computes, whatever config.json says; it approximates GELU by tanh
COMPUTED: dict[str, tuple[Any, ...]] = {
    "model_type": ("bert",),
    "hidden_act": ("gelu", "gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_eps": (1e-12,),
    "position_embedding_type": ("absolute",),
    "type_vocab_size": (2,),
}
# heads for masked-word prediction, classification and question answering: not BERT itself
HEADS = ("cls.", "classifier.", "qa_outputs.")
POOLER = {"pooler.dense.weight", "pooler.dense.bias"}
# some embedding tables are padded to a round size; a vocabulary that lacks more rows was cut
MAX_PADDING_ROWS = 127
TEXTS = [
    "Itchy, red patches on both ELBOWS since 3 weeks; they weep & crust at night (no fever).",
    "Dr. Müller's cream didn't help: café-au-lait spots, naïve skin, 0.1% at 5°C.",
    "dry",
]
# hidden states are about 1 to 10: rounding makes 2e-6 to 5e-6, two swapped tensors 0.1 and more
TOLERANCE = 1e-3


def convert(source: str, out: Path, cased: bool | None = None) -> dict[str, Any]:
    """Converts a BERT; the preset appears at `out` if it is complete and agrees with transformers.

    Args:
        source: A folder, or a Hugging Face name, which is downloaded.
        out: Where the preset goes; must be empty or not exist.
        cased: Overrides what the files say about casing.

    Returns:
        What `conversion.json` in the preset says.

    Raises:
        PresetError: If the source cannot be read or is not a BERT that KerasHub can compute, or if
            the result differs from it.
        EczemaError: If `out` is occupied or the disk refuses.
    """
    with replacing_folder(out) as aside, tempfile.TemporaryDirectory(dir=aside) as clean:
        bert, record = load_bert(source)
        vocabulary, settings = load_vocabulary(source, bert.config.vocab_size)
        cased, evidence = decide_casing(settings, vocabulary, cased)
        # KerasHub wants safetensors, today's names and `do_lower_case`; it forgets the accents,
        # which uncased BERTs strip
        folding = {"do_lower_case": not cased, "strip_accents": not cased}
        bert.save_pretrained(clean)
        Path(clean, "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
        write_json(Path(clean, "tokenizer_config.json"), folding)
        backbone = keras_hub.models.BertBackbone.from_preset(clean, dtype="float32")
        tokenizer = keras_hub.models.BertTokenizer.from_preset(clean, strip_accents=not cased)
        reference = transformers.BertTokenizer.from_pretrained(clean, local_files_only=True)
        record |= {"cased": cased, "casing_evidence": evidence}
        record["differences"] = compare(bert, reference, backbone, tokenizer)
        backbone.save_to_preset(str(aside))
        tokenizer.save_to_preset(str(aside))
        write_json(aside / "conversion.json", record)
    return record


def load_bert(source: str) -> tuple[transformers.BertModel, dict[str, Any]]:
    """Loads the weights in float32, and checks that all of BERT is there and nothing else.

    Nothing in a file can run. A source without a pooler (masked-word models have none) gets zeros
    for it, so `pooled_output` is plainly 0; this project reads only `sequence_output`.
    """
    try:
        config, _ = transformers.BertConfig.get_config_dict(source)
        if "vocab_size" not in config:  # BertModel would take its defaults
            raise ValueError("config.json is missing or has no vocab_size")
        bert, report = transformers.BertModel.from_pretrained(
            source,
            dtype=torch.float32,
            weights_only=True,
            ignore_mismatched_sizes=True,  # they are listed below, all at once
            output_loading_info=True,
        )
    except pickle.UnpicklingError as error:
        # torch's own advice is to load the file without protection: not repeated here
        raise PresetError(
            f"{source}: pytorch_model.bin is damaged or contains more than tensors; it was refused,"
            " and nothing in it was run; fetch it again from its publisher"
        ) from error
    except Exception as error:  # transformers, safetensors and the Hub raise whatever they like
        raise PresetError(f"{source}: cannot be read ({_reason(error)}); {SOURCES}") from error
    dropped = {name for name in report["unexpected_keys"] if name.startswith(HEADS)}
    faults = [
        f"config.json: {key}: allowed {', '.join(map(str, allowed))}, received {config[key]!r}"
        for key, allowed in COMPUTED.items()
        if config.get(key, allowed[0]) not in allowed
    ]
    faults += [f"{name}: missing" for name in sorted(report["missing_keys"] - POOLER)]
    faults += [f"{name}: unexpected" for name in sorted(report["unexpected_keys"] - dropped)]
    faults += [
        f"{name}: shape must be {tuple(needed)}, received {tuple(received)}"
        for name, received, needed in sorted(report["mismatched_keys"])
    ]
    faults += [
        f"{name}: contains NaN or infinity"
        for name, tensor in bert.state_dict().items()
        if not tensor.isfinite().all()
    ]
    if faults:
        raise PresetError(join_faults(f"{source}: is not a BERT that KerasHub can compute", faults))
    has_pooler = not report["missing_keys"]
    if not has_pooler:
        torch.nn.init.zeros_(bert.pooler.dense.weight)
        torch.nn.init.zeros_(bert.pooler.dense.bias)
    return bert, {
        "source": source,
        "revision": config.get("_commit_hash"),
        "dropped_tensors": sorted(dropped),
        "pooler": "from the weights" if has_pooler else "not in the weights: zeros",
    }


def load_vocabulary(source: str, vocab_size: int) -> tuple[list[str], dict[str, Any]]:
    """Loads the word pieces in the order of their ids, and `tokenizer_config.json`, if any."""
    find = transformers.utils.cached_file
    try:
        lines = Path(find(source, "vocab.txt")).read_text(encoding="utf-8").split("\n")
        file = find(source, "tokenizer_config.json", _raise_exceptions_for_missing_entries=False)
        settings = json.loads(Path(file).read_bytes()) if file else {}
    except (OSError, ValueError) as error:
        raise PresetError(f"{source}: cannot be read ({_reason(error)}); {SOURCES}") from error
    vocabulary = [line.rstrip() for line in lines if line]
    missing = [token for token in SPECIAL_TOKENS if token not in vocabulary]
    if missing or not 0 <= vocab_size - len(vocabulary) <= MAX_PADDING_ROWS:
        raise PresetError(
            f"{source}: vocab.txt: has {len(vocabulary)} word pieces where config.json says"
            f" vocab_size {vocab_size}, and lacks {', '.join(missing) or 'no special token'}; take"
            " both from the same place"
        )
    return vocabulary, settings


def decide_casing(
    settings: dict[str, Any], vocabulary: list[str], cased: bool | None = None
) -> tuple[bool, str]:
    """Decides whether text keeps its capitals, and says why.

    If the files say nothing, transformers lower-cases, and so reads Bio_ClinicalBERT and BioBERT
    wrongly (github.com/EmilyAlsentzer/clinicalBERT/issues/26). Here the vocabulary decides instead.
    """
    # not isupper: "double-struck R" has no lower case
    capitals = sum(piece != piece.lower() and piece not in SPECIAL_TOKENS for piece in vocabulary)
    counted = f"{capitals} of {len(vocabulary)} word pieces have capital letters"
    lower = settings.get("do_lower_case")
    if cased is not None:
        return cased, f"--cased or --uncased, where {counted}"
    if isinstance(lower, bool):
        return not lower, f"do_lower_case is {lower} in tokenizer_config.json, where {counted}"
    return capitals > 0, f"no do_lower_case in tokenizer_config.json, and {counted}"


def compare(
    bert: transformers.BertModel,
    reference: transformers.BertTokenizer,
    backbone: keras_hub.models.BertBackbone,
    tokenizer: keras_hub.models.BertTokenizer,
) -> dict[str, float]:
    """Compares token ids and hidden states with transformers; leaves `bert` with the tanh GELU.

    Returns:
        The largest difference of a hidden state by activation in transformers: with the model's
        own, which shows what KerasHub's approximation of GELU costs, and with the same
        approximation, where only rounding may differ.

    Raises:
        PresetError: If token ids differ, or hidden states by more than `TOLERANCE` with the same
            GELU.
    """
    length = min(64, bert.config.max_position_embeddings)
    ids, mask = tf.function(TextTokenizer(tokenizer, length))(tf.constant(TEXTS))
    expected = reference(TEXTS, padding=True, truncation=True, max_length=length)
    if ids.numpy().tolist() != expected["input_ids"]:
        raise PresetError("not converted: token ids differ from transformers'")
    inputs = {"token_ids": ids, "padding_mask": mask, "segment_ids": tf.zeros_like(ids)}
    states = backbone(inputs)["sequence_output"].numpy()  # (texts, tokens, width)
    differences = {}
    for activation in (bert.config.hidden_act, "gelu_pytorch_tanh"):
        for layer in bert.encoder.layer:
            layer.intermediate.intermediate_act_fn = transformers.activations.ACT2FN[activation]
        with torch.no_grad():
            output = bert(**{name: torch.tensor(values) for name, values in expected.items()})
        difference = np.abs(states - output.last_hidden_state.numpy())[mask.numpy() == 1]
        differences[activation] = float(difference.max())
    same = differences["gelu_pytorch_tanh"]
    if not same <= TOLERANCE:
        raise PresetError(
            f"not converted: hidden states differ from transformers' by {same:.2g}, allowed"
            f" {TOLERANCE:g}"
        )
    return differences


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def run(arguments: argparse.Namespace) -> None:
    """Converts, and prints what was done."""
    transformers.utils.logging.set_verbosity(transformers.utils.logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    record = convert(arguments.source.removeprefix("hf://"), arguments.out, arguments.cased)
    print(f"dropped, not BERT's: {', '.join(record['dropped_tensors']) or 'nothing'}")
    print(f"pooler: {record['pooler']}")
    print(f"casing: {'cased' if record['cased'] else 'uncased'} ({record['casing_evidence']})")
    for activation, difference in record["differences"].items():
        print(f"largest difference from transformers with {activation}: {difference:.1e}")
    setting = shlex.quote(f"model.text.preset={arguments.out}")
    print(f"written: {arguments.out}; use it with --set {setting}")


def main() -> int:
    """Parses the arguments and converts; returns the exit status."""
    parser = build_parser("convert_bert", description=__doc__)
    parser.prog = "python scripts/convert_bert.py"
    parser.add_argument("source", help="folder or Hugging Face name of a BERT")
    parser.add_argument("--out", type=Path, required=True, help="folder to create")
    casing = parser.add_mutually_exclusive_group()
    casing.add_argument("--cased", action="store_true", default=None, help="keep capital letters")
    casing.add_argument(
        "--uncased", action="store_false", dest="cased", default=None, help="fold case"
    )
    return run_command(parser, run)


if __name__ == "__main__":
    sys.exit(main())

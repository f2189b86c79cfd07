"""Turns a Hugging Face BERT into a KerasHub preset that `model.text.preset` reads.

    python scripts/convert_bert.py emilyalsentzer/Bio_ClinicalBERT --out presets/clinicalbert
    python -m eczema_tf.train --set model.text.preset=presets/clinicalbert

The source is a folder (config.json, vocab.txt, model.safetensors or pytorch_model.bin,
tokenizer_config.json if there is one) or a Hugging Face name. pytorch_model.bin files need torch:
pip install -r requirements-convert.txt; safetensors files do not.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # so that it runs from a clone, without PYTHONPATH

from eczema_tf.cli import build_parser, run_command


def main() -> int:
    """Runs the command; returns its exit status."""
    parser = build_parser("convert_bert", __doc__)
    parser.prog = "python scripts/convert_bert.py"
    parser.add_argument(
        "source", metavar="HF_DIR_OR_NAME", help="folder or Hugging Face name of a BERT"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    casing = parser.add_mutually_exclusive_group()
    casing.add_argument(
        "--cased", action="store_true", default=None, help="keep capitals, whatever the files say"
    )
    casing.add_argument(
        "--uncased",
        dest="cased",
        action="store_false",
        default=None,
        help="fold to lower case, whatever the files say",
    )
    return run_command(parser, convert)


def convert(arguments: argparse.Namespace) -> None:
    """Converts and says what was done."""
    from eczema_tf.model.convert_bert import convert_bert

    record = convert_bert(arguments.source, arguments.out, arguments.cased)
    casing = record["casing"]
    print(f"weights: {record['weights']['file']}, sha256 {record['weights']['sha256']}")
    print(
        f"dropped: {len(record['dropped_tensors'])} tensors that are not BERT's"
        f" {_shorten(record['dropped_tensors'])}"
    )
    print(f"pooler: {record['pooler']}")
    print(f"casing: {'cased' if casing['cased'] else 'uncased'} ({casing['evidence']})")
    if casing["warning"]:
        print(f"warning: casing: {casing['warning']}", file=sys.stderr)
    print(f"comparison with transformers: {_describe(record['comparison'])}")
    print(f"written: {arguments.out}; use it with --set model.text.preset={arguments.out}")


def _shorten(names: list[str]) -> str:
    return f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else ""


def _describe(comparison: dict[str, Any]) -> str:
    if not comparison["done"]:
        return f"not done: {comparison['why']}"
    return (
        f"token ids equal; hidden states differ by at most {comparison['same_gelu']:.1e} with the"
        f" same GELU (allowed {comparison['tolerance']:g}), {comparison['own_gelu']:.1e} with the"
        " model's own (KerasHub approximates GELU by tanh)"
    )


if __name__ == "__main__":
    sys.exit(main())

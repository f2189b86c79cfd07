"""The command that makes a manifest: `python -m eczema_tf.prepare synthetic|scin ... --out DIR` writes DIR/manifest.csv."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eczema_tf.cli import build_parser, run_command

EXAMPLES = """examples:
  python -m eczema_tf.prepare synthetic --n 2000 --seed 0 --out data/synthetic
  python -m eczema_tf.prepare scin --cases scin_cases.csv --labels scin_labels.csv --images photos/ --out data/scin
  python -m eczema_tf.train --set data.manifest=data/scin/manifest.csv

Each writes DIR/manifest.csv: one row a photo, or one row of text where a case has no photo. docs/data.md explains its columns; a table
of your own with these columns needs no preparing."""
SCIN_HELP = """The Skin Condition Image Network: real cases, self-reported symptoms, photos and dermatologists' votes (arXiv 2402.18545).
Download scin_cases.csv and scin_labels.csv from https://storage.googleapis.com/dx-scin-public-data/dataset/ and, if you want
the photos, dataset/images/ from the bucket gs://dx-scin-public-data."""
SYNTHETIC_HELP = """Photos drawn from known tables and complaints written from known facts, so that the best possible AUROC is known too.
Same number and seed, same bytes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return run_command(_build_parser(), lambda arguments: arguments.prepare(arguments), argv)


def _build_parser() -> argparse.ArgumentParser:
    parser = build_parser("prepare", "Makes a manifest, the one table that training and evaluation read, from a data set.", EXAMPLES)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; DIR/manifest.csv is the result")
    shared.add_argument("--overwrite", action="store_true", help="replace DIR if it is there already (only once the new one is whole)")
    shared.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the full traceback of an error")
    sources = parser.add_subparsers(title="data sets", required=True, metavar="{synthetic,scin}")
    _add_synthetic(sources, shared)
    _add_scin(sources, shared)
    return parser


def _add_synthetic(sources: argparse._SubParsersAction, shared: argparse.ArgumentParser) -> None:
    parser = sources.add_parser("synthetic", parents=[shared], help="built-in data with known truth", description=SYNTHETIC_HELP)
    parser.add_argument("--n", type=_positive, default=2000, metavar="N", help="number of cases (default: 2000)")
    parser.add_argument("--seed", type=_count, default=0, help="of all that is drawn (default: 0)")
    parser.set_defaults(prepare=_prepare_synthetic)


def _add_scin(sources: argparse._SubParsersAction, shared: argparse.ArgumentParser) -> None:
    parser = sources.add_parser(
        "scin", parents=[shared], help="real cases from the official SCIN files", description=SCIN_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--cases", type=Path, required=True, metavar="CSV", help="scin_cases.csv")
    parser.add_argument("--labels", type=Path, required=True, metavar="CSV", help="scin_labels.csv")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder with the photos; cases without one keep their text alone")
    parser.add_argument(
        "--embeddings", type=Path, metavar="NPZ", help="precomputed photo embeddings; train with data.embeddings=DIR/embeddings.npz"
    )
    parser.set_defaults(prepare=_prepare_scin)


def _prepare_synthetic(arguments: argparse.Namespace) -> None:
    from eczema_tf.data.sources.synthetic import prepare_synthetic

    prepare_synthetic(arguments.out, cases=arguments.n, seed=arguments.seed, overwrite=arguments.overwrite)
    print(f"{arguments.n} cases written to {arguments.out / 'manifest.csv'}")


def _prepare_scin(arguments: argparse.Namespace) -> None:
    from eczema_tf.data.sources.scin import prepare_scin

    summary = prepare_scin(
        arguments.out,
        cases=arguments.cases,
        labels=arguments.labels,
        images=arguments.images,
        embeddings=arguments.embeddings,
        overwrite=arguments.overwrite,
    )
    print(f"{summary.describe()}\nwritten to {summary.manifest}")


def _positive(text: str) -> int:
    number = _count(text)
    if number == 0:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or more; received {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())

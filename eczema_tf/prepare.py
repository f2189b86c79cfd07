"""The command that makes a manifest: `python -m eczema_tf.prepare DATA_SET ... --out DIR` writes DIR/manifest.csv."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eczema_tf.cli import build_parser, run_command, whole_number

MAPS = Path(__file__).parent / "data" / "sources" / "maps"
EXAMPLES = """examples:
  python -m eczema_tf.prepare synthetic --n 2000 --seed 0 --out data/synthetic
  python -m eczema_tf.prepare scin --download downloads/scin --limit 500 --out data/scin
  python -m eczema_tf.prepare scin --cases scin_cases.csv --labels scin_labels.csv --images photos/ --out data/scin
  python -m eczema_tf.prepare dermavqa --encounters encounters.csv --out data/dermavqa
  python -m eczema_tf.prepare folder dermnet/ --out data/dermnet
  python -m eczema_tf.prepare table fitzpatrick17k.csv --map fitzpatrick17k --images photos/ --out data/fitzpatrick17k
  python -m eczema_tf.train --set data.manifest=data/scin/manifest.csv

Each writes DIR/manifest.csv: one row a photo, or one row of text where a case has no photo. docs/data.md explains its columns; a table
of your own with these columns needs no preparing."""
SCIN_HELP = """The Skin Condition Image Network: real cases, self-reported symptoms, photos and dermatologists' votes (arXiv 2402.18545).

--download fetches the tables and photos from https://storage.googleapis.com/dx-scin-public-data/ into a folder that is kept; stopped
or cut off, the same command goes on where it was. Or give the files that you have: --cases, --labels and, if you want, --images."""
SYNTHETIC_HELP = """Photos drawn from known tables and complaints written from known facts, so that the best possible AUROC is known too.
Same number and seed, same bytes."""

DERMAVQA_HELP = """Real clinical questions in the askers' own words (translated), and how many of the replies name eczema (DermaVQA,
iiyi part, Yim et al., MICCAI 2024, CC BY 4.0). The label is what most of those who replied thought: a noisy one.

example:
  python -m eczema_tf.prepare dermavqa --encounters encounters.csv --images images/ --out data/dermavqa"""
FOLDER_HELP = """A folder of class folders, as copies of DermNet are:

  dermnet/train/Atopic Dermatitis Photos/x-1.jpg        or, without splits:  photos/eczema/x-1.jpg
  dermnet/test/Psoriasis pictures/y.jpg                                      photos/other/y.jpg

x-1.jpg and x-2.jpg of one class are taken for shots of one patient and stay in one split.

examples:
  python -m eczema_tf.prepare folder dermnet/ --out data/dermnet
  python -m eczema_tf.prepare folder photos/ --eczema "Hand Eczema" --eczema Dyshidrosis --captions captions.csv --out data/mine"""
TABLE_HELP = """Any table, CSV or Parquet, with a map that says how its columns become those of the manifest. Maps that come with the
program: {shipped}.
Each is a YAML file in eczema_tf/data/sources/maps/ that says where the data set is to be had and what to beware of; a map of your own
looks like these.

example:
  python -m eczema_tf.prepare table metadata.csv --map pad_ufes_20 --images photos/ --out data/pad"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return run_command(_build_parser(), _prepare, argv)


def _prepare(arguments: argparse.Namespace) -> None:
    print(arguments.prepare(arguments))
    from eczema_tf.workflows.audit import audit_prepared

    audit_prepared(arguments.out, allow_leaks=arguments.allow_leaks)


def _build_parser() -> argparse.ArgumentParser:
    parser = build_parser("prepare", examples=EXAMPLES)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write; DIR/manifest.csv is the result",
    )
    shared.add_argument(
        "--overwrite",
        action="store_true",
        help="replace DIR if it is there already (only once the new one is whole)",
    )
    shared.add_argument(
        "--allow-leaks",
        action="store_true",
        help="accept a data set whose own splits share groups, photos or texts",
    )
    shared.add_argument(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS,
        help="show the full traceback of an error",
    )
    sources = parser.add_subparsers(
        title="data sets", required=True, metavar="{synthetic,scin,dermavqa,folder,table}"
    )
    _add_synthetic(sources, shared)
    _add_scin(sources, shared)
    _add_dermavqa(sources, shared)
    _add_folder(sources, shared)
    _add_table(sources, shared)
    return parser


def _add_synthetic(sources: argparse._SubParsersAction, shared: argparse.ArgumentParser) -> None:
    parser = sources.add_parser(
        "synthetic",
        parents=[shared],
        help="built-in data with known truth",
        description=SYNTHETIC_HELP,
    )
    parser.add_argument(
        "--n",
        type=whole_number(1),
        default=2000,
        metavar="N",
        help="number of cases (default: 2000)",
    )
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, help="of all that is drawn (default: 0)"
    )
    parser.set_defaults(prepare=_prepare_synthetic)


def _add_scin(sources: argparse._SubParsersAction, shared: argparse.ArgumentParser) -> None:
    parser = sources.add_parser(
        "scin",
        parents=[shared],
        help="real cases from the official SCIN files",
        description=SCIN_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--download",
        type=Path,
        metavar="DIR",
        help="folder to download to; --cases, --labels and --images are then there",
    )
    parser.add_argument(
        "--limit",
        type=whole_number(1),
        metavar="N",
        help=(
            "download the photos of N labelled cases only, the first in the file; the others keep"
            " their text alone (default: all)"
        ),
    )
    parser.add_argument(
        "--jobs", type=whole_number(1), metavar="N", help="files to download at a time (default: 8)"
    )
    parser.add_argument(
        "--cases", type=Path, metavar="CSV", help="scin_cases.csv; needed without --download"
    )
    parser.add_argument(
        "--labels", type=Path, metavar="CSV", help="scin_labels.csv; needed without --download"
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder with the photos; cases without one keep their text alone",
    )
    parser.add_argument(
        "--embeddings",
        type=Path,
        metavar="NPZ",
        help="precomputed photo embeddings; train with data.embeddings=DIR/embeddings.npz",
    )
    parser.set_defaults(prepare=_prepare_scin, refuse=parser.error)


def _add_dermavqa(sources: argparse._SubParsersAction, shared: argparse.ArgumentParser) -> None:
    parser = sources.add_parser(
        "dermavqa",
        parents=[shared],
        help="real questions from DermaVQA",
        description=DERMAVQA_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--encounters", type=Path, required=True, metavar="CSV", help="encounters.csv"
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder with the photos; questions without one keep their text alone",
    )
    parser.set_defaults(prepare=_prepare_dermavqa)


def _add_folder(sources: argparse._SubParsersAction, shared: argparse.ArgumentParser) -> None:
    parser = sources.add_parser(
        "folder",
        parents=[shared],
        help="photos in class folders",
        description=FOLDER_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="class folders, or train, val and test with class folders in them",
    )
    parser.add_argument(
        "--captions",
        type=Path,
        metavar="CSV",
        help="columns image_path (relative to FOLDER) and text",
    )
    parser.add_argument(
        "--eczema",
        action="append",
        default=[],
        metavar="NAME",
        help=(
            "a class that is eczema, as often as need be (default: those whose name has 'eczema' or"
            " 'atopic' in it)"
        ),
    )
    parser.set_defaults(prepare=_prepare_folder)


def _add_table(sources: argparse._SubParsersAction, shared: argparse.ArgumentParser) -> None:
    shipped = ", ".join(sorted(path.stem for path in MAPS.glob("*.yaml")))
    parser = sources.add_parser(
        "table",
        parents=[shared],
        help="any table with a map of its columns",
        description=TABLE_HELP.format(shipped=shipped),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", type=Path, metavar="FILE", help="CSV or Parquet")
    parser.add_argument(
        "--map",
        required=True,
        metavar="MAP",
        help="the name of a map that comes with the program, or a YAML file",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder with the photos; rows without one keep their text alone",
    )
    parser.set_defaults(prepare=_prepare_table)


def _prepare_synthetic(arguments: argparse.Namespace) -> str:
    from eczema_tf.data.sources.synthetic import prepare_synthetic

    prepare_synthetic(
        arguments.out, cases=arguments.n, seed=arguments.seed, overwrite=arguments.overwrite
    )
    return f"{arguments.n} cases written to {arguments.out / 'manifest.csv'}"


def _prepare_scin(arguments: argparse.Namespace) -> str:
    from eczema_tf.data.sources.scin import prepare_scin

    if arguments.download:
        _download_scin(arguments)
    elif not (arguments.cases and arguments.labels):
        arguments.refuse(
            "the following arguments are required: --cases and --labels, or --download"
        )
    elif arguments.limit or arguments.jobs:
        arguments.refuse("--limit and --jobs go with --download")
    summary = prepare_scin(
        arguments.out,
        cases=arguments.cases,
        labels=arguments.labels,
        images=arguments.images,
        embeddings=arguments.embeddings,
        overwrite=arguments.overwrite,
    )
    return f"{summary.describe()}\nwritten to {summary.manifest}"


def _download_scin(arguments: argparse.Namespace) -> None:
    """Downloads, and points the options that were not given to what is there then."""
    from eczema_tf.data.sources.scin_download import download_scin

    folder, out = arguments.download.resolve(), arguments.out.resolve()
    if out == folder or out in folder.parents:
        arguments.refuse(
            f"--out must not hold the download; received --out {arguments.out} --download"
            f" {arguments.download}"
        )
    summary = download_scin(arguments.download, limit=arguments.limit, jobs=arguments.jobs or 8)
    print(summary.describe())
    summary.check_complete()
    arguments.cases = arguments.cases or summary.cases
    arguments.labels = arguments.labels or summary.labels
    arguments.images = arguments.images or summary.folder


def _prepare_dermavqa(arguments: argparse.Namespace) -> str:
    from eczema_tf.data.sources.dermavqa import prepare_dermavqa

    summary = prepare_dermavqa(
        arguments.out,
        encounters=arguments.encounters,
        images=arguments.images,
        overwrite=arguments.overwrite,
    )
    return f"{summary.describe()}\nwritten to {summary.manifest}"


def _prepare_folder(arguments: argparse.Namespace) -> str:
    from eczema_tf.data.sources.folder import prepare_folder

    summary = prepare_folder(
        arguments.out,
        folder=arguments.folder,
        captions=arguments.captions,
        eczema=arguments.eczema,
        overwrite=arguments.overwrite,
    )
    return f"{summary.describe()}\nwritten to {summary.manifest}"


def _prepare_table(arguments: argparse.Namespace) -> str:
    from eczema_tf.data.sources.table import prepare_table

    summary = prepare_table(
        arguments.out,
        table=arguments.table,
        map_path=arguments.map,
        images=arguments.images,
        overwrite=arguments.overwrite,
    )
    return f"{summary.describe()}\nwritten to {summary.manifest}"


if __name__ == "__main__":
    sys.exit(main())

"""`python -m eczema_tf.prepare DATA_SET ... --out DIR`: a data set to DIR/manifest.csv."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eczema_tf.cli import build_parser, run_command, whole_number

EXAMPLES = """examples:
  python -m eczema_tf.prepare synthetic --n 2000 --seed 0 --out data/synthetic
  python -m eczema_tf.prepare scin --download downloads/scin --limit 500 --out data/scin
  python -m eczema_tf.prepare scin --cases scin_cases.csv --labels scin_labels.csv \\
      --images photos/ --out data/scin
  python -m eczema_tf.prepare dermavqa --encounters encounters.csv --out data/dermavqa
  python -m eczema_tf.prepare folder dermnet/ --out data/dermnet
  python -m eczema_tf.prepare table fitzpatrick17k.csv --map fitzpatrick17k \\
      --images photos/ --out data/fitzpatrick17k
  python -m eczema_tf.train --set data.manifest=data/scin/manifest.csv

Each writes DIR/manifest.csv, with one row for each photo, or one row of text for a case without
photos. docs/data.md explains its columns. A table of your own with these columns needs no
preparing."""
SYNTHETIC_HELP = """\
Built-in data: photos drawn from known tables and complaints written from known facts, so that the
best possible AUROC is known, too. The same number and seed give the same bytes."""
SCIN_HELP = """\
The Skin Condition Image Network (arXiv 2402.18545): real cases with self-reported symptoms, photos
and dermatologists' votes.

--download fetches the tables and photos from gs://dx-scin-public-data into a folder that is kept;
after an interruption, the same command fetches only what is missing. It needs one more package:
pip install -r requirements-scin.txt. Or give files that you already have with --cases, --labels
and, if you like, --images."""
DERMAVQA_HELP = """\
DermaVQA, iiyi part (Yim et al., MICCAI 2024, CC BY 4.0): real clinical questions in the askers' own
words (translated), and how many of the replies name eczema. The label is what most of those who
replied thought, so it is a noisy one.

example:
  python -m eczema_tf.prepare dermavqa --encounters encounters.csv --images images/ \\
      --out data/dermavqa"""
FOLDER_HELP = """A folder of class folders, such as copies of DermNet:

  dermnet/train/Atopic Dermatitis Photos/x-1.jpg    or, without splits:  photos/eczema/x-1.jpg
  dermnet/test/Psoriasis pictures/y.jpg                                  photos/other/y.jpg

x-1.jpg and x-2.jpg in the same class are taken for photos of the same patient and stay in one
split.

examples:
  python -m eczema_tf.prepare folder dermnet/ --out data/dermnet
  python -m eczema_tf.prepare folder photos/ --eczema "Hand Eczema" --eczema Dyshidrosis \\
      --captions captions.csv --out data/mine"""
TABLE_HELP = """\
Any table, CSV or Parquet, with a map that says how its columns become those of the manifest.

Maps that come with the program: {shipped}.
Each is a YAML file in eczema_tf/data/sources/maps/ that says where to get the data set and what to
watch out for; write a map of your own after their example.

example:
  python -m eczema_tf.prepare table metadata.csv --map pad_ufes_20 --images photos/ \\
      --out data/pad"""

IMAGES_HELP = "folder with the photos; cases without one keep their text alone"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see `--help`."""
    parser = build_parser("prepare", examples=EXAMPLES)
    data_sets = parser.add_subparsers(dest="data_set", title="data sets", required=True)
    for name, (purpose, description, add_arguments) in DATA_SETS.items():
        data_set = data_sets.add_parser(
            name,
            help=purpose,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        data_set.set_defaults(refuse=data_set.error)
        add_arguments(data_set)
        data_set.add_argument(
            "--out",
            type=Path,
            required=True,
            metavar="DIR",
            help="folder to write; DIR/manifest.csv is the result",
        )
        data_set.add_argument(
            "--overwrite",
            action="store_true",
            help="replace DIR if it exists, once the new one is complete",
        )
        data_set.add_argument(
            "--allow-leaks",
            action="store_true",
            help="accept a data set whose own splits share groups, photos or texts",
        )
        data_set.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show the full traceback of an error",
        )
    return run_command(parser, _prepare, argv)


def add_synthetic_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the built-in data take."""
    parser.add_argument(
        "--n",
        dest="cases",
        type=whole_number(1),
        default=2000,
        metavar="N",
        help="number of cases (default: 2000)",
    )
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, help="of all random draws (default: 0)"
    )


def add_scin_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what SCIN takes."""
    parser.add_argument(
        "--download",
        type=Path,
        metavar="DIR",
        help="folder to download to; replaces --cases, --labels and --images",
    )
    parser.add_argument(
        "--limit",
        type=whole_number(1),
        metavar="N",
        help=(
            "download photos for the first N labelled cases only; the others keep their text alone"
            " (default: all)"
        ),
    )
    parser.add_argument(
        "--jobs",
        type=whole_number(1),
        metavar="N",
        help="files to download at the same time (default: 8)",
    )
    for name in ("cases", "labels"):
        parser.add_argument(
            f"--{name}",
            type=Path,
            metavar="CSV",
            help=f"scin_{name}.csv; required without --download",
        )
    parser.add_argument("--images", type=Path, metavar="DIR", help=IMAGES_HELP)
    parser.add_argument(
        "--embeddings",
        type=Path,
        metavar="NPZ",
        help="precomputed photo embeddings; train with data.embeddings=DIR/embeddings.npz",
    )


def add_dermavqa_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what DermaVQA takes."""
    parser.add_argument(
        "--encounters", type=Path, required=True, metavar="CSV", help="encounters.csv"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help=IMAGES_HELP)


def add_folder_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what a folder of class folders takes."""
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
        help="CSV file with the columns image_path (relative to FOLDER) and text",
    )
    parser.add_argument(
        "--eczema",
        action="append",
        default=[],
        metavar="NAME",
        help=(
            "a class that is eczema; may be given several times (default: those with 'eczema' or"
            " 'atopic' in their name)"
        ),
    )


def add_table_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what a table takes."""
    maps = Path(__file__).parent / "data" / "sources" / "maps"
    shipped = ", ".join(sorted(path.stem for path in maps.glob("*.yaml")))
    parser.description = TABLE_HELP.format(shipped=shipped)
    parser.add_argument("table", type=Path, metavar="FILE", help="CSV or Parquet")
    parser.add_argument(
        "--map",
        dest="map_path",
        required=True,
        metavar="MAP",
        help="name of a map that comes with the program, or a YAML file",
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help=IMAGES_HELP)


# name -> purpose in a few words, description, and what adds its arguments
DATA_SETS = {
    "synthetic": ("built-in data with known truth", SYNTHETIC_HELP, add_synthetic_arguments),
    "scin": ("real cases from the official SCIN files", SCIN_HELP, add_scin_arguments),
    "dermavqa": ("real questions from DermaVQA", DERMAVQA_HELP, add_dermavqa_arguments),
    "folder": ("photos in class folders", FOLDER_HELP, add_folder_arguments),
    "table": ("any table, with a map of its columns", TABLE_HELP, add_table_arguments),
}


def _prepare(arguments: argparse.Namespace) -> None:
    options = {**vars(arguments)}
    refuse = options.pop("refuse")
    options.pop("debug")
    if arguments.data_set == "scin" and arguments.download is None:
        if not (arguments.cases and arguments.labels):
            refuse("the following arguments are required: --cases and --labels, or --download")
        if arguments.limit or arguments.jobs:
            refuse("--limit and --jobs go with --download")
    elif arguments.data_set == "scin":
        folder, out = arguments.download.resolve(), arguments.out.resolve()
        if out == folder or out in folder.parents:
            refuse(
                f"--out must not hold the download; received --out {arguments.out} --download"
                f" {arguments.download}"
            )
    from eczema_tf.workflows.prepare import prepare  # here, so that --help does not wait for it

    prepare(**options)


if __name__ == "__main__":
    sys.exit(main())

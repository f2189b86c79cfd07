"""`python -m eczema_tf.prepare DATA_SET ... --out DIR`: turns a data set into DIR/manifest.csv."""

import argparse
import sys
from pathlib import Path

from eczema_tf.cli import argument, command, number, start_tensorflow, whole_number

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

Each command but the last writes DIR/manifest.csv, with one row per photo, or one row of text for a
case without photos. docs/manifest.md explains its columns. A table of your own that has these
columns needs no preparation."""
SYNTHETIC_HELP = """\
Built-in data: photos are drawn from known tables and complaints are written from known facts, so
the best possible AUROC is known, too. The same number and seed give the same bytes."""
SCIN_HELP = """\
The Skin Condition Image Network (arXiv 2402.18545): real cases with self-reported symptoms, photos
and dermatologists' votes.

--download fetches the tables and photos from gs://dx-scin-public-data into a folder, which is kept.
After an interruption, the same command fetches only what is missing. --download needs one more
package: pip install -r requirements-scin.txt

If you already have the files, give them with --cases, --labels and, optionally, --images."""
DERMAVQA_HELP = """\
DermaVQA, iiyi part (Yim et al., MICCAI 2024, CC BY 4.0): real clinical questions in the askers' own
words (translated), and how many of the replies name eczema. The label is what most of those who
replied thought, so it is noisy.

example:
  python -m eczema_tf.prepare dermavqa --encounters encounters.csv --images images/ \\
      --out data/dermavqa"""
FOLDER_HELP = """A folder with one folder per class, such as copies of DermNet:

  dermnet/train/Atopic Dermatitis Photos/x-1.jpg    or, without splits:  photos/eczema/x-1.jpg
  dermnet/test/Psoriasis pictures/y.jpg                                  photos/other/y.jpg

x-1.jpg and x-2.jpg in the same class count as photos of the same patient and stay in one split.

examples:
  python -m eczema_tf.prepare folder dermnet/ --out data/dermnet
  python -m eczema_tf.prepare folder photos/ --eczema "Hand Eczema" --eczema Dyshidrosis \\
      --captions captions.csv --out data/mine"""
LABEL_RULES = ("share", "any", "majority", "against-no-dermatitis")  # of `sources.scin`
MAPS = sorted(path.stem for path in Path(__file__).parent.glob("data/sources/maps/*.yaml"))
TABLE_HELP = f"""\
Any table (CSV, Parquet or JSON lines), with a map that says how its columns become the columns of
the manifest.

Maps that ship with the package: {", ".join(MAPS)}.
Each is a YAML file in eczema_tf/data/sources/maps/, which also says where to get the data set and
what to watch out for. Follow their example to write a map of your own.

example:
  python -m eczema_tf.prepare table metadata.csv --map pad_ufes_20 --positive BCC,SCC,MEL \\
      --images photos/ --out data/pad_ufes_20"""

IMAGES = argument(
    "--images",
    type=Path,
    metavar="DIR",
    help="folder with the photos; cases without a photo keep only their text",
)
SYNTHETIC = (
    number("--n", 2000, "number of cases", dest="cases"),
    number("--seed", 0, "seed of all random draws", 0),
)
SCIN = (
    argument(
        "--download",
        type=Path,
        metavar="DIR",
        help="folder to download to; used in place of --cases, --labels and --images where they are"
        " not given",
    ),
    argument(
        "--limit",
        type=whole_number(1),
        metavar="N",
        help="download the photos of the first N labelled cases only; the other cases keep only"
        " their text (default: all)",
    ),
    argument(
        "--jobs",
        type=whole_number(1),
        metavar="N",
        help="files to download at the same time (default: 8)",
    ),
    argument(
        "--cases", type=Path, metavar="CSV", help="scin_cases.csv; required without --download"
    ),
    argument(
        "--labels", type=Path, metavar="CSV", help="scin_labels.csv; required without --download"
    ),
    IMAGES,
    argument(
        "--label",
        choices=LABEL_RULES,
        default="share",
        help="rule for the label. share (default): the share of the vote for eczema"
        " (data.label_threshold then says what counts as eczema); any: whether any of the vote is"
        " for eczema; majority: whether most of it is; against-no-dermatitis: cases with most of it"
        " for eczema against cases without any dermatitis. Recorded in dataset.json, reports and"
        " model card",
    ),
    argument(
        "--embeddings",
        type=Path,
        metavar="NPZ",
        help="precomputed photo embeddings; train on them with data.embeddings=DIR/embeddings.npz",
    ),
)
DERMAVQA = (
    argument(
        "--encounters",
        type=Path,
        required=True,
        metavar="FILE",
        help="encounters.csv, or train.json as the authors publish it",
    ),
    IMAGES,
)
FOLDER = (
    argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="a folder that contains class folders, or the folders train, val and test with class"
        " folders in them, or Hugging Face's Parquet files (train-00000-of-00001.parquet)",
    ),
    argument(
        "--captions",
        type=Path,
        metavar="CSV",
        help="CSV file with the columns image_path (relative to FOLDER) and text",
    ),
    argument(
        "--eczema",
        action="append",
        default=[],
        metavar="NAME",
        help="a class that counts as eczema; may be given several times (default: the classes with"
        " 'eczema' or 'atopic' in their name)",
    ),
    argument(
        "--group-by",
        default="name",
        metavar="RULE",
        help="how to tell that photos are of one patient: by 'name' (the file name without the"
        " number at its end), by 'photo' (not known: each photo is a group of its own), or by a"
        " regular expression whose group finds the patient in the photo's path, such as"
        " '(p[0-9]+)_' (default: %(default)s)",
    ),
)


def _read_values(text: str) -> list[str]:
    """Reads `BCC,SCC` (an argument's `type`)."""
    values = [value.strip() for value in text.split(",") if value.strip()]
    if not values:
        raise argparse.ArgumentTypeError(f"must name at least one value; received {text!r}")
    return values


TABLE = (
    argument("table", type=Path, metavar="FILE", help="CSV, Parquet or JSON lines (.jsonl)"),
    argument(
        "--map",
        dest="map_path",
        required=True,
        metavar="MAP",
        help="name of a map that ships with the package, or a YAML file",
    ),
    argument(
        "--positive",
        type=_read_values,
        default=(),
        metavar="VALUE,...",
        help="diagnoses to tell from all others instead of eczema; reports say that this is a"
        " stand-in task",
    ),
    IMAGES,
)
# name -> purpose in a few words, description, and arguments
DATA_SETS = {
    "synthetic": ("built-in data with known truth", SYNTHETIC_HELP, SYNTHETIC),
    "scin": ("real cases from the official SCIN files", SCIN_HELP, SCIN),
    "dermavqa": ("real questions from DermaVQA", DERMAVQA_HELP, DERMAVQA),
    "folder": ("photos in class folders", FOLDER_HELP, FOLDER),
    "table": ("any table, with a map of its columns", TABLE_HELP, TABLE),
}
COMMON = (
    argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write; DIR/manifest.csv is the result",
    ),
    argument(
        "--overwrite",
        action="store_true",
        help="replace DIR if it exists, once the new one is complete",
    ),
    argument(
        "--allow-leaks",
        action="store_true",
        help="accept a data set whose own splits share groups, photos or texts",
    ),
    argument(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS,
        help="show the full traceback of an error",
    ),
)


def _take_data_sets(parser: argparse.ArgumentParser) -> None:
    data_sets = parser.add_subparsers(dest="data_set", title="data sets", required=True)
    for name, (purpose, description, arguments) in DATA_SETS.items():
        data_set = data_sets.add_parser(
            name,
            help=purpose,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        data_set.set_defaults(refuse=data_set.error)
        for add_to in (*arguments, *COMMON):
            add_to(data_set)


def _prepare(arguments: argparse.Namespace) -> None:
    options = {**vars(arguments)}
    refuse = options.pop("refuse")
    options.pop("debug")
    if arguments.data_set == "scin" and arguments.download is None:
        if not (arguments.cases and arguments.labels):
            refuse("the following arguments are required: --cases and --labels, or --download")
        if arguments.limit or arguments.jobs:
            refuse("--limit and --jobs need --download")
    elif arguments.data_set == "scin":
        folder, out = arguments.download.resolve(), arguments.out.resolve()
        if out == folder or out in folder.parents:
            refuse(
                f"--out must not contain the download; received --out {arguments.out} --download"
                f" {arguments.download}"
            )
    start_tensorflow()
    from eczema_tf.workflows.prepare import prepare  # --help does not wait for it

    prepare(**options)


main = command("prepare", _prepare, _take_data_sets, examples=EXAMPLES)

if __name__ == "__main__":
    sys.exit(main())

"""`python -m eczema_tf.score`: a manifest of any size through an exported model on Spark, to Parquet."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eczema_tf.cli import build_parser, run_command, whole_number
from eczema_tf.schema import NOTICE

EXAMPLES = """examples:
  python -m eczema_tf.score --model saved_models/eczema --manifest data/clinic/manifest.csv --out scores
  python -m eczema_tf.score ... --out scores                            # the same command again goes on where it was stopped
  python -m eczema_tf.score ... --master spark://head:7077 --chunk-rows 100000
  python -c "import pandas; print(pandas.read_parquet('scores'))"

One row comes out for each that goes in, in the same order: example_id, case_id (if the manifest has it), probabilities (null where the
photo or text was not used), image_used, text_used, and status: ok, or what was wrong with the row. _job.json counts them.

On a cluster, the folder of the model and the folder of the manifest, with its photos, must be found under the same path by all executors
(a shared folder), and their Python must have this package and what it needs; PYSPARK_PYTHON names it. --out is written by this
process alone. Further settings of Spark (memory, cores, authentication) go into spark-defaults.conf or PYSPARK_SUBMIT_ARGS."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see `--help`."""
    parser = build_parser("score", examples=EXAMPLES)
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        help="saved_models/eczema (newest version) or one version's folder",
    )
    parser.add_argument(
        "--manifest",
        type=Path,
        required=True,
        help="CSV or Parquet, as for train; labels and splits are not looked at",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for Parquet files and _job.json"
    )
    parser.add_argument(
        "--master",
        default="local[2]",
        help="of Spark: local[N], spark://HOST:PORT, yarn, k8s://... (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size",
        type=whole_number(1),
        default=16,
        metavar="N",
        help="rows through the network at once (default: 16)",
    )
    parser.add_argument(
        "--chunk-rows", type=whole_number(1), default=8192, metavar="N", help=CHUNK_ROWS
    )
    parser.add_argument("--threads", type=whole_number(1), default=1, metavar="N", help=THREADS)
    parser.add_argument(
        "--keep-text", action="store_true", help="write the texts out beside the answers"
    )
    return run_command(parser, _score, argv)


CHUNK_ROWS = (
    "rows committed at once, as one file; on a cluster some thousands for each core (default: 8192)"
)
THREADS = (
    "of TensorFlow in each Python worker, of which there is one for each core of the master"
    " (default: 1)"
)


def _score(arguments: argparse.Namespace) -> None:
    from eczema_tf.batch.scoring import (
        Settings,
        score_manifest,
    )  # here, so that --help does not wait for it

    settings = Settings(*(getattr(arguments, name) for name in Settings._fields))
    summary, was_finished = score_manifest(
        arguments.model, arguments.manifest, arguments.out, settings
    )
    print(
        f"{summary['rows']} rows {'were scored already' if was_finished else 'scored'}:"
        f" {arguments.out}"
    )
    for status, count in summary["statuses"].items():
        print(f"{count:>10}  {status}")
    if summary["rows_retried"]:
        print(
            f"{summary['rows_retried']:>10}  scored again, because a process that scored them died"
        )
    print(NOTICE)


if __name__ == "__main__":
    sys.exit(main())

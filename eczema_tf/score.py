"""`python -m eczema_tf.score`: a manifest of any size through an exported model on Spark."""

import argparse
import sys
from pathlib import Path

from eczema_tf.cli import MODEL, argument, command, number, start_tensorflow

EXAMPLES = """examples:
  python -m eczema_tf.score --model saved_models/eczema --manifest clinic/manifest.csv --out scores
  python -m eczema_tf.score ... --out scores      # the same command again resumes a stopped job
  python -m eczema_tf.score ... --master spark://head:7077 --chunk-rows 100000
  python -m eczema_tf.score ... --cases cases.parquet     # and one answer for all photos of a case
  python -c "import pandas; print(pandas.read_parquet('scores'))"

One row comes out for each that goes in, in the same order: example_id, case_id (if the manifest has
it), probabilities (null where the photo or text was not used), image_used, text_used, known_image,
known_text, decision, reason, and status: ok, or what is to be said of the row. _job.json counts
them.

On a cluster, all executors must find the folder of the model and the folder of the manifest, with
its photos, under the same path (a shared folder), and their Python must have this package and what
it needs; PYSPARK_PYTHON names it. --out is written by this process alone. Further settings of Spark
(memory, cores, authentication) go into spark-defaults.conf or PYSPARK_SUBMIT_ARGS."""


def _score(arguments: argparse.Namespace) -> None:
    start_tensorflow()
    from eczema_tf.workflows.score import score

    score(**vars(arguments))


main = command(
    "score",
    _score,
    MODEL,
    argument(
        "--manifest",
        type=Path,
        required=True,
        metavar="FILE",
        help="CSV, Parquet or JSON lines, as for train; labels and splits are ignored",
    ),
    argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the results: Parquet files and _job.json",
    ),
    argument(
        "--master",
        default="local[2]",
        help="Spark's master: local[N], spark://HOST:PORT, yarn, k8s://... (default: %(default)s)",
    ),
    number("--batch-size", 16, "rows per batch of the model"),
    number("--chunk-rows", 8192, "rows of one file; on a cluster a few thousand for each core"),
    number("--threads", 1, "TensorFlow's threads in each Python worker, one worker for each core"),
    argument("--keep-text", action="store_true", help="write the texts beside the answers"),
    argument(
        "--cases",
        type=Path,
        metavar="FILE",
        help="also write an answer to each case, of all its photos: a Parquet file",
    ),
    examples=EXAMPLES,
)

if __name__ == "__main__":
    sys.exit(main())

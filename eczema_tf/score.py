"""`python -m eczema_tf.score`: scores a manifest of any size with an exported model on Spark."""

import argparse
import sys
from pathlib import Path

from eczema_tf.cli import MODEL, argument, command, number, start_tensorflow

EXAMPLES = """examples:
  python -m eczema_tf.score --model saved_models/eczema --manifest clinic/manifest.csv --out scores
  python -m eczema_tf.score ... --out scores      # the same command again resumes a stopped job
  python -m eczema_tf.score ... --master spark://head:7077 --chunk-rows 100000
  python -m eczema_tf.score ... --cases cases.parquet     # also one answer per case
  python -c "import pandas; print(pandas.read_parquet('scores'))"

The output has one row for each input row, in the same order, with these columns:

  example_id, case_id    case_id only if the manifest has it
  decision, reason
  probabilities          null where the photo or text was not used
  image_used, text_used, known_image, known_text
  status                 ok, or a remark on the row; _job.json counts the rows by status

On a cluster, all executors must find the model's folder and the manifest's folder, with its photos,
under the same paths (in a shared folder). Their Python, which PYSPARK_PYTHON names, must have this
package and its requirements. Only this process writes to --out. Further Spark settings (memory,
cores, authentication) go into spark-defaults.conf or PYSPARK_SUBMIT_ARGS."""


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
    number("--chunk-rows", 8192, "rows per output file; on a cluster, a few thousand per core"),
    number("--threads", 1, "TensorFlow's threads in each Python worker; one worker runs per core"),
    argument("--keep-text", action="store_true", help="write the texts along with the answers"),
    argument(
        "--cases",
        type=Path,
        metavar="FILE",
        help="also write one answer per case, from all its photos, to this Parquet file",
    ),
    examples=EXAMPLES,
)

if __name__ == "__main__":
    sys.exit(main())

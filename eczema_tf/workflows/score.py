"""A manifest of any size through an exported model on Spark: what `score` runs and prints."""

from pathlib import Path

from eczema_tf.batch.scoring import Settings, score_manifest
from eczema_tf.schema import NOTICE


def score(
    model: Path,
    manifest: Path,
    out: Path,
    *,
    master: str,
    batch_size: int,
    chunk_rows: int,
    threads: int,
    keep_text: bool,
    debug: bool,
) -> None:
    """Scores what is missing in `out`, and prints how many rows have which status.

    Args:
        model: Folder of an export.
        manifest: CSV or Parquet.
        out: Folder for Parquet files and `_job.json`.
        master: As in `Settings`, and so are the others.
        batch_size: Rows through the network at once.
        chunk_rows: Rows of one Parquet file.
        threads: Of TensorFlow in each Python worker.
        keep_text: Whether texts are written out.
        debug: Whether Spark logs.

    Raises:
        EczemaError: As `score_manifest` raises it.
    """
    settings = Settings(master, batch_size, chunk_rows, threads, keep_text, debug)
    summary, was_finished = score_manifest(model, manifest, out, settings)
    print(f"{summary.rows} rows {'were scored already' if was_finished else 'scored'}: {out}")
    for status, count in summary.statuses.items():
        print(f"{count:>10}  {status}")
    if summary.rows_retried:
        print(f"{summary.rows_retried:>10}  scored again, because a process that scored them died")
    print(NOTICE)

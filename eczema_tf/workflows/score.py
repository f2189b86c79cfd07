"""Scores a manifest of any size with an exported model on Spark, to Parquet: what `score` runs.

The driver reads the manifest in chunks; one Spark job scores each chunk, which is committed as one
file.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from eczema_tf.batch.cases import check_cases_file, write_cases
from eczema_tf.batch.job import Job, JobSummary, open_job
from eczema_tf.batch.spark import build_udf, check_spark, open_session, score_chunk, tabulate_chunk
from eczema_tf.data.clinical.lines import note_absent
from eczema_tf.data.manifest.stream import Row, stream_rows, survey_manifest
from eczema_tf.data.progress import track
from eczema_tf.serving.exported import ExportMetadata, find_version


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
    cases: Path | None,
    debug: bool,
) -> None:
    """Scores every row of a manifest, or those that a stopped job left, and prints the counts.

    Args:
        model: Folder of an export: a version's, or that of all versions (the newest is taken). Like
            the manifest's folder with the photos, all executors must find it under the same path.
        manifest: CSV, Parquet or JSON lines.
        out: Folder for the Parquet files and `_job.json`.
        master: Spark's master, as Spark names it.
        batch_size: Rows that go through the network at once.
        chunk_rows: Rows of one Parquet file, which is committed when all of them are scored.
        threads: TensorFlow's threads in each Python worker; Spark runs one worker per core of its
            master.
        keep_text: Whether texts are written along with the answers.
        cases: Parquet file for one answer per case; None for none.
        debug: Whether Spark logs.

    Raises:
        DataError: If the manifest as a whole cannot be used, or an id is empty or repeated. A bad
            row is not an error: its status says what is wrong.
        EczemaError: If there is no model, Spark or Java, or `out` contains something else.
        RunError: If Spark fails, or the rows that came out are not those that went in.
    """
    version = find_version(model).resolve()
    # first: a folder that is not one of our exports fails before Spark starts
    said = ExportMetadata.read(version).said
    survey, fields = survey_manifest(manifest), said.clinical or ()
    note_absent(fields, survey.columns, manifest.name)
    if cases:
        check_cases_file(cases, manifest, survey, out)
    open_here = partial(open_job, out, version, manifest, survey, notice=said.notice)
    job = open_here(chunk_rows=chunk_rows, keep_text=keep_text)
    tabulate = partial(
        tabulate_chunk, has_cases=survey.has_cases, keep_text=keep_text, notice=said.notice
    )
    summary, done = job.find_summary(), "were already scored"
    if summary is None:
        rows_retried, done = 0, "scored"
        if job.find_missing():
            check_spark()
            folder = manifest.parent.resolve()
            with open_session(master, debug=debug) as spark:
                udf = build_udf(version, folder, threads=threads, batch_size=batch_size)
                ask = partial(score_chunk, spark, udf)
                rows_retried = _score_missing(job, stream_rows(manifest, fields), ask, tabulate)
        summary = job.finish((row.example_id for row in stream_rows(manifest)), rows_retried)
    _print_counts(summary, f"{done}: {out}")
    if cases:
        print(f"{write_cases(job, cases, said.undecided)} cases: {cases}")
    print(said.notice)


def _score_missing(job: Job, rows: Iterator[Row], ask: Callable, tabulate: Callable) -> int:
    """Scores and commits the chunks that are missing; returns how many rows were scored again."""
    missing, again = frozenset(job.find_missing()), 0
    with track(None, "rows", job.facts.manifest.rows, slow=True) as bar:
        for number in range(len(job.parts)):
            chunk = list(islice(rows, job.facts.chunk_rows))
            if number in missing:
                answers = ask(chunk)
                again += int(np.count_nonzero(answers["attempt"].to_numpy()))
                job.commit(number, tabulate(chunk, answers))
            bar.update(len(chunk))
    return again


def _print_counts(summary: JobSummary, done: str) -> None:
    print(f"{summary.rows} rows {done}")
    for status, count in summary.statuses.items():
        print(f"{count:>10}  {status}")
    if summary.rows_retried:
        print(f"{summary.rows_retried:>10}  scored again because a process that scored them died")

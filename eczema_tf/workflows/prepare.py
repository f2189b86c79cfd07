"""Prepares a data set: downloads it if asked to, writes its manifest folder and audits that."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from eczema_tf.cli import say
from eczema_tf.data.sources.dermavqa import prepare_dermavqa
from eczema_tf.data.sources.folder import prepare_folder
from eczema_tf.data.sources.scin import prepare_scin
from eczema_tf.data.sources.source import Summary
from eczema_tf.data.sources.synthetic import prepare_synthetic
from eczema_tf.data.sources.table import prepare_table
from eczema_tf.errors import DataError, EczemaError
from eczema_tf.workflows.audit import audit_prepared


def prepare(
    data_set: str, out: Path, *, overwrite: bool, allow_leaks: bool, **options: object
) -> None:
    """Writes the manifest folder of a data set, summarises it, and audits it.

    Args:
        data_set: One of `DATA_SETS`.
        out: The folder.
        overwrite: Whether a folder that is already there may be replaced.
        allow_leaks: Whether the data set's own splits may share groups, photos or texts.
        **options: Options of the data set's function in `DATA_SETS`.

    Raises:
        EczemaError: If the data set is wrong, or the folder cannot be written.
        DataError: If the folder was written, but training would refuse it.
    """
    summary = DATA_SETS[data_set](out, overwrite=overwrite, **options)
    print(f"{summary.description}\nwritten to {summary.manifest}")
    try:
        audit_prepared(out, allow_leaks=allow_leaks)
    except DataError:
        say(
            f"note: {out} was written, but training would refuse it: fix what the error names, and"
            " prepare it again with --overwrite"
        )
        raise


def prepare_scin_files(
    out: Path,
    *,
    download: Path | None,
    limit: int | None,
    jobs: int | None,
    cases: Path | None,
    labels: Path | None,
    images: Path | None,
    **options: Any,
) -> Summary:
    """Downloads SCIN if `download` says where to; files that are given take precedence.

    Args:
        out: The folder to write.
        download: The folder to download to; None where `cases` and `labels` are given.
        limit: As in `download_scin`.
        jobs: As in `download_scin`; None for its default.
        cases: As in `prepare_scin`, like all that follow.
        labels: The dermatologists' votes.
        images: A folder with photos.
        **options: Further options.
    """
    if download is not None:
        try:
            from eczema_tf.data.sources.scin_download import CASES_PATH, LABELS_PATH, download_scin
        except ImportError as error:
            raise EczemaError(
                "--download needs google-cloud-storage: pip install -r requirements-scin.txt"
            ) from error
        print(download_scin(download, limit=limit, jobs=jobs or 8).describe())
        cases, labels = cases or download / CASES_PATH, labels or download / LABELS_PATH
        images = images or download
    if cases is None or labels is None:
        raise ValueError("cases and labels are needed without a download")
    return prepare_scin(out, cases=cases, labels=labels, images=images, **options)


DATA_SETS: dict[str, Callable[..., Summary]] = {
    "synthetic": prepare_synthetic,
    "scin": prepare_scin_files,
    "dermavqa": prepare_dermavqa,
    "folder": prepare_folder,
    "table": prepare_table,
}

"""Downloads the SCIN files from their public bucket, under their official paths.

Writes `dataset/scin_cases.csv`, `dataset/scin_labels.csv` and `dataset/images/*.png` into a folder,
for `scin.prepare_scin` to read; and, if the bucket lacks something, `missing.csv` (path, reason).
Running it again fetches what is missing or differs from the bucket, and nothing else. This module
needs google-cloud-storage (`requirements-scin.txt`), which also retries what may be temporary.
"""

import base64
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage import Bucket, Client
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY
from google_crc32c import Checksum
from requests import RequestException

from eczema_tf.data.progress import track
from eczema_tf.data.sources.scin import PHOTO_COLUMNS, VOTE
from eczema_tf.data.sources.source import read_table
from eczema_tf.errors import DataError, EczemaError
from eczema_tf.files import replacing_file, write_csv

BUCKET = "dx-scin-public-data"  # https://github.com/google-research-datasets/scin
CASES_PATH = "dataset/scin_cases.csv"
LABELS_PATH = "dataset/scin_labels.csv"
# all others are refused: a table must not decide where to write
PHOTO_PATH = re.compile(r"dataset/images/[A-Za-z0-9_-]+\.(png|jpe?g)")
CORRUPT = "came with a wrong checksum; run the same command again"
RETRY = DEFAULT_RETRY.with_timeout(120)  # seconds to retry what may pass, at growing intervals


class Download(NamedTuple):
    """What became of the files.

    Attributes:
        folder: Where they are.
        wanted: The two tables and the photos of the cases asked for.
        downloaded: In this run.
        bytes: Size of the files downloaded.
        missing: Path -> why the bucket does not provide it.
    """

    folder: Path
    wanted: int
    downloaded: int
    bytes: int
    missing: dict[str, str]

    def describe(self) -> str:
        """Returns the counts as one line for people."""
        before = self.wanted - self.downloaded - len(self.missing)
        where = f" ({self.folder / 'missing.csv'} says why)" if self.missing else ""
        return (
            f"{self.wanted} files wanted: {before} were already there, {self.downloaded} downloaded"
            f" ({self.bytes / 1e6:.1f} MB), {len(self.missing)} missing{where}"
        )


# what became of a file: bytes fetched, 0 if it was already there; or why the bucket lacks it
Fetched = int | str


def download_scin(folder: Path | str, *, limit: int | None = None, jobs: int = 8) -> Download:
    """Downloads the two tables and the photos of the labelled cases, if they are not here yet.

    Args:
        folder: Where everything goes.
        limit: How many labelled cases to fetch photos of, the first in the order of the cases file;
            default all. Cases without a label are skipped: `prepare_scin` leaves them out.
        jobs: How many files to fetch at a time.

    Raises:
        DataError: If the bucket lacks a table, or a table is not SCIN's.
        EczemaError: If the bucket cannot be reached, or the disk is full or refuses to write.
            Running it again continues from there.
    """
    folder = Path(folder)
    with Client.create_anonymous_client() as client:
        bucket = client.bucket(BUCKET)
        tables = _fetch_all(bucket, folder, [CASES_PATH, LABELS_PATH], jobs=2)
        for path, fetched in tables.items():
            if isinstance(fetched, str):
                raise DataError(f"gs://{BUCKET}/{path}: cannot be downloaded: {fetched}")
        photos = list_photos(folder / CASES_PATH, folder / LABELS_PATH, limit)
        files = tables | _fetch_all(bucket, folder, photos, jobs=jobs)
    missing = {path: fetched for path, fetched in files.items() if isinstance(fetched, str)}
    if missing:
        reasons = pd.DataFrame(sorted(missing.items()), columns=["path", "reason"])
        write_csv(folder / "missing.csv", reasons)
    else:
        (folder / "missing.csv").unlink(missing_ok=True)
    sizes = [fetched for fetched in files.values() if isinstance(fetched, int) and fetched]
    return Download(folder, len(files), len(sizes), sum(sizes), missing)


def list_photos(cases: Path, labels: Path, limit: int | None = None) -> list[str]:
    """Lists the photos of the labelled cases, each once, in the order of the cases file.

    Args:
        cases: `scin_cases.csv`.
        labels: `scin_labels.csv`.
        limit: How many labelled cases; None for all.

    Raises:
        DataError: If a file cannot be read or lacks columns.
    """
    votes = read_table(labels, ("case_id", VOTE))
    labelled = votes.loc[~votes[VOTE].isin(("", "{}")), "case_id"]
    table = read_table(cases, ("case_id", *PHOTO_COLUMNS))
    photos = table.loc[table["case_id"].isin(labelled), [*PHOTO_COLUMNS]].head(limit)
    return list(dict.fromkeys(path for path in photos.to_numpy().ravel() if path))


def _fetch_all(
    bucket: Bucket, folder: Path, paths: Sequence[str], *, jobs: int
) -> dict[str, Fetched]:
    """Fetches files in parallel; an error that concerns all (no network, a full disk) ends it."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(_fetch_file, bucket, folder, path): path for path in paths}
        done = track(as_completed(futures), "files", len(paths), slow=True)
        try:
            return {futures[future]: future.result() for future in done}
        except (GoogleAPIError, GoogleAuthError, RequestException) as error:
            raise EczemaError(
                f"gs://{BUCKET}: cannot be reached ({type(error).__name__}); check the network and"
                " run the same command again: it resumes"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _fetch_file(bucket: Bucket, folder: Path, path: str) -> Fetched:
    """Fetches a file, whole or not at all, unless the local copy is up to date."""
    if path not in (CASES_PATH, LABELS_PATH) and not PHOTO_PATH.fullmatch(path):
        return "refused: allowed: dataset/images/<letters, digits, - and _>.png"
    blob, target = bucket.blob(path), folder / path
    try:
        if target.is_file():
            blob.reload(retry=RETRY)
            if _compute_crc32c(target.read_bytes()) == blob.crc32c:
                return 0
        content = blob.download_as_bytes(retry=RETRY)
    except (NotFound, Forbidden) as error:
        return f"{error.code:d} {HTTPStatus(error.code).phrase}"
    except DataCorruption:
        return CORRUPT
    # The client does not check a download that was interrupted and came in two parts. The checksum
    # of a file that is stored compressed is that of its compressed form.
    if blob.content_encoding != "gzip" and _compute_crc32c(content) != blob.crc32c:
        return CORRUPT
    with replacing_file(target) as aside:
        aside.write_bytes(content)
    return len(content)


def _compute_crc32c(content: bytes) -> str:
    """Computes Google's checksum, in base64 as the bucket gives it."""
    return base64.b64encode(Checksum(content).digest()).decode()

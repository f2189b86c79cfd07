"""The SCIN files from their official bucket, onto the disk under their official paths.

In goes a folder. Out come `dataset/scin_cases.csv`, `dataset/scin_labels.csv` and
`dataset/images/*.png` below it, for `scin.prepare_scin` to read; `download.csv` (what is here:
path, bytes, MD5); and, if something could not be had, `missing.csv` (path, reason). Running it
again fetches what is missing and nothing else.
"""

import contextlib
import fcntl
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import requests
from tqdm import tqdm

from eczema_tf.data.sources.downloads import (
    PHOTO,
    USUAL,
    FetchedFile,
    Kind,
    Patience,
    Unavailable,
    compute_md5,
    fetch_file,
    open_session,
    writing,
)
from eczema_tf.data.sources.scin import PHOTO_COLUMNS
from eczema_tf.errors import DataError, EczemaError
from eczema_tf.files import write_csv, write_text

# https://github.com/google-research-datasets/scin
OFFICIAL_URL = "https://storage.googleapis.com/dx-scin-public-data/"
CASES_PATH = "dataset/scin_cases.csv"
LABELS_PATH = "dataset/scin_labels.csv"
TABLE = Kind("a CSV file that begins with case_id", (b"case_id", b"\xef\xbb\xbfcase_id"))
PHOTO_PATH = re.compile(
    r"dataset/images/[A-Za-z0-9_-]+\.(png|jpe?g)"
)  # all others are refused: a table must not say where to write
LEDGER_LINE = re.compile(r"^([^,\n]+),(\d+),([0-9a-f]{32})$", re.MULTILINE)
NO_VOTE = ("", "{}")
GIVE_UP_AFTER = (
    20  # files in a row that failed for no lasting reason: the network is gone, not the files
)


@dataclass(frozen=True)
class DownloadSummary:
    """What became of the files.

    Attributes:
        folder: Where they are.
        wanted: The two tables and the photos of the cases asked for.
        already_there: Whole before this run.
        downloaded: In this run.
        missing: Could not be had; `missing.csv` says why.
        bytes: Of the files downloaded.
    """

    folder: Path
    wanted: int
    already_there: int
    downloaded: int
    missing: int
    bytes: int

    @property
    def cases(self) -> Path:
        """The table of cases."""
        return self.folder / CASES_PATH

    @property
    def labels(self) -> Path:
        """The table of the dermatologists' votes."""
        return self.folder / LABELS_PATH

    def check_complete(self) -> None:
        """Raises a DataError that tells how to go on if files are missing."""
        if self.missing:
            raise DataError(
                f"{self.missing} of {self.wanted} files could not be had,"
                f" {self.folder / 'missing.csv'} says why; run the same command again: it resumes;"
                f" or go without them: --cases {self.cases} --labels {self.labels} --images"
                f" {self.folder}"
            )

    def describe(self) -> str:
        """Returns the counts as one line for people."""
        return (
            f"{self.wanted} files wanted: {self.already_there} were there, {self.downloaded}"
            f" downloaded ({self.bytes / 1e6:.1f} MB), {self.missing} missing"
        )


def download_scin(
    folder: Path | str,
    *,
    limit: int | None = None,
    base_url: str = OFFICIAL_URL,
    jobs: int = 8,
    patience: Patience = USUAL,
    progress: bool = True,
) -> DownloadSummary:
    """Downloads the two tables and the photos of the labelled cases; goes on where an earlier run stopped.

    Args:
        folder: Where everything goes.
        limit: Photos of so many labelled cases only, the first in the order of the cases file;
            default all. Cases without a label are passed over: `prepare_scin` leaves them out.
        base_url: Where `dataset/` is.
        jobs: Files to fetch at a time.
        patience: How long to try for each.
        progress: Whether to show a bar (on a terminal).

    Returns:
        The counts. Where `missing` is not 0, running it again may help.

    Raises:
        DataError: If a table cannot be had or is not SCIN's.
        EczemaError: If the disk is full or otherwise refuses, or another download is running in the
            folder.
    """
    folder, base_url = Path(folder), base_url.rstrip("/") + "/"
    with (
        open_session(base_url, connections=max(2, jobs)) as session,
        _locking(folder),
        _Ledger(folder) as ledger,
    ):
        download = _Download(session, base_url, ledger, patience)
        download.fetch_all([CASES_PATH, LABELS_PATH], jobs=2, progress=False)
        for path, reason in download.missing.items():
            raise DataError(
                f"{base_url}{path}: cannot be had: {reason}; check the network and run the same"
                " command again: it resumes"
            )
        download.fetch_all(
            list_photos(folder / CASES_PATH, folder / LABELS_PATH, limit),
            jobs=jobs,
            progress=progress,
        )
        _write_missing(folder / "missing.csv", download.missing)
        return download.summarize()


def list_photos(cases: Path, labels: Path, limit: int | None = None) -> list[str]:
    """Lists the photos of the labelled cases, each once, in the order of the cases file.

    Args:
        cases: `scin_cases.csv`.
        labels: `scin_labels.csv`.
        limit: So many labelled cases only.

    Raises:
        DataError: If a file cannot be read or lacks columns.
    """
    votes = _read_columns(labels, ("case_id", "weighted_skin_condition_label"))
    labelled = set(votes.loc[~votes["weighted_skin_condition_label"].isin(NO_VOTE), "case_id"])
    table = _read_columns(cases, ("case_id", *PHOTO_COLUMNS))
    photos = table.loc[table["case_id"].isin(labelled), [*PHOTO_COLUMNS]].head(limit)
    return list(dict.fromkeys(path for path in photos.to_numpy().ravel() if path))


def _read_columns(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        return pd.read_csv(
            path, dtype=str, keep_default_na=False, encoding="utf-8-sig", usecols=[*columns]
        )
    except ValueError as error:  # not UTF-8, not CSV, columns are missing
        raise DataError(
            f"{path}: is not the official SCIN file: {' '.join(str(error).split())}"
        ) from error


@dataclass
class _Download:
    """One run: what is asked, through what, and what came of it."""

    session: requests.Session
    base_url: str
    ledger: "_Ledger"
    patience: Patience
    fetched: dict[str, FetchedFile] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def fetch_all(self, paths: list[str], *, jobs: int, progress: bool) -> None:
        """Fetches files side by side. What concerns them all (a full disk, Ctrl-C, a network that is gone) ends it at once."""
        failed_in_a_row = 0
        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(self._fetch, path) for path in paths]
            try:
                for future in tqdm(
                    as_completed(futures),
                    "files",
                    len(paths),
                    disable=None if progress else True,
                    mininterval=1,
                ):
                    failed_in_a_row = failed_in_a_row + 1 if future.result() else 0
                    if failed_in_a_row >= GIVE_UP_AFTER:
                        self.stop.set()
            except BaseException:
                self.stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _fetch(self, path: str) -> bool:
        """Returns whether it failed for a reason that may pass."""
        if path not in (CASES_PATH, LABELS_PATH) and not PHOTO_PATH.fullmatch(path):
            self.missing[path] = "refused: allowed: dataset/images/<letters, digits, - and _>.png"
            return False
        fetched = self.ledger.find_whole(path)
        try:
            self.fetched[path] = fetched or self._fetch_anew(path)
        except Unavailable as error:
            self.missing[path] = str(error)
            return not error.lasting
        except BaseException:
            # here, not in `fetch_all`: this thread takes up the next file before that one wakes
            self.stop.set()
            raise
        return False

    def _fetch_anew(self, path: str) -> FetchedFile:
        kind = PHOTO if PHOTO_PATH.fullmatch(path) else TABLE
        target = self.ledger.folder / path
        fetched = fetch_file(
            self.session,
            self.base_url + quote(path),
            target,
            kind,
            patience=self.patience,
            stop=self.stop,
        )
        self.ledger.add(path, fetched)
        return fetched

    def summarize(self) -> DownloadSummary:
        """Counts."""
        fresh = [fetched.bytes for fetched in self.fetched.values() if fetched.fresh]
        return DownloadSummary(
            folder=self.ledger.folder,
            wanted=len(self.fetched) + len(self.missing),
            already_there=len(self.fetched) - len(fresh),
            downloaded=len(fresh),
            missing=len(self.missing),
            bytes=sum(fresh),
        )


class _Ledger:
    """`download.csv`: a line for each file that was found whole. Lines are only ever added, so that a kill costs one at most."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "download.csv"
        self.known = self._read()
        lines = [f"{path},{fetched.bytes},{fetched.md5}\n" for path, fetched in self.known.items()]
        write_text(self.file, "path,bytes,md5\n" + "".join(lines))  # without a line that a kill cut

    def __enter__(self) -> "_Ledger":
        self.handle = self.file.open(
            "ab", buffering=0
        )  # one line, one write: threads cannot mix them up
        return self

    def __exit__(self, *error: object) -> None:
        self.handle.close()

    def add(self, path: str, fetched: FetchedFile) -> None:
        """Adds a file."""
        with writing(self.file):
            self.handle.write(f"{path},{fetched.bytes},{fetched.md5}\n".encode())

    def find_whole(self, path: str) -> FetchedFile | None:
        """Returns what is known of a file, if the file is still as it was."""
        known, file = self.known.get(path), self.folder / path
        if (
            known is None
            or not file.is_file()
            or file.stat().st_size != known.bytes
            or compute_md5(file) != known.md5
        ):
            return None
        return known

    def _read(self) -> dict[str, FetchedFile]:
        text = (
            self.file.read_text(encoding="utf-8", errors="replace") if self.file.is_file() else ""
        )
        return {
            path: FetchedFile(int(size), md5, fresh=False)
            for path, size, md5 in LEDGER_LINE.findall(text)
        }


@contextlib.contextmanager
def _locking(folder: Path) -> Iterator[None]:
    """Keeps others out: two downloads that write to the same `.part` could rename each other's half files."""
    with contextlib.ExitStack() as stack:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            handle = stack.enter_context((folder / ".download.lock").open("w"))
        try:
            fcntl.flock(
                handle, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # given back by the system, however the process ends
        except BlockingIOError as error:
            raise EczemaError(
                f"{folder}: another download is running there; wait for it or choose another folder"
            ) from error
        yield


def _write_missing(file: Path, missing: dict[str, str]) -> None:
    if not missing:
        file.unlink(missing_ok=True)
        return
    write_csv(file, pd.DataFrame(sorted(missing.items()), columns=["path", "reason"]))

"""Files over HTTP, whole or not at all.

In go an address, a place on the disk and a word on what the file must look like. Out comes a file
that has the length and the checksums that the server announced. It is written to `<name>.part`,
checked, flushed to the disk and only then renamed: what stands under its own name is whole,
whatever is killed, cut or unplugged. What has come so far stays in `<name>.part`, and the next
attempt asks for the rest.
"""

import base64
import contextlib
import hashlib
import http.client
import http.cookiejar
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import google_crc32c
import requests
import requests.adapters
import urllib3

from eczema_tf.errors import EczemaError

PASSING_STATUSES = (
    408,
    429,
    500,
    502,
    503,
    504,
)  # https://cloud.google.com/storage/docs/retry-strategy: worth another attempt
BLOCK_BYTES = 1 << 18
SLOWEST_BYTES_PER_S = 100  # below it for as long as a read may take, a connection counts as dead
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_REDIRECTS = 5


class Patience(NamedTuple):
    """How long to try.

    Attributes:
        attempts: For each file.
        timeout_s: To connect, and for each read; a body slower than `SLOWEST_BYTES_PER_S` for this
            long is cut too.
        pause_s: Before the second attempt, at most; doubled for each one after it.
        longest_pause_s: However often it was tried, and whatever the server's `Retry-After` says.
    """

    attempts: int = 6
    timeout_s: float = 30.0
    pause_s: float = 1.0
    longest_pause_s: float = 60.0


USUAL = Patience()


class Kind(NamedTuple):
    """What a file must look like.

    Attributes:
        name: In words.
        starts: What it may begin with.
        ends: What it may end with; asked only of files without a checksum. Empty: anything.
    """

    name: str
    starts: tuple[bytes, ...]
    ends: tuple[bytes, ...] = (b"",)


PHOTO = Kind(
    "a PNG or JPEG file", (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"), (b"IEND\xaeB`\x82", b"\xff\xd9")
)


class FetchedFile(NamedTuple):
    """A whole file. `fresh` is false where it stood there already and was as the server has it."""

    bytes: int
    md5: str
    fresh: bool


class Unavailable(Exception):
    """A file cannot be had. `lasting`: trying again will not help (the server says that there is no such file)."""

    def __init__(self, reason: str, *, lasting: bool) -> None:
        super().__init__(reason)
        self.lasting = lasting


class _Fault(Exception):
    """One attempt failed; the next may not. `useless`: what has come so far cannot be built on."""

    def __init__(
        self, reason: str, *, useless: bool = False, retry_after: str | None = None
    ) -> None:
        super().__init__(reason)
        self.useless = useless
        self.retry_after = retry_after


class _Promise(NamedTuple):
    """What the server says of the whole file: its size in bytes, its checksums in base64 by name, and where the body begins in it."""

    size: int | None
    checksums: dict[str, str]
    offset: int


class _Guard(requests.adapters.HTTPAdapter):
    """Sees every request, also those that a redirect leads to, and lets only safe ones out."""

    def __init__(self, loopback: bool, connections: int) -> None:
        super().__init__(pool_connections=connections, pool_maxsize=connections)
        self.loopback = loopback

    def send(
        self, request: requests.PreparedRequest, *args: object, **kwargs: object
    ) -> requests.Response:
        if not (
            request.url.startswith("https://") or (self.loopback and _is_loopback(request.url))
        ):
            raise Unavailable(f"redirected to {request.url}, which is not https", lasting=True)
        return super().send(request, *args, **kwargs)


def open_session(base_url: str, *, connections: int) -> requests.Session:
    """Opens what `fetch_file` asks through: https only, no cookies, redirects followed to https alone. Threads may share it.

    Args:
        base_url: Where the files are. Plain http is allowed to this very machine, for tests.
        connections: How many to keep open.

    Raises:
        EczemaError: If the address is neither.
    """
    loopback = _is_loopback(base_url)
    if not (base_url.startswith("https://") or loopback):
        raise EczemaError(f"{base_url}: allowed: an address that begins with https://")
    session = requests.Session()
    session.max_redirects = MOST_REDIRECTS
    session.headers["Accept-Encoding"] = (
        "identity"  # lengths, ranges and checksums are then of the file itself
    )
    session.cookies.set_policy(
        http.cookiejar.DefaultCookiePolicy(allowed_domains=[])
    )  # nothing is then shared between threads
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Guard(loopback, connections))
    return session


def fetch_file(
    session: requests.Session,
    url: str,
    target: Path,
    kind: Kind,
    *,
    patience: Patience = USUAL,
    stop: threading.Event | None = None,
) -> FetchedFile:
    """Brings a file to `target`, or leaves what has come so far in `<target>.part`.

    Args:
        session: From `open_session`.
        url: The file's address.
        target: Where it goes. If a file stands there that has the server's length and checksums, it
            is left as it is.
        kind: What it must look like.
        patience: How long to try.
        stop: Once set, nothing more is tried.

    Raises:
        Unavailable: If it cannot be had.
        EczemaError: If the disk is full or otherwise refuses.
    """
    stop = stop or threading.Event()
    part = target.with_name(f"{target.name}.part")
    for attempt in range(1, patience.attempts + 1):
        try:
            return _attempt(session, url, target, part, kind, patience, stop)
        except _Fault as fault:
            if fault.useless:
                part.unlink(missing_ok=True)
            if attempt == patience.attempts:
                raise Unavailable(f"{fault} (tried {attempt} times)", lasting=False) from fault
            stop.wait(compute_pause_s(attempt, fault.retry_after, patience))
    raise ValueError(f"patience.attempts: must be at least 1; received {patience.attempts}")


def compute_pause_s(attempt: int, retry_after: str | None, patience: Patience) -> float:
    """Computes how long to wait after a failed attempt.

    Args:
        attempt: The one that failed, from 1.
        retry_after: The server's `Retry-After`: seconds or a date (RFC 9110, 10.2.3). What is
            neither is passed over.
        patience: The bounds.

    Returns:
        Seconds: exponential backoff with full jitter ("Exponential Backoff And Jitter", AWS
            Architecture Blog, 2015), and at least
        `Retry-After`; at most `longest_pause_s`.
    """
    pause_s = random.uniform(
        0, min(patience.longest_pause_s, patience.pause_s * 2 ** (attempt - 1))
    )
    with contextlib.suppress(urllib3.exceptions.InvalidHeader):
        pause_s = max(pause_s, urllib3.Retry().parse_retry_after(retry_after) if retry_after else 0)
    return min(pause_s, patience.longest_pause_s)


def compute_md5(file: Path) -> str:
    """Computes a file's MD5, in hexadecimal."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _attempt(
    session: requests.Session,
    url: str,
    target: Path,
    part: Path,
    kind: Kind,
    patience: Patience,
    stop: threading.Event,
) -> FetchedFile:
    if stop.is_set():
        raise Unavailable("not tried: the download was stopped", lasting=False)
    have = part.stat().st_size if part.is_file() else 0
    with _ask(session, url, have, patience) as response:
        promise = _read_promise(response, have)
        if target.is_file() and promise.checksums:
            with contextlib.suppress(_Fault, Unavailable):
                return _check(target, promise, kind)._replace(fresh=False)
        with writing(target):
            _receive(response, part, promise, patience, stop)
    with writing(target):
        fetched = _check(part, promise, kind)
        part.replace(target)
    return fetched


def _ask(session: requests.Session, url: str, have: int, patience: Patience) -> requests.Response:
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        response = session.get(url, headers=headers, stream=True, timeout=patience.timeout_s)
    except requests.Timeout as error:
        raise _Fault(f"no answer within {patience.timeout_s:g} s") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _Fault(f"no connection: {_shorten(error)}") from error
    if response.status_code in (200, 206):
        return response
    response.close()
    status = f"{response.status_code} {response.reason}"
    if (
        response.status_code == 416
        # `.part` is at least as long as the file: left by a kill just before the renaming, or of an
        # older file
    ):
        raise _Fault(status, useless=True)
    if response.status_code in PASSING_STATUSES:
        raise _Fault(status, retry_after=response.headers.get("Retry-After"))
    raise Unavailable(status, lasting=True)


def _read_promise(response: requests.Response, have: int) -> _Promise:
    """Reads the headers; refuses an answer that could not be checked."""
    headers, checksums = response.headers, _read_checksums(response.headers)
    if response.status_code == 206:
        # nothing else can tell that old and new bytes are of the same file, and next to each other
        if not checksums:
            raise _Fault("an answer to Range without a checksum of the whole", useless=True)
        return _Promise(
            _read_number(headers.get("Content-Range", "").rpartition("/")[2]), checksums, have
        )
    size = _read_number(headers.get("Content-Length", ""))
    if size is None and not checksums and headers.get("Transfer-Encoding") != "chunked":
        raise _Fault(
            "an answer with neither length nor checksum, which cannot be checked", useless=True
        )
    return _Promise(size, checksums, 0)


def _read_number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _read_checksums(headers: requests.structures.CaseInsensitiveDict) -> dict[str, str]:
    """Reads `x-goog-hash: crc32c=...,md5=...` (https://cloud.google.com/storage/docs/xml-api/reference-headers#xgooghash)."""
    stored = headers.get("x-goog-stored-content-encoding", "identity")
    if stored != headers.get("Content-Encoding", "identity"):
        return {}  # unpacked on its way: the checksums are those of the packed file
    pairs = (item.strip().partition("=") for item in headers.get("x-goog-hash", "").split(","))
    return {name: value for name, _, value in pairs if name in ("md5", "crc32c")}


def _receive(
    response: requests.Response,
    part: Path,
    promise: _Promise,
    patience: Patience,
    stop: threading.Event,
) -> None:
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab" if promise.offset else "wb") as handle:
        for block in _read_blocks(response, patience, stop):
            handle.write(block)
        handle.flush()
        os.fsync(handle.fileno())


def _read_blocks(
    response: requests.Response, patience: Patience, stop: threading.Event
) -> Iterator[bytes]:
    """Yields what the network has, as it comes, so that a trickle is noticed though no single read takes long."""
    since, received = time.monotonic(), 0
    while not stop.is_set():
        try:
            block = response.raw.read1(BLOCK_BYTES, decode_content=False)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            raise _Fault(f"connection lost: {_shorten(error)}") from error
        if not block:
            return
        yield block
        received += len(block)
        elapsed_s = time.monotonic() - since
        if elapsed_s > patience.timeout_s:
            if received < SLOWEST_BYTES_PER_S * elapsed_s:
                raise _Fault(f"too slow: {received} bytes in {elapsed_s:.0f} s")
            since, received = time.monotonic(), 0
    raise Unavailable("the download was stopped before it was whole", lasting=False)


def _check(file: Path, promise: _Promise, kind: Kind) -> FetchedFile:
    """Holds a file against what was promised."""
    size = file.stat().st_size
    if promise.size is not None and size != promise.size:
        raise _Fault(f"{size} of {promise.size} bytes came", useless=size > promise.size)
    found = _compute_checksums(file)
    wrong = [
        name
        for name, value in promise.checksums.items()
        if base64.b64encode(found[name]).decode() != value
    ]
    if wrong:
        raise _Fault(f"the {' and '.join(wrong)} of what came is not the server's", useless=True)
    if not _looks_like(file, kind, whole=bool(promise.checksums)):
        reason = f"is not {kind.name}"
        raise (
            Unavailable(reason, lasting=True) if promise.checksums else _Fault(reason, useless=True)
        )
    return FetchedFile(size, found["md5"].hex(), fresh=True)


def _compute_checksums(file: Path) -> dict[str, bytes]:
    md5, crc32c = hashlib.md5(usedforsecurity=False), google_crc32c.Checksum()
    with file.open("rb") as handle:
        while block := handle.read(BLOCK_BYTES):
            md5.update(block)
            crc32c.update(block)
    return {
        "md5": md5.digest(),
        "crc32c": crc32c.digest(),
    }  # as Google Cloud Storage has them: the highest byte first


def _looks_like(file: Path, kind: Kind, *, whole: bool) -> bool:
    with file.open("rb") as handle:
        start = handle.read(max(map(len, kind.starts)))
        handle.seek(-min(file.stat().st_size, 16), os.SEEK_END)
        return start.startswith(kind.starts) and (whole or handle.read().endswith(kind.ends))


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turns what a full, read-only or otherwise unwilling disk says into a clear error."""
    try:
        yield
    except OSError as error:
        raise EczemaError(
            f"{target}: cannot be written: {error.strerror or error}; free some space and run the"
            " same command again: it resumes"
        ) from error


def _is_loopback(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in LOOPBACK


def _shorten(error: Exception) -> str:
    """One line, without requests' wrapping of urllib3's wrapping of what happened."""
    inner = getattr(error.args[0] if error.args else None, "reason", None) or error
    return " ".join(str(inner).split())[:200] or type(inner).__name__

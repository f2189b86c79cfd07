"""SHA-256 of the contents of files and folders, to tell them apart and to detect changes."""

import hashlib
import json
from collections.abc import Collection, Iterable
from pathlib import Path

from eczema_tf.errors import RunError, raise_if_any, shorten
from eczema_tf.files import write_text

CHECKSUMS = "SHA256SUMS"


def digest_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_folder(folder: Path, *, ignored: Collection[str] = ()) -> str:
    """Returns a SHA-256 over the names and contents of all files in a folder, 64 hex digits.

    Args:
        folder: The folder, with everything below it.
        ignored: Names of files to leave out, wherever they are.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name not in ignored:
            name = json.dumps(path.relative_to(folder).as_posix()).encode()
            # lengths go first, so that ("ab", "c") and ("a", "bc") differ
            digest.update(len(name).to_bytes(8, "big") + name)
            digest.update(path.stat().st_size.to_bytes(8, "big"))
            with path.open("rb") as file:
                hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Writes `SHA256SUMS` for files in a folder, as `sha256sum` does; folders mean their files."""
    lines = [f"{digest_file(folder / name)}  {name}\n" for name in _list_files(folder, names)]
    write_text(folder / CHECKSUMS, "".join(lines))


def check_checksums(folder: Path, names: Iterable[str]) -> None:
    """Compares a folder with its `SHA256SUMS`; a folder without one (older versions) passes.

    Args:
        folder: The folder to check.
        names: What must be listed, as for `write_checksums`.

    Raises:
        RunError: Listing every file that is missing or has changed.
    """
    sums = folder / CHECKSUMS
    if not sums.is_file():
        return
    lines = sums.read_text(encoding="utf-8", errors="replace").splitlines()
    written = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    faults = [f"{name}: not listed" for name in _list_files(folder, names) if name not in written]
    for name, digest in written.items():
        if not (folder / name).is_file():
            faults.append(f"{shorten(name)}: missing")
        elif digest_file(folder / name) != digest:
            faults.append(f"{shorten(name)}: damaged, or changed after it was written")
    raise_if_any(
        f"{folder}: not used, since its files do not match its {CHECKSUMS}", faults, RunError
    )


def _list_files(folder: Path, names: Iterable[str]) -> list[str]:
    """Lists the named files, and those below named folders, as paths relative to a folder."""
    found = [
        path for name in names for path in sorted([folder / name, *(folder / name).rglob("*")])
    ]
    return [path.relative_to(folder).as_posix() for path in found if path.is_file()]

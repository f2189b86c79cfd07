"""Unpacks Parquet files of photos, as Hugging Face publishes image data sets, into a folder.

Takes files such as `train-00000-of-00002.parquet` (`NAMES`). Writes one folder per split, named as
in the file names, with the photos and, next to them, `metadata.jsonl` with labels and texts.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
from pyarrow import parquet

from eczema_tf.data.manifest.reading import find_meant
from eczema_tf.data.sources.source import PHOTO_SUFFIXES
from eczema_tf.errors import DataError, raise_if_any, shorten

# Hugging Face's names of a split's files ("Structure your repository", Splits in file names), with
# the hash that they used to have
PART = re.compile(
    r"(?:data/)?(?P<split>train|validation|valid|val|test)"
    r"(?:-(?P<number>\d+)-of-(?P<count>\d+))?(?:-[0-9a-f]{16})?\.parquet"
)
# and those of the branch that it converts data sets to (refs/convert/parquet)
CONVERTED = re.compile(
    r"(?:(?P<config>[^/]+)/)?(?P<split>train|validation|valid|val|test)/(?P<number>\d{4})\.parquet"
)
NAMES = (
    "Parquet files called train.parquet or train-00000-of-00002.parquet, here or in data, or"
    " train/0000.parquet, here or in the folder of a configuration; the same with validation"
    " (valid, val) and test"
)
BATCH_PHOTOS = 64  # decoded together
ROW_KEYS = ("image", "label", "text", "group_id")


def list_parts(folder: Path) -> dict[Path, str]:
    """Lists the Parquet files of a data set, with the split of each; none if no name is understood.

    Raises:
        DataError: If some names are understood, but the files are not one complete set: parts are
            there twice, or missing according to the names of the others.
    """
    files = list_parquet(folder)
    read = {name: PART.fullmatch(name) or CONVERTED.fullmatch(name) for name in files}
    parts = {name: match for name, match in read.items() if match}
    if parts:
        faults = _find_faults(parts, [name for name in files if name not in parts])
        raise_if_any(f"{folder}: its Parquet files are not one complete set", faults)
    return {folder / name: match["split"] for name, match in parts.items()}


def list_parquet(folder: Path) -> list[str]:
    """Lists the relative paths of all Parquet files in a folder, except hidden ones."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")]
    return sorted(name for name in names if not re.search(r"(^|/)\.", name))


def _find_faults(parts: Mapping[str, re.Match[str]], others: list[str]) -> Iterator[str]:
    there, counted = defaultdict(list), set[str]()
    for name, match in parts.items():
        own, all_of_it = _count_parts(match)
        there[own].append(name)
        counted |= all_of_it
    sets = {(match.re, match.groupdict().get("config")): name for name, match in parts.items()}
    if len(sets) > 1:
        yield f"{', '.join(sets.values())}: belong to several data sets; give the folder of one"
    for names in there.values():
        if len(names) > 1:
            yield f"{', '.join(names)}: are the same part; keep one of them"
    for name in sorted(counted - there.keys()):
        yield f"{name}.parquet: is missing; the names of the others count it"
    if others:
        yield f"not understood; allowed: {NAMES}; received {shorten(', '.join(others))}"


def _count_parts(match: re.Match[str]) -> tuple[str, set[str]]:
    """Returns which part a file is, and the parts that must exist according to its name."""
    split, number = match["split"], match["number"]
    if match.re is CONVERTED:
        return f"{split}/{number}", {f"{split}/{place:04}" for place in range(int(number))}
    if number is None:
        return split, set()
    width, count = len(number), match["count"]
    counted = {f"{split}-{place:0{width}}-of-{count}" for place in range(int(count))}
    return f"{split}-{number}-of-{count}", counted


def unpack_photos(parts: Mapping[Path, str], folder: Path) -> None:
    """Writes the photos of Parquet files, and `metadata.jsonl` for each split.

    Args:
        parts: From `list_parts`. Column `image` contains bytes, or a structure of `bytes` and
            `path`; `label`, a name or a number, whose name the file may give; `text` and `group_id`
            may be missing.
        folder: To write into. Each photo gets a folder of its own and keeps its name, if it has
            one: the name may tell whose it is.

    Raises:
        DataError: If a file is not readable as Parquet, or has no photos.
    """
    for part, split in parts.items():
        target = folder / split
        target.mkdir(exist_ok=True)
        with (target / "metadata.jsonl").open("a", encoding="utf-8") as metadata:
            _unpack_part(part, target, metadata)


def _unpack_part(part: Path, target: Path, metadata: TextIO) -> None:
    for number, row in enumerate(_read_rows(part), 1):
        image = row["image"]
        held = image if isinstance(image, dict) else {"bytes": image}
        data = held.get("bytes")
        if not data or not isinstance(data, bytes):
            raise DataError(f"{part}:{number}: image: has no bytes; are the photos elsewhere?")
        name = re.sub(r"[^\w.-]", "_", Path(held.get("path") or "photo").name)[-60:].lstrip(".")
        is_photo = Path(name).suffix.lower() in PHOTO_SUFFIXES
        place = f"{part.stem}-{number}/{name if is_photo else f'{name}.jpg'}"
        (target / place).parent.mkdir()
        (target / place).write_bytes(data)
        told = {"file_name": place, **{name: row.get(name) for name in ROW_KEYS[1:]}}
        metadata.write(json.dumps(told, default=str) + "\n")


def _read_rows(part: Path) -> Iterator[dict[str, Any]]:
    """Yields rows with the available `ROW_KEYS`, and with names in place of label numbers."""
    number = 0
    try:
        file = parquet.ParquetFile(part)
        there = file.schema_arrow.names
        for name in ("image", "label"):
            if name not in there:
                raise DataError(f"{part}: has no column {name}; it has {shorten(', '.join(there))}")
        for name in there:
            if find_meant(name, there) == "group_id" and name != "group_id":
                raise DataError(f"{part}: {shorten(name)!r}: looks like 'group_id'; rename it")
        labels = read_label_names(file.schema_arrow.metadata or {})
        wanted = [name for name in ROW_KEYS if name in there]
        for batch in file.iter_batches(BATCH_PHOTOS, columns=wanted):
            for row in batch.to_pylist():
                number, label = number + 1, row["label"]
                if label is None or isinstance(label, list | dict):
                    raise DataError(
                        f"{part}:{number}: label: is empty or a list; allowed: a name or a number"
                    )
                if isinstance(label, int) and label not in labels:
                    raise DataError(
                        f"{part}:{number}: label: has no name in the file; allowed:"
                        f" {', '.join(map(str, labels)) or 'names'}, received {label}"
                    )
                yield {**row, "label": labels.get(label, label)}
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{part}: is not readable as Parquet: {shorten(str(error))}") from error


def read_label_names(metadata: Mapping[bytes, bytes]) -> dict[object, str]:
    """Reads the names of labels that are numbers (`ClassLabel` in Hugging Face's features)."""
    try:
        described = json.loads(metadata[b"huggingface"])
        return dict(enumerate(map(str, described["info"]["features"]["label"]["names"])))
    except (ValueError, LookupError, TypeError):  # none, or of another form
        return {}

"""Parquet files that hold photos, as Hugging Face publishes image data sets, to a folder of photos.

In go `train-00000-of-00002.parquet` and its like; out come `train`, `val` and `test` with the
photos and, beside them, `metadata.jsonl` with their labels and texts.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
from pyarrow import parquet

from eczema_tf.errors import DataError, raise_if_any, shorten

# Hugging Face's names of a split's files ("Structure your repository", Splits in file names)
PART = re.compile(r"(train|validation|valid|val|test)(?:-(\d+)-of-(\d+))?\.parquet")
BATCH_PHOTOS = 64  # decoded together
ROW_KEYS = ("image", "label", "text")


def list_parts(folder: Path) -> list[Path]:
    """Lists the Parquet files of a data set's splits, in the folder or in `data` below it.

    Raises:
        DataError: If one of a name is in both, which would be read twice, or some are missing, as
            the names of the others tell.
    """
    files = chain(folder.glob("*.parquet"), folder.glob("data/*.parquet"))
    parts = {file: match for file in files if (match := PART.fullmatch(file.name))}
    there = Counter(file.name for file in parts)
    named = {
        f"{match[1]}-{number:0{len(match[2])}}-of-{match[3]}.parquet"
        for match in parts.values()
        for number in range(int(match[3] or 0))
    }
    faults = [
        f"{name}: is in the folder and in data; keep one of them"
        for name, count in there.items()
        if count > 1
    ]
    faults += [f"{name}: is not there, but counted with" for name in sorted(named - there.keys())]
    raise_if_any(f"{folder}: its Parquet files are not one whole set", faults)
    return sorted(parts)


def unpack_photos(parts: list[Path], folder: Path) -> None:
    """Writes the photos of Parquet files, and `metadata.jsonl` for each split.

    Args:
        parts: From `list_parts`. Column `image` holds bytes, or a structure of `bytes` and `path`;
            `label`, a name or a number, whose name the file may give; `text` may be missing.
        folder: To write into. Each photo has a folder of its own, and its own name as far as it
            has one: it may tell whose it is.

    Raises:
        DataError: If a file is not readable as Parquet, or has no photos.
    """
    for part in parts:
        split = PART.fullmatch(part.name)
        target = folder / (split[1] if split else "train")
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
        name = re.sub(r"[^\w.-]", "_", Path(held.get("path") or "photo").name)[-100:].lstrip(".")
        place = f"{part.stem}-{number}/{name if Path(name).suffix else f'{name}.jpg'}"
        (target / place).parent.mkdir()
        (target / place).write_bytes(data)
        told = {"file_name": place, "label": row.get("label"), "text": row.get("text")}
        metadata.write(json.dumps(told) + "\n")


def _read_rows(part: Path) -> Iterator[dict[str, Any]]:
    """Yields rows with those of `ROW_KEYS` that there are, and the names of labels for numbers."""
    number = 0
    try:
        file = parquet.ParquetFile(part)
        there = file.schema_arrow.names
        for name in ("image", "label"):
            if name not in there:
                raise DataError(f"{part}: has no column {name}; it has {shorten(', '.join(there))}")
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

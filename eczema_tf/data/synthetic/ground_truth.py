"""What is known of built-in cases beyond their labels: where the lesion lies in a photo, and where symptoms stand in a text.

Read from `truth.jsonl` and `masks/` beside a manifest, where `data/sources/synthetic.py` puts them.
Other data sets have no such thing.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eczema_tf.errors import DataError

TRUTH_FILE = "truth.jsonl"


@dataclass(frozen=True)
class Truth:
    """The truth about the rows of a manifest.

    Attributes:
        folder: Where the manifest is.
        rows: By `example_id`: "phrases" and "mask_path", among others.
    """

    folder: Path
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def load_mask(self, example_id: str, size_px: int) -> np.ndarray | None:
        """Loads where the lesion lies, stretched to a square as photos are.

        Args:
            example_id: Of the row.
            size_px: Side of the square.

        Returns:
            bool (size_px, size_px), all False where there is no lesion; None where it is not known.

        Raises:
            DataError: If there should be a mask and it cannot be read.
        """
        path = self.rows.get(example_id, {}).get("mask_path")
        if not path:
            return None
        try:
            with Image.open(self.folder / path) as mask:
                return (
                    np.asarray(
                        mask.convert("L").resize((size_px, size_px), Image.Resampling.BILINEAR)
                    )
                    >= 128
                )
        except OSError as error:
            raise DataError(
                f"{self.folder / path}: not readable as a mask: {error}; prepare the built-in data"
                " again"
            ) from error

    def find_phrases(self, example_id: str) -> list[tuple[int, int]] | None:
        """Returns the character offsets (start, end) of the symptoms in a row's text, or None where they are not known."""
        row = self.rows.get(example_id)
        return (
            None if row is None else [(phrase["start"], phrase["end"]) for phrase in row["phrases"]]
        )


def load_truth(manifest_path: Path) -> Truth:
    """Loads the truth beside a manifest; without a file of it, nothing is known.

    Raises:
        DataError: If the file is not what `prepare synthetic` writes.
    """
    path = manifest_path.parent / TRUTH_FILE
    if not path.is_file():
        return Truth(manifest_path.parent)
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return Truth(
            manifest_path.parent,
            {
                row["example_id"]: {key: row[key] for key in ("phrases", "mask_path")}
                for row in rows
            },
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not the truth of built-in data ({error!r}); prepare the data again, or take"
            " the file away"
        ) from error

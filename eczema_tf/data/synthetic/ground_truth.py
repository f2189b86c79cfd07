"""What is known of built-in cases beyond labels: where lesions and symptoms are.

It is in `truth.jsonl` and `masks/` next to a manifest. Other data sets have no such ground truth.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from eczema_tf.data.synthetic.cases import MASK_FOLDER, Case
from eczema_tf.errors import DataError
from eczema_tf.files import write_text

TRUTH_FILE = "truth.jsonl"


class KnownRow(NamedTuple):
    """What is known of a row of the manifest.

    Attributes:
        phrases: Character offsets (start, end) of the symptoms in its text.
        mask_path: Path of the lesion's mask, relative to the manifest's folder; "" without a photo.
    """

    phrases: list[tuple[int, int]]
    mask_path: str


@dataclass(frozen=True)
class GroundTruth:
    """What is known of the rows of a manifest.

    Attributes:
        folder: Where the manifest is.
        rows: By `example_id`; rows of which nothing is known are left out.
    """

    folder: Path
    rows: dict[str, KnownRow] = field(default_factory=dict)

    def load_mask(self, example_id: str, size_px: int) -> np.ndarray | None:
        """Loads the mask of the lesion, stretched to a square as photos are.

        Args:
            example_id: Id of the row.
            size_px: Side of the square.

        Returns:
            bool (size_px, size_px), all False where there is no lesion; None where it is not known.

        Raises:
            DataError: If there should be a mask and it cannot be read.
        """
        row = self.rows.get(example_id)
        if row is None or not row.mask_path:
            return None
        path = self.folder / row.mask_path
        try:
            with Image.open(path) as mask:
                square = mask.convert("L").resize((size_px, size_px), Image.Resampling.BILINEAR)
                return np.asarray(square) >= 128
        except OSError as error:
            raise DataError(
                f"{path}: not readable as a mask: {error}; prepare the built-in data again"
            ) from error

    def find_phrases(self, example_id: str) -> list[tuple[int, int]] | None:
        """Returns where the symptoms are in a row's text; None if that is not known.

        They are given as character offsets (start, end).
        """
        row = self.rows.get(example_id)
        return None if row is None else row.phrases


def write_ground_truth(folder: Path, cases: Iterable[Case]) -> None:
    """Writes all that was drawn for cases: a line per row of their manifest, sorted by id."""
    lines = {
        example_id: json.dumps(
            {
                "example_id": example_id,
                "case_id": case.case_id,
                "condition": case.condition,
                "severity": case.severity,
                "body_site": case.body_site,
                "attributes": case.attributes,
                "facts": case.facts,
                "phrases": [asdict(phrase) for phrase in case.phrases],
                "mask_path": f"{MASK_FOLDER}/{example_id}.png" if case.photos else "",
            }
        )
        for case in cases
        for example_id in case.example_ids
    }
    write_text(folder / TRUTH_FILE, "".join(lines[name] + "\n" for name in sorted(lines)))


def load_ground_truth(manifest_path: Path) -> GroundTruth:
    """Loads the ground truth next to a manifest; without its file, nothing is known.

    Raises:
        DataError: If the file is not what `prepare synthetic` writes.
    """
    path = manifest_path.parent / TRUTH_FILE
    if not path.is_file():
        return GroundTruth(manifest_path.parent)
    try:
        known = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        rows = {
            row["example_id"]: KnownRow(
                [(phrase["start"], phrase["end"]) for phrase in row["phrases"]], row["mask_path"]
            )
            for row in known
        }
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not the ground truth of built-in data ({error!r}); prepare the data again,"
            " or remove the file"
        ) from error
    return GroundTruth(manifest_path.parent, rows)

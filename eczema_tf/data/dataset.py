"""A data set ready for use: the checked manifest, its photos (all decoded once, so none can fail later) or its embeddings."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eczema_tf.config import DataConfig
from eczema_tf.data.cache import fingerprint
from eczema_tf.data.manifest.table import Manifest, load_manifest, reject_bad_photos
from eczema_tf.data.photo.embeddings import Embeddings, load_embeddings
from eczema_tf.data.photo.inspection import inspect_photos
from eczema_tf.errors import DataError


@dataclass(frozen=True)
class Dataset:
    """What `load_dataset` gives."""

    manifest: Manifest
    photos: pd.DataFrame  # by file: sha256, width, height, orientation
    embeddings: Embeddings | None

    @property
    def table(self) -> pd.DataFrame:
        """The manifest's rows."""
        return self.manifest.table

    def describe(self) -> dict[str, Any]:
        """Fingerprints and counts, JSON-able, for the run folder."""
        table = self.table
        return {
            "manifest": str(self.manifest.path),
            "manifest_fingerprint": fingerprint(self.manifest.path.read_bytes()),
            "photos_fingerprint": fingerprint(sorted(self.photos["sha256"])),
            "embeddings_fingerprint": (
                fingerprint(self.embeddings.matrix) if self.embeddings is not None else None
            ),
            "rejected_rows": len(self.manifest.rejected),
            "provenance": _read_provenance(self.manifest.path.with_name("dataset.json")),
            "counts": count_cases(table),
            "sources": dict(Counter(table["source"])),
        }


def load_dataset(config: DataConfig, manifest_path: Path | str) -> Dataset:
    """Reads and checks a manifest and everything it points to.

    Args:
        config: Embeddings, and whether bad rows are skipped.
        manifest_path: The manifest.

    Raises:
        DataError: With every bad row, unless they are to be skipped.
    """
    embeddings = load_embeddings(config.embeddings) if config.embeddings else None
    manifest = load_manifest(
        manifest_path,
        skip_bad_rows=config.skip_bad_rows,
        embeddings=embeddings,
        allow_leaks=config.allow_leaks,
    )
    photos = inspect_photos(manifest.table["image_file"])
    manifest = reject_bad_photos(manifest, photos, skip_bad_rows=config.skip_bad_rows)
    return Dataset(manifest, photos[photos["error"] == ""], embeddings)


def count_cases(table: pd.DataFrame) -> dict[str, Any]:
    """Counts rows, cases, groups, modalities and labels.

    Args:
        table: Of a manifest.

    Returns:
        JSON-able counts.
    """
    has_image, has_text = table["image_path"] != "", table["text"] != ""
    return {
        "rows": len(table),
        "cases": table["case_id"].nunique(),
        "groups": table["group_id"].nunique(),
        "image_only": int((has_image & ~has_text).sum()),
        "text_only": int((~has_image & has_text).sum()),
        "both": int((has_image & has_text).sum()),
        "eczema_labelled": int(table["eczema"].notna().sum()),
        "eczema_mean": _mean(table["eczema"].dropna()),
        "consistency": _label_counts(table["consistency"]),
        "severity": _label_counts(table["severity"]),
    }


def _read_provenance(path: Path) -> dict[str, str]:
    """Whom to name and under which terms, as `prepare` wrote it beside the manifest; empty for a manifest of one's own.

    Raises:
        DataError: If the file is not JSON.
    """
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"{path}: not readable as JSON: {error}; prepare the data set again, or delete the file"
        ) from error
    return {
        name: str(facts[name]) for name in ("source", "attribution", "licence") if name in facts
    }


def _label_counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(value for value in values if value).items()))


def _mean(values: pd.Series) -> float | None:
    return float(np.round(values.mean(), 6)) if len(values) else None

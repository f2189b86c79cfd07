"""Measures how long the leakage audit takes, on drawn photos or on those of a manifest.

    python scripts/benchmark_audit.py --photos 10000
    python scripts/benchmark_audit.py --manifest data/scin/manifest.csv

The drawn photos are JPEGs of smooth noise with 512 x 384 pixels, each with a text of its own words.
Photos of 12 megapixels take longer to decode (about 40 ms each), so measure with your own.
"""

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

# runs from a checkout, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eczema_tf.config import DataConfig
from eczema_tf.data.audit.audit import audit_dataset
from eczema_tf.data.dataset import load_dataset

SIZE_PX = (512, 384)
WORDS = 2000  # in the vocabulary of the drawn texts
TEXT_WORDS = 40


def main() -> None:
    """Draws or loads the photos, runs the audit and prints the times."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--photos", type=int, default=10_000, help="how many photos to draw (default: 10000)"
    )
    parser.add_argument("--manifest", type=Path, help="audit this manifest instead")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        time_audit(arguments.manifest or write_photos(Path(folder), arguments.photos))


def write_photos(folder: Path, count: int) -> Path:
    """Draws photos and a manifest; returns the manifest."""
    (folder / "photos").mkdir()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(lambda index: write_photo(folder, index), range(count)))
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def write_photo(folder: Path, index: int) -> dict[str, str]:
    """Draws one photo and its text."""
    rng = np.random.default_rng(index)
    coarse = Image.fromarray(rng.integers(90, 220, (12, 16, 3)).astype("uint8"))
    name = f"photos/{index:06d}.jpg"
    coarse.resize(SIZE_PX, Image.Resampling.BICUBIC).save(folder / name, quality=85)
    words = rng.integers(0, WORDS, TEXT_WORDS)
    return {
        "example_id": str(index),
        "image_path": name,
        "text": " ".join(f"word{word}" for word in words),
        "eczema": str(index % 2),
    }


def time_audit(manifest: Path) -> None:
    """Times loading and the audit."""
    start = time.perf_counter()
    dataset = load_dataset(DataConfig(), manifest)
    loaded = time.perf_counter()
    audit = audit_dataset(dataset, label_threshold=0.5, join=True)
    seconds = time.perf_counter() - loaded
    photos = len(dataset.photos)
    print(audit.report.describe())
    print(f"loading (every photo decoded and checked): {loaded - start:.1f} s")
    print(
        f"audit: {seconds:.1f} s for {photos} photos ({photos / seconds:.0f} photos/s) and"
        f" {(dataset.table['text'] != '').sum()} texts"
    )
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()

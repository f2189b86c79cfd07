"""Tools for any heatmap: find its peak, and stretch it over the photo.

Photos are stretched to the encoder's square (`data/photo/preprocess.py`); stretching the map to the
photo's own shape undoes this.
"""

import numpy as np
from PIL import Image

HEATMAP_METHOD = "evidence"  # how the served map is made: `photo_evidence`


def find_peak(heatmap: np.ndarray) -> tuple[float, float] | None:
    """Finds where a map is highest.

    Args:
        heatmap: float (rows, columns), at least 0.

    Returns:
        The centre of the highest cell (or the mean of several) as shares of height and width; None
        if the map is all zero.
    """
    if not heatmap.max() > 0:
        return None
    cells = np.argwhere(heatmap == heatmap.max())
    down, right = (cells.mean(axis=0) + 0.5) / heatmap.shape
    return float(down), float(right)


def upsample_heatmap(heatmap: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """Stretches a heatmap over a photo.

    Args:
        heatmap: float (rows, columns) in [0, 1].
        height_px: Of the photo, upright.
        width_px: Of the photo, upright.

    Returns:
        float32 (height_px, width_px) in [0, 1], bilinear.
    """
    stretched = Image.fromarray(np.asarray(heatmap, "float32")).resize(
        (width_px, height_px), Image.Resampling.BILINEAR
    )
    return np.clip(np.asarray(stretched), 0.0, 1.0)

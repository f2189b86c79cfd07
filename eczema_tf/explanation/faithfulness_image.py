"""Whether a heatmap is true: does it lie on the lesion, and does the answer depend on it?

This module also has the baseline maps that a heatmap has to beat. All maps are float (rows,
columns), at least 0, higher where there is more evidence. Deletion and insertion call a model,
given as a callable from photos to probabilities; everything else is plain NumPy.
"""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, sobel

from eczema_tf.explanation.maps import find_peak
from eczema_tf.explanation.mu_fidelity import SHARE, SUBSETS

# From photos float32 (n, height, width, 3) to probabilities (n,) of the answer that is explained.
ScorePhotos = Callable[[np.ndarray], np.ndarray]

TOLERANCE = 0.03  # of a photo's side: Zhang et al. 2016 allow 15 pixels on photos of 500
ERASURE_STEPS = 10  # in which deletion and insertion replace all pixels
GAUSSIAN_SIGMA = 0.25  # of a side
RANDOM_SIGMA = 1.0  # cells
CELLS = 9  # per side, for mu-fidelity to erase, as in Xplique (Fel et al. 2022)
BLUR_SIGMA = 0.1  # of a side: about a third of a lesion, which leaves no border or surface


def build_centred_gaussian(rows: int, columns: int) -> np.ndarray:
    """Builds the map that only assumes that photographers aim at what matters.

    Returns:
        float64 (rows, columns) in (0, 1].
    """
    down, right = ((np.arange(cells) + 0.5) / cells - 0.5 for cells in (rows, columns))
    return np.exp(-(down[:, None] ** 2 + right**2) / (2 * GAUSSIAN_SIGMA**2))


def compute_edge_map(photo: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Computes the map of an edge filter, which knows nothing of the model.

    Adebayo et al. 2018 warn of explanations that are no better than this.

    Args:
        photo: float (height, width, 3).
        rows: Of the map, at most the photo's height.
        columns: Of the map, at most the photo's width.

    Returns:
        float64 (rows, columns), the mean magnitude of the Sobel gradient of the grey photo in each
        cell.
    """
    grey = photo.astype("float64").mean(axis=-1)
    edges = np.hypot(sobel(grey, axis=0), sobel(grey, axis=1))
    starts = [
        np.arange(cells) * side // cells
        for cells, side in zip((rows, columns), grey.shape, strict=True)
    ]
    sums = np.add.reduceat(np.add.reduceat(edges, starts[0], axis=0), starts[1], axis=1)
    heights, widths = (
        np.diff(start, append=side) for start, side in zip(starts, grey.shape, strict=True)
    )
    return sums / np.outer(heights, widths)


def draw_random_map(rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Draws a map of noise, as smooth as a heatmap: float64 (rows, columns) in [0, 1]."""
    # wrapped, otherwise the noise would be strongest at the rim
    noise = gaussian_filter(rng.random((rows, columns)), RANDOM_SIGMA, mode="wrap")
    return (noise - noise.min()) / (np.ptp(noise) or 1.0)


def points_at(heatmap: np.ndarray, mask: np.ndarray, tolerance: float = TOLERANCE) -> bool:
    """Plays the pointing game (Zhang et al. 2016): is the map highest on the lesion, or nearly?

    Args:
        heatmap: (rows, columns), at least 0, of any resolution. A map of zeros points at nothing
            and misses.
        mask: bool (height, width), not empty, over the same square.
        tolerance: How far outside the mask still counts, as a share of the longer side.
    """
    peak = find_peak(heatmap)
    if peak is None:
        return False
    row, column = (
        min(int(share * side), side - 1) for share, side in zip(peak, mask.shape, strict=True)
    )
    return bool(distance_transform_edt(~mask)[row, column] <= tolerance * max(mask.shape))


def compute_energy_inside(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """Computes the share of a map that lies on the lesion.

    This is the energy-based pointing game of Wang et al. 2020.

    Args:
        heatmap: (height, width), at least 0.
        mask: bool (height, width).

    Returns:
        A value in [0, 1]; 0 for a map of zeros. A map that says nothing gets the lesion's share of
        the area.
    """
    total = float(heatmap.sum(dtype="float64"))
    return float(heatmap[mask].sum(dtype="float64")) / total if total > 0 else 0.0


def compute_deletion(
    photo: np.ndarray, heatmap: np.ndarray, undecided: np.ndarray, score: ScorePhotos
) -> float:
    """Computes how the answer changes as the photo is deleted, the highest pixels first.

    Source: Petsiuk et al. 2018 (RISE). A deleted pixel gets the photo's mean colour, which looks
    like even skin; the paper's grey would look like an object.

    Args:
        photo: float32 (height, width, 3).
        heatmap: (height, width).
        undecided: (height, width), the order of pixels that are equal in the heatmap. With a random
            map, chance decides what the heatmap leaves open, and a map of zeros is no better or
            worse than a random one.
        score: The model.

    Returns:
        Area under the probability of the answer over the share deleted, in [0, 1]; lower is better.
    """
    blank = np.broadcast_to(photo.mean(axis=(0, 1)), photo.shape)
    ranks = rank_pixels(heatmap, undecided)
    return compute_area(score(replace_step_by_step(photo, blank, ranks, ERASURE_STEPS)))


def compute_insertion(
    photo: np.ndarray, heatmap: np.ndarray, undecided: np.ndarray, score: ScorePhotos
) -> float:
    """Computes how the answer changes as a blurred photo becomes sharp, the highest pixels first.

    Source: Petsiuk et al. 2018. Arguments and result are as for `compute_deletion`, but higher is
    better.
    """
    sigma = BLUR_SIGMA * min(photo.shape[:2])
    blurred = gaussian_filter(photo, (sigma, sigma, 0), mode="nearest")
    ranks = rank_pixels(heatmap, undecided)
    return compute_area(score(replace_step_by_step(blurred, photo, ranks, ERASURE_STEPS)))


def draw_erased_cells(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Draws what mu-fidelity erases from a photo: bool (subsets, height, width), whole cells."""
    erased = rng.random((SUBSETS, CELLS, CELLS)) < SHARE
    rows, columns = (np.arange(side) * CELLS // side for side in (height, width))
    return erased[:, rows[:, None], columns]


def rank_pixels(heatmap: np.ndarray, undecided: np.ndarray) -> np.ndarray:
    """Ranks pixels, 0 for the highest; `undecided` breaks ties in the heatmap.

    Returns:
        int64 (height, width).
    """
    order = np.lexsort((-undecided.ravel(), -heatmap.ravel()))
    return np.argsort(order).reshape(heatmap.shape)


def replace_step_by_step(
    photo: np.ndarray, replacement: np.ndarray, ranks: np.ndarray, steps: int
) -> np.ndarray:
    """Replaces more and more pixels of a photo, from the photo itself to the replacement.

    Returns:
        float32 (steps + 1, height, width, 3).
    """
    replaced = [(ranks < ranks.size * step / steps)[..., None] for step in range(steps + 1)]
    return np.stack([np.where(where, replacement, photo) for where in replaced]).astype("float32")


def compute_area(curve: np.ndarray) -> float:
    """Computes the area under a curve over [0, 1], by the trapezoidal rule."""
    return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))

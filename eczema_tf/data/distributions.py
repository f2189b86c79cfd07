"""How inputs are distributed. A run keeps this of its training rows, to compare other rows with."""

import numpy as np
import pandas as pd

from eczema_tf.data.dataset import Dataset
from eczema_tf.data.inputs import BLOCK_ROWS, Column, Inputs
from eczema_tf.files import Record
from eczema_tf.schema import IMAGE

MOST_PHOTOS = 2000  # that are measured; more would add little
NAMED = ("skin_tone", "monk_skin_tone", "age_group", "sex")
_LUMA = np.array([0.299, 0.587, 0.114], "float32")  # ITU-R BT.601


class Distribution(Record):
    """One input: mean, deviation and quantiles of numbers, or shares of names."""

    count: int
    mean: float | None = None
    deviation: float | None = None
    low: float | None = None  # 5 % lie below
    median: float | None = None
    high: float | None = None  # 5 % lie above
    shares: dict[str, float] | None = None


def describe_inputs(dataset: Dataset, inputs: Inputs, rows: np.ndarray) -> dict[str, Distribution]:
    """Describes the inputs of some rows: texts and people once per case, every photo by itself.

    Args:
        dataset: The data set of the rows.
        inputs: Inputs of the whole data set; photos are described by the pixels that the model
            sees.
        rows: int64, the rows. If they have many photos, `MOST_PHOTOS` of them are drawn.

    Returns:
        By name; an input that no row has is left out.
    """
    table = dataset.table.iloc[rows]
    # for each case, what is known from any of its rows
    first = table.where(table != "").groupby("case_id", sort=False).first()
    image, text = (
        pd.Series(inputs.present(modality)[rows], table.index).groupby(table["case_id"]).any()
        for modality in ("image", "text")
    )
    given = np.where(image & text, "both", np.where(image, "photo alone", "text alone"))
    words = table["text"].str.split().str.len().groupby(table["case_id"]).max()
    shots = (table["image_path"] != "").groupby(table["case_id"]).sum()
    photos = inputs.columns[IMAGE]
    numbers: dict[str, np.ndarray] = {
        "eczema label": first["eczema"].dropna().to_numpy("float64"),
        "words of text": words[words > 0].to_numpy("float64"),
        "photos of a case": shots[shots > 0].to_numpy("float64"),
    }
    if photos.values.ndim == 4:  # not embeddings
        shown = rows[inputs.present("image")[rows]]
        drawn = np.random.default_rng(0).permutation(shown)[:MOST_PHOTOS]
        numbers |= measure_photos(photos, drawn)
    names = {"what is given": given[image | text]}
    names |= {name: first[name].dropna() for name in NAMED if name in first}
    return {name: _of_numbers(values) for name, values in numbers.items() if len(values)} | {
        name: _of_names(values) for name, values in names.items() if len(values)
    }


def measure_photos(photos: Column, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Measures photos as the model sees them.

    Args:
        photos: Pixels, uint8 (photos, height, width, 3).
        rows: int64, those with a photo.

    Returns:
        By name, float64 (rows,): brightness and contrast (mean and deviation of luma in [0, 1]),
        colour (mean saturation of HSV, in [0, 1]) and sharpness (deviation of the luma's Laplacian;
        Pech-Pacheco et al. 2000).
    """
    blocks = [np.zeros((0, 4))]
    for start in range(0, len(rows), BLOCK_ROWS):
        pixels = photos.gather(rows[start : start + BLOCK_ROWS]).astype("float32") / 255
        luma = pixels @ _LUMA  # (block, height, width)
        red, green, blue = np.moveaxis(pixels, -1, 0)  # a maximum over three is slow
        highest = np.maximum(np.maximum(red, green), blue)
        lowest = np.minimum(np.minimum(red, green), blue)
        saturation = (highest - lowest) / np.maximum(highest, 1 / 255)
        inner = luma[:, 1:-1, 1:-1]
        around = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:]
        found = (luma.mean((1, 2)), luma.std((1, 2)), saturation.mean((1, 2)))
        blocks.append(np.stack([*found, (around - 4 * inner).std((1, 2))], axis=1))
    names = ("brightness", "contrast", "colour", "sharpness")
    measured = np.concatenate(blocks).T  # float64 (4, rows)
    return {f"{name} of a photo": values for name, values in zip(names, measured, strict=True)}


def _of_numbers(values: np.ndarray) -> Distribution:
    low, median, high = (float(end) for end in np.quantile(values, (0.05, 0.5, 0.95)))
    return Distribution(
        count=len(values),
        mean=float(np.mean(values)),
        deviation=float(np.std(values)),
        low=low,
        median=median,
        high=high,
    )


def _of_names(values: np.ndarray | pd.Series) -> Distribution:
    shares = pd.Series(np.asarray(values, dtype=object)).value_counts(normalize=True).sort_index()
    return Distribution(count=len(values), shares={str(k): float(v) for k, v in shares.items()})

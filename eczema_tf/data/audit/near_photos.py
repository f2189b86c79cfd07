"""Near-duplicate photos: the same photo at another size, quality or brightness, mirrored or turned.

Takes small gray versions of photos and returns pairs of them. A perceptual hash of 256 bits
(ImageHash's pHash: signs of the low frequencies of the cosine transform) proposes pairs, and the
correlation of the gray versions confirms them: different photos of smooth skin come close in one of
the two, but hardly in both. A single spot on plain skin can come close in both. So small tiles of
the gray versions must also agree on average, leaving out those that are nearly empty in both: a
copy has the same skin around the spot. Every photo is compared in its eight orientations, so that
neither EXIF orientation nor mirroring hides a copy. Cropped copies are not looked for (with 2 % cut
off each side, four of five are still found).
"""

from collections.abc import Iterator

import imagehash
import numpy as np
from PIL import Image

from eczema_tf.data.photo.inspection import GRAY_PX
from eczema_tf.data.progress import track

HASH_SIDE = 16
CORRELATION_PX = 32
ORIENTATIONS = 8  # four quarter turns, plain and mirrored
# Measured on the photos of 10,550 built-in cases of two seeds (docs/leaks.md). Different photos in
# any orientation: no correlation above 0.92 where up to 64 bits differ. 400 of them and their
# copies at half size and JPEG quality 75: at most 42 bits differ, and the correlation is at least
# 0.95.
MAX_BITS = 64
MIN_CORRELATION = 0.94
# Mean over tiles of 4 x 4 of the 32 x 32 pixels. Photos of a drawn spot that pass all else have at
# most 0.37; real and built-in photos saved again as in docs/leaks.md have at least 0.61.
TILE_PX = 4
MIN_TILE_CORRELATION = 0.5
# gray levels (standard deviation): a black or blank photo is like every other one
MIN_CONTRAST = 1.0
BLOCK_PHOTOS, BLOCK_PAIRS = 256, 4096


def find_plain_photos(gray: np.ndarray) -> np.ndarray:
    """Finds the photos that are too plain to be told apart: bool (photos,)."""
    return _shrink(gray).std(axis=1) < MIN_CONTRAST


def find_near_photos(gray: np.ndarray) -> np.ndarray:
    """Compares all photos with each other; plain ones are left out.

    Args:
        gray: uint8 (photos, 64, 64), from `inspect_photos`.

    Returns:
        The near-duplicates: int64 (pairs, 2), the smaller index first, sorted.
    """
    usable = np.flatnonzero(~find_plain_photos(gray))
    gray = gray[usable]
    features, hashes = _shrink(gray), _compute_hashes(gray)
    pairs: set[tuple[int, int]] = set()
    for start in range(0, len(gray), BLOCK_PHOTOS):
        block = slice(start, start + BLOCK_PHOTOS)
        orientations = zip(_orientations(gray[block]), hashes[block].swapaxes(0, 1), strict=True)
        for turned, bits in orientations:
            found = _compare_block(turned, bits, features[start:], hashes[start:, 0])
            pairs.update((start + row, start + column) for row, column in found)
    return usable[np.array(sorted(pairs), "int64").reshape(-1, 2)]


def _compute_hashes(gray: np.ndarray) -> np.ndarray:
    """Returns 256 bits per orientation of a photo, the stored one first: uint64 (photos, 8, 4)."""
    hashes = [
        np.packbits(imagehash.phash(Image.fromarray(turned), hash_size=HASH_SIDE).hash)
        for pixels in track(gray, "near-duplicates", len(gray))
        for turned in map(np.ascontiguousarray, _orientations(pixels))
    ]
    words = np.array(hashes, "uint8").reshape(-1, ORIENTATIONS, HASH_SIDE * HASH_SIDE // 8)
    return words.view("uint64")


def _compare_block(
    turned: np.ndarray, bits: np.ndarray, features: np.ndarray, hashes: np.ndarray
) -> Iterator[tuple[int, int]]:
    """Compares a block in one orientation with itself and all later photos as stored.

    Yields:
        Row in the block and column of the other photo.
    """
    distances = np.zeros((len(bits), len(hashes)), "uint16")  # bits that differ
    for word in range(bits.shape[1]):
        distances += np.bitwise_count(bits[:, None, word] ^ hashes[None, :, word])
    near = np.triu(distances <= MAX_BITS, 1)
    columns = np.flatnonzero(near.any(axis=0))
    if len(columns):
        shrunk, others = _shrink(turned), features[columns]
        correlation = _standardise(shrunk) @ _standardise(others).T
        rows, chosen = np.nonzero(near[:, columns] & (correlation >= MIN_CORRELATION))
        for start in range(0, len(rows), BLOCK_PAIRS):
            row, column = rows[start : start + BLOCK_PAIRS], chosen[start : start + BLOCK_PAIRS]
            agree = _correlate_tiles(shrunk[row], others[column]) >= MIN_TILE_CORRELATION
            yield from zip(row[agree].tolist(), columns[column[agree]].tolist(), strict=True)


def _correlate_tiles(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the mean correlation of the tiles of pairs, float32 (pairs,).

    Tiles that are nearly empty in both photos tell nothing and are left out.

    Args:
        one: float32 (pairs, 1024), from `_shrink`.
        other: The same shape.
    """
    side, within = CORRELATION_PX // TILE_PX, (-3, -1)
    tiles = np.stack([one, other]).reshape(2, len(one), side, TILE_PX, side, TILE_PX)
    a, b = tiles - tiles.mean(axis=within, keepdims=True)
    spread = tiles.std(axis=within)  # (2, pairs, side, side)
    telling = spread.max(axis=0) >= MIN_CONTRAST
    correlation = (a * b).mean(axis=within) / np.maximum(spread.prod(axis=0), 1e-6)
    return (correlation * telling).sum(axis=(1, 2)) / np.maximum(telling.sum(axis=(1, 2)), 1)


def _orientations(pixels: np.ndarray) -> list[np.ndarray]:
    """Returns the eight orientations of (..., side, side), the stored one first."""
    turns = [np.rot90(pixels, turn, (-2, -1)) for turn in range(4)]
    return [*turns, *(turned[..., ::-1] for turned in turns)]


def _shrink(gray: np.ndarray) -> np.ndarray:
    """Returns means of 2 x 2 pixels: float32 (photos, 1024)."""
    step = GRAY_PX // CORRELATION_PX
    blocks = gray.reshape(-1, CORRELATION_PX, step, CORRELATION_PX, step)
    return blocks.mean(axis=(2, 4), dtype="float32").reshape(-1, CORRELATION_PX**2)


def _standardise(features: np.ndarray) -> np.ndarray:
    """Returns rows of mean 0 and length 1, so that a product is a correlation."""
    centred = features - features.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)

"""Near-duplicate photos: the same photo at another size, quality or brightness, mirrored or turned by a quarter.

In go photo files; out come pairs of them. A perceptual hash of 256 bits (ImageHash's pHash: signs
of the low frequencies of the cosine transform) proposes pairs, and the correlation of small gray
versions confirms them: different photos of smooth skin come close in one of the two, hardly in
both. Every photo is compared in its eight orientations, so that neither EXIF orientation nor a
mirrored copy hides anything. Cropped copies are not looked for (2 % cut off each side is still
found in four of five).
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import imagehash
import numpy as np
from PIL import Image
from tqdm import tqdm

from eczema_tf.errors import DataError

GRAY_PX = (
    64  # side of the gray version that is hashed: ImageHash's own size for 16 x 16 frequencies
)
HASH_SIDE = 16
CORRELATION_PX = 32
ORIENTATIONS = 8  # four quarter turns, plain and mirrored
# Measured on the photos of 10,550 built-in cases of two seeds (docs/data.md). Different photos in
# any orientation: no correlation above 0.92 where up to 64 bits differ. 400 of them and their
# copies at half size and JPEG quality 75: at most 42 bits, at least 0.95.
MAX_BITS = 64
MIN_CORRELATION = 0.94
MIN_CONTRAST = (
    1.0  # gray levels (standard deviation): a black or blank photo is like every other one
)
BLOCK_ROWS = 256
PROGRESS_FROM_PHOTOS = 500  # below, it is over before a bar could be read


@dataclass(frozen=True)
class Signatures:
    """What photos are compared by.

    Attributes:
        gray: uint8 (photos, 64, 64), the photo stretched to a square.
        hashes: uint64 (photos, 8, 4), 256 bits for each orientation; the first is the photo as
            stored.
    """

    gray: np.ndarray
    hashes: np.ndarray

    def __len__(self) -> int:
        return len(self.gray)

    @property
    def plain(self) -> np.ndarray:
        """Which have too little in them to be told from others, bool (photos,): never near-duplicates."""
        return _shrink(self.gray).std(axis=1) < MIN_CONTRAST


def compute_signatures(
    files: Sequence[str], *, workers: int = 2, progress: bool = True
) -> Signatures:
    """Decodes photos, small, and hashes them.

    Args:
        files: Photos that `photos.inspect_photos` found good.
        workers: Threads.
        progress: Whether to show a bar, if there are many photos.

    Raises:
        DataError: If one cannot be read any more.
    """
    hidden = (
        True if not progress or len(files) <= PROGRESS_FROM_PHOTOS else None
    )  # None: shown on a terminal only
    with ThreadPoolExecutor(workers) as pool:
        bar = tqdm(
            pool.map(_load_gray, files),
            "near-duplicates",
            len(files),
            disable=hidden,
            mininterval=1,
        )
        gray = np.array(list(bar), "uint8").reshape(-1, GRAY_PX, GRAY_PX)
    hashes = [[_hash(turned) for turned in _orientations(pixels)] for pixels in gray]
    return Signatures(
        gray, np.array(hashes, "uint64").reshape(-1, ORIENTATIONS, HASH_SIDE * HASH_SIDE // 64)
    )


def find_near_photos(signatures: Signatures) -> np.ndarray:
    """Returns the near-duplicates: int64 (pairs, 2), the smaller index first, sorted. All pairs are compared; plain photos are left out."""
    usable = np.flatnonzero(~signatures.plain)
    gray, hashes = signatures.gray[usable], signatures.hashes[usable]
    features = _normalize(_shrink(gray))
    pairs: set[tuple[int, int]] = set()
    for start in range(0, len(gray), BLOCK_ROWS):
        stop = start + BLOCK_ROWS
        for turned, bits in zip(
            _orientations(gray[start:stop]), hashes[start:stop].swapaxes(0, 1), strict=True
        ):
            pairs.update(
                (start + row, start + column)
                for row, column in _compare_block(turned, bits, features[start:], hashes[start:, 0])
            )
    return usable[np.array(sorted(pairs), "int64").reshape(-1, 2)]


def _compare_block(
    turned: np.ndarray, bits: np.ndarray, features: np.ndarray, hashes: np.ndarray
) -> Iterator[tuple[int, int]]:
    """Yields (row, column) of a block in one orientation against itself and all later photos as stored."""
    near = np.triu(_distances(bits, hashes) <= MAX_BITS, 1)
    columns = np.flatnonzero(near.any(axis=0))
    if not len(columns):
        return
    near = near[:, columns] & (_normalize(_shrink(turned)) @ features[columns].T >= MIN_CORRELATION)
    yield from (
        (int(row), int(columns[place])) for row, place in zip(*np.nonzero(near), strict=True)
    )


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Differing bits of all pairs: uint16 (first, second)."""
    total = np.zeros((len(first), len(second)), "uint16")
    for word in range(first.shape[1]):
        total += np.bitwise_count(first[:, None, word] ^ second[None, :, word])
    return total


def _load_gray(file: str) -> np.ndarray:
    try:
        with Image.open(file, formats=["JPEG", "PNG"]) as image:
            image.draft("L", (2 * GRAY_PX, 2 * GRAY_PX))  # JPEG decoded at a fraction of its size
            return np.asarray(_to_gray(image).resize((GRAY_PX, GRAY_PX), Image.Resampling.LANCZOS))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(
            f"{file}: photo was good before and cannot be read now: {error}; leave the photos alone"
            " during a run"
        ) from error


def _to_gray(image: Image.Image) -> Image.Image:
    if image.mode.startswith(
        "I"
    ):  # 16 bits a value, which Pillow would clip to 255: the upper 8 are kept, as in `photos`
        return Image.fromarray(
            (np.asarray(image).astype("int64").clip(0, 65535) >> 8).astype("uint8")
        )
    return image.convert("L")


def _orientations(pixels: np.ndarray) -> list[np.ndarray]:
    """The eight orientations of (..., side, side), as stored first."""
    turns = [np.rot90(pixels, turn, (-2, -1)) for turn in range(4)]
    return [*turns, *(turned[..., ::-1] for turned in turns)]


def _hash(pixels: np.ndarray) -> np.ndarray:
    bits = imagehash.phash(Image.fromarray(np.ascontiguousarray(pixels)), hash_size=HASH_SIDE).hash
    return np.packbits(bits).view("uint64")


def _shrink(gray: np.ndarray) -> np.ndarray:
    """float32 (photos, 1024): means of 2 x 2 pixels."""
    step = GRAY_PX // CORRELATION_PX
    blocks = gray.reshape(-1, CORRELATION_PX, step, CORRELATION_PX, step)
    return blocks.mean(axis=(2, 4), dtype="float32").reshape(-1, CORRELATION_PX**2)


def _normalize(features: np.ndarray) -> np.ndarray:
    """Rows of mean 0 and length 1, so that a product is a correlation."""
    centred = features - features.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)

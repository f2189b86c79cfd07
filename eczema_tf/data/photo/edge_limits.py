"""What the edge refuses to decode, and how much it reduces the rest, before Pillow decodes it."""

import math

from PIL import ImageFile, TiffImagePlugin

from eczema_tf.data.photo.decoding_cost import (
    MAX_SCANS,
    PNG_CHANNELS,
    SCAN,
    estimate_jpeg_ns,
    estimate_pixel_ns,
    estimate_png_ns,
)
from eczema_tf.data.photo.limits import (
    EDGE_MAX_DECODE_NS,
    EDGE_MAX_PIXELS,
    EDGE_MAX_PNG_NS,
    EDGE_MAX_SCANS_PIXELS,
    EDGE_MAX_SIDE_PX,
    SENT_MAX_PIXELS,
    SERVED_MAX_SIDE_PX,
)
from eczema_tf.errors import DataError

# of TIFF: the others contain a different format (JPEG, WebP), or ask for any amount of memory
TIFF_COMPRESSIONS = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate")
PIECE_BYTES = (TiffImagePlugin.STRIPBYTECOUNTS, TiffImagePlugin.TILEBYTECOUNTS)
TILE_SIDES = (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)
MIN_TILE_PIXELS = 1 << 20  # a tile may be larger than a small photo
MAX_LAYERS = 4  # how often a TIFF's strips may cover it: once for each channel


def check_pixels(kind: str, size: tuple[int, int], most: int) -> None:
    """Refuses a photo with too many pixels.

    Args:
        kind: A key of `EDGE_MAX_PIXELS`.
        size: Width and height in pixels.
        most: How many pixels are allowed.

    Raises:
        DataError: If it is too large.
    """
    if math.prod(size) > most or max(size) > EDGE_MAX_SIDE_PX:
        raise DataError(
            f"photo has {size[0]} x {size[1]} pixels; allowed: at most {most // 1_000_000}"
            f" megapixels, {EDGE_MAX_SIDE_PX} a side for a {kind} of this kind"
        )


def check_estimate(estimate_ns: float) -> None:
    """Refuses a photo that `decoding_cost` estimates to take too long.

    Raises:
        DataError: If the estimate is more than `EDGE_MAX_DECODE_NS`.
    """
    if estimate_ns > EDGE_MAX_DECODE_NS:
        raise DataError("photo would take too long to decode; save it as a plain (baseline) JPEG")


def check_decoding(image: ImageFile.ImageFile, data: bytes) -> None:
    """Refuses a photo that would take too much time or memory.

    Args:
        image: The photo, opened but not yet decoded.
        data: Its file, without metadata.

    Raises:
        DataError: If there are too many pixels or passes over them, or if they are stored in a way
            that is slow to read.
    """
    kind, pixels = image.format or "", image.width * image.height
    scans = max(data.count(SCAN), 1) if kind == "JPEG" else 1
    most = EDGE_MAX_PIXELS[kind] if scans == 1 else EDGE_MAX_SCANS_PIXELS
    if kind == "PNG":
        most = min(most, count_png_pixels(image, data))
    check_pixels(kind, image.size, most)
    estimate_ns: float = 0
    if scans > 1:  # a single scan is fast, at a fraction of the size
        few = scans <= MAX_SCANS
        estimate_ns = estimate_jpeg_ns(len(data), pixels, scans) if few else math.inf
    elif kind == "PNG":
        estimate_ns = estimate_png_ns(len(data), pixels, read_png_bits(data), data[28], 0, 0)
    elif kind == "TIFF" and "deflate" in image.info["compression"]:  # the same as in PNG
        estimate_ns = estimate_png_ns(len(data), pixels, 32, 0, 0, 0)
    check_estimate(estimate_ns)
    # for 32-bit values, it is not known which are bright
    unusual = image.mode in ("F", "I") or any(tile.codec_name == "bmp_rle" for tile in image.tile)
    boxes = [tile.extents for tile in image.tile if tile.extents]
    areas = [(right - left) * (low - high) for left, high, right, low in boxes]
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        unusual |= image.info["compression"] not in TIFF_COMPRESSIONS
        areas += [math.prod(image.tag_v2.get(tag, 0) for tag in TILE_SIDES) - MIN_TILE_PIXELS]
        # pieces that overlap in the file could be decoded over and over
        unusual |= any(sum(image.tag_v2.get(tag, ())) > len(data) for tag in PIECE_BYTES)
    if unusual or sum(areas) > MAX_LAYERS * pixels:
        raise DataError(
            f"photo is a {kind} of an unusual kind (its compression, tiles or 32-bit values)"
            " that may take too long to decode; save it as a plain JPEG or PNG"
        )


def count_png_pixels(image: ImageFile.ImageFile, data: bytes) -> int:
    """Computes how many pixels a PNG may have, given the time that each takes."""
    is_converted = image.has_transparency_data or image.mode.startswith("I")
    return int(EDGE_MAX_PNG_NS // estimate_pixel_ns(read_png_bits(data), is_converted))


def read_png_bits(data: bytes) -> int:
    """Reads the bits per pixel from a PNG's first chunk: depth and colour type."""
    return data[24] * PNG_CHANNELS[min(data[25], 6)]


def compute_reduction(width: int, height: int) -> int:
    """Computes the smallest whole factor that reduces a photo to a size that may be sent."""
    return max(
        math.ceil(math.sqrt(width * height / SENT_MAX_PIXELS)),
        math.ceil(max(width, height) / SERVED_MAX_SIDE_PX),
    )

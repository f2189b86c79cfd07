"""Estimates how long a photo takes to decode, from its bytes, before anything is decoded.

Megapixels and megabytes alone bound neither time nor memory: a JPEG of 150 KB may contain thousands
of progressive scans over 25 megapixels, and a PNG of 7 MB a thousand compressed notes that libpng
inflates to 8 MB each (35 s). So the estimates charge for both. Costs are in nanoseconds on one core
of a server from 2020, for the worst files that `scripts/hostile_photos.py` draws
(`scripts/benchmark_guard.py` measures them); ordinary photos cost less than estimated.

The functions are plain arithmetic, for integers as well as int64 tensors: the served graph and the
edge share them.
"""

from typing import Any

# start of a scan (ITU-T T.81, B.2.3) with the high byte of its length, which is always 0
SCAN = b"\xff\xda\x00"
MAX_SCANS = 100  # a progressive photo has about 10; no more are counted
# PNG specification 11.3: notes and profiles that are inflated while the header is read
COMPRESSED_CHUNKS = (b"zTXt", b"iTXt", b"iCCP")
MAX_COMPRESSED_CHUNKS = 30  # no more are counted; that many cost too much already
# by colour type (PNG specification, table 11.1); 0: no such type
PNG_CHANNELS = (1, 0, 3, 1, 2, 0, 4)


def estimate_jpeg_ns(length: Any, pixels: Any, scans: Any) -> Any:
    """Estimates the time to decode and resize a JPEG.

    Args:
        length: Length of the file in bytes.
        pixels: Width times height.
        scans: Passes over the picture; 1 in a baseline JPEG.

    Returns:
        Nanoseconds, of the type of the arguments.
    """
    return 40 * length + 13 * pixels + 3 * pixels * scans // 2


def estimate_png_ns(
    length: Any,
    pixels: Any,
    bits_per_pixel: Any,
    interlaced: Any,
    compressed_chunks: Any,
    surplus: Any,
) -> Any:
    """Estimates the time to decode and resize a PNG.

    Args:
        length: Length of the file in bytes; the worst files are millions of empty deflate blocks.
        pixels: Width times height.
        bits_per_pixel: 1 to 64.
        interlaced: 1 if it is (Adam7), else 0.
        compressed_chunks: How often a name of `COMPRESSED_CHUNKS` occurs; libpng stops inflating
            each at 8 MB.
        surplus: Bytes that may follow the pixels: libpng inflates them to their end, 1 to 1032.
            0 if the decoder stops at the last pixel, as Pillow's does.

    Returns:
        Nanoseconds, of the type of the arguments.
    """
    per_pixel = 7 + 15 * interlaced
    return (
        80 * length
        + per_pixel * pixels
        + 5 * pixels * bits_per_pixel // 8
        + 45_000_000 * compressed_chunks
        + 2000 * surplus
    )


def estimate_pixel_ns(bits_per_pixel: int, is_converted: bool) -> float:
    """Estimates how long Pillow takes for one pixel of a PNG with the slowest row filter.

    Args:
        bits_per_pixel: 1 to 64.
        is_converted: Whether it has transparency, which is reduced premultiplied and laid on white,
            or 16 bits of grey, which Pillow would clip.

    Returns:
        Nanoseconds, including the JPEG that it becomes.
    """
    return 5 * bits_per_pixel / 8 + (19 if is_converted else 7)


def estimate_heic_ns(length: Any, pixels: Any) -> Any:
    """Estimates the time to decode a HEIC, as `estimate_jpeg_ns` does for a JPEG."""
    return 160 * length + 25 * pixels

"""The guard between a stranger's bytes and the decoder, inside the served graph.

Each row has its own status: a bad photo never makes other rows fail. Cheap checks (size, magic
bytes, pixels according to the header, cost of decoding) come before any decoding. To catch what the
decoder itself refuses, it runs inside a tf.data pipeline that drops errors; the rows that are
missing afterwards failed. `scripts/benchmark_guard.py` measures what hostile files can still do.

Two kinds of PNG that `data.photo.upright` reads are refused here, since clients that send its
output never send them. The first are PNGs with transparency, which `upright` puts on white and
TensorFlow's decoder would drop. The second are those of more than some 0.45 MB: their compressed
stream may continue after the last pixel (a megabyte for each kilobyte) and would be inflated to its
end.
"""

from collections.abc import Callable

import tensorflow as tf

from eczema_tf.data.photo import decoding_cost as cost
from eczema_tf.data.photo.limits import (
    MAX_SEGMENTS,
    MIN_FILE_BYTES,
    SERVED_MAX_BYTES,
    SERVED_MAX_DECODE_NS,
    SERVED_MAX_PIXELS,
    SERVED_MAX_SIDE_PX,
)
from eczema_tf.schema import STATUS_OK

# ITU-T T.81, table B.1; of an ordinary header: SOF0 to SOF2, DHT, DQT, DRI, APP, COM
PROGRESSIVE_FRAME, START_OF_SCAN = 0xFFC2, 0xFFDA
FRAMES, TABLES = (0xFFC0, 0xFFC1, PROGRESSIVE_FRAME), (0xFFC4, 0xFFDB, 0xFFDD)
HEADER_MARKERS = [*FRAMES, *TABLES, *range(0xFFE0, 0xFFF0), 0xFFFE]
OK, TOO_SMALL, TOO_LARGE, NOT_A_PHOTO, TOO_MANY_PIXELS = range(5)
UNDECODABLE, TOO_LONG, TOO_COSTLY, TRANSPARENT = range(5, 9)
PHOTO_STATUS = (
    STATUS_OK,
    f"photo: smaller than {MIN_FILE_BYTES} bytes",
    f"photo: larger than {SERVED_MAX_BYTES // 1_000_000} MB",
    "photo: neither JPEG nor PNG",
    f"photo: more than {SERVED_MAX_PIXELS // 1_000_000} megapixels",
    "photo: cannot be decoded",
    f"photo: longer than {SERVED_MAX_SIDE_PX} pixels",
    (
        "photo: of an unusual kind that may take too long to decode; save it as a plain (baseline)"
        " JPEG"
    ),
    "photo: a PNG with transparency; lay it on white and save it as JPEG",
)


def decode_guarded(
    photos: tf.Tensor, decode: Callable[[tf.Tensor], tf.Tensor], size_px: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a batch of photos, whatever they contain.

    Args:
        photos: string (batch,); "" for none, which counts as ok and gives zeros.
        decode: Turns string () into uint8 (size_px, size_px, 3); may raise.
        size_px: Side of the pixels.

    Returns:
        Pixels uint8 (batch, size_px, size_px, 3), zeros where there is no good photo, and int32
        (batch,), indices of `PHOTO_STATUS`.
    """
    batch = tf.size(photos)
    nothing = tf.zeros((size_px, size_px, 3), tf.uint8)

    def decode_one(row: tf.Tensor, data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        code = check_photo(data)
        wanted = tf.equal(code, OK) & (tf.strings.length(data) > 0)
        return row, code, tf.cond(wanted, lambda: decode(data), lambda: nothing)

    rows = (
        tf.data.Dataset.from_tensor_slices((tf.range(batch), photos))
        .map(decode_one, num_parallel_calls=2)
        .ignore_errors()
    )
    # so that there is a batch even if all rows are bad
    one_more = tf.data.Dataset.from_tensors((batch, tf.constant(OK), nothing))
    survived, codes, pixels = (
        rows.concatenate(one_more).batch(tf.cast(batch, tf.int64) + 1).get_single_element()
    )
    status = tf.tensor_scatter_nd_update(
        tf.fill([batch + 1], UNDECODABLE), survived[:, None], codes
    )
    placed = tf.scatter_nd(survived[:, None], pixels, tf.stack([batch + 1, size_px, size_px, 3]))
    return placed[:batch], status[:batch]


def check_photo(data: tf.Tensor) -> tf.Tensor:
    """Checks one photo's length, magic bytes, size in the header and cost of decoding.

    Args:
        data: string ().

    Returns:
        int32 (), an index of `PHOTO_STATUS`.

    Raises:
        tf.errors.InvalidArgumentError: If a JPEG's header cannot be read.
    """
    length = tf.strings.length(data)
    is_jpeg = tf.equal(tf.strings.substr(data, 0, 3), b"\xff\xd8\xff")
    is_png = tf.equal(tf.strings.substr(data, 0, 8), b"\x89PNG\r\n\x1a\n")
    return tf.case(
        [
            (tf.equal(length, 0), lambda: OK),
            (length < MIN_FILE_BYTES, lambda: TOO_SMALL),
            (length > SERVED_MAX_BYTES, lambda: TOO_LARGE),
            (
                is_jpeg,
                lambda: _check_size(
                    tf.cast(tf.io.extract_jpeg_shape(data)[:2], tf.int64),
                    lambda pixels: _jpeg_ns(data, pixels),
                ),
            ),
            (
                is_png,
                lambda: tf.cond(
                    _has_transparency(data),
                    lambda: TRANSPARENT,
                    lambda: _check_size(_png_size(data), lambda pixels: _png_ns(data, pixels)),
                ),
            ),
        ],
        default=lambda: NOT_A_PHOTO,
    )


def _check_size(size: tf.Tensor, estimate_ns: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    pixels = tf.reduce_prod(size)
    return tf.case(
        [
            (tf.reduce_any(size <= 0) | (pixels > SERVED_MAX_PIXELS), lambda: TOO_MANY_PIXELS),
            (tf.reduce_max(size) > SERVED_MAX_SIDE_PX, lambda: TOO_LONG),
            (estimate_ns(pixels) > SERVED_MAX_DECODE_NS, lambda: TOO_COSTLY),
        ],
        default=lambda: OK,
    )


def _jpeg_ns(data: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Estimates ns, int64 (); above `SERVED_MAX_DECODE_NS` for what must not be decoded."""
    first_scan, progressive, marker = _walk_to_scan(data)
    components = tf.io.decode_raw(tf.strings.substr(data, first_scan + 4, 1), tf.uint8)[0]
    has_more = progressive | (tf.cast(components, tf.int32) < tf.io.extract_jpeg_shape(data)[2])
    # counting reads the whole file
    scans = tf.cond(has_more, lambda: _count(data, cost.SCAN, cost.MAX_SCANS + 1), lambda: 1)
    estimate = cost.estimate_jpeg_ns(
        tf.cast(tf.strings.length(data), tf.int64), pixels, tf.cast(scans, tf.int64)
    )
    refused = (scans > cost.MAX_SCANS) | tf.not_equal(marker, START_OF_SCAN)
    return tf.where(refused, tf.constant(SERVED_MAX_DECODE_NS + 1, tf.int64), estimate)


def _walk_to_scan(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Steps from segment to segment of a JPEG's header, as the decoder does.

    Returns:
        Where it stopped, int32 (); whether the frame is progressive, bool (); and the marker there,
        int32 (): `START_OF_SCAN`, or the first that an ordinary header does not have (arithmetic
        coding, markers without a length).
    """

    def read_marker(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        words = tf.io.decode_raw(
            tf.strings.substr(data, position, 4), tf.uint16, little_endian=False
        )
        return tf.cast(words[0], tf.int32), tf.cast(words[1], tf.int32)

    def step(
        position: tf.Tensor, progressive: tf.Tensor, marker: tf.Tensor, length: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        position = position + 2 + length
        return position, progressive | tf.equal(marker, PROGRESSIVE_FRAME), *read_marker(position)

    def goes_on(
        _position: tf.Tensor, _progressive: tf.Tensor, marker: tf.Tensor, length: tf.Tensor
    ) -> tf.Tensor:
        return (length >= 2) & tf.reduce_any(tf.equal(marker, HEADER_MARKERS))

    start = (tf.constant(2), tf.constant(False), *read_marker(tf.constant(2)))
    position, progressive, marker, _ = tf.while_loop(
        goes_on, step, start, maximum_iterations=MAX_SEGMENTS
    )
    return position, progressive, marker


def _has_transparency(data: tf.Tensor) -> tf.Tensor:
    """Whether a PNG has an alpha channel or, before its pixels, a transparent colour; bool ()."""
    color_type = tf.io.decode_raw(tf.strings.substr(data, 25, 1), tf.uint8)[0]
    header = tf.raw_ops.StringSplitV2(input=data[None], sep=b"IDAT", maxsplit=1).values[0]
    return tf.reduce_any(tf.equal(color_type, [4, 6])) | (_count(header, b"tRNS", 1) > 0)


def _png_ns(data: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Estimates nanoseconds, int64 ()."""
    # depth, colour type, two zeros, interlacing
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 24, 5), tf.uint8), tf.int64)
    channels = tf.gather(tf.constant(cost.PNG_CHANNELS, tf.int64), tf.minimum(header[1], 6))
    bits = channels * header[0]
    length = tf.cast(tf.strings.length(data), tf.int64)
    chunks = tf.add_n(
        [_count(data, name, cost.MAX_COMPRESSED_CHUNKS) for name in cost.COMPRESSED_CHUNKS]
    )
    return cost.estimate_png_ns(
        length, pixels, bits, tf.minimum(header[4], 1), tf.cast(chunks, tf.int64), length
    )


def _count(data: tf.Tensor, pattern: bytes, most: int) -> tf.Tensor:
    """Counts how often the bytes occur, int32 (), up to `most`."""
    # `tf.strings.split` takes ten more ops
    pieces = tf.raw_ops.StringSplitV2(input=data[None], sep=pattern, maxsplit=most)
    return tf.cast(pieces.shape[1], tf.int32) - 1


def _png_size(data: tf.Tensor) -> tf.Tensor:
    """Reads width and height, int64 (2,), from the IHDR chunk (PNG specification, 11.2.2).

    They are at most 2^31 - 1, as the standard requires.
    """
    numbers = tf.io.decode_raw(tf.strings.substr(data, 16, 8), tf.int32, little_endian=False)
    return tf.where(numbers > 0, tf.cast(numbers, tf.int64), tf.cast(2**31 - 1, tf.int64))

"""What stands between a stranger's bytes and the decoder, inside the served graph.

Each row has its own status: a bad photo never fails its neighbours. Cheap checks (size, magic bytes, pixels by header) come before any
decoding; what the decoder itself refuses is caught by running it inside a tf.data pipeline that drops errors, and noticing who is gone.
"""

from collections.abc import Callable

import tensorflow as tf

MIN_BYTES = 32
MAX_BYTES = 10_000_000
MAX_PIXELS = 25_000_000  # a 24-megapixel camera's photo passes; a 12,000 x 12,000 decompression bomb does not
OK, TOO_SMALL, TOO_LARGE, NOT_A_PHOTO, TOO_MANY_PIXELS, UNDECODABLE = range(6)
PHOTO_STATUS = (
    "ok",
    f"photo: smaller than {MIN_BYTES} bytes",
    f"photo: larger than {MAX_BYTES // 1_000_000} MB",
    "photo: neither JPEG nor PNG",
    f"photo: more than {MAX_PIXELS // 1_000_000} megapixels",
    "photo: cannot be decoded",
)


def decode_guarded(photos: tf.Tensor, decode: Callable[[tf.Tensor], tf.Tensor], size_px: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a batch of photos, whatever they hold.

    Args:
        photos: string (batch,); "" for none, which counts as ok and gives zeros.
        decode: Turns string () into uint8 (size_px, size_px, 3); may raise.
        size_px: Side of the pixels.

    Returns:
        Pixels uint8 (batch, size_px, size_px, 3), zeros where there is no good photo, and int32 (batch,) places in `PHOTO_STATUS`.
    """
    batch = tf.size(photos)
    nothing = tf.zeros((size_px, size_px, 3), tf.uint8)

    def decode_one(row: tf.Tensor, data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        code = check_photo(data)
        wanted = tf.equal(code, OK) & (tf.strings.length(data) > 0)
        return row, code, tf.cond(wanted, lambda: decode(data), lambda: nothing)

    rows = tf.data.Dataset.from_tensor_slices((tf.range(batch), photos)).map(decode_one, num_parallel_calls=2).ignore_errors()
    one_more = tf.data.Dataset.from_tensors((batch, tf.constant(OK), nothing))  # so that there is a batch even if all rows are bad
    survived, codes, pixels = rows.concatenate(one_more).batch(tf.cast(batch, tf.int64) + 1).get_single_element()
    status = tf.tensor_scatter_nd_update(tf.fill([batch + 1], UNDECODABLE), survived[:, None], codes)
    placed = tf.scatter_nd(survived[:, None], pixels, tf.stack([batch + 1, size_px, size_px, 3]))
    return placed[:batch], status[:batch]


def check_photo(data: tf.Tensor) -> tf.Tensor:
    """Checks one photo's length, magic bytes and size by header.

    Args:
        data: string ().

    Returns:
        int32 (), a place in `PHOTO_STATUS`.

    Raises:
        tf.errors.InvalidArgumentError: If a JPEG's header cannot be read.
    """
    length = tf.strings.length(data)
    is_jpeg = tf.equal(tf.strings.substr(data, 0, 3), b"\xff\xd8\xff")
    is_png = tf.equal(tf.strings.substr(data, 0, 8), b"\x89PNG\r\n\x1a\n")
    return tf.case(
        [
            (tf.equal(length, 0), lambda: OK),
            (length < MIN_BYTES, lambda: TOO_SMALL),
            (length > MAX_BYTES, lambda: TOO_LARGE),
            (is_jpeg, lambda: _check_pixels(tf.cast(tf.io.extract_jpeg_shape(data)[:2], tf.int64))),
            (is_png, lambda: _check_pixels(_png_size(data))),
        ],
        default=lambda: NOT_A_PHOTO,
    )


def _check_pixels(size: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.reduce_all(size > 0) & (tf.reduce_prod(size) <= MAX_PIXELS), OK, TOO_MANY_PIXELS)


def _png_size(data: tf.Tensor) -> tf.Tensor:
    """Width and height, int64 (2,), from the IHDR chunk (PNG specification, 11.2.2); cut at 2^31 - 1 as the standard has it."""
    numbers = tf.io.decode_raw(tf.strings.substr(data, 16, 8), tf.int32, little_endian=False)
    return tf.where(numbers > 0, tf.cast(numbers, tf.int64), tf.cast(2**31 - 1, tf.int64))

"""The edge normaliser: any photo that a person hands in becomes an upright RGB JPEG.

It has no metadata (EXIF holds the place where it was taken) and is small enough for the served
graph's guard.
"""

import io
import warnings

from PIL import Image, ImageOps

from eczema_tf.data.photo.edge_limits import (
    JPEG_FORMATS,
    check_decoding,
    check_header,
    compute_reduction,
)
from eczema_tf.data.photo.files import check_size, describe_error, read_orientation, to_8_bits
from eczema_tf.data.photo.heic import is_heic, open_heic
from eczema_tf.data.photo.jpeg_segments import strip_jpeg
from eczema_tf.data.photo.limits import SERVED_MAX_BYTES
from eczema_tf.errors import DataError

# and HEIC; Pillow's other plugins stay shut (PostScript runs programs)
EDGE_FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]


def upright_jpeg(data: bytes) -> bytes:
    """Turns a photo into an upright RGB JPEG without metadata.

    Of a baseline RGB JPEG that is upright already the metadata are cut out and the pixels kept bit
    by bit; anything else is written anew at quality 95 without chroma subsampling. Photos above
    12.5 megapixels are reduced by a whole factor. Alpha is laid on white; the first frame stands
    for an animation; of 16 bits the upper 8 are kept. Colour profiles are dropped and not applied,
    as in training.

    Args:
        data: The photo file: JPEG, PNG, WebP, GIF, BMP or TIFF; HEIC if pillow-heif is installed.

    Returns:
        JPEG bytes, RGB, at most 10 MB, 12.5 megapixels and 16,384 pixels a side.

    Raises:
        DataError: If it cannot be read, or would take too long or too much memory.
    """
    check_size(len(data))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_header(data)
            opened = open_heic(data) if is_heic(data) else None
            with opened or Image.open(io.BytesIO(data), formats=EDGE_FORMATS) as image:
                return _convert(image, data)
    except DataError:
        raise
    except Exception as error:  # Pillow's and libheif's readers raise whatever they like
        raise DataError(describe_error(error, EDGE_FORMATS)) from error


def _convert(image: Image.Image, data: bytes) -> bytes:
    check_decoding(image, data)
    factor = compute_reduction(*image.size)
    is_jpeg = image.format in JPEG_FORMATS
    if is_jpeg and factor > 1:  # decoded at 1/2, 1/4 or 1/8
        image.draft("RGB", (max(image.width // factor, 1), max(image.height // factor, 1)))
    image.load()
    if is_jpeg and factor == 1 and image.mode == "RGB" and read_orientation(image) == 1:
        stripped = strip_jpeg(data)
        if stripped is not None and len(stripped) <= SERVED_MAX_BYTES:
            return stripped
    ImageOps.exif_transpose(image, in_place=True)
    image = to_8_bits(image)
    if image.has_transparency_data:
        image = _reduce(image.convert("RGBA"))
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = _reduce(image.convert("RGB"))
    image.info.clear()  # or Pillow writes comment and profile again
    while True:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=95, subsampling=0)
        if buffer.tell() <= SERVED_MAX_BYTES:
            return buffer.getvalue()
        image = image.reduce(2)  # only noise is that large


def _reduce(image: Image.Image) -> Image.Image:
    factor = compute_reduction(*image.size)
    return image.reduce(factor) if factor > 1 else image

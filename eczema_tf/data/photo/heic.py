"""HEIC photos, as phones take them, through the optional pillow-heif."""

import io

from PIL import Image

from eczema_tf.errors import DataError

BRANDS = (
    b"heic",
    b"heix",
    b"heim",
    b"heis",
    b"hevc",
    b"hevx",
    b"hevm",
    b"hevs",
    b"mif1",
    b"msf1",
)  # ISO/IEC 23008-12, annex B
HOW_TO_READ = (
    "install what reads it (pip install -r requirements-heic.txt), or save the photo as JPEG"
)


def is_heic(data: bytes) -> bool:
    """Whether a file says that it is HEIC or HEIF."""
    return data[4:8] == b"ftyp" and data[8:12] in BRANDS


def open_heic(data: bytes) -> Image.Image:
    """Opens a HEIC photo; its pixels are decoded on `load`, upright already.

    Nothing is registered with Pillow, so that other code of the process reads no more formats than
    before.

    Args:
        data: The file.

    Returns:
        The primary image.

    Raises:
        DataError: If pillow-heif is missing.
        SyntaxError: If the file is damaged.
    """
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise DataError(f"photo is HEIC, which cannot be read here: {HOW_TO_READ}") from error
    return HeifImageFile(io.BytesIO(data))

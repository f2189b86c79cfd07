"""HEIC photos, as phones take them, through the optional pillow-heif."""

import io
from typing import TYPE_CHECKING

from eczema_tf.errors import DataError

if TYPE_CHECKING:
    from pillow_heif import HeifImage

# ISO/IEC 23008-12, annex B
BRANDS = b"heic heix heim heis hevc hevx hevm hevs mif1 msf1".split()
HOW_TO_READ = "install its reader (pip install -r requirements-heic.txt), or save the photo as JPEG"


def is_heic(data: bytes) -> bool:
    """Whether a file says that it is HEIC or HEIF."""
    return data[4:8] == b"ftyp" and data[8:12] in BRANDS


def open_heic(data: bytes) -> "HeifImage":
    """Opens a HEIC photo; its pixels are decoded upright when `data` is accessed.

    Nothing is registered with Pillow, so other code in the process reads no more formats than
    before. EXIF is not read: libheif turns the photo as the file says.

    Args:
        data: The file.

    Returns:
        The primary image, with 8 bits per channel.

    Raises:
        DataError: If pillow-heif is missing.
    """
    try:
        from pillow_heif import HeifFile
    except ImportError as error:
        raise DataError(f"photo is HEIC, which cannot be read here: {HOW_TO_READ}") from error
    photos = HeifFile(io.BytesIO(data), convert_hdr_to_8bit=True)
    return photos[photos.primary_index]

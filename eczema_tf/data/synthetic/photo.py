"""A photo from drawn attributes: `render_photo` paints a lesion on skin and photographs it.

Only the attributes depend on the condition. All else (`skin`) is drawn by a generator of its own,
so that the same photo with other attributes has the same skin, background, light and camera.
"""

import numpy as np
from PIL import Image

from eczema_tf.data.photo.files import encode_image
from eczema_tf.data.synthetic.lesion import paint_lesion
from eczema_tf.data.synthetic.skin import add_hair_and_ink, draw_scene, take_photo

# a photo's file is padded to a size drawn from here: its size says nothing about its content
FILE_BYTES = (22_000, 30_000)
_COMMENT_BYTES = 4  # what an empty JPEG comment takes by itself


def render_photo(
    attributes: dict[str, str], tone: str, site: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Renders a photo.

    Args:
        attributes: Value of each attribute; only `lesion` if that is "none".
        tone: Fitzpatrick type, "I" to "VI".
        site: One of `skin.SITES`.
        rng: Where randomness comes from.

    Returns:
        The photo, uint8 (height, width, 3), and the lesion's mask, bool (height, width).
    """
    surroundings, lesion = rng.spawn(2)
    scene = draw_scene(tone, site, surroundings)
    area = np.zeros_like(scene.relief)
    if attributes["lesion"] == "visible":
        image, relief = scene.image[scene.skin], scene.relief[scene.skin]
        image[:], relief[:], area[scene.skin] = paint_lesion(
            image, relief, attributes, tone, lesion
        )
    image = add_hair_and_ink(scene.image, site, surroundings)
    photo = take_photo(image, scene.relief, scene.light, surroundings)
    turns = int(surroundings.integers(4))
    return np.ascontiguousarray(np.rot90(photo, turns)), np.rot90(area, turns) > 0.35


def encode_photo(pixels: np.ndarray, rng: np.random.Generator) -> bytes:
    """Encodes a JPEG of a quality and a file size that are drawn without looking at the pixels.

    Args:
        pixels: uint8 (height, width, 3).
        rng: Where randomness comes from.

    Returns:
        A JPEG without metadata, except for a comment that pads it.
    """
    image = Image.fromarray(pixels)
    quality, wanted = int(rng.integers(60, 93)), int(rng.integers(*FILE_BYTES))
    plain = encode_image(image, "JPEG", quality=quality)
    while len(plain) + _COMMENT_BYTES + 1 > wanted and quality > 6:
        quality -= 6  # rare: a large, grainy photo
        plain = encode_image(image, "JPEG", quality=quality)
    comment = b"\0" * (wanted - len(plain) - _COMMENT_BYTES)
    return encode_image(image, "JPEG", quality=quality, comment=comment)

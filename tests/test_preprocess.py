"""Tests photo preprocessing and augmentation, from bytes to pixels, eagerly and in a graph."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from eczema_tf.config import AugmentConfig, PreprocessConfig
from eczema_tf.data.photo.augment import augment_photos
from eczema_tf.data.photo.preprocess import decode_photo, preprocess_photo, shades_of_gray

PLAIN = PreprocessConfig.model_validate({"color_constancy": {"enabled": False}})
STRONG = AugmentConfig(rotation_deg=180.0, crop=0.5, color=1.0, blur=1.0, cutout=0.5)
OFF = AugmentConfig(flip=False, rotation_deg=0.0, crop=0.0, color=0.0, blur=0.0, cutout=0.0)


def encode(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def random_photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype("uint8")


def test_shades_of_gray_leaves_a_grey_photo_as_it_is():
    gray = tf.fill((8, 8, 3), 100.0)
    np.testing.assert_allclose(shades_of_gray(gray, 6.0), gray, rtol=1e-5)


def test_shades_of_gray_matches_a_hand_computed_example():
    """With norm 1 (grey-world), channel means of 200, 100 and 50 become their root mean square."""
    photo = tf.ones((4, 4, 3)) * tf.constant([200.0, 100.0, 50.0])
    gray = np.sqrt((200**2 + 100**2 + 50**2) / 3)
    np.testing.assert_allclose(shades_of_gray(photo, 1.0)[0, 0], [gray] * 3, rtol=1e-4)


@pytest.mark.parametrize("norm", [1.0, 6.0])
def test_shades_of_gray_removes_a_colour_cast(norm: float):
    photo = random_photo(32, 32).astype("float32")
    cast = photo * np.array([1.0, 0.7, 0.5], "float32")
    np.testing.assert_allclose(
        _unit(shades_of_gray(tf.constant(cast), norm)),
        _unit(shades_of_gray(tf.constant(photo), norm)),
        rtol=1e-3,
    )


def _unit(photo: tf.Tensor) -> np.ndarray:
    return photo.numpy() / photo.numpy().mean()


def test_shades_of_gray_keeps_a_black_photo_black():
    np.testing.assert_array_equal(shades_of_gray(tf.zeros((4, 4, 3)), 6.0), 0)


def test_photo_of_the_right_size_is_unchanged():
    pixels = random_photo(24, 24)
    np.testing.assert_array_equal(preprocess_photo(tf.constant(encode(pixels)), 24, PLAIN), pixels)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_eager_and_graph_preprocessing_agree(kind: str):
    data, config = tf.constant(encode(random_photo(50, 70), kind)), PreprocessConfig()
    dataset = tf.data.Dataset.from_tensors(data).map(lambda d: preprocess_photo(d, 32, config))
    np.testing.assert_array_equal(preprocess_photo(data, 32, config), next(iter(dataset)))


def test_pixels_do_not_depend_on_threads_or_graph_execution():
    """Sums over a photo might be taken in another order eagerly, in a pipeline or in a graph."""
    photos = [encode(random_photo(300, 400, seed), "JPEG") for seed in range(12)]

    def preprocess(photo: tf.Tensor) -> tf.Tensor:
        return preprocess_photo(photo, 225, PreprocessConfig())

    piped = tf.data.Dataset.from_tensor_slices(photos).map(preprocess, num_parallel_calls=4)
    compiled = tf.function(preprocess, input_signature=[tf.TensorSpec((), tf.string)])
    for photo, pixels in zip(photos, piped.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(preprocess(tf.constant(photo)), pixels)
        np.testing.assert_array_equal(compiled(tf.constant(photo)), pixels)


def test_grey_png_becomes_rgb_and_transparent_png_loses_its_transparency():
    photo = random_photo(20, 20)
    grey = photo[..., 0]
    clear = np.dstack([photo, np.full((20, 20), 7, "uint8")])
    for pixels, expected in ((grey, np.dstack([grey] * 3)), (clear, photo)):
        found = preprocess_photo(tf.constant(encode(pixels)), 20, PLAIN)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("height", "expected"),
    [(100, 100), (199, 199), (200, 100), (400, 100), (800, 100), (1600, 200)],
)
def test_large_jpegs_are_decoded_small_but_never_below_twice_the_size(height: int, expected: int):
    data = encode(np.full((height, height + 64, 3), 90, "uint8"), "JPEG")
    assert decode_photo(tf.constant(data), 50).shape[0] == expected


def test_reduced_decoding_hardly_changes_the_result():
    smooth = np.asarray(
        Image.fromarray(random_photo(12, 12)).resize((960, 960), Image.Resampling.BICUBIC)
    )
    large = preprocess_photo(tf.constant(encode(smooth, "JPEG", quality=95)), 48, PLAIN)
    exact = preprocess_photo(tf.constant(encode(smooth)), 48, PLAIN)
    assert np.abs(large.numpy().astype(int) - exact.numpy().astype(int)).mean() < 2


def test_undecodable_photo_raises():
    with pytest.raises(tf.errors.InvalidArgumentError):
        preprocess_photo(tf.constant(b"\xff\xd8\xff not a photo"), 16, PLAIN)


def batch(size: int = 24) -> tf.Tensor:
    return tf.constant(np.stack([random_photo(size, size, seed) for seed in range(6)]), tf.float32)


def test_augmentation_turned_off_changes_nothing():
    np.testing.assert_allclose(
        augment_photos(batch(), tf.constant([1, 2]), OFF), batch(), atol=1e-3
    )


def test_augmentation_is_determined_by_its_seed():
    first, same, other = (
        augment_photos(batch(), tf.constant(seed), STRONG) for seed in ([1, 2], [1, 2], [1, 3])
    )
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).mean() > 1


def test_augmented_photos_keep_range_and_shape():
    out = augment_photos(batch(), tf.constant([5, 6]), STRONG).numpy()
    assert out.shape == batch().shape
    assert out.min() >= 0
    assert out.max() <= 255


def test_flip_turns_each_photo_into_one_of_its_mirror_images():
    photos = tf.repeat(batch(), 4, axis=0)
    flipped = augment_photos(
        photos, tf.constant([3, 4]), OFF.model_copy(update={"flip": True})
    ).numpy()
    seen = set()
    for before, after in zip(photos.numpy(), flipped, strict=True):
        mirrors = [before, before[:, ::-1], before[::-1], before[::-1, ::-1]]
        matches = [
            place for place, mirror in enumerate(mirrors) if np.allclose(mirror, after, atol=1e-2)
        ]
        assert len(matches) == 1
        seen |= set(matches)
    assert seen == {0, 1, 2, 3}


def test_cutout_erases_one_rectangle_of_no_more_than_the_given_area():
    photos = tf.ones((40, 40, 40, 3)) * tf.reshape(
        tf.range(40 * 40, dtype=tf.float32) / 10, (1, 40, 40, 1)
    )
    cut = augment_photos(
        photos, tf.constant([3, 4]), OFF.model_copy(update={"cutout": 0.25})
    ).numpy()
    changed = (np.abs(cut - photos.numpy()) > 1e-3).all(-1)
    for erased in changed:
        rows, columns = np.nonzero(erased)
        assert erased[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
    areas = changed.sum((1, 2))
    assert areas.max() <= 11 * 11
    assert np.median(areas) > 50

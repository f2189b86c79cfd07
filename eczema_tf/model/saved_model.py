"""A SavedModel or TensorFlow Hub module as a frozen image encoder: photos in, embeddings out.

Derm Foundation (Google Health, 2024) is one: it takes serialised `tf.train.Example`s that contain a
PNG, and returns 6144 values. Such a module takes one of

    pixels   float32 (batch, size, size, 3) in [0, 1], TensorFlow Hub's common signature for images
    bytes    string (batch,), a PNG each
    example  string (batch,), a serialised tf.train.Example with the PNG in `image/encoded`

A SavedModel is a program. It is loaded because the configuration names it, and refused if it may do
more than compute (`harmless`).
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from eczema_tf.data.checksums import digest_folder
from eczema_tf.errors import ConfigError, PresetError, shorten
from eczema_tf.model.harmless import find_harmful

KEY = "model.image.saved_model"
SIGNATURE = "serving_default"
DEFAULT_SIZE_PX = 448  # what Derm Foundation asks for


@keras.saving.register_keras_serializable("eczema_tf")
class SavedModelEncoder(keras.layers.Layer):
    """Embeds photos with a SavedModel, which is never trained.

    Call with photos, float32 (batch, size, size, 3) in [0, 255]; returns float32 (batch,
    dimension).

    Args:
        handle: A folder, or a TensorFlow Hub handle.
        input_kind: "pixels", "bytes" or "example"; None to tell from the signature.
        digest: Digest of the module's files when the run was started; None if it starts now.
        dimension: Length of an embedding, where it is known.
        **options: Options of a Keras layer.

    Attributes:
        input_kind: As above, never None.
        digest: As above, never None; with the handle and the input kind, it rebuilds the layer.
        size_px: Side of the photos that the module takes; None if its signature does not say.

    Raises:
        PresetError: If the module is not available, not safe, or not the one it was.
        ConfigError: If it does not take what `input_kind` says, or nothing that is allowed.
    """

    def __init__(
        self,
        handle: str,
        input_kind: str | None = None,
        digest: str | None = None,
        dimension: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(trainable=False, dtype="float32", **options)
        folder = _find_folder(handle)
        found = digest_folder(folder, ignored=["fingerprint.pb"])[:32]
        if digest not in (None, found):
            raise PresetError(
                f"{KEY}: {handle!r} is not the module that the run was started with; put that one"
                " back"
            )
        self.module = _load(folder)  # an attribute, so that an export saves it too
        (taken,) = self.module.signatures[SIGNATURE].structured_input_signature[1].values()
        self.input_kind = _choose_kind(taken, input_kind)
        self.digest, self.dimension, self.size_px = found, dimension, _find_side(taken.shape)

    def call(self, photos: Any) -> Any:
        """Encodes photos as the module takes them and calls it."""
        if self.input_kind == "pixels":
            encoded = photos / 255.0
        else:
            pixels = tf.saturate_cast(tf.round(photos), tf.uint8)
            encoded = tf.map_fn(tf.io.encode_png, pixels, fn_output_signature=tf.string)  # (batch,)
        if self.input_kind == "example":
            encoded = _encode_examples(encoded)
        embed = self.module.signatures[SIGNATURE]
        (name,) = embed.structured_input_signature[1]
        outputs = embed(**{name: encoded})
        embedding = outputs["embedding"] if "embedding" in outputs else next(iter(outputs.values()))
        embedding = tf.reshape(tf.cast(embedding, tf.float32), [tf.shape(photos)[0], -1])
        return tf.ensure_shape(embedding, (None, self.dimension))

    def find_dimension(self, size_px: int) -> int:
        """Embeds two dummies to see how long an embedding is.

        Args:
            size_px: Side of the photos.

        Raises:
            ConfigError: If the module takes photos of another size, or does not embed these.
        """
        if self.size_px not in (None, size_px):
            raise ConfigError(
                f"model.image.size_px: the module of {KEY} takes photos of {self.size_px} px only,"
                f" received {size_px}; set it to {self.size_px}, or to null"
            )
        try:
            return self.call(np.zeros((2, size_px, size_px, 3), "float32")).shape[-1]
        except Exception as error:  # third-party operations raise whatever they like
            raise ConfigError(
                f"{KEY}: the module does not embed photos of {size_px} px as {self.input_kind};"
                f" set model.image.size_px and {KEY}_input to what it was made for; it says:"
                f" {shorten(str(error))}"
            ) from error


def _choose_kind(taken: tf.TensorSpec, asked: str | None) -> str:
    """Returns the kind of input to give a module: as asked or, for pixels, as its input says."""
    side = _find_side(taken.shape)
    if taken.dtype == tf.string and taken.shape.is_compatible_with((2,)):
        allowed, what = ["bytes", "example"], "strings"
    elif taken.dtype == tf.float32 and taken.shape.is_compatible_with((2, side, side, 3)):
        allowed, what = ["pixels"], "pixels"
        asked = asked or "pixels"
    else:
        raise ConfigError(
            f"{KEY}: the module takes {taken.dtype.name} {taken.shape}; allowed: float32 (None,"
            " size, size, 3) or string (None,), for any number of photos; export it with such a"
            f" signature {SIGNATURE!r}"
        )
    if asked not in allowed:
        raise ConfigError(
            f"{KEY}_input: the module takes {what}; allowed: {' or '.join(allowed)} (bytes: a PNG"
            " each; example: a tf.train.Example each, as Derm Foundation), received"
            f" {asked!r}"
        )
    return asked


def _find_side(shape: tf.TensorShape) -> int | None:
    return shape[1] or shape[2] if shape.rank == 4 else None


def _find_folder(handle: str) -> Path:
    """Returns the folder of a module; only a TensorFlow Hub handle needs tensorflow-hub."""
    folder = Path(handle)
    if "://" in handle:
        try:
            import tensorflow_hub

            folder = Path(tensorflow_hub.resolve(handle))
        except ImportError as error:
            raise PresetError(
                f"{KEY}: {handle!r} needs tensorflow-hub: pip install -r requirements-hub.txt, or"
                " give a folder with saved_model.pb"
            ) from error
        except Exception as error:  # whatever the network raises
            raise PresetError(
                f"{KEY}: {handle!r} is not available ({str(error)[:200]}); with internet access,"
                " give a TensorFlow Hub handle (https://tfhub.dev/...), otherwise a folder with"
                " saved_model.pb"
            ) from error
    if not (folder / "saved_model.pb").is_file():
        raise PresetError(
            f"{KEY}: {handle!r} (here {folder.resolve()}) contains no saved_model.pb; give a"
            " folder that does, or a TensorFlow Hub handle (https://tfhub.dev/...); a run looks"
            " where it did in training"
        )
    return folder


def _load(folder: Path) -> Any:
    """Loads a SavedModel once it is known to be harmless and to have the signature."""
    try:
        harmful = find_harmful(SavedModel.FromString((folder / "saved_model.pb").read_bytes()))
        module = None if harmful else tf.saved_model.load(str(folder))
    except Exception as error:  # whatever a damaged one raises
        raise PresetError(
            f"{KEY}: {folder}: is damaged or incomplete; put all of its files there again:"
            f" {shorten(str(error))}"
        ) from error
    if module is None:
        raise PresetError(
            f"{KEY}: {folder}: has operations that may do more than compute, such as touching"
            f" files: {shorten(', '.join(harmful))}"
        )
    taken = {
        name: sorted(of.structured_input_signature[1]) for name, of in module.signatures.items()
    }
    if len(taken.get(SIGNATURE, ())) != 1:
        has = ", ".join(f"{name} of {' and '.join(inputs)}" for name, inputs in taken.items())
        raise ConfigError(
            f"{KEY}: {folder}: needs a signature {SIGNATURE!r} of one input, the photo; has"
            f" {has or 'none'}; export it with such a signature"
        )
    return module


def _encode_examples(png: tf.Tensor) -> tf.Tensor:
    """Serialises `Example(features={"image/encoded": png})`, string (batch,) to string (batch,).

    It uses ops, so that an export can do it without Python, and works from the inside out.
    """
    protos = FileDescriptorSet()
    for message in (tf.train.Feature, tf.train.Example):
        message.DESCRIPTOR.file.CopyToProto(protos.file.add())
    values = png[:, None]  # (batch, 1 repeat of the field)
    for message_type, field, key in _NESTING:
        columns = {"key": tf.fill(tf.shape(values), key)} if key else {}
        columns[field] = values
        encoded = tf.io.encode_proto(
            sizes=tf.ones([tf.shape(values)[0], len(columns)], tf.int32),
            values=list(columns.values()),
            field_names=list(columns),
            message_type=message_type,
            descriptor_source=b"bytes://" + protos.SerializeToString(),
        )  # (batch,)
        values = encoded[:, None]
    return values[:, 0]


_NESTING = (
    ("tensorflow.BytesList", "value", None),
    ("tensorflow.Feature", "bytes_list", None),
    ("tensorflow.Features.FeatureEntry", "value", "image/encoded"),
    ("tensorflow.Features", "feature", None),
    ("tensorflow.Example", "features", None),
)

"""A SavedModel or TensorFlow Hub module as a frozen image encoder: photos in, embeddings out.

Derm Foundation (Google Health, 2024) is one: it takes serialised `tf.train.Example`s that hold a
PNG, and gives 6144 values. What such a module takes is one of

    pixels   float32 (batch, size, size, 3) in [0, 1], TensorFlow Hub's common signature for images
    bytes    string (batch,), a PNG each
    example  string (batch,), a serialised tf.train.Example with the PNG in `image/encoded`

A SavedModel is a program. It is loaded because the configuration names it, and refused if it may do
more than compute (`harmless`).
"""

from pathlib import Path
from typing import Any

import keras
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
    """Embeds photos by a SavedModel, which is never trained.

    Call with photos, float32 (batch, size, size, 3) in [0, 255]; returns float32 (batch,
    dimension).

    Args:
        handle: A folder, or a TensorFlow Hub handle.
        input_kind: "pixels", "bytes" or "example"; None to tell from the signature.
        digest: Of the module's files when the run was started; None if it starts now.
        dimension: Length of an embedding, where it is known.
        **options: Of a Keras layer.

    Attributes:
        input_kind: As above, never None.
        digest: Likewise; with the handle and the input kind it is what rebuilds the layer.
        size_px: Side of the photos that the module takes, 448 where it takes any.

    Raises:
        PresetError: If the module is not available, not safe, or another one than it was.
        ConfigError: If it does not take what `input_kind` says.
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
        shape = taken.shape
        if taken.dtype == tf.string:
            allowed, what = ["bytes", "example"], "strings"
        elif taken.dtype == tf.float32 and shape.rank in (None, 4):
            allowed, what = ["pixels"], "pixels"
            input_kind = input_kind or "pixels"
        else:
            allowed, what = [], f"{taken.dtype.name} {shape}"
        if input_kind not in allowed:
            raise ConfigError(
                f"{KEY}_input: the module takes {what}; allowed: {' or '.join(allowed) or 'none'}"
                " (bytes: a PNG each; example: a tf.train.Example each, as Derm Foundation),"
                f" received {input_kind!r}"
            )
        self.input_kind, self.digest, self.dimension = input_kind, found, dimension
        self.size_px = (shape[1] if shape.rank == 4 else None) or DEFAULT_SIZE_PX

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
            f"{KEY}: {handle!r} holds no saved_model.pb; give a folder that does, or a TensorFlow"
            " Hub handle (https://tfhub.dev/...)"
        )
    return folder


def _load(folder: Path) -> Any:
    """Loads a SavedModel once it is known to be harmless and to have the signature."""
    saved = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    if harmful := find_harmful(saved):
        raise PresetError(
            f"{KEY}: {folder}: has operations that may do more than compute, such as touch files:"
            f" {shorten(', '.join(harmful))}"
        )
    module = tf.saved_model.load(str(folder))
    signature = module.signatures.get(SIGNATURE)
    if signature is None or len(signature.structured_input_signature[1]) != 1:
        raise PresetError(
            f"{KEY}: {folder}: needs a signature {SIGNATURE!r} with one input; has"
            f" {list(module.signatures)}"
        )
    return module


def _encode_examples(png: tf.Tensor) -> tf.Tensor:
    """Serialises `Example(features={"image/encoded": png})`, string (batch,) to string (batch,).

    By ops, so that an export can do it without Python, and from the inside out.
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

"""A SavedModel or TensorFlow Hub module as a frozen image encoder: photos in, one embedding each out.

Derm Foundation (Google Health, 2024) is one: it takes serialised `tf.train.Example`s that hold a
PNG, and gives 6144 values. What such a module takes is one of

    pixels   float32 (batch, size, size, 3) in [0, 1], as TensorFlow Hub's common signature for images says
    bytes    string (batch,), a PNG each
    example  string (batch,), a serialised tf.train.Example with the PNG in its feature `image/encoded`

A SavedModel is a program. It is loaded because the configuration names it, and refused if it reads
or writes files or calls Python.
"""

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from eczema_tf.data.cache import fingerprint
from eczema_tf.errors import ConfigError, PresetError

DEFAULT_SIZE_PX = 448  # what Derm Foundation asks for
FORBIDDEN_OPS = frozenset(
    {"ReadFile", "WriteFile", "PyFunc", "PyFuncStateless", "EagerPyFunc", "LoadLibrary", "PrintV2"}
)
SIGNATURE = "serving_default"
WAYS_TO_PROVIDE = (
    "give a folder with saved_model.pb, or a TensorFlow Hub handle (https://tfhub.dev/...) with"
    " internet access"
)


def describe_saved_model(
    handle: str, input_kind: str | None, size_px: int | None
) -> dict[str, Any]:
    """Loads a module once and says what is needed to rebuild it as an encoder.

    Args:
        handle: A folder, or a TensorFlow Hub handle.
        input_kind: "pixels", "bytes" or "example"; None to tell from the signature.
        size_px: Side of the photo; None for the module's own.

    Returns:
        `settings`, `size_px` and `dimension` of an `EncoderSpec`.

    Raises:
        PresetError: If it cannot be had, or is not safe.
        ConfigError: If it does not take what `input_kind` says.
    """
    folder = _resolve(handle)
    taken = next(iter(_load(folder).signatures[SIGNATURE].structured_input_signature[1].values()))
    kind = _check_input(taken, input_kind)
    size_px = (
        size_px
        or (taken.shape[1] if kind == "pixels" and taken.shape.rank == 4 else None)
        or DEFAULT_SIZE_PX
    )
    settings = {"handle": handle, "input_kind": kind, "digest": _digest(folder)}
    encoder = SavedModelEncoder(0, **settings)
    return {
        "settings": settings,
        "size_px": size_px,
        "dimension": int(encoder(tf.zeros((1, size_px, size_px, 3))).shape[-1]),
    }


@keras.saving.register_keras_serializable("eczema_tf")
class SavedModelEncoder(keras.layers.Layer):
    """Embeds photos by a SavedModel: float32 (batch, size, size, 3) in [0, 255] to float32 (batch, dimension). It is never trained."""

    def __init__(self, dimension: int, handle: str, input_kind: str, digest: str, **options: Any):
        """Loads the module.

        Args:
            dimension: Length of an embedding; 0 if not known yet.
            handle: As in `describe_saved_model`.
            input_kind: "pixels", "bytes" or "example".
            digest: Of the module's files when it was described.
            **options: Of a Keras layer.

        Raises:
            PresetError: If it is another module than it was.
        """
        super().__init__(trainable=False, dtype="float32", **options)
        self.dimension, self.handle, self.input_kind, self.digest = (
            dimension,
            handle,
            input_kind,
            digest,
        )
        folder = _resolve(handle)
        if _digest(folder) != digest:
            raise PresetError(
                f"model.image.saved_model: {handle!r} is not the module that the run was started"
                " with; put that one back"
            )
        self.module = _load(folder)  # an attribute, so that an export saves it too

    def call(self, photos: Any) -> Any:
        """Encodes photos as the module takes them and calls it."""
        embed = self.module.signatures[SIGNATURE]
        (name,) = embed.structured_input_signature[1]
        outputs = embed(**{name: _ENCODE[self.input_kind](photos)})
        embedding = outputs["embedding"] if "embedding" in outputs else next(iter(outputs.values()))
        embedding = tf.reshape(tf.cast(embedding, tf.float32), [tf.shape(photos)[0], -1])
        return tf.ensure_shape(embedding, (None, self.dimension)) if self.dimension else embedding

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(batch, dimension)."""
        return (input_shape[0], self.dimension)

    def get_config(self) -> dict[str, Any]:
        """Says what it is; part of the key of cached features."""
        own = {
            "dimension": self.dimension,
            "handle": self.handle,
            "input_kind": self.input_kind,
            "digest": self.digest,
        }
        return {**super().get_config(), **own}


def _resolve(handle: str) -> Path:
    import tensorflow_hub  # slow, and needed by few

    try:
        folder = Path(tensorflow_hub.resolve(handle))
    except Exception as error:  # whatever the network raises
        raise PresetError(
            f"model.image.saved_model: {handle!r} cannot be had ({str(error)[:200]});"
            f" {WAYS_TO_PROVIDE}"
        ) from error
    if not (folder / "saved_model.pb").is_file():
        raise PresetError(
            f"model.image.saved_model: {handle!r} holds no saved_model.pb; {WAYS_TO_PROVIDE}"
        )
    return folder


def _load(folder: Path) -> Any:
    """Loads a SavedModel once it is known to be harmless and to have the signature."""
    forbidden = _list_ops(folder) & FORBIDDEN_OPS
    if forbidden:
        raise PresetError(
            f"model.image.saved_model: {folder}: has ops that touch files or call Python:"
            f" {', '.join(sorted(forbidden))}"
        )
    module = tf.saved_model.load(str(folder))
    if (
        SIGNATURE not in module.signatures
        or len(module.signatures[SIGNATURE].structured_input_signature[1]) != 1
    ):
        raise PresetError(
            f"model.image.saved_model: {folder}: needs a signature {SIGNATURE!r} with one input;"
            f" has {list(module.signatures)}"
        )
    return module


def _list_ops(folder: Path) -> set[str]:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    graphs = [meta.graph_def for meta in saved.meta_graphs]
    functions = [function for graph in graphs for function in graph.library.function]
    return {node.op for graph in graphs for node in graph.node} | {
        node.op for function in functions for node in function.node_def
    }


def _digest(folder: Path) -> str:
    files = sorted(
        file for file in folder.rglob("*") if file.is_file() and file.name != "fingerprint.pb"
    )
    return fingerprint(
        *[part for file in files for part in (str(file.relative_to(folder)), file.read_bytes())]
    )


def _check_input(taken: tf.TensorSpec, asked: str | None) -> str:
    if taken.dtype == tf.string:
        if asked not in ("bytes", "example"):
            raise ConfigError(
                "model.image.saved_model_input: the module takes strings; allowed: bytes (a PNG"
                " each) or example (a tf.train.Example each, as Derm Foundation), received"
                f" {asked!r}"
            )
        return asked
    if (
        taken.dtype != tf.float32
        or taken.shape.rank not in (None, 4)
        or asked not in (None, "pixels")
    ):
        raise ConfigError(
            f"model.image.saved_model_input: the module takes {taken.dtype.name} {taken.shape},"
            f" received {asked!r}"
        )
    return "pixels"


def _encode_png(photos: tf.Tensor) -> tf.Tensor:
    pixels = tf.saturate_cast(tf.round(photos), tf.uint8)
    return tf.map_fn(tf.io.encode_png, pixels, fn_output_signature=tf.string)


def _encode_example(photos: tf.Tensor) -> tf.Tensor:
    """Serialises `Example(features={"image/encoded": png})` by an op, so that an export can do it without Python."""
    png = tf.expand_dims(
        tf.expand_dims(_encode_png(photos), -1), -1
    )  # (batch, 1 repeat of field, 1)
    return _encode_proto(png)


def _encode_proto(png: tf.Tensor) -> tf.Tensor:
    """Nests BytesList, Feature, FeatureMap entry, Features and Example, from the inside out."""
    values = tf.reshape(png, [-1, 1])
    for message, field, key in _NESTING:
        keys = {} if key is None else {"key": tf.fill(tf.shape(values), key)}
        columns = {**keys, field: values}
        values = tf.io.encode_proto(
            sizes=tf.ones([tf.shape(values)[0], len(columns)], tf.int32),
            values=list(columns.values()),
            field_names=list(columns),
            message_type=message,
            descriptor_source=_DESCRIPTOR,
        )[:, None]
    return values[:, 0]


def _describe_example() -> bytes:
    """The descriptor of tf.train.Example and Feature, as `encode_proto` takes it."""
    files = FileDescriptorSet()
    for message in (tf.train.Feature, tf.train.Example):
        message.DESCRIPTOR.file.CopyToProto(files.file.add())
    return b"bytes://" + files.SerializeToString()


_DESCRIPTOR = _describe_example()
_NESTING = (
    ("tensorflow.BytesList", "value", None),
    ("tensorflow.Feature", "bytes_list", None),
    ("tensorflow.Features.FeatureEntry", "value", "image/encoded"),
    ("tensorflow.Features", "feature", None),
    ("tensorflow.Example", "features", None),
)
_ENCODE = {
    "pixels": lambda photos: photos / 255.0,
    "bytes": _encode_png,
    "example": _encode_example,
}

"""A SavedModel or TensorFlow Hub module as a frozen image encoder: photos in, embeddings out.

Derm Foundation (Google Health, 2024) is one: it takes serialised `tf.train.Example`s that hold a
PNG, and gives 6144 values. What such a module takes is one of

    pixels   float32 (batch, size, size, 3) in [0, 1], TensorFlow Hub's common signature for images
    bytes    string (batch,), a PNG each
    example  string (batch,), a serialised tf.train.Example with the PNG in `image/encoded`

A SavedModel is a program. It is loaded because the configuration names it, and refused if it reads
or writes files or calls Python.
"""

from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from eczema_tf.errors import ConfigError, PresetError
from eczema_tf.files import digest_folder

KEY = "model.image.saved_model"
SIGNATURE = "serving_default"
DEFAULT_SIZE_PX = 448  # what Derm Foundation asks for
FORBIDDEN_OPS = frozenset(
    {"ReadFile", "WriteFile", "PyFunc", "PyFuncStateless", "EagerPyFunc", "LoadLibrary", "PrintV2"}
)


class SavedModelDescription(NamedTuple):
    """What is needed to rebuild a module as an encoder: fields of an `EncoderSpec`."""

    settings: dict[str, str]  # of `SavedModelEncoder`
    size_px: int
    dimension: int


def describe_saved_model(
    handle: str, input_kind: str | None, size_px: int | None
) -> SavedModelDescription:
    """Loads a module once and says what is needed to rebuild it as an encoder.

    Args:
        handle: A folder, or a TensorFlow Hub handle.
        input_kind: "pixels", "bytes" or "example"; None to tell from the signature.
        size_px: Side of the photo; None for the module's own.

    Raises:
        PresetError: If it is not available, or not safe.
        ConfigError: If it does not take what `input_kind` says.
    """
    folder = _find_folder(handle)
    (taken,) = _load(folder).signatures[SIGNATURE].structured_input_signature[1].values()
    if taken.dtype == tf.string:
        if input_kind not in ("bytes", "example"):
            raise ConfigError(
                f"{KEY}_input: the module takes strings; allowed: bytes (a PNG each) or example (a"
                f" tf.train.Example each, as Derm Foundation), received {input_kind!r}"
            )
    elif (
        taken.dtype == tf.float32
        and taken.shape.rank in (None, 4)
        and input_kind in (None, "pixels")
    ):
        input_kind = "pixels"
        if taken.shape.rank == 4:
            size_px = size_px or taken.shape[1]
    else:
        raise ConfigError(
            f"{KEY}_input: the module takes {taken.dtype.name} {taken.shape}, received"
            f" {input_kind!r}"
        )
    size_px = size_px or DEFAULT_SIZE_PX
    settings = {"handle": handle, "input_kind": input_kind, "digest": _digest(folder)}
    embedding = SavedModelEncoder(0, **settings)(tf.zeros((1, size_px, size_px, 3)))
    return SavedModelDescription(settings, size_px, int(embedding.shape[-1]))


@keras.saving.register_keras_serializable("eczema_tf")
class SavedModelEncoder(keras.layers.Layer):
    """Embeds photos by a SavedModel, which is never trained.

    Call with photos, float32 (batch, size, size, 3) in [0, 255]; returns float32 (batch,
    dimension).

    Args:
        dimension: Length of an embedding; 0 if not known yet.
        handle: As in `describe_saved_model`.
        input_kind: "pixels", "bytes" or "example".
        digest: Of the module's files when it was described.
        **options: Of a Keras layer.

    Raises:
        PresetError: If it is another module than it was.
    """

    def __init__(
        self, dimension: int, handle: str, input_kind: str, digest: str, **options: Any
    ) -> None:
        super().__init__(trainable=False, dtype="float32", **options)
        folder = _find_folder(handle)
        if _digest(folder) != digest:
            raise PresetError(
                f"{KEY}: {handle!r} is not the module that the run was started with; put that one"
                " back"
            )
        self.module = _load(folder)  # an attribute, so that an export saves it too

        # === Config ===
        self.dimension = dimension
        self.handle = handle
        self.input_kind = input_kind
        self.digest = digest

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
        return tf.ensure_shape(embedding, (None, self.dimension)) if self.dimension else embedding

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(batch, dimension)."""
        return (input_shape[0], self.dimension)

    def get_config(self) -> dict[str, Any]:
        """Says what it is; part of the key of cached features."""
        own = ("dimension", "handle", "input_kind", "digest")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


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
    graphs = [meta.graph_def for meta in saved.meta_graphs]
    ops = {node.op for graph in graphs for node in graph.node}
    for function in (function for graph in graphs for function in graph.library.function):
        ops |= {node.op for node in function.node_def}
    if ops & FORBIDDEN_OPS:
        raise PresetError(
            f"{KEY}: {folder}: has ops that touch files or call Python:"
            f" {', '.join(sorted(ops & FORBIDDEN_OPS))}"
        )
    module = tf.saved_model.load(str(folder))
    signature = module.signatures.get(SIGNATURE)
    if signature is None or len(signature.structured_input_signature[1]) != 1:
        raise PresetError(
            f"{KEY}: {folder}: needs a signature {SIGNATURE!r} with one input; has"
            f" {list(module.signatures)}"
        )
    return module


def _digest(folder: Path) -> str:
    return digest_folder(folder, ignored=["fingerprint.pb"])[:32]


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

"""Reads the tensors of a PyTorch checkpoint in the format before 1.6, without PyTorch.

Such a file is five pickles (magic number, protocol, properties of the machine, the object, keys of
its storages), and then each storage as an int64 count and its raw elements. A pickle is a program:
this reader lets it build dictionaries and tensors, and call nothing else.
"""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eczema_tf.errors import PresetError, shorten

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # torch.serialization, as is the next
PROTOCOL = 1001
STORAGES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


class _Storage(NamedTuple):
    dtype: str
    key: str


class _Tensor(NamedTuple):
    """The arguments of `torch._utils._rebuild_tensor_v2`, counts in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    requires_grad: bool
    backward_hooks: Any


ADMITTED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    **{("torch", name): dtype for name, dtype in STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Knows exactly the names in `ADMITTED`; refuses anything else that a pickle asks for."""

    def find_class(self, module: str, name: str) -> Any:
        """Called for every global that a pickle names."""
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"asks for {module}.{name}, which no tensor needs")
        return ADMITTED[module, name]

    def persistent_load(self, reference: Any) -> _Storage:
        """Called for every storage: ("storage", type, key, device, elements, None)."""
        _, dtype, key, _, _, _ = reference
        return _Storage(dtype, key)


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Reads a `state_dict`.

    Args:
        path: Path of a file whose hash was checked: it cannot run anything, but it can be large.

    Returns:
        The tensors in the order of the file, each an array of its own.

    Raises:
        PresetError: If the file is not such a checkpoint, is cut short, or asks for more than
            tensors.
    """
    try:
        with path.open("rb") as file:
            magic, protocol, _, tensors, keys = (_Unpickler(file).load() for _ in range(5))
            if (magic, protocol) != (MAGIC_NUMBER, PROTOCOL):
                raise ValueError("no PyTorch checkpoint of the old format")
            dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in tensors.values()}
            storages = {}
            for key in keys:
                count = int.from_bytes(file.read(8), "little")
                storages[key] = np.fromfile(file, dtypes[key], count)
                if len(storages[key]) != count:
                    raise ValueError("cut short")
        return {name: _lay_out(storages, tensor) for name, tensor in tensors.items()}
    except Exception as error:  # a broken pickle raises whatever its opcodes run into
        raise PresetError(f"{path}: not readable as a checkpoint: {shorten(str(error))}") from error


def _lay_out(storages: dict[str, np.ndarray], tensor: _Tensor) -> np.ndarray:
    """Copies a tensor out of its storage, whose elements may be in any order."""
    elements = storages[tensor.storage.key][tensor.offset :]
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = sum((length - 1) * stride for length, stride in steps)
    inside = 0 <= last < len(elements) and np.prod(tensor.shape) <= len(elements)
    if not inside or min(tensor.offset, *tensor.shape, *tensor.strides, 0) < 0:
        raise ValueError("a tensor lies outside its storage")
    strides = [stride * elements.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(elements, tensor.shape, strides).copy()

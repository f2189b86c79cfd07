"""Settings that depend on the device: mixed precision, XLA, determinism, and the one seed."""

import keras
import tensorflow as tf

from eczema_tf.config import TrainConfig


def prepare_device(config: TrainConfig, seed: int) -> None:
    """Seeds Python, NumPy and Keras, and sets the dtype policy. Call before anything is built."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy("mixed_float16" if is_on(config.mixed_precision) else "float32")


def leave_mixed_precision() -> bool:
    """Goes back to float32, to judge and export models; returns whether that is a change.

    The policy is global: whatever is built after training would be float16, too.
    """
    mixed = keras.config.dtype_policy().name != "float32"
    keras.config.set_dtype_policy("float32")
    return mixed


def is_on(choice: str) -> bool:
    """Whether a setting is "on", or "auto" where there is a GPU."""
    return choice == "on" or (choice == "auto" and bool(tf.config.list_physical_devices("GPU")))

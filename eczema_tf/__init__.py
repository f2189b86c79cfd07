"""A multimodal assistant for eczema assessment, for education and research, not for diagnosis.

The names below are the Python API. Each is looked up on first use, so importing the package loads
neither TensorFlow nor pandas.
"""

from importlib import import_module

__version__ = "0.2.0"

_API = {
    "Answer": "eczema_tf.reporting.answer:Answer",
    "load_config": "eczema_tf.config:load_config",
    "load_export": "eczema_tf.serving.exported:ExportedModel",
    "load_run": "eczema_tf.workflows.run:Run",
    "prepare_dermavqa": "eczema_tf.data.sources.dermavqa:prepare_dermavqa",
    "prepare_folder": "eczema_tf.data.sources.folder:prepare_folder",
    "prepare_scin": "eczema_tf.data.sources.scin:prepare_scin",
    "prepare_synthetic": "eczema_tf.data.sources.synthetic:prepare_synthetic",
    "prepare_table": "eczema_tf.data.sources.table:prepare_table",
    "train_run": "eczema_tf.workflows.run:train_run",
}


def __getattr__(name: str) -> object:
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _API[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_API])

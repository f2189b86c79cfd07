# The Python API for type checkers; `__init__.py` looks these names up when they are first used.
from eczema_tf.config import load_config as load_config
from eczema_tf.data.sources.dermavqa import prepare_dermavqa as prepare_dermavqa
from eczema_tf.data.sources.folder import prepare_folder as prepare_folder
from eczema_tf.data.sources.scin import prepare_scin as prepare_scin
from eczema_tf.data.sources.synthetic import prepare_synthetic as prepare_synthetic
from eczema_tf.data.sources.table import prepare_table as prepare_table
from eczema_tf.reporting.answer import Answer as Answer
from eczema_tf.serving.exported import ExportedModel
from eczema_tf.workflows.run import Run
from eczema_tf.workflows.run import train_run as train_run

__version__: str
load_export = ExportedModel
load_run = Run

"""What a run is: one strict, typed, frozen configuration.

It comes from YAML files and `--set a.b=c` overrides. The defaults are those of the quickstart:
`configs/quickstart.yaml` spells them out, and every other file says only what differs. Unknown keys
and wrong types are errors, which are all reported at once.
"""

from eczema_tf.config.loading import change_config, dump_config, load_config
from eczema_tf.config.section import Section
from eczema_tf.config.sections import (
    MAX_TOKENS,
    AugmentConfig,
    ColumnName,
    Config,
    DataConfig,
    FineTuneConfig,
    ImageConfig,
    ModelConfig,
    PreprocessConfig,
    TextConfig,
    TrainConfig,
)
from eczema_tf.config.yaml_file import read_yaml

__all__ = [
    "MAX_TOKENS",
    "AugmentConfig",
    "ColumnName",
    "Config",
    "DataConfig",
    "FineTuneConfig",
    "ImageConfig",
    "ModelConfig",
    "PreprocessConfig",
    "Section",
    "TextConfig",
    "TrainConfig",
    "change_config",
    "dump_config",
    "load_config",
    "read_yaml",
]

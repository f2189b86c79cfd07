"""What every section of a configuration has in common: how its values are checked."""

from collections.abc import Iterable, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from eczema_tf.config.faults import describe_faults
from eczema_tf.errors import ConfigError, join_faults


class Section(BaseModel):
    """A part of a configuration: no unknown keys, no silent conversion, no change after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "configuration") -> Self:
        """Checks plain values, such as those of a YAML file.

        Raises:
            ConfigError: If any are not valid; the message lists every fault.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            faults = describe_faults(error, cls)
            raise ConfigError(join_faults(f"{where} is not valid", faults)) from error

    def _find_faults(self) -> Iterable[str]:
        """Yields what is wrong with values that are each allowed, but not in combination."""
        return ()

    @model_validator(mode="before")
    @classmethod
    def _accept_comments_alone(cls, values: Any) -> Any:
        return {} if values is None else values

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if faults := "; ".join(self._find_faults()):
            raise ValueError(faults)
        return self

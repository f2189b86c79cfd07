"""What pydantic found wrong, in words that say how to fix it."""

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from eczema_tf.errors import shorten


def describe_faults(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Says what pydantic found wrong, one line per fault: where, allowed values, received value.

    Args:
        error: The error that pydantic raised.
        model: The model that the values were checked against.
    """
    lines = []
    for fault in error.errors():
        key = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            *sections, unknown = map(str, fault["loc"])
            key = shorten(key)
            section = model
            for name in sections:
                if name in section.model_fields:
                    section = next(_find_models(section.model_fields[name].annotation), section)
            close = difflib.get_close_matches(unknown, section.model_fields, n=1)
            allowed = f"allowed: {', '.join(section.model_fields)}"
            lines.append(
                f"{key}: unknown key; {f'did you mean {close[0]!r}?' if close else allowed}"
            )
        else:
            message = fault["msg"].removeprefix("Value error, ")
            received = f", received {shorten(repr(fault['input']))}"
            received = "" if isinstance(fault["input"], dict) else received
            lines.append(f"{key}: {message[0].lower()}{message[1:]}{received}")
    return lines


def _find_models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Finds the models in a type, such as `Rule` in `dict[str, Rule] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _find_models(part)

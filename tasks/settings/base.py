"""What all settings are: frozen, and strict about names and values."""

import json
from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator


class Settings(BaseModel):
    """Frozen, and strict about names: a mistyped setting never passes silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    former_names: ClassVar[Mapping[str, str]] = {}
    """Names of settings in earlier versions, which files, commands and finished runs may still use."""

    def __hash__(self) -> int:
        """Of values that may be dictionaries, which have no hash of their own; equal settings have the same."""
        return hash(json.dumps(self.model_dump(mode="json"), sort_keys=True))

    @model_validator(mode="before")
    @classmethod
    def _known_by_former_names(cls, values: Any) -> Any:
        """Of a setting under both names, the last one counts: `--set` puts its own last."""
        if not isinstance(values, Mapping):
            return values
        return {cls.former_names.get(name, name): value for name, value in values.items()}

    @field_validator("*", mode="before")
    @classmethod
    def _yes_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads `yes` as true, and Python true as 1."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("yes and no are no values of this setting")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _at_home(cls, value: Any) -> Any:
        """`~` is the user's own folder, wherever a path may stand: no shell replaces it behind `--set NAME=`."""
        if isinstance(value, list | tuple):
            return [cls._at_home(each) for each in value]
        return str(Path(value).expanduser()) if isinstance(value, str) and value[:2] in ("~", "~/") else value


def square(number: int | None, name: str) -> int | None:
    """The number, if it is a square or None. Raises ValueError, with the setting's name, if not."""
    if number is not None and isqrt(number) ** 2 != number:
        raise ValueError(f"{name} must be a square number, as 4, 9 or 16, found {number}")
    return number

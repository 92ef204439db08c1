"""The study as people write it: a YAML file, `a.b=c` on the command line, and what `--help` says of each setting."""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tasks.errors import StudyError
from tasks.settings import Study


def describe(model: type[BaseModel] = Study, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Every setting as (dotted name, default, description), in the order of the file."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from describe(field.annotation, f"{prefix}{name}.")
        else:
            default = field.get_default()
            shown = list(default) if isinstance(default, tuple) else default
            yield (
                f"{prefix}{name}",
                yaml.safe_dump(shown, default_flow_style=True).split("\n")[0],
                str(field.description),
            )


def load_study(file: Path | None = None, assignments: tuple[str, ...] = ()) -> Study:
    """The study of a YAML file, with `a.b=c` assignments on top (values are read as YAML).

    Raises StudyError, naming the setting, where a name is unknown or a value does not fit.
    """
    values = _read_yaml(file) if file else {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise StudyError(f"Expected --set NAME=VALUE, found {assignment!r}: write it as --set retrieval.k=5.")
        _assign(values, name.strip(), _parse(name, text))
    _refuse_unknown_names(values, Study, "")
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        raise StudyError(_first_problem(error)) from None


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"Cannot read the settings file {file}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise StudyError(f"Expected YAML in {file}, found something else ({reason}): correct the file.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise StudyError(f"Expected settings by name in {file}, found a {type(values).__name__}: write `seed: 0`.")
    return values


def _parse(name: str, text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise StudyError(f"Cannot read the value of {name.strip()}: found {text!r}; quote it as YAML.") from None
    # YAML 1.1 reads 1e-3 as text; people mean the number.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _assign(values: dict[str, Any], name: str, value: Any) -> None:
    *parents, leaf = name.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise StudyError(f"Expected a group of settings at {parent!r} in {name!r}, found {inner!r}.")
        values = inner
    values[leaf] = value


def _refuse_unknown_names(values: Mapping[str, Any], model: type[BaseModel], prefix: str) -> None:
    for name, value in values.items():
        field = model.model_fields.get(str(name))
        if field is None:
            unknown = f"{prefix}{name}"
            while isinstance(value, Mapping) and value:  # of an unknown group, the first setting
                name, value = next(iter(value.items()))
                unknown += f".{name}"
            raise StudyError(f"Unknown setting {unknown}: {_nearest(unknown)}.")
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            if not isinstance(value, Mapping):
                raise StudyError(f"Expected a group of settings at {prefix}{name}, found {value!r}.")
            _refuse_unknown_names(value, inner, f"{prefix}{name}.")


def _nearest(name: str) -> str:
    known = [setting for setting, _, _ in describe()]
    group, _, leaf = name.rpartition(".")
    found = (
        [setting for setting in known if leaf and setting.startswith(group) and leaf == _initials(setting)]
        or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        or [setting for setting in known if setting.split(".")[-1] == leaf]
    )
    return f"did you mean {found[0]}" if found else "`fed-rag run --help` lists all of them"


def _initials(setting: str) -> str:
    """`lr` of `federation.learning_rate`."""
    words = setting.split(".")[-1].split("_")
    return "".join(word[0] for word in words) if len(words) > 1 else ""


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    name = ".".join(_setting(problem["loc"]))
    return f"Setting {name} does not fit: {problem['msg'].removeprefix('Value error, ')}, found {problem['input']!r}."


def _setting(place: tuple[int | str, ...]) -> Iterator[str]:
    """The names and list places on the way to a value, without the kinds of value that Pydantic tried there."""
    model: Any = Study
    for part in place:
        if isinstance(part, int):
            yield str(part)
        elif isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            yield part
            model = model.model_fields[part].annotation

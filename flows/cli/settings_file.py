"""The settings of a study, a comparison, a table of attacks, a recipe or a hospital as people write them.

A YAML file, `a.b=c` on the command line, and what `--help` says of each setting.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from flows.cli.setting_values import YamlError, field_type, read_value, read_values, read_yaml
from tasks.errors import StudyError
from tasks.settings import Settings, Study
from tasks.settings.attack import AttackTable
from tasks.settings.comparison import SWEEPS, Comparison
from tasks.settings.dotted import assign
from tasks.settings.hospital import HospitalSettings
from tasks.settings.recipe import Recipe
from tasks.store.shipped import ROOT

Model = TypeVar("Model", bound=BaseModel)
HELP: dict[type[BaseModel], str] = {
    Study: "run",
    Comparison: "compare",
    Recipe: "pretrain",
    AttackTable: "attack",
    HospitalSettings: "hospital check",
}
"""The command whose help lists a model's settings."""


def describe(model: type[BaseModel] = Study, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Every setting as (dotted name, default, description), in the order of the file."""
    for name, field in model.model_fields.items():
        inner, many = _group(field.annotation)
        if inner:
            yield from describe(inner, f"{prefix}{name}.{'N.' if many else ''}")
        elif field.is_required():
            yield f"{prefix}{name}", "required", str(field.description)
        else:
            default = field.get_default()
            yield f"{prefix}{name}", _as_written(default), str(field.description)


def _as_written(default: Any) -> str:
    """A value as it may stand behind `NAME=`."""
    if isinstance(default, str | Path):
        return str(default)
    plain = list(default) if isinstance(default, tuple) else default
    return yaml.safe_dump(plain, default_flow_style=True, width=math.inf).split("\n")[0]


def _group(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The settings that a field holds, if it holds a group of them, or a list of groups (True)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    found = [each for each in get_args(annotation) if isinstance(each, type) and issubclass(each, BaseModel)]
    return (found[0], get_origin(annotation) is tuple) if found else (None, False)


def load_study(file: Path | None = None, assignments: tuple[str, ...] = ()) -> Study:
    """The study of a YAML file, with `a.b=c` assignments on top.

    Raises StudyError, naming the setting, where a name is unknown or a value does not fit.
    """
    return _validated(Study, _assigned(_read_file(file, Study), assignments, Study))


def load_recipe(file: Path | None, assignments: tuple[str, ...] = ()) -> Recipe:
    """The recipe of a YAML file, with assignments on top; `stages.0.epochs=3` is of the first stage.

    Raises StudyError as `load_study` does.
    """
    return _validated(Recipe, _assigned(_read_file(file, Recipe), assignments, Recipe))


def load_hospital(file: Path) -> HospitalSettings:
    """The settings of a hospital on a machine of its own, from a YAML file.

    Raises StudyError as `load_study` does.
    """
    return _validated(HospitalSettings, _read_file(file, HospitalSettings))


def load_attacks(file: Path | None = None, assignments: tuple[str, ...] = ()) -> AttackTable:
    """The table of attacks of a YAML file, with assignments on top.

    Raises StudyError as `load_study` does.
    """
    return _validated(AttackTable, _assigned(_read_file(file, AttackTable), assignments, AttackTable))


def load_comparison(
    file: Path | None = None,
    assignments: tuple[str, ...] = (),
    sweeps: tuple[str, ...] = (),
    study: Path | None = None,
) -> Comparison:
    """The comparison of a YAML file, with assignments on top, and sweeps beside those of the file.

    With `study`, the settings file of a study, there is no `file`: that study is the base of a comparison by defaults.
    A sweep is `retrieval.k=0,1,3`, or one of the names in SWEEPS. Raises StudyError as `load_study` does, for the
    settings that configurations and sweeps change too.
    """
    values = {"study": _read_file(study, Study)} if study else _read_file(file, Comparison)
    _assigned(values, assignments, Comparison)
    swept = values.setdefault("sweeps", {})
    for sweep in sweeps:
        name, equals, text = sweep.partition("=")
        if not equals and name not in SWEEPS:
            raise StudyError(
                f"Expected --sweep NAME=VALUE,VALUE or one of {', '.join(SWEEPS)}, found {sweep!r}: write it as "
                "--sweep retrieval.k=0,1,3."
            )
        if isinstance(swept, dict):  # other types are reported below
            swept[name] = _parsed(name, text, Study, read_values) if equals else SWEEPS[name]
    for name, changes in _changes(values):
        _refuse_unknown_names({name: changes}, Study, "")
    return _validated(Comparison, values)


def _changes(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The settings of a study that configurations and sweeps change, each as a group of its own."""
    named = values.get("configurations"), values.get("sweeps")
    configurations, sweeps = (each if isinstance(each, Mapping) else {} for each in named)
    groups = list(configurations.values())
    for sweep, points in sweeps.items():
        for point in points if isinstance(points, list | tuple) else ():
            groups.append(point if isinstance(point, Mapping) else {sweep: point})
    for group in groups:
        for name, value in group.items() if isinstance(group, Mapping) else ():
            nested: dict[str, Any] = {}
            assign(nested, str(name), value)
            yield from nested.items()


def _assigned(values: dict[str, Any], assignments: tuple[str, ...], model: type[BaseModel]) -> dict[str, Any]:
    """The values, changed in place by the assignments."""
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise StudyError(f"Expected --set NAME=VALUE, found {assignment!r}: write it as --set retrieval.k=5.")
        assign(values, name.strip(), _parsed(name.strip(), text, model, read_value))
    return values


def _parsed(name: str, text: str, model: type[BaseModel], read: Callable[[str, Any], Any]) -> Any:
    try:
        return read(text, field_type(name, model))
    except YamlError:
        raise StudyError(f"Cannot read the value of {name}: found {text!r}; quote it as YAML.") from None


def _validated(model: type[Model], values: Mapping[str, Any]) -> Model:
    _refuse_unknown_names(values, model, "")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise StudyError(_first_problem(error, model)) from None


def _read_file(file: Path | None, model: type[BaseModel]) -> dict[str, Any]:
    """The values of a settings file; none without a file."""
    if file is None:
        return {}
    shipped = ROOT / file
    if file.parts[:1] == ("data",) and not file.exists() and shipped.is_file():
        file = shipped  # `data/recipes/NAME.yaml`, as documents name it, in any folder
    try:
        values = read_yaml(file.read_text(encoding="utf-8"), model)
    except OSError as error:
        raise StudyError(f"Cannot read the settings file {file}: {error.strerror}.") from None
    except (YamlError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise StudyError(f"Expected YAML in {file}, found something else ({reason}): correct the file.") from None
    except StudyError as error:
        raise StudyError(f"{file}: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise StudyError(f"Expected settings by name in {file}, found a {type(values).__name__}: write `seed: 0`.")
    return values


def _refuse_unknown_names(
    values: Mapping[str, Any], model: type[BaseModel], prefix: str, top: type[BaseModel] | None = None
) -> None:
    """Raise StudyError at the first name that is no setting; `top` is the model that the names begin at."""
    top = top or model
    for name, value in values.items():
        former = model.former_names if issubclass(model, Settings) else {}
        field = model.model_fields.get(former.get(str(name), str(name)))
        if field is None:
            unknown = f"{prefix}{name}"
            while isinstance(value, Mapping) and value:  # of an unknown group, the first setting
                name, value = next(iter(value.items()))
                unknown += f".{name}"
            raise StudyError(f"Unknown setting {unknown}: {_nearest(unknown, top)}.")
        inner, many = _group(field.annotation)
        if inner is None or (value is None and not field.is_required() and field.get_default() is None):
            continue
        if many and not isinstance(value, list):
            raise StudyError(f"Expected a list of groups of settings at {prefix}{name}, found {value!r}.")
        for number, group in enumerate(value if many else [value]):
            place = f"{prefix}{name}.{number}" if many else f"{prefix}{name}"
            if not isinstance(group, Mapping):
                raise StudyError(f"Expected a group of settings at {place}, found {group!r}.")
            _refuse_unknown_names(group, inner, f"{place}.", top)


def _nearest(name: str, model: type[BaseModel]) -> str:
    known = [setting for setting, _, _ in describe(model)]
    name = re.sub(r"\.\d+\.", ".N.", name)
    group, _, leaf = name.rpartition(".")
    found = (
        [setting for setting in known if leaf and setting.startswith(group) and leaf == _initials(setting)]
        or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        or [setting for setting in known if setting.split(".")[-1] == leaf]
    )
    return f"did you mean {found[0]}" if found else f"`fed-rag {HELP[model]} --help` lists all of them"


def _initials(setting: str) -> str:
    """`lr` of `federation.learning_rate`."""
    words = setting.split(".")[-1].split("_")
    return "".join(word[0] for word in words) if len(words) > 1 else ""


def _first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    problem = error.errors()[0]
    name = ".".join(_setting(problem["loc"], model))
    if problem["type"] == "missing":
        return f"Expected a value of {name}, found none: set it in the file or with --set."
    if not name:  # what does not fit together
        return f"These settings do not fit: {problem['msg'].removeprefix('Value error, ')}."
    return f"Setting {name} does not fit: {problem['msg'].removeprefix('Value error, ')}, found {problem['input']!r}."


def _setting(place: tuple[int | str, ...], model: Any) -> Iterator[str]:
    """The names and list places on the way to a value, without the kinds of value that Pydantic tried there."""
    for part in place:
        if isinstance(part, int):
            yield str(part)
        elif isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            yield part
            annotation = model.model_fields[part].annotation
            model = _group(annotation)[0] or annotation

"""Values of settings as people write them, in a YAML file or on the command line, each read as what it is for.

A path or a text is taken as it is written, where YAML would make a number of `010`, a date of `2024-01-15` and no of
`off`. Everything else is YAML.
"""

import re
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel

from tasks.errors import StudyError
from tasks.settings import Study
from tasks.settings.dotted import assign

NULL = "tag:yaml.org,2002:null"
BOOLEANS = {"true": True, "false": False}
"""What YAML 1.2 takes for yes and no; `off` and `no` are words, and a setting of yes or no takes these as well."""


class YamlError(ValueError):
    """What is no YAML, or none of settings; in a phrase."""


def read_yaml(text: str, model: type[BaseModel]) -> Any:
    """The settings of a YAML text, those of `model` at its top.

    Raises YamlError for what is no YAML, and StudyError where a name stands twice.
    """
    return _read(text, model)


def read_value(text: str, annotation: Any) -> Any:
    """The value of one setting of this type, None for an unknown one, as it is written behind `NAME=`.

    Raises YamlError for what is no YAML where YAML is expected.
    """
    text = text.strip()
    listed = text.startswith("[") and (annotation is None or takes_list(annotation))
    if not takes_text(annotation) or listed or text in ("", "null"):
        return _read(text, annotation)
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if quoted else text


def read_values(text: str, annotation: Any) -> list[Any]:
    """Several values of one setting, parted by commas.

    Raises YamlError as `read_value` does.
    """
    found = _read(f"[{text}]", annotation)
    return list(found)


def field_type(name: str, model: type[BaseModel]) -> Any:
    """The type of a setting by its dotted name; None where there is none, or it is one of several."""
    place: Any = model
    for part in name.split("."):
        groups = [each for each in (place, *get_args(place)) if _is_group(each)]
        if part.isdigit() and get_origin(place) is tuple:
            continue
        if not groups or part not in groups[0].model_fields:
            return None
        place = groups[0].model_fields[part].annotation
    return place


def takes_text(annotation: Any) -> bool:
    """Whether a setting of this type, or each item of it, is a path, a text or one of several words, and no number."""
    if get_origin(annotation) is Literal:
        return all(isinstance(each, str) for each in get_args(annotation))
    if get_origin(annotation) is dict:
        return False
    parts = [each for each in get_args(annotation) if each not in (NoneType, Ellipsis)]
    return annotation in (str, Path) or (bool(parts) and all(map(takes_text, parts)))


def takes_list(annotation: Any) -> bool:
    """Whether a setting of this type may be a list."""
    return get_origin(annotation) is tuple or any(map(takes_list, get_args(annotation)))


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _read(text: str, annotation: Any) -> Any:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return None if node is None else _value(node, annotation)
    except (yaml.YAMLError, RecursionError) as error:  # the second of a list that holds itself
        raise YamlError(" ".join(str(error).split())) from None


def _value(node: yaml.Node, annotation: Any) -> Any:
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        return _mapping(node, annotation)
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return [_value(each, annotation) for each in node.value]
    if not isinstance(node, yaml.ScalarNode) or not node.tag.startswith("tag:yaml.org,2002:"):
        raise YamlError(f"the tag {node.tag}")
    plain = node.style is None
    if not plain or takes_text(annotation):
        return None if plain and node.tag == NULL else str(node.value)
    return _scalar(str(node.value), node.tag)


def _scalar(text: str, tag: str) -> Any:
    """A number, yes or no, nothing, or else a text."""
    if tag == NULL:
        return None
    if re.fullmatch(r"[-+]?[0-9]+", text):
        return int(text)
    if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text):  # people who write 1e-3 mean it
        return float(text)
    return BOOLEANS.get(text.lower(), text)


def _mapping(node: yaml.MappingNode, annotation: Any) -> dict[str, Any]:
    """Settings by their names; within a group a dotted name is the setting of that place."""
    group = next((each for each in (annotation, *get_args(annotation)) if _is_group(each)), None)
    found: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in lines:
            raise StudyError(_twice(name, lines[name], line))
        lines[name] = line
        found[name] = _value(value, field_type(name, group or Study))
    for name in [each for each in found if group and "." in each]:
        value = found.pop(name)
        if _holds(found, name.split(".")):
            raise StudyError(_twice(name, lines.get(name.split(".")[0], lines[name]), lines[name]))
        assign(found, name, value)
    return found


def _twice(name: str, line: int, other: int) -> str:
    return (
        f"Expected each setting once, found {name} in line {line} and again in line {other}: "
        "keep one of the two, or put what belongs together under one name."
    )


def _holds(place: Any, parts: list[str]) -> bool:
    """Whether a setting has its value already."""
    for part in parts:
        if isinstance(place, list) and part.isdigit() and int(part) < len(place):
            place = place[int(part)]
        elif isinstance(place, dict) and part in place:
            place = place[part]
        else:
            return False
    return True

"""Settings changed by their dotted names: by `--set`, in a file, and by the cells of a comparison.

Libraries that do this do something else besides. OmegaConf 2.4 replaces a value by a group (`seed.x=1`), counts a
list's items from its end too (`stages.-1`), merges groups, and reads `${` in a path as a reference. pydantic-settings
2.16 does not name an item of a list (`stages.0.epochs`), and answers an unknown name with a usage text of its own.
"""

from typing import Any

from tasks.errors import StudyError


def assign(values: dict[str, Any], name: str, value: Any) -> None:
    """Put a value in the place of its dotted name; a number names an item of a list.

    Raises StudyError where there is no such place.
    """
    place: Any = values
    *parents, leaf = name.split(".")
    for parent in parents:
        inner = place[_index(place, parent, name)] if isinstance(place, list) else place.setdefault(parent, {})
        if not isinstance(inner, dict | list):
            raise StudyError(f"Expected a group of settings at {parent!r} in {name!r}, found {inner!r}.")
        place = inner
    place[_index(place, leaf, name) if isinstance(place, list) else leaf] = value


def _index(items: list[Any], part: str, name: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise StudyError(f"Expected a number from 0 to {len(items) - 1} at {part!r} in {name!r}: name one of the list.")
    return int(part)

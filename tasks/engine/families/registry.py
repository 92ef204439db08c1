"""All families and their presets; a new family is a file in this folder and a line here."""

from tasks.engine.families.family import Family, Preset
from tasks.engine.families.fast_vlm import FastVlm
from tasks.engine.families.llava import Llava
from tasks.engine.families.paligemma import PaliGemma
from tasks.engine.families.qwen_vl import QwenVL
from tasks.errors import StudyError

FAMILIES: tuple[Family, ...] = (QwenVL(), Llava(), PaliGemma(), FastVlm())
PRESETS: dict[str, Preset] = {name: preset for family in FAMILIES for name, preset in family.presets.items()}
"""Short names that `model.name` accepts."""


def family_of(model_type: str, place: str) -> Family:
    """The family that serves a model type of `config.json`.

    Raises StudyError if none does; `place` is the name of the model in that message.
    """
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    refuse_foreign(model_type, place)
    raise StudyError(
        f"{_expected()}, found {place} of type {model_type}: choose another, as one of the presets "
        f"{', '.join(PRESETS)}."
    )


def refuse_foreign(model_type: str, place: str) -> None:
    """Raise StudyError if the type is a known model in a layout that transformers cannot read."""
    for family in FAMILIES:
        if model_type in family.foreign:
            raise StudyError(f"{_expected()}, found {place} of type {model_type}: {family.foreign[model_type]}.")


def _expected() -> str:
    known = ", ".join(each for family in FAMILIES for each in family.model_types)
    return f"Expected model.name to be a vision-language model of one of the types {known}"

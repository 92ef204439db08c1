"""The settings of a comparison, and the studies that it consists of: each cell is one study, changed from a base study.

An experiment is settings: a configuration, a split and a point of a sweep are all the same thing, a few settings that
differ from the base study.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from tasks.errors import StudyError
from tasks.settings import Settings, Study
from tasks.settings.dotted import assign

Changes = dict[str, Any]
"""Settings by their dotted names, as `{"retrieval.k": 0}`."""

CONFIGURATIONS: dict[str, Changes] = {
    "centralised+rag": {"partition.hospitals": 1, "federation.strategy": "fedavg"},
    "fed+rag": {},
    "fed": {"retrieval.k": 0},
    "fed-llava-med": {"model.name": "llava-med-7b", "retrieval.k": 0},
    "local+rag": {"federation.strategy": "none"},
}
SWEEPS: dict[str, tuple[Any, ...]] = {
    "hospitals": tuple({"partition.hospitals": count, "partition.scheme": "dirichlet"} for count in (2, 3, 5, 10)),
    "retrieved": tuple({"retrieval.k": k} for k in (0, 1, 3, 5, 10)),
    "local-epochs": tuple({"federation.local_epochs": epochs} for epochs in (1, 2, 4)),
    "rounds": tuple({"federation.rounds": rounds} for rounds in (1, 2, 4, 8)),
    "alpha": (
        *({"partition.scheme": "dirichlet", "partition.alpha": alpha} for alpha in (0.1, 0.5, 1)),
        {"partition.scheme": "iid"},
    ),
    "kind": tuple({"partition.kind": kind} for kind in ("all", "closed", "open")),
    "training-share": tuple({"partition.training_share": share} for share in (0.1, 0.25, 0.5, 1)),
}
"""Sweeps that have a name; any other is a setting with a list of values."""


class Comparison(Settings):
    """Several configurations on the same cases, seeds and budget; and sweeps over settings."""

    name: str = Field("comparison", pattern=r"^[A-Za-z0-9._-]*[A-Za-z0-9]$")
    """Folder under artifacts/comparisons that receives the comparison."""
    study: Study = Study()
    """The base study: what the configurations have in common."""
    configurations: dict[str, Changes] = Field(CONFIGURATIONS, min_length=1)
    """What each configuration changes in the base study, as {fed: {retrieval.k: 0}}."""
    reference: str = "fed+rag"
    """The configuration that the others are tested against; its runs give the untrained base and the baselines."""
    seeds: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1)
    """Seeds of the study; each configuration is trained once with each. One tells nothing of training's own chance."""
    splits: tuple[Literal["none", "image", "near_duplicate", "patient"], ...] = Field(("none", "image"), min_length=1)
    """Values of partition.disjoint side by side: `none` is the published split."""
    sweeps: dict[str, tuple[Any, ...]] = Field({})
    """Settings to be swept, each with its values, as {retrieval.k: [0, 1, 3]}; a value may be a group of settings."""
    swept: str = "fed+rag"
    """The configuration that is swept."""
    cost: bool = True
    """Measure the largest memory of each model in a process of its own."""

    @field_validator("seeds", "splits")
    @classmethod
    def _each_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) < len(values):
            raise ValueError("each may stand there once")
        return values

    @model_validator(mode="after")
    def _fits(self) -> "Comparison":
        for name in (self.reference, self.swept):
            if name not in self.configurations:
                raise ValueError(f"{name} is none of the configurations {', '.join(self.configurations)}")
        for name, points in self.sweeps.items():
            if not points:
                raise ValueError(f"sweep {name} has no value")
        for cell in cells(self):  # each of them is a study that can be run
            assert cell.study
        return self


@dataclass(frozen=True)
class Cell:
    """One study of a comparison."""

    part: str
    """`configurations`, or the sweep's name."""
    name: str
    """The configuration's name, or the point's label."""
    split: str
    seed: int
    study: Study

    @property
    def title(self) -> str:
        """As it is called in messages."""
        sweep = "" if self.part == "configurations" else f"{self.part} "
        return f"{sweep}{self.name}, split {self.split}, seed {self.seed}"


def cells(comparison: Comparison) -> list[Cell]:
    """The studies of a comparison, the configurations' first: by split, seed, configuration; then sweep by sweep.

    Sweeps are on the first split. Raises ValueError where one of them is no valid study.
    """
    found = []
    for split in comparison.splits:
        for seed in comparison.seeds:
            for name, changes in comparison.configurations.items():
                found.append(_cell(comparison, "configurations", name, split, seed, changes))
    base = comparison.configurations[comparison.swept]
    for sweep, points in comparison.sweeps.items():
        for label, changes in labelled(sweep, points):
            for seed in comparison.seeds:
                found.append(_cell(comparison, sweep, label, comparison.splits[0], seed, base | changes))
    return found


def labelled(sweep: str, points: Sequence[Any]) -> Iterator[tuple[str, Changes]]:
    """A sweep's points, each with its label: the values of its settings, but for those that all points share."""
    changed = [dict(point) if isinstance(point, Mapping) else {sweep: point} for point in points]
    common = {
        name: value
        for name, value in changed[0].items()
        if len(changed) > 1 and all(name in other and other[name] == value for other in changed)
    }
    for changes in changed:
        yield ", ".join(str(value) for name, value in changes.items() if name not in common), changes


def _cell(comparison: Comparison, part: str, name: str, split: str, seed: int, changes: Changes) -> Cell:
    try:
        study = changed(comparison.study, {"partition.disjoint": split} | changes | {"seed": seed})
    except ValidationError as error:
        problem = error.errors()[0]
        setting = ".".join(map(str, problem["loc"]))
        raise ValueError(
            f"{part} {name}: {setting} does not fit: {problem['msg'].removeprefix('Value error, ')}, "
            f"found {problem['input']!r}"
        ) from None
    return Cell(part, name, split, seed, study)


def changed(study: Study, changes: Changes) -> Study:
    """The study with some settings changed, by their dotted names.

    Raises ValidationError where a name is unknown or a value does not fit.
    """
    values = study.model_dump()
    for name, value in changes.items():
        try:
            assign(values, name, value)
        except StudyError:
            raise ValueError(f"unknown setting {name}") from None
    return Study.model_validate(values)

"""The settings of a table of attacks: which strategies are attacked how, and by how many hospitals."""

from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from tasks.settings import Settings, Study
from tasks.settings.comparison import Changes, changed
from tasks.settings.strategy import Joining

Attack = Literal[
    "label-flip",
    "sign-flip",
    "scaled",
    "gaussian",
    "little-is-enough",
    "inner-product",
    "mimic",
    "nan",
    "forged-counts",
    "backdoor",
]
SMALL: dict[str, dict[str, Any]] = {
    "dataset": {"images": 24, "test_fraction": 0.4},
    "partition": {"hospitals": 8, "scheme": "iid"},
    "federation": {"rounds": 2, "holdout": 0.2, "batch_size": 4, "learning_rate": 0.01},
    "retrieval": {"k": 1},
    "evaluation": {"max_new_tokens": 8},
}
"""Where the base study differs from a study's own defaults, since each cell of a table is trained anew: little data,
and steps long enough for two rounds to matter."""


class AttackTable(Settings):
    """Strategies by attacks: each cell is a study in which some hospitals attack, and the others are scored."""

    name: str = Field("attacks", pattern=r"^[A-Za-z0-9._-]*[A-Za-z0-9]$")
    """Folder under artifacts/attacks that receives the table."""
    study: Study = Study.model_validate(SMALL)
    """The base study: what the cells have in common; by default a small one."""
    strategies: tuple[Joining, ...] = Field(get_args(Joining), min_length=1)
    """The rows: values of federation.strategy."""
    attacks: tuple[Attack, ...] = Field(Attack.__args__, min_length=1)  # type: ignore[attr-defined]
    """The columns, beside a first one without an attack."""
    byzantine: tuple[int, ...] = Field((1, 2), min_length=1)
    """Numbers of hospitals that attack, and that robust strategies are told of (f)."""
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    """Seeds of the study; each cell is trained once with each."""
    tune: bool = False
    """Let each robust strategy first choose its settings by its worst attack, on held-out cases of the first seed."""

    @field_validator("study", mode="before")
    @classmethod
    def _small_where_not_said(cls, value: Any) -> Any:
        """What is said of a study changes the small one, as it changes the defaults elsewhere."""
        return over(SMALL, value) if isinstance(value, Mapping) else value

    @field_validator("strategies", "attacks", "byzantine", "seeds")
    @classmethod
    def _each_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) < len(values):
            raise ValueError("each may stand there once")
        return values

    @field_validator("study")
    @classmethod
    def _can_be_attacked(cls, study: Study) -> Study:
        federation = study.federation
        found = {
            "federation.secure_aggregation": federation.secure_aggregation,
            "federation.privacy": federation.privacy.unit != "none",
            "federation.lora_mean=share-a": federation.lora_mean == "share-a",
            "retrieval.fusion=gated": study.retrieval.fusion == "gated",
        }
        if refused := [name for name, there in found.items() if there]:
            raise ValueError(f"expected a study without {refused[0]}, which no attack here is made for")
        return study

    @field_validator("byzantine")
    @classmethod
    def _leaves_honest_ones(cls, values: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        study = info.data.get("study")
        if min(values) < 1 or (study and 2 * max(values) >= study.partition.hospitals):
            raise ValueError("expected at least 1 hospital, and fewer than half of study.partition.hospitals")
        return values

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for strategy in self.strategies:
            try:
                self.cell(strategy, self.byzantine[0], self.study.partition.hospitals, self.seeds[0], {})
            except ValidationError as error:
                problem = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"strategy {strategy} does not fit the study: {problem}") from None
        return self

    def cell(self, strategy: str, byzantine: int, hospitals: int, seed: int, tuned: Changes) -> Study:
        """The study of one cell; `tuned` are settings of the strategy, by their dotted names."""
        changes = {"federation.strategy": strategy, "federation.byzantine": byzantine, "seed": seed}
        return changed(self.study, changes | {"partition.hospitals": hospitals} | tuned)


def over(under: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values over others, group by group."""
    found = dict(under)
    for name, value in values.items():
        below = found.get(name)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        found[name] = over(below, value) if both else value  # type: ignore[arg-type]
    return found

"""The settings of a table of attacks: small where nothing is said, and refused where no attack could be made."""

from typing import get_args

import pytest
from pydantic import ValidationError

from flows.cli.settings_file import load_attacks
from tasks.attack.updates import ATTACKS
from tasks.errors import StudyError
from tasks.settings import StrategySettings, Study
from tasks.settings.attack import SMALL, Attack, AttackTable
from tasks.settings.strategy import Joining


def test_without_a_word_the_study_is_small_and_what_is_said_changes_nothing_else() -> None:
    small = AttackTable().study
    assert small == Study.model_validate(SMALL) != Study()
    told = load_attacks(None, ("study.dataset.images=60", "study.retrieval.k=1")).study
    assert (told.dataset.images, told.retrieval.k) == (60, 1)
    assert told.dataset.test_fraction == small.dataset.test_fraction
    assert told.federation == small.federation and told.partition == small.partition
    assert AttackTable(study=Study()).study == Study()
    assert AttackTable.model_validate(AttackTable().model_dump(mode="json")) == AttackTable()


def test_every_attack_and_every_strategy_that_averages_can_be_named() -> None:
    assert set(get_args(Attack)) == {*ATTACKS, "label-flip"}
    known = get_args(StrategySettings.model_fields["strategy"].annotation)
    assert set(known) - set(get_args(Joining)) == {"dpfedavg", "none"}


def test_a_cell_is_the_study_with_its_strategy_attackers_and_what_was_chosen() -> None:
    table = AttackTable()
    cell = table.cell("krum", 2, 11, 5, {"federation.pre_aggregation": "nnm"})
    assert (cell.federation.strategy, cell.federation.byzantine, cell.seed) == ("krum", 2, 5)
    assert (cell.partition.hospitals, cell.federation.pre_aggregation) == (11, "nnm")
    assert cell.dataset == table.study.dataset


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("study.federation.secure_aggregation=true", "without federation.secure_aggregation"),
        ("study.federation.lora_mean=share-a", "without federation.lora_mean=share-a"),
        ("study.retrieval.fusion=gated", "without retrieval.fusion=gated"),
        ("study.federation.lora_mean=product", "strategy fedavgm does not fit the study: expected strategy fedavg or"),
        ("byzantine=[0]", "at least 1 hospital, and fewer than half"),
        ("byzantine=[4]", "at least 1 hospital, and fewer than half"),
        ("attacks=[mimic, mimic]", "each may stand there once"),
        ("attacks=[flattery]", "Input should be 'label-flip'"),
        ("strategies=[none]", "Input should be 'fedavg'"),
        ("study.federation.rouns=1", "did you mean study.federation.rounds"),
    ],
)
def test_what_cannot_be_attacked_is_refused_in_a_sentence(setting: str, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        load_attacks(None, (setting,))


def test_a_table_is_frozen() -> None:
    with pytest.raises(ValidationError):
        AttackTable().seeds = (1,)  # type: ignore[misc]

"""Whether a study's settings suit its hospitals: before anything is done, what cannot work is refused."""

from collections.abc import Sequence

from tasks.errors import StudyError
from tasks.federate.lora_mean.rule import choose_rule
from tasks.federate.participation import Participation
from tasks.federate.strategies.strategy import Strategy
from tasks.settings import FederationSettings, Study


def check_strategy(study: Study) -> None:
    """Raises StudyError, before anything is done, if the strategy does not work with the study's hospitals or sums."""
    strategy = choose_rule(study.federation.server)
    strategy.check_hospitals(study.partition.hospitals)
    if study.federation.compare_images and study.federation.runtime == "local":
        raise StudyError(
            "Expected federation.compare_images=false in a simulation, whose audit compares all images, found true: "
            "leave it out."
        )
    if study.federation.secure_aggregation:
        refuse_single_updates(strategy, study.federation)


def refuse_single_updates(strategy: Strategy, federation: FederationSettings) -> None:
    """Raise StudyError for a strategy to which the sum of the hospitals' tensors is not enough, or which sends none."""
    if "sum" not in strategy.needs or not strategy.needs <= {"sum", "state"}:
        needs, rule = ", ".join(sorted(strategy.needs)) or "nothing", federation.lora_mean
        name = federation.strategy if rule == "factors" else f"{federation.strategy} with lora_mean {rule}"
        raise StudyError(
            f"Expected a strategy that needs only the sum of updates with federation.secure_aggregation, found {name}, "
            f"which needs {needs}: choose another, or set federation.secure_aggregation=false."
        )


def taking_part(study: Study, hospitals: Sequence[str]) -> Participation:
    """Who takes part in a study's rounds. Raises StudyError if its settings do not suit these hospitals.

    So it does where a strategy, or a sum that hides its parts, needs more hospitals than a round asks.
    """
    found = Participation(study.federation.participating, hospitals, study.federation.rounds, study.seed)
    for hospital in study.lora.ranks:
        found.check_name(hospital, "lora.ranks")
    fewest = min(len(found.asked(number)) for number in range(1, found.rounds + 1))
    choose_rule(study.federation.server).check_hospitals(fewest)
    if study.federation.secure_aggregation and fewest < 2:
        raise StudyError(
            "Expected each round to ask at least 2 hospitals with federation.secure_aggregation, found one that asks "
            f"{fewest}, whose update the sum would be: let more take part."
        )
    return found

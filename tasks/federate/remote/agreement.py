"""What a hospital agrees to: a study that asks for more is refused with one sentence, which both sides show."""

from collections.abc import Iterator

from tasks.errors import StudyError
from tasks.settings import Study
from tasks.settings.hospital import AgreementSettings
from tasks.store.names import inside

STRENGTH = ("none", "example", "patient")
"""Units of privacy, each of which hides more than those before it."""


class NotAgreedError(StudyError):
    """A refusal whose sentence may leave the hospital: it tells settings alone, and nothing of its files."""


def refuse_more(agreement: AgreementSettings, study: Study, base: str, own: str) -> None:
    """Raise NotAgreedError for the first thing that a study asks for and the hospital did not agree to.

    Args:
        agreement: the hospital's.
        study: the coordinator's settings.
        base: the content of the base that the coordinator trains.
        own: that of the base at the hospital.
    """
    if agreement.base not in (None, base):
        raise NotAgreedError(f"Expected the base {agreement.base} that it agreed to, found {base}.")
    if own != base:
        raise NotAgreedError(f"Expected its own base {own}, found {base}: use the same base on both sides.")
    if study.retrieval.encoder_model:
        _refuse_outside(study.retrieval.encoder_model)
    for what, agreed, asked in _more(agreement, study):
        raise NotAgreedError(f"Expected {what} {agreed}, as it agreed to, found {asked}.")


def _refuse_outside(encoder: str) -> None:
    """A coordinator may name a hub id, or a folder in the hospital's own, and none elsewhere on its machine."""
    try:
        inside(encoder)
    except StudyError:
        raise NotAgreedError(
            f"Expected retrieval.encoder_model to be a hub id or a folder below the hospital's, found {encoder}: put "
            "it there, by the same name at every hospital."
        ) from None


def most_epsilon(agreement: AgreementSettings, unit: str) -> float | None:
    """The largest epsilon that a hospital agreed to for what hides a unit; None where it agreed to go without."""
    return agreement.epsilon if agreement.privacy != "none" or unit == "hospital" else None


def _more(agreement: AgreementSettings, study: Study) -> Iterator[tuple[str, object, object]]:
    federation = study.federation
    if federation.strategy not in agreement.strategies:
        yield "federation.strategy of", " or ".join(agreement.strategies), federation.strategy
    for name in ("rounds", "local_epochs"):
        agreed, asked = getattr(agreement, name), getattr(federation, name)
        if asked > agreed:
            yield f"federation.{name} of at most", agreed, asked
    if agreement.secure_aggregation and not federation.secure_aggregation:
        yield "federation.secure_aggregation", "true", "false"
    if federation.compare_images and not agreement.shared_images:
        yield "federation.compare_images", "false", "true"
    unit = federation.privacy.unit if federation.privacy.unit in STRENGTH else "none"
    if STRENGTH.index(unit) < STRENGTH.index(agreement.privacy):
        yield "federation.privacy.unit of at least", agreement.privacy, unit
    most = most_epsilon(agreement, federation.privacy.unit)
    if most is not None and federation.privacy.epsilon > most:
        yield "federation.privacy.epsilon of at most", most, federation.privacy.epsilon

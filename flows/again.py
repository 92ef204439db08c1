"""Which finished work a study can be asked to do again: `fed-rag run --from`, and the flow's parameter `again_from`."""

import logging

from tasks.errors import StudyError
from tasks.settings import Study
from tasks.store.again import Again
from tasks.text.wording import counted

logger = logging.getLogger("fed_rag")
SOURCE = ("ingest", "questions", "audit", "audit-control", "partition", "audit-hospitals", "vision", "audit-start")
AT_HOSPITALS = ("cases", "features", "encoded", "library", "trained", "joined", "control", "personal", "mixture")
TRAINING = ("fusion", "fusion-update", "privacy", "update", "updates", "secure-mean", "adapter", "validation")
AFTERWARDS = ("privacy-spent", "tuning", "predictions", "baselines", "reliance", "failures", "saliency", "calibration")
SCORING = ("scores", "failure-counts", "shares", "seen", "gain", "abstention")
STAGES = (*SOURCE, *AT_HOSPITALS, *TRAINING, *AFTERWARDS, *SCORING)
"""The stages of a study by the names of their folders, as docs/pipeline.md lists them."""


def refuse_unknown(what: str, study: Study) -> None:
    """Raise StudyError unless it is a name of a stage, or of a part of a study as the dashboard shows it."""
    rounds = [f"round {number}" for number in range(1, study.federation.rounds + 1)]
    if what not in (*STAGES, "prepare", *rounds, "personalise", "evaluate"):
        parts = f"prepare, {' to '.join(dict.fromkeys((rounds[0], rounds[-1])))}, personalise, evaluate"
        raise StudyError(
            f"Expected --from to name a part of the study ({parts}) or a stage ({', '.join(STAGES)}), found {what!r}."
        )


def asked(what: str | None, study: Study, run: str) -> Again | None:
    """The request of the flow run with this id; None without one.

    Raises StudyError for an unknown name.
    """
    if what is None:
        return None
    refuse_unknown(what, study)
    return Again(what, run)


def tell(again: Again | None) -> None:
    """Say what was done again, and how much of it came out as before."""
    if again is None:
        return
    if not again.before:
        logger.warning("nothing was done again: this study has no %s", again.what)
        return
    done = counted(len(again.before), "folders")
    logger.info("from %s on, %s made again: %d with the same content as before", again.what, done, again.same)

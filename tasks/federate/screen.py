"""What the coordinator lets into a round."""

import logging
from collections.abc import Sequence

import torch

from tasks.errors import StudyError
from tasks.federate.state import Update

logger = logging.getLogger("fed_rag.federate")


def screen(updates: Sequence[Update]) -> list[Update]:
    """The updates that are finite throughout; each other hospital is warned about by name.

    One NaN would poison the mean for everyone. Raises StudyError where no update is finite.
    """
    finite = []
    for update in updates:
        bad = [
            name
            for part in update.parts.values()
            for name, tensor in part.items()
            if not bool(torch.isfinite(tensor).all())
        ]
        if bad:
            logger.warning("%s sent an update that is not finite (%s): left out of this round", update.hospital, bad[0])
        else:
            finite.append(update)
    if not finite:
        raise StudyError(
            "Expected at least one finite update in the round, found none: lower federation.learning_rate."
        )
    return finite

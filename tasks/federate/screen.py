"""Excludes updates with NaN or infinite values before aggregation."""

import logging
from collections.abc import Sequence

import torch

from tasks.errors import StudyError
from tasks.federate.state import Update

logger = logging.getLogger("fed_rag.federate")


def screen(updates: Sequence[Update]) -> list[Update]:
    """Return the updates whose tensors are all finite, and log a warning that names each other hospital.

    One NaN would make the mean NaN for every hospital. Raises StudyError if no update is finite.
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

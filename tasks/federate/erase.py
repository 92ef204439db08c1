"""Erasers of the federate stages (`tasks/cases/erasure.py`)."""

from tasks.cases.erasure import Erasers

ERASERS: Erasers = {"control": None}

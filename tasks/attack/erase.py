"""Erase a patient from altered copies of cases: they can be removed whole, since the next attack makes them again."""

from tasks.cases.erasure import Erasers

ERASERS: Erasers = {"altered": None}

"""Erase a patient from what a hospital trained and keeps: weights can only be removed whole."""

from tasks.cases.erasure import Erasers

ERASERS: Erasers = {"control": None, "trained": None, "joined": None, "personal": None, "mixture": None}

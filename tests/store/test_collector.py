"""The search for cycles is off where it was asked to be, and on again afterwards."""

import gc
import threading

import pytest

from tasks.store.collector import YOUNG, no_search_for_cycles, search_seldom


def test_it_is_off_within_and_on_again_after_an_error_too() -> None:
    assert gc.isenabled()
    with no_search_for_cycles():
        assert not gc.isenabled()
        with no_search_for_cycles():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="x"), no_search_for_cycles():
        raise ValueError("x")
    assert gc.isenabled()


def test_who_had_turned_it_off_finds_it_off() -> None:
    gc.disable()
    try:
        with no_search_for_cycles():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_threads_that_overlap_leave_it_on() -> None:
    within, leave = threading.Event(), threading.Event()

    def other() -> None:
        with no_search_for_cycles():
            within.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    thread.start()
    within.wait(30)
    with no_search_for_cycles():
        leave.set()
        thread.join()
    assert gc.isenabled()


def test_it_becomes_rarer_and_cycles_are_still_found() -> None:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    try:
        search_seldom()
        assert gc.get_threshold()[0] == YOUNG
        gone = gc.get_stats()[0]["collections"]
        kept: list[list[object]] = []
        for _ in range(2 * YOUNG):
            circle: list[object] = []
            circle.append(circle)
            kept.append([])
        assert gc.get_stats()[0]["collections"] > gone
    finally:
        gc.set_threshold(*before)

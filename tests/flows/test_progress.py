"""What is said of the time that is left."""

from flows.progress import Pace


def test_the_rest_takes_as_long_as_the_mean_of_what_was_done() -> None:
    pace = Pace(4)
    assert pace.done(60) == ", about 3 min left"
    assert pace.done(20) == ", about 80 s left"
    assert pace.done(10) == ", about 30 s left"
    assert pace.done(10) == ""


def test_the_time_left_does_not_follow_from_reused_stages() -> None:
    pace = Pace(4)
    assert pace.done(None) == ""
    assert pace.done(600) == ", about 20 min left"
    assert pace.done(None) == ", about 10 min left"
    assert pace.done(None) == ""

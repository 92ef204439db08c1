"""Who was left out of rounds, in words."""

from tasks.report.quarantine import left_out, quarantine_rows


def test_each_hospital_stands_with_its_round_and_reason() -> None:
    rounds = [{"round": 1, "quarantined": {}}, {"round": 2, "quarantined": {"a": "unreadable", "b": "of round 1"}}]
    assert [left_out(each) for each in rounds] == ["none", "a (unreadable), b (of round 1)"]
    assert quarantine_rows(rounds)[1:] == [("2", "a", "unreadable"), ("2", "b", "of round 1")]
    assert quarantine_rows([{"round": 1, "screened_out": ["a"]}])[1:] == []

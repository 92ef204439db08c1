"""Rounds as rows of text."""

from typing import Any

from tasks.report.rounds import LOST, lost_text, round_rows


def test_rounds_tell_what_is_lost_where_it_is_known() -> None:
    row: dict[str, Any] = {"round": 1, "train_loss": 1.5, "eval_loss": None, "quarantined": {}}
    rounds = [row | {"lost_share": {"factors": 0.0712}}, row | {"round": 2, "eval_loss": 2.0, "lost_share": {}}, row]
    assert round_rows({"rounds": rounds}) == [  # type: ignore[typeddict-item]
        ("round", "training loss", "held-out loss", "left out", LOST),
        ("1", "1.5000", "-", "none", "7.12%"),
        ("2", "1.5000", "2.0000", "none", "-"),
        ("1", "1.5000", "-", "none", "-"),
    ]
    assert lost_text({"factors": 0.5, "product": 0.025}) == "50.00% (product 2.50%)"

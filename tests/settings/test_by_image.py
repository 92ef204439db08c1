"""Whole images in a step, and held-out images of a seed of their own: what goes with them."""

from typing import Any

import pytest

from tasks.settings import Study


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"engine": {"executor": "batched"}, "federation": {"by_image": True}}, "engine.executor mapped"),
        (
            {"federation": {"by_image": True, "privacy": {"unit": "example", "epsilon": 8}}, "retrieval": {"k": 0}},
            "federation.privacy.unit none",
        ),
        ({"federation": {"holdout_seed": 0}, "retrieval": {"fusion": "gated"}}, "retrieval.fusion concat"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=f"expected {expected}"):
        Study.model_validate(changes)


def test_held_out_images_follow_the_study_unless_they_have_a_seed() -> None:
    assert Study.model_validate({"seed": 5}).federation.held_out_by(5) == 5
    assert Study.model_validate({"federation": {"holdout_seed": 0}}).federation.held_out_by(5) == 0

"""By what questions are told apart beside their kind of score, and whose chance an interval holds."""

SHARED_GROUPS = ("dataset", "modality", "organ", "topic")
"""Fields of `Outcome` whose values a hospital tells apart."""
GROUPS = (*SHARED_GROUPS, "kind", "hospital")
"""Groups that scores are told of."""
HOLDS = {False: "test images", True: "training and test images"}
"""Whose chance an interval holds, by whether there are several seeds."""

"""The groups that scores are broken down by, and the sources of randomness that an interval covers."""

SHARED_GROUPS = ("dataset", "modality", "organ", "topic", "training_image")
"""Fields of `Outcome` by which a hospital breaks down what it shares."""
GROUPS = (*SHARED_GROUPS, "kind", "hospital")
"""All groups that scores are broken down by."""
HOLDS = {False: "test images", True: "training and test images"}
"""The randomness that an interval covers; the key says whether there are several seeds."""

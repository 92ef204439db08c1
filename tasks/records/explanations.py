"""What is said of an answer beside its score: where it comes from, and ways in which it fails."""

IGNORES_IMAGE, COPIES_NEIGHBOUR = "ignores_image", "copies_neighbour"


BORDER, BURNED_IN = "attends_to_border", "attends_to_burned_in_text"


DIFFUSE, WRONG_REGION, ALWAYS_YES = "diffuse_attention", "right_for_wrong_region", "says_yes_to_everything"


LEAST_FALL = 0.1
"""Nats: where a blank image takes less of the answer's log-probability (a tenth of the probability), it is ignored."""


HALF = 0.5
"""Of what a blank image takes, from which on a region is said to decide the answer."""


SPREAD = 0.75
"""Share of an image's cells over which a map is spread, by its entropy, from which on it is said to be diffuse."""


YES, FEWEST = 0.9, 10
"""Share of yes among a hospital's answers that is everything, and the fewest yes/no questions that can show it."""


MEANINGS = {
    IGNORES_IMAGE: f"the answer is the same with a blank image, which takes less than {LEAST_FALL} nats of it",
    COPIES_NEIGHBOUR: "the answer is a shown case's, and changes when the shown cases are removed or their answers are",
    BORDER: f"covering the outer tenth of the image takes {HALF:.0%} or more of what a blank image takes",
    BURNED_IN: f"covering text in the image takes {HALF:.0%} or more of what a blank image takes",
    DIFFUSE: f"the relevance is spread over {SPREAD:.0%} or more of the image",
    WRONG_REGION: "the answer is right, but relevance peaks off the finding and is less on it than an even map's",
    ALWAYS_YES: f"yes, wrongly, where {YES:.0%} or more of the yes/no answers are yes and fewer should be",
}
"""The values of `FailureModes.modes`, each with its rule."""


Means = dict[str, dict[str, float]]
"""By method, the mean share of each part."""


IGNORES = 0.8
"""A model that keeps this share of its score with a blank image is said to ignore images."""

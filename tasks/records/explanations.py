"""Names, thresholds and meanings of failure modes, and types of an answer's attribution."""

IGNORES_IMAGE, COPIES_NEIGHBOUR = "ignores_image", "copies_neighbour"


BORDER, BURNED_IN = "attends_to_border", "attends_to_burned_in_text"


DIFFUSE, WRONG_REGION, ALWAYS_YES = "diffuse_attention", "right_for_wrong_region", "says_yes_to_everything"


LEAST_FALL = 0.1
"""In nats. The image is ignored if blanking it takes less of the answer's log-probability (10 % of probability)."""


HALF = 0.5
"""A region decides the answer if covering it takes at least this share of what blanking the image takes."""


SPREAD = 0.75
"""A map is diffuse if, by its entropy, it is spread over at least this share of the image's cells."""


YES, FEWEST = 0.9, 10
"""Share of yes among a hospital's yes/no answers that counts as always yes, and the fewest questions to judge it."""


MEANINGS = {
    IGNORES_IMAGE: f"the answer is the same with a blank image, which takes less than {LEAST_FALL} nats of it",
    COPIES_NEIGHBOUR: "the answer is a shown case's, and changes when the shown cases are removed or their answers are",
    BORDER: f"covering the outer tenth of the image takes {HALF:.0%} or more of what a blank image takes",
    BURNED_IN: f"covering text in the image takes {HALF:.0%} or more of what a blank image takes",
    DIFFUSE: f"the relevance is spread over {SPREAD:.0%} or more of the image",
    WRONG_REGION: "the answer is right, but relevance peaks off the finding and is less on it than an even map's",
    ALWAYS_YES: f"yes, wrongly, where {YES:.0%} or more of the yes/no answers are yes and fewer should be",
}
"""The names of the failure modes, each with its rule."""


Means = dict[str, dict[str, float]]
"""By method and part of the prompt, the mean share."""


IGNORES = 0.8
"""A model ignores images if it keeps at least this share of its score with blank images."""

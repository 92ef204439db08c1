"""Perturbations of a question's prompt, which show what its answer depends on."""

AS_IS = "as_is"


BLANK, NOISE, SWAPPED = "image_blank", "image_noise", "image_swapped"


REMOVED, OTHERS, FLIPPED = "neighbours_removed", "neighbours_shuffled", "neighbours_flipped"


WORDS = "question_shuffled"


MEANINGS = {
    AS_IS: "nothing is changed",
    BLANK: "the question's image in its own mean colour",
    NOISE: "noise in its place",
    SWAPPED: "another of the hospital's images in its place, of the same modality where there is one",
    REMOVED: "no retrieved case",
    OTHERS: "the retrieved cases of another question",
    FLIPPED: "the retrieved cases with wrong answers",
    WORDS: "the question's words in random order",
}
"""What each perturbation changes. None of them replaces the image of a retrieved case."""

"""The prompt of the language model; no other file contains any part of it."""

SYSTEM = (
    "You write question-answer pairs that train a model to answer questions about radiological images. "
    "You are given what is known of one image. You use nothing else."
)

TASK = """\
Write up to {most} question-answer pairs about the image that this caption describes.

Rules:
- Every answer follows from the caption alone. Do not guess, and do not ask for what the caption leaves open.
- Ask about one thing at a time: modality, plane, organ, a finding, its side, place or size, or whether it is there.
- Answers are short: a few words of the caption, or yes or no.
- A question must not contain its own answer, nor mention a caption, a text or a description.
- Where the caption denies a finding, ask whether it is there; the answer is no.
- "span" repeats, letter for letter, the words of the caption that the answer comes from, with their negation if any.

Reply with a JSON list and nothing else, as in
[{{"question": "On which side is the mass?", "answer": "left", "span": "mass in the left lower lobe"}}]

Caption: {caption}"""

MOST_PAIRS = 6


def messages(caption: str) -> list[dict[str, str]]:
    """The chat messages that ask for the pairs of one caption."""
    task = TASK.format(most=MOST_PAIRS, caption=" ".join(caption.split()))
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": task}]

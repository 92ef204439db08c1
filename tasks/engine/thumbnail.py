"""Names of images that are shown with fewer tokens: an image's id, and how many tokens it is pooled to.

Prompts name retrieved images so (`retrieval.image_tokens`), and the features find and pool the image behind the name.
"""

MARK = "\0"
"""Stands in no file name, hence in no image's id."""


def thumbnail(image_id: str, tokens: int) -> str:
    """The name of an image that is pooled to this number of tokens."""
    return f"{image_id}{MARK}{tokens}"


def original(name: str) -> str:
    """The id of the image behind a name; an id is its own name."""
    return name.partition(MARK)[0]


def tokens_of(name: str) -> int | None:
    """The number of tokens that a name asks for; None for an image as it is."""
    _, mark, tokens = name.partition(MARK)
    return int(tokens) if mark else None


def renamed(name: str, image_id: str) -> str:
    """The name of another image, to be shown with as many tokens as this one."""
    tokens = tokens_of(name)
    return image_id if tokens is None else thumbnail(image_id, tokens)

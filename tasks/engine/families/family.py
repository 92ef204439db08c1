"""The interface between the engine and a family of vision-language models: everything in which families differ."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, Any, ClassVar

from tasks.errors import StudyError

if TYPE_CHECKING:
    import torch

# Torch and Transformers are imported only where a family computes: looking up a preset needs neither.

Grid = tuple[int, int, int]
"""Patches of one image: time, height, width, before the tower merges them."""


@dataclass(frozen=True)
class Preset:
    """A published model under a short name."""

    place: str
    """Hub id, or the folder that it is composed in."""
    parameters: float
    """Number of parameters, in billions, rounded."""
    remedy: str = "download it first and give its folder"
    """What the user can do if it is not available."""


@dataclass(frozen=True)
class Turn:
    """One message: its role, its number of images, its text."""

    role: str
    images: int
    text: str


@dataclass(frozen=True)
class Rows:
    """A batch as a family needs it: `B` rows padded to `T` tokens."""

    ids: "torch.Tensor"
    """`(B, T)`."""
    answered: "torch.Tensor"
    """`(B, T)`, True at the tokens of answers."""
    images: tuple["torch.Tensor", ...]
    """Each image's features, `(tokens, d)`, in the order of their placeholders, row by row. It may be empty."""
    grids: tuple[Grid, ...]
    """Each image's patches."""


class Family(ABC):
    """A family of models. By default, every image becomes the same number of tokens.

    In every family, the text model is the module `language_model`, `lm_head` follows it, and `mm_encoder_outputs`
    takes the tower's output in place of pixels (transformers 5.23).
    """

    model_types: ClassVar[tuple[str, ...]]
    """The model types of `config.json` that it serves."""
    presets: ClassVar[Mapping[str, Preset]] = {}
    foreign: ClassVar[Mapping[str, str]] = {}
    """Model types of the same models in another layout, each with advice for the user."""
    causal: ClassVar[bool] = True
    """Whether each token attends only to earlier ones, so that no token sees padding on the right."""
    first_place: ClassVar[int] = 0
    """Position id of a row's first token."""
    begins: ClassVar[bool] = False
    """Whether the tokenizer's first token (BOS) comes before the text of the conversation."""
    tower: ClassVar[str] = "model.vision_tower"
    """Name of the vision tower's module."""
    projector: ClassVar[str] = "model.multi_modal_projector"
    """Name of the module that maps the tower's output to the text model's width; it may lie inside the tower."""

    @abstractmethod
    def text(self, tokenizer: Any, config: Any, messages: Sequence[Mapping[str, Any]]) -> str:
        """The conversation in the family's format, up to where the answer starts, with one placeholder per image."""

    @abstractmethod
    def inputs(self, config: Any, rows: Rows) -> dict[str, Any]:
        """The model's arguments other than ids and mask, the cached features among them."""

    def chat_template(self, tokenizer: Any, config: Any) -> str:
        """The Jinja template to store in a written folder, for the same conversation as `text`."""
        return str(tokenizer.chat_template)

    def processor(self, tokenizer: Any, image_processor: Any, config: Any) -> Any:
        """The transformers processor to store in a written folder; None if the other files suffice."""
        return None

    def marks(self, tokenizer: Any, config: Any) -> tuple[str, ...]:
        """Strings, besides the special tokens, that end a turn and must not occur in user text."""
        return ()

    def limit(self, config: Any, image_processor: Any, max_pixels: int) -> None:
        """Limit the pixels of a resized image.

        Raises StudyError if the tower takes a single size that is larger.
        """
        edge = config.vision_config.image_size
        if edge * edge > max_pixels:
            raise StudyError(
                f"Expected model.max_pixels to be at least {edge * edge} for this model, which takes images of "
                f"{edge} x {edge} pixels only, found {max_pixels}: raise it or leave it out."
            )

    def window(self, image_processor: Any, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of an image of this size that the tower sees: left, upper, right and lower edge, in its pixels.

        It is the middle if the processor crops the image.
        """
        if not getattr(image_processor, "do_center_crop", False):
            return 0, 0, width, height
        size, crop = image_processor.size, image_processor.crop_size
        if size.get("shortest_edge"):
            across = down = min(width, height) / size["shortest_edge"]
        else:
            across, down = width / size["width"], height / size["height"]
        half_width, half_height = (min(width, crop["width"] * across) / 2, min(height, crop["height"] * down) / 2)
        return width / 2 - half_width, height / 2 - half_height, width / 2 + half_width, height / 2 + half_height

    def merge(self, config: Any) -> int:
        """Number of patches along each side of a token."""
        return 1

    def grids(self, model: Any, pixels: Mapping[str, Any]) -> list[Grid]:
        """The grids that `see` would give, found with the tower run over at most one image."""
        count = len(pixels["pixel_values"])
        return [self.see(model, {"pixel_values": pixels["pixel_values"][:1]})[0][1]] * count

    def see(self, model: Any, pixels: Mapping[str, Any]) -> list[tuple["torch.Tensor", Grid]]:
        """Run tower and projector on processed images; returns each image's features, `(tokens, d)`, and grid.

        If the tokens are not a square of patches (because of a class token), the grid is one row of tokens.
        """
        found = model.get_image_features(pixel_values=pixels["pixel_values"]).pooler_output
        edge = isqrt(len(found[0]))
        return [(piece, (1, edge, edge) if len(piece) == edge * edge else (1, 1, len(piece))) for piece in found]

    def project(self, model: Any, pieces: "Sequence[torch.Tensor]") -> "list[torch.Tensor]":
        """Run the projector on each image's rows as they come out of `unprojected`; returns `(tokens, d)` each."""
        import torch

        if not pieces:
            return []
        made = model.get_submodule(self.projector)(self.laid_out(model.config, torch.cat(list(pieces))))
        return list(made.split([len(piece) for piece in pieces]))

    def laid_out(self, config: Any, rows: "torch.Tensor") -> "torch.Tensor":
        """Reshape the tower's rows, one per token, to the projector's input."""
        return rows

    @contextmanager
    def unprojected(self, model: Any) -> Iterator[None]:
        """While open, `see` returns the tower's output, one row per token, before the projector.

        Only the projector is bypassed. What a model does after it still happens: Qwen2.5-VL puts its windows back in
        order there.
        """
        projector = model.get_submodule(self.projector)
        forward = projector.forward
        projector.forward = lambda rows: self.by_token(model.config, rows)
        try:
            yield
        finally:
            projector.forward = forward

    def by_token(self, config: Any, rows: "torch.Tensor") -> "torch.Tensor":
        """Reshape the projector's input to one row per token: the inverse of `laid_out`."""
        return rows


def turns(messages: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """The messages of a prompt as turns, each with its number of images and its text."""
    return [
        Turn(
            message["role"],
            sum(part["type"] == "image" for part in message["content"]),
            " ".join(part["text"] for part in message["content"] if part["type"] == "text"),
        )
        for message in messages
    ]


def encoded(images: Any) -> dict[str, Any]:
    """Cached features as arguments of the model's forward and generate; empty if no row has an image."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=images)}} if len(images) else {}

"""What differs between families of vision-language models: the one interface that the engine asks."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tasks.errors import StudyError

if TYPE_CHECKING:
    import torch

# Torch and Transformers are imported where a family really computes: a preset's name is told without them.

Grid = tuple[int, int, int]
"""Patches of one image: time, height, width, before the tower merges them."""


@dataclass(frozen=True)
class Preset:
    """A published model under a short name."""

    place: str
    """Hub id, or the folder in which it is composed."""
    parameters: float
    """Number of parameters, in billions, rounded."""
    remedy: str = "download it first and give its folder"
    """What to do where it is not to be had."""


@dataclass(frozen=True)
class Turn:
    """One message, its parts told apart."""

    role: str
    images: int
    text: str


@dataclass(frozen=True)
class Rows:
    """What a family is told about a batch, `B` rows padded to `T` tokens."""

    ids: "torch.Tensor"
    """`(B, T)`."""
    answered: "torch.Tensor"
    """`(B, T)`, True at the tokens of answers."""
    images: tuple["torch.Tensor", ...]
    """Each image's features, `(tokens, d)`, in the order of their placeholders, row by row; there may be none."""
    grids: tuple[Grid, ...]
    """Each image's patches."""


class Family(ABC):
    """A family in which every image becomes the same number of tokens, unless it says otherwise.

    In all of them the text model is the module `language_model`, `lm_head` follows it, and `mm_encoder_outputs` takes
    the tower's output in place of pixels (transformers 5.23).
    """

    model_types: ClassVar[tuple[str, ...]]
    """The model types of `config.json` that it serves."""
    presets: ClassVar[Mapping[str, Preset]] = {}
    foreign: ClassVar[Mapping[str, str]] = {}
    """Model types of the same models in another layout, each with what to do about it."""
    causal: ClassVar[bool] = True
    """Whether every token sees only what precedes it, so that padding on the right is seen by none."""
    first_place: ClassVar[int] = 0
    """Position of a row's first token."""
    begins: ClassVar[bool] = False
    """Whether the tokenizer's first token stands before the conversation's text."""
    tower: ClassVar[str] = "model.vision_tower"
    """The module that sees."""
    projector: ClassVar[str] = "model.multi_modal_projector"
    """The module that brings what is seen to the text model's width; in some families a part of the tower."""

    @abstractmethod
    def text(self, tokenizer: Any, config: Any, messages: Sequence[Mapping[str, Any]]) -> str:
        """The conversation in the family's own format up to where the answer is to follow, one placeholder an image."""

    @abstractmethod
    def inputs(self, config: Any, rows: Rows) -> dict[str, Any]:
        """What the model takes beside ids and mask, the cached features among it."""

    def chat_template(self, tokenizer: Any, config: Any) -> str:
        """The Jinja template that a written folder carries, for the same conversation: the folder's own."""
        return str(tokenizer.chat_template)

    def processor(self, tokenizer: Any, image_processor: Any, config: Any) -> Any:
        """The transformers processor that a written folder carries; None where the other files tell it all."""
        return None

    def marks(self, tokenizer: Any, config: Any) -> tuple[str, ...]:
        """Strings beside the special tokens that people may not write, since they end a turn."""
        return ()

    def limit(self, config: Any, image_processor: Any, max_pixels: int) -> None:
        """Bound the pixels of a resized image.

        Raises StudyError where the tower takes one size only, which is larger.
        """
        edge = config.vision_config.image_size
        if edge * edge > max_pixels:
            raise StudyError(
                f"Expected model.max_pixels to be at least {edge * edge} for this model, which takes images of "
                f"{edge} x {edge} pixels only, found {max_pixels}: raise it or leave it out."
            )

    def window(self, image_processor: Any, width: int, height: int) -> tuple[float, float, float, float]:
        """What the tower sees of an image of that size: left, upper, right and lower edge, in its pixels."""
        return 0, 0, width, height

    def merge(self, config: Any) -> int:
        """Patches of one token along each side."""
        return 1

    def grids(self, model: Any, pixels: Mapping[str, Any]) -> list[Grid]:
        """The grids that `see` would give, the tower run over one image at most."""
        count = len(pixels["pixel_values"])
        return [self.see(model, {"pixel_values": pixels["pixel_values"][:1]})[0][1]] * count

    def see(self, model: Any, pixels: Mapping[str, Any]) -> list[tuple["torch.Tensor", Grid]]:
        """Tower and projector run over what the image processor gave: each image's features, `(tokens, d)`, and grid.

        Where the tokens are no square of patches (a class token is among them), the grid is one row of tokens.
        """
        found = model.get_image_features(pixel_values=pixels["pixel_values"]).pooler_output
        edge = model.config.vision_config.image_size // model.config.vision_config.patch_size
        return [(piece, (1, edge, edge) if len(piece) == edge * edge else (1, 1, len(piece))) for piece in found]

    def project(self, model: Any, pieces: "Sequence[torch.Tensor]") -> "list[torch.Tensor]":
        """What the projector makes of each image's rows as `unprojected` has them, `(tokens, d)` each."""
        import torch

        if not pieces:
            return []
        made = model.get_submodule(self.projector)(self.laid_out(model.config, torch.cat(list(pieces))))
        return list(made.split([len(piece) for piece in pieces]))

    def laid_out(self, config: Any, rows: "torch.Tensor") -> "torch.Tensor":
        """Rows of the tower, one a token, as the projector takes them."""
        return rows

    @contextmanager
    def unprojected(self, model: Any) -> Iterator[None]:
        """While open, `see` gives each token's row of the tower, before the projector.

        The projector stands aside, so that what a model does behind it (Qwen2.5-VL puts its windows back in order) is
        done all the same.
        """
        projector = model.get_submodule(self.projector)
        forward = projector.forward
        projector.forward = lambda rows: self.by_token(model.config, rows)
        try:
            yield
        finally:
            projector.forward = forward

    def by_token(self, config: Any, rows: "torch.Tensor") -> "torch.Tensor":
        """What the projector is given, one row a token: the reverse of `laid_out`."""
        return rows


def turns(messages: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """The messages of a prompt, each with its number of images and its text."""
    return [
        Turn(
            message["role"],
            sum(part["type"] == "image" for part in message["content"]),
            " ".join(part["text"] for part in message["content"] if part["type"] == "text"),
        )
        for message in messages
    ]


def encoded(images: Any) -> dict[str, Any]:
    """Cached features as the model's forward and generate take them; nothing where no row has an image."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=images)}} if len(images) else {}

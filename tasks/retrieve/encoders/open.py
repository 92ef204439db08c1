"""Opens the encoder that the settings name: the study's base, or an image-text model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tasks.errors import StudyError
from tasks.records import Image
from tasks.retrieve.encoded import Encoded
from tasks.retrieve.encoders.biomedclip import read_biomedclip
from tasks.retrieve.encoders.clip import read_clip
from tasks.retrieve.encoders.efficientnet import identify_efficientnet, read_efficientnet
from tasks.retrieve.encoders.encoder import DualEncoder, encode
from tasks.retrieve.encoders.located import identify_encoder, locate
from tasks.settings import EncoderSettings, ModelChoice

if TYPE_CHECKING:
    import PIL.Image
    import torch

    from tasks.engine.base import Base


@contextmanager
def opened(encoding: EncoderSettings, model: ModelChoice, content: str) -> Iterator[DualEncoder]:
    """Open the encoder for exclusive use; `model` is the study's base, `content` an earlier result of `content_of`.

    Raises StudyError if the model is missing, of another kind, or has changed since.
    """
    from tasks.engine.shared import shared_base

    if encoding.encoder == "base":
        with shared_base(model) as base:
            yield base_encoder(base)
    else:
        encoder = open_encoder(encoding.encoder, encoding.encoder_model, model.device)
        if content_of(encoding, model) != content:
            raise StudyError(
                f"Expected the encoder {encoding.encoder_model or encoding.encoder} to be the one that the rows of the "
                "libraries are made with, found other files: put those back, or run `fed-rag run` again."
            )
        yield encoder


def encode_all(
    encoder: DualEncoder, encoding: EncoderSettings, images: Sequence[Image], texts: Sequence[str]
) -> Encoded:
    """Encode the images unless the base's features are used, and the texts if the settings ask for encoded texts."""
    seen = images if encoding.encoder != "base" else []
    read = texts if encoding.text == "encoder" else []
    return Encoded(
        encode(encoder, seen),
        encode(encoder, read),
        {image.id: place for place, image in enumerate(seen)},
        {text: place for place, text in enumerate(read)},
    )


def content_of(encoding: EncoderSettings, model: ModelChoice) -> str:
    """Identify the content of the encoder's files."""
    if encoding.encoder == "base":
        return model.content
    if encoding.encoder == "efficientnet":
        return identify_efficientnet()
    return identify_encoder(encoding.encoder, encoding.encoder_model)


def base_encoder(base: "Base") -> DualEncoder:
    """The study's base as an encoder: an image is the mean of its features, a text the mean of its token embeddings.

    The language model's layers are not used: they may carry an adapter, and a library's rows must not depend on one.
    Images and texts do not share one space here.
    """
    import torch

    from tasks.engine.tower import look

    def see(pictures: Sequence["PIL.Image.Image"]) -> "torch.Tensor":
        pixels = base.image_processor(images=list(pictures), return_tensors="pt").to(base.device)
        return torch.stack([piece.float().mean(0) for piece, _ in look(base, pixels)])

    def read(texts: Sequence[str]) -> "torch.Tensor":
        table = base.model.get_input_embeddings().weight
        ids = [base.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        return torch.stack([table[each].float().mean(0) if each else table[0].float() * 0 for each in ids])

    return DualEncoder(see, read)


def open_encoder(kind: str, name: str | None, device: str) -> DualEncoder:
    """Open the encoder of a kind (`clip`, `biomedclip` or `efficientnet`) on the device `cpu` or `cuda`.

    Raises StudyError if the folder or the package is missing, damaged, or holds a model of another kind.
    """
    if kind == "efficientnet":
        return read_efficientnet(device)
    folder = locate(kind, name)
    return read_biomedclip(folder, device) if kind == "biomedclip" else read_clip(folder, device)

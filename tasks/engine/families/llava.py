"""LLaVA: a CLIP or other ViT tower, a projector of two layers, a Llama or Mistral text model."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tasks.engine.families.family import Family, Preset, Rows, Turn, encoded, turns

HEADER = "<|start_header_id|>"


class Llava(Family):
    """LLaVA-1.5 and LLaVA-Med 1.5 (Fed-LLaVA-Med's models), and LLaMA-CLIP as `llama_clip` composes it.

    The published models saw one image in a conversation; several are several placeholders, each in its own turn.
    Folders bring the format with the processor, not with the tokenizer, or not at all, so it is written here: that of
    the text model. The image processor resizes the shorter edge and crops the middle, as transformers' own does.
    """

    model_types = ("llava",)
    presets: ClassVar[Mapping[str, Preset]] = {
        # Microsoft's own checkpoint is in the layout of LLaVA's repository; this is it in that of transformers.
        "llava-med-7b": Preset("chaoyinshe/llava-med-v1.5-mistral-7b-hf", 7.6),
        "llava-1.5-13b": Preset("llava-hf/llava-1.5-13b-hf", 13.4),
    }
    foreign: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("llava_mistral", "llava_llama"), "take the same model converted, as the preset llava-med-7b or llava-1.5-13b"
    )
    begins = True

    def text(self, tokenizer: Any, config: Any, messages: Sequence[Mapping[str, Any]]) -> str:
        """In the chat format of Llama 3, of Mistral's instructed models, or of Vicuna."""
        image = tokenizer.convert_ids_to_tokens(config.image_token_id)
        said = [(turn.role == "assistant", _content(turn, image)) for turn in turns(messages)]
        end = tokenizer.eos_token
        if _has_headers(tokenizer):
            whole = "".join(f"{_header(answer)}{text}<|eot_id|>" for answer, text in said)
            return whole + _header(answer=True)
        if config.text_config.model_type == "mistral":
            return "".join(f" {text}{end}" if answer else f"[INST] {text} [/INST]" for answer, text in said)
        return "".join(f" {text}{end}" if answer else f"USER: {text} ASSISTANT:" for answer, text in said)

    def marks(self, tokenizer: Any, config: Any) -> tuple[str, ...]:
        """In the older formats, turns are told apart by plain text."""
        if _has_headers(tokenizer):
            return ()
        return ("[INST]", "[/INST]") if config.text_config.model_type == "mistral" else ("USER:", "ASSISTANT:")

    def window(self, image_processor: Any, width: int, height: int) -> tuple[float, float, float, float]:
        """The middle, where the processor crops."""
        if not getattr(image_processor, "do_center_crop", False):
            return 0, 0, width, height
        size, crop = image_processor.size, image_processor.crop_size
        if size.get("shortest_edge"):
            across = down = min(width, height) / size["shortest_edge"]
        else:
            across, down = width / size["width"], height / size["height"]
        half_width, half_height = (min(width, crop["width"] * across) / 2, min(height, crop["height"] * down) / 2)
        return width / 2 - half_width, height / 2 - half_height, width / 2 + half_width, height / 2 + half_height

    def inputs(self, config: Any, rows: Rows) -> dict[str, Any]:
        """The features alone."""
        return encoded(rows.images)


def _content(turn: Turn, image: str) -> str:
    return f"{image}\n" * turn.images + turn.text


def _has_headers(tokenizer: Any) -> bool:
    """Whether the tokenizer is of Llama 3 or later, whose turns have special tokens."""
    return tokenizer.convert_tokens_to_ids(HEADER) not in (None, tokenizer.unk_token_id)


def _header(answer: bool) -> str:
    return f"{HEADER}{'assistant' if answer else 'user'}<|end_header_id|>\n\n"

"""Compose one vision-language model of a vision tower, a new projector and a text model."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tasks.errors import StudyError

if TYPE_CHECKING:
    import torch

PROJECTOR = "model.multi_modal_projector."
RECORD = "composed.json"
"""File beside the weights that says what a base is composed of."""


def composed(
    kind: Any,
    config: Any,
    tower: Mapping[str, "torch.Tensor"],
    language: Any,
    fresh: "Callable[[Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]]",
    place: str,
) -> Any:
    """The model of these parts, in the text model's dtype.

    Args:
        kind: its class in transformers.
        config: its configuration.
        tower: tensors of the vision tower.
        language: the text model, with its head.
        fresh: gives the weights that neither part has, from all of the model's tensors by name (without storage).
        place: the name of the model in error messages.

    Raises StudyError if a tensor is missing, left over or of another shape.
    """
    import torch

    with torch.device("meta"):  # the parts' tensors are put in below: no weights are drawn only to be replaced
        model = kind(config)
    expected = model.state_dict()
    state = {f"model.vision_tower.{name}": tensor for name, tensor in tower.items()}
    state |= {f"model.language_model.{name}": tensor for name, tensor in language.model.state_dict().items()}
    state |= {"lm_head.weight": language.lm_head.weight, **fresh(expected)}
    check_tensors(state, {name: tuple(tensor.shape) for name, tensor in expected.items()}, place)
    dtypes = {name: language.dtype if tensor.is_floating_point() else tensor.dtype for name, tensor in state.items()}
    model.load_state_dict({name: tensor.detach().to(dtypes[name]) for name, tensor in state.items()}, assign=True)
    return model


def fresh_projector(expected: Mapping[str, "torch.Tensor"], seed: int) -> dict[str, "torch.Tensor"]:
    """A projector's new weights: Xavier uniform, with zero biases."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in sorted(expected.items()):
        if name.startswith(PROJECTOR):
            state[name] = torch.zeros(tensor.shape)
            if tensor.dim() == 2:
                torch.nn.init.xavier_uniform_(state[name], generator=generator)
    return state


def add_placeholder(tokenizer: Any, language: Any) -> int:
    """Add an `<image>` token to tokenizer and text model; returns its id.

    Its new row is the mean of all others. Its logit is then the mean of theirs, so it is never generated.
    """
    import torch

    tokenizer.add_special_tokens({"extra_special_tokens": ["<image>"]}, replace_extra_special_tokens=False)
    if tokenizer.convert_tokens_to_ids("<|eot_id|>") not in (None, tokenizer.unk_token_id):
        tokenizer.eos_token = "<|eot_id|>"  # ends a turn; some copies name only the token that ends a whole text
    found = int(tokenizer.convert_tokens_to_ids("<image>"))
    rows = language.get_input_embeddings().weight.shape[0]
    if found >= rows:
        language.resize_token_embeddings(found + 1, mean_resizing=False)
        for weight in (language.get_input_embeddings().weight, language.get_output_embeddings().weight):
            with torch.no_grad():
                weight[rows:] = weight[:rows].float().mean(0).to(weight.dtype)
    return found


def check_tensors(state: Mapping[str, "torch.Tensor"], expected: Mapping[str, tuple[int, ...]], place: str) -> None:
    """Raise StudyError unless the tensors have the expected names and shapes."""
    for problem, names in (("lacks", expected.keys() - state.keys()), ("has beside them", state.keys() - expected)):
        if names:
            raise StudyError(
                f"Expected the {len(expected)} tensors of the model in {place}, found a checkpoint that {problem} "
                f"{min(names)}: take the model as published."
            )
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            raise StudyError(
                f"Expected {name} of shape {shape} for {place}, found {tuple(state[name].shape)}: "
                "take the model as published."
            )

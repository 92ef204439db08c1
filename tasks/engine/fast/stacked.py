"""Train several hospitals' adapters in one forward and backward pass over the frozen base.

Each row of a batch belongs to one hospital and goes through that hospital's LoRA. Rows do not interact, so every
hospital gets the same gradients, clipping and steps as alone.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch.nn import functional
from tqdm import tqdm

from tasks.engine.adapter import State
from tasks.engine.batch import Example, collate, shuffled, within
from tasks.engine.engine import Engine
from tasks.engine.fast.dropout import dropped
from tasks.engine.loss import answer_logits
from tasks.engine.train import Correction, Factor, is_frozen
from tasks.engine.vision import Features, gather_features


@dataclass(frozen=True)
class TrainingHospital:
    """The training data of one hospital."""

    features: Features
    examples: Sequence[Example]
    seed: int
    """Seed for the order of its examples, as in `train`."""


@dataclass(frozen=True)
class Trained:
    """The result of one hospital's training."""

    state: State
    loss: float
    """Mean per answer token over all steps."""
    steps: int


class Stack:
    """One LoRA for each of `count` hospitals, stacked: A `(count, r, in)` and B `(count, out, r)` of each layer.

    All start from the engine's present adapter, which does not change. The `frozen` factor gets no gradients.
    """

    def __init__(self, engine: Engine, count: int, frozen: Factor | None = None) -> None:
        self.engine = engine
        self.weights = {
            name: torch.nn.Parameter(tensor.to(engine.base.device).repeat(count, 1, 1), not is_frozen(name, frozen))
            for name, tensor in engine.read().items()
        }

    def read(self, hospital: int) -> State:
        """A copy of one hospital's adapter."""
        return {name: weight[hospital].detach().cpu().clone() for name, weight in self.weights.items()}

    @contextmanager
    def switched_on(self, rows: torch.Tensor, tokens: torch.Tensor) -> Iterator[None]:
        """While open, the base computes with the hospitals' adapters, and the engine's adapter is off.

        Args:
            rows: `(B,)`, the hospital of each row.
            tokens: `(n,)`, the hospital of each answer token, for layers that compute only these tokens.
        """
        modules = dict(self.engine.peft.named_modules())
        names = [name.removesuffix(".lora_A.weight") for name in self.weights if name.endswith(".lora_A.weight")]
        handles = [
            modules[f"{name}.base_layer"].register_forward_hook(self._adds(name, modules[name].scaling, rows, tokens))
            for name in names
        ]
        try:
            with self.engine.peft.disable_adapter():
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _adds(
        self, name: str, scaling: dict[str, float], rows: torch.Tensor, tokens: torch.Tensor
    ) -> Callable[..., torch.Tensor]:
        """A hook that adds the output of the hospitals' adapters to a layer's output."""
        a, b = (self.weights[f"{name}.lora_{part}.weight"] for part in "AB")
        (scale,) = scaling.values()

        def add(_: torch.nn.Module, given: tuple[torch.Tensor], made: torch.Tensor) -> torch.Tensor:
            (x,) = given
            whose = rows if x.dim() == 3 else tokens
            x = dropped(x.float().view(len(whose), -1, x.shape[-1]), self.engine.config.lora_dropout)
            low = x @ a.index_select(0, whose).transpose(1, 2)
            change = low @ b.index_select(0, whose).transpose(1, 2)
            return (made + scale * change.view_as(made)).to(made.dtype)

        return add


def train_stacked(
    engine: Engine,
    hospitals: Sequence[TrainingHospital],
    *,
    epochs: int,
    batch_size: int,
    tokens: int,
    learning_rate: float,
    correct: Correction | None = None,
    frozen: Factor | None = None,
    title: str = "training",
) -> list[Trained]:
    """Train every hospital from the present adapter, as `train` does for one; results in the order of hospitals.

    Without dropout, the results equal those of `train` up to rounding; with it, the dropout draws differ. A hospital
    with fewer batches than others gets its adapter as it was after its last batch. For the arguments see `train`.
    """
    plans = [_plan(hospital, epochs, batch_size) for hospital in hospitals]
    torch.manual_seed(hospitals[0].seed)
    stack = Stack(engine, len(hospitals), frozen)
    states = [stack.read(number) for number in range(len(hospitals))]
    optimiser = torch.optim.AdamW(stack.weights.values(), lr=learning_rate, weight_decay=0.0, fused=True)
    total, answered = torch.zeros(len(hospitals)), torch.zeros(len(hospitals))
    engine.peft.train()
    try:
        for step in tqdm(range(max(map(len, plans))), desc=title, unit="step", leave=False, disable=None):
            chosen = [(number, example) for number, plan in enumerate(plans) for example in plan[step : step + 1]]
            batch = [(number, example) for number, examples in chosen for example in examples]
            loss, count = add_gradients(stack, hospitals, batch, tokens)
            if correct:
                correct(stack.weights)
            _clip(list(stack.weights.values()))
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            total, answered = total + loss, answered + count
            for number, plan in enumerate(plans):
                if step + 1 == len(plan):
                    states[number] = stack.read(number)
    finally:
        engine.peft.eval()
    losses = (total / answered.clamp(min=1)).tolist()
    return [Trained(state, loss, len(plan)) for state, loss, plan in zip(states, losses, plans, strict=True)]


def _plan(hospital: TrainingHospital, epochs: int, batch_size: int) -> list[list[Example]]:
    """The batches of one hospital for all epochs."""
    generator = torch.Generator().manual_seed(hospital.seed)
    return [batch for _ in range(epochs) for batch in shuffled(hospital.examples, batch_size, generator)]


def add_gradients(
    stack: Stack, hospitals: Sequence[TrainingHospital], batch: Sequence[tuple[int, Example]], most: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the gradients of each hospital's mean loss per answer token to those of its own copy of the weights.

    Args:
        stack: one LoRA for each hospital.
        hospitals: where each hospital's features are.
        batch: examples, each with the number of its hospital.
        most: most tokens in one forward pass, padding included.

    Returns, for each hospital, the loss summed over its answer tokens, and their number.
    """
    base = stack.engine.base
    total, count = torch.zeros(len(hospitals)), torch.zeros(len(hospitals))
    for number, example in batch:
        count[number] += len(example.answer_ids)
    for places in within([len(example) for _, example in batch], most):
        part = [batch[place] for place in places]
        examples, features = _together(hospitals, part)
        rows = torch.tensor([number for number, _ in part])
        owners = rows.repeat_interleave(torch.tensor([len(example.answer_ids) for example in examples]))
        # The adapters stay on for the backward pass: it runs checkpointed layers again.
        with stack.switched_on(rows.to(base.device), owners.to(base.device)):
            logits, targets = answer_logits(base, collate(base, features, examples))
            losses = functional.cross_entropy(logits.float(), targets, reduction="none")
            (losses / count[owners].to(base.device)).sum().backward()
        total.index_add_(0, owners, losses.detach().cpu())
    return total, count


def _together(
    hospitals: Sequence[TrainingHospital], part: Sequence[tuple[int, Example]]
) -> tuple[list[Example], Features]:
    """Examples of several hospitals with the features they need; image names get the hospital's number as prefix."""
    images = {
        f"{number}/{image_id}": (hospitals[number].features, image_id)
        for number, example in part
        for image_id in example.image_ids
    }
    examples = [
        replace(example, image_ids=tuple(f"{number}/{image_id}" for image_id in example.image_ids))
        for number, example in part
    ]
    return examples, gather_features(images)


def _clip(weights: Sequence[torch.Tensor]) -> None:
    """Clip each hospital's gradient norm over all layers to at most 1, as `clip_grad_norm_` does for one."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    scales = (1 / (norms + 1e-6)).clamp(max=1).view(-1, 1, 1)
    for gradient in gradients:
        gradient.mul_(scales)

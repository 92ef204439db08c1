"""Train a stage until the held-out loss stops falling, and keep the weights of its lowest value."""

import math
from collections.abc import Sequence

import torch

from tasks.engine.adapter import State
from tasks.engine.batch import Example, shuffled
from tasks.engine.progress import Progress
from tasks.engine.train import add_gradients, mean_loss
from tasks.engine.trainable import Trainable
from tasks.engine.vision import Features
from tasks.errors import StudyError
from tasks.records import EpochLoss
from tasks.store.checkpoints import Checkpoint


class Epochs:
    """The losses of the epochs so far, and the weights of the best one: that with the first lowest held-out loss.

    `untrained` are the weights before the first epoch.
    """

    def __init__(self, untrained: State) -> None:
        self.kept = untrained
        self.losses: list[tuple[float, float]] = []
        """Of each epoch, in training and held out."""

    @property
    def best(self) -> int:
        """The number of the best epoch, from 1; 0 before the first."""
        held_out = [held for _, held in self.losses]
        return held_out.index(min(held_out)) + 1 if held_out else 0

    def add(self, trained: float, held: float, trainable: Trainable) -> None:
        """Note the losses of an epoch, and keep its weights if it is the best."""
        self.losses.append((trained, held))
        if self.best == len(self.losses):
            self.kept = trainable.read()

    def rows(self, title: str) -> list[EpochLoss]:
        """A row for each epoch of a stage of this title."""
        return [
            EpochLoss(title, epoch, *losses, kept=epoch == self.best) for epoch, losses in enumerate(self.losses, 1)
        ]

    def state_dict(self) -> State:
        """What a checkpoint holds of it."""
        losses = torch.tensor(self.losses, dtype=torch.float64).reshape(-1, 2)
        return {"losses": losses} | {f"kept {name}": tensor for name, tensor in self.kept.items()}

    def load_state_dict(self, state: State) -> None:
        """Go on from what a checkpoint holds."""
        self.losses = [(trained, held) for trained, held in state["losses"].tolist()]
        self.kept = {name: state[f"kept {name}"] for name in self.kept}


def fit(
    trainable: Trainable,
    features: Features,
    training: Sequence[Example],
    held_out: Sequence[Example],
    *,
    epochs: int,
    patience: int,
    batch_size: int,
    tokens: int,
    learning_rate: float,
    seed: int,
    title: str,
    checkpoint: Checkpoint | None = None,
) -> list[EpochLoss]:
    """Train with AdamW (constant rate, gradient norm clipped at 1), and switch to the weights of the best epoch.

    Args:
        features: cached features, or `Pixels` if tower or projector learns.
        epochs: most passes over the training examples.
        patience: stop after this many epochs without a lower held-out loss (early stopping, Prechelt 1998).
        batch_size: examples per optimiser step.
        tokens: most tokens in one forward pass, padding included.
        seed: seed for the order of the examples and for dropout.
        title: name of the stage in the rows and beside the progress bar.
        checkpoint: where the training goes on from, and is kept from time to time.

    Returns a row for each epoch that was trained. Raises StudyError if a loss is not finite.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    parameters = trainable.named_parameters()
    optimiser = torch.optim.AdamW(parameters.values(), lr=learning_rate, weight_decay=0.0, fused=True)
    done = Epochs(trainable.read())
    progress = Progress(title, parameters, optimiser, checkpoint, done)
    for epoch in range(1, epochs + 1):
        batches = shuffled(training, batch_size, generator)
        if epoch <= len(done.losses):
            continue  # before the checkpoint; its order is drawn all the same, as those of later epochs follow
        trained = _epoch(trainable, features, batches, optimiser, tokens, progress, epoch)
        held, _ = mean_loss(trainable, features, held_out, tokens)
        if not (math.isfinite(trained) and math.isfinite(held)):
            raise StudyError(
                f"Expected finite losses in stage {title!r}, found {trained} in training and {held} held out after "
                f"epoch {epoch}: lower the stage's learning_rate."
            )
        done.add(trained, held, trainable)
        progress.begin_plan()
        if epoch - done.best >= patience:
            break
    trainable.switch(done.kept)
    return done.rows(title)


def _epoch(
    trainable: Trainable,
    features: Features,
    batches: Sequence[Sequence[Example]],
    optimiser: torch.optim.Optimizer,
    tokens: int,
    progress: Progress,
    epoch: int,
) -> float:
    """Train what is left of one pass over the batches; returns the mean loss per answer token during all of it."""
    trainable.base.model.train()
    try:
        for chosen in progress.left(batches, str(epoch)):
            progress.count(*add_gradients(trainable.base, features, chosen, tokens))
            torch.nn.utils.clip_grad_norm_(trainable.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
    finally:
        trainable.base.model.eval()
    return progress.mean_loss

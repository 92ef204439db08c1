"""Settings of robust strategies, chosen by the worst attack on held-out cases; test cases have no part in it.

As ByzFL's benchmark does, each attack is run with each candidate, and the candidate counts by its worst attack.
"""

import math

from flows.attacked import Scenes, held_out_loss, train_attacked
from flows.parts import within_part
from flows.progress import Steps
from flows.runners.runner import spread
from tasks.compare.attack_results import Row
from tasks.errors import StudyError
from tasks.settings import Study
from tasks.settings.attack import AttackTable
from tasks.settings.comparison import Changes

CLIPS: tuple[Changes, ...] = tuple({"federation.clip": clip} for clip in (0.5, 1.0, 2.0))
MIXING: tuple[Changes, ...] = tuple({"federation.pre_aggregation": name} for name in ("none", "nnm"))
CANDIDATES: dict[str, tuple[Changes, ...]] = {
    "norm-bounded": CLIPS,
    "centered-clipping": CLIPS,
    **dict.fromkeys(("median", "trimmed-mean", "krum", "multi-krum", "bulyan", "geometric-median"), MIXING),
}
"""By strategy, what it chooses from; strategies that are not named choose nothing."""


def candidates(strategy: str) -> tuple[Changes, ...]:
    """What a strategy chooses from; empty if there is nothing to choose."""
    return CANDIDATES.get(strategy, ())


def choose(table: AttackTable, row: Row, scenes: Scenes, steps: Steps) -> Changes:
    """The candidate whose largest held-out loss over all attacks is smallest; the first of equal ones.

    Losses are of the honest hospitals on the table's first seed. A federation that breaks has an infinite loss.
    """

    def tried(changes: Changes) -> tuple[str, float]:
        study = table.cell(row.strategy, row.byzantine, row.hospitals, table.seeds[0], changes)
        title = f"{row.strategy}, {row.byzantine}, {', '.join(f'{name}={value}' for name, value in changes.items())}"

        def worst() -> float:
            return max(loss_under(study, scenes, attack) for attack in ("none", *table.attacks))

        return title, within_part("tuning", worst, title)

    tries = candidates(row.strategy)
    if tries:
        scenes.hospitals(table.cell(row.strategy, row.byzantine, row.hospitals, table.seeds[0], {}))
    losses: list[tuple[float, Changes]] = []
    for changes, (title, loss) in zip(tries, spread(tried, tries), strict=True):
        losses.append((loss, changes))
        steps.done(f"{title}: worst held-out loss {loss:.4f}")
    return min(losses, key=lambda each: each[0])[1] if losses else {}


def loss_under(study: Study, scenes: Scenes, attack: str) -> float:
    """The honest hospitals' held-out loss after training under an attack; infinite if that breaks it."""
    try:
        trial = train_attacked(study, scenes.model, scenes.hospitals(study), attack)
        loss = held_out_loss(study, scenes.model, trial.honest)
    except StudyError:
        return math.inf
    return loss

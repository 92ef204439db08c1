"""How often a comparison's test finds a difference where there is none, and where there is one.

    python -m benchmarks.level [TRIALS]

Two configurations answer simulated questions about images. An image is easier or harder for both, and to the taste of
one of them; each training moves all answers of its configuration by chance. Without an effect, neither is better on
average over trainings and images. Seeds share one test set, or have images of their own, or draw these from twice as
many, so that they share some. A line for each design: how often the test of `tasks.compare.trainings` rejects at 5 %
without an effect, and so do two tests that take the rows of all seeds together (bootstrap over images, McNemar); then
how often the first finds an effect of 2, 3 and 5 points.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tasks.compare.trainings import over_trainings
from tasks.score.statistics import bootstrap_interval, mcnemar, mean

EFFECTS = (0.02, 0.03, 0.05)
LEVEL = 0.05


@dataclass(frozen=True)
class Design:
    """What is simulated."""

    seeds: int
    test_sets: str = "shared"
    """`shared` by all seeds, each seed's `own`, or `drawn` by each from twice as many images."""
    images: int = 100
    """Of each seed."""
    questions: int = 6
    """Of each image."""
    training: float = 0.015
    """Standard deviation of a configuration's accuracy over its trainings."""
    taste: float = 0.05
    """Standard deviation, over images, of how much easier one configuration finds an image than all others do."""
    effect: float = 0.0
    """By how much the first configuration is better, as a share of the questions."""


@dataclass(frozen=True)
class Answers:
    """Right and wrong answers of both configurations, a row for each question and seed."""

    first: np.ndarray
    second: np.ndarray
    seeds: list[int]
    images: list[int]


def draw(design: Design, random: np.random.Generator) -> Answers:
    """One comparison."""
    seeds, many, questions = design.seeds, design.images, design.questions
    images = {
        "shared": lambda: np.tile(np.arange(many), (seeds, 1)),
        "own": lambda: np.arange(seeds * many).reshape(seeds, many),
        "drawn": lambda: np.stack([random.permutation(2 * many)[:many] for _ in range(seeds)]),
    }[design.test_sets]()
    count = int(images.max()) + 1
    ease, difficulty = random.normal(0, 0.2, count), random.random((count, questions))
    right = []
    for effect in (design.effect, 0.0):
        trained, taste = random.normal(0, design.training, (seeds, 1)), random.normal(0, design.taste, count)
        share = 0.7 + effect + trained + ease[images] + taste[images]
        # Of its answers, most depend on the question, some on how the configuration takes it, some on the training.
        taken, chance = random.random((count, questions)), random.random((seeds, many, questions))
        hangs = random.random((seeds, many, questions))
        hurdle = np.where(hangs < 0.6, difficulty[images], np.where(hangs < 0.8, taken[images], chance))
        right.append((hurdle < share[:, :, None]).ravel().astype(float))
    first, second = right
    return Answers(
        first,
        second,
        np.repeat(np.arange(seeds), many * questions).tolist(),
        np.repeat(images.ravel(), questions).tolist(),
    )


def over_seeds_and_images(answers: Answers, trial: int) -> bool:
    """Whether the comparison's test finds a difference."""
    columns = np.column_stack([answers.first - answers.second, np.ones(len(answers.first))])
    p = over_trainings(columns, answers.seeds, answers.images, mean).p
    return p is not None and p <= LEVEL


def pooled_bootstrap(answers: Answers, trial: int) -> bool:
    """Whether an interval over the images, with all seeds' rows together, leaves out 0."""
    found = bootstrap_interval((answers.first - answers.second).tolist(), answers.images, trial)
    return found.low is not None and found.high is not None and not found.low <= 0 <= found.high


def pooled_mcnemar(answers: Answers, trial: int) -> bool:
    """Whether McNemar's test of all seeds' rows together finds a difference."""
    return mcnemar(answers.first.astype(bool).tolist(), answers.second.astype(bool).tolist()).p <= LEVEL


def rejections(design: Design, test: Callable[[Answers, int], bool], trials: int) -> float:
    """The share of simulated comparisons in which a test finds a difference; the same ones for every test."""
    random = np.random.default_rng(0)
    return sum(test(draw(design, random), trial) for trial in range(trials)) / trials


DESIGNS = [
    Design(seeds, test_sets, images, training=training, taste=taste)
    for test_sets in ("shared", "own", "drawn")
    for seeds in (3, 5)
    for images, training, taste in ((100, 0.0, 0.05), (100, 0.015, 0.05), (40, 0.015, 0.05), (100, 0.015, 0.15))
]


def main(arguments: Sequence[str]) -> None:
    """Print a line for each design."""
    trials = int(arguments[0]) if arguments else 1000
    effects = " | ".join(f"finds {effect:.0%}" for effect in EFFECTS)
    print(f"| test sets | seeds | images | training | taste | rejects | bootstrap | McNemar | {effects} |")
    print("|" + "---|" * (8 + len(EFFECTS)))
    for design in DESIGNS:
        tests = (over_seeds_and_images, pooled_bootstrap, pooled_mcnemar)
        wrong = [rejections(design, test, trials) for test in tests]
        found = [rejections(replace(design, effect=effect), tests[0], trials) for effect in EFFECTS]
        about = f"{design.test_sets} | {design.seeds} | {design.images} | {design.training} | {design.taste}"
        print(f"| {about} | {' | '.join(f'{share:.3f}' for share in (*wrong, *found))} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

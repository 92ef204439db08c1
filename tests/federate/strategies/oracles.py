"""Robust rules written anew from their papers in plain NumPy, one hospital and one coordinate at a time."""

import numpy as np

Rows = list[list[float]]


def distance(one: list[float], other: list[float]) -> float:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5


def columns(rows: Rows) -> list[list[float]]:
    return [list(column) for column in zip(*rows, strict=True)]


def middle(values: list[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def mean(rows: Rows) -> list[float]:
    return [sum(column) / len(rows) for column in columns(rows)]


def median(rows: Rows, f: int) -> list[float]:
    return [middle(column) for column in columns(rows)]


def trimmed_mean(rows: Rows, f: int) -> list[float]:
    kept = [sorted(column)[f : len(column) - f] for column in columns(rows)]
    return [sum(column) / len(column) for column in kept]


def krum_scores(rows: Rows, f: int) -> list[float]:
    """Over the n - f - 2 closest of the others (Blanchard et al., section 3); at least over one."""
    found = []
    for number, row in enumerate(rows):
        others = sorted(distance(row, other) ** 2 for place, other in enumerate(rows) if place != number)
        found.append(sum(others[: max(1, len(rows) - f - 2)]))
    return found


def central_first(rows: Rows) -> Rows:
    """The papers leave open which of equal scores wins; in this order it is the more central one."""
    return sorted(rows, key=lambda row: sum(sorted(distance(row, other) ** 2 for other in rows)))


def krum(rows: Rows, f: int) -> list[float]:
    rows = central_first(rows)
    scores = krum_scores(rows, f)
    return rows[scores.index(min(scores))]


def multi_krum(rows: Rows, f: int) -> list[float]:
    scores = krum_scores(rows, f)
    best = sorted(range(len(rows)), key=lambda number: scores[number])[: len(rows) - f]
    return mean([rows[number] for number in best])


def bulyan(rows: Rows, f: int) -> list[float]:
    left, chosen = central_first(rows), []
    while len(chosen) < len(rows) - 2 * f:
        scores = krum_scores(left, f)
        best = left[scores.index(min(scores))]
        left.remove(best)
        chosen.append(best)
    made = []
    for column in columns(chosen):
        near = sorted(column, key=lambda value: abs(value - middle(column)))[: len(rows) - 4 * f]
        made.append(sum(near) / len(near))
    return made


def geometric_median(rows: Rows, f: int) -> list[float]:
    """By scipy's simplex search for the smallest sum of distances, for few coordinates."""
    from scipy.optimize import minimize

    def total(point: np.ndarray) -> float:
        return sum(distance(row, list(point)) for row in rows)

    found = minimize(total, mean(rows), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 10000})
    return list(found.x)


def norm_bounded(rows: Rows, f: int, multiple: float = 1) -> list[float]:
    norms = [distance(row, [0.0] * len(row)) for row in rows]
    bound = multiple * middle(norms)
    return mean([[value * min(1, bound / norm) for value in row] for row, norm in zip(rows, norms, strict=True)])


def spread(rows: Rows) -> float:
    return middle([middle([distance(row, other) for other in rows]) for row in rows])


def centered_clipping(rows: Rows, f: int, multiple: float = 1, steps: int = 5) -> list[float]:
    centre, bound = median(rows, f), multiple * spread(rows)
    for _ in range(steps):
        clipped = []
        for row in rows:
            away = [value - at for value, at in zip(row, centre, strict=True)]
            norm = distance(row, centre)
            clipped.append([value * min(1, bound / norm) if norm else value for value in away])
        centre = [at + step for at, step in zip(centre, mean(clipped), strict=True)]
    return centre


def mixed(rows: Rows, f: int) -> Rows:
    return [mean(sorted(rows, key=lambda other: distance(row, other))[: len(rows) - f]) for row in rows]

"""One answer explained: by each method, maps over the prompt's images, and each part's share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tasks.engine.attribution.attention import Layers, Trace, trace
from tasks.engine.attribution.layout import PARTS, Layout, layout
from tasks.engine.attribution.occlusion import occlude_parts, occlude_regions, region_shape
from tasks.engine.base import Base
from tasks.engine.batch import Example, encode
from tasks.engine.context import ordered
from tasks.engine.prompt import Asked, build_prompt
from tasks.engine.vision import Features
from tasks.errors import StudyError
from tasks.explain.maps import Row, attention_row, relevance_row, rollout_row, share_by_part
from tasks.records import Image, Saliency, Share
from tasks.settings import ContextSettings

METHODS = ("attention", "rollout", "relevance", "occlusion")
REGIONS = 8
"""Most regions along each side of an image that are covered one after the other."""


@dataclass(frozen=True)
class Explanation:
    """What one answer came from."""

    tokens: tuple[str, ...]
    """Of the answer; the one that ends it is left out unless it is all there is."""
    probabilities: tuple[float, ...]
    """The model's, of each of these tokens."""
    maps: tuple[Saliency, ...]
    """By method, one for each image in the order of the prompt: the question's own is the last."""
    shares: tuple[Share, ...]

    def seen(
        self, method: str, layer: int | None = None, head: int | None = None
    ) -> tuple[list[Saliency], dict[str, float]]:
        """A method's maps, the question's own image first and then the nearest case's, and each part's share."""
        place = (method, layer, head)
        maps = [each for each in self.maps if (each.method, each.layer, each.head) == place]
        shares = {each.part: each.share for each in self.shares if (each.method, each.layer, each.head) == place}
        return sorted(maps, key=lambda each: -1 if each.rank is None else each.rank), shares

    def map(self, method: str, rank: int | None = None) -> Saliency:
        """A method's map of the question's own image, or of the image that the retrieved case of that rank brought."""
        return next(each for each in self.seen(method)[0] if each.rank == rank)

    def share(self, method: str) -> dict[str, float]:
        """Each part's share by a method."""
        return self.seen(method)[1]


def explain(
    base: Base,
    features: Features,
    images: Mapping[str, Image],
    asked: Asked,
    how: ContextSettings,
    answer: str,
    methods: Sequence[str] = METHODS,
    token: int | None = None,
    heads: bool = False,
    tokens: int = 8192,
) -> Explanation:
    """Explain an answer by the model as it is, adapter included: `Engine.switch` the hospital's own before.

    Args:
        features: of the prompt's images.
        images: the same images by id; others may be among them.
        asked: the case, and what is retrieved for it, nearest first.
        how: what of the retrieved cases is shown, and in which order.
        answer: what is explained: as a rule what the model answered, not the reference.
        methods: some of METHODS.
        token: of the answer, 0 the first; the whole answer where not given. The whole answer's weights are the mean of
            its tokens', each of whose prompts weighs 1 in all; for occlusion, the falls of its tokens are summed.
        heads: whether attention is told of each layer and head besides.
        tokens: most tokens that occlusion lets pass the model at once.

    Raises StudyError where the answer has no such token.
    """
    prompt = replace(build_prompt(asked.case, asked.shown, asked.similarities, how), answer=answer)
    (example,) = encode(base, features, [prompt])
    count = max(len(example.answer_ids) - 1, 1)
    if token is not None and not 0 <= token < count:
        raise StudyError(f"Expected a token of the answer, 0 to {count - 1}, found {token}.")
    chosen = list(range(count)) if token is None else [token]
    ranks = ordered(range(len(asked.shown)), how.order, asked.case.id) if how.show == "images+text" else []
    told = _Told(asked.case.id, token, layout(base, features, prompt), (*ranks, None), images, base)
    traced = trace(base, features, example)
    maps: list[Saliency] = []
    shares: list[Share] = []
    for view in _views(traced, methods, heads):
        row = view.row(traced, chosen)
        shares += told.shares(view, share_by_part(row, told.layout.parts, PARTS))
        pieces = [row[place.positions].reshape(place.rows, place.columns) for place in told.layout.places]
        maps += told.maps(view, pieces)
    if "occlusion" in methods:
        view = _View("occlusion")
        parts, pieces = _occluded(base, features, images, example, told.layout, chosen, tokens)
        shares += told.shares(view, parts)
        maps += told.maps(view, pieces)
    words = tuple(str(base.tokenizer.decode([each])) for each in example.answer_ids[:count])
    return Explanation(words, tuple(traced.log_probs[:count].detach().exp().tolist()), tuple(maps), tuple(shares))


@dataclass(frozen=True)
class _View:
    """A way to look at one answer: a method, of attention perhaps one layer's head alone."""

    method: str
    layers: Layers | None = None
    layer: int | None = None
    head: int | None = None

    def row(self, traced: Trace, tokens: Sequence[int]) -> Row:
        """The weights of the prompt's tokens, `(T of the prompt,)`: they sum to 1, or are all 0."""
        rows = []
        for token in tokens:
            row = ROWS[self.method](traced, self.layers or [], token)[: traced.asked]
            total = row.sum()
            rows.append(row / total if total > 0 else row)
        return np.mean(rows, axis=0)


ROWS: Mapping[str, Callable[[Trace, Layers, int], Row]] = {
    "attention": lambda traced, layers, token: attention_row(layers, traced.asked - 1 + token),
    "rollout": lambda traced, layers, token: rollout_row(layers, traced.asked - 1 + token),
    "relevance": lambda traced, layers, token: relevance_row(layers, traced.gradients(token), traced.asked - 1 + token),
}


def _views(traced: Trace, methods: Sequence[str], heads: bool) -> Iterator[_View]:
    layers = traced.attention()
    yield from (_View(method, layers) for method in methods if method in ROWS)
    if heads and "attention" in methods:
        for number, layer in enumerate(layers):
            yield _View("attention", [layer], number)
            yield from (_View("attention", [layer[head : head + 1]], number, head) for head in range(len(layer)))


@dataclass(frozen=True)
class _Told:
    """What all records of one answer have in common."""

    case_id: str
    token: int | None
    layout: Layout
    ranks: tuple[int | None, ...]
    images: Mapping[str, Image]
    base: Base

    def shares(self, view: _View, shares: Mapping[str, float]) -> list[Share]:
        """One record for each part."""
        place = (self.case_id, view.method, self.token, view.layer, view.head)
        return [Share(*place, part, share) for part, share in shares.items()]

    def maps(self, view: _View, pieces: Sequence[NDArray[np.float64]]) -> Iterator[Saliency]:
        """One record for each image of the prompt; `pieces` are their weights, `(rows, columns)`."""
        place = (self.case_id, view.method, self.token, view.layer, view.head)
        for each, rank, weights in zip(self.layout.places, self.ranks, pieces, strict=True):
            image = self.images[each.image_id]
            window = self.base.family.window(self.base.image_processor, image.width, image.height)
            rows, columns = weights.shape
            flat, edges = tuple(weights.ravel().tolist()), tuple(map(float, window))
            yield Saliency(*place, each.image_id, rank, rows, columns, flat, edges)


def _occluded(
    base: Base,
    features: Features,
    images: Mapping[str, Image],
    example: Example,
    told: Layout,
    chosen: Sequence[int],
    tokens: int,
) -> tuple[dict[str, float], list[NDArray[np.float64]]]:
    """Each part's share, and the falls of the regions of each image, `(rows, columns)`.

    Shares are of the falls as parts are covered wholly, of which the positive ones count.
    """
    falls = np.clip(occlude_parts(base, features, images, example, told, tokens)[:, chosen].sum(1), 0, None)
    parts = [*(falls / falls.sum() if falls.any() else falls), 0.0]
    pieces = []
    for number, place in enumerate(tqdm(told.places, desc="covering", unit="image", leave=False, disable=None)):
        shape = region_shape(place, REGIONS)
        found = occlude_regions(base, features, images, example, number, shape, tokens)
        pieces.append(found[..., chosen].sum(-1))
    return dict(zip(PARTS, map(float, parts), strict=True)), pieces

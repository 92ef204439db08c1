"""Can it be told from the global adapter on which cases hospitals trained it? With and without differential privacy.

    python -m benchmarks.membership [--adapters N] [--images N] [--rounds N ...] [--privacy NAME ...]

Federations of phantom's four hospitals on the embedded base, with a study's default settings but no retrieved cases,
which differential privacy needs. Each trains on a random half of each hospital's training images; what it has not
trained on is of other images. Each global adapter is attacked with the others as the attacker's shadows.
"""

import argparse
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.inference_attacks import auc, lira, loss_threshold, true_positives, with_interval
from tasks.engine.adapter import State
from tasks.engine.base import Base, load_base
from tasks.engine.batch import Example, collate, encode, within
from tasks.engine.engine import Engine
from tasks.engine.loss import answer_logits
from tasks.engine.prompt import build_prompts
from tasks.engine.train import mean_loss, train
from tasks.engine.vision import Features, encode_images
from tasks.federate.means import weighted_mean
from tasks.federate.privacy.accounting import sigma_for
from tasks.federate.privacy.dp_sgd import train_privately
from tasks.federate.privacy.mechanism import Mechanism
from tasks.federate.privacy.noise import Noise
from tasks.federate.privacy.plan import steps_of_round
from tasks.ingest import phantom
from tasks.records import Case
from tasks.settings import ContextSettings, FederationSettings, LoraSettings, PrivacySettings
from tasks.store import derived_seed

LORA = LoraSettings()
SEED = 4
"""Of images that the base was not trained on: they are of the hospital part."""
PRIVACY = {"none": PrivacySettings(), "example": PrivacySettings(unit="example", epsilon=8)}
"""By `federation.privacy.unit`."""


@dataclass(frozen=True)
class Pool:
    """The cases that adapters are trained on and attacked with, all tokenised."""

    features: Features
    cases: list[Case]
    examples: list[Example]
    hospitals: NDArray[np.int64]
    """Of each case, the number of its hospital."""
    images: NDArray[np.int64]
    """Of each case, the number of its image."""
    test: list[Example]
    """Of test images, which no adapter is trained on."""


def draw(base: Base, images: int) -> Pool:
    """The hospital part of phantom, so many images for each hospital."""
    source = phantom.read(images=images, seed=SEED, public=False, test_fraction=0.2)
    features = encode_images(base, source.images)
    cases = [case for case in source.cases if case.split == "train"]
    test = [case for case in source.cases if case.split == "test"]
    examples, held_out = (
        encode(base, features, build_prompts(part, source.cases, [], ContextSettings(k=0))) for part in (cases, test)
    )
    _, hospitals = np.unique([str(case.site) for case in cases], return_inverse=True)
    _, numbers = np.unique([case.image_id for case in cases], return_inverse=True)
    return Pool(features, cases, examples, hospitals, numbers, held_out)


def halves(pool: Pool, adapters: int) -> NDArray[np.bool_]:
    """`(S, N)`: the cases that each adapter is trained on, those of a random half of each hospital's images."""
    rng = np.random.default_rng(SEED)
    members = np.zeros((adapters, len(pool.images)), bool)
    for row in members:
        for hospital in np.unique(pool.hospitals):
            images = np.unique(pool.images[pool.hospitals == hospital])
            row |= np.isin(pool.images, rng.permutation(images)[: len(images) // 2])
    return members


def noise_multiplier(pool: Pool, members: NDArray[np.bool_], federation: FederationSettings) -> float | None:
    """The smallest with which the smallest hospital's rounds, and so all others', end within epsilon; None without."""
    privacy = federation.privacy
    if privacy.unit == "none":
        return None
    units = min(int((row & (pool.hospitals == each)).sum()) for row in members for each in np.unique(pool.hospitals))
    of = mechanism(units, federation, 1.0)
    return sigma_for(privacy.epsilon, of.rate, federation.rounds * of.steps, privacy.delta, privacy.accountant)


def mechanism(units: int, federation: FederationSettings, sigma: float) -> Mechanism:
    """What a round does at a hospital with so many cases."""
    steps = steps_of_round(units, federation.batch_size, federation.local_epochs)
    return Mechanism(min(federation.batch_size / units, 1), steps, federation.privacy.clip, sigma)


def federate(
    engine: Engine,
    pool: Pool,
    members: NDArray[np.bool_],
    federation: FederationSettings,
    sigma: float | None,
    number: int,
) -> State:
    """The global adapter after all rounds of federated averaging on the members, with noise unless `sigma` is None."""
    state: State = engine.initial_state(derived_seed(SEED, "adapter"))
    for round_number in range(1, federation.rounds + 1):
        sent, samples = [], []
        for hospital in np.unique(pool.hospitals):
            examples = [pool.examples[at] for at in np.flatnonzero(members & (pool.hospitals == hospital))]
            engine.switch(state)
            seed = derived_seed(SEED, number, round_number, int(hospital))
            train_locally(engine, pool.features, examples, federation, sigma, seed)
            sent.append(engine.read())
            samples.append(len(examples))
        state = weighted_mean(sent, samples)
    return state


def train_locally(
    engine: Engine,
    features: Features,
    examples: Sequence[Example],
    federation: FederationSettings,
    sigma: float | None,
    seed: int,
) -> None:
    """One hospital's round."""
    how: dict[str, Any] = {
        "tokens": federation.tokens_per_pass,
        "learning_rate": federation.learning_rate,
        "seed": seed,
    }
    if sigma is None:
        train(engine, features, examples, epochs=federation.local_epochs, batch_size=federation.batch_size, **how)
        return
    secret = hashlib.sha256(f"{seed}".encode()).digest()  # a figure is the same again; nobody's cases are in it
    noise, of = Noise(secret, "membership"), mechanism(len(examples), federation, sigma)
    train_privately(engine, features, [[each] for each in examples], of, noise, **how)


@torch.inference_mode()
def losses_of(engine: Engine, features: Features, examples: Sequence[Example], tokens: int) -> NDArray[np.float64]:
    """`(N,)`: the loss of each whole answer in nats, summed over its tokens."""
    losses = np.zeros(len(examples))
    for places in within([len(example) for example in examples], tokens):
        part = [examples[place] for place in places]
        logits, targets = answer_logits(engine.base, collate(engine.base, features, part))
        each = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
        lengths = [len(example.answer_ids) for example in part]
        losses[places] = [float(of.double().sum()) for of in each.split(lengths)]
    return losses


def main(adapters: int, images: int, every: Sequence[int], units: Sequence[str]) -> None:
    """Print a row for each attack, by privacy and rounds."""
    base = load_base("embedded", device="cpu")
    engine = Engine(base, LORA.r, LORA.alpha, LORA.dropout, LORA.targets)
    pool = draw(base, images)
    members = halves(pool, adapters)
    print(
        f"{adapters} adapters, {len(pool.cases)} cases of {images} images a hospital, {members[0].sum()} trained on\n"
    )
    print("| rounds | privacy | test loss | attack | AUC | true positives at 1 % false ones |")
    print("|---|---|---|---|---|---|")
    began = time.perf_counter()
    for rounds in every:
        for unit in units:
            federation = FederationSettings(rounds=rounds, privacy=PRIVACY[unit])
            sigma = noise_multiplier(pool, members, federation)
            losses, tested = np.zeros(members.shape), []
            for number, chosen in enumerate(members):
                engine.switch(federate(engine, pool, chosen, federation, sigma, number))
                losses[number] = losses_of(engine, pool.features, pool.examples, federation.tokens_per_pass)
                tested.append(mean_loss(engine, pool.features, pool.test, federation.tokens_per_pass)[0])
            for attack in (loss_threshold, lira):
                scores = attack(losses, members)
                cells = [
                    "{:.3f} [{:.3f}, {:.3f}]".format(*with_interval(figure, scores, members, pool.images.tolist()))
                    for figure in (auc, true_positives)
                ]
                told = f"{np.mean(tested):.3f} | {attack.__name__.replace('_', ' ')} | {' | '.join(cells)}"
                print(f"| {rounds} | {unit} | {told} |", flush=True)
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--images", type=int, default=24, help="drawn for each hospital")
    parser.add_argument("--rounds", type=int, nargs="+", default=[4])
    parser.add_argument("--privacy", choices=PRIVACY, nargs="+", default=list(PRIVACY), help="whose presence is hidden")
    given = parser.parse_args()
    main(given.adapters, given.images, given.rounds, given.privacy)

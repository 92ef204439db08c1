"""What training takes is measured of a real pass: the one that a hospital trains."""

from typing import Any

import torch
from engine_samples import same
from test_federate_step import LORA, Round, one_round  # noqa: F401  (the fixture)

from tasks.cases.holdout import split_holdout
from tasks.engine import shared
from tasks.engine.base import load_base
from tasks.engine.engine import Engine
from tasks.engine.hospital import open_hospital
from tasks.engine.train import train
from tasks.federate.footprint import footprint
from tasks.settings import ContextSettings, FederationSettings

FEDERATION = FederationSettings(local_epochs=3, batch_size=2, tokens_per_pass=128, learning_rate=1e-2, holdout=0.3)


def test_what_is_measured_is_one_pass_over_the_training_cases(one_round: Round) -> None:  # noqa: F811
    """The adapter that it leaves switched on is that of a pass spelled out here, whatever a round has of passes."""
    refs, lora, context = one_round.hospitals["south"], LORA.model_copy(update={"dropout": 0.0}), ContextSettings(k=1)
    settings = {"hospital": refs, "model": one_round.model, "lora": lora, "federation": FEDERATION, "context": context}
    request: dict[str, Any] = {name: each.model_dump(mode="json") for name, each in settings.items()} | {"seed": 7}
    memory = footprint(request)
    (measured,) = shared._engine.values()
    engine = Engine(load_base(one_round.model.name, device="cpu"), lora.r, lora.alpha, 0.0, list(lora.targets))
    engine.switch(engine.initial_state(7))
    opened = open_hospital(refs)
    training, held_out = split_holdout(opened.cases, FEDERATION.holdout, 7)
    assert held_out
    examples = opened.examples(engine.base, training, context)
    assert sum(map(len, examples[:2])) > FEDERATION.tokens_per_pass  # so that a step is more than one pass of the base
    once = {"epochs": 1, "batch_size": 2, "tokens": 128, "learning_rate": 1e-2, "seed": 7}
    train(engine, opened.features, examples, **once)  # type: ignore[arg-type]
    assert same(measured.read(), engine.read())
    assert memory.keys() == {"peak_memory_bytes", "device_memory_bytes"}
    weights = sum(each.numel() * each.element_size() for each in engine.base.model.parameters())
    assert (memory["peak_memory_bytes"] or 0) > weights
    assert (memory["device_memory_bytes"] is not None) == torch.cuda.is_available()

"""One group of tensors of a round put together: through the door, by the strategy, into a folder."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tasks.records.federation import CONTROL
from tasks.settings import LocalSteps, StrategySettings
from tasks.store import Folder, Ref

if TYPE_CHECKING:
    from tasks.federate.door import Expected
    from tasks.federate.state import ServerState, Update
    from tasks.federate.strategies.strategy import Strategy


def aggregate_group(
    folder: Folder,
    group: str,
    strategy: "Strategy",
    settings: StrategySettings,
    state: Ref,
    updates: Mapping[str, Ref],
    round_number: int,
    base: str,
    share: float,
    steps: LocalSteps | None,
    measure: Callable[["ServerState", Sequence["Update"], "ServerState"], Mapping[str, object]] | None = None,
    ranks: Mapping[str, int] = MappingProxyType({}),
) -> Collection[str]:
    """Aggregate one group of the updates' tensors and write the result; return the names of the groups written.

    `share` is that of the hospitals which have sent these updates; `ranks` are agreed ranks of theirs, and `steps`
    decide how many steps each took,
    unless they are not checked.

    `measure` adds figures to the round's record, from the state before it, the updates used and the state after it.
    """
    from tasks.federate.state import write_state

    strategy.check_hospitals(len(updates))
    before, used, quarantined = admitted(group, strategy, settings, state, updates, round_number, base, steps, ranks)
    kept = strategy.aggregate(before, [of_all(update, share) for update in used])
    write_state(folder, kept)
    samples = sum(update.samples for update in used)
    summary = {
        "round": round_number,
        "train_loss": sum(update.samples * update.loss for update in used) / samples,
        "samples": {update.hospital: update.samples for update in used},
        "quarantined": quarantined,
    }
    folder.write_json("round.json", summary | dict(measure(before, used, kept) if measure else {}))
    return kept.groups.keys()


def admitted(
    group: str,
    strategy: "Strategy",
    settings: StrategySettings,
    state: Ref,
    updates: Mapping[str, Ref],
    round_number: int,
    base: str,
    steps: LocalSteps | None,
    ranks: Mapping[str, int],
) -> tuple["ServerState", list["Update"], dict[str, str]]:
    """The state before a round, the updates that pass its door, and why others do not, by hospital."""
    from tasks.federate.door import admit
    from tasks.federate.lora_mean.ranks import padded_update
    from tasks.federate.lora_mean.scaling import alike
    from tasks.federate.state import read_config, read_sent, read_state

    before, config = read_state(state.folder), read_config(state.folder)
    sent = {hospital: read_sent(ref.folder, tensors=bool(strategy.needs)) for hospital, ref in updates.items()}
    if config:
        lower = {hospital: update for hospital, update in sent.items() if update and hospital in ranks}
        sent |= {hospital: padded_update(update, config, ranks[hospital]) for hospital, update in lower.items()}
        sent = {hospital: update and alike(update, config) for hospital, update in sent.items()}
    asked = replace(expected(strategy, group, before, config, round_number, base), steps=steps)
    return before, *admit(sent, asked, settings)


def of_all(update: "Update", share: float) -> "Update":
    """An update whose changes of control variates, averaged, are the mean over all hospitals.

    SCAFFOLD moves the server's by that mean (arXiv 1910.06378, algorithm 1): those that took no part changed by 0.
    """
    from tasks.federate.state import Changed

    changes = {
        group: Changed(part, lambda _, tensor: tensor * share) if group.endswith(CONTROL) else part
        for group, part in update.parts.items()
    }
    return replace(update, parts=changes)


def expected(
    strategy: "Strategy",
    group: str,
    before: "ServerState",
    config: Mapping[str, Any] | None,
    round_number: int,
    base: str,
) -> "Expected":
    """What the door expects of the updates of one group of tensors, and of its control variates where there are any."""
    from tasks.engine.train import is_frozen
    from tasks.federate.door import Expected
    from tasks.federate.keeping import stays

    if not strategy.needs:
        return Expected(round_number, base, {}, None)
    order = strategy.order(round_number, "")
    sent = {
        name: tensor
        for name, tensor in before.groups[group].items()
        if not is_frozen(name, order.local.frozen) and not stays(name, order.keeps)
    }
    tensors = {group: sent}
    if group == "adapter" and order.local.control:
        tensors[group + CONTROL] = {name: tensor.new_zeros(tensor.shape) for name, tensor in tensors[group].items()}
    return Expected(round_number, base, tensors, config)

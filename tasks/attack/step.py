"""The attack stages of a simulation: hospitals whose cases are altered, and updates that are falsified."""

from typing import Literal

from tasks.errors import StudyError
from tasks.records import Case, Image, read_images, read_table, write_table
from tasks.records.shared_files import UPDATE
from tasks.settings import LocalSteps
from tasks.store import Ref, derived_seed
from tasks.store.stage import Folder, stage


@stage("altered", area="hospitals/{hospital}", title="{how} {hospital}")
def alter_cases(
    folder: Folder, hospital: str, cases: Ref, how: Literal["label-flip", "backdoor", "marked tests"]
) -> None:
    """A copy of a hospital's cases and images for an attack.

    `label-flip`: training cases have wrong answers. `backdoor`: every second training image has the mark, and its
    questions the backdoor's answers. `marked tests`: every test image has the mark, to ask what a backdoor does.
    """
    from tasks.attack.cases import backdoored_images, marked, with_target, with_wrong_answers

    rows = read_table(cases.folder / "cases.parquet", Case)
    images = set[str]()
    if how == "label-flip":
        rows = with_wrong_answers(rows)
    elif how == "backdoor":
        images = backdoored_images(rows)
        rows = with_target(rows, images)
    else:
        images = {case.image_id for case in rows if case.split == "test"}
    for name in cases.manifest()["files"]:
        folder.write(name, (cases.folder / name).read_bytes())
    folder.summary = dict(cases.manifest()["summary"])
    with folder.open("cases.parquet") as sink:
        write_table(sink, Case, rows)
    with folder.open("images.parquet") as sink:
        given = read_images(cases.folder / "images.parquet")
        write_table(sink, Image, (marked(image) if image.id in images else image for image in given))


@stage(
    "falsified",
    area="shared",
    title="{attack} {hospital} round {round_number}",
    leaves=("tensors", "counts", "losses"),
    writes=UPDATE,
)
def falsify_update(
    folder: Folder,
    hospital: str,
    attack: str,
    attackers: list[str],
    own: list[Ref],
    honest: list[Ref],
    start: Ref,
    round_number: int,
    seed: int,
    asked: LocalSteps,
) -> None:
    """The false update of one of the attackers, in place of its own.

    Args:
        folder: gets the files of an update; what is beside the adapter's tensors stays as the hospital trained it.
        hospital: the attacker.
        attack: a name in `tasks.attack.updates.ATTACKS`.
        attackers: all of them, who agree on what they send.
        own: what each of them trained.
        honest: the updates of all others.
        start: the server's state that all have trained from.
        round_number: counted from 1.
        seed: noise follows from it.
        asked: what decides the steps of a hospital, so that those of a forged count fit it.
    """
    from dataclasses import replace

    import numpy as np
    from safetensors.torch import load_file, save

    from tasks.attack.updates import FORGED, forged
    from tasks.attack.updates import attack as falsify
    from tasks.engine.deltas import delta, moved
    from tasks.engine.train import possible_steps
    from tasks.records.federation import ADAPTER_FILE, read_counts, write_counts

    place = attackers.index(hospital)
    mine = own[place].folder
    trained = load_file(mine / ADAPTER_FILE)
    begun = {name: tensor for name, tensor in load_file(start.folder / ADAPTER_FILE).items() if name in trained}
    theirs, others = ([delta(load_file(ref.folder / ADAPTER_FILE), begun) for ref in refs] for refs in (own, honest))
    if not (finite := [row for row in others if np.isfinite(row).all()]):
        raise StudyError(
            f"Expected finite updates of honest hospitals in round {round_number}, found none: it diverged."
        )
    false = falsify(attack, theirs, finite, derived_seed(seed, "attack", round_number))
    for name in own[place].manifest()["files"]:
        folder.write(name, (mine / name).read_bytes())
    folder.write(ADAPTER_FILE, save(dict(sorted(moved(begun, false[place]).items())), {"format": "pt"}))
    if attack == FORGED:
        counts = read_counts(mine)
        samples = forged(counts.samples)
        write_counts(folder, "", replace(counts, samples=samples, steps=max(possible_steps(samples, **dict(asked)))))

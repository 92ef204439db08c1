"""The retrieve step: a hospital's training cases become its library, and each of its cases gets its neighbours."""

from dataclasses import asdict

from tasks.records import Case, ImagePair, Neighbour, read_table, write_table
from tasks.step import Folder, stage
from tasks.store import Ref


@stage("library", area="hospitals/{hospital}", code=["retrieve", "engine"], title="library {hospital}")
def build_hospital_library(
    folder: Folder,
    hospital: str,
    cases: Ref,
    features: Ref,
    image_weight: float,
    diversity: float,
    depth: int,
    index: str = "auto",
    hide_copies: str = "near_duplicate",
    hide_patient: bool = True,
) -> None:
    """Index the training cases; write the `depth` nearest of them for each train and test case of the hospital.

    With `diversity` these are not the nearest, but chosen among the nearest so that they are not all alike.
    """
    from tasks.engine.vision import FEATURES, load_features
    from tasks.retrieve.diversity import CANDIDATES, diversify
    from tasks.retrieve.encoder import fit_encoder
    from tasks.retrieve.library import build_library, copies_by_image

    rows = read_table(cases.folder / "cases.parquet", Case)
    vision = load_features(features.folder / FEATURES)
    training = [case for case in rows if case.split == "train"]
    pooled = vision.pooled([case.image_id for case in training])
    encoder = fit_encoder(pooled, [case.question for case in training], image_weight)
    own = encoder.encode(pooled, [case.question for case in training])
    library = build_library(
        own,
        training,
        index,
        hide_patient,
        copies_by_image(read_table(cases.folder / "copies.parquet", ImagePair), hide_copies),
    )
    asked = [case for case in rows if case.split != "validation"]
    queries = encoder.encode(vision.pooled([case.image_id for case in asked]), [case.question for case in asked])
    found = library.search(queries, asked, max(depth, CANDIDATES) if diversity else depth)
    if diversity:
        places = {case.id: place for place, case in enumerate(training)}
        found = [diversify(each, own[[places[n.neighbour_id] for n in each]], diversity, depth) for each in found]
    library.write(folder.path)
    folder.write_json("encoder.json", asdict(encoder) | {"image_mean": encoder.image_mean.tolist()})
    with folder.open("neighbours.parquet") as sink:
        write_table(sink, Neighbour, (neighbour for each in found for neighbour in each))
    folder.summary = {"cases": len(training), "dimensions": int(queries.shape[1]), "index": library.kind}

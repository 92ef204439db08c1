"""The retrieve steps: rows of images and texts, the fusion's training, the library and each case's neighbours."""

from dataclasses import asdict

from tasks.records import Case, ImagePair, Neighbour, UpdateCounts, read_images, read_table, write_table
from tasks.records.federation import write_counts
from tasks.settings import EncoderSettings, FusionSettings, ModelChoice
from tasks.store import Ref
from tasks.store.stage import Folder, stage


@stage("encoded", area="hospitals/{hospital}", title="encode {hospital}")
def encode_hospital(
    folder: Folder, hospital: str, cases: Ref, encoding: EncoderSettings, model: ModelChoice, content: str
) -> None:
    """Rows of each image and text of a hospital, each once; `content` tells the encoder's files."""
    from tasks.retrieve.encoded import ENCODED
    from tasks.retrieve.encoders.open import encode_all, opened
    from tasks.text.normalise import normalise

    rows = read_table(cases.folder / "cases.parquet", Case)
    texts = sorted(
        {case.question for case in rows} | {normalise(case.answer) for case in rows if case.split == "train"}
    )
    images = list(read_images(cases.folder / "images.parquet")) if encoding.encoder != "base" else []
    with opened(encoding, model, content) as encoder:
        made = encode_all(encoder, encoding, images, texts)
    folder.write(ENCODED, made.to_bytes())
    widths = {"image_width": made.images.shape[1], "text_width": made.texts.shape[1]}
    folder.summary = {"images": len(made.image_places), "texts": len(made.text_places), "encoder": content} | widths


@stage("fusion", area="shared", title="initial fusion", leaves=())
def initial_gated_fusion(folder: Folder, image_width: int, text_width: int, seed: int) -> None:
    """The fusion that every hospital starts from; a text width of 0 is that of hashed words."""
    from safetensors.torch import save

    from tasks.retrieve.fusion import FUSION, initial_fusion
    from tasks.retrieve.similarity import WORDS
    from tasks.store import derived_seed

    folder.write(FUSION, save(initial_fusion(image_width, text_width or WORDS, derived_seed(seed, "fusion"))))


@stage(
    "fusion-update",
    area="shared",
    title="train fusion {hospital} round {round_number}",
    leaves=("tensors", "counts", "losses"),
)
def train_hospital_fusion(
    folder: Folder,
    hospital: str,
    cases: Ref,
    features: Ref,
    encoded: Ref | None,
    fusion: Ref,
    fusing: FusionSettings,
    holdout: float,
    round_number: int,
    seed: int,
) -> None:
    """One hospital's round of the fusion: from the global one to its update, tensors and counts."""
    from safetensors.torch import load_file, save

    from tasks.retrieve.fusion import FUSION, train_fusion
    from tasks.retrieve.hospital import epoch_orders, fusion_lessons, open_holding

    own = open_holding(cases.folder, features.folder, encoded.folder if encoded else None)
    chosen, lessons = fusion_lessons(own, holdout, seed)
    orders = epoch_orders(chosen, fusing.fusion_epochs, seed, round_number)
    state, loss, steps = train_fusion(load_file(fusion.folder / FUSION), lessons, orders, fusing.fusion_learning_rate)
    folder.write(FUSION, save(state))
    write_counts(folder, "", UpdateCounts(hospital, round_number, len(chosen), loss, steps))


@stage(
    "library",
    area="hospitals/{hospital}",
    title="library {hospital}",
)
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
    rerank: str = "off",
    encoded: Ref | None = None,
    fusion: Ref | None = None,
    holdout: float = 0,
    seed: int = 0,
) -> None:
    """Index the training cases; write the `depth` nearest of them for each train and test case of the hospital.

    With `diversity` these are not the nearest, but chosen among the nearest so that they are not all alike. A
    `rerank` that is learned learns nothing from the cases of the `holdout` (`split_holdout`).
    """
    from safetensors.torch import load_file

    from tasks.cases.holdout import split_holdout
    from tasks.retrieve.diversity import CANDIDATES, diversify
    from tasks.retrieve.fusion import FUSION, Fused
    from tasks.retrieve.hospital import ENCODER, SCORER, make_scorer, open_holding
    from tasks.retrieve.library import build_library, copies_by_image
    from tasks.retrieve.rerank import FIRST, rerank_all
    from tasks.retrieve.similarity import Encoder, encoder_to_json

    holding = open_holding(cases.folder, features.folder, encoded.folder if encoded else None)
    training = holding.training
    fitted = holding.fit(image_weight)
    encoder: Encoder | Fused = Fused(fitted, load_file(fusion.folder / FUSION)) if fusion else fitted
    own = encoder.encode(*holding.inputs.of(training))
    library = build_library(
        own,
        training,
        index,
        hide_patient,
        copies_by_image(read_table(cases.folder / "copies.parquet", ImagePair), hide_copies),
    )
    asked = [case for case in holding.cases if case.split != "validation"]
    queries = encoder.encode(*holding.inputs.of(asked))
    wanted = max(depth, CANDIDATES if diversity else 0, FIRST if rerank != "off" else 0)
    found = library.search(queries, asked, wanted)
    if rerank != "off":
        sides = holding.side(encoder, asked), holding.side(encoder, training)
        left_out = {case.id for case in split_holdout(holding.cases, holdout, seed)[1]}
        scorer = make_scorer(rerank, found, *sides, image_weight, left_out)
        found = rerank_all(found, *sides, scorer, depth)
        folder.write_json(SCORER, asdict(scorer))
    if diversity:
        places = {case.id: place for place, case in enumerate(training)}
        found = [diversify(each, own[[places[n.neighbour_id] for n in each]], diversity, depth) for each in found]
    library.write(folder.path)
    folder.write_json(ENCODER, encoder_to_json(fitted))
    folder.write_json("inputs.json", {"encoded": encoded.path if encoded else None})
    if fusion:
        folder.write(FUSION, (fusion.folder / FUSION).read_bytes())
    with folder.open("neighbours.parquet") as sink:
        write_table(sink, Neighbour, (neighbour for each in found for neighbour in each))
    folder.summary = {"cases": len(training), "dimensions": int(queries.shape[1]), "index": library.kind}

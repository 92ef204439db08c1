"""The retrieve stages: encode images and texts, train the gated fusion, build the library, find neighbours."""

from tasks.records import Case, ImagePair, Neighbour, UpdateCounts, read_images, read_table, write_table
from tasks.records.federation import LibrarySources, write_counts
from tasks.records.shared_files import FUSION_START, FUSION_UPDATE
from tasks.settings import EncoderSettings, FusionSettings, LibrarySettings, ModelChoice
from tasks.store import Ref
from tasks.store.stage import Folder, stage


@stage("encoded", area="hospitals/{hospital}", title="encode {hospital}")
def encode_hospital(
    folder: Folder, hospital: str, cases: Ref, encoding: EncoderSettings, model: ModelChoice, content: str
) -> None:
    """Encode each distinct image and text of a hospital once; `content` identifies the encoder's files."""
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


@stage("fusion", area="shared", title="initial fusion", leaves=(), writes=FUSION_START)
def initial_gated_fusion(folder: Folder, image_width: int, text_width: int, seed: int) -> None:
    """Make the fusion that every hospital starts from; a text width of 0 means the width of hashed words."""
    from safetensors.torch import save

    from tasks.retrieve.fusion import FUSION, initial_fusion
    from tasks.retrieve.similarity import WORDS
    from tasks.store import derived_seed

    folder.write(FUSION, save(initial_fusion(image_width, text_width or WORDS, derived_seed(seed, "fusion"))))


@stage(
    "fusion-update",
    area="shared",
    title="train fusion {hospital.name} round {round_number}",
    leaves=("tensors", "counts", "losses"),
    writes=FUSION_UPDATE,
)
def train_hospital_fusion(
    folder: Folder,
    hospital: LibrarySources,
    fusion: Ref,
    fusing: FusionSettings,
    holdout: float,
    round_number: int,
    seed: int,
) -> None:
    """Train the fusion at one hospital for one round; write its update: tensors and counts."""
    from safetensors.torch import load_file, save

    from tasks.retrieve.fusion import FUSION, train_fusion
    from tasks.retrieve.fusion_lessons import epoch_orders, fusion_lessons
    from tasks.retrieve.hospital_data import open_hospital_data

    chosen, lessons = fusion_lessons(open_hospital_data(hospital), holdout, seed)
    orders = epoch_orders(chosen, fusing.fusion_epochs, seed, round_number)
    state, loss, steps = train_fusion(load_file(fusion.folder / FUSION), lessons, orders, fusing.fusion_learning_rate)
    folder.write(FUSION, save(state))
    write_counts(folder, "", UpdateCounts(hospital.name, round_number, len(chosen), loss, steps, base=""))


@stage("library", area="hospitals/{hospital.name}", title="library {hospital.name}")
def build_hospital_library(
    folder: Folder, hospital: LibrarySources, settings: LibrarySettings, fusion: Ref | None = None
) -> None:
    """Index the training cases; write the neighbours of each train and test case of the hospital."""
    from tasks.cases.holdout import split_holdout
    from tasks.retrieve.hospital_data import open_hospital_data
    from tasks.retrieve.library import build_library, copies_by_image
    from tasks.retrieve.rerank import fixed_scorer
    from tasks.retrieve.retriever import Queries, Retriever
    from tasks.retrieve.retriever_files import fused_encoder, write_retriever

    data = open_hospital_data(hospital)
    training = data.training
    encoder = fused_encoder(data.fit(settings.image_weight), fusion.folder if fusion else None)
    copies = copies_by_image(read_table(hospital.cases.folder / "copies.parquet", ImagePair), settings.hide_copies)
    rows = encoder.encode(*data.inputs.of(training))
    library = build_library(rows, training, settings.index, settings.hide_patient, copies)
    known = {case.id: case for case in training}
    scorer = fixed_scorer(settings.image_weight) if settings.rerank != "off" else None
    retriever = Retriever(library, encoder, known, data.inputs, settings.depth, scorer, settings.diversity)

    cases = [case for case in data.cases if case.split != "validation"]
    queries = Queries(cases, *data.inputs.of(cases))
    found = retriever.search(queries)
    if settings.rerank == "learned":
        held_out = {case.id for case in split_holdout(data.cases, settings.holdout, settings.seed)[1]}
        retriever = retriever.learning(queries, found, settings.image_weight, held_out)
    write_retriever(folder, retriever, hospital.encoded)
    with folder.open("neighbours.parquet") as sink:
        write_table(sink, Neighbour, (each for near in retriever.rank(queries, found) for each in near))
    folder.summary = {"cases": len(training), "dimensions": int(rows.shape[1]), "index": library.kind}

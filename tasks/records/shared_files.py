"""The files in which tensors that are learned from cases leave a hospital, which their stages are held to."""

from tasks.records.federation import ADAPTER_FILE, CONFIG_FILE, CONTROL_FILE, group_file
from tasks.records.shared_documents import RoundDocument, UpdateDocument
from tasks.store.leaving import AdapterConfig, Document, Files, Tensors

ADAPTER = Tensors(r"base_model\.model\.[A-Za-z0-9_.]+")
"""PEFT makes the names of the model's own."""
FUSION = Tensors(r"(image|text|gate|fusion|answer)\.(weight|bias)")
"""Of the gated fusion of images and questions."""

START: Files = {ADAPTER_FILE: ADAPTER, CONFIG_FILE: AdapterConfig()}
"""An adapter as PEFT reads it."""
UPDATE: Files = {**START, CONTROL_FILE: ADAPTER, "update.json": Document(UpdateDocument)}
"""An adapter that a hospital trained; with SCAFFOLD how its control variate changed; and counts."""
STATE: Files = {**START, "adapter-*.safetensors": ADAPTER, "round.json": Document(RoundDocument)}
"""The adapter after a round, other groups of tensors that the strategy keeps, and what it was made of."""
FUSION_START: Files = {group_file("fusion"): FUSION}
FUSION_UPDATE: Files = {**FUSION_START, "update.json": Document(UpdateDocument)}
FUSION_STATE: Files = {**FUSION_START, "fusion-*.safetensors": FUSION, "round.json": Document(RoundDocument)}
"""The same of the gated fusion."""

"""What a coordinator's request holds, as a hospital on a machine of its own reads it."""

import hashlib
import json
from collections.abc import Mapping

from tasks.federate.lora_mean.rule import choose_rule
from tasks.federate.remote.files import ADAPTER
from tasks.federate.remote.parcel import Parcel, digests
from tasks.federate.step import SENT
from tasks.settings import Study
from tasks.store import Ref, find, writing


def asked_study(request: Parcel) -> Study:
    """The study as the coordinator asked for it."""
    return Study.model_validate(request.about["study"])


def sent_adapter(request: Parcel) -> Ref:
    """The adapter of a request, in the store."""
    return keep_adapter({name: data for name, data in request.files.items() if name in ADAPTER})


def kept_parts(study: Study) -> tuple[str, ...]:
    """Parts of names of the tensors that stay at the hospital, by the study's rule."""
    return choose_rule(study.federation.server).order(1, "").keeps


def study_digest(study: Study) -> str:
    """Tells a study from all others."""
    return hashlib.sha256(json.dumps(study.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def keep_adapter(files: Mapping[str, bytes]) -> Ref:
    """Keep an adapter that was sent in the store, in a folder named by its content."""
    key = hashlib.sha256(json.dumps(digests(files), sort_keys=True).encode()).hexdigest()[:16]
    try:
        return find(f"shared/adapter/{key}").verified()
    except (OSError, ValueError):
        with writing("shared", "adapter", key) as folder:
            folder.leaves = list(SENT)
            for name, data in sorted(files.items()):
                folder.write(name, data)
        return folder.ref


def in_same_place(own: bytes, sent: bytes) -> bytes:
    """An adapter's configuration as the coordinator has it, if it differs only in where the base lies."""
    place = "base_model_name_or_path"
    ours, theirs = json.loads(own), json.loads(sent)
    return sent if ours | {place: None} == theirs | {place: None} else own

"""The artifact store: folders written atomically, their cache keys, and their digests."""

from tasks.store.digests import file_digest, files_below, tree_digest
from tasks.store.folders import (
    ROOT,
    Folder,
    Ref,
    alone,
    digest_at,
    discard,
    fetch,
    find,
    here,
    kept,
    remove_abandoned,
    remove_unfinished,
    revising,
    writing,
)
from tasks.store.keys import stage_key
from tasks.store.manifest import MANIFEST, check_files
from tasks.store.memory import peak_memory
from tasks.store.seeds import derived_seed

__all__ = [
    "MANIFEST",
    "ROOT",
    "Folder",
    "Ref",
    "alone",
    "check_files",
    "derived_seed",
    "digest_at",
    "discard",
    "fetch",
    "file_digest",
    "files_below",
    "find",
    "here",
    "kept",
    "peak_memory",
    "remove_abandoned",
    "remove_unfinished",
    "revising",
    "stage_key",
    "tree_digest",
    "writing",
]

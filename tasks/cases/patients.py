"""Patients' ids as hospitals write them, and the digest that stands for one in everything that is stored."""

import hashlib
import re
import unicodedata

WRITTEN_AS_FLOAT = re.compile(r"([-+]?[0-9]+)\.0")
FROM_TABLES = "table/"
"""Before a group that came from a table, where several datasets are one."""


def as_integer(text: str) -> str:
    """The text, of a whole number without `.0`: pandas writes 101 as 101.0 where a cell of its column is blank."""
    match = WRITTEN_AS_FLOAT.fullmatch(text)
    return match[1] if match else text


def patient_digest(written: str) -> str:
    """What is kept of a patient's id, 16 hexadecimal digits.

    The same for each way in which programs write one id: blanks around it, `101.0` for 101, either Unicode form.
    """
    name = as_integer(" ".join(unicodedata.normalize("NFC", written).split()))
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def names_of(patient: str) -> tuple[str, ...]:
    """What cases may call the patient whom a user names by the hospital's own id, or as the cases do."""
    own = (bare(patient), patient_digest(patient))
    return (*own, *(FROM_TABLES + name for name in own))


def bare(name: str) -> str:
    """What a table's case calls its patient or image where the table is the only dataset."""
    return name.removeprefix(FROM_TABLES)

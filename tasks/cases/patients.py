"""Patient ids as hospitals write them, and the digest that replaces an id in everything stored."""

import hashlib
import re
import unicodedata

WRITTEN_AS_FLOAT = re.compile(r"([-+]?[0-9]+)\.0")
FROM_TABLES = "table/"
"""Prefix of groups and images that came from a table, if several datasets are combined."""


def as_integer(text: str) -> str:
    """The text, without `.0` after a whole number: pandas writes 101 as 101.0 if a cell of the column is blank."""
    match = WRITTEN_AS_FLOAT.fullmatch(text)
    return match[1] if match else text


def patient_digest(written: str) -> str:
    """The digest that is stored for a patient's id, 16 hexadecimal digits.

    Different spellings of one id give the same digest: extra blanks, `101.0` for 101, either Unicode form.
    """
    name = as_integer(" ".join(unicodedata.normalize("NFC", written).split()))
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def names_of(patient: str) -> tuple[str, ...]:
    """All names that cases may use for a patient; the user gives the hospital's id, or the name in the cases."""
    names = (bare(patient), patient_digest(patient))
    return (*names, *(FROM_TABLES + name for name in names))


def bare(name: str) -> str:
    """The name of a patient or image as it would be if the table were the only dataset."""
    return name.removeprefix(FROM_TABLES)

"""What a hospital calls the columns of its table: the documented names in any spelling, and common synonyms."""

import unicodedata
from collections.abc import Mapping, Sequence

from tasks.ingest.finding import problem

SYNONYMS = {
    "image": "images imagepath imagefile imagefilepath imagefilename imagename img imgpath imgfile imgfilename imgname "
    "picture filename filepath file path dicom dicompath dicomfile dicomfilename",
    "question": "questions questiontext query",
    "answer": "answers answertext reference referenceanswer goldanswer groundtruth correctanswer",
    "kind": "answertype answerkind questionkind",
    "modality": "modalities imagemodality imagingmodality",
    "organ": "organs bodypart bodypartexamined bodyregion bodysite anatomy anatomicalregion anatomicregion",
    "patient": "patients patientid patientids patientno patientnr patientnumber patientcode patientkey patientuid "
    "patientidentifier patientpseudonym patid patno patnr pid pseudonym subject subjectid subjectno subjectnumber "
    "mrn medicalrecordnumber 00100020",
    "split": "splits splitname datasplit datasetsplit subset partition",
}
"""By documented name what else a column of that meaning is called, as `_key` spells it."""
FIELDS = {key: field for field, others in SYNONYMS.items() for key in (field, *others.split())}


class Columns:
    """The columns of one table by their documented names; keeps the names of those that have none."""

    def __init__(self) -> None:
        self._unused: dict[str, None] = {}

    @property
    def unused(self) -> tuple[str, ...]:
        """Names of columns that were not read, as the table has them."""
        return tuple(self._unused)

    def known_as(self, names: Sequence[str], where: str) -> Mapping[str, str]:
        """The documented names of those columns that mean one, by the names in the table.

        A column called as documented (in whatever letters, with whatever blanks and marks) goes before a synonym.
        Raises FindingError where two mean the same.
        """
        meant: dict[str, list[str]] = {}
        for name in dict.fromkeys(names):
            if _key(name) in FIELDS:
                meant.setdefault(FIELDS[_key(name)], []).append(name)
        known = {}
        for field, found in meant.items():
            documented = [name for name in found if _key(name) == field]
            one, *others = documented or found
            if others:
                told = " and ".join(map(repr, (one, *others)))
                remedy = f"call the one to be read {field!r} and remove the others"
                raise problem(where, f"one column that tells the {field}", told, remedy)
            known[one] = field
        self._unused.update(dict.fromkeys(name for name in names if name.strip() and name not in known))
        return known


def _key(name: str) -> str:
    """A column's name without case, blanks and marks: `Image_Path` and `image path ` are one."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", name).casefold()))

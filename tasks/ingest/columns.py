"""Maps the column names of a hospital's table to the documented names, in any spelling or as a common synonym."""

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
"""Synonyms of each documented name, in the form of `_key`."""
FIELDS = {key: field for field, others in SYNONYMS.items() for key in (field, *others.split())}


class Columns:
    """The columns of one table by documented name; also keeps the names of unknown columns."""

    def __init__(self) -> None:
        self._unused: dict[str, None] = {}

    @property
    def unused(self) -> tuple[str, ...]:
        """Names of the columns that were not read, as in the table."""
        return tuple(self._unused)

    def known_as(self, names: Sequence[str], where: str) -> Mapping[str, str]:
        """The documented name of each column that has one, by its name in the table.

        A column with the documented name (whatever its case, blanks and marks) takes precedence over a synonym. Raises
        FindingError where two columns mean the same.
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
                quoted = " and ".join(map(repr, (one, *others)))
                remedy = f"call the one to be read {field!r} and remove the others"
                raise problem(where, f"one column that tells the {field}", quoted, remedy)
            known[one] = field
        self._unused.update(dict.fromkeys(name for name in names if name.strip() and name not in known))
        return known


def _key(name: str) -> str:
    """A column's name without case, blanks and marks: `Image_Path` and `image path ` are equal."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", name).casefold()))

"""Names of radiological findings in questions, with their synonyms in captions.

Compiled for this project. One finding a line: its name, then synonyms after `|`. `~` marks a name without an article
(edema). Plurals in -s and -es are recognised. The list is Python so that it counts as code in a stage's key.
"""

import re
from dataclasses import dataclass

LIST = """
abnormality | abnormalities
mass | mass lesion
lesion
tumor | tumour, neoplasm
nodule
cyst
abscess
fluid collection
collection
calcification
calculus | calculi, stone
~nephrolithiasis
~cholelithiasis
~choledocholithiasis
~hemorrhage | haemorrhage
hematoma | haematoma
~hydrocephalus
~ventriculomegaly
infarct | infarction
~ischemia | ischaemia
~edema | oedema
~mass effect
midline shift
~herniation
hernia
aneurysm
arteriovenous malformation | avm
dissection
thrombus | thrombi
~thrombosis
pulmonary embolism | pulmonary emboli, pulmonary embolus
stenosis | stenoses
occlusion
pseudoaneurysm
fistula | fistulae
fracture
dislocation
subluxation
spondylolisthesis
~scoliosis
disc herniation | disk herniation, herniated disc, herniated disk
osteophyte
bone erosion
periosteal reaction
sclerosis
osteomyelitis
~osteonecrosis | avascular necrosis
~necrosis
joint effusion
pleural effusion
pericardial effusion
effusion
~pneumothorax | pneumothoraces
~hemothorax
~pneumomediastinum
~pneumoperitoneum | free intraperitoneal air, free air
~pneumatosis
~pneumocephalus
~subcutaneous emphysema
~emphysema
~bronchiectasis
~atelectasis
consolidation
infiltrate
~pneumonia
ground glass opacity | ground-glass opacity, ground glass opacities, ground-glass opacities
opacity | opacities
cavitation
~interstitial lung disease
~pulmonary fibrosis
~fibrosis
pulmonary nodule | lung nodule
~cardiomegaly | enlarged heart
~lymphadenopathy | adenopathy, enlarged lymph node
metastasis | metastases, mets, metastatic disease
carcinoma
~adenocarcinoma
sarcoma
~lymphoma
meningioma
glioma
~glioblastoma
astrocytoma
medulloblastoma
schwannoma
ependymoma
craniopharyngioma
neurofibroma
paraganglioma
lipoma
teratoma
hemangioma | haemangioma
angiomyolipoma
adenoma
fibroadenoma
osteochondroma
enchondroma
osteosarcoma
~cholesteatoma
mucocele
polyp
diverticulum | diverticula
~diverticulitis
~appendicitis
~cholecystitis
~pancreatitis
~colitis
~ascites
~hydronephrosis
~hydroureter
~hepatomegaly
~splenomegaly
~hepatosplenomegaly
~cirrhosis
~steatosis | fatty liver, fatty infiltration
bowel obstruction
~intussusception
~volvulus
wall thickening
~fat stranding | stranding
~hypoplasia
~agenesis
~atrophy
encephalocele | cephalocele
syrinx
~syringomyelia
~tonsillar ectopia
~sinusitis
~mastoiditis
~phthisis bulbi
~gliosis
~demyelination
~pneumocystis pneumonia
implant
foreign body | foreign bodies
catheter
stent
"""


@dataclass(frozen=True)
class Kind:
    """One finding of the list."""

    name: str
    countable: bool

    def with_article(self) -> str:
        """The name as in a question: `a mass`, `an abscess`, `edema`."""
        if not self.countable:
            return self.name
        return f"an {self.name}" if self.name[0] in "aeiou" else f"a {self.name}"


GENERAL = "abnormality"
"""Stands for any finding: only in questions, never an answer."""
DEVICES = frozenset(("implant", "catheter", "stent"))
_MASSES = """
    mass lesion tumor nodule cyst metastasis carcinoma adenocarcinoma sarcoma lymphoma meningioma glioma glioblastoma
    astrocytoma medulloblastoma schwannoma ependymoma craniopharyngioma neurofibroma paraganglioma lipoma teratoma
    hemangioma angiomyolipoma adenoma fibroadenoma osteochondroma enchondroma osteosarcoma cholesteatoma polyp
    abscess hematoma"""
MASSES = frozenset(_MASSES.split()) | {"pulmonary nodule", "fluid collection", "collection"}
"""Findings that captions call by each other's names: a caption with one does not support the absence of another."""


def _read() -> tuple[dict[str, Kind], re.Pattern[str]]:
    kinds: dict[str, Kind] = {}
    for line in LIST.strip().splitlines():
        name, _, others = line.removeprefix("~").partition("|")
        kind = Kind(name.strip(), not line.startswith("~"))
        for word in (kind.name, *(other.strip() for other in others.split(",") if other.strip())):
            for form in (word, f"{word}s", f"{word}es"):
                kinds.setdefault(form, kind)
    # Longest first: "pleural effusion" is not an "effusion".
    words = "|".join(
        re.escape(form).replace(r"\ ", r"\s+") for form in sorted(kinds, key=lambda form: (-len(form), form))
    )
    return kinds, re.compile(rf"(?<![\w-])(?:{words})(?![\w-])", re.IGNORECASE)


KINDS, PATTERN = _read()


def kind_of(words: str) -> Kind:
    """The finding that matched words of a caption name."""
    return KINDS[" ".join(words.lower().split())]


def names_in(text: str) -> set[str]:
    """The names of the findings that a text mentions."""
    return {kind_of(match[0]).name for match in PATTERN.finditer(text)}

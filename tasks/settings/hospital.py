"""Settings of a hospital on a machine of its own: where its cases are, who coordinates, and what it agrees to."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from tasks.settings.base import Settings
from tasks.settings.data import DatasetSettings
from tasks.settings.strategy import Joining
from tasks.settings.training import ModelSettings

OwnStrategy = Literal[Joining, "dpfedavg"]


class CoordinatorSettings(Settings):
    """How the coordinator is reached."""

    address: str = Field("localhost:9092", pattern=r".+:\d+")
    """Host and port of the coordinator."""
    authority: Path = Path("ca.crt")
    """Certificate of the coordinator's authority, as the coordinator handed it out."""
    key: Path = Path("node.key")
    """This hospital's private key, which its owner alone can read."""


class AgreementSettings(Settings):
    """What this hospital agrees to, whatever the coordinator asks for; all else is refused."""

    base: str | None = None
    """Digest of the only base that is trained, as `fed-rag hospital check` prints it; any base found here if none."""
    strategies: tuple[OwnStrategy, ...] = ("fedavg",)
    """Strategies that may join the hospitals' updates."""
    rounds: int = Field(20, ge=1)
    """Largest number of rounds of a study."""
    local_epochs: int = Field(5, ge=1)
    """Largest number of passes over the training cases in a round."""
    privacy: Literal["none", "example", "patient"] = "none"
    """Whose presence noise must hide at least: one training case, all cases of a patient, or nothing."""
    epsilon: float = Field(8, gt=0)
    """Largest epsilon of all studies together, where noise is required or hides a hospital."""
    secure_aggregation: bool = False
    """Whether only a coordinator that learns the sum of updates alone gets one."""
    scores: bool = True
    """Whether scores of the test cases may leave; the losses of the held-out cases leave in each round."""
    shared_images: bool = False
    """Whether other hospitals may find out which of their test images this one trains on (docs/deployment.md)."""
    group_scores: bool = False
    """Whether scores by modality, organ and topic may leave, and sums by image, of which intervals are made."""
    min_cell: int = Field(5, ge=1)
    """Fewest cases of which anything is told; a coordinator may ask for more, not for fewer."""


class SecureSumSettings(Settings):
    """Secure sums, in which a coordinator learns no single update (docs/deployment.md)."""

    key: Path = Path("sum.key")
    """This hospital's private key that signs in secure sums, and in comparisons of images; its public part
    `sum.key.pub` goes to the others."""
    others: Path = Path("others")
    """Folder of the other hospitals' public keys as NAME.pub; they come from these, and not from the coordinator."""
    fewest: int = Field(3, ge=2)
    """Fewest hospitals in a sum; of a sum of two, each can compute the other's update."""


class HospitalSettings(Settings):
    """One hospital on a machine of its own."""

    name: str
    """Name of the hospital in the federation, as its key is registered."""
    dataset: DatasetSettings = DatasetSettings()
    """The hospital's own cases; docs/datasets.md tells what a table or a DICOM export looks like."""
    disjoint: Literal["none", "image", "near_duplicate", "patient"] = "near_duplicate"
    """What training and test may not share, in the split that this hospital makes of its own cases."""
    model: ModelSettings = ModelSettings()
    """The base, on this machine; its content must be that of the coordinator's."""
    coordinator: CoordinatorSettings = CoordinatorSettings()
    """How the coordinator is reached."""
    secure_sums: SecureSumSettings = SecureSumSettings()
    """Keys for sums that hide this hospital's updates."""
    agreement: AgreementSettings = AgreementSettings()
    """What this hospital agrees to."""
    checkpoint_minutes: float | None = Field(10, ge=0)
    """Minutes between checkpoints of a training, from which it goes on after a kill; 0 is after each step, and where
    not given there are none."""

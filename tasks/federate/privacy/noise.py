"""Random numbers that nobody else can draw again: a hospital's noise, and which units are in a step.

Seeds of a study are known to all, so noise that followed from them could be subtracted. This noise follows from a
secret that stays at the hospital, and from what it is for: the same work has the same noise again, and no other has it.
"""

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray


class Noise:
    """A stream of random numbers: AES-256 in counter mode, its key made by HKDF-SHA256.

    Args:
        secret: at least 32 random bytes, known to one hospital.
        purpose: what the numbers are for. Two things that differ at all must have different purposes: what two releases
            with the same noise differ by is not hidden.
    """

    def __init__(self, secret: bytes, purpose: str) -> None:
        if len(secret) < 32:
            raise ValueError(f"a secret of {len(secret)} bytes can be guessed")
        self._key = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=purpose.encode()).derive(secret)
        self.begin_at(0)

    def begin_at(self, number: int) -> None:
        """Go on as if so many numbers had been drawn since the beginning, and no other."""
        block, skipped = divmod(8 * number, 16)
        self._stream = Cipher(algorithms.AES(self._key), modes.CTR(block.to_bytes(16, "big"))).encryptor()
        self._stream.update(bytes(skipped))

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Numbers `(count,)` between 0 and 1, neither of them included."""
        words = np.frombuffer(self._stream.update(bytes(8 * count)), dtype="<u8")
        return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53

    def normal(self, count: int) -> NDArray[np.float64]:
        """Standard normal numbers `(count,)`."""
        from scipy.special import ndtri

        return np.asarray(ndtri(self.uniform(count)), dtype=np.float64)

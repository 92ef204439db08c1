"""What rows and their numbers are; apart from what makes rows, so that a library is served without it."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
"""`(n, d)`."""
Numbers = NDArray[np.int64]
"""`(n,)`: what rows are stored under."""

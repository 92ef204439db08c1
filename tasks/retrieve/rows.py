"""Types of rows and their numbers, in their own module so that serving a library does not import the encoders."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
"""`(n, d)`."""
Numbers = NDArray[np.int64]
"""`(n,)`: the numbers that rows are stored under."""

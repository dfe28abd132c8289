"""Types that the whole package shares."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Reals = Floats | Singles
Positions = NDArray[np.int64]
"""Row or column numbers."""
Codes = NDArray[np.int64]
"""Numbers of classes or groups."""
Bools = NDArray[np.bool_]

Where = Literal["center", "neighbors", "neighborhood", "slide"]
"""Spots in which genes are masked or changed: the center, its neighbors, both, or all spots."""

Hold = Literal["nothing", "attention"]
"""What a change of counts leaves as it is: nothing, or attention, library sizes and base."""

"""The decorators for compiled inner functions: flags are chosen once, here.

``nnan`` and ``ninf`` are left out on purpose: infinities carry meaning in our kernels (a padded neighbour,
an empty maximum), and NaN must survive to be reported.
"""

from __future__ import annotations

from functools import partial

import numba as nb

#: Compiled, cached, and free of the interpreter lock, so that a plain pool of threads scales.
kernel = partial(nb.njit, cache=True, nogil=True, error_model="numpy", fastmath={"nsz", "arcp", "contract", "reassoc"})

#: The same without value-changing flags: for geometry and searches, whose comparisons must mean what they say.
strict_kernel = partial(nb.njit, cache=True, nogil=True, error_model="numpy")

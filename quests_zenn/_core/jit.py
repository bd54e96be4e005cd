"""The decorators for compiled inner functions: flags are chosen once, here.

Numba writes the flags of a kernel onto every instruction compiled into it, explicit vector code included.
``nnan`` and ``ninf`` are left out on purpose: infinities carry meaning in our kernels (a padded neighbour,
an empty maximum), and NaN must survive to be reported.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numba as nb

#: Compiled, cached, and free of the interpreter lock, so that a plain pool of threads scales.
kernel: Callable[..., Any] = partial(
    nb.njit, cache=True, nogil=True, error_model="numpy", fastmath={"nsz", "arcp", "contract", "reassoc"}
)

#: The same without value-changing flags: for geometry and searches, whose comparisons must mean what they say.
strict_kernel: Callable[..., Any] = partial(nb.njit, cache=True, nogil=True, error_model="numpy")

#: Whether kernels run as plain Python (NUMBA_DISABLE_JIT=1), for stepping through them and measuring coverage.
PLAIN = bool(vars(nb.config).get("DISABLE_JIT", 0))

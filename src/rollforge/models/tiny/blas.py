"""numpy's matrix products on one thread.

At the sizes of a small model a second thread gains little, and where the cores are busy it costs several times over:
OpenBLAS's threads wait for each other by spinning. Many rollouts side by side are the better use of a second core.
"""

from __future__ import annotations

import ctypes
from importlib import import_module

SETTERS = ("scipy_openblas_set_num_threads64_", "openblas_set_num_threads64_", "openblas_set_num_threads")
"""As numpy 2's wheels, numpy 1's wheels, and distributions name it."""


def use_one_thread() -> None:
    """For the whole process. Does nothing where numpy was built with another library than OpenBLAS."""
    # Looked up through an extension module of numpy that is linked with the library, wherever that is installed.
    file = getattr(import_module("numpy.linalg._umath_linalg"), "__file__", None)
    library = ctypes.CDLL(file)
    for name in SETTERS:
        setter = getattr(library, name, None)
        if setter is not None:
            setter(1)
            return

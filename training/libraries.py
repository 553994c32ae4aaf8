"""scikit-learn, crepes and LightGBM without pandas and what it brings along, and C's allocator as large arrays want it.

They import pandas to know its tables when they are given one; here they are given NumPy's arrays. It costs 0.3 s and
25 MB in each process. Imported before anything that imports scikit-learn.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
LARGE_BYTES = 2**18
MOST_BYTES = 2**31 - 1


def give_large_arrays_back() -> None:
    """Have arrays from 256 KB go back to the system when they are freed: glibc keeps more of them the larger they were."""
    _tell_allocator({M_MMAP_THRESHOLD: LARGE_BYTES})


def use_large_arrays_again() -> None:
    """Have what is freed serve the next array of its size.

    Boosting makes three as long as the rows for each tree; to get their pages anew took a tenth of a fit of a million rows.
    """
    _tell_allocator({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: MOST_BYTES})


def give_free_memory_back() -> None:
    """Return what lies free between what is used: 6 MB once the rows are read, which a child would share otherwise."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _tell_allocator(options: Mapping[int, int]) -> None:
    if platform.libc_ver()[0] == "glibc":
        for option, value in options.items():
            ctypes.CDLL(None).mallopt(option, value)


def load_lightgbm() -> None:
    """Import LightGBM; tables of pandas that a pipeline's step may make are arrays to it then, as to scikit-learn."""
    with left_out("pandas"):
        import lightgbm  # noqa: F401


@contextmanager
def left_out(name: str) -> Iterator[None]:
    """Within: an empty module stands for one that isn't loaded yet; after it the name imports as ever."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = ModuleType(name)
    try:
        yield
    finally:
        del sys.modules[name]


give_large_arrays_back()
with left_out("pandas"):
    import crepes  # noqa: F401
    import sklearn.utils.fixes  # noqa: F401

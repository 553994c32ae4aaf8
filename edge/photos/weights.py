"""PyTorch's weight files, of the format before 1.6, read without PyTorch: a pickle that may name tensors and nothing else."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import BadArtifact

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1_001
"""torch/serialization.py, `_legacy_load`."""
DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
"""torch/_utils.py names storages so; those that a network's weights and counters are."""

Tensors = dict[str, NDArray[Any]]


def read_weights(path: Path) -> Tensors:
    """Return the tensors of a state dict by name, as arrays.

    Raises:
        BadArtifact: it is no such file, or names anything but tensors.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise BadArtifact(
            f"{path} is not a file of PyTorch weights that is read here ({error!r}). Install the pinned package anew.",
            file=path.name,
        ) from error


def _read(file: IO[bytes]) -> Tensors:
    """Return what stands after the preamble: a pickle of tensors, the order of their storages, and the storages' bytes."""
    if Restricted(file).load() != MAGIC or Restricted(file).load() != PROTOCOL:
        raise ValueError("it begins otherwise")
    Restricted(file).load()  # the sizes of types on the machine that wrote it
    unpickler = Restricted(file)
    tensors = unpickler.load()
    for key in Restricted(file).load():
        dtype, size = unpickler.storages[key].dtype, unpickler.storages[key].size
        (count,) = np.frombuffer(file.read(8), dtype="<i8")
        if count != size:
            raise ValueError(f"storage {key} has {count} values where {size} were named")
        unpickler.storages[key].values = np.frombuffer(file.read(size * dtype.itemsize), dtype=dtype)
    return {name: tensor.array() for name, tensor in tensors.items()}


class Restricted(pickle.Unpickler):
    """An unpickler that makes dictionaries and tensors; any other name in the file is refused, as its call would run code."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what may be named."""
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        allowed = {("collections", "OrderedDict"): OrderedDict, ("torch._utils", "_rebuild_tensor_v2"): Tensor}
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is neither a tensor nor a dictionary")
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        """Return a storage, whose values come later in the file."""
        _, dtype, key, _, size, view = pid
        if view is not None:
            raise pickle.UnpicklingError(f"storage {key} is a view of another")
        return self.storages.setdefault(key, Storage(dtype, size))


class Storage:
    """The values of one or more tensors, in a row."""

    def __init__(self, dtype: np.dtype[Any], size: int) -> None:
        self.dtype, self.size = dtype, size
        self.values: NDArray[Any] = np.empty(0, dtype=dtype)


class Tensor:
    """A storage seen with a shape; called as torch._utils._rebuild_tensor_v2 is."""

    def __init__(self, storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> None:
        self._storage, self._offset, self._shape, self._strides = storage, offset, shape, strides

    def array(self) -> NDArray[Any]:
        """Return it as an array of its own."""
        values = self._storage.values[self._offset :]
        last = sum((length - 1) * stride for length, stride in zip(self._shape, self._strides, strict=True))
        if self._offset < 0 or min(self._strides, default=0) < 0 or min(self._shape, default=1) < 1 or last >= len(values):
            raise ValueError(f"a tensor of shape {self._shape} reaches beyond its storage")
        return np.lib.stride_tricks.as_strided(
            values, self._shape, [stride * values.itemsize for stride in self._strides]
        ).copy()

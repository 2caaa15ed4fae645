"""Names of the operators that torch runs."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

#: A draw of rows whose gradient is sparse.
SPARSE_ROWS = "aten::_sparse_coo_tensor_with_dims_and_tensors"


class Operators(TorchDispatchMode):
    """Collects their names, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.names.append(func.name().split(".")[0])
        return func(*args, **(kwargs or {}))

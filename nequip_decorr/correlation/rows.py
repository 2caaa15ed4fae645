"""Some rows of features, with a gradient of the size of these rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def take_rows(preds: Mapping[str, Tensor], field: str, rows: Tensor) -> Tensor:
    """Rows of a field of ``preds``, shape (len(rows), ...)."""
    return preds[field].index_select(0, rows)


class RowTaker:
    """The same at a cost of these rows alone, backward.

    The gradient of ``index_select`` is as large as the features and almost all zeros. A
    loss term is differentiated first, so that one is held until the model's own
    arrives: 2 to 5 % of a training's peak of memory, and a pass over it to add them.
    Autograd adds a sparse one to a dense one in place, but hands it on as it is where
    no dense one arrives, and few operators take that. So it is sparse where the energy
    depends on the features step by step.
    """

    def __init__(self) -> None:
        self._feeds_energy: dict[tuple[str, str], bool] = {}

    def take(self, preds: Mapping[str, Tensor], field: str, rows: Tensor) -> Tensor:
        """See :func:`take_rows`; to be differentiated together with the energy."""
        x = preds[field]
        if x.grad_fn is None or "total_energy" not in preds:
            return take_rows(preds, field, rows)
        # looked up once for each graph: NequIP compiles a model for some batches only
        graph = (field, x.grad_fn.name())
        if graph not in self._feeds_energy:
            self._feeds_energy[graph] = has_gradient(x, preds["total_energy"])
        if not self._feeds_energy[graph]:
            return take_rows(preds, field, rows)
        taken: Tensor = _SparseRows.apply(x, rows)  # type: ignore[no-untyped-call]
        return taken


class _SparseRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = x.shape
        return x.index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        # invariants are not checked: that would make the host wait for the device
        return (
            torch.sparse_coo_tensor(
                rows[None], grad, ctx.shape, check_invariants=False
            ),
            None,
        )


def has_gradient(x: Tensor, output: Tensor) -> bool:
    """Whether the graph of ``output`` leads to ``x``, which so gets its gradient.

    Not so for two outputs of a compiled function, inside of which one cannot see.
    """
    wanted = (x.grad_fn, x.output_nr)
    if x.grad_fn is None or output.grad_fn is None or output.grad_fn is x.grad_fn:
        return False
    left, seen = deque([output.grad_fn]), {output.grad_fn}
    while left:
        for node, number in left.popleft().next_functions:
            if (node, number) == wanted:
                return True
            if node is not None and node not in seen:
                seen.add(node)
                left.append(node)
    return False

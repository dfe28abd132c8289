"""Sparse expression times dense weights, forward and backward."""

from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_COLUMNS = 64


class SparseRows(NamedTuple):
    """Rows of a sparse matrix, as compressed sparse rows of tensors."""

    ends: Tensor
    """(rows + 1) integers: where each row begins, and where the last one ends."""
    genes: Tensor
    """(nonzeros) integers of the same type: the column of each value."""
    values: Tensor
    """(nonzeros) float32."""

    @classmethod
    def from_scipy(cls, matrix: "csr_matrix", device: torch.device | str = "cpu") -> Self:
        """Take over a float32 scipy matrix of rows × genes, on the CPU without a copy."""
        parts = (matrix.indptr, matrix.indices, matrix.data)
        return cls(*(torch.from_numpy(part).to(device) for part in parts))

    def times(self, weights: Tensor) -> Tensor:
        """Multiply by a dense genes × width matrix; gives rows × width, differentiable in it."""
        product: Tensor = _Product.apply(*self, weights)  # type: ignore[no-untyped-call]
        return product

    def dense(self, n_genes: int) -> Tensor:
        """Spell out the zeros: rows × genes."""
        if self.values.device.type == "cpu":  # scipy is four times as fast as torch at this
            return torch.from_numpy(self._scipy(n_genes).toarray())
        n_rows = len(self.ends) - 1
        rows = torch.arange(n_rows, device=self.ends.device)
        where = torch.repeat_interleave(rows, torch.diff(self.ends)) * n_genes + self.genes
        flat = torch.zeros(n_rows * n_genes, device=self.ends.device)
        return flat.scatter_(0, where, self.values).view(n_rows, n_genes)

    def transposed(self, n_genes: int) -> "SparseRows":
        """Give the matrix genes × rows, on the CPU."""
        columns = self._scipy(n_genes).tocsc()
        return SparseRows(*map(torch.from_numpy, (columns.indptr, columns.indices, columns.data)))

    def _scipy(self, n_genes: int) -> "csr_matrix":
        from scipy.sparse import csr_matrix

        parts = (self.values.numpy(), self.genes.numpy(), self.ends.numpy())
        return csr_matrix(parts, shape=(len(self.ends) - 1, n_genes))


class _Product(torch.autograd.Function):
    """Rows × weights; the gradient is the transposed rows × the gradient of the product.

    The library's own gradient of ``embedding_bag`` sorts all nonzeros, many times slower.
    """

    @staticmethod
    def forward(ctx: Any, ends: Tensor, genes: Tensor, values: Tensor, weights: Tensor) -> Tensor:
        ctx.rows, ctx.n_genes = SparseRows(ends, genes, values), len(weights)
        return _by_columns(ctx.rows, weights)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return None, None, None, _by_columns(ctx.rows.transposed(ctx.n_genes), gradient)


def _by_columns(rows: SparseRows, weights: Tensor) -> Tensor:
    """Multiply a few columns at a time.

    Then the weights of all genes stay in the processor's cache while the rows pick among them,
    which takes half the time of whole rows.
    """
    return torch.cat(
        [
            F.embedding_bag(
                rows.genes,
                columns.contiguous(),
                rows.ends,
                mode="sum",
                per_sample_weights=rows.values,
                include_last_offset=True,
            )
            for columns in torch.split(weights, _COLUMNS, dim=1)
        ],
        dim=1,
    )

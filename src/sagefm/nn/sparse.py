"""Sparse expression times dense weights, forward and backward."""

from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

_COLUMNS = 64
_ROWS = 8192


def sum_over(matrix: "csr_matrix", rows: "NDArray[np.int64]") -> "csr_matrix":
    """Add up rows of a matrix: sums × columns.

    Parameters
    ----------
    rows
        Sums × the row numbers that each of them adds up.
    """
    from scipy.sparse import csr_matrix

    n_sums, n_each = rows.shape
    ones = np.ones(rows.size, dtype=np.float32)
    ends = np.arange(0, rows.size + 1, n_each)
    operator = csr_matrix((ones, rows.ravel(), ends), shape=(n_sums, matrix.shape[0]))
    return csr_matrix(operator @ matrix)


def columns_of(matrix: "csr_matrix", genes: "NDArray[np.int64]") -> "csr_matrix":
    """Pick columns of a matrix, without a copy where these are all of them, in order."""
    n_genes = matrix.shape[1]
    if len(genes) == n_genes and (genes == np.arange(n_genes)).all():
        return matrix
    return matrix[:, genes]


@torch.no_grad()
def project_log1p(counts: "csr_matrix", weights: Tensor) -> Tensor:
    """Multiply log1p counts by weights, some rows at a time: no copy of the whole matrix is made.

    Parameters
    ----------
    counts
        Rows × genes, float32.
    weights
        Genes × width.
    """
    projected = weights.new_empty(counts.shape[0], weights.shape[1])
    for start in range(0, counts.shape[0], _ROWS):
        ends = counts.indptr[start : start + _ROWS + 1]
        values = slice(ends[0], ends[-1])
        parts = (ends - ends[0], counts.indices[values], counts.data[values])
        on_cpu = weights.device.type == "cpu"
        if on_cpu:  # as the log1p counts of a slide are computed, to the last bit
            parts = (*parts[:2], np.log1p(parts[2]))
        rows = SparseRows(*(torch.from_numpy(part).to(weights.device) for part in parts))
        rows = rows if on_cpu else rows._replace(values=rows.values.log1p())
        _multiply(rows, weights, projected[start : start + _ROWS])
    return projected


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
        """Convert a float32 scipy matrix of rows × genes, on the CPU without a copy."""
        parts = (matrix.indptr, matrix.indices, matrix.data)
        return cls(*(torch.from_numpy(part).to(device) for part in parts))

    def times(self, weights: Tensor) -> Tensor:
        """Multiply by a dense genes × width matrix; gives rows × width, differentiable in it."""
        product: Tensor = _Product.apply(*self, weights)  # type: ignore[no-untyped-call]
        return product

    def take(self, rows: Tensor) -> "SparseRows":
        """Pick some rows."""
        starts, lengths = self.ends[rows].long(), torch.diff(self.ends)[rows].long()
        ends = F.pad(lengths.cumsum(0), (1, 0))
        shift = torch.repeat_interleave(starts - ends[:-1], lengths)
        at = torch.arange(len(shift), device=rows.device) + shift
        return SparseRows(ends.to(self.ends.dtype), self.genes[at], self.values[at])

    def keep(self, kept: Tensor) -> "SparseRows":
        """Leave some of the values out: (nonzeros) boolean."""
        counts = F.pad(kept.cumsum(0), (1, 0))
        ends = counts[self.ends.long()].to(self.ends.dtype)
        return SparseRows(ends, self.genes[kept], self.values[kept])

    def rows(self) -> Tensor:
        """Get the row of each value."""
        lengths = torch.diff(self.ends).long()
        return torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)

    def dense(self, n_genes: int) -> Tensor:
        """Convert to a dense matrix: rows × genes."""
        if self.values.device.type == "cpu":  # scipy is four times as fast as torch at this
            return torch.from_numpy(self._scipy(n_genes).toarray())
        n_rows = len(self.ends) - 1
        where = self.rows() * n_genes + self.genes
        flat = torch.zeros(n_rows * n_genes, device=self.ends.device)
        return flat.scatter_(0, where, self.values).view(n_rows, n_genes)

    def transposed(self, n_genes: int) -> "SparseRows":
        """Transpose to genes × rows."""
        if self.values.device.type == "cpu":
            columns = self._scipy(n_genes).tocsc()
            parts = (columns.indptr, columns.indices, columns.data)
            return SparseRows(*map(torch.from_numpy, parts))
        order = self.genes.argsort(stable=True)
        ends = F.pad(torch.bincount(self.genes, minlength=n_genes).cumsum(0), (1, 0))
        rows = self.rows()[order].to(self.genes.dtype)
        return SparseRows(ends.to(self.ends.dtype), rows, self.values[order])

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
        return _multiply(ctx.rows, weights)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return None, None, None, _multiply(ctx.rows.transposed(ctx.n_genes), gradient)


def _multiply(rows: SparseRows, weights: Tensor, out: Tensor | None = None) -> Tensor:
    """Multiply a few columns at a time.

    Then the weights of all genes stay in the processor's cache while the rows pick among them,
    which takes half the time of whole rows; other devices have room for all columns.
    """
    if out is None:
        out = weights.new_empty(len(rows.ends) - 1, weights.shape[1])
    together = _COLUMNS if weights.device.type == "cpu" else weights.shape[1]
    split = (torch.split(matrix, together, dim=1) for matrix in (weights, out))
    for columns, product in zip(*split, strict=True):
        product.copy_(
            F.embedding_bag(
                rows.genes,
                columns.contiguous(),
                rows.ends,
                mode="sum",
                per_sample_weights=rows.values,
                include_last_offset=True,
            )
        )
    return out

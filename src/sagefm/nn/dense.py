"""Dense products, on a processor with wide vectors by the kernels of oneDNN.

For products in single precision torch calls MKL, which on processors of other makes than Intel's
leaves half the width of their vectors unused. The operator of oneDNN is the one that
``torch.compile`` puts in the place of a linear layer.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply two matrices, and add a bias to each row; differentiable.

    Either may be a transposed view.
    """
    if not (_suits(a) and _suits(b) and _has_wide_vectors()) or torch.is_autocast_enabled("cpu"):
        return F.linear(a, b.T, bias)
    result: Tensor = _DenseProduct.apply(a, b, bias)  # type: ignore[no-untyped-call]
    return result


def _suits(matrix: Tensor) -> bool:
    on_cpu, single = matrix.device.type == "cpu", matrix.dtype == torch.float32
    return on_cpu and single and matrix.ndim == 2 and matrix.numel() > 0


@cache
def _has_wide_vectors() -> bool:
    """Whether oneDNN and its operator are there, and the processor has AVX-512."""
    found = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    is_there = found and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return is_there and "AVX512" in torch.backends.cpu.get_cpu_capability()


def _multiply(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    multiplied: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.T, bias, "none", [], "")
    return multiplied


class _DenseProduct(torch.autograd.Function):
    """The operator has no gradient of its own."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(a, b)
        return _multiply(a, b, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (a, b), (by_a, by_b, by_bias) = ctx.saved_tensors, ctx.needs_input_grad
        of_a = product(gradient, b.T) if by_a else None
        of_b = None
        if by_b:  # laid out as `b` is, which may be a transposed view
            flipped = b.T.is_contiguous()
            of_b = product(gradient.T, a).T if flipped else product(a.T, gradient)
        return of_a, of_b, gradient.sum(dim=0) if by_bias else None

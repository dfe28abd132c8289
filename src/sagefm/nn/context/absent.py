"""Genes that a whole slide lacks, from factors of the genes that it has.

Residuals of log1p counts against a random draw from the *usual* profile of the training slides (not
from the slide, as everywhere else in this network) are the loadings times some factors of the spot,
plus noise. The factors that any set of genes implies are the solution of one small system,

    f = (L'L + 1)⁻¹ L' r,    L, r of the genes that the slide has,

and the prediction is linear in them:

    x̂ = max(0, E[log1p Poisson(size · usual)] + C f + c)

`C` and `c` are fitted to training spots after the network is trained
(:mod:`sagefm.pretrain.absent`), on factors of other genes than those that they predict.
"""

from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from sagefm.nn.context.background import Background
from sagefm.nn.sparse import project_log1p

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

USUAL_SCALE = 1e4
"""The usual profile is stored as log1p of so many times a fraction of the counts."""


class Absent(nn.Module):
    """Loadings and coefficients of all genes.

    Parameters
    ----------
    n_genes
        Size of the vocabulary.
    n_factors
        How many numbers describe a spot.
    """

    usual: Tensor
    """Genes: log1p(10⁴ · fraction of the counts of a slide that has all genes)."""
    loadings: Tensor
    """Genes × factors, in units of the noise."""
    coefficients: Tensor
    """Genes × (factors and a constant)."""

    def __init__(self, n_genes: int, n_factors: int) -> None:
        super().__init__()
        self.register_buffer("usual", torch.zeros(n_genes))
        self.register_buffer("loadings", torch.zeros(n_genes, n_factors))
        self.register_buffer("coefficients", torch.zeros(n_genes, n_factors + 1))

    @classmethod
    def of(cls, usual: Tensor, loadings: Tensor, coefficients: Tensor) -> Self:
        """Wrap what was fitted."""
        absent = cls(*loadings.shape)
        parts = {"usual": usual, "loadings": loadings, "coefficients": coefficients}
        absent.load_state_dict(parts, assign=True)
        return absent

    def background(self, library_size: Tensor, measured: Tensor) -> tuple[Background, Tensor]:
        """Tabulate random draws from the usual profile, for the spots of a slide.

        Returns
        -------
        The table, and the fraction of its counts that lies on the measured genes: a library size
        divided by it is what the spot would have with all genes.
        """
        usual = self.usual.expm1() / USUAL_SCALE
        fraction = (usual * measured).sum().clamp(min=1e-6)
        return Background.of(usual, library_size / fraction), fraction


class AbsentGenes:
    """Predictions of what a slide lacks.

    Parameters
    ----------
    counts
        Spots × vocabulary.
    library_size
        (spots) counts of each.
    measured
        Genes: which of them the slide has.
    of_all
        (spots) counts of each spot of the whole slide.
    """

    def __init__(
        self,
        absent: Absent,
        counts: "csr_matrix",
        library_size: Tensor,
        measured: Tensor,
        of_all: Tensor,
    ) -> None:
        background, fraction = absent.background(of_all, measured)
        known = absent.loadings * measured[:, None]
        self._sizes = background.weights(library_size / fraction)
        self._expected, self._coefficients = background.expected, absent.coefficients
        projected = project_log1p(counts, known) - self._sizes @ (background.expected @ known)
        self._factors = factors_of(absent.loadings.T @ known, projected)

    def predict(self, spots: Tensor, genes: Tensor) -> Tensor:
        """Predict log1p counts: `spots` × `genes`."""
        coefficients = self._coefficients[genes]
        usual = self._sizes[spots] @ self._expected[:, genes]
        change = torch.addmm(coefficients[:, -1], self._factors[spots], coefficients[:, :-1].T)
        return (usual + change).clamp_(min=0)


def factors_of(gram: Tensor, projected: Tensor) -> Tensor:
    """Solve for the factors of spots: spots × factors.

    Parameters
    ----------
    gram
        L'L of the genes that the slide has.
    projected
        Spots × factors: residuals of these genes times their loadings.
    """
    solved: Tensor = torch.linalg.solve(gram + torch.eye(len(gram)).to(gram), projected.T)
    return solved.T

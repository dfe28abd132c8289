"""Answer what-if questions about one slide, fast enough for a slider."""

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sagefm._cache import ResumableCache
from sagefm._errors import InputError
from sagefm._types import Floats, Positions, Singles
from sagefm.tl.perturbation._effects import SlidePerturber, screened_effects
from sagefm.tl.perturbation._perturber import GeneFacts, Perturber
from sagefm.tl.perturbation._plan import N_CONTROLS, Direction, free_genes
from sagefm.tl.perturbation._significance import significance
from sagefm.tl.perturbation._slides import PerturbedSlide

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM
    from sagefm.pp.aligned import AlignedSlide

_LEVEL = 0.05


class BesideMatched(NamedTuple):
    """The effect of a gene on another beside those of genes like it.

    Attributes
    ----------
    p
        Two-sided, as the column ``p`` of :func:`sagefm.tl.perturb` for this pair alone.
    low, high
        2.5 and 97.5 % of the effects of matched genes on the target, in log1p counts.
    n
        How many genes were matched.
    """

    p: float
    low: float
    high: float
    n: int

    @property
    def beyond(self) -> bool:
        """Whether the effect is beyond those of matched genes: p < 0.05."""
        return self.p < _LEVEL


class WhatIf:
    """Change a gene around every spot and predict another, again and again.

    What does not depend on the change is computed once: a change of another amount takes about
    0.1 s for 4,000 spots. The numbers are those of :func:`sagefm.tl.respond`, with nothing held.

    Parameters
    ----------
    slide
        Raw counts and ``obsm["spatial"]``, or the result of :meth:`sagefm.SageFM.prepare`.
    model
        A model.
    layer, slide_key
        As for :meth:`sagefm.SageFM.prepare`.

    Raises
    ------
    InputError
        As :meth:`sagefm.SageFM.prepare`.

    Examples
    --------
    >>> what_if = sagefm.tl.WhatIf(slide, model)  # doctest: +SKIP
    >>> what_if.respond("TGFB1", "COL1A1", -1.0).mean()  # doctest: +SKIP
    """

    def __init__(
        self,
        slide: "AnnData | AlignedSlide",
        model: "SageFM",
        *,
        layer: str | None = None,
        slide_key: str | None = None,
    ) -> None:
        aligned = hasattr(slide, "neighbors")
        self._prepared: AlignedSlide = (
            slide if aligned else model.prepare(slide, layer=layer, slide_key=slide_key)
        )
        self._model = model
        self._by_gene = self._prepared.log1p.tocsc()
        self._encoded = model.encode(self._prepared)
        self._last: tuple[str, Perturber, Singles] | None = None

    @cached_property
    def high(self) -> Floats:
        """The largest log1p count of each gene of the vocabulary on the slide."""
        return np.asarray(self._by_gene.max(axis=0).toarray().ravel(), dtype=np.float64)

    @cached_property
    def genes(self) -> tuple[str, ...]:
        """The genes that can be changed: those with a count on the slide."""
        symbols = self._model.vocabulary.symbols
        return tuple(symbols[i] for i in np.flatnonzero(self.high > 0))

    def respond(self, gene: str, target: str, amount: float) -> Singles:
        """Predict how `target` changes in every spot if `gene` changes in its 14 neighbors.

        Parameters
        ----------
        gene
            The gene to change; it needs a count on the slide.
        target
            The gene to predict, masked in the center.
        amount
            -1 is a knock-out, 0 leaves the counts as they are, and 1 raises the gene everywhere to
            the highest log1p count seen on the slide. In between, log1p counts go in proportion.

        Returns
        -------
        (spots) predicted log1p counts after the change minus before.

        Raises
        ------
        InputError
            A gene is unknown, the two are the same, `gene` has no count, or `amount` is out of
            range.
        """
        if not -1 <= amount <= 1:
            raise InputError(f"amount={amount}: give a number from -1 to 1")
        changed, wanted = self._positions(gene, target)
        perturber, before = self._perturber(target, wanted)
        own = self._by_gene[:, changed].toarray().astype(np.float64)
        if not amount:
            return np.zeros(len(own), dtype=np.float32)
        after = own * (1 + amount) if amount < 0 else own + amount * (own.max() - own)
        [predicted] = perturber.predict(changed, after[None], wanted)
        return np.asarray(predicted.cpu().numpy()[:, 0] - before, dtype=np.float32)

    def compare(
        self, gene: str, target: str, *, n_matched: int = 50, n_spots: int = 256, seed: int = 0
    ) -> BesideMatched:
        """Test the effect of a gene on another against those of matched genes.

        The effect is the mean of the predicted target with `gene` at its highest level in all
        neighbors minus that at its lowest; see :func:`sagefm.tl.perturb`. It takes seconds.

        Parameters
        ----------
        gene, target
            As for :meth:`respond`.
        n_matched
            Genes that `gene` is compared with.
        n_spots
            Spots, drawn at random, over which effects are averaged.
        seed
            Of the draw.

        Raises
        ------
        InputError
            As :meth:`respond`, or too few genes to compare with.
        """
        pair = self._positions(gene, target)
        slide = self._screened
        shown = slide.facts.high > 0
        free = free_genes(shown, np.union1d(*pair), n_matched)
        direction = Direction.of(
            "forward", pair, [slide], slide.facts.features(), free, n_matched, N_CONTROLS
        )
        with ResumableCache.open(None, {}) as cache:
            perturber = SlidePerturber(slide, cache, lambda line: None, "")
            effects = screened_effects(direction, slide.draw(n_spots, seed), perturber, "nothing")
        found = significance(direction, effects)
        p, low, high = (float(found[name][0]) for name in ("p", "null_low", "null_high"))
        return BesideMatched(p, low, high, direction.matched.shape[1])

    @cached_property
    def _screened(self) -> PerturbedSlide:
        """The slide with an encoding of its own, so that a test runs beside :meth:`respond`."""
        facts = GeneFacts.of(self._prepared, self._by_gene)
        encoded = self._model.encode(self._prepared)
        spots = np.arange(len(self._prepared.neighbors))
        return PerturbedSlide("", self._prepared, spots, self._by_gene, facts, encoded)

    def _perturber(self, target: str, wanted: Positions) -> tuple[Perturber, Singles]:
        """Keep what does not depend on the change until another target is asked for."""
        if self._last is None or self._last[0] != target:
            neighbors = self._prepared.neighbors
            perturber = Perturber(self._encoded, self._by_gene, neighbors, wanted)
            before = perturber.unchanged(wanted).cpu().numpy()[:, 0]
            self._last = target, perturber, before
        return self._last[1:]

    def _positions(self, gene: str, target: str) -> tuple[Positions, Positions]:
        """Find both genes in the vocabulary."""
        vocabulary = self._model.vocabulary
        changed, wanted = vocabulary.positions([gene]), vocabulary.positions([target])
        if changed[0] == wanted[0]:
            raise InputError(f"{gene}: is both changed and predicted; choose two genes")
        if not self.high[changed[0]] > 0:
            raise InputError(f"{gene}: has no count on this slide; choose another gene to change")
        return changed, wanted

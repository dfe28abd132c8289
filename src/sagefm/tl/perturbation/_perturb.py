"""Raise ligands in the neighbors, predict their targets, and test the effects."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm import __version__
from sagefm._as_model import as_model
from sagefm._cache import ResumableCache
from sagefm._errors import InputError, logger
from sagefm._text import numbered
from sagefm._types import Floats, Hold
from sagefm.tl.perturbation._cross_modality import second_modality
from sagefm.tl.perturbation._effects import Progress, slide_effects
from sagefm.tl.perturbation._evidence import LEAST_DETECTED, power, testable
from sagefm.tl.perturbation._pairs import pairs as read_pairs
from sagefm.tl.perturbation._plan import PerturbationPlan
from sagefm.tl.perturbation._refits import refit_effects, require_same_genes
from sagefm.tl.perturbation._result import PerturbationResult
from sagefm.tl.perturbation._signature_test import How, perturb_signatures
from sagefm.tl.perturbation._signatures import SignatureSource, signature_pairs
from sagefm.tl.perturbation._signatures import signatures as read_signatures
from sagefm.tl.perturbation._slides import prepare_slides

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM

_LEAST_POWER = 1.9
"""z of a set; below it a test says little."""


def perturb(
    slide: "AnnData | Mapping[str, AnnData]",
    model: "SageFM | str | Path",
    pairs: "str | Path | pd.DataFrame | Sequence[tuple[str, str]]",
    levels: int = 5,
    *,
    signatures: SignatureSource | None = None,
    models: "Sequence[SageFM]" = (),
    hold: Hold = "nothing",
    region: "NDArray[np.bool_] | str | None" = None,
    with_: str | None = None,
    n_matched: int = 50,
    n_spots: int = 1024,
    n_null_spots: int = 256,
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
    keep: Path | None = None,
    progress: Progress = lambda line: None,
) -> pd.DataFrame:
    """Raise ligands in the neighbors of every spot, predict their targets, and test the effects.

    The protocol of the paper (arXiv 2601.15504): the ligand is set to equally spaced levels between
    its smallest and its largest log1p count on the slide, in the 14 neighbors; all targets of the
    call are masked in the center; the target is predicted there.

    Unlike the paper, the effects are tested: the set of all pairs (``attrs["sets"]``), and each
    pair against other genes on the same target; and the evidence of the slide itself stands beside
    that of the model. What to believe of it: the set, not the single pair; association, not
    signaling. For one snapshot of a tissue, "ligand around, target in the center" and "target
    around, ligand in the center" are the same number, so that no direction can be read from it.

    Parameters
    ----------
    slide
        A slide, or several by name: then effects are means over slides.
    model
        A model; best one that was not trained on the slide.
    pairs
        As for :func:`sagefm.tl.pairs`: ``"liana"``, a CSV file, a table, or (ligand, target)
        tuples. Pairs with a gene that the model does not know, or a ligand without counts, are
        left out with a warning.
    levels
        How many levels.
    signatures
        What responds, if not single genes: signatures as for :func:`sagefm.tl.signatures`. The
        targets of `pairs` are their names. The 200 genes of a signature that weigh most are
        predicted, of those that the model knows and 3 % of the spots have.
    models
        Refits of `model`, each trained without one patient (``sagefm pretrain --refits``):
        they say how far an effect depends on single patients. Several slides do not, because
        effects are a property of the weights. What is tested is then the mean over all models.
    hold
        What stays as it is while a ligand changes. ``"nothing"``: library sizes, attention and all
        that follows from them change with the counts of the neighbors; only the profile of the
        slide stays. ``"attention"``: the weights of similar spots, library sizes and the expected
        profile stay, which is faster. In the published network they are the same.
    region
        Spots in which targets are predicted: a boolean per spot, or ``"KEY=VALUE"`` for spots whose
        ``obs[KEY]`` is VALUE. All spots if not given. (Their neighbors may lie outside.) The
        slide's own evidence is of all spots.
    with_
        A second modality of the slides, for evidence across modalities: the target's protein in the
        center and the ligand's mRNA around it. Proteins are used where a slide has them.
    n_matched
        Genes that a ligand is compared with: those nearest in mean, fraction of spots, largest
        value and spread between neighborhoods, among the genes in no pair of the call. Many
        ligands share 1,200 such genes.
    n_spots
        Spots of a slide, drawn at random, over which the effects of pairs are averaged.
    n_null_spots
        Spots on which nulls are computed, drawn at random; a pair is compared on the same spots.
    seed
        Of these spots, the draws of the set test, and the shuffled neighbors.
    layer, slide_key
        As for :meth:`sagefm.SageFM.prepare`.
    keep
        Folder in which intermediate results are kept, so that a killed run can resume; it is
        removed at the end.
    progress
        Called with a line of progress.

    Returns
    -------
    A row per pair, in the order of `pairs`; the columns that decide come first:

    - ``ligand``, ``target``
    - ``effect`` (log1p counts): mean over spots of the predicted target at the highest level minus
      at the lowest
    - ``z`` (standard deviations of the null): distance of the specific effect from the mean of
      those of the matched genes; ``q``: Benjamini-Hochberg over the pairs
      (missing, as ``p``, for a gene with itself)
    - ``z_components``: z score of the slide itself, the partial correlation of the ligand's mean
      over the neighbors with the target in the center, given the library size and 30 components of
      expression
    - ``learned_only``: the model says yes (p < 0.05) and the slide says nothing (no z score of the
      slide beyond 1.96): what the model knows from other slides, or believes wrongly
    - ``z_neighbors``: as ``z_components``, given the library size only; ``z_same_spot``: the same
      for both in one spot
    - ``p``: two-sided, of ``z``; ``p_coexpressed``: against the 30 genes most coexpressed with the
      ligand (of those that are matched to any, where there are many ligands); ``p_partners``: among
      all ligands of the call on this target
    - ``z_reversed``: as ``z``, with the target raised and the ligand predicted, against genes
      matched to the target. Not an arrow: see above
    - ``agreement``, ``effect_low``, ``effect_high`` (with `models`): fraction of refits in which
      ``z`` has the sign that it has here, and the smallest and largest effect of the refits;
      ``effect`` and what says which way it goes are then of the mean over all models, on the spots
      of the null
    - ``slope`` (log1p counts per log1p count of the ligand): least squares over the levels;
      ``direction`` (up, down, none); ``monotone``: fraction of the steps between levels that go
      that way; ``sign`` that a resource expects; ``as_expected``
    - ``null_low``, ``null_median``, ``null_high`` (log1p counts): 2.5, 50 and 97.5 % of the effects
      of matched genes on the target, on the scale of the ligand
    - ``effect_shuffled`` (log1p counts): every spot has the neighbors of another
    - ``complex``, ``n_slides``, ``n_spots``

    With a second modality, and for pairs whose target it has: ``protein`` (the antibodies of the
    target; a gene with several counts with their mean), ``z_protein`` (z score of the slide: the
    partial correlation of the ligand's mean over the neighbors with the normalized protein in the
    center, given the library sizes of both and 30 components of expression), ``p_protein`` and
    ``q_protein`` (against genes matched to the ligand on the same protein, as ``p`` and ``q``);
    named after the modality. Spots that were not measured are left out.

    ``attrs["sets"]``: a row per evidence (model, neighbors, same spot, model beyond co-expression,
    neighbors given components) and direction, for the pairs whose genes are both in 3 % of the
    spots: ``n_pairs``, ``n_ligands``, ``auroc`` (chance that a pair stands above the same pair with
    a matched gene in the ligand's place) with its 95 % interval ``low`` to ``high``,
    ``auroc_shuffled`` (what pairs with shuffled targets have), ``z`` and ``p`` (ligands replaced
    by matched genes, beyond what shuffled targets show), ``p_ligands`` (ligands exchanged among
    themselves) and ``p_targets`` (targets replaced by matched genes). The formula of the set test
    stands in ``sagefm/tl/perturbation/_set_test.py``, that of ``z``, ``p`` and ``q`` in
    ``_significance.py``. With a second modality, two rows more: ``"protein, neighbors"`` and
    ``"protein, given components"``, for the pairs whose target it has.

    With `signatures`, a row per ligand and signature, from the lowest and the highest level only:
    ``effect`` is the mean over the genes by weight (the sum of w times effect, by the sum of the
    absolute w), ``z`` to ``learned_only`` are of the score of the whole signature (see
    ``_readout.py``), those of the slide against the same matched genes; ``p_random``: against 100
    replicas, with genes of the same expression in the place of those of the signature;
    ``effect_random``: the mean of theirs; ``n_genes``; ``as_expected``: fraction of the genes that
    change as their weight says. The ligand itself does not count. In ``attrs["sets"]`` the targets
    are signatures, and the genes matched to them replicas.

    ``attrs["slides"]``, for several slides and without `signatures`: correlation of ``z`` between
    them. ``attrs["refits"]``, with `models`, likewise: a row per refit as in ``attrs["sets"]``, and
    the correlation of its ``z`` with that of the mean.

    Raises
    ------
    InputError
        No pair is left, the region is empty, fewer than two levels, refits with other genes, or as
        :meth:`sagefm.SageFM.prepare`.
    """
    model = as_model(model)
    if levels < 2:
        raise InputError(f"levels={levels}: give two levels at least")
    if hold not in get_args(Hold):
        raise InputError(f"hold={hold!r}: choose of {', '.join(get_args(Hold))}")
    require_same_genes(models, model)
    if with_ is not None and signatures is not None:
        raise InputError(f"with {with_!r}: is for pairs of genes; leave the signatures out")
    weights = None if signatures is None else read_signatures(signatures)
    slides = prepare_slides(slide, model, region, layer=layer, slide_key=slide_key)
    if weights is not None:
        asked = signature_pairs(pairs, list(dict.fromkeys(weights["source"])))
        how_tested = How(models, hold, n_matched, n_null_spots, seed, keep, progress)
        return perturb_signatures(slides, model, asked, weights, how_tested)
    named = slide if isinstance(slide, Mapping) else {"": slide}
    modalities = second_modality(named, with_)
    table = read_pairs(pairs)
    plan = PerturbationPlan.of(table, model, slides, n_matched)
    detected = np.mean([one.facts.detected for one in slides], axis=0)
    _say_power(plan, detected, progress)
    facts = {
        "model": model.fingerprint, "levels": levels, "seed": seed,
        "n_spots": n_spots, "n_null_spots": n_null_spots,
        "pairs": table[["ligand", "target"]].to_numpy().tolist(), "n_matched": n_matched,
        "slides": [one.checksum() for one in slides], "sagefm": __version__, "hold": hold,
        "models": [refit.fingerprint for refit in models],
        "plan": [
            [one.raised.tolist(), one.columns.tolist()] for one in (plan.forward, plan.reversed)
        ],
    }  # fmt: skip
    how = n_null_spots, seed, hold
    with ResumableCache.open(keep, facts) as cache:
        effects = [
            slide_effects(one, plan, levels, n_spots, *how, cache, progress) for one in slides
        ]
        both = plan.forward, plan.reversed
        refits = refit_effects(models, slides, both, *how, cache, progress)
    result = PerturbationResult(
        plan, slides, effects, refits, detected, seed, modalities, model.vocabulary
    )
    if with_ is not None and result.crossed is None:
        logger.warning("%s: no target of the pairs is in it; there are no pairs across", with_)
    found = result.table(levels)
    found.attrs |= result.attributes()
    return found


def _say_power(plan: PerturbationPlan, detected: Floats, progress: Progress) -> None:
    """Say before the computation what a test of the set can show."""
    chosen = testable(plan.forward, detected)
    n_ligands = len(np.unique(plan.forward.source[chosen]))
    progress(
        f"the set: {numbered(int(chosen.sum()), 'pair')} of {numbered(n_ligands, 'ligand')} whose "
        f"genes are in {LEAST_DETECTED:.0%} of the spots; if they stand out as ligands and "
        f"receptors do on tissue, z is about {power(n_ligands):.1f}"
        + (", too few to tell" if power(n_ligands) < _LEAST_POWER else "")
    )


def top_pairs(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """Choose the pairs with the smallest q, then p, then the largest distance from the null."""
    order = table.assign(size=-table["z"].abs()).sort_values(["q", "p", "size"], kind="stable")
    return order.drop(columns="size").head(n)

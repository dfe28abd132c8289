"""Describe domains: markers, names, contacts, shapes and fractions, in one call."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from sagefm._errors import logger
from sagefm._files import replacing
from sagefm._keys import DOMAIN
from sagefm._progress import stage
from sagefm.tl.description._contacts import contact_table
from sagefm.tl.description._markers import marker_table
from sagefm.tl.description._names import MarkerSets, name_domains
from sagefm.tl.description._pathways import pathway_table
from sagefm.tl.description._profiles import Profiles, by_patient
from sagefm.tl.description._sections import LabeledSections, Slides, labeled_sections
from sagefm.tl.description._shapes import shape_table
from sagefm.tl.description._tests import compare_conditions
from sagefm.tl.perturbation import SignatureSource


@dataclass(frozen=True)
class Description:
    """What :func:`describe` finds, as tables."""

    names: pd.DataFrame
    """A suggested name per domain, and the evidence."""
    markers: pd.DataFrame
    """Genes of each domain; see :func:`markers`."""
    sections: pd.DataFrame
    """Number and fraction of spots, area and shape of each domain in each section."""
    contacts: pd.DataFrame
    """Which domains touch more or less than by chance."""
    section_contacts: pd.DataFrame
    """The same per section, without tests."""
    marker_sets: pd.DataFrame
    """Scores of all marker sets in all domains."""
    expression: pd.DataFrame
    """Counts per 10,000 and fraction of spots of each marker in each domain, for dot plots."""
    fraction_tests: pd.DataFrame
    """Fractions of the domains compared between conditions, over patients."""
    contact_tests: pd.DataFrame
    """Contacts (log2 ratios) compared between conditions, over patients."""
    pathways: pd.DataFrame
    """Scores of gene sets in each domain; empty where none were given."""

    def save(self, folder: str | Path) -> None:
        """Write each table that is not empty as a CSV file into a folder."""
        for field in fields(self):
            table = getattr(self, field.name)
            if len(table):
                with replacing(Path(folder) / f"{field.name}.csv") as beside:
                    table.to_csv(beside, index=False, float_format="%.6g")


def describe(
    slides: Slides,
    key: str = DOMAIN,
    *,
    patient_key: str | None = None,
    condition_key: str | None = None,
    names: MarkerSets = None,
    network: SignatureSource | None = None,
    n_genes: int = 50,
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
) -> Description:
    """Describe domains: what marks them, what they may be, which touch, and how much there is.

    Parameters
    ----------
    slides
        A slide, several, or name → slide.
    key
        ``obs`` column with the domains, one set over all slides; spots without one are left out.
    patient_key
        ``obs`` column with the patient; ``"patient"`` if there is one, else every slide is one.
    condition_key
        ``obs`` column with the condition of each section, such as a treatment. Fractions and
        contacts are then compared between conditions.
    names
        Marker sets that domains are named by: one or several groups of
        :func:`sagefm.pp.marker_sets`, such as ``["general", "breast"]``, or name → genes. All cell
        types and layers if not given; the groups of the organ name better.
    network
        Gene sets to score with decoupler; see :func:`sagefm.tl.pathways`.
    n_genes
        Markers of each domain.
    seed
        Seed of random gene sets, motions and permutations.
    layer, slide_key
        As for :meth:`sagefm.SageFM.prepare`.

    Returns
    -------
    Tables; ``.save(folder)`` writes them as CSV files.

    - `names`: the set with the largest `z`, compared with random genes that are detected as much;
      ``"no clear name"`` if `z` is below 3, fewer than three of its genes are higher, or another
      domain has more than twice its score. A suggestion: read `genes` and `runner_up` too.
    - `contacts`: `z` and `p` compare contacts with those after random motions (499, so that p
      is at least 0.004): one domain stays, the others are mirrored, rotated and shifted together.
      With three patients or more, p is a t test of their log2 ratios against 0.
    - `sections`: `boundary` is the fraction of spots that touch another domain; `compactness` is 1
      for a disc and less for a domain that is long, ragged or in parts; `area_mm2` needs
      ``uns["spot_pitch_um"]``.
    - `fraction_tests`, `contact_tests`: patients are permuted between two conditions, or compared
      within where they have both. `p_least` is the smallest p that so few patients allow: 0.1 for
      three against three.

    Raises
    ------
    InputError
        As :func:`sagefm.tl.markers`; a section has several conditions; there is no such group of
        markers.
    """
    labeled = labeled_sections(
        slides, key, patient_key=patient_key, condition_key=condition_key, layer=layer,
        slide_key=slide_key,
    )  # fmt: skip
    profiles = by_patient(labeled)
    stage("testing the markers of %d domains", len(labeled.domains))
    found = marker_table(labeled, profiles, n_genes)
    named, scores = name_domains(profiles, labeled.domains, labeled.genes, names, seed)
    scored = pd.DataFrame() if network is None else pathway_table(labeled, profiles, network)
    stage("moving domains in %d sections", len(labeled.sections))
    contacts, per_section = contact_table(labeled, seed)
    sections = shape_table(labeled)
    fraction_tests = compare_conditions(sections, ["domain"], "fraction", seed)
    contact_tests = compare_conditions(per_section, ["domain", "other"], "log2_ratio", seed)
    if condition_key is not None:
        _note_patients(fraction_tests)
    dots = _expression(labeled, profiles, found)
    return Description(
        named, found, sections, contacts, per_section, scores, dots, fraction_tests, contact_tests,
        scored,
    )  # fmt: skip


def _note_patients(tests: pd.DataFrame) -> None:
    """Log where there are too few patients for a test."""
    least = tests["p_least"].astype(float)
    if tests.empty:
        logger.warning("conditions: fewer than two have patients; nothing is compared")
    elif least.isna().all():
        logger.warning("conditions: two patients in each are needed for a test; p is missing")
    elif least.min() > 0.05:
        logger.warning(
            "conditions: with so few patients no p is below %.2g, whatever differs", least.min()
        )


def _expression(
    labeled: LabeledSections, profiles: dict[str, Profiles], found: pd.DataFrame
) -> pd.DataFrame:
    """Tabulate the markers of any domain in every domain."""
    total = Profiles.total(list(profiles.values()))
    place = {gene: i for i, gene in enumerate(labeled.genes)}
    genes = list(dict.fromkeys(found["gene"]))
    columns = [place[gene] for gene in genes]
    size = np.maximum(total.library_size, 1.0)[:, None]
    return pd.DataFrame({
        "domain": np.repeat(labeled.domains, len(genes)),
        "gene": np.tile(np.array(genes, dtype=object), len(labeled.domains)),
        "rate": (1e4 * total.counts[:, columns] / size).ravel(),
        "fraction": total.fractions()[:, columns].ravel(),
    })  # fmt: skip

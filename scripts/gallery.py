"""Draw every picture of sagefm.pl on simulated tissue, and write the gallery page.

python scripts/gallery.py          # docs/gallery.md and docs/img/gallery/*.png, some minutes
python scripts/gallery.py rare     # that picture alone; the page stays as it is
"""

import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from PIL import Image

DOCS = Path(__file__).resolve().parents[1] / "docs"
PICTURES = DOCS / "img" / "gallery"
DPI = 240
LARGEST = 120_000
"""Bytes of a picture."""


class Entry(NamedTuple):
    """A picture: its name in `sagefm.pl` (or that and a word), what it shows, and its code."""

    name: str
    shows: str
    code: str


INTRO = """\
# Gallery

Every picture that `sagefm.pl` draws, with the lines that make it, on tissue that
{func}`sagefm.pp.simulate_tissue` simulates. They are made for a column of a journal (85 mm wide)
and for color-blind readers. Each takes `save="file.png"` (or `.pdf`, `.svg`) and returns
matplotlib Axes.

The page is made by `scripts/gallery.py`. The lines of a section run after those above it.
"""
START = """\
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import sagefm

model = sagefm.SageFM.load("default")
cortex, second = (
    sagefm.pp.simulate_tissue("cortex", n_spots=900, patient=i, seed=i) for i in range(2)
)
tumor = sagefm.pp.simulate_tissue("breast", n_spots=900, seed=2)
"""
CHAPTERS: dict[str, list[Entry]] = {
    "Spots on the tissue": [
        Entry(
            "spatial", "A label, a gene and the tissue image under them.",
            'sagefm.pl.spatial(cortex, ["region", "MBP"])',
        ),
        Entry(
            "spatial_sections",
            "Several sections: rows, with one color scale for each gene over all of them.",
            """\
slides = {"patient 1": cortex, "patient 2": second}
sagefm.pl.spatial(slides, ["region", "GFAP", "MBP"])""",
        ),
        Entry(
            "spatial_crop",
            "A part of the tissue, some categories in color, and spots that let the image through.",
            """\
(x0, y0), (x1, y1) = np.quantile(tumor.obsm["spatial"], [0.25, 0.75], axis=0)
common = tumor.obs["region"].value_counts().index[:2]
sagefm.pl.spatial(
    tumor, ["region", "COL1A1"], groups=list(common), crop=(x0, x1, y0, y1), alpha=0.6
)""",
        ),
        Entry(
            "journal", "Pictures of yours and of sagefm in one figure, with the same type.",
            """\
total = np.asarray(tumor.X.sum(axis=1)).ravel()
with sagefm.pl.journal():
    _, (left, right) = plt.subplots(1, 2, figsize=(3.35, 1.7), layout="constrained")
    left.hist(total, bins=30, color="#0072B2")
    left.set(xlabel="counts per spot", ylabel="spots")
    sagefm.pl.spatial(tumor, "CD3E", ax=right, show=False)""",
        ),
    ],
    "Domains": [
        Entry(
            "stability", "How well clusterings agree for each number of domains.",
            """\
sagefm.tl.domains(cortex)
sagefm.pl.stability(cortex)""",
        ),
        Entry(
            "domain_markers", "The markers of each region or domain.",
            """\
described = sagefm.tl.describe(cortex, "region")
sagefm.pl.domain_markers(described, n_genes=3)""",
        ),
        Entry(
            "contacts", "Which regions or domains touch more or less than by chance.",
            "sagefm.pl.contacts(described)",
        ),
    ],
    "Masked and unmeasured genes": [
        Entry(
            "predicted",
            "Measured genes beside what the model predicts while they are masked, and the mean of "
            "the neighbors, on one scale.",
            """\
genes = ["MBP", "GFAP", "PCP4"]
hidden = np.zeros((cortex.n_obs, len(model.vocabulary)), dtype=bool)
hidden[:, model.vocabulary.positions(genes)] = True
predictions = {"predicted": model.predict(cortex, hidden=hidden, genes=genes)}
sagefm.pl.predicted(cortex, predictions, genes, neighbor_mean=True)""",
        ),
        Entry(
            "imputed", "Genes that were imputed, beside the counts where they were measured.",
            """\
panel = tumor[:, tumor.var_names != "KRT19"].copy()
sagefm.tl.impute(panel, model, ["KRT19", "COL1A1", "CD3E"], adapt=False)
sagefm.pl.imputed(panel)""",
        ),
        Entry(
            "quality", "Counts, novelty and the error of the model on masked genes.",
            """\
sagefm.report.quality(tumor, model, adapt=False)
sagefm.pl.quality(tumor)""",
        ),
    ],
    "Labels and rare populations": [
        Entry(
            "annotation", "Labels that were learned on other slides.",
            """\
patients = [
    sagefm.pp.simulate_tissue("cortex", n_spots=250, patient=i, seed=i) for i in range(2, 5)
]
annotator = sagefm.tl.annotate(patients, second, model, "region")
sagefm.pl.annotation(second)""",
        ),
        Entry(
            "annotator", "How good the labels are on patients that were left out.",
            "sagefm.pl.annotator(annotator)",
        ),
        Entry(
            "cross", "Proteins, measured and predicted from the expression around each spot.",
            """\
with_proteins = sagefm.pp.simulate(1500, n_proteins=12, seed=1)
predicted = sagefm.tl.cross(with_proteins, n_maps=199)
sagefm.pl.cross(with_proteins, features=predicted.index[[0, -1]])""",
        ),
        Entry(
            "rare", "Spots with rare populations, and their genes.",
            """\
from sagefm.pp.plant import plant

with_rare = plant(tumor, 0.02, fold=20, seed=1)
sagefm.tl.rare(with_rare)
sagefm.pl.rare(with_rare)""",
        ),
    ],
    "Perturbations": [
        Entry(
            "perturbation", "Effects of ligands on targets, beside those of matched genes.",
            """\
simulated = sagefm.pp.simulate(800, genes=None, n_couplings=8, seed=0)
truth = simulated.uns["simulation"]["couplings"]
pairs = truth[["ligand", "target"]]
recipe = sagefm.pretrain.Recipe.load("small", ["train.max_epochs=4", "data.genes=600"])
sections = {
    f"s{i}": sagefm.pp.simulate(400, seed=i, patient=f"p{i}", slide=f"s{i}") for i in (1, 2, 3)
}
trained = sagefm.pretrain.fit(sections, recipe, progress=False)
pairs = pairs[pairs.isin(trained.model.vocabulary.symbols).all(axis=1)]
table = sagefm.tl.perturb(simulated, trained.model, pairs)
sagefm.pl.perturbation(table, n=12)""",
        ),
        Entry(
            "perturbation_sets", "What all pairs say together.",
            "sagefm.pl.perturbation_sets(table)",
        ),
        Entry(
            "response", "Where on the tissue the prediction changes.",
            """\
first = table.sort_values("p").iloc[[0, -1]]
highest = {ligand: sagefm.tl.Change("quantile", 1.0) for ligand in first["ligand"]}
sagefm.tl.respond(simulated, trained.model, highest, list(first["target"]))
sagefm.pl.response(simulated, list(first["target"]), q=first["q"])""",
        ),
        Entry(
            "influence", "What raises and lowers a gene, and what it raises and lowers.",
            """\
edges = sagefm.tl.influence(cortex, model, n_spots=128, n_edges=1000)
sagefm.pl.influence(edges, edges["target"].value_counts().index[0], n=8)""",
        ),
        Entry(
            "training", "The losses of a training run, and of two means.",
            "sagefm.pl.training(trained.history)",
        ),
    ],
    "Patients": [
        Entry(
            "subtype", "How probable each subtype is for patients that were left out.",
            """\
slides = {
    f"p{i}": sagefm.pp.simulate_tissue(("cortex", "breast")[i % 2], n_spots=150, patient=i, seed=i)
    for i in range(8)
}
known = {name: ("brain", "breast")[i % 2] for i, name in enumerate(slides)}
subtypes = sagefm.tl.subtype(slides, model, known, n_permutations=10)
sagefm.pl.subtype(subtypes)""",
        ),
        Entry(
            "subtype_evidence", "Which spots support the subtype of their patient.",
            'sagefm.pl.subtype_evidence(slides["p1"])',
        ),
        Entry(
            "outcome", "What slides say of the survival of patients, and whether to believe it.",
            """\
rng = np.random.default_rng(0)
kinds = [("breast", "cortex")[i % 2] for i in range(30)]
slides = {
    f"p{i}": sagefm.pp.simulate_tissue(kind, n_spots=100, patient=i, seed=i)
    for i, kind in enumerate(kinds)
}
table = pd.DataFrame(index=list(slides))
table["months"] = rng.exponential([40 if kind == "cortex" else 10 for kind in kinds])
table["dead"] = rng.random(30) < 0.8
table["age"] = rng.normal(60, 8, 30).round()
result = sagefm.tl.outcome(
    slides,
    table,
    ("months", "dead"),
    model=model,
    clinical="age",
    keys="region",
    patients={name: name for name in slides},
    n_permutations=199,
)
sagefm.pl.outcome(result)""",
        ),
        Entry(
            "outcome_map", "Which spots and domains the prediction of a patient comes from.",
            'sagefm.pl.outcome_map(slides["p1"], result)',
        ),
        Entry(
            "forest", "The effect of each feature alone.",
            "sagefm.pl.forest(result)",
        ),
        Entry(
            "kaplan_meier", "The survival of risk groups that other patients have predicted.",
            "sagefm.pl.kaplan_meier(result)",
        ),
        Entry(
            "outcome_calibration", "Whether as many patients survive as predicted.",
            "sagefm.pl.outcome_calibration(result)",
        ),
        Entry(
            "learning_curve", "How the prediction improves with more patients.",
            "sagefm.pl.learning_curve(result)",
        ),
    ],
    "Comparisons of methods": [
        Entry(
            "scorecard", "All pictures of an evaluation, in files; this is one of them.",
            """\
cohort = sagefm.evaluate.Cohort(dict(zip("abc", patients)))
protocols = ["recovery", "domains", "annotation"]
results = sagefm.evaluate.scorecard(
    cohort,
    {"sagefm": model},
    "card",
    protocols=protocols,
    label_key="region",
    mofa=False,
    adapt=False,
)
files = sagefm.pl.scorecard(results, "pictures")""",
        ),
        Entry(
            "method_intervals", "Scores of methods, with intervals over patients.",
            """\
caption, summary = next(iter(results["domains"].summary.items()))
sagefm.pl.method_intervals(summary, "ari", title=caption)""",
        ),
        Entry(
            "gene_scatter", "How well two methods predict each gene.",
            """\
genes_of = results["recovery"].details["recovery_genes"]
task = genes_of["task"].iloc[0]
sagefm.pl.gene_scatter(genes_of, "sagefm", "neighbor mean", task=task)""",
        ),
        Entry(
            "calibration", "Masked counts against predictions.",
            """\
bins = results["recovery"].details["recovery_calibration"]
sagefm.pl.calibration(bins, ["sagefm", "neighbor mean"], task=task)""",
        ),
        Entry(
            "confusion", "True labels against predicted ones.",
            """\
counts = results["annotation"].details["annotation_confusion"]
sagefm.pl.confusion(counts, method="sagefm", probe="linear")""",
        ),
        Entry(
            "domain_maps", "The labels of a slide, and the domains that methods find.",
            """\
spots = results["domains"].details["domains_spots"]
spots = spots[spots["slide"] == spots["slide"].iloc[0]]
sagefm.pl.domain_maps(spots, list(spots.columns[5:10]))""",
        ),
    ],
}  # fmt: skip


def draw(only: list[str], setup: str = START) -> None:
    """Run the code of all entries in one namespace, and write their pictures."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    namespace: dict[str, object] = {}
    exec(setup, namespace)
    for entry in (entry for entries in CHAPTERS.values() for entry in entries):
        began = time.perf_counter()
        exec(entry.code, namespace)
        if not only or entry.name in only:
            write(entry.name, namespace)
        plt.close("all")
        print(f"{entry.name}: {time.perf_counter() - began:.1f} s", flush=True)


def write(name: str, namespace: dict[str, object]) -> None:
    """Write the figure of an entry, in as few colors as its file may have."""
    for dpi, n_colors in ((DPI, 256), (190, 256), (160, 256), (140, 256), (140, 64)):
        if plt.get_fignums():
            buffer = io.BytesIO()
            plt.gcf().savefig(buffer, dpi=dpi, bbox_inches="tight")
            picture = Image.open(buffer).convert("RGB")
        else:  # a scorecard writes its pictures itself
            files = namespace["files"]
            assert isinstance(files, dict)
            picture = Image.open(files["recovery"][0]).convert("RGB")
        picture.quantize(n_colors).save(PICTURES / f"{name}.png", optimize=True)
        if (PICTURES / f"{name}.png").stat().st_size <= LARGEST:
            return
    raise SystemExit(f"{name}: the picture is larger than {LARGEST:,} bytes; draw less in it")


def page() -> str:
    """Write the page: each picture with its code."""
    parts = [INTRO, f"```python\n{START}```\n"]
    for chapter, entries in CHAPTERS.items():
        parts.append(f"## {chapter}\n")
        for entry in entries:
            name = entry.name
            function, _, word = name.partition("_")
            heading = f"`{function}`: {word}" if function == "spatial" and word else f"`{name}`"
            parts += [
                f"### {heading}\n",
                f"{entry.shows}\n",
                f"```python\n{entry.code}\n```\n",
                f"![{entry.shows}](img/gallery/{name}.png)\n",
            ]  # fmt: skip
    return "\n".join(parts)


if __name__ == "__main__":
    chosen = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        draw(chosen)
    if not chosen:
        (DOCS / "gallery.md").write_text(page())

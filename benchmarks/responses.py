"""Do effects predict known pairs and measured responses? As sets, on patients never seen.

    python benchmarks/responses.py --folds FOLDER [--published FILE] [--slides NAME ...]
        [--only RESOURCE ...]

Resources: the ligand-receptor consensus of liana; transcription factors with their targets and sign
(dorothea, confidence A, 1,500 pairs drawn); and signatures of responses, each with its ligands:
Hallmark sets, CytoSig (43 cytokines, mean change), PROGENy (14 pathways), and NicheNet's treatments
(fold changes with q < 0.05). For each, the set test of `sagefm.tl.perturb` for the model, forward
and reversed, and for the slide's own correlations. FOLDER holds models that have not seen the
patient, as `benchmarks/folds.py train` writes them; FILE is a model of the published network that
has not seen it either. Writes out/responses.csv as soon as a resource is done.
"""

import argparse
import time
from pathlib import Path

import pandas as pd
from sklearn.metrics import roc_auc_score

import sagefm
from _common import OUT, SHARED, report, require_data

FOLD = {"her2st_A1": 3, "breast_cytassist_eevee": 0, "her2st_B1": 4, "her2st_E1": 2}
HALLMARK = {
    "INTERFERON_GAMMA_RESPONSE": ["IFNG"],
    "INTERFERON_ALPHA_RESPONSE": ["IFNB1", "IFNA1", "IFNA2"],
    "TGF_BETA_SIGNALING": ["TGFB1", "TGFB2", "TGFB3", "BMP4"],
    "EPITHELIAL_MESENCHYMAL_TRANSITION": ["TGFB1", "TGFB2", "TGFB3"],
    "IL6_JAK_STAT3_SIGNALING": ["IL6", "IL11", "LIF", "OSM"],
    "IL2_STAT5_SIGNALING": ["IL2", "IL15"],
    "TNFA_SIGNALING_VIA_NFKB": ["TNF", "LTA", "IL1B"],
    "INFLAMMATORY_RESPONSE": ["IL1B"],
    "WNT_BETA_CATENIN_SIGNALING": ["WNT3A", "WNT5A"],
    "NOTCH_SIGNALING": ["DLL1", "DLL4", "JAG1", "JAG2"],
    "HEDGEHOG_SIGNALING": ["SHH", "IHH", "DHH"],
    "ANGIOGENESIS": ["VEGFA"],
    "PI3K_AKT_MTOR_SIGNALING": ["INS", "IGF1"],
}
PROGENY = {
    "EGFR": ["EGF", "TGFA", "HBEGF", "AREG"], "JAK-STAT": ["IFNG", "IFNB1", "IL6"],
    "MAPK": ["EGF", "FGF2", "HGF"], "NFkB": ["TNF", "IL1B"], "PI3K": ["IGF1", "INS"],
    "TGFb": ["TGFB1", "TGFB2", "TGFB3"], "TNFa": ["TNF", "LTA"], "Trail": ["TNFSF10"],
    "VEGF": ["VEGFA", "VEGFB"], "WNT": ["WNT3A", "WNT5A"],
}  # fmt: skip
N_FACTORS = 1500
SPOTS = 256


def of_ligands(ligands):
    """Signature → ligands, as pairs."""
    rows = [(gene, name) for name, genes in ligands.items() for gene in genes]
    return pd.DataFrame(rows, columns=["ligand", "target"])


def hallmark():
    sets = sagefm.tl.signatures(next(SHARED.rglob("hallmark.gmt")))
    plain = sets["source"].str.upper().str.replace("-", "_").str.removeprefix("HALLMARK_")
    return of_ligands(HALLMARK), sets.assign(source=plain)


def cytosig():
    folder = SHARED / "responses"
    weights = pd.read_csv(folder / "cytosig_signature_43x4881.tsv.gz", sep="\t", index_col=0)
    table = weights.rename_axis("target").reset_index().melt("target", None, "source", "weight")
    ligands = pd.read_csv(folder / "cytosig_ligand_genes.csv").dropna(subset=["gene"])
    ligands = ligands.assign(gene=ligands["gene"].str.split(";")).explode("gene")
    pairs = ligands[["gene", "ligand"]].set_axis(["ligand", "target"], axis=1)
    return pairs[pairs["target"].isin(table["source"])], table


def progeny():
    table = pd.read_csv(SHARED / "responses" / "progeny_from_mouse_p05.csv.gz")
    table = table.sort_values("p", kind="stable").groupby("ligand").head(500)
    named = {"ligand": "source", "gene": "target", "effect": "weight"}
    return of_ligands(PROGENY), table.rename(columns=named)


def nichenet():
    file = SHARED / "responses" / "nichenet_ligand_treatment_5_experiments.csv.gz"
    table = pd.read_csv(file)
    pairs = table[["ligand", "experiment"]].drop_duplicates()
    pairs = pairs.assign(ligand=pairs["ligand"].str.split("+")).explode("ligand")
    named = {"experiment": "source", "gene": "target", "lfc": "weight"}
    table = table[table["qval"] < 0.05].rename(columns=named)
    return pairs.set_axis(["ligand", "target"], axis=1), table


def factors(slide):
    """Draw pairs of a factor and a target that the slide shows."""
    file = SHARED / "pairs" / "dorothea_tf_target_ABC.csv.gz"
    table = pd.read_csv(file).query("confidence == 'A'").rename(columns={"tf": "ligand"})
    seen = set(slide.var_names[(slide.X > 0).mean(axis=0).A1 > 0.03])
    table = table[table["ligand"].isin(seen) & table["target"].isin(seen)]
    drawn = table.sample(min(N_FACTORS, len(table)), random_state=0).sort_index()
    return drawn[["ligand", "target", "mor"]].rename(columns={"mor": "sign"})


SIGNATURES = {"Hallmark": hallmark, "CytoSig": cytosig, "PROGENy": progeny, "NicheNet": nichenet}
RESOURCES = ("liana", "dorothea", *SIGNATURES)


def tested(resource, slide, model):
    """Run one resource: the rows of the set, and AUROC of activators above repressors."""
    how = {"levels": 2, "n_spots": SPOTS, "n_null_spots": SPOTS}
    if resource in SIGNATURES:
        pairs, table = SIGNATURES[resource]()
        found = sagefm.tl.perturb(
            slide, model, pairs, signatures=table[["source", "target", "weight"]], **how
        )
    else:
        pairs = factors(slide) if resource == "dorothea" else resource
        found = sagefm.tl.perturb(slide, model, pairs, **how)
    sets = pd.DataFrame(found.attrs["sets"])
    passed = (found["q"] < 0.05).mean()
    sign = float("nan")
    if resource == "dorothea":
        known = found.dropna(subset=["sign", "z"])
        sign = roc_auc_score(known["sign"] > 0, known["z"])
    return sets.assign(passed=passed, sign_auroc=sign)


def main():
    require_data()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--published", type=Path)
    parser.add_argument("--slides", nargs="+", default=["her2st_A1"], choices=sorted(FOLD))
    parser.add_argument("--only", nargs="+", default=RESOURCES, choices=RESOURCES)
    given = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    tables = []
    for name in given.slides:
        slide = sagefm.read(SHARED / "slides" / f"{name}.h5ad")
        models = {"default recipe": given.folds / f"patients_{FOLD[name]}_seed0.safetensors"}
        if given.published:
            models["published"] = given.published
        for resource in given.only:
            for network, path in models.items():
                start = time.perf_counter()
                rows = tested(resource, slide, sagefm.SageFM.load(path))
                seconds = time.perf_counter() - start
                rows = rows.assign(slide=name, resource=resource, network=network, seconds=seconds)
                tables.append(rows)
                pd.concat(tables).to_csv(OUT / "responses.csv", index=False)
                print(name, resource, network, f"{seconds:.0f} s", flush=True)
    table = pd.concat(tables)
    of_model = table["evidence"].isin(["model", "beyond co-expression"])
    table = table[of_model | (table["network"] == "default recipe")]
    report("responses", lines_of(table))


def lines_of(table):
    head = (
        "slide resource evidence direction pairs,_ligands AUROC shuffled z p p,_ligands p,_targets"
    )
    columns = head.replace(" ", " | ").replace("_", " ")
    lines = [f"| {columns} |", "|" + "---|" * 11]
    for row in table.itertuples():
        who = f"{row.evidence}, {row.network}" if row.evidence == "model" else row.evidence
        lines.append(
            f"| {row.slide} | {row.resource} | {who} | {row.direction} | {row.n_pairs}, "
            f"{row.n_ligands} | {row.auroc:.3f} ({row.low:.3f} to {row.high:.3f}) | "
            f"{row.auroc_shuffled:.3f} | {row.z:.1f} | {row.p:.4f} | {row.p_ligands:.4f} | "
            f"{row.p_targets:.4f} |"
        )
    own = table[(table["evidence"] == "model") & (table["direction"] == "forward")]
    lines.append("")
    for row in own.itertuples():
        sign = (
            "" if pd.isna(row.sign_auroc) else f"; activators above repressors {row.sign_auroc:.3f}"
        )
        lines.append(f"{row.slide}, {row.resource}, {row.network}: {row.passed:.1%} of the pairs "
                     f"pass q < 0.05{sign}; {row.seconds:.0f} s")  # fmt: skip
    return lines


if __name__ == "__main__":
    main()

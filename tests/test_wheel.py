"""What is installed works by itself, and the core alone does the main job."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAIN_JOB = """
import sagefm
slide = sagefm.pp.simulate(150, seed=1)
model = sagefm.SageFM.load("default")
sagefm.tl.embed(slide, model)
sagefm.tl.domains(slide, 3)
sagefm.tl.impute(slide, model, ["COL1A1", "EGFR"])
sagefm.tl.perturb(slide, model, [("CXCL12", "CXCR4")])
slide.write_h5ad("slide.h5ad")
assert sagefm.report.page(slide, sagefm.report.quality(slide, model), name="s").count("<img") == 2
assert slide.obs["sagefm_domain"].nunique() == 3
"""
# Names of which one is known by a previous symbol and one by an Ensembl id only.
MATCHED = """
import sagefm
slide = sagefm.pp.simulate(150, seed=1)
earlier = {"COL1A1": "ENSG00000108821", "TP53": "P53", "SEPTIN9": "MSF", "ACKR3": "CXCR7"}
slide.var_names = [earlier.get(gene, gene) for gene in slide.var_names]
model = sagefm.SageFM.load("default")
sagefm.tl.embed(slide, model)
made = slide.uns["sagefm"]["embed"]
print(made["genes"], made["gene_names"], slide.obsm["X_sagefm"].tobytes().hex())
"""
COMMANDS = """
import sys
from sagefm.cli import main
for words in ("embed slide.h5ad -o e.h5ad", "domains e.h5ad -n 3 -o d.h5ad", "check d.h5ad"):
    sys.argv = ["sagefm", *words.split()]
    try:
        main()
    except SystemExit as end:
        assert not end.code, words
"""
# Not pydantic, which typer brings.
EXTRAS = (
    "dask", "decoupler", "distributed", "igraph", "lightning", "lightning_fabric", "liana",
    "mofapy2", "pyarrow", "pytorch_lightning", "scanpy", "scib_metrics", "tensorboard",
)  # fmt: skip
BLOCKED = f"""
import sys
from importlib.machinery import PathFinder
class WithoutExtras(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in {EXTRAS}:
            return super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutExtras
import matplotlib
matplotlib.use("Agg")
"""


def run(folder, code, package):
    environment = {**os.environ, "PYTHONPATH": str(package), "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=folder, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert not done.returncode, done.stderr[-3000:]
    return done.stdout


def test_the_core_alone_does_the_main_job(tmp_path):
    run(tmp_path, BLOCKED + MAIN_JOB + COMMANDS, ROOT / "src")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An empty folder with the package that a wheel of the sources installs."""
    folder = tmp_path_factory.mktemp("wheel")
    source, wheels, target = folder / "source", folder / "wheels", folder / "target"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "src"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", wheels, source]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = wheels.iterdir()
    subprocess.run([*pip, "install", "--no-deps", "--target", target, wheel], check=True)
    shutil.rmtree(source)
    return target


def test_the_wheel_does_the_main_job_in_an_empty_folder(installed, tmp_path):
    where = run(tmp_path, MAIN_JOB + "print(sagefm.__file__)" + COMMANDS, installed)
    assert where.startswith(str(installed))
    assert {path.name for path in tmp_path.iterdir()} == {"slide.h5ad", "e.h5ad", "d.h5ad"}


def test_the_wheel_matches_the_genes_that_the_checkout_does(installed, tmp_path, monkeypatch):
    monkeypatch.delenv("SAGEFM_GENES", raising=False)
    here = run(ROOT, MATCHED, ROOT / "src")
    assert "by previous symbol or alias" in here
    assert "10x GRCh38-3.0.0 + HGNC 2026-11" in here
    assert run(tmp_path, MATCHED, installed) == here


def test_the_wheel_holds_what_is_not_code(installed):
    package = installed / "sagefm"
    for name in (
        "py.typed", "weights/default.safetensors", "pp/genes_for_simulation.txt",
        "pp/visium_v1_barcodes.txt.gz", "pp/tissues/cortex.npz", "pp/tissues/breast.npz",
        "pp/genes/symbols.txt.gz", "pp/genes/aliases.txt.gz", "pp/genes/SOURCES.txt",
        "pp/genes/markers.csv", "pretrain/recipes/context.toml",
        "report/templates/slide.html.jinja",
    ):  # fmt: skip
        assert (package / name).is_file(), name

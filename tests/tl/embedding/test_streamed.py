"""Slides whose counts stay on disk: the numbers of those in memory, resumed after a kill."""

import subprocess
import sys

import anndata as ad
import numpy as np
import pytest

import sagefm
from sagefm import _streaming
from sagefm.pp import backed, on_disk, simulate, streamed
from sagefm.pp.streamed import SlideSums
from sagefm.tl import embed_many

KILLED = """
import os, signal, sys
from sagefm import _streaming
from sagefm.pp import backed, on_disk, streamed
import sagefm
on_disk.BLOCK, backed.LARGE, _streaming._SAVED_EVERY = 3000, 0, 0
add, blocks = streamed.SlideSums.add, []
def stop(self, block):
    blocks.append(block)
    if len(blocks) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, block)
streamed.SlideSums.add = stop
sagefm.tl.embed_many({sys.argv[1]: sys.argv[2]}, sys.argv[3], workers=1)
"""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(on_disk, "BLOCK", 3000)
    monkeypatch.setattr(streamed, "TILE", 5000)
    monkeypatch.setattr(backed, "LARGE", 0)


@pytest.fixture(scope="module")
def path(tmp_path_factory, slide):
    """Two sections in one file, of 200 and 150 spots."""
    other = simulate(150, seed=8, patient="p2", slide="b")
    path = tmp_path_factory.mktemp("streamed") / "both.h5ad"
    ad.concat({"a": slide, "b": other}, label="section", index_unique="-").write_h5ad(path)
    return path


def both(path):
    """The slide with its counts on disk, and in memory."""
    return (sagefm.read(path, slide_key="section", backed=backed) for backed in (True, False))


@pytest.fixture(params=["context", "published"])
def network(request, context_model, model):
    return {"context": context_model, "published": model}[request.param]


def test_embeddings_are_those_in_memory(path, network):
    on_disk, whole = both(path)
    opened = network.open(on_disk)
    assert len(list(opened.tiles())) > 10 and opened.n_blocks > 10
    sagefm.tl.embed(on_disk, network)
    sagefm.tl.embed(whole, network)
    for key in ("X_sagefm", "X_sagefm_spot"):
        assert np.abs(on_disk.obsm[key] - whole.obsm[key]).max() <= 1e-6
    assert on_disk.uns["sagefm"]["embed"] == whole.uns["sagefm"]["embed"]
    assert np.array_equal(network.embed(on_disk), on_disk.obsm["X_sagefm"])


@pytest.mark.parametrize("reference", ["shared", "model", None])
def test_several_slides_are_compared_as_in_memory(path, context_model, reference):
    results = []
    for slides in zip(both(path), both(path), strict=True):
        first, second = slides[0], slides[1][:200].copy()
        sagefm.tl.embed([first, second], context_model, reference=reference)
        results.append(first.obsm["X_sagefm"])
    assert np.abs(results[0] - results[1]).max() <= 1e-6


@pytest.mark.parametrize("where", [None, "center", "neighborhood"])
def test_predictions_are_those_in_memory(path, network, where):
    on_disk, whole = both(path)
    hidden = np.random.default_rng(1).random((whole.n_obs, len(network.vocabulary))) < 0.3
    options = {} if where is None else {"hidden": hidden, "hidden_around": where != "center"}
    on_disk, whole = (network.predict(slide, **options) for slide in (on_disk, whole))
    assert np.abs(on_disk - whole).max() <= 1e-6 * np.abs(whole).max()


@pytest.mark.parametrize("mask", ["center", "slide"])
def test_imputed_genes_and_their_scores_are_those_in_memory(path, context_model, mask):
    on_disk, whole = both(path)
    genes = [gene for gene in context_model.vocabulary.symbols if gene in whole.var_names][:12]
    options = {"adapt": False, "mask": mask, "region": "section=b" if mask == "center" else None}
    tables = [
        sagefm.tl.impute(slide, context_model, [*genes, "NOT1A"], **options)
        for slide in (on_disk, whole)
    ]
    values = [slide.obsm["sagefm_imputed"].to_numpy() for slide in (on_disk, whole)]
    np.testing.assert_allclose(*values, atol=1e-5)
    numbers = [table.select_dtypes("number").drop(columns="q") for table in tables]
    np.testing.assert_allclose(*numbers, atol=1e-4)


def test_a_killed_run_goes_on_and_ends_equal(path, context_model, tmp_path, monkeypatch):
    source, out = tmp_path / "s.h5ad", tmp_path / "o.h5ad"
    sagefm.read(path, slide_key="section").write_h5ad(source)
    context_model.save(tmp_path / "m.safetensors")
    arguments = [str(out), str(source), str(tmp_path / "m.safetensors")]
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", KILLED, *arguments], check=False)
    assert done.returncode == -9 and not out.exists()
    assert (tmp_path / ".o.h5ad.unfinished" / "sums.npy").exists()

    read, add = [], SlideSums.add
    monkeypatch.setattr(SlideSums, "add", lambda self, block: (read.append(1), add(self, block)))
    whole = sagefm.read(source)
    sagefm.tl.embed(whole, context_model)
    result = embed_many({out: source}, arguments[2], workers=1)
    assert list(result.finished) == [out]
    n_blocks = context_model.open(sagefm.read(source, backed=True)).n_blocks
    assert len(read) == n_blocks - 5
    written = ad.read_h5ad(out)
    assert np.array_equal(written.obsm["X_sagefm"], whole.obsm["X_sagefm"])
    assert (written.X != whole.X).nnz == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.safetensors", "o.h5ad", "s.h5ad"]


def test_what_another_model_left_is_not_used(path, context_model, model, tmp_path):
    opened = context_model.open(next(both(path)))
    for each, width in ((context_model, context_model.width), (model, model.width)):
        folder = tmp_path / each.config.network
        folder.mkdir()
        first = _streaming.embed_streamed(each.network, opened, width, folder)[0]
        assert first.array(mapped=True).shape == (350, width)

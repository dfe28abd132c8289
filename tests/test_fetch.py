"""Models that lie elsewhere: fetched from a server of this machine."""

import hashlib
import logging
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from safetensors.numpy import save

from sagefm import InputError, SageFM
from sagefm._fetch import local_copy


class Quiet(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path == "/round.safetensors":
            self.send_response(302)
            self.send_header("Location", self.path)
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch, model):
    """Serve a model as a hub would; nothing is in the cache."""
    place = tmp_path / "www" / "lab" / "models" / "resolve" / "main"
    place.mkdir(parents=True)
    model.save(place / "m.safetensors")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    running = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "www")))
    running.asked = []
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    running.base = f"http://127.0.0.1:{running.server_port}"
    running.file = place / "m.safetensors"
    running.digest = hashlib.sha256(running.file.read_bytes()).hexdigest()
    monkeypatch.setenv("HF_ENDPOINT", running.base)
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def test_a_path_stays_a_path(tmp_path):
    assert local_copy(tmp_path / "a#b.safetensors") == tmp_path / "a#b.safetensors"
    assert str(local_copy("folder/m.safetensors")) == "folder/m.safetensors"
    assert str(local_copy("./default")) == "default"
    assert str(local_copy(Path("default"))) == "default"


@pytest.mark.parametrize("how", ["web", "hub"])
def test_a_model_is_fetched_once_and_is_the_same(server, model, how):
    address = {
        "web": f"{server.base}/lab/models/resolve/main/m.safetensors",
        "hub": "hf://lab/models/m.safetensors",
    }[how]
    for _ in range(2):
        found = SageFM.load(f"{address}#sha256={server.digest}", device="cpu")
        assert found.fingerprint == model.fingerprint
    assert server.asked == ["/lab/models/resolve/main/m.safetensors"]


def test_a_revision_is_asked_for(server):
    with pytest.raises(InputError, match="status 404"):
        local_copy("hf://lab/models@v2/m.safetensors")
    assert server.asked == ["/lab/models/resolve/v2/m.safetensors"]


def test_without_a_hash_the_hash_is_told(server, caplog):
    with caplog.at_level(logging.WARNING):
        assert local_copy("hf://lab/models/m.safetensors").read_bytes() == server.file.read_bytes()
    assert f"pin it with #sha256={server.digest}" in caplog.text


def test_another_file_is_refused_and_not_kept(server, tmp_path):
    address = f"hf://lab/models/m.safetensors#sha256={'0' * 64}"
    for _ in range(2):
        with pytest.raises(InputError, match=f"has not the sha256 {'0' * 64}"):
            SageFM.load(address)
    assert len(server.asked) == 2
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_the_command_takes_an_address(server, run, slide, model):
    slide.write_h5ad("s.h5ad")
    address = f"hf://lab/models/m.safetensors#sha256={server.digest}"
    words = ["embed", "s.h5ad", "-o", "o.h5ad", "--device", "cpu"]
    status, _, err = run(*words, "-m", address)
    assert status == 0, err
    np.testing.assert_allclose(ad.read_h5ad("o.h5ad").obsm["X_sagefm"], model.embed(slide))
    status, _, err = run(*words, "-m", f"{server.base}/nothing.safetensors")
    assert status == 2
    assert err == (
        f"error: {server.base}/nothing.safetensors: cannot be downloaded (status 404); try again\n"
    )


PAGE = b"<!DOCTYPE html><title>Log in</title>"
OTHER = {"weight": np.zeros(3, dtype=np.float32)}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (PAGE, "is a page and no model file"),
        (b'{"error": "not found"}', "is a page and no model file"),
        (b"", "is no model file"),
        (save(OTHER), "is the weights of some other model"),
        ("half", "is no model file"),
    ],
)
def test_what_is_no_model_does_not_stay_in_the_cache(server, tmp_path, content, said):
    whole = server.file.read_bytes()
    server.file.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(InputError, match=f"{said}.*the copy was removed") as raised:
        SageFM.load("hf://lab/models/m.safetensors")
    assert "\n" not in str(raised.value)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    server.file.write_bytes(whole)
    SageFM.load("hf://lab/models/m.safetensors")


def test_what_a_killed_download_left_is_removed(server, tmp_path):
    cache = tmp_path / "cache" / "sagefm"
    cache.mkdir(parents=True)
    for name in ("tmpold", "tmpnew"):
        (cache / name).write_text("half")
    os.utime(cache / "tmpold", (1, 1))
    copy = local_copy("hf://lab/models/m.safetensors")
    assert {path.name for path in cache.iterdir()} == {"tmpnew", copy.name}


def test_an_address_that_leads_round_in_a_circle(server):
    with pytest.raises(InputError, match="cannot be downloaded"):
        local_copy(f"{server.base}/round.safetensors")


def test_a_scheme_in_capitals_is_the_same(server, model):
    address = f"{server.base}/lab/models/resolve/main/m.safetensors".replace("http", "HTTP")
    assert SageFM.load(address, device="cpu").fingerprint == model.fingerprint


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("hf://lab/m.safetensors", "write hf://owner/repository/file"),
        ("hf://lab/models/m.safetensors#sha256=abc", "end the address with #sha256="),
        ("http://127.0.0.1:9/m.safetensors", "cannot be downloaded"),
        ("http://", "cannot be downloaded"),
        ("https://[bad/m.safetensors", "safetensors"),
        ("file:///etc/passwd", "give a path, or an address with https://"),
        ("s3://lab/m.safetensors", "give a path, or an address with https://"),
    ],
)
def test_bad_addresses_are_one_clear_line(monkeypatch, tmp_path, address, said):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError, match=said) as raised:
        SageFM.load(address)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 160

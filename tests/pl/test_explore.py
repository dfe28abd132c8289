"""The explorer from Python."""

import urllib.error
import urllib.request
import webbrowser

import pytest

import sagefm

pytest.importorskip("bokeh")


def test_it_serves_until_it_is_stopped(slide, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    server = sagefm.pl.explore(slide, None)
    try:
        assert opened == [server.url]
        with urllib.request.urlopen(server.url) as answer:
            assert answer.status == 200
    finally:
        server.stop()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(server.url)

"""Who may see the page, and what the command says."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from sagefm.explore import prepare_server

PATHS = ["/", "/ws", "/metadata", "/autoload.js", "/tissue/0", "/static/js/bokeh.min.js", "/x"]


def status(address, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


@pytest.mark.parametrize("token", ["", "?token=", "?token=wrong"])
@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_served_without_the_token(server, path, token):
    assert status(f"http://127.0.0.1:{server.port}{path}{token}") == 403


def test_the_page_is_served_with_it_and_loads_nothing_from_elsewhere(server):
    assert status(server.url) == 200
    page = urllib.request.urlopen(server.url).read().decode()
    assert "cdn." not in page
    assert 'src="http' not in page


def test_names_of_other_hosts_are_refused(server):
    assert status(server.url, Host=f"evil.example:{server.port}") == 403
    assert status(server.url, Host=f"localhost:{server.port}") == 200
    assert status(server.url, Host="[bad") == 403


def upgraded(server, query, origin):
    """Ask for a websocket, and get the status."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
               "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==", "Origin": origin}  # fmt: skip
    connection.request("GET", f"/ws{query}", headers=headers)
    with contextlib.closing(connection):
        return connection.getresponse().status


def test_only_pages_of_its_own_with_the_token_open_the_socket(server):
    own, query = f"http://127.0.0.1:{server.port}", "?" + server.url.partition("?")[2]
    assert upgraded(server, query, "http://evil.example") == 403
    assert upgraded(server, "", own) == 403
    assert upgraded(server, query, own) != 403


def test_it_listens_to_this_machine_only_and_every_server_has_its_own_token(server, slide):
    assert server._socket.getsockname()[0] == "127.0.0.1"
    other = prepare_server(slide, None)
    assert other.url.partition("token=")[2] != server.url.partition("token=")[2]
    other.stop()


def test_a_port_that_is_taken_is_said(server, slide, run, tmp_path):
    slide.copy().write_h5ad(tmp_path / "slide.h5ad")
    code, out, stderr = run("explore", "slide.h5ad", "--no-browser", "--port", server.port)
    assert (code, out) == (2, "")
    assert stderr.splitlines()[-1].startswith(f"error: port {server.port}: is taken")


def test_a_notebook_shows_it(server):
    assert f'<iframe src="{server.url}"' in server._repr_html_()


def test_without_bokeh_the_command_says_what_to_install(run, monkeypatch, slide, tmp_path):
    monkeypatch.setitem(sys.modules, "bokeh", None)
    slide.copy().write_h5ad(tmp_path / "slide.h5ad")
    code, _, stderr = run("explore", "slide.h5ad", "--no-browser")
    assert code == 2
    assert "[explore]" in stderr
    assert len([line for line in stderr.splitlines() if line.startswith("error")]) == 1


def test_the_command_prints_one_line_and_ends_quietly(slide, tmp_path):
    path = tmp_path / "slide.h5ad"
    slide.copy().write_h5ad(path)
    command = [sys.executable, "-m", "sagefm", "explore", str(path), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          cwd=tmp_path, env=os.environ) as process:  # fmt: skip
        address = process.stdout.readline().strip()
        assert status(address) == 200
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=90)
    assert (process.returncode, rest) == (0, "")
    assert "Traceback" not in errors
    assert [file.name for file in tmp_path.iterdir()] == ["slide.h5ad"]

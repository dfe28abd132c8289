"""One function on many jobs, in this process; tests of `embed_many` have it in others."""

import logging
import sys

import pytest

from sagefm._errors import InputError, logger
from sagefm._workers import default_workers, each, n_cores


def halved(number):
    logger.warning("half of %s", number)
    if number % 2:
        raise InputError(f"{number} is odd")
    if not number:
        raise ZeroDivisionError
    return number // 2


@pytest.fixture
def notes():
    told = []

    class Listener(logging.Handler):
        def emit(self, record):
            told.append(record.getMessage())

    listener = Listener()
    logger.addHandler(listener)
    yield told
    logger.removeHandler(listener)


def test_results_and_errors_come_one_by_one(notes):
    results = each(halved, [4, 3, 0, 2])
    assert next(results) == (4, 2)
    assert notes == ["half of 4"]
    job, error = next(results)
    assert (job, str(error)) == (3, "3 is odd")
    assert error.__traceback__.tb_next.tb_frame.f_code.co_name == "halved"
    job, error = next(results)
    assert isinstance(error, ZeroDivisionError)
    assert list(results) == [(2, 1)]
    assert notes == ["half of 4", "half of 3", "half of 0", "half of 2"]


def test_messages_can_be_dropped(notes):
    assert list(each(halved, [4, 2], quiet=True)) == [(4, 2), (2, 1)]
    assert not notes
    assert not logger.filters


def test_one_job_needs_one_process(monkeypatch):
    monkeypatch.setattr("sagefm._workers._on_cluster", lambda *_: pytest.fail("a cluster"))
    assert list(each(halved, [4], workers=8)) == [(4, 2)]
    assert list(each(halved, [], workers=8)) == []


def test_without_dask_there_is_one_process(monkeypatch):
    assert default_workers() == max(1, n_cores() // 2)
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert default_workers() == 1
    assert list(each(halved, [4, 2])) == [(4, 2), (2, 1)]
    with pytest.raises(InputError, match=r"work in several processes needs distributed.*cluster\]"):
        list(each(halved, [4, 2], workers=2))
    with pytest.raises(InputError, match="needs distributed"):
        list(each(halved, [4], scheduler="tcp://127.0.0.1:9"))

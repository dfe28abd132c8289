"""Shared by the sections of bench_device.py: results as they come, limits, clocks, roofs."""

import json
import statistics
import time

import numpy as np
import torch

GIB = 2**30


class Results:
    """Rows of a section, printed and written to a JSON file as soon as there is one."""

    def __init__(self, path, device):
        self.path, self.device = path, device
        self.failed, self.content = [], {}
        self.deadline = float("inf")

    def note(self, section, **entries):
        """Keep what is no row."""
        self.content.setdefault(section, {}).update(entries)
        self._write()

    def row(self, section, name, **entries):
        """Keep and print a row of a section."""
        self.content.setdefault(section, {}).setdefault("rows", {})[name] = entries
        shown = (f"{key} {_shown(value)}" for key, value in entries.items() if value is not None)
        print(f"{name:34} {'  '.join(shown)}", flush=True)
        self._write()

    def attempt(self, section, name, task, *arguments):
        """Run a step that may fail, or for which there may be no time left; give its result."""
        if time.monotonic() > self.deadline:
            self.row(section, name, skipped="no time left")
            return None
        try:
            return task(*arguments)
        except Exception as error:  # noqa: BLE001  one fault shall not lose the rest
            where = _place(error)
            self.failed.append(name)
            self.row(section, name, error=f"{type(error).__name__}: {error}"[:300], where=where)
            if self.device != "cpu":
                torch.cuda.empty_cache()
            return None

    def _write(self):
        if self.path:
            self.path.write_text(json.dumps(self.content, indent=1, default=str) + "\n")


def _place(error):
    """Say in which files and lines an error came up, the last ones."""
    places, trace = [], error.__traceback__
    while trace:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " > ".join(places[-4:])


def _shown(value):
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def synchronize(device):
    if device != "cpu":
        torch.cuda.synchronize()


def clock(task, device, repeats=5, warm=2):
    """Time a task on the wall clock, the device waited for; median seconds of some repeats."""
    for _ in range(warm):
        task()
    seconds = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        task()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def device_clock(task, device, repeats=20, warm=3):
    """Time work on the device alone, by its events; median seconds. By the wall on a CPU."""
    if device == "cpu":
        return clock(task, device, 3, 1)
    for _ in range(warm):
        task()
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    torch.cuda.synchronize()
    for begin, end in marks:
        begin.record()
        task()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in marks) / 1e3


def roofs(device):
    """Measure what memory and arithmetic of the device reach: bytes/s and FLOP/s."""
    big = device != "cpu"
    n, size = (GIB // 2, 8192) if big else (GIB // 32, 1024)
    measured = {"memory": 2 * 4 * n / _copying(n, device)}
    for name, kind in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
        out = torch.empty_like(a)
        seconds = device_clock(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), device, 10)
        measured[name] = 2 * size**3 / seconds
    return measured


def _copying(n, device):
    source = torch.rand(n, device=device)
    target = torch.empty_like(source)
    return device_clock(lambda: target.copy_(source), device)


def side_by_side(slide, copies):
    """Lay copies of a slide side by side, a gap between them: all sizes have the same spots."""
    from bench_scaling import side_by_side as laid

    large = laid(slide, copies)
    large.obs_names = [f"spot{i}" for i in range(large.n_obs)]
    return large


def difference(expected, found):
    """Get the largest difference relative to the largest number; infinite if not comparable."""
    expected, found = (np.asarray(each, dtype=np.float64) for each in (expected, found))
    if expected.shape != found.shape or not np.isfinite(found).all():
        return float("inf")
    scale = np.abs(expected).max(initial=1e-12)
    return float(np.abs(expected - found).max(initial=0) / scale)

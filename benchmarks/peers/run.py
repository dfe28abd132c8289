"""Find tissue domains by other methods and by sagefm, on the same sections.

    python benchmarks/peers/run.py [PEER ...] [--sections dlpfc_151673 ...]

Without names all peers run. Each has an environment of its own, made when it is missing (`python
-m venv` and `pip install -r requirements/PEER.txt`), and each section a process of its own, whose
time and peak memory are measured. Prints a table and writes benchmarks/out/peers.csv. A result
that is in benchmarks/out/peers already is not computed again; delete its file for that.
`--stored` runs nothing and lists what is missing.
"""

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "out" / "peers"
SLIDES = HERE.parents[2] / "shared" / "data" / "slides"
SECTIONS = ("dlpfc_151510", "dlpfc_151673", "dlpfc_151674")

# Script, and what it takes beside the section.
PEERS = {
    "sagefm": ("peer_sagefm.py",),
    "pca7": ("peer_pca.py", "7"),
    "pca15": ("peer_pca.py", "15"),
    "banksy": ("peer_banksy.py",),
    "spagcn": ("peer_spagcn.py",),
    "cellcharter": ("peer_cellcharter.py",),
    "graphst": ("peer_graphst.py",),
    "stagate": ("peer_stagate.py",),
    "novae": ("peer_novae.py",),
}
# What the environment of a peer must have; the others run in that of sagefm.
PACKAGES = {
    "banksy": "banksy", "spagcn": "SpaGCN", "cellcharter": "cellcharter", "graphst": "GraphST",
    "stagate": "STAGATE_pyG", "novae": "novae",
}  # fmt: skip
COSTS = ("s", "processor_s", "gb")


class Missing(Exception):
    """A peer cannot be run, and why."""


def last_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "no message"


def environment(peer, folder):
    """Python of the environment of a peer, which is made if it is missing."""
    if peer not in PACKAGES:
        return sys.executable
    python = folder / peer / "bin" / "python"
    if not python.exists():
        for command in (
            [sys.executable, "-m", "venv", folder / peer],
            [python, "-m", "pip", "install", "-q", "-r", HERE / "requirements" / f"{peer}.txt"],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                shutil.rmtree(folder / peer)  # or the next run would take it for complete
                raise Missing(f"cannot be installed: {last_line(done.stderr)}")
    code = f"import importlib.util as u; exit(u.find_spec({PACKAGES[peer]!r}) is None)"
    if subprocess.run([python, "-c", code], check=False).returncode:
        raise Missing(f"{folder / peer} has no {PACKAGES[peer]}; see README.md beside run.py")
    return python


def measured(command, timeout, log):
    """Run a command in a process of its own; return seconds, processor seconds and GB."""
    start = time.monotonic()
    threads = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    with log.open("w") as stream:
        process = subprocess.Popen(
            list(map(str, command)), stdout=stream, stderr=stream, env=os.environ | threads,
            process_group=0,
        )  # fmt: skip
        watch = threading.Timer(timeout, os.killpg, (process.pid, signal.SIGKILL))
        watch.start()
        try:
            _, status, used = os.wait4(process.pid, 0)
        except KeyboardInterrupt:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            watch.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - start
    if process.returncode and seconds >= timeout:
        raise Missing(f"over {timeout:g} s")
    if process.returncode < 0:
        raise Missing(f"ended by {signal.Signals(-process.returncode).name}")
    if process.returncode:
        raise Missing(last_line(log.read_text()))
    gigabytes = used.ru_maxrss * 1024 / 1e9
    return {"s": seconds, "processor_s": used.ru_utime + used.ru_stime, "gb": gigabytes}


@cache
def labels_of(path, key):
    """How many labels the pathologist gave, counted in a process that may import anndata."""
    code = f"import anndata; print(anndata.read_h5ad({str(path)!r}, 'r').obs[{key!r}].nunique())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{path}: {last_line(done.stderr)}")
    return int(done.stdout)


def compare(peer, section, options):
    """Run a peer on a section and score it, unless that was done before."""
    stem = OUT / f"{peer}-{section.stem}"
    result, arrays = stem.with_suffix(".json"), stem.with_suffix(".npz")
    if result.exists():
        return json.loads(result.read_text())
    if options.stored:
        raise Missing("not run")
    python = environment(peer, options.environments)
    script, *others = PEERS[peer]
    n_domains = labels_of(section, options.label)
    found = measured(
        [python, HERE / script, section, n_domains, arrays, *others],
        options.timeout, stem.with_suffix(".log"),
    )  # fmt: skip
    scored = subprocess.run(
        [sys.executable, HERE / "score.py", section, arrays, options.label],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if scored.returncode:
        raise Missing(f"not scored: {last_line(scored.stderr)}")
    found["ari"] = json.loads(scored.stdout.splitlines()[-1])
    result.write_text(json.dumps(found, indent=1))
    return found


def rows(results, sections):
    """Rows of the table: per peer and readout the index of each section and their mean."""
    for peer, by_section in results.items():
        done = [found for found in by_section.values() if isinstance(found, dict)]
        readouts = dict.fromkeys(name for found in done for name in found["ari"])
        for name in readouts:
            values = [
                found["ari"].get(name) if isinstance(found, dict) else None
                for found in (by_section[section] for section in sections)
            ]
            known = [value for value in values if value is not None]
            cost = {key: sum(found[key] for found in done) / len(done) for key in COSTS}
            mean = sum(known) / len(known) if len(known) == len(sections) else None
            yield {
                "method": peer, "readout": name, **dict(zip(sections, values, strict=True)),
                "mean": mean, **cost,
            }  # fmt: skip


def table(results, sections):
    """Write a Markdown table, and a line for each section on which a peer could not be run."""
    yield f"| method | readout | {' | '.join(sections)} | mean | s (processor) | GB |"
    yield "|---" * (len(sections) + 5) + "|"
    for row in rows(results, sections):
        values = [row[section] for section in sections] + [row["mean"]]
        cells = ["-" if value is None else f"{value:.3f}" for value in values]
        cost = f"{row['s']:.0f} ({row['processor_s']:.0f}) | {row['gb']:.1f}"
        yield f"| {row['method']} | {row['readout']} | {' | '.join(cells)} | {cost} |"
    for peer, by_section in results.items():
        reasons = {
            section: found for section, found in by_section.items() if isinstance(found, str)
        }
        for reason in dict.fromkeys(reasons.values()):
            where = ", ".join(section for section in reasons if reasons[section] == reason)
            yield f"{peer} ({where}): {reason}"


def arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--sections", nargs="+", default=SECTIONS, help="names, or .h5ad files")
    parser.add_argument("--label", default="label", help="obs column with the labels")
    parser.add_argument(
        "--environments", type=Path, default=Path.home() / ".cache" / "sagefm-peers",
        help="folder for the environments",
    )  # fmt: skip
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for one section")
    parser.add_argument(
        "--stored", action="store_true", help="print the results that are there, run nothing"
    )
    options = parser.parse_args(argv)
    if unknown := set(options.peers) - set(PEERS):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; known: {', '.join(PEERS)}")
    options.sections = [
        Path(name) if name.endswith(".h5ad") else SLIDES / f"{name}.h5ad"
        for name in options.sections
    ]
    if missing := [str(section) for section in options.sections if not section.exists()]:
        parser.error(f"no such section: {', '.join(missing)}")
    return options


def main(argv=None):
    options = arguments(argv)
    OUT.mkdir(parents=True, exist_ok=True)
    sections = [section.stem for section in options.sections]
    results = {peer: {} for peer in options.peers or PEERS}
    for peer in results:
        for section in options.sections:
            try:
                found = compare(peer, section, options)
            except Missing as reason:
                found = str(reason)
            results[peer][section.stem] = found
            print(peer, section.stem, found, file=sys.stderr, flush=True)
    with (OUT.parent / "peers.csv").open("w") as stream:
        fields = ["method", "readout", *sections, "mean", *COSTS]
        writer = csv.DictWriter(stream, fields)
        writer.writeheader()
        writer.writerows(rows(results, sections))
    print("\n".join(table(results, sections)))


if __name__ == "__main__":
    main()

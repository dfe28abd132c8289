"""Time `sagefm embed` as a whole process, step by step, and the start of the package.

Run it as `python benchmarks/bench_process.py [--processor-time]`.
"""

import json
import resource
import subprocess
import sys
import time

import numpy as np

from _common import GENES, OUT, PROCESSOR_TIME, SLIDE, report, require_data

REPEATS = 3
COMMAND = [sys.executable, "-c", "from sagefm.cli import main; main()"]

STEPS = """
import json, time
t, steps = time.perf_counter(), {}
def step(name):
    global t
    now = time.perf_counter(); steps[name] = now - t; t = now
import sagefm; sagefm.read; step("import of the reader (anndata)")
sagefm.SageFM; step("import of the model (torch)")
import sys
slide_path, model_path, out = sys.argv[1:]
model = sagefm.SageFM.load(model_path); step("load the weights")
slide = sagefm.read(slide_path); step("read and check the slide")
prepared = model.prepare(slide); step("align, find neighborhoods")
slide.obsm["X_sagefm"] = model.embed(prepared); step("network")
slide.write_h5ad(out); step("write the .h5ad")
print(json.dumps(steps))
"""


if PROCESSOR_TIME in sys.argv:
    STEPS = STEPS.replace("perf_counter", "process_time")


def seconds_of(command):
    start = now()
    subprocess.run(command, check=True, capture_output=True)
    return now() - start


def now():
    if PROCESSOR_TIME not in sys.argv:
        return time.perf_counter()
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def main():
    require_data()
    from sagefm.model import SageFM
    from sagefm.pp.vocabulary import Vocabulary

    OUT.mkdir(exist_ok=True)
    weights, out = OUT / "random.safetensors", OUT / "embedded.h5ad"
    SageFM.new(Vocabulary.read(GENES), seed=0).save(weights)
    out.unlink(missing_ok=True)
    embed = [*COMMAND, "embed", str(SLIDE), "-m", str(weights), "-o", str(out)]
    whole = [seconds_of(embed) for _ in range(REPEATS)]
    runs = []
    for _ in range(REPEATS):
        done = subprocess.run(
            [sys.executable, "-c", STEPS, str(SLIDE), str(weights), str(out)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    starts = {
        "python -c 'import sagefm'": [sys.executable, "-c", "import sagefm"],
        "sagefm --help": [*COMMAND, "--help"],
    }
    report(
        "bench_process",
        [
            f"sagefm embed {SLIDE.name}, published size, median of {REPEATS} (fastest, slowest):",
            f"  whole process  {np.median(whole):.2f} s ({min(whole):.2f}, {max(whole):.2f})",
            *(f"  {name:<32} {np.median([run[name] for run in runs]):6.3f} s" for name in runs[0]),
            *(
                f"{name:<34} {np.median([seconds_of(command) for _ in range(5)]):6.3f} s"
                for name, command in starts.items()
            ),
        ],
    )


if __name__ == "__main__":
    main()

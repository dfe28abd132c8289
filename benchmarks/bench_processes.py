"""Measure how much of a training step of two processes is communication, at published size.

Two processes of one thread each share batches of 64 (32 spots each) and exchange their gradients
(gloo). The same steps are timed without the exchange, in alternation.

    python benchmarks/bench_processes.py
"""

import json
import os
import socket
import subprocess
import sys
import time

import numpy as np

from _common import report, require_data
from bench_training import fresh, prepared

WORLD, BLOCK, BLOCKS = 2, 6, 4


def side():
    """One of the processes."""
    import torch
    from torch.nn.parallel import DistributedDataParallel

    from sagefm.pretrain.batches import Batches
    from sagefm.pretrain.devices import keeping_memory
    from sagefm.pretrain.loop import Loss
    from sagefm.pretrain.published import PublishedTask

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    split, recipe = prepared(64, 16)
    patches = split.plan(split.training, recipe).shuffled(0, 0)
    task = PublishedTask(0.3)
    stream = iter(Batches(split.source, patches, (0, 0, 0), task, rank=rank, world=WORLD))
    module = Loss(fresh(split), "float32").train()
    optimizer = module.network.optimizer(recipe.train.learning_rate, recipe.train.weight_decay)
    shared = DistributedDataParallel(module)
    parameters = sum(parameter.numel() for parameter in module.parameters())

    def step():
        batch = next(stream)
        optimizer.zero_grad()
        shared(batch, WORLD).backward()
        optimizer.step()

    seconds = {"with": [], "without": []}
    with keeping_memory(torch.device("cpu")):
        for block in range(BLOCKS + 1):
            for name, times in seconds.items():
                torch.distributed.barrier()
                begin = time.perf_counter()
                for _ in range(BLOCK):
                    if name == "with":
                        step()
                    else:
                        with shared.no_sync():
                            step()
                if block:  # the first one warms up
                    times.append((time.perf_counter() - begin) / BLOCK)
    torch.distributed.destroy_process_group()
    return {"parameters": parameters, **{name: np.median(t) for name, t in seconds.items()}}


def main():
    require_data()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(WORLD)}
    sides = [
        subprocess.Popen(
            [sys.executable, __file__, "side"],
            env={**os.environ, **place, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(WORLD)
    ]
    outputs = [process.communicate()[0] for process in sides]
    if any(process.returncode for process in sides):
        sys.exit("a process failed")
    told = json.loads(outputs[0].splitlines()[-1])
    exchange = told["with"] - told["without"]
    megabytes = told["parameters"] * 4 / 1e6
    report(
        "bench_processes",
        [
            f"{WORLD} processes of one thread, batch 64 in all, {megabytes:.0f} MB of gradients",
            f"step without exchange {told['without']:.3f} s, with it {told['with']:.3f} s: "
            f"{exchange / told['with']:.0%} is communication ({megabytes / exchange:.0f} MB/s)",
        ],
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(side()))
    else:
        main()

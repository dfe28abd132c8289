"""Choose how many spots of a large slide a center is compared with.

    python benchmarks/landmarks.py [MODEL]

30 % of the measured genes of 512 centers of each large training slide are masked. Prints the mean
squared error of their predictions (log1p counts; of the default model if none is given) by the
number of landmarks.
"""

import sys

import numpy as np
import torch

import sagefm
from _common import SHARED, report, require_data
from sagefm.nn import Context, MaskedGenes

SLIDES = ("dlpfc_151510", "dlpfc2_Br8325_ant", "breastDCIS_MSTI")
LANDMARKS = (64, 256, 512, 1024, 2048, 10**6)
N_CENTERS = 512


@torch.inference_mode()
def error(model, prepared, most):
    """Hide and predict, the same entries for any number of landmarks."""
    Context.MOST = most
    chance = np.random.default_rng(0)
    neighbors = prepared.neighbors[chance.permutation(len(prepared.neighbors))[:N_CENTERS]]
    measured = prepared.measured
    mask = (chance.random((len(neighbors), len(measured))) < 0.3) & measured
    hidden = MaskedGenes(np.arange(len(measured)), mask)
    predicted = model.encode(prepared).centers(neighbors, hidden).predict().cpu().numpy()
    truth = prepared.log1p[neighbors[:, 0]].toarray()
    return float(((predicted - truth)[mask] ** 2).mean())


def main():
    require_data()
    model = sagefm.SageFM.load(sys.argv[1] if len(sys.argv) > 1 else "default")
    lines = ["| landmarks | " + " | ".join(SLIDES) + " |", "|---" * (len(SLIDES) + 1) + "|"]
    slides = [model.prepare(sagefm.read(SHARED / "slides" / f"{name}.h5ad")) for name in SLIDES]
    for most in LANDMARKS:
        errors = [f"{error(model, prepared, most):.5f}" for prepared in slides]
        lines.append(f"| {'all' if most == LANDMARKS[-1] else most} | {' | '.join(errors)} |")
    report("landmarks", lines)


if __name__ == "__main__":
    main()

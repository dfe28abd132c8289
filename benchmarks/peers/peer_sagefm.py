"""sagefm: the domains that its defaults give."""

from kit import run

import sagefm


def ours(slide, n_domains, model="default"):
    sagefm.tl.embed(slide, model)
    sagefm.tl.domains(slide, n_domains)
    return slide.obsm["X_sagefm"], {"its own": slide.obs["sagefm_domain"]}


if __name__ == "__main__":
    run(ours)

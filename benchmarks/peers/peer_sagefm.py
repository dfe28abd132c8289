"""sagefm: the domains that its defaults give, from a consensus of views, without a model."""

from kit import run

import sagefm


def consensus(slide, n_domains):
    sagefm.tl.domains(slide, n_domains)
    return None, {"consensus": slide.obs["sagefm_domain"]}


if __name__ == "__main__":
    run(consensus)

"""novae, trained from scratch on the section.

https://prism-oncology.github.io/novae, "How to train a new Novae model?":
`novae.spatial_neighbors(adata)`, `model = novae.Novae(adata)`, `model.fit(adata)` (at most 20
epochs), `model.compute_representations(adata)`, `model.assign_domains(adata, n_domains=7)`. Its
authors recommend a pretrained model, which has to be downloaded.
"""

import lightning
import novae
from kit import run, spot_pitch


def from_scratch(slide, n_domains):
    lightning.seed_everything(0)
    slide.X = slide.X.astype("float32")
    novae.spatial_neighbors(slide, radius=1.5 * spot_pitch(slide.obsm["spatial"]))
    model = novae.Novae(slide)
    model.fit(slide, accelerator="cpu")
    model.compute_representations(slide, accelerator="cpu")
    key = model.assign_domains(slide, n_domains=n_domains)
    return slide.obsm["novae_latent"], {"its own": slide.obs[key].astype(str).to_numpy()}


if __name__ == "__main__":
    run(from_scratch)

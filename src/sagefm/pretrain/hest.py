"""The human Visium slides of a HEST-1k download (Jaume et al., NeurIPS 2024)."""

import re
from os import PathLike
from pathlib import Path

import pandas as pd

from sagefm._errors import InputError, logger
from sagefm._text import few, numbered

_TABLE = "HEST_v*.csv"
_COLUMNS = (
    *("id", "dataset_title", "subseries", "patient", "organ", "disease_state", "oncotree_code"),
    *("species", "st_technology", "license", "study_link", "download_page_link1"),
)


def is_hest(root: str | PathLike[str]) -> bool:
    """Whether a folder is a HEST-1k download, with its table and a folder ``st``."""
    folder = Path(root)
    return (folder / "st").is_dir() and any(folder.glob(_TABLE))


def hest_slides(root: str | PathLike[str]) -> tuple[dict[str, Path], pd.DataFrame]:
    """Find the human Visium slides of a download, and their facts.

    Patients are named within a dataset only, so that the name of the dataset becomes part of the
    name of the patient. Where the table has no patient, dataset and subseries are used instead; a
    subseries is often one section, so that one person can count as several, with a warning.

    A dataset is named by its title up to the first colon: a study with a supplement is one. 10x
    Genomics publishes sections of one donor under several titles, so that all its slides of an
    organ count as one dataset.

    Parameters
    ----------
    root
        The folder with ``HEST_v….csv`` (the latest, where there are several) and ``st/ID.h5ad``.

    Returns
    -------
    Sample → file, and a table with columns slide, patient, dataset, organ, disease, technology,
    license, source, as for :func:`sagefm.pretrain.corpus.build`. Samples without a file are left
    out, with a warning.

    Raises
    ------
    InputError
        The folder is no download, its table is damaged, or no human Visium sample has a file.
    """
    folder = Path(root)
    samples = _samples(folder)
    chosen = samples[(samples.species == "Homo sapiens") & (samples.st_technology == "Visium")]
    paths = {sample: folder / "st" / f"{sample}.h5ad" for sample in chosen.id}
    missing = [sample for sample, path in paths.items() if not path.exists()]
    if len(missing) == len(paths):
        raise InputError(
            f"{folder}: none of its {numbered(len(paths), 'human Visium sample')} has a file "
            "st/ID.h5ad; download them"
        )
    if missing:
        logger.warning(
            "%s: %d of %d human Visium samples have no file and are left out (%s)",
            folder, len(missing), len(paths), few(missing),
        )  # fmt: skip
    chosen = chosen[~chosen.id.isin(missing)]
    nameless = int((chosen.patient == "").sum())
    if nameless:
        logger.warning(
            "%s: %d of %d samples name no patient: dataset and subseries are used instead, and "
            "one person may count as several",
            folder, nameless, len(chosen),
        )  # fmt: skip
    return {sample: paths[sample] for sample in chosen.id}, _facts(chosen)


def _samples(folder: Path) -> pd.DataFrame:
    """Read the latest table."""
    tables = sorted(folder.glob(_TABLE), key=_version)
    if not tables:
        raise InputError(f"{folder}: is no HEST-1k download ({_TABLE} is missing)")
    try:
        table = pd.read_csv(tables[-1], dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{tables[-1]}: cannot be read as a CSV table ({error})") from error
    lacking = [column for column in _COLUMNS if column not in table]
    if lacking:
        raise InputError(f"{tables[-1]}: lacks the columns {few(lacking)}; download it again")
    return pd.DataFrame({column: table[column].str.strip() for column in _COLUMNS})


def _version(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.stem)]


def _facts(samples: pd.DataFrame) -> pd.DataFrame:
    """Get the facts of samples, under the names of a corpus."""
    within = samples.patient.where(samples.patient != "", samples.subseries)
    code = " (" + samples.oncotree_code + ")"
    return pd.DataFrame(
        {
            "slide": samples.id,
            "patient": (samples.dataset_title + ": " + within).str.removesuffix(": "),
            "dataset": _datasets(samples),
            "organ": samples.organ,
            "disease": samples.disease_state + code.where(samples.oncotree_code != "", ""),
            "technology": samples.st_technology,
            "license": samples.license,
            "source": samples.study_link.where(
                samples.study_link != "", samples.download_page_link1
            ),
        }
    ).reset_index(drop=True)


def _datasets(samples: pd.DataFrame) -> "pd.Series[str]":
    """Name what must not be divided between training and test."""
    title = samples.dataset_title.str.split(":").str[0].str.strip()
    by_10x = samples.download_page_link1.str.contains("10xgenomics.com", regex=False)
    return title.mask(by_10x, "10x Genomics, " + samples.organ)

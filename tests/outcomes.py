"""Results of `tl.outcome` that are made by hand, for tests of what is drawn of them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

NOTE = "For research use only: not for diagnosis, prognosis or treatment."
SETS = {
    "clinical": 2, "pseudobulk": 4, "embedding mean": 4, "embedding quantiles": 4,
    "domain fractions": 6, "neighborhood enrichment": 4, "clinical + domain fractions": 5,
}  # fmt: skip
BEST = "domain fractions"


def outcome_of(kind="classes", n=40, n_features=6, effect=1.2, n_classes=2, seed=0, warnings=()):
    """Make a result; without an effect nothing is significant."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n)
    targets = _targets(kind, n_classes, truth, rng)
    patients = pd.DataFrame(
        targets, index=pd.Index([f"MRN-{i}-Doe" for i in range(n)], name="patient")
    )
    patients["n_slides"] = 1
    patients["site"] = np.where(np.arange(n) % 3, "north", "south")
    for name in SETS:
        risk = 0.8 * effect * truth + rng.normal(size=n)
        if kind == "classes" and n_classes > 2:
            classes = pd.Categorical(targets["response"])
            own = classes.codes[:, None] == np.arange(n_classes)
            logits = 1.5 * effect * own + rng.normal(size=(n, n_classes))
            for j, label in enumerate(classes.categories):
                patients[f"risk_{name}_{label}"] = logits[:, j]
        else:
            patients[f"risk_{name}"] = 30 + 4 * risk if kind == "number" else risk
        if name == BEST:
            patients["group"] = np.where(risk > np.median(risk), "high", "low")
    scores, permuted = _scores(n, effect, rng)
    curve = pd.DataFrame({"set": BEST, "n_patients": np.linspace(n // 2, n, 4).astype(int)})
    curve["concordance"] = 0.5 + 0.2 * min(effect, 1) * np.array([0.5, 0.7, 0.9, 1])
    curve["low"], curve["high"] = curve["concordance"] - 0.15, curve["concordance"] + 0.12
    text = "cannot be said: the interval of the concordance (0.35 to 0.62) includes chance"
    if effect:
        text = "about 64 patients (41 to 210) for p < 0.05 with a power of 80%"
    curve.attrs["needed_text"] = text
    columns = {"survival": "months, dead", "number": "age", "ordinal": "stage"}
    return SimpleNamespace(
        target=columns.get(kind, "response"),
        kind=kind, note=NOTE, scores=scores, best=BEST, patients=patients,
        features=_features(n_features, effect, n, rng), curve=curve, permuted=permuted,
        warnings=list(warnings), spots=pd.DataFrame(), domains=pd.DataFrame(),
    )  # fmt: skip


def _targets(kind, n_classes, truth, rng):
    if kind == "survival":
        time = rng.exponential(20 * np.exp(-truth))
        end = rng.uniform(5, 60, size=len(truth))
        return {"months": np.minimum(time, end).round(1) + 0.1, "dead": (time <= end).astype(int)}
    if kind == "number":
        return {"age": 50 + 10 * truth}
    codes = np.argsort(np.argsort(truth)) * n_classes // len(truth)
    names = ["no", "yes"] if n_classes == 2 else ["progressive", "stable", "complete"]
    if kind == "ordinal":
        levels = ["I", "II", "III"]
        return {"stage": pd.Categorical.from_codes(codes % 3, levels, ordered=True)}
    return {"response": np.array(names)[codes]}


def _scores(n, effect, rng):
    permuted = pd.DataFrame({name: 0.48 + rng.normal(0, 0.5 / np.sqrt(n), 199) for name in SETS})
    rows = []
    for i, (name, n_features) in enumerate(SETS.items()):
        concordance = 0.5 + min(effect, 1.5) * (0.1 + 0.03 * (i % 5)) + rng.normal(0, 0.01)
        p = (1 + (permuted[name] >= concordance).sum()) / 200
        highest = (1 + (permuted.max(axis=1) >= concordance).sum()) / 200
        half = 0.9 / np.sqrt(n)
        rows.append({
            "set": name, "n_patients": n, "n_events": n // 2, "n_features": n_features,
            "n_components": 2, "concordance": concordance, "low": concordance - half,
            "high": min(concordance + half, 1), "p": p, "p_adjusted": highest, "q": highest,
            "beyond_clinical": 0.03, "beyond_p": np.nan if i < 1 else min(1, 3 * p),
        })  # fmt: skip
    return pd.DataFrame(rows), permuted


def _features(n_features, effect, n, rng):
    effects = rng.normal(0, 0.3 + 0.3 * effect, n_features)
    error = 1.6 / np.sqrt(n)
    p = np.clip(np.exp(-(effects**2) / (2 * error**2)), 1e-6, 1)
    return pd.DataFrame({
        "set": BEST, "feature": [f"domain {i}" for i in range(n_features)], "effect": effects,
        "low": effects - 1.96 * error, "high": effects + 1.96 * error, "p": p,
        "q": np.minimum(p * 3, 1) if effect else np.maximum(p, 0.4),
    })  # fmt: skip


def with_maps(result, slides, effect=1.2, n_domains=4, seed=0):
    """Add contributions of spots and domains to a result; slides are name → slide."""
    rng, tables = np.random.default_rng(seed), []
    for name, slide in slides.items():
        x = slide.obsm["spatial"][:, 0]
        wave = np.sin(4 * (x - x.min()) / np.ptp(x)) * effect
        contribution = wave + rng.normal(0, 0.4, slide.n_obs)
        p = np.where(np.abs(wave) > 0.8, 0.01, rng.uniform(size=slide.n_obs))
        spots = slide.obs_names.astype(str)
        tables.append(pd.DataFrame(
            {"slide": name, "spot": spots, "contribution": contribution / 400, "p": p}
        ))  # fmt: skip
    result.spots = pd.concat(tables, ignore_index=True)
    means = effect * rng.normal(0, 0.4, n_domains) + rng.normal(0, 0.05, n_domains)
    p = np.clip(np.exp(-10 * np.abs(means)), 0.001, 1)
    result.domains = pd.DataFrame({
        "slide": "all", "domain": [f"domain {i}" for i in range(n_domains)], "n_patients": 40,
        "contribution": means, "low": means - 0.2, "high": means + 0.2, "p": p,
        "q": np.minimum(3 * p, 1),
    })  # fmt: skip
    return result

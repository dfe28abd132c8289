"""Whether `tl.outcome` finds what is known of simulated patients, and nothing where nothing is.

    python benchmarks/outcomes.py null [--cohorts 500] [--maps 60]
    python benchmarks/outcomes.py power [--cohorts 16]
    python benchmarks/outcomes.py confounded [--cohorts 12]
    python benchmarks/outcomes.py real [--cohorts 20]

`null`, `power` and `confounded` draw patients from a pool of 400 simulated ones, whose slides are
simulated, embedded and summarized once. Each cohort has other patients and new outcomes, and all
that `tl.outcome` does with the summaries is done for it; maps of spots are made only where `--maps`
asks for them. Slides have 80 spots; labels are the true domains, and those that `tl.domains` finds.

- `null`: no effects, 40 patients, the four kinds of outcomes in turn.
- `power`: effects of one trait, 0.5 to 2 per standard deviation, in 20, 40 and 80 patients.
- `confounded`: the site follows the outcome, and slides show the site.
- `real`: outcomes by chance for the 20 patients of ../shared/data; breast against other organs.
"""

import argparse
import logging
import pickle
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from unittest import mock

import numpy as np
import pandas as pd
from scipy.special import logit
from scipy.stats import binomtest

import sagefm
from _common import OUT, SHARED, report, require_data
from sagefm.pp.simulate_cohort import SimulatedCohort, _assign_sites, _draw_outcomes
from sagefm.tl.outcomes import _evaluate, _outcome
from sagefm.tl.outcomes._features import MEAN
from sagefm.tl.outcomes._maps import Maps
from sagefm.tl.outcomes._slides import OutcomeSlide, summarize_slides
from sagefm.tl.patients import SlideSource

POOL, SPOTS, PERMUTATIONS, LEVEL = 400, 80, 39, 0.05
NOTHING_ELSE = {"maps": True, "curve": True, "beyond": True}
SURVIVAL = ("time", "event")
TARGETS = ("response", SURVIVAL, "score", "grade")
CLINICAL = ["age", "sex", "stage"]
KEYS = ["domain", "sagefm_domain"]
SEES = {"fraction": "fractions", "program": "gene programs", "interface": "interfaces"}
"""Trait → the sets of features that are made for it."""


@dataclass(frozen=True)
class Pool:
    """Patients, and what is kept of their slides."""

    cohort: SimulatedCohort
    slides: dict[str, OutcomeSlide]
    """Patient → summary of the slide."""

    @classmethod
    def simulate(cls, model):
        """Simulate, and find domains of all patients together."""
        cohort = sagefm.pp.simulate_cohort(POOL, effects={}, n_spots=SPOTS)
        sagefm.tl.domains(list(cohort.slides.values()), n_domains=6, method="rings")
        source = SlideSource(cohort.slides, None, None, "patient", None)
        slides = summarize_slides(source, model, KEYS, 0, lambda _: None)
        return cls(cohort, {one.patient: one for one in slides})

    @classmethod
    def load(cls, model):
        """Simulate the pool, or load the summaries that this script has kept."""
        path = OUT / "outcomes_pool.pkl"
        if path.exists():
            cohort = sagefm.pp.simulate_cohort(POOL, effects={}, n_spots=SPOTS)
            return cls(cohort, pickle.loads(path.read_bytes()))
        pool = cls.simulate(model)
        OUT.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps(pool.slides))
        return pool

    def draw(self, n_patients, seed, effects, confounding=0.0):
        """Draw patients, half of each site, and their outcomes."""
        rng = np.random.default_rng([seed, n_patients])
        truth, table = self.cohort.truth, self.cohort.table
        rows = rng.permutation(POOL)
        risk = sum((effects.get(name, 0) * truth[name] for name in truth), np.zeros(POOL))
        luck, chance = rng.uniform(size=(2, POOL))
        risk = np.asarray(risk)
        wanted = _assign_sites(risk + logit(luck), chance, 2, confounding)
        own = (table["site"] == "site B").to_numpy()
        fits = [rows[(own[rows] == site) & (wanted[rows] == site)] for site in (0, 1)]
        chosen = np.concatenate([one[: n_patients // 2] for one in fits])
        outcomes = _draw_outcomes(risk[chosen], luck[chosen], 0.3, seed)
        columns = ["patient", "site", *CLINICAL]
        own_table = table.iloc[chosen][columns].reset_index(drop=True).assign(**outcomes)
        own_truth = truth.iloc[chosen].assign(linear_predictor=risk[chosen])
        return replace(self.cohort, table=own_table, truth=own_truth, effects=dict(effects))

    def predict(
        self, cohort, target, model, *, maps=False, curve=False, beyond=False, keys=None, **options
    ):
        """Do what `tl.outcome` does for the patients of a cohort, their slides being summarized."""
        names, keys = cohort.table["patient"], KEYS if keys is None else keys
        summaries = [
            replace(one, spots=one.spots[::4], labels={key: one.labels[key] for key in keys})
            for one in (self.slides[name] for name in names)
        ]
        slides = {name: self.cohort.slides[name] for name in names} if maps else self.cohort.slides
        left_out = {"maps": not maps, "curve": not curve, "beyond": not beyond}
        return predict(summaries, slides, cohort.table, target, model, left_out,
                       clinical=CLINICAL, keys=keys, **options)  # fmt: skip


def predict(summaries, slides, table, target, model, left_out, **options):
    """Run `tl.outcome` with summaries of slides, and without some of its results."""
    empty = Maps(pd.DataFrame(), pd.DataFrame())
    instead = [(_outcome, "summarize_slides", lambda *_: summaries)]
    instead += [(_outcome, "map_slides", lambda *_: empty)] * left_out["maps"]
    instead += [(_evaluate, "learning_curve", no_curve)] * left_out["curve"]
    instead += [(_evaluate, "_beyond", lambda _, __, added, *___: {"set": added.name})] * (
        left_out["beyond"]
    )
    with ExitStack() as stack:
        for module, name, other in instead:
            stack.enter_context(mock.patch.object(module, name, other))
        options = {"n_permutations": PERMUTATIONS, **options}
        return sagefm.tl.outcome(slides, table, target, model=model, **options)


def no_curve(*_, **__):
    table = pd.DataFrame(columns=["set", "n_patients"])
    table.attrs["needed"] = {"n_patients": np.nan}
    return table


def fraction(hits):
    """Write how many of several are, with the 95 % interval of the fraction."""
    hits = np.asarray(hits)[~pd.isna(hits)].astype(bool)
    test = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return f"{hits.mean():.1%} of {len(hits)} ({test.low:.1%} to {test.high:.1%})"


def null(pool, model, n_cohorts, n_maps):
    """Count how often p is at most 0.05 where there is no effect; goes on where it was stopped."""
    path = OUT / "outcomes_null.pkl"
    done = pickle.loads(path.read_bytes()) if path.exists() else []
    for number in range(len(done), n_cohorts):
        start = time.process_time()
        target, site = TARGETS[number % len(TARGETS)], ["site", None, None][number // 4 % 3]
        result = pool.predict(
            pool.draw(40, number, {}), target, model, seed=number, keys=["domain"],
            beyond=number < 40, kind="ordinal" if target == "grade" else None, site=site,
        )  # fmt: skip
        known = {"cohort": number, "kind": result.kind, "seconds": time.process_time() - start}
        warned = is_warned(result) if site else np.nan
        done.append((result.scores.assign(**known, warned=warned), result.features.assign(**known)))
        if number % 25 == 24 or number == n_cohorts - 1:
            path.write_bytes(pickle.dumps(done))
            print(number + 1, fraction([(one["p"] <= LEVEL).any() for one, _ in done]), flush=True)
    scores, features = (pd.concat(tables) for tables in zip(*done, strict=True))
    return lines_of_null(scores, features) + lines_of_maps(pool, model, n_maps)


def is_warned(result):
    return any("confounded by site" in line for line in result.warnings)


def lines_of_null(scores, features):
    of_cohorts = scores.groupby("cohort").first()
    lines = [
        f"{len(of_cohorts)} cohorts of 40 patients without effects, {PERMUTATIONS} permutations; "
        f"{of_cohorts['seconds'].mean():.1f} s of one CPU each, without embedding.",
        "", "| set of features | p ≤ 0.05 | concordance, mean |", "|---|---|---|",
    ]  # fmt: skip
    for name, own in scores.groupby("set", sort=False):
        lines.append(
            f"| {name} | {fraction(own['p'] <= LEVEL)} | {own['concordance'].mean():.3f} |"
        )
    for column in ("p_adjusted", "q"):
        least = scores.groupby("cohort")[column].min() <= LEVEL
        lines.append(f"| any set, {column} | {fraction(least)} | |")
    for kind, own in scores.groupby("kind"):
        least = own.groupby("cohort")["p_adjusted"].min() <= LEVEL
        lines.append(f"| any set, p_adjusted, {kind} | {fraction(least)} | |")
    if "beyond_p" in scores:
        for name, own in scores.groupby("set", sort=False):
            if own["beyond_p"].notna().any():
                lines.append(
                    f"| {name} beyond clinical | {fraction(own['beyond_p'].dropna() <= LEVEL)} | |"
                )
    lines.append(f"| warned of the site | {fraction(of_cohorts['warned'].dropna())} | |")
    lines.append(f"| each feature alone | {fraction(features['p'].dropna() <= LEVEL)} | |")
    least = features.groupby("cohort")["q"].min() <= LEVEL
    lines.append(f"| any feature alone, q | {fraction(least)} | |")
    return lines


def lines_of_maps(pool, model, n_maps):
    places = []
    for number in range(n_maps):
        cohort = pool.draw(40, 10_000 + number, {})
        result = pool.predict(
            cohort, TARGETS[number % 2], model, maps=True, keys=["domain"], seed=number
        )
        whole = result.domains[result.domains["slide"] == "all"]
        spots = (result.spots["p"] <= LEVEL).mean()
        places.append((spots, whole["p"].to_numpy(), whole["q"].min()))
    if not places:
        return []
    spots, domains, q = zip(*places, strict=True)
    return [
        "",
        f"Maps of {n_maps} cohorts: {np.mean(spots):.1%} of the spots have p ≤ 0.05 (between "
        f"cohorts: sd {np.std(spots):.1%}), of domains over all slides "
        f"{fraction(np.concatenate(domains) <= LEVEL)}, any domain by q "
        f"{fraction(np.array(q) <= LEVEL)}",
    ]


def power(pool, model, n_cohorts):
    """Count how often planted effects are found, and compare concordances with the truth's."""
    rng = np.random.default_rng(0)
    genes = np.array(next(iter(pool.cohort.slides.values())).var_names)
    programs = {f"other {i}": rng.choice(genes, len(pool.cohort.program)) for i in range(9)}
    programs |= {"planted": pool.cohort.program}
    gene_sets = {name: list(map(str, members)) for name, members in programs.items()}
    lines = [
        "| trait | effect | patients | oracle | made for it | found | pseudobulk | found | "
        "embedding mean | found | any set of slides | needed, of 5 |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    cells = [*product(["fraction"], (0.5, 1.0, 2.0), (20, 40, 80))]
    cells += product(["program", "interface"], [1.0], (20, 40, 80))
    for trait, effect, n in cells:
        tables, oracles, needed = [], [], []
        for number in range(n_cohorts):
            cohort = pool.draw(n, number, {trait: effect})
            result = pool.predict(
                cohort, SURVIVAL, model, keys=["sagefm_domain"], gene_sets=gene_sets,
                seed=number, curve=number < 5,
            )  # fmt: skip
            tables.append(result.scores.assign(cohort=number))
            oracles.append(cohort.oracle(SURVIVAL))
            if number < 5:
                needed.append(result.curve.attrs["needed"])
        table = pd.concat(tables)
        of_slides = table[~table["set"].isin(["clinical", "pseudobulk"])]
        words = [trait, f"{effect}", f"{n}", f"{np.mean(oracles):.2f}"]
        for name in (SEES[trait], "pseudobulk", MEAN):
            own = table[table["set"].str.startswith(name)]
            found = (own["p_adjusted"] <= LEVEL).mean()
            words += [f"{own['concordance'].mean():.2f}", f"{found:.0%}"]
        words.append(f"{(of_slides.groupby('cohort')['p_adjusted'].min() <= LEVEL).mean():.0%}")
        words.append(", ".join("?" if pd.isna(one) else f"{one:.0f}" for one in sorted(needed)))
        lines.append(f"| {' | '.join(words)} |")
        print(lines[-1], flush=True)
    return [
        f"{n_cohorts} cohorts in each row, time and event, 30 % censored, {PERMUTATIONS} "
        "permutations; found: p_adjusted ≤ 0.05, over all sets",
        "", *lines,
    ]  # fmt: skip


def confounded(pool, model, n_cohorts):
    """Count warnings where the site follows the outcome, and how often slides then seem to say."""
    lines = [
        "| confounding | effect of fraction | warned | p_adjusted ≤ 0.05 without the site | "
        "with the site | embedding mean within sites, p ≤ 0.05 | its concordance | within sites |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for strength, effect in product((0.0, 0.5, 0.95), (0.0, 1.5)):
        found = []
        for number in range(n_cohorts):
            cohort = pool.draw(40, number, {"fraction": effect}, strength)
            options = {"seed": number, "keys": ["domain"]}
            blind = pool.predict(cohort, "response", model, **options).scores
            result = pool.predict(cohort, "response", model, site="site", **options)
            of_slides = ~blind["set"].isin(["clinical"])
            checks = result.confounding
            within = checks[(checks["check"] == "within sites") & (checks["set"] == MEAN)].iloc[0]
            found.append(
                (
                    is_warned(result),
                    blind["p_adjusted"][of_slides].min() <= LEVEL,
                    result.scores["p_adjusted"][of_slides].min() <= LEVEL,
                    within["p"] <= LEVEL,
                    blind.set_index("set").loc[MEAN, "concordance"],
                    within["value"],
                )
            )
        means = np.nanmean(np.array(found, float), axis=0)
        cells = " | ".join(
            f"{mean:.0%}" if k < 4 else f"{mean:.2f}" for k, mean in enumerate(means)
        )
        lines.append(f"| {strength} | {effect} | {cells} |")
        print(lines[-1], flush=True)
    return [f"{n_cohorts} cohorts of 40 patients in each row, response", "", *lines]


def real(model, n_cohorts):
    """Predict outcomes by chance, and breast against other organs, from real slides."""
    table = pd.read_csv(SHARED / "slides.csv")
    paths = {name: SHARED / "slides" / f"{name}.h5ad" for name in table["slide"]}
    patients = dict(zip(table["slide"], table["patient"].astype(str), strict=True))
    source = SlideSource(paths, None, None, "patient", patients)
    summaries = summarize_slides(source, model, None, 0, lambda _: None)
    rows = table.groupby("patient").first().reset_index()
    rows["breast"] = np.where(rows["organ"].str.contains("breast", case=False), "breast", "other")
    rows["array"] = np.where(rows["technology"].str.contains("isium"), "Visium", "other array")
    lines = [str(rows.groupby(["breast", "array"]).size().to_dict()), ""]

    def one(target, own, **options):
        own = own[["patient", *dict.fromkeys([target, "array"])]]
        return predict(
            summaries, paths, own, target, model, NOTHING_ELSE, patients=patients, **options
        )

    positive = one("breast", rows, site="array", n_permutations=999)
    lines += [
        "```",
        str(positive),
        "",
        positive.confounding.round(3).to_string(index=False),
        "```",
        "",
    ]
    p = []
    for number in range(n_cohorts):
        made_up = np.random.default_rng(number).permutation(["yes", "no"] * (len(rows) // 2))
        result = one("made_up", rows.assign(made_up=made_up), seed=number)
        p.append(result.scores.set_index("set")[["p", "p_adjusted"]])
    every = pd.concat(p, keys=range(n_cohorts))
    for name, own in every["p"].groupby(level=1, sort=False):
        lines.append(f"- {name}: p ≤ 0.05 in {fraction(own <= LEVEL)}")
    lines.append(f"- any set: {fraction(every['p_adjusted'].groupby(level=0).min() <= LEVEL)}")
    her2st = table[table["slide"].str.startswith("her2st")]
    few = her2st.groupby("patient").first().reset_index()
    few["response"] = ["yes", "no"] * (len(few) // 2)
    try:
        sagefm.tl.outcome({name: paths[name] for name in her2st["slide"]}, few, "response")
    except sagefm.InputError as error:
        lines += ["", f"her2st alone: {error}"]
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["null", "power", "confounded", "real"])
    parser.add_argument("--cohorts", type=int)
    parser.add_argument("--maps", type=int, default=0)
    options = parser.parse_args()
    model = sagefm.SageFM.load("default")
    if options.what == "real":
        require_data()
        lines = real(model, options.cohorts or 20)
    else:
        logging.getLogger("sagefm").setLevel(logging.ERROR)
        pool = Pool.load(model)
        if options.what == "null":
            lines = null(pool, model, options.cohorts or 500, options.maps)
        elif options.what == "power":
            lines = power(pool, model, options.cohorts or 16)
        else:
            lines = confounded(pool, model, options.cohorts or 12)
    report(f"outcomes_{options.what}", lines)


if __name__ == "__main__":
    main()

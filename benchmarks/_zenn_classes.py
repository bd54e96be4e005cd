"""Classes: probabilities that depend on temperature, and solid, molten or surface structures of three elements.

`ZENNClassifier` beside plain cross-entropy with as many parameters, the same optimiser, committee and polishing. No
model sees a label of the rows that it is judged by.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.io import read
from density import print_row
from sklearn.decomposition import PCA

from quests_zenn._core.checks import DataWarning
from quests_zenn.descriptors import describe
from quests_zenn.uq.thresholds import find_copies, merge_copies
from quests_zenn.zenn.calibration import calibration_error
from quests_zenn.zenn.classifier import CrossEntropyClassifier, ZENNClassifier

Rows = list[dict[str, Any]]

# --- classes that depend on temperature -------------------------------------------------------------------------------

#: For each class, Gaussians in T as (height, centre, width); their sums, normalised, are its probability.
GAUSSIANS = (
    ((1.0, 1.0, 0.9), (0.5, 5.0, 1.0)),
    ((0.9, 2.8, 0.8), (0.3, 7.0, 1.2)),
    ((0.15, 1.5, 0.5), (0.8, 4.4, 0.9), (0.7, 6.6, 1.5)),
)

#: Temperatures of training, of predictions, and how many rows are trained on.
LOWEST, TRAINED, PREDICTED = 0.5, 6.1, 7.5
SIZES = (300, 3000)

#: Rows for accuracy and calibration in each range.
JUDGED = 20_000


def true_probabilities(T: np.ndarray) -> np.ndarray:
    """Probabilities (n, 3) of the classes at temperatures (n,)."""
    sums = [sum(a * np.exp(-0.5 * ((T - m) / s) ** 2) for a, m, s in parts) for parts in GAUSSIANS]
    weights = np.stack(sums, axis=1)
    return weights / weights.sum(axis=1, keepdims=True)


def draw(p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One class for each row of probabilities."""
    return (rng.random(len(p))[:, None] > np.cumsum(p, axis=1)[:, :-1]).sum(axis=1)


def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence of each row, nats."""
    terms = np.where(p > 0.0, p * (np.log(np.maximum(p, 1e-300)) - np.log(np.maximum(q, 1e-300))), 0.0)
    return terms.sum(axis=1)


def synthetic(seeds: Sequence[int], quick: bool) -> Rows:
    """Three classes with p_k(T) of Gaussians in T, trained up to one temperature and asked beyond it.

    Rows: for each method, number of training rows and range of T, means over seeds of the divergences from the true
    probabilities (nats), accuracy and calibration error on new draws, and standard deviations over seeds (`_sd`). The
    row `truth` has the probabilities themselves, `frequencies` those of classes in training at any T.
    """
    ranges = {"inside": (LOWEST, TRAINED), "beyond": (TRAINED, PREDICTED)}
    found: dict[tuple[str, int, str], Rows] = {}
    for n in SIZES[:1] if quick else SIZES:
        for seed in seeds:
            rng = np.random.default_rng([seed, n])
            T = rng.uniform(LOWEST, TRAINED, n)
            y = draw(true_probabilities(T), rng)
            flat = np.ones((n, 1))  # T alone tells the classes apart
            ours = ZENNClassifier(random_state=seed, **settings(quick)).fit(flat, y, T=T)
            rival = CrossEntropyClassifier(random_state=seed, **settings(quick)).fit(flat, y, T=T)
            share = np.bincount(y, minlength=3) / n
            methods: dict[str, Callable[[np.ndarray], np.ndarray]] = {
                "truth": true_probabilities,
                "frequencies": lambda at, share=share: np.tile(share, (len(at), 1)),
                "ZENN": lambda at, model=ours: quietly(model, np.ones((len(at), 1)), T=at),
                "cross-entropy": lambda at, model=rival: quietly(model, np.ones((len(at), 1)), T=at),
            }
            size = {"ZENN": ours.n_parameters_, "cross-entropy": rival.n_parameters_}
            for where, (low, high) in ranges.items():
                grid = np.linspace(low, high, 201)[1:]
                asked = rng.uniform(low, high, JUDGED)
                truth = draw(true_probabilities(asked), rng)
                p = true_probabilities(grid)
                for method, probabilities in methods.items():
                    q, judged = probabilities(grid), probabilities(asked)
                    middle = 0.5 * (p + q)
                    row = {
                        "kl": float(divergence(p, q).mean()),
                        "js": float(0.5 * (divergence(p, middle) + divergence(q, middle)).mean()),
                        "largest": float(np.abs(p - q).max()),
                        **scores(truth, judged),
                        "n_parameters": size.get(method, 0),
                    }
                    found.setdefault((method, n, where), []).append(row)
    return [
        told({"task": "synthetic", "method": method, "n": n, "range": where, **summary(rows)})
        for (method, n, where), rows in found.items()
    ]


def settings(quick: bool) -> dict[str, Any]:
    """Arguments of both kinds of model."""
    return {"n_members": 2, "adam_steps": 100, "polish_steps": 30} if quick else {}


def quietly(model: Any, x: np.ndarray, **given: Any) -> np.ndarray:
    """Probabilities, also where the model says that it extrapolates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        probabilities: np.ndarray = model.predict_proba(x, **given)
    return probabilities


def scores(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """Of true classes (n,), by number, and probabilities (n, K)."""
    seen = np.maximum(p[np.arange(len(y)), y], 1e-15)
    return {
        "accuracy": float(np.mean(p.argmax(axis=1) == y)),
        "log_loss": float(-np.log(seen).mean()),
        "ece": calibration_error(y, p),
    }


def summary(rows: Rows) -> dict[str, Any]:
    """Means over seeds, and standard deviations."""
    found: dict[str, Any] = {"seeds": len(rows)}
    for name in rows[0]:
        values = np.array([row[name] for row in rows], dtype=np.float64)
        found[name] = float(values.mean())
        if name != "n_parameters":
            found[f"{name}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return found


def told(row: dict[str, Any]) -> dict[str, Any]:
    """The row, printed."""
    print_row({key: value for key, value in row.items() if not key.endswith("_sd")})
    return row


# --- solid, molten, surface -------------------------------------------------------------------------------------------

ELEMENTS = ("Si", "Ge", "Mo")
CLASSES = ("molten", "solid", "surface")

#: Temperatures of melting, K (CRC Handbook of Chemistry and Physics).
MELTING = {"Si": 1687.0, "Ge": 1211.4, "Mo": 2896.0}

#: A trajectory is molten if its mean energy per atom lies this much (eV) above the lowest one in bulk and 3/2 k_B T,
#: which is what a harmonic crystal has. Crystals are at 0.09 or below, melts at 0.22 or above. The highest peaks of the
#: structure factor agree (amplitude per atom: 0.80 or more in crystals, 0.46 or less in melts). The temperature does
#: not: germanium at 1089 K, below melting, is molten; molybdenum at 3000 K, above it, is a crystal.
LATENT = 0.15

#: Time blocks of each trajectory, numbers of principal components, share of rows for tests.
BLOCKS, COMPONENTS, TESTED = 5, 8, 0.3

#: Kinds of splits and of labels; the first are the main ones.
SPLITS = ("mode", "strain")
LABELS = ("state", "temperature", "noisy")

#: In the runs with noise, labels of this element are replaced at random with this rate.
NOISY, NOISE = "Ge", 0.3


@dataclass(frozen=True)
class Structures:
    """Structures with a state that is known.

    x: mean environments (n, 63), 1/Å. y: states by number, from energies. by_temperature: the same by the temperature
    of the simulation. source: elements. strata: what a split keeps the shares of. groups: for each kind of split, time
    blocks of trajectories, each surface on its own, and of strained crystals either all of one mode (the test has modes
    of strain that training has not) or each strain on its own; copies by symmetry are merged, so that modes that are
    copies of each other are one.
    """

    x: np.ndarray
    y: np.ndarray
    by_temperature: np.ndarray
    source: np.ndarray
    strata: np.ndarray
    groups: dict[str, np.ndarray]

    @classmethod
    def load(cls, data: Path) -> Structures | None:
        """Structures of mlearn but those with a vacancy; None where the files are not at hand.

        Elastic ones are solid. States of Vacancy ones are unknown, since their temperatures are not to be trusted. Of
        copies by symmetry (three or six of most strains) the first is kept, so that each structure counts once.
        """
        frames: list[Atoms] = []
        for element in ELEMENTS:
            for part in ("train", "test"):
                path = data / f"mlearn_{element}_{part}.xyz"
                if not path.exists():
                    print(f"{path.name} is not in QUESTS_ZENN_DATA: what needs it is left out")
                    return None
                frames += [a for a in read(path, ":") if a.info["config_type"] != "Vacancy"]
        source = np.array([str(atoms.symbols[0]) for atoms in frames])
        kind = np.array([str(atoms.info["config_type"]) for atoms in frames])
        energy = np.array([atoms.get_potential_energy() / len(atoms) for atoms in frames])
        kelvin = np.array([float(atoms.info.get("temperature_K") or np.nan) for atoms in frames])
        y = np.where(kind == "Surface", 2, 1)
        by_temperature = y.copy()
        numbers = np.array([snapshot(atoms) for atoms in frames])
        names = np.array([f"{a} {b} {c:g}" for a, b, c in zip(source, kind, kelvin, strict=True)])
        single = [f"{name} {i}" for i, name in enumerate(names)]
        for element in ELEMENTS:
            mine = source == element
            lowest = energy[mine & (kind != "Surface")].min()
            for temperature in np.unique(kelvin[mine & np.isfinite(kelvin)]):
                rows = np.flatnonzero(mine & (kelvin == temperature))
                excess = energy[rows].mean() - lowest - 1.5 * units.kB * temperature
                y[rows] = 0 if excess > LATENT else 1
                by_temperature[rows] = 0 if temperature > MELTING[element] else 1
                for block, part in enumerate(np.array_split(rows[np.argsort(numbers[rows])], BLOCKS)):
                    for row in part:
                        single[row] = f"{names[row]} block {block}"
        keys = {"mode": single.copy(), "strain": single}
        for row in np.flatnonzero(kind == "Elastic"):
            mode = re.search(r"mode (\d)", str(frames[row].info["description"]))
            keys["mode"][row] = f"{names[row]} mode {mode.group(1) if mode else 'none'}"
        env = describe(frames, k=32, cutoff=5.0)
        first = find_copies(env.x, env.numbers, env.frame_offsets)
        once = first == np.arange(len(first))
        groups = {}
        for how, names_of in keys.items():
            codes = np.unique(names_of, return_inverse=True)[1].astype(np.int64)
            groups[how] = merge_copies(codes, first)[once]
        x = np.add.reduceat(env.x, env.frame_offsets[:-1], axis=0) / np.diff(env.frame_offsets)[:, None]
        print(f"mlearn: {np.count_nonzero(once)} structures, {np.count_nonzero(~once)} copies left out")
        return cls(x[once], y[once], by_temperature[once], source[once], names[once], groups)


def snapshot(atoms: Atoms) -> int:
    """Number of the snapshot in its trajectory."""
    found = re.match(r"Snapshot (\d+) of", str(atoms.info["description"]))
    return int(found.group(1)) if found else 0


def split(groups: np.ndarray, strata: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Which rows are for the test: whole groups, of each stratum about the same share; one group of each stays."""
    held = np.zeros(len(groups), dtype=bool)
    for name in np.unique(strata):
        mine = strata == name
        order = rng.permutation(np.unique(groups[mine]))
        for group in order[:-1]:
            if np.count_nonzero(held & mine) >= TESTED * np.count_nonzero(mine):
                break
            held[groups == group] = True
    return held


def mlearn(data: Path, seeds: Sequence[int], quick: bool) -> Rows:
    """Solid, molten or surface, from the mean environment of a structure; sources are the elements.

    Rows: for each method, kind of labels and kind of split (see `Structures`), means over seeds (each with a split, a
    noise and a committee of its own) of accuracy, log loss (nats) and calibration error, with standard deviations
    (`_sd`). `labels` is `state` (from energies), `temperature` (whether the simulation was hotter than melting, which
    is wrong for two trajectories), or `noisy`: states, of which those of one element are replaced at random with a rate
    of 0.3, in training and in the test. `accuracy_state` is against the states in any case. `knows` says what a method
    is told of the source when it predicts. `gain` is the log loss of plain cross-entropy that knows as much, on the
    same split, less that of the method. `T_Si` and so on are the learned temperatures of sources, medians of members.
    """
    everything = Structures.load(data)
    if everything is None:
        return []
    differ = int(np.count_nonzero(everything.y != everything.by_temperature))
    print(f"mlearn: {differ} states differ from what the temperature says")
    found: dict[tuple[str, str, str, str], Rows] = {}
    for how in SPLITS[:1] if quick else SPLITS:
        for labels in LABELS[:1] if quick else LABELS:
            for seed in seeds:
                for (method, knows), row in one_split(everything, how, labels, seed, quick).items():
                    found.setdefault((how, labels, method, knows), []).append(row)
    return [
        told({"task": "mlearn", "split": how, "labels": labels, "method": method, "knows": knows, **summary(rows)})
        for (how, labels, method, knows), rows in found.items()
    ]


def one_split(s: Structures, how: str, labels: str, seed: int, quick: bool) -> dict[tuple[str, str], dict[str, Any]]:
    """Scores of all methods on one split."""
    rng = np.random.default_rng(seed)
    groups = s.groups[how]
    held = split(groups, s.strata, rng)
    assert not set(groups[held]) & set(groups[~held])
    y = s.by_temperature if labels == "temperature" else s.y.copy()
    if labels == "noisy":
        wrong = (s.source == NOISY) & (rng.random(len(y)) < NOISE)
        y[wrong] = (y[wrong] + rng.integers(1, 3, np.count_nonzero(wrong))) % 3
    pca = PCA(n_components=COMPONENTS, random_state=0).fit(s.x[~held])  # the training rows alone
    x, asked = pca.transform(s.x[~held]), pca.transform(s.x[held])
    one_hot = np.eye(len(ELEMENTS))[[ELEMENTS.index(e) for e in s.source]]
    given = {"random_state": seed, **settings(quick)}
    train: dict[str, Any] = {"groups": groups[~held]}

    hidden = ZENNClassifier(**given).fit(x, y[~held], **train)
    single = ZENNClassifier(n_temperatures=0, **given).fit(x, y[~held], **train)
    sources = ZENNClassifier(**given).fit(x, y[~held], source=s.source[~held], **train)
    wide, wide_asked = np.hstack([x, one_hot[~held]]), np.hstack([asked, one_hot[held]])
    plain = CrossEntropyClassifier(n_parameters=hidden.n_parameters_, **given).fit(x, y[~held], **train)
    aware = ZENNClassifier(**given).fit(wide, y[~held], **train)
    told_source = CrossEntropyClassifier(n_parameters=aware.n_parameters_, **given).fit(wide, y[~held], **train)
    share = np.bincount(y[~held], minlength=len(CLASSES)) / np.count_nonzero(~held)
    answers: dict[tuple[str, str], tuple[Any, np.ndarray]] = {
        ("frequencies", "nothing"): (None, np.tile(share, (len(asked), 1))),
        ("ZENN, one temperature", "nothing"): (single, single.predict_proba(asked)),
        ("ZENN, hidden temperatures", "nothing"): (hidden, hidden.predict_proba(asked)),
        ("ZENN, sources", "nothing"): (sources, sources.predict_proba(asked)),
        ("cross-entropy", "nothing"): (plain, plain.predict_proba(asked)),
        ("ZENN, sources", "source"): (sources, sources.predict_proba(asked, source=s.source[held])),
        ("ZENN, hidden temperatures, source as input", "source"): (aware, aware.predict_proba(wide_asked)),
        ("cross-entropy, source as input", "source"): (told_source, told_source.predict_proba(wide_asked)),
    }
    rows = {}
    for key, (model, p) in answers.items():
        row = scores(y[held], p) | {"n_parameters": model.n_parameters_ if model is not None else 0}
        row["accuracy_state"] = float(np.mean(p.argmax(axis=1) == s.y[held]))
        if model is sources:
            names = sources.sources_.tolist()
            row |= {f"T_{name}": float(np.median(sources.temperatures_[:, i])) for i, name in enumerate(names)}
        rows[key] = row
    rivals = {"nothing": "cross-entropy", "source": "cross-entropy, source as input"}
    for (_, knows), row in rows.items():
        row["gain"] = rows[rivals[knows], knows]["log_loss"] - row["log_loss"]
    return rows

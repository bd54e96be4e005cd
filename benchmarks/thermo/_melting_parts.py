"""The parts of the benchmark of melting: ramps, two phases, first nucleus, first liquid."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _melting_orders import Neighbours, auroc, bond_order, change_point
from _melting_runs import Frames, Hold, Ramp, TwoPhase, trajectory

from quests_zenn.descriptors import describe
from quests_zenn.entropy import delta_entropy, entropy

FloatArray = npt.NDArray[np.float64]
Row = dict[str, Any]

K, CUTOFF = 32, 5.0

#: Bandwidth, 1/Å, of all that is not said to be something else; and those that are tried.
H = 0.03
TRIED = (0.015, 0.03, 0.06)

#: An atom is crystalline by bonds if more than half of its 12 are.
SOLID_BONDS = 7

#: Environments of a reference, at most.
MOST = 8000

HEATING = Ramp(7, 1200.0, 1800.0, 2.0, 1.5)
COOLING = Ramp(7, 1400.0, 500.0, 2.0, 1.8)

#: Pressure in GPa: guess of the melting temperature, and seeds.
COEXISTING = {0.0: (1325.0, (1, 2, 3)), 2.0: (1400.0, (1,)), 5.0: (1510.0, (1,)), 10.0: (1680.0, (1,))}

#: Of a two-phase run, ps: until it has settled, and of a block.
SETTLED, BLOCK = 30.0, 10.0

#: Middles of the two halves, in shares of the height of the cell.
MIDDLES = (0.15, 0.35), (0.65, 0.85)

UNDERCOOLED = Hold(10, "liquid", 770.0, 150.0, 0.9)
CRYSTAL = Hold(7, "crystal", 770.0, 10.8, 0.9)
SUPERHEATED = Hold(8, "crystal", 1610.0, 100.0, 0.9)
LIQUID = Hold(7, "liquid", 1610.0, 10.8, 0.9)


def environments(frames: Frames, chosen: Any = slice(None)) -> npt.NDArray[np.float64]:
    """Environments (frames, atoms, 63)."""
    found = describe(frames.tuples(chosen), K, CUTOFF, jobs=1).x
    return np.asarray(found, float).reshape(-1, frames.positions.shape[1], found.shape[1])


def drawn(x: FloatArray, most: int = MOST, seed: int = 0) -> FloatArray:
    """Environments as rows, as many as a reference has."""
    rows = x.reshape(-1, x.shape[-1])
    if len(rows) <= most:
        return rows
    return rows[np.random.default_rng(seed).permutation(len(rows))[:most]]


def rounded(values: Any, digits: int = 4) -> list[float]:
    """For the file."""
    return [round(float(v), digits) for v in values]


# --- heating and cooling ----------------------------------------------------------------------------------------------


def ramps(cache: Path) -> Row:
    """H, energy, volume and bond order of every frame, and where each of them jumps."""
    found: Row = {"h": H}
    for name, run in (("heating", HEATING), ("cooling", COOLING)):
        frames = trajectory(run, cache)
        assert frames is not None
        x = environments(frames)
        series: dict[str, FloatArray] = {
            f"H, h = {h:g}": np.array([float(entropy(rows, h, jobs=1)) for rows in x]) for h in TRIED
        }
        first = drawn(x[5:15])
        series["dH given frames 5 to 15"] = np.array(
            [float(delta_entropy(rows, first, H, jobs=1).mean()) for rows in x]
        )
        orders = [bond_order(p, box) for p, box in zip(frames.positions, frames.lengths, strict=True)]
        series["energy"], series["volume"] = frames.near("energy"), frames.near("volume")
        series["bond order"] = np.array([float(order.mean()) for order, _ in orders])
        series["crystalline atoms"] = np.array([float((bonds >= SOLID_BONDS).mean()) for _, bonds in orders])
        found[name] = {
            "atoms": frames.positions.shape[1],
            "rate": run.rate,
            "frames": len(frames),
            "temperature": rounded(frames.target, 2),
            "series": {key: rounded(values, 5) for key, values in series.items()},
            "changes": {key: change_point(frames.target, values).row() for key, values in series.items()},
        }
    return found


def hysteresis(changes: Row, key: str) -> tuple[float, float]:
    """T+ + T- - sqrt(T+ T-), and its error from those of T+ and T-.

    Luo, Ahrens, Cagin, Strachan, Goddard, Swift, Phys. Rev. B 68, 134206 (2003).
    """
    up, down = changes["heating"]["changes"][key], changes["cooling"]["changes"][key]
    high, low = up["at"], down["at"]
    slope = 1.0 - 0.5 * math.sqrt(low / high), 1.0 - 0.5 * math.sqrt(high / low)
    return high + low - math.sqrt(high * low), math.hypot(slope[0] * up["error"], slope[1] * down["error"])


# --- two phases -------------------------------------------------------------------------------------------------------


def two_phase_run(pressure: float, guess: float, seed: int, cache: Path) -> Row:
    """Temperature of one run, and the share of crystal in it by dH and by bond order."""
    frames = trajectory(TwoPhase((5, 5, 20), pressure, guess, 90.0, 3.0, seed), cache)
    assert frames is not None
    t, temperature = frames.scalars["time"], frames.scalars["temperature"]
    kept = t > SETTLED
    blocks = [temperature[kept & (t > a) & (t <= a + BLOCK)].mean() for a in np.arange(SETTLED, t[-1] - 1e-6, BLOCK)]
    half = len(blocks) // 2
    trend = 0.5 * abs(float(np.mean(blocks[half:]) - np.mean(blocks[:half])))
    scatter = float(np.std(blocks, ddof=1) / math.sqrt(len(blocks)))
    x = environments(frames)
    height = frames.positions[:, :, 2] / frames.lengths[:, None, 2]
    orders = np.array([bond_order(p, box)[0] for p, box in zip(frames.positions, frames.lengths, strict=True)])
    # the lower half was kept, the upper molten: the middle of each half at the beginning is bulk
    early = slice(0, 6)
    bulk = [(height[early] > low) & (height[early] < high) for low, high in MIDDLES]
    crystal, liquid = (drawn(x[early][mask], 4000) for mask in bulk)
    ratios = np.empty(orders.shape)
    for i in range(len(frames)):
        near = Neighbours(frames.positions[i], frames.lengths[i])
        ratios[i] = near.mean(delta_entropy(x[i], liquid, H, jobs=1) - delta_entropy(x[i], crystal, H, jobs=1))
    late = frames.time > SETTLED

    def crystalline(values: FloatArray) -> npt.NDArray[np.bool_]:
        """Above the middle between the medians of both bulks, in frames after those of the references."""
        height_now = height[6:10]
        middles = [(height_now > low) & (height_now < high) for low, high in MIDDLES]
        return np.asarray(values > 0.5 * sum(float(np.median(values[6:10][mask])) for mask in middles))

    by_dh, by_order = crystalline(ratios), crystalline(orders)
    both = np.column_stack((by_dh.mean(1), by_order.mean(1)))
    return {
        "seed": seed,
        "atoms": frames.positions.shape[1],
        "temperature": float(np.mean(blocks)),
        "temperature_error": math.hypot(scatter, trend),
        "drift": float(np.polyfit(t[kept], temperature[kept], 1)[0]),
        "pressure_measured": float(frames.scalars["pressure"][kept].mean()),
        "share_dh": rounded(both[:, 0]),
        "share_order": rounded(both[:, 1]),
        "agreement": float(np.mean(np.abs(both[late, 0] - both[late, 1]))),
        "same": float((by_dh == by_order)[late].mean()),
        "auroc": float(np.mean([auroc(a, b) for a, b in zip(ratios[late], by_order[late], strict=True)])),
    }


def two_phase(cache: Path) -> list[Row]:
    """Melting temperatures: one row for each pressure. A single run is not trusted more than runs agree elsewhere."""
    rows: list[Row] = []
    for pressure, (guess, seeds) in COEXISTING.items():
        runs = [two_phase_run(pressure, guess, seed, cache) for seed in seeds]
        values = np.array([run["temperature"] for run in runs])
        within = math.sqrt(sum(run["temperature_error"] ** 2 for run in runs)) / len(runs)
        spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        rows.append(
            {
                "pressure": pressure,
                "temperature": float(values.mean()),
                "temperature_error": max(within, spread / math.sqrt(len(values))),
                "spread": spread,
                "runs": runs,
            }
        )
    widest = max(row["spread"] for row in rows)
    for row in rows:
        row["temperature_error"] = max(row["temperature_error"], widest / math.sqrt(len(row["runs"])))
        print(f"{row['pressure']:g} GPa: {row['temperature']:.1f} ± {row['temperature_error']:.1f} K", flush=True)
    return rows


# --- the first nucleus ------------------------------------------------------------------------------------------------

#: Frames of the phase before: reference, and those that set thresholds.
BEFORE, TRUSTED = slice(4, 12), slice(12, 20)

#: Share of atoms of the phase before that may be flagged.
ALARMS = 0.01

#: Sizes of the largest cluster, by bond order, between which atoms are compared.
STAGES = ((15, 50), (50, 200), (200, 1000), (1000, 4001))


def transition(old: Hold, new: Hold, cache: Path) -> Row:
    """What sees the new phase in the old one, and when.

    Scores, larger where an atom belongs to the new phase:

    - ``dH given old``: dH given frames of the same phase some time earlier; knows nothing of the new one;
    - ``-dH given new``: minus dH given a bulk of the new phase at the same temperature;
    - ``difference``: dH given old minus dH given new;
    - ``more common``: dH given old minus dH given the frame itself (without the atom): which environments have become
      more common than they were; knows nothing of the new phase either;
    - ``crystalline bonds``: how many of the 12, or of those that are not.

    Labels are those of averaged bond order (``bond order``): beyond the middle between the medians of both phases. Each
    score of dH also as a mean over an atom and its neighbours, and as the mean of that (``twice``): averaged bond
    order, a mean over neighbours of what 12 neighbours make, sees as far.
    """
    frames, bulk = trajectory(old, cache), trajectory(new, cache)
    assert frames is not None
    assert bulk is not None
    x = environments(frames)
    reference, crystal = drawn(x[BEFORE]), drawn(environments(bulk, slice(2, None)))
    sign = 1.0 if old.phase == "liquid" else -1.0
    n, atoms = len(frames), frames.positions.shape[1]
    scores: dict[str, FloatArray] = {}

    def keep(name: str, i: int, values: FloatArray) -> None:
        scores.setdefault(name, np.full((n, atoms), np.nan))[i] = values

    near = [Neighbours(p, box) for p, box in zip(frames.positions, frames.lengths, strict=True)]
    orders = [bond_order(p, box) for p, box in zip(frames.positions, frames.lengths, strict=True)]
    other = [bond_order(p, box)[0] for p, box in zip(bulk.positions[2:], bulk.lengths[2:], strict=True)]
    before = [order for order, _ in orders[TRUSTED]]
    middle = 0.5 * (float(np.median(before)) + float(np.median(other)))
    label = np.zeros((n, atoms), bool)
    for i in range(TRUSTED.start, n):
        order, bonds = orders[i]
        label[i] = sign * order > sign * middle
        one, two = delta_entropy(x[i], reference, H, jobs=1), delta_entropy(x[i], crystal, H, jobs=1)
        others = np.exp(-delta_entropy(x[i], x[i], H, jobs=1)) - 1.0
        own = np.log(np.maximum(others, 1e-6) / (atoms - 1)) + math.log(len(reference))
        plain = {"dH given old": one, "-dH given new": -two, "difference": one - two, "more common": one + own}
        for name, values in plain.items():
            once = near[i].mean(values)
            keep(name, i, values)
            keep(f"{name}, neighbours", i, once)
            keep(f"{name}, twice", i, near[i].mean(once))
        keep("crystalline bonds", i, sign * bonds)
        keep("bond order", i, sign * order)
    limits = {name: float(np.quantile(values[TRUSTED], 1.0 - ALARMS)) for name, values in scores.items()}
    limits["bond order"] = sign * middle
    rows = range(TRUSTED.start, n)
    largest = {name: [near[i].largest(values[i] > limits[name]) for i in rows] for name, values in scores.items()}
    truth = np.array(largest["bond order"])
    found: Row = {
        "temperature": old.temperature,
        "atoms": atoms,
        "phase": old.phase,
        "time": rounded(frames.time[TRUSTED.start :], 3),
        "largest": largest,
        "limits": limits,
        "share": {name: rounded((values[rows] > limits[name]).mean(1)) for name, values in scores.items()},
        "energy": rounded(frames.near("energy")[TRUSTED.start :], 5),
        "rows": [],
    }
    settled = TRUSTED.stop - TRUSTED.start
    for name, values in scores.items():
        sizes = np.array(largest[name])
        # for good: from some frame on, the largest cluster is twice the largest that the phase before ever had
        calm = 2 * max(int(sizes[:settled].max()), 10)
        over = np.flatnonzero(sizes <= calm)
        since = int(over[-1]) + 1 if len(over) else 0
        row: Row = {
            "score": name,
            "seen": float(frames.time[TRUSTED.start + since]) if since < len(sizes) else None,
            "calm": calm,
            "stages": [],
        }
        for low, high in STAGES:
            chosen = [i for i, size in zip(rows, truth, strict=True) if low <= size < high]
            if chosen:
                labels, got = label[chosen].ravel(), values[chosen].ravel()
                flagged = got > limits[name]
                row["stages"].append(
                    {
                        "from": low,
                        "to": high,
                        "frames": len(chosen),
                        "auroc": auroc(got, labels),
                        "agreement": float((flagged == labels).mean()),
                        "recall": float(flagged[labels].mean()),
                        "false": float(flagged[~labels].mean()),
                        "largest": float(np.mean([sizes[i - TRUSTED.start] for i in chosen])),
                        "largest_label": float(np.mean(truth[[i - TRUSTED.start for i in chosen]])),
                    }
                )
        found["rows"].append(row)
    found["picture"] = picture(frames, scores, label, truth)
    return found


#: Largest cluster of the frame that is drawn, by bond order: at least this many atoms.
DRAWN = 250


def picture(
    frames: Frames, scores: dict[str, FloatArray], label: npt.NDArray[np.bool_], truth: npt.NDArray[np.int64]
) -> Row:
    """A slab through the nucleus, about 10 Å thick, with the nucleus in its middle."""
    bigger = np.flatnonzero(truth >= DRAWN)
    i = TRUSTED.start + int(bigger[0] if len(bigger) else np.argmax(truth))
    x, lengths = frames.positions[i].astype(float), frames.lengths[i]
    chosen = Neighbours(x, lengths).clusters(label[i]) == 0
    angle = 2 * np.pi * x[chosen] / lengths
    centre = np.arctan2(np.sin(angle).mean(0), np.cos(angle).mean(0)) / (2 * np.pi) * lengths
    x = (x - centre + lengths / 2) % lengths
    slab = np.abs(x[:, 2] - lengths[2] / 2) < 5.0
    names = ("difference, twice", "more common, twice", "bond order")
    return {
        "time": float(frames.time[i]),
        "size": int(chosen.sum()),
        "lengths": rounded(lengths, 3),
        "positions": [rounded(row, 2) for row in x[slab]],
        "values": {name: rounded(scores[name][i][slab], 3) for name in names},
        "label": label[i][slab].tolist(),
    }

#!/usr/bin/env python
"""Chemical potentials of a made-up alloy, for ``wells.toml``: a program that answers points by tables.

Per site, with the composition c and an order parameter s,

    g(c, s) = 0.4 (c^2 - 0.36)^2 + 0.3 (s^2 - (0.5 - c) / 2)^2          eV

has a disordered well at c = 0.6, s = 0 and two ordered ones at c = -0.6, s = +-0.74. The program reads a table with the
columns id, T, c, s and seed, and writes one with id and mu_c = dg/dc, mu_s = dg/ds, with random errors of 2 meV as a
Monte Carlo run would have them.

    python wells_oracle.py points.csv results.csv
"""

import csv
import random
import sys


def main() -> int:
    source, target = sys.argv[1:]
    with open(source, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    with open(target, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "mu_c", "mu_s"])
        for row in rows:
            c, s = float(row["c"]), float(row["s"])
            noise = random.Random(int(row["seed"]))
            inner = s * s - (0.5 - c) / 2
            mu_c = 1.6 * c * (c * c - 0.36) + 0.3 * inner + noise.gauss(0.0, 0.002)
            mu_s = 1.2 * s * inner + noise.gauss(0.0, 0.002)
            writer.writerow([row["id"], repr(mu_c), repr(mu_s)])
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Random walks in a polytope {y: G y <= h}, one chain per call. All random numbers are arguments.

G has m rows of length 1 and comes transposed (d, m), so that inner loops run over planes and need no sums across a
vector; h (m,). Both walks leave the uniform distribution as it is:

- hit-and-run: along a random direction, to a uniform point of the chord (R. L. Smith, Oper. Res. 32 (1984) 1296);
- billiard: a flight of random length along a random direction, reflected by the planes (Gryazina and Polyak, Eur. J.
  Oper. Res. 238 (2014) 497). A flight of too many reflections is not made, and its start counts once more: the way
  back has as many, so that the balance is kept.
"""

from __future__ import annotations

from quests_zenn._core.jit import strict_kernel

#: Stands for no limit.
FAR = 1.0e300


@strict_kernel
def slopes(Gt, v, out):  # type: ignore[no-untyped-def]
    """out (m,) = G v, always summed in the same order."""
    for i in range(len(out)):
        out[i] = 0.0
    for c in range(len(v)):
        for i in range(len(out)):
            out[i] += Gt[c, i] * v[c]


@strict_kernel
def gaps(Gt, h, y, out):  # type: ignore[no-untyped-def]
    """out (m,) = h - G y, but at least 0: a point on a plane may seem to be behind it by rounding."""
    slopes(Gt, y, out)
    for i in range(len(out)):
        out[i] = max(h[i] - out[i], 0.0)


@strict_kernel
def hit_and_run(Gt, h, y, directions, fractions, every, out, work):  # type: ignore[no-untyped-def]
    """Steps from y (d,), which ends as the last point. Each `every` steps a point enters the next row of out.

    directions (n, d), of any length but zero; fractions (n,) of the chord, in [0, 1); work (2 m,) is room to write in.
    """
    d, m = Gt.shape
    gap, speed = work[:m], work[m:]
    gaps(Gt, h, y, gap)
    for step in range(len(fractions)):
        slopes(Gt, directions[step], speed)
        low, high = -FAR, FAR
        for i in range(m):
            if speed[i] > 0.0:
                high = min(high, gap[i] / speed[i])
            elif speed[i] < 0.0:
                low = max(low, gap[i] / speed[i])
        if high < FAR and low > -FAR:
            move = low + fractions[step] * (high - low)
            for c in range(d):
                y[c] += move * directions[step, c]
            for i in range(m):
                gap[i] = max(gap[i] - move * speed[i], 0.0)
        if (step + 1) % every == 0:
            gaps(Gt, h, y, gap)  # without what rounding has added up to
            for c in range(d):
                out[(step + 1) // every - 1, c] = y[c]


@strict_kernel
def billiard(Gt, products, h, y, directions, lengths, most, every, out, work):  # type: ignore[no-untyped-def]
    """Flights from y (d,), which ends as the last point. Each `every` flights a point enters the next row of out.

    products (m, m) is G G^T; directions (n, d) of length 1, which are written over; lengths (n,) of the flights; most:
    the number of reflections that are too many; work (2 m + d,) is room to write in.
    """
    d, m = Gt.shape
    gap, speed, here = work[:m], work[m : 2 * m], work[2 * m :]
    for step in range(len(lengths)):
        velocity = directions[step]
        gaps(Gt, h, y, gap)
        slopes(Gt, velocity, speed)
        for c in range(d):
            here[c] = y[c]
        left = lengths[step]
        arrived = False
        for _ in range(most):
            first, wall = left, -1
            for i in range(m):
                if speed[i] > 0.0 and gap[i] < first * speed[i]:
                    first, wall = gap[i] / speed[i], i
            for c in range(d):
                here[c] += first * velocity[c]
            if wall < 0:
                arrived = True
                break
            left -= first
            turn = 2.0 * speed[wall]
            for i in range(m):
                gap[i] = max(gap[i] - first * speed[i], 0.0)
                speed[i] -= turn * products[wall, i]
            gap[wall] = 0.0
            for c in range(d):
                velocity[c] -= turn * Gt[c, wall]
        if arrived:
            for c in range(d):
                y[c] = here[c]
        if (step + 1) % every == 0:
            for c in range(d):
                out[(step + 1) // every - 1, c] = y[c]

"""A surrogate model of small categorical spaces: arrays of choices and costs in, predictions out.

Settings are rows of whole numbers, the place of each dimension's choice. Costs are logarithms, so effects multiply. The
model is a Gaussian process whose covariance is a sum of main effects and of pairwise interactions (Durrande et al.,
ANOVA kernels and RKHS of zero mean functions, Journal of Multivariate Analysis 115, 2013), with Hamming agreement in
each dimension: knobs act alone or in pairs, many do nothing, and the order of their choices means nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Codes: TypeAlias = NDArray[np.int64]

# Priors of the logarithms of variances, (centre, standard deviation). One knob moves the cost by 5 %, by 0.7 or 40 % at
# two deviations; one pair by 2 %, processes of the same settings differ by 2 %. Data soon overrule them.
_MAIN = (math.log(0.05**2), 2.0)
_PAIR = (math.log(0.02**2), 1.5)
_NOISE = (math.log(0.02**2), 2.0)
_LEVEL = 1.0
_BOUNDS = (-16.0, 2.0)
_STEPS = 40
_STEPS_ON = 10  # from an earlier fit: the next ask goes on from there
_TOLERANCE = 1e-4
_LEAST_VARIANCE = 1e-12
_FAR = 0.2
# How much less likely it is that a pair of choices makes settings fail than that one choice does, or all of them only
# together; and how much likelier a cause of two failures is than a cause of one.
_BLAME_PAIR = 0.03
_BLAME_ALL = 0.03
_BLAME_AGAIN = 100.0


@dataclass(frozen=True, slots=True)
class Surrogate:
    """The process given log `costs` of the settings in `codes`, whose mean is `level`.

    `hyper` holds log variances: of each dimension's main effect, of each pair, of the noise. `factor` is the Cholesky
    factor of the costs' covariance, `weights` its inverse times the costs less `level`.
    """

    sizes: Codes
    codes: Codes
    costs: Floats
    level: float
    hyper: Floats
    factor: Floats
    weights: Floats

    def predict(self, codes: Codes) -> tuple[Floats, Floats]:
        """Return mean and variance of the true log cost of each row of `codes`."""
        from scipy.linalg import solve_triangular  # noqa: PLC0415 - takes 0.8 s

        cross = _covariance(self.hyper, self.codes, codes, self.sizes)
        spread = solve_triangular(self.factor, cross, lower=True, check_finite=False)
        dimensions = len(self.sizes)
        own = _LEVEL + np.exp(self.hyper[:-2]).sum() + math.exp(self.hyper[-2]) * dimensions * (dimensions - 1) / 2
        variance = own - np.einsum("ij,ij->j", spread, spread)
        return self.level + cross.T @ self.weights, np.maximum(variance, _LEAST_VARIANCE)

    def believing(self, codes: Codes) -> Surrogate:
        """Return the process as if the rows of `codes` had been measured just as predicted.

        Means stay and variances shrink, which keeps several workers apart (the kriging believer; Ginsbourger et al.,
        Kriging Is Well-Suited to Parallelize Optimization, 2010).
        """
        if not len(codes):
            return self
        costs = np.concatenate([self.costs, self.predict(codes)[0]])
        return _conditioned(np.vstack([self.codes, codes]), costs, self.level, self.sizes, self.hyper)


def fit(codes: Codes, costs: Floats, sizes: Codes, start: Floats | None = None) -> Surrogate:
    """Return the process of the highest posterior density given log `costs` of the settings in `codes`.

    `sizes` are the numbers of choices; `start`, the `hyper` of an earlier fit, saves time.
    """
    from scipy.optimize import minimize  # noqa: PLC0415 - takes 0.8 s

    centre, deviation = np.array([_MAIN] * len(sizes) + [_PAIR, _NOISE]).T
    if not len(costs):
        return _conditioned(codes, costs, 0.0, sizes, centre)
    level = float(costs.mean())
    agree = np.where(codes.T[:, :, None] == codes.T[:, None, :], 1.0, _apart(sizes)[:, None, None])
    pairs = (agree.sum(0) ** 2 - (agree**2).sum(0)) / 2

    def loss(hyper: Floats) -> tuple[float, Floats]:
        value, slope = _loss(hyper, agree, pairs, costs - level)
        off = (hyper - centre) / deviation
        return value + off @ off / 2, slope + off / deviation

    options = {"maxiter": _STEPS if start is None else _STEPS_ON, "ftol": _TOLERANCE}
    begin = centre if start is None else start
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=[_BOUNDS] * len(centre), options=options)
    return _conditioned(codes, costs, level, sizes, found.x)


def _loss(hyper: Floats, agree: Floats, pairs: Floats, rest: Floats) -> tuple[float, Floats]:
    """Return the negative log likelihood, less a constant, and its slope (Rasmussen and Williams, equation 5.9)."""
    from scipy.linalg.lapack import dpotrf, dpotri  # noqa: PLC0415 - takes 0.8 s

    main, pair, noise = np.exp(hyper[:-2]), math.exp(hyper[-2]), math.exp(hyper[-1])
    covariance = _LEVEL + np.tensordot(main, agree, 1) + pair * pairs + noise * np.eye(len(rest))
    factor, _ = dpotrf(covariance, lower=1)
    half = np.tril(dpotri(factor, lower=1)[0])
    inverse = half + np.tril(half, -1).T
    weights = inverse @ rest
    pull = (inverse - np.outer(weights, weights)) / 2
    by_main = main * (agree.reshape(len(agree), -1) @ pull.ravel())
    slope = np.concatenate([by_main, [pair * (pull * pairs).sum(), noise * np.trace(pull)]])
    return float(rest @ weights / 2 + np.log(np.diag(factor)).sum()), slope


def _conditioned(codes: Codes, costs: Floats, level: float, sizes: Codes, hyper: Floats) -> Surrogate:
    from scipy.linalg import cho_solve, cholesky  # noqa: PLC0415 - takes 0.8 s

    prior = _covariance(hyper, codes, codes, sizes) + math.exp(hyper[-1]) * np.eye(len(costs))
    factor = cholesky(prior, lower=True, check_finite=False)
    weights = cho_solve((factor, True), costs - level, check_finite=False)
    return Surrogate(sizes, codes, costs, level, hyper, factor, weights)


def _covariance(hyper: Floats, one: Codes, other: Codes, sizes: Codes) -> Floats:
    """Return the prior covariance of the log costs of rows of `one` and of `other`.

    In one dimension the correlation is 1 where choices are equal, else as `_apart` says; a pair's is their product.
    """
    hot, other_hot = _one_hot(one, sizes), _one_hot(other, sizes)

    def summed(factors: Floats, unequal: Floats) -> Floats:
        weighted = hot * np.repeat(factors * (1 - unequal), sizes)
        return np.asarray(factors @ unequal + weighted @ other_hot.T)

    each, apart = np.ones(len(sizes)), _apart(sizes)
    pairs = (summed(each, apart) ** 2 - summed(each, apart**2)) / 2
    return np.asarray(_LEVEL + summed(np.exp(hyper[:-2]), apart) + math.exp(hyper[-2]) * pairs)


def _apart(sizes: Codes) -> Floats:
    """Return the correlation of two choices of each dimension: their effects add up to nothing over all of them."""
    return np.asarray(-1 / np.maximum(1, sizes - 1))


def _one_hot(codes: Codes, sizes: Codes) -> Floats:
    places = np.concatenate([np.arange(size) for size in sizes])
    return np.asarray(np.repeat(codes, sizes, axis=1) == places, dtype=float)


def compressed(costs: Floats) -> Floats:
    """Return log `costs` with those far above the least pulled in: their order stays, and so do small differences.

    How much slower than the best slow settings are is no matter, and they are the noisier ones: taken as they are, they
    would set the noise and the effects by which the good ones are told apart. A cost d above the least becomes
    s log(1 + d / s) with s = 0.2: 5 % slower stays 4.5 %, three times as slow becomes 1.45 times. On a grid recorded on
    a GPU searches end 8 % sooner so, among thousands of settings 12 % (docs/lab/search.md, Replay).
    """
    above = costs - costs.min(initial=np.inf)
    return np.asarray(_FAR * np.log1p(above / _FAR))


def expected_improvement(mean: Floats, variance: Floats, best: float) -> Floats:
    """Return by how much each log cost is expected to be under `best`, 0 counting where it is above.

    Jones et al., Efficient Global Optimization, Journal of Global Optimization 13, 1998, equation 15.
    """
    from scipy.special import ndtr  # noqa: PLC0415 - takes 0.8 s

    deviation = np.sqrt(variance)
    z = (best - mean) / deviation
    return np.asarray(deviation * (z * ndtr(z) + np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)))


def chance_to_run(candidates: Codes, failed: Codes, ran: Codes) -> Floats:
    """Return the probability that each of `candidates` runs, given settings that `failed` and that `ran`.

    Each failure has one cause: a choice of its, a pair of them, or all of them together. What settings that ran have
    too is no cause; what more failures have in common is the likelier. Bayes' rule then gives the chance that a
    candidate has no failure's cause.
    """
    dimensions = candidates.shape[1]
    pairs = np.triu(np.full((dimensions, dimensions), _BLAME_PAIR), 1) + np.eye(dimensions)
    chance = np.ones(len(candidates))
    for one in failed:
        blame = pairs * ~_common(ran, one).any(0)
        blame = blame * _BLAME_AGAIN ** (_common(failed, one).sum(0) - 1.0)
        own = (candidates == one).astype(float)
        shared = ((own @ blame) * own).sum(1) + _BLAME_ALL * own.all(1)
        chance *= 1 - shared / (blame.sum() + _BLAME_ALL)
    return chance


def _common(codes: Codes, one: Codes) -> NDArray[np.bool_]:
    """Return which pairs of choices each row of `codes` shares with `one`; single choices on the diagonal."""
    equal = codes == one
    return np.asarray(equal[:, :, None] & equal[:, None, :])

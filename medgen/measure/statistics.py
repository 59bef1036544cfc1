"""Figures with their uncertainty: AUC, accuracy and calibration of checks on held-out images.

Plain functions of scores and labels; knows no model and no image.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.stats import norm, rankdata


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive scores above a negative (ties count half)."""
    ranks = rankdata(np.concatenate([positive, negative]))
    n = len(positive)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * len(negative)))


def auc_interval(
    positive: np.ndarray, negative: np.ndarray, level: float = 0.95
) -> tuple[float, float]:
    """Confidence interval of the AUC after Hanley and McNeil (1982), clipped to 0-1."""
    area = auc(positive, negative)
    n, m = len(positive), len(negative)
    # At an area of 1 the formula gives no width; half a pair's worth of doubt keeps it honest.
    bounded = min(max(area, 0.5 / (n * m)), 1 - 0.5 / (n * m))
    q1, q2 = bounded / (2 - bounded), 2 * bounded**2 / (1 + bounded)
    variance = bounded * (1 - bounded) + (n - 1) * (q1 - bounded**2) + (m - 1) * (q2 - bounded**2)
    width = float(norm.ppf(0.5 + level / 2)) * np.sqrt(max(variance, 0.0) / (n * m))
    return float(max(0.0, area - width)), float(min(1.0, area + width))


def share_interval(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's (1927) interval of a share; it holds the share, also where rounding errs."""
    z = float(norm.ppf(0.5 + level / 2))
    share = successes / trials
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    width = z * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2)) / scale
    return float(max(0.0, min(centre - width, share))), float(min(1.0, max(centre + width, share)))


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: |confidence - accuracy| averaged over equal-width bins."""
    edges = np.clip((confidence * bins).astype(int), 0, bins - 1)
    gaps = [
        abs(confidence[edges == b].mean() - correct[edges == b].mean()) * (edges == b).mean()
        for b in range(bins)
        if (edges == b).any()
    ]
    return float(np.sum(gaps))


def fit_logistic(
    values: np.ndarray, positive: np.ndarray, prior_slope: float | None = None
) -> tuple[float, float]:
    """Probability of a finding from one value, both classes weighing the same (Platt 1999).

    Args:
        values: (n,) what was measured.
        positive: (n,) 1 with the finding, 0 without; both occur.
        prior_slope: A slope that few data should stay near, where the value is a log-odds.

    Returns:
        (intercept, slope) of the log-odds.
    """
    weights = np.where(positive == 1, 0.5 / positive.sum(), 0.5 / (1 - positive).sum())
    start = np.array([0.0, prior_slope or 1.0])

    def loss(parameters: np.ndarray) -> float:
        odds = parameters[0] + parameters[1] * values
        fit = float((weights * (np.logaddexp(0, odds) - positive * odds)).sum())
        if prior_slope is not None:
            fit += 2.0 / len(values) * float((parameters[1] - prior_slope) ** 2)
        return fit

    intercept, slope = minimize(loss, start, method="BFGS").x
    return float(intercept), float(slope)

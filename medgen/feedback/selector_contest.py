"""The selector against always-CLIP, the verifier's score and chance, on held-out preferences.

Intervals are percentile bootstraps over prompts: preferences of one prompt are not independent.
Knows rankings and labels; knows no model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from medgen.feedback.selector_card import Contest, Estimate
from medgen.feedback.selector_data import Score, Vote

OURS = "selector"
CLIP = "always-CLIP"
VERIFIER = "verifier-only"
CHANCE = "chance"
ALL = "all"
LEAST_PROMPTS = 5  # of a scope, below which nothing is said of it


def won(scores: np.ndarray, votes: Sequence[Vote]) -> np.ndarray:
    """(v,) 1 where a ranking agrees with a preference, 0.5 in a tie or without a score, else 0."""
    better = scores[[vote.better for vote in votes]]
    worse = scores[[vote.worse for vote in votes]]
    result = np.where(better > worse, 1.0, np.where(better < worse, 0.0, 0.5))
    return np.where(np.isnan(better) | np.isnan(worse), 0.5, result)


def bootstrap(values: np.ndarray, groups: Sequence[str], resamples: int, seed: int) -> Estimate:
    """The mean of (v,) values, groups drawn with replacement."""
    _, place = np.unique(np.asarray(groups), return_inverse=True)
    sums, counts = np.bincount(place, values), np.bincount(place).astype(float)
    draws = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(
        value=round(float(values.mean()), 4),
        low=round(float(low), 4),
        high=round(float(high), 4),
    )


def contests(
    rankings: Mapping[str, np.ndarray],
    votes: Sequence[Vote],
    scores: Sequence[Score],
    prompts: np.ndarray,
    modalities: Sequence[str],
    resamples: int,
    seed: int,
) -> list[Contest]:
    """Contests over all judges and for each rater, overall and by modality.

    Args:
        rankings: (n,) scores by name, `OURS` among them; NaN where one has no score.
        votes: Held-out preferences, none of the verifier's.
        scores: Held-out ratings, for the candidate that each would choose.
        prompts: (n,) prompt of each candidate.
        modalities: Of each candidate.
        resamples: Of prompts.
        seed: Of the resampling.
    """
    judges = sorted({(vote.rater, vote.source) for vote in votes})
    groups = [(ALL, "/".join(sorted({source for _, source in judges})), list(votes), list(scores))]
    if len(judges) > 1:
        groups += [
            (
                rater,
                source,
                [vote for vote in votes if (vote.rater, vote.source) == (rater, source)],
                [score for score in scores if (score.rater, score.source) == (rater, source)],
            )
            for rater, source in judges
        ]
    found = []
    for judge, source, given, rated in groups:
        for scope in (ALL, *sorted(set(modalities))):
            inside = [vote for vote in given if scope in (ALL, modalities[vote.better])]
            names = [str(prompts[vote.better]) for vote in inside]
            if len(set(names)) < LEAST_PROMPTS:
                continue
            agreed = {name: won(ranking, inside) for name, ranking in rankings.items()}
            agreed[CHANCE] = np.full(len(inside), 0.5)
            found.append(
                Contest(
                    judge=judge,
                    source=source,
                    scope=scope,
                    preferences=len(inside),
                    prompts=len(set(names)),
                    accuracy={n: bootstrap(v, names, resamples, seed) for n, v in agreed.items()},
                    difference={
                        n: bootstrap(agreed[OURS] - v, names, resamples, seed)
                        for n, v in agreed.items()
                        if n != OURS
                    },
                    chosen=_chosen(
                        rankings,
                        [one for one in rated if scope in (ALL, modalities[one.row])],
                        prompts,
                        resamples,
                        seed,
                    ),
                )
            )
    return found


def _chosen(
    rankings: Mapping[str, np.ndarray],
    scores: Sequence[Score],
    prompts: np.ndarray,
    resamples: int,
    seed: int,
) -> dict[str, Estimate]:
    """Mean rating of what each ranking would choose of a prompt's rated candidates."""
    levels: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        levels[str(prompts[score.row])][score.row].append(score.level)
    several = {name: rows for name, rows in levels.items() if len(rows) > 1}
    if len(several) < LEAST_PROMPTS:
        return {}
    names = list(several)
    picked: dict[str, list[float]] = defaultdict(list)
    for rows in several.values():
        order = list(rows)
        means = np.array([np.mean(rows[row]) for row in order])
        picked["best there is"].append(float(means.max()))
        picked[CHANCE].append(float(means.mean()))
        for name, ranking in rankings.items():
            own = np.nan_to_num(ranking[order], nan=-np.inf)
            picked[name].append(float(means[own == own.max()].mean()))  # ties by chance
    return {
        name: bootstrap(np.array(values), names, resamples, seed) for name, values in picked.items()
    }


def verdict(found: Sequence[Contest]) -> tuple[bool, str]:
    """Whether a selector may be used, and why: it must beat every baseline, interval above 0."""
    overall = next((one for one in found if (one.judge, one.scope) == (ALL, ALL)), None)
    if overall is None:
        return False, "no held-out preference that is not the verifier's: it cannot be compared"
    lost = [name for name, gap in overall.difference.items() if gap.low <= 0]
    ours = overall.accuracy[OURS]
    figures = ", ".join(f"{name} {overall.accuracy[name].value:.3f}" for name in overall.difference)
    line = (
        f"agrees with {ours.value:.3f} ({ours.low:.3f}-{ours.high:.3f}) of "
        f"{overall.preferences} held-out {overall.source} preferences in {overall.prompts} "
        f"prompts; {figures}"
    )
    if lost:
        return False, f"{line}: does not beat {', '.join(lost)} beyond chance"
    return True, line

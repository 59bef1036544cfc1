"""Real chest X-ray reports read by rules, against what the indexers found in them.

`python tests/bench/chest_reports.py ../shared/knowledge [--half tune|report] [--errors FINDING]`
prints precision, recall and F1 a finding, of the plan and of the CheXpert phrase lists alone. The
rules were tuned on the half "tune" (the uid's hash is even) and only on it. The reports' text is
printed for reading and goes nowhere else: its licence forbids copies.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from medgen.graphs.plan import Table, plan_table
from medgen.knowledge.cards import finding_cards
from medgen.records import PlanLine

MODALITY = "Chest X-ray"
DENIAL = re.compile(r"\b(no|not|without|negative|free|clear|normal|unremarkable)\b", re.IGNORECASE)
DEFINITIONS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
# A finding that the plan calls uncertain is not counted: on the half for tuning the indexers took
# up 25 of 76 such ("may represent", "cannot exclude"), against 967 of 1,006 that it calls present.
SHOWN = ("present",)


def half(uid: str) -> str:
    """Which half a report belongs to: "tune" or "report"."""
    return "report" if int(hashlib.sha256(uid.encode()).hexdigest(), 16) % 2 else "tune"


@dataclass
class Report:
    """One report: its id, its text, and the indexers' strings."""

    uid: str
    text: str
    labels: list[list[str]]

    def shows(self, name: str) -> bool:
        """Whether the indexers found it."""
        defined = (DEFINITIONS["measured"] | DEFINITIONS["further"])[name]
        if defined.get("only"):
            return [one[0] for one in self.labels] == defined["labels"]
        heads = [
            one for one in self.labels
            if not any(self._matches(one, label) for label in defined.get("not", []))
        ]  # fmt: skip
        return any(self._matches(one, label) for one in heads for label in defined["labels"])

    @staticmethod
    def _matches(one: list[str], label: str) -> bool:
        head, _, qualifier = label.lower().partition("/")
        return one[0] == head and (not qualifier or qualifier in one[1:])


def read_reports(folder: Path, which: str) -> dict[str, Report]:
    """The indexed reports of one half, by uid."""
    found = {}
    with (folder / "chest_reports.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            # Spelt in small letters: the strings are not of one mind about capitals.
            labels = [
                [part.strip() for part in label.lower().split("/")]
                for label in row["MeSH"].split(";")
            ]
            indexed = {one[0] for one in labels} - set(DEFINITIONS["unindexed"]) - {""}
            if half(row["uid"]) == which and indexed:
                text = f"{row['findings']}\n{row['impression']}"
                found[row["uid"]] = Report(row["uid"], text, labels)
    return found


def planned(line: PlanLine, name: str) -> bool:
    """Whether a plan shows a measured finding."""
    shown = {finding.finding for finding in line.findings if finding.status in SHOWN}
    defined = (DEFINITIONS["measured"] | DEFINITIONS["further"])[name]
    if not defined.get("only"):
        return bool(shown & set(defined["findings"]))
    cards = finding_cards()[MODALITY]
    abnormal = {one for one in shown if one not in cards or cards[one].kind == "abnormal"}
    return not abnormal - set(DEFINITIONS["ignored_when_normal"])


class Phrases:
    """The CheXpert lists: a category is mentioned when one of its phrases stands in the text."""

    def __init__(self, folder: Path) -> None:
        self.lists = {
            kind: {
                path.stem: [line.rstrip("\n").lower() for line in path.open() if line.strip()]
                for path in (folder / "chexpert_phrases" / "phrases" / kind).glob("*.txt")
            }
            for kind in ("mention", "unmention")
        }

    def mentions(self, text: str, category: str, denials: bool) -> bool:
        if denials:
            return any(
                self.mentions(sentence, category, False)
                for sentence in re.split(r"[.;\n]", text)
                if not DENIAL.search(sentence)
            )
        words = f" {re.sub(r'[^a-z0-9]+', ' ', text.lower())} "
        for phrase in self.lists["unmention"].get(category, []):
            words = words.replace(phrase, " ")
        return any(
            phrase.replace("_", " ").replace("-", " ") in words
            for phrase in self.lists["mention"][category]
        )

    def shows(self, text: str, name: str, denials: bool = False) -> bool | None:
        """None where the lists have no such category.

        `denials`: sentences with a word of denial are left out, which is not part of the lists.
        """
        categories = DEFINITIONS["chexpert"].get(name, "none")
        if categories == "none":
            return None
        if categories is None:
            lists = self.lists["mention"]
            return not any(self.mentions(text, one, denials) for one in lists)
        return any(self.mentions(text, one, denials) for one in categories)


@dataclass
class Count:
    """True and false positives and false negatives."""

    hits: int = 0
    spurious: int = 0
    missed: int = 0

    def add(self, truth: bool, said: bool) -> None:
        self.hits += truth and said
        self.spurious += said and not truth
        self.missed += truth and not said

    def __add__(self, other: Count) -> Count:
        return Count(
            self.hits + other.hits, self.spurious + other.spurious, self.missed + other.missed
        )

    @property
    def figures(self) -> tuple[float, float, float]:
        """Precision, recall, F1."""
        said, true = self.hits + self.spurious, self.hits + self.missed
        total = said + true
        return (
            self.hits / said if said else 0.0,
            self.hits / true if true else 0.0,
            2 * self.hits / total if total else 0.0,
        )


def plans(folder: Path, uids: set[str]) -> Iterator[PlanLine]:
    """The plans of the reports, as `medgen plan --table` gives them."""
    table = Table(folder / "chest_reports.csv", ("findings", "impression"), "uid")
    for line in plan_table(table, MODALITY, reading="report"):
        if line.id in uids:
            yield line


def measure(
    reports: dict[str, Report], lines: dict[str, PlanLine], names: list[str]
) -> dict[str, Count]:
    """Counts a finding."""
    counts = {name: Count() for name in names}
    for uid, report in reports.items():
        for name, count in counts.items():
            count.add(report.shows(name), planned(lines[uid], name))
    return counts


def _show(counts: dict[str, Count], *others: dict[str, Count]) -> None:
    print("| finding | reports | precision | recall | F1 | phrases alone: F1 | and denials: F1 |")
    print("|---|---|---|---|---|---|---|")
    for name, count in [*counts.items(), ("micro", sum(counts.values(), Count()))]:
        beside = [f"{one[name].figures[2]:.2f}" if name in one else "-" for one in others]
        figures = " | ".join(f"{value:.3f}" for value in count.figures)
        row = [name, str(count.hits + count.missed), figures, *(beside or ["-", "-"])]
        print(f"| {' | '.join(row)} |")


def phrase_counts(
    reports: dict[str, Report], phrases: Phrases, denials: bool = False
) -> dict[str, Count]:
    """Counts of the phrase lists, for the findings that they have."""
    counts: dict[str, Count] = {}
    for name in DEFINITIONS["measured"]:
        for report in reports.values():
            said = phrases.shows(report.text, name, denials)
            if said is not None:
                counts.setdefault(name, Count()).add(report.shows(name), said)
    return counts | {"micro": sum(counts.values(), Count())}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--half", choices=("tune", "report"), default="tune")
    arguments.add_argument("--errors", help="list the reports where this finding is wrong")
    arguments.add_argument("--most", type=int, default=1000)
    given = arguments.parse_args()
    reports = read_reports(given.folder, given.half)
    started = time.process_time()
    lines = {line.id: line for line in plans(given.folder, set(reports))}
    seconds = time.process_time() - started
    if given.errors:
        _list_errors(reports, lines, given.errors, given.most)
        return
    measured = list(DEFINITIONS["measured"])
    counts = measure(reports, lines, measured)
    phrases = Phrases(given.folder)
    print(f"half {given.half}: {len(reports)} indexed reports, {seconds:.1f} s of processor time")
    _show(counts, phrase_counts(reports, phrases), phrase_counts(reports, phrases, denials=True))
    print("further, not in the micro average:")
    _show(measure(reports, lines, list(DEFINITIONS["further"])))


def _list_errors(
    reports: dict[str, Report], lines: dict[str, PlanLine], name: str, most: int
) -> None:
    told = 0
    for uid, report in reports.items():
        truth, said = report.shows(name), planned(lines[uid], name)
        if truth != said and told < most:
            told += 1
            shown = [
                f"{finding.finding}?" if finding.status == "uncertain" else finding.finding
                for finding in lines[uid].findings
                if finding.status in ("present", "uncertain")
            ]
            print(f"{uid} {'MISSED' if truth else 'SPURIOUS'} {lines[uid].error or ''}")
            print(f"   {' '.join(report.text.split())}")
            print(f"   indexed: {'; '.join('/'.join(one) for one in report.labels)}")
            print(f"   planned: {', '.join(shown)}")


if __name__ == "__main__":
    main()

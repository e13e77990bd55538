"""The synthetic generator: reproducible, complete, free of contradiction, and right where a reader can check it."""

import csv
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from lite_chex.data import synthetic_phrases as P
from lite_chex.data.synthetic import (
    SAMPLE_FILES,
    SAMPLE_SEED,
    SyntheticReport,
    base_corpus,
    generate,
    samples,
    write_samples,
)
from lite_chex.data.synthetic_grammar import Draft, Statement
from lite_chex.findings import CERTAINTY_WORDS, CHEXPERT14, NO_FINDING, Certainty, from_code

SHIPPED = Path(__file__).parents[2] / "data_samples"
LETTER = {"p": Certainty.POSITIVE, "n": Certainty.NEGATIVE, "u": Certainty.UNCERTAIN, "-": Certainty.ABSENT}


@pytest.fixture(scope="module")
def short() -> list[SyntheticReport]:
    return generate(6000, seed=5, style="short")


@pytest.fixture(scope="module")
def mixed() -> list[SyntheticReport]:
    return generate(600, seed=5, style="mixed")


def label(report: SyntheticReport, finding: str) -> Certainty:
    return Certainty(int(report.labels[CHEXPERT14.index(finding)]))


def test_shipped_files_come_out_again_byte_for_byte(tmp_path: Path) -> None:
    write_samples(tmp_path, SAMPLE_SEED)
    made = sorted(p.name for p in tmp_path.iterdir())
    assert made == sorted(p.name for p in SHIPPED.glob("*.csv"))
    for name in made:
        assert (tmp_path / name).read_bytes() == (SHIPPED / name).read_bytes(), name
    assert sum(p.stat().st_size for p in SHIPPED.iterdir()) < 1_500_000


def test_seed_decides_everything() -> None:
    once, again, other = (generate(50, seed, "mixed") for seed in (1, 1, 2))
    assert [r.text for r in once] == [r.text for r in again]
    assert all((a.labels == b.labels).all() for a, b in zip(once, again))
    assert len({r.text for r in once} & {r.text for r in other}) < 5
    assert [r.text for r in generate(50, 1, "mixed")[:20]] == [r.text for r in generate(20, 1, "mixed")]


def test_no_patient_and_no_text_in_two_files() -> None:
    made = samples(SAMPLE_SEED)
    assert {name: len(rows) for name, rows in made.items()} == {name: n for name, n, _, _ in SAMPLE_FILES}
    for what in (lambda r: r.patient_id, lambda r: " ".join(r.text.lower().split()), lambda r: r.study_id):
        sets = [{what(r) for r in rows} for rows in made.values()]
        assert sum(map(len, sets)) == len(set().union(*sets))
    texts = [r.text for rows in made.values() for r in rows]
    assert len(texts) == len(set(texts))


def test_gold_files_read_back_as_the_labels() -> None:
    for name, _, _, gold in SAMPLE_FILES:
        assert (SHIPPED / f"gold_{name}.csv").exists() == gold
        if not gold:
            continue
        with (SHIPPED / f"gold_{name}.csv").open(encoding="utf-8", newline="") as stream:
            header, *rows = csv.reader(stream)
        assert header == ["study_id", *CHEXPERT14.names]
        values = np.array([[from_code(cell) for cell in row[1:]] for row in rows])
        assert (values == np.stack([r.labels for r in samples(SAMPLE_SEED)[name]])).all()


def test_every_allowed_cell_is_covered(short: list[SyntheticReport]) -> None:
    labels = np.stack([r.labels for r in short])
    for finding, allowed in zip(CHEXPERT14.names, CHEXPERT14.allowed):
        for certainty in Certainty:
            share = float((labels[:, CHEXPERT14.index(finding)] == certainty).mean())
            assert (share > 0.025) if allowed[certainty] else share == 0, (finding, certainty, share)


def test_shipped_gold_scores_every_cell() -> None:
    for name in ("test", "preference"):
        labels = np.stack([r.labels for r in samples(SAMPLE_SEED)[name]])
        counts = np.stack([(labels == c).sum(axis=0) for c in Certainty], axis=1)
        assert counts[CHEXPERT14.allowed].min() >= 8, name


def test_no_finding_never_contradicts(short: list[SyntheticReport], mixed: list[SyntheticReport]) -> None:
    labels = np.stack([r.labels for r in (*short, *mixed)])
    assert labels.dtype == np.int8
    assert (CHEXPERT14.consistent(labels) == labels).all()


def test_lengths_and_layouts(short: list[SyntheticReport], mixed: list[SyntheticReport]) -> None:
    words = np.array([len(r.text.split()) for r in short])
    assert 12 <= np.median(words) <= 25
    assert words.max() <= 60
    long = np.array([len(r.text.split()) for r in mixed])
    assert np.quantile(long, 0.95) > 75
    assert long.max() <= 170
    assert {r.style for r in short} == {r.style for r in mixed}
    texts = {style: [r for r in mixed if r.style == style] for style in {r.style for r in mixed}}
    assert all("XXXX" not in r.text for r in texts["masked"])
    assert any("___" in r.text for r in texts["masked"])
    assert any("XXXX" in r.text for r in texts["xxxx"])
    assert all(r.text == r.text.upper() for r in texts["capitals"])
    assert all(r.text.startswith("- ") for r in texts["list"])
    for r in texts["headed"]:
        assert r.findings_text in r.text
        assert r.impression_text in r.text


def said(text: str) -> str:
    return " ".join(text.split()).lower()


# A piece of text, and what every report that holds it must say (its sentence is the last word on the finding).
READ_BY_HAND = [
    (r"the lungs are clear\.", {P.LO: "n"}),
    (r"there is no doubt about the [a-z-]*\s?pneumothorax", {P.PX: "p"}),
    (r"jury is still out on [a-z]+ edema", {P.ED: "u"}),
    (r"no part of either lung is consolidated", {P.CO: "n"}),
    (r"cardiomediastinal silhouette is normal", {P.EC: "n", P.CM: "n"}),
    (r"heart size is at the upper limits of normal", {P.CM: "n"}),
    (r"borderline cardiomegaly", {P.CM: "u"}),
    (r"the cardiothoracic ratio is well above one half", {P.CM: "p"}),
    (r"opacity, likely (minor )?[a-z ]*atelectasis", {P.LO: "p", P.AT: "u"}),
    (r"(opacity|opacities)[a-z ]* (consistent|compatible) with pneumonia", {P.LO: "p", P.PN: "p"}),
    (r"subsegmental atelectasis or scarring", {P.AT: "u", P.LO: "u"}),
    (r"angle, small effusion or pleural thickening", {P.PE: "u", P.PO: "u"}),
    (r"\bno change in the [a-z- ]*(effusion|pleural fluid)", {P.PE: "p"}),
    (r"the earlier (pulmonary|interstitial|alveolar) edema did not persist", {P.ED: "n"}),
    (r"upright film disproves [a-z- ]*pneumothorax", {P.PX: "n"}),
    (r"the repeat image confirms [a-z]+ edema", {P.ED: "p"}),
    (r"on balance, possible [a-z ]*pneumonia\.", {P.PN: "u"}),
    (r"a left rib is broken", {P.FX: "p"}),
    (r"no bone is broken", {P.FX: "n"}),
    (r"deformity of a left rib, possibly an old fracture", {P.FX: "u"}),
    (r"(chest tube|picc|port|pacemaker|catheter) has been removed", {P.SD: "n"}),
    (r"(chest tube|picc|port|pacemaker|catheter) has not yet been removed", {P.SD: "p"}),
    (r"possible retained catheter fragment", {P.SD: "u"}),
    (
        r"\bno pneumothorax, (large )?pleural effusion or (focal )?consolidation( is seen)?\.",
        {P.PE: "n", P.PX: "n", P.CO: "n"},
    ),
    (r"\bno [a-z ]*pneumothorax[a-z ]*, but there (is|are) [a-z -]*pleural effusions?\.", {P.PX: "n", P.PE: "p"}),
    (r"calcified granuloma in the right lung", {NO_FINDING: "-"}),
    (r"mild thoracic scoliosis", {NO_FINDING: "-"}),
]


@pytest.mark.parametrize(("pattern", "expected"), READ_BY_HAND, ids=lambda v: v if isinstance(v, str) else "")
def test_gold_is_what_a_reader_would_say(short: list[SyntheticReport], pattern: str, expected: dict[str, str]) -> None:
    holding = [r for r in short if re.search(pattern, said(r.text))]
    assert holding, "the phrase does not occur: the generator no longer has this phenomenon"
    for r in holding:
        assert {f: label(r, f) for f in expected} == {f: LETTER[c] for f, c in expected.items()}, r.text


def test_indications_and_recommendations_are_no_mention(short: list[SyntheticReport]) -> None:
    sends = r"((?<!cannot )rule out|evaluate for|to exclude|check for|look for|assess for) pulmonary edema"
    alone = [r for r in short if re.search(sends, said(r.text)) and said(r.text).count("edema") == 1]
    alone = [r for r in alone if not re.search("congesti|fluid overload|failure|wet|dry", said(r.text))]
    assert alone
    assert all(label(r, P.ED) == Certainty.ABSENT for r in alone)


def test_clear_lungs_go_with_no_lung_finding(short: list[SyntheticReport]) -> None:
    clear = [r for r in short if "lungs are clear" in said(r.text)]
    assert clear
    for r in clear:
        assert all(label(r, f) in (Certainty.NEGATIVE, Certainty.ABSENT) for f in P.LUNG), r.text


def test_specific_findings_do_not_make_an_opacity(short: list[SyntheticReport]) -> None:
    """Lung Opacity is mentioned only where one of its words stands."""
    family = (
        r"opaci|infiltrat|airspace|interstitial (mark|pattern)|density|scarring|reticular|clear|lung fields|aeration"
    )
    reports = [r for r in short if label(r, P.LO) != Certainty.ABSENT]
    misspelt = [r for r in reports if not re.search(family, said(r.text))]
    assert len(misspelt) < 0.03 * len(reports)


def test_settling_and_veto_in_a_draft() -> None:
    draft = Draft()
    assert draft.add(Statement("Possible pneumonia.", ((P.PN, "u"),)))
    assert not draft.add(Statement("No pneumonia.", ((P.PN, "n"),)))  # a second word on it must settle it
    assert draft.gold()[CHEXPERT14.index(NO_FINDING)] == Certainty.ABSENT
    assert draft.add(Statement("Final read: no pneumonia.", ((P.PN, "n"),)), "tail", settles=True)
    assert draft.gold()[CHEXPERT14.index(P.PN)] == Certainty.NEGATIVE
    assert draft.gold()[CHEXPERT14.index(NO_FINDING)] == Certainty.POSITIVE
    assert draft.add(Statement("A port is in place.", ((P.SD, "p"),)))
    assert draft.gold()[CHEXPERT14.index(NO_FINDING)] == Certainty.POSITIVE
    assert draft.add(Statement("Small hiatal hernia.", veto=True))
    assert draft.gold()[CHEXPERT14.index(NO_FINDING)] == Certainty.ABSENT
    assert draft.add(Statement("The lungs are clear.", ((P.LO, "n"),), bars=P.LUNG))
    assert not draft.add(Statement("Pulmonary edema.", ((P.ED, "p"),)))


def test_base_corpus_holds_no_label_and_no_sample() -> None:
    texts = list(base_corpus(1500, seed=1))
    assert texts == list(islice(base_corpus(5000, seed=1), 1500))
    assert texts != list(base_corpus(1500, seed=2))
    shipped = {said(r.text) for rows in samples(SAMPLE_SEED).values() for r in rows}
    asked = 0
    for text in texts:
        report, _, question = text.partition("\n\nQ: ")
        assert said(report) not in shipped
        assert not any(f'"{word}"' in text.lower() for word in CERTAINTY_WORDS)
        if question:
            asked += 1
            _, _, answer = question.partition("?\nA: ")
            assert answer.lower() not in CERTAINTY_WORDS
            assert answer == "none" or answer in report
    assert 0.4 < asked / len(texts) < 0.6

"""Variants: every cell as often, read by the rules as what they are for, each one sentence from its report."""

from __future__ import annotations

import numpy as np

from lite_chex.findings import PAPER13, Certainty, custom_findings
from lite_chex.labelers.rules import RuleLabeler
from lite_chex.train.variants import variants

CORPUS = [
    "No pneumothorax. There is a small pleural effusion.",
    "Possible rib fracture. Heart size is normal.",
    "Mild cardiomegaly is seen; no edema.",
    "The lungs are clear. No pneumonia, effusion or pneumothorax.",
]


def test_rare_cells_become_as_frequent_as_the_others() -> None:
    rules = RuleLabeler()
    labels = rules.label(variants(CORPUS, rules, 700, 1)).values
    assert len(labels) > 690
    mentioned = ["Cardiomegaly", "Edema", "Pneumonia", "Pneumothorax", "Pleural Effusion", "Fracture"]
    for name in mentioned:
        counts = np.bincount(labels[:, PAPER13.index(name)], minlength=4)
        assert (counts[:3] >= 700 / 18 - 3).all(), (name, counts)  # 6 findings x 3 certainties in turn
    for name in set(PAPER13.names) - {*mentioned, "Lung Opacity", "No Finding"}:  # never named: no phrase to take
        assert (labels[:, PAPER13.index(name)] == Certainty.ABSENT).all()


def test_a_variant_is_a_report_with_up_to_four_sentences_of_its_own() -> None:
    rules = RuleLabeler()
    sentences = {s.rstrip(".") for text in CORPUS for s in text.replace(";", ".").split(". ")}
    new = [
        sum(s.rstrip(".") not in sentences for s in t.replace(";", ".").split(". "))
        for t in variants(CORPUS, rules, 200, 2)
    ]
    assert max(new) <= 4
    assert {0, 1, 2, 3} < set(new)


def test_the_same_seed_gives_the_same_and_a_users_findings_take_part() -> None:
    findings = custom_findings(PAPER13, {"Scoliosis": ["scoliosis", "curved spine"]}, {})
    rules = RuleLabeler(findings)
    corpus = [*CORPUS, "Mild scoliosis."]
    found = variants(corpus, rules, 100, 3)
    assert found == variants(corpus, rules, 100, 3) != variants(corpus, rules, 100, 4)
    counts = np.bincount(rules.label(found).values[:, findings.index("Scoliosis")], minlength=4)
    assert counts[Certainty.UNCERTAIN] > 0
    assert variants(["Lungs normal."], rules, 10, 1) == []


def test_a_quarter_turn_no_finding_by_what_is_abnormal_outside_the_findings() -> None:
    rules = RuleLabeler()
    others = ["Scattered degenerative changes of the spine.", "The aorta is tortuous.", "Cholecystectomy clips."]
    corpus = [f"The lungs are clear. {other} No pneumothorax." for other in others] + [
        "Heart size is normal. No effusion.",
        "Small left effusion. The aorta is tortuous.",
        "The aorta is tortuous. 1.",  # nothing is left to say
    ]
    assert (rules.label(corpus).values[:, -1] == Certainty.POSITIVE).sum() < 4
    found = variants(corpus, rules, 400, 5)
    turned = found[:100]
    values = rules.label(turned).values
    assert (values[:50, -1] == Certainty.POSITIVE).all()
    assert (values[50:, -1] == Certainty.ABSENT).all()
    assert not (values[:, :-1] == Certainty.POSITIVE).any()  # nothing else about them is changed
    assert {"The lungs are clear. No pneumothorax."} == set(turned[:50])
    assert len(set(turned[50:])) > 6
    assert all("tortuous" in t or "degenerative" in t for t in turned[50:])
    assert set(rules.label(found[100:]).values[:, PAPER13.index("Pleural Effusion")].tolist()) >= {0, 1}

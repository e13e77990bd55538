"""The labelling guideline that stands beside the label page: CheXpert's rules in our own words."""

from __future__ import annotations

from typing import TypedDict

from lite_chex.findings import FindingSet


class Guideline(TypedDict):
    """Texts of the page: per certainty, per finding, and the rules that hold for all."""

    certainties: dict[str, str]
    findings: dict[str, str]
    rules: list[str]


CERTAINTIES = {
    "positive": "The report states it, however small, old, stable or improving. Compatible with counts.",
    "negative": "The report rules it out: no, without, free of, has cleared, or calls the structure normal.",
    "uncertain": "The report hedges: possible, likely, may, cannot be excluded, suspicious for, one of several causes.",
    "absent": "The report does not speak of it. This is the usual case, and it is not the same as negative.",
    "x": "Two careful readers could honestly differ: leave the cell out of scoring. Use it rarely.",
}

RULES = [
    "Judge only what the text says about this study, not what the image may show.",
    "A question in the indication, or a recommendation, is no statement.",
    "Several statements on one finding: positive before uncertain before negative, unless a later one settles it.",
    "A general finding does not follow from a special one: name the finding that the words name.",
]

FINDINGS = {
    "Enlarged Cardiomediastinum": "The mediastinum or the cardiomediastinal contour: widened is positive, normal is "
    "negative. A tortuous aorta or large hila alone do not count.",
    "Cardiomegaly": "Heart size or cardiac silhouette. Enlarged is positive; normal, or at the upper limit, negative; "
    "borderline uncertain.",
    "Lung Opacity": "Words such as opacity, infiltrate, airspace disease, density, interstitial markings, scarring. "
    "Clear lungs are negative. A consolidation or nodule alone does not make it positive.",
    "Lung Lesion": "A nodule, mass, tumour or cavity. Only calcified granulomas: absent.",
    "Edema": "Pulmonary edema, vascular congestion, heart failure or fluid overload.",
    "Consolidation": "The word consolidation; no other opacity stands for it.",
    "Pneumonia": "Pneumonia or infection as a diagnosis. An infiltrate alone is Lung Opacity.",
    "Atelectasis": "Atelectasis or collapse of lung. Offered beside another explanation: uncertain.",
    "Pneumothorax": "Air in the pleural space, of any size; after a procedure its exclusion is negative.",
    "Pleural Effusion": "Fluid in the pleural space. A blunted angle counts only, as uncertain, where the report "
    "itself offers an effusion as the reason.",
    "Pleural Other": "Pleural thickening, plaque, scar or calcification; not an effusion.",
    "Fracture": "Any broken bone, old and healed ones too. No acute bony abnormality, without the word: absent.",
    "Support Devices": "Tubes, lines, pacemakers, valves, wires, clips, ports and other hardware in or on the patient.",
    "No Finding": "Positive only where nothing above (devices aside) is positive or uncertain and no other abnormality "
    "of chest or bones is stated; else absent. Never negative or uncertain.",
}


def guideline(findings: FindingSet) -> Guideline:
    """The texts for one finding set; a finding of the user's own has none."""
    return {
        "certainties": CERTAINTIES,
        "findings": {name: FINDINGS[name] for name in findings.names if name in FINDINGS},
        "rules": RULES,
    }

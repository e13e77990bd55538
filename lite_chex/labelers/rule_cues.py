"""Anatomy and its states, and the cues around a finding that deny it, doubt it or end a scope.

Written like the phrases of :mod:`rule_phrases`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Anatomy whose state is a statement on findings: subject -> (findings, states that count).
SUBJECTS: Mapping[str, Sequence[str]] = {
    "heart": (
        r"heart(?:'s)?(?: and cardiac)?(?: silhouette| size| shadow| contours?| xxx\w*)?(?: size)?",
        r"cardiac(?: and pericardial)?(?: silhouettes?| sizes?| shadow| contours?| outline|"
        r" structures)?(?: size| contours?)?",
        r"cardiovascular (?:silhouette|structures|contours?)",
    ),
    "mediastinum": (
        r"mediastin(?:um|al)(?: silhouettes?| contours?| structures| size| width| shadow| borders?| margins?|"
        r" outlines?)?(?: contours?)?",
        r"superior mediast\w+",
    ),
    "both": (
        r"cardio ?(?:mediastin\w+|mediastinum)(?: silhouettes?| contours?| size| structures| shadow| borders?|"
        r" margins?)?(?: contours?| size)?",
        r"heart/mediastin\w+",
        r"cardiac? ?/? ?mediastin\w+(?: silhouettes?| contours?)?",
        r"cardiopulmonary (?:silhouette|contours?)",
        r"cardiothymic silhouette",
        r"cardio ?pericardial silhouette",
    ),
    "lungs": (
        r"lungs?(?: fields?| parenchyma| zones?| bases?| apices)?",
        r"pulmonary parenchyma",
        r"parenchyma",
        r"hemithora\w+",
    ),
    "pleura": (
        r"pleural (?:spaces?|surfaces?|margins?|cavit\w+|structures?)",
        r"pleurae?",
        r"pleural",
    ),
    "elsewhere": (
        r"pulmonary (?:vascul\w+|vessels?|vasc\w+|arter\w+|xxx\w*|interstitium|hila)",
        r"vascularity",
        r"vasculature",
        r"hil(?:a|um|ar)(?: contours?| structures)?",
        r"aort(?:a|ic)(?: arch| knob| contour| silhouette)?",
        r"(?:thoracic|descending|ascending) aorta",
        r"trachea\w*",
        r"airways?",
        r"diaphragm\w*",
        r"hemidiaphragms?",
        r"costophrenic (?:angles?|sulci|recess\w*|xxx\w*)",
        r"bon(?:es|y)(?: structures| thorax)?",
        r"osseous(?: structures)?",
        r"skelet\w+",
        r"soft tissues?",
        r"spine",
        r"ribs?",
        r"lung volumes?",
        r"(?:left|right) (?:atri|ventric)\w+",
        r"atri(?:um|al)",
        r"ventric\w+",
        r"abdomen",
        r"bowel",
        r"mediastinal lymph\w*",
        r"azygos\w*",
    ),
}

STATES: Mapping[str, Sequence[str]] = {
    "normal": (
        r"normal(?: limits?| range)?",
        r"within (?:the )?(?:normal )?(?:limits?|range)(?: of normal)?",
        r"unremarkable",
        r"not remarkable",
        r"wnl",
        r"upper (?:limits? )?(?:of )?normal(?: limits?)?",
        r"upper limits?(?: of normal)?",
        r"top (?:of |limits? of )?normal",
        r"intact",
        r"midline",
        r"negative",
        r"not enlarged",
        r"not (?:appear )?(?:significantly |overtly |definitely )?enlarged",
    ),
    "large": (
        r"enlarg(?:ed|ement)",
        r"increased?(?: in size)?",
        r"large",
        r"prominen(?:t|ce)",
        r"widen(?:ed|ing)",
        r"wide",
        r"full",
        r"dilated",
        r"megaly",
    ),
    "borderline": (
        r"borderline(?: (?:in size|size|enlarge\w*|prominent|large))?",
        r"upper (?:limits? )?(?:of )?normal (?:to|or) (?:mildly |slightly |minimally |borderline )*enlarged",
        r"normal (?:to|or) (?:mildly |slightly |minimally |borderline )*(?:enlarged|increased|prominent)",
    ),
    "clear": (r"clear\w*", r"aerated", r"free of (?:active |acute )?(?:disease|infiltrat\w+)"),
    "same": (r"stable", r"unchanged", r"similar", r"obscured", r"shifted"),
}

NEGATION: Sequence[str] = (
    r"unlikely to (?:be|represent|reflect)",
    r"no",
    r"not",
    r"non",
    r"without",
    r"den(?:y|ies)",
    r"negative for",
    r"free (?:of|from)",
    r"clear of",
    r"devoid of",
    r"absen(?:t|ce of)",
    r"lack of",
    r"never",
    r"neither",
    r"nor",
    r"rather than",
    r"(?:resolution|clearing|clearance|disappearance) of",
    r"resolved",
    r"rul(?:es|ed|ing) out",
    r"exclud(?:es|ing)",
    r"instead of",
    r"isn't",
    r"aren't",
    r"doesn't",
    r"wasn't",
)
REMOVAL: Sequence[str] = (r"remov(?:al|ed)(?: of)?", r"explant\w+", r"extubat\w+")
NEGATION_AFTER: Sequence[str] = (
    r"(?:is |are |was |were |has been |have been )?(?:not|no longer) (?:(?!well|optimally|fully|"
    r"completely)\w+ )?(?:seen|identified|present|evident|visuali[sz]ed|"
    r"appreciated|demonstrated|noted|found|detected|observed|visible|apparent|shown|suggested|suspected|definit\w+)",
    r"(?:is|are) (?:absent|negative)",
    r"(?:has|have) (?:(?!not|near|almost|partial|incomplete)\w+ )?(?:resolved|cleared|disappeared)",
    r"(?:is|are) (?:now )?(?:resolved|cleared|gone)",
    r"resolved",
    r"cleared",
    r"(?:is|are|has been|have been) (?:ruled out|excluded)",
    r"none",
    r"(?:is|are|seems?|appears?|thought) (?:\w+ )?unlikely",
    r"unlikely",
    r"(?:has|have) (?:\w+ )?been (?:removed|ruled out|excluded)",
)
UNCERTAIN: Sequence[str] = (
    r"may",
    r"might",
    r"could",
    r"can (?:be seen|represent|reflect)",
    r"possibl[ey]",
    r"possibility of",
    r"possibilities include",
    r"probabl[ey]",
    r"likely",
    r"suspect\w*",
    r"suspicio(?:us|n) (?:for|of)",
    r"(?:concern(?:ing)?|worrisome|worry) (?:for|of|about)",
    r"question(?:able|ably|ed)?(?: of)?",
    r"query",
    r"suggest(?:s|ing|ed|ive|ion|ions)?(?: of)?",
    r"indicative of",
    r"differential (?:diagnos[ei]s )?(?:would |could |includes?|considerations?|diagnos[ei]s)?",
    r"(?:primary |diagnostic )?considerations? (?:include|are|would)?",
    r"equivocal",
    r"borderline",
    r"(?:cannot|can not|can't|could not|not|unable to|difficult to) (?:\w+ )?(?:be )?(?:exclude|rule out)",
    r"perhaps",
    r"presum\w+",
    r"favor(?:ed|s|ing)?",
    r"felt to (?:be|represent)",
    r"thought to (?:be|represent)",
    r"rais(?:e|es|ing) (?:the )?(?:possibility|question|concern|suspicion)(?: of| for)?",
    r"xxx+ (?:represent\w*|reflect\w*|relat\w+|due to|secondary to|from|indicat\w+|suggest\w*)",
    r"in the (?:appropriate|proper|right|correct)(?: \w+)? (?:setting|context)",
    r"appearance xxx+",
    r"potential(?:ly)?",
    r"seem(?:s|ingly)?",
)
UNCERTAIN_AFTER: Sequence[str] = (
    r"(?:cannot|can not|can't|could not|may not) (?:\w+ )?be (?:\w+ )?(?:excluded|ruled out)",
    r"(?:is|are|was) not (?:\w+ )?(?:excluded|ruled out)",
    r"not (?:entirely |completely |definitely )?(?:excluded|ruled out)",
    r"(?:should|must|needs? to) be (?:excluded|considered|ruled out)",
    r"difficult to exclude",
    r"(?:is|are|would be|remains?) (?:also |still |most )?(?:possible|likely|probable|suspected|questioned|"
    r"questionable|"
    r"considered|favou?red|equivocal)",
    r"(?:is|are|would be|remains?) (?:also )?a (?:possibility|consideration|concern)",
    r"(?:may|might|could) (?:also )?be (?:present|seen|considered)",
    r"not excluded",
    r"in the (?:appropriate|proper|right|correct)(?: \w+)? (?:setting|context)",
)
IGNORE: Sequence[str] = (
    r"histor(?:y|ies) of",
    r"h/o",
    r"evaluat(?:e|ion)(?: for| of)",
    r"assess(?:ment)? (?:for|of)",
    r"(?:to|and) (?:rule out|exclude)",
    r"rule out",
    r"r/o",
    r"if (?:there|the|patient|clinical\w*|concern|suspicion|suspected|symptom\w*|continued|needed|indicated|"
    r"warranted|persistent)\w*",
    r"recommend\w*",
    r"may be (?:missed|occult|masked|obscured|overlooked)",
    r"may not be (?:demonstrated|visible|visualized|apparent|seen|detected)",
    r"please note",
    r"(?:could|may|might|can) (?:obscure|hide|mask|simulate|mimic)",
    r"correlat\w+",
)
PSEUDO: Sequence[str] = (
    r"no (?:definite |appreciable )?(?:significant |substantial |interval |relevant |appreciable |major |"
    r"apparent )*(?:change|increase|decrease|"
    r"improvement|progression|worsening|difference)s?",
    r"not (?:only|significantly changed|changed|appreciably changed|well (?:seen|evaluated|visualized)|simply)",
    r"without (?:significant |interval |appreciable )*(?:change|increase|progression|worsening|improvement)",
    r"(?:near|nearly|partial|partially|almost|incompletely?|not) (?:complete |completely |fully )?(?:resol\w+|"
    r"clear\w+)(?: of)?",
    r"no (?:prior|previous|comparison)\w*",
    r"without (?:prior|previous|comparison|difficulty|contrast)\w*",
    r"in the absence of",
    r"not (?:clear|certain)",
    r"(?:less|more) likely",
)
LINKS: Sequence[str] = (
    r"compatible with",
    r"consistent with",
    r"associated with",
    r"along with",
    r"together with",
    r"in keeping with",
    r"with respect to",
    r"(?:but )?not (?:diagnostic|specific|definitive|pathognomonic)(?: of| for)?",
)
ALTERNATIVES: Sequence[str] = (r"or", r"and/or", r"versus", r"vs", r"alternatively")
TERMINATORS: Sequence[str] = (
    r"but",
    r"however",
    r"although",
    r"though",
    r"except",
    r"aside from",
    r"apart from",
    r"other than",
    r"with",
    r"which",
    r"whereas",
    r"while",
    r"yet",
    r"there",
    r"status post",
    r"s/p",
    r"given",
    r"because",
)

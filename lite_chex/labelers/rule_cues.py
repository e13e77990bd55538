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
        r"cardio ?thoracic ratio",
        r"cardiovascular (?:silhouette|structures|contours?)",
    ),
    "mediastinum": (
        r"mediastin(?:um|al)(?: silhouettes?| contours?| structures| size| width| shadow| borders?| margins?|"
        r" outlines?)?(?: contours?)?",
        r"(?:superior|upper) mediastin(?:um|al)(?: silhouettes?| contours?| structures| width| borders?| margins?)?",
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
        r"mediastinal (?:(?:and|or) hilar )?lymph(?: nodes?)?",
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
        r"maintained",
        r"midline",
        r"negative",
        r"not enlarged",
        r"non ?enlarged",
        r"not (?:appear )?(?:significantly |overtly |definitely )?enlarged",
    ),
    "large": (
        r"enlarg(?:ed|ement)",
        r"increased?(?: in size)?",
        r"large",
        r"prominen(?:t|ce)",
        r"widen(?:ed|ing)",
        r"wider?",
        r"big(?:ger)?",
        r"full",
        r"(?:slightly |mildly |just )?above (?:the )?(?:upper )?(?:normal(?: limits?)?|limits? of normal)",
        r"dilated",
        r"megaly",
    ),
    "borderline": (
        r"borderline(?: (?:in size|size|enlarge\w*|prominent|large))?",
        r"upper (?:limits? )?(?:of )?normal (?:to|or) (?:mildly |slightly |minimally |borderline )*enlarged",
        r"normal (?:to|or) (?:mildly |slightly |minimally |borderline )*(?:enlarged|increased|prominent)",
    ),
    "clear": (r"clear(?!ly\b|er\b)\w*", r"free of fluid", r"free of (?:active |acute )?disease"),
    "same": (r"difficult to assess", r"stable", r"unchanged", r"similar", r"obscured", r"shifted"),
}

NEGATION: Sequence[str] = (
    r"(?:(?:is|are|seems?|appears?) (?:felt |thought )?(?:to be )?(?:\w+ )?)?unlikely to (?:be|represent|reflect)",
    r"no",
    r"not",
    r"no longer seen (?:is|are)",
    r"nothing to (?:suggest|indicate)",
    r"nothing suggest(?:ing|ive of)",
    r"without",
    r"w/o",
    r"den(?:y|ies)",
    r"neg(?:ative)? for",
    r"free (?:of|from)",
    r"free of (?:active |acute )?disease",
    r"clear of",
    r"devoid of",
    r"absen(?:t|ce of)",
    r"lack of",
    r"never",
    r"neither",
    r"nor",
    r"nor (?:is|are|was|were) there",
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
    r"(?:is |are |was |were |has been |have been )?(?:not|no longer) (?:(?!well|optimally|previously|fully|"
    r"completely)\w+ )?(?:seen|identified|present|evident|visuali[sz]ed|"
    r"appreciated|demonstrated|noted|found|detected|observed|visible|apparent|shown|suggested|suspected|definite)",
    r"(?:is|are) (?:absent|negative(?! for))",
    r"(?:has|have) (?:(?!not|near|almost|partial|partly|incomplete|largely|mostly|virtually|substantially|"
    r"significantly)\w+ )?(?:resolved|cleared|disappeared)",
    r"(?:is|are) (?:now )?(?:resolved|cleared|gone)",
    r"resolved",
    r"cleared",
    r"(?:is|are|can be|has been|have been) (?:ruled out|excluded)",
    r"which (?:has|have) (?:now |since )?(?:resolved|cleared)",
    r"none",
    r"(?:is|are|was|were|seems?|appears?) (?:felt |thought |considered |believed )?(?:to be )?(?:\w+ )?unlikely",
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
    r"(?:(?:less|more|most) )?likely",
    r"suspect\w*",
    r"suspicio(?:us|n) (?:for|of)",
    r"(?:concern(?:ing)?|worrisome|worry) (?:findings? )?(?:for|of|about)",
    r"question(?:able|ably|ed)?(?: of)?",
    r"query",
    r"suggest(?:s|ing|ed|ive|ion|ions)?(?: of)?",
    r"indicative of",
    r"most typical (?:of|for)",
    r"differential (?:diagnos[ei]s )?(?:would |could |includes?|considerations?|diagnos[ei]s)?",
    r"(?:primary |diagnostic )?considerations? (?:include|are|would)?",
    r"equivocal",
    r"borderline",
    r"(?:cannot|can not|can't|could not|not|unable to|difficult to|hard to|impossible to) (?:\w+ )?(?:be )?"
    r"(?:exclude|rule out|r/o)",
    r"perhaps",
    r"\?",
    r"if (?:any|present)",
    r"presum\w+",
    r"favor(?:ed|s|ing)?",
    r"(?:felt|thought|believed) to (?:be|represent|reflect)",
    r"doubtful",
    r"rais(?:e|es|ing) (?:the )?(?:possibility|question|concern|suspicion)(?: of| for)?",
    r"xxx+ (?:represent\w*|reflect\w*|relat\w+|due to|secondary to|from|indicat\w+|suggest\w*|correspond\w*)",
    r"in the (?:appropriate|proper|right|correct)(?: \w+)? (?:setting|context)",
    r"appearance xxx+",
    r"potential(?:ly)?",
    r"seem(?:s|ingly)?",
    r"either(?! (?:lung|side|view|hemithorax|hemidiaphragm|base|apex|hilum|upper|lower|of|the)\b)(?= [^.;]*\bor\b)",
)
UNCERTAIN_AFTER: Sequence[str] = (
    r"(?:cannot|can not|can't|could not|may not) (?:\w+ )?be (?:\w+ (?:or )?)?(?:excluded|ruled out)",
    r"(?:may|might|could) (?:still )?(?:persist|remain|exist)",
    r"(?:is|are|was) not (?:\w+ )?(?:excluded|ruled out)",
    r"not (?:entirely |completely |definitely )?(?:excluded|ruled out)",
    r"(?:should|must|needs? to) be (?:excluded|considered|ruled out)",
    r"(?:would be |is |are )?(?:difficult|hard|impossible) to (?:completely |entirely )?(?:exclude|rule out)",
    r"(?:is|are|would be|remains?) (?:also |still |most )?(?:possible|likely|probable|suspected|questioned|"
    r"questionable|"
    r"considered|favou?red|equivocal)",
    r"(?:is|are|would be|remains?) (?:also )?(?:a|an|the|another)(?: \w+)? (?:possibility|"
    r"consideration|concern|alternative|explanation)",
    r"(?:may|might|could) (?:also |well |still )?be (?:present|seen|considered)",
    r"not excluded",
    r"(?:is |are |was |were )?(?:felt |considered |thought |deemed )?(?:to be )?(?:much |also )?less likely",
    r"(?:is|are) (?:also )?(?:in|on|within|part of) the differential(?: diagnosis)?",
    r"(?:is|are) (?:also )?(?:presumed|(?:likely|probably|possibly|presumably) (?:still )?present)",
    r"(?:may|might|could) (?:also )?(?:have|give) (?:the|a|an) (?:same|similar|identical) appearance",
    r"if (?:any|present|still present)(?: at all)?",
    r"in the (?:appropriate|proper|right|correct)(?: \w+)? (?:setting|context)",
    r"(?:is|are|remains?) (?:also |still )?of concern(?! for)",
    r"(?:is|are) not favou?red",
    r"(?:is |are )?more likely than not",
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
    r"if (?:\w+ ){1,4}?(?:is|are|were|remains?) (?:\w+ )?(?:suspected|a concern|of concern|considered)",
    r"recommend\w*",
    r"(?:to|and) (?:document|ensure|confirm|demonstrate) (?:interval |complete )*(?:resolution|clearing|clearance)"
    r"(?: of)?",
    r"to (?:ensure|confirm|document|(?:be|make) (?:sure|certain))(?: that)? (?:there (?:is|are) )?"
    r"(?:no|absence of|lack of)",
    r"(?:may|can) (?:still )?be (?:\w+ )?(?:missed|occult|masked|obscured|overlooked|inapparent|"
    r"difficult to (?:detect|see|appreciate|identify))",
    r"may not be (?:demonstrated|visible|visualized|apparent|seen|detected)",
    r"please note",
    r"(?:could|may|might|can) (?:obscure|hide|mask|simulate|mimic)",
    r"correlat\w+",
)
PSEUDO: Sequence[str] = (
    r"no (?:definite |appreciable )?(?:significant |substantial |interval |relevant |appreciable |major |"
    r"apparent |gross |obvious |definite |other |much |overall |further |marked |visible )*(?:change|increase|decrease|"
    r"improvement|progression|worsening|difference)s?",
    r"not (?:only|significantly changed|changed|appreciably changed|well (?:seen|evaluated|visualized)|simply)",
    r"without (?:significant |substantial |interval |appreciable |gross |obvious |definite |much |any )*(?:change|"
    r"increase|progression|worsening|improvement)",
    r"(?:near|nearly|partial|partially|partly|almost|incomplete|incompletely|not|some|slight|mild|moderate|marked|"
    r"substantial|substantially|significant|significantly|considerable|gradual|continued|ongoing|further|largely|"
    r"mostly|virtually) (?:interval )?(?:complete |completely |fully |entirely )?(?:resol\w+|clear\w+)(?: of)?",
    r"(?:is |are |was |were )?not (?:\w+ )?(?:seen|present|identified|evident|visuali[sz]ed|noted|apparent)"
    r"(?: (?:on|in|at))?(?: (?:the|a|any|most|recent)){0,3} (?:prior|previous|previously|earlier|last|comparison|old)",
    r"(?:is |are |was |were )?not previously (?:seen|present|identified|evident|visuali[sz]ed|noted|apparent)",
    r"if any (?:\w+ )?change",
    r"or (?:interval |significant )?(?:change|increase|progression|worsening) (?:in|of)",
    r"no (?:prior|previous|comparison)\w*",
    r"without (?:prior|previous|comparison|difficulty|contrast)\w*",
    r"in the absence of",
    r"not (?:clear|certain)",
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
ALTERNATIVES: Sequence[str] = (
    r"or",
    r"and/or",
    r"versus",
    r"vs",
    r"alternatively",
    r"(?:is |are )?(?:felt |thought |considered )?(?:to be )?(?:much |far )?(?:less|more) likely than",
    r"(?:is |are )?(?:slightly |strongly |somewhat |clearly )?(?:favou?red|preferred) over",
)
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
    r"(?:is|are|markedly|somewhat) (?:\w+ )?limited (?:by|due to|secondary to|because of)",
    r"because",
)

"""The statements of one sentence: its mentions, its anatomy, and what only the whole sentence tells."""

from __future__ import annotations

import re
from dataclasses import replace

from lite_chex.findings import Certainty
from lite_chex.labelers import rule_phrases as vocabulary
from lite_chex.labelers.rule_anatomy import anatomy
from lite_chex.labelers.rule_lexicon import Kind, Lexicon
from lite_chex.labelers.rule_scopes import Clause, Statement, statement

# Not "a nodule and hilar calcifications", and not "nodules, most of which are calcified": the others are not.
_CALCIFIED_AFTER = re.compile(
    r"^(?:(?!\b(?:not|non|without|no|un|(?:most|some|many|several|majority|few) of|hilar|mediastinal|aort\w+|vascular|"
    r"coronary|atherosclerotic|annular)\b)[^.]){0,90}?\bcalcifi\w+\b"
    r"(?! (?:\w+ ){0,3}?(?:aort|hil|mediast|lymph|node|vascul|coronar|arter))"
)
_PLEURAL_PLACE = re.compile(r"\bpleural (?:space|sinus|surface|recess|reflection)")
_PLEURA_BEFORE = re.compile(
    r"\bpleura\w* \w+,? (?:or|and|nor|and/or|versus|vs) $"
    r"|^pleurae?: (?:no )?(?:\w+ (?:or|and) )?$"
    r"|\bpleura\w* (?:opacit|densit|abnormalit)\w+,? (?:\w+ ){0,9}?(?:with|represents?|reflects?|suggests?|of|to) $"
)
_PLEURAL_SCAR = re.compile(
    r"\bpleural (?:(?:effusions?|fluid) (?:(?:or|and/or|versus|vs|extrapleural fat),? ){0,2}(?:or|and/or|versus|vs)|"
    r"thickening (?:(?!and\b|there\b)\w+ ){0,6}"
    r"(?:is|represents?|reflects?|(?:due|secondary|related) to|from)(?: \w+)?) scar\w*\b"
    r"(?! (?:in|at|of) the (?:\w+ ){0,2}(?:lung|lobe|base))"
)
# "blunted costophrenic angle, due to effusion or scarring": of the pleura
_BLUNTED = re.compile(r"\bblunt|\bcostophrenic\b")
_SCAR_OR_FLUID = re.compile(
    r"\b(?:effusions?|fluid|pleural thickening),? (?:or|and/or|versus|vs) "
    r"(?:(?!atelect|lung|pulm|parench)\w+ ){0,3}?scar"
    r"|\bscar\w*,? (?:or|and/or|versus|vs) (?:(?!atelect)\w+ ){0,3}?(?:effusion|fluid|pleural)"
)
# "density overlying the heart, likely a stent"
_NOT_IN_LUNG = re.compile(
    r"^(?![^.]*\b(?:nodul|mass|infiltrat|pneumon|atelect|effusion|consolid|opaci|edema|versus))"
    r"[^.]{0,20}?\b(?:over|overlying|overlies) (?:the )?(?:\w+ ){0,3}?"
    r"(?:heart|cardiac silhouette|mediastinum|hemithorax|ribs?)\b[^.]*?"
    r"\b(?:represents?|reflects?|suggest\w*|consistent|compatible|due|secondary|likely|probably|are|is|from|xxx+)\b[^.]*?"
    r"\b(?:stents?|clips?|leads?|wires?|hernia|bone island|callus|(?:healing|healed|old) (?:\w+ )?fracture|"
    r"(?:annular|valv\w+|arter\w+|costal cartilage) calcifications?)"
)
# "an opacity is seen above the heart, in the mediastinum"; not "opacities at the bases, clips in the mediastinum"
_IN_MEDIASTINUM = re.compile(
    r"^(?:,? (?:(?:is|are|again|also|seen|noted|present|identified|located|projecting)\b|"
    r"(?:(?:superior|anterior|posterior) to|above|below|behind|over|near|by) the (?:\w+ )?"
    r"(?:heart|aorta|arch|knob|carina|trachea|hilum)\b))*"
    r",? (?:in|at) the (?:\w+ |base of the )?mediastinum\b(?!,? (?:and|or)\b[^.;]*\b(?:lungs?|lobes?|bases?)\b)"
)
# What the opacity is said to be, with no other opacity, no doubt and no contrast on the way or behind it.
_EXPLAINED = re.compile(
    r"^(?:(?!\b(?:likely|probabl\w+|possibl\w+|may|might|could|suggest\w*|suspect\w*|concern\w*|worrisome|felt|thought|"
    r"believed|xxx+|or|versus|vs|and|but|while|no|not|without|one|other|opaci\w+|densit\w+|nodul\w+|mass|masses)\b)"
    r"[^.;]){0,80}?"
    r"\b(?:(?:consistent|compatible|in keeping) with|represent(?:s|ing)?|reflect(?:s|ing)?|are|is) "
    r"(?:(?:a|the|bilateral|overlying|prominent|large|moderate|small) )*(?:nipple|hiatal hernia)"
    r"(?! markers?)(?![^.;,]*\b(?:or|versus|vs|atelect\w+|consolid\w+|pneumon\w+|opaci\w+|nodul\w+|infiltrat\w+)\b)"
)
# "rib deformity from an old injury": the guideline leaves open whether it was a fracture
_FRAME = r"(?:ribs?|clavic\w+|humer\w+|scapula\w*|stern(?:al|um))\b"
_OF_BONE_BEFORE = re.compile(
    rf"\b{_FRAME}(?:,? (?:possibly|probably|likely))?(?: (?!(?:and|with|spin\w+|vertebra\w*)\b)[\w-]+){{0,4}} $"
)
_OF_BONE_AFTER = re.compile(
    r"^(?: (?:is|are|seen|noted|again|present))* (?:of|in|at|along|involving|left|right) "
    rf"(?:(?!(?:with|aort\w+|mediast\w+|heart|cardiac|diaphragm|hemidiaphragm)\b)[\w-]+ ){{0,6}}?{_FRAME}"
)
_OLD_INJURY = re.compile(
    r"\bhealing deformit|\bpost[ -]?traumatic|\b(?:old|remote|prior|previous|healed) (?:injur\w+|trauma|xxx+)"
)
_DENIED = re.compile(r"\b(?:no|without|not|negative|denies|denied)\b(?: \w+){0,4} $")
_ARTIFACT = re.compile(r"^(?!.*\b(?:or|versus|vs)\b).*\b(?:skin fold|artifact\w*)")
_BONY_SITE = re.compile(
    r"\b(?:vertebra\w*|ribs?|humer\w+|clavic\w+|scapula\w*|sternum|bones?|bony|osseous|skelet\w+|t\d+|lytic|sclerotic)\b"
)
_LUNG_SITE = re.compile(r"\b(?:and|lungs?|pulmonary|nodul\w+|opaci\w+|mass(?:es)?|lobes?|hil\w+)\b")
_PARTIAL = re.compile(
    r"\b(?:large|larger|sizable|massive|other|additional|new|further|displaced|tension|alveolar|overt|frank|gross) "
    r"(?:\w+ )?$|\botherwise\b"
)
_KIND_OF_FRACTURE = re.compile(r"\b(?:acute|old|healed|healing|chronic|remote|prior)(?= (?:\w+ ){0,3}$)")
_BROKEN = re.compile(
    r"\b(?:catheter|wires?|screws?|leads?|rods?|hardware|plate) (?:of the (?:\w+ ){1,4}(?:is|are) |is |are )?fractur"
    r"|\bfractured? (?:(?!(?:with|and|status|post|under|beneath|behind|near|next|adjacent|by|over\w*|ribs?)\b)"
    r"\w+ ){0,6}(?:wires?|catheter|screws?|leads?|rods?|sternotomy)\b"
)
_HARDWARE = re.compile(r"\b(?:sternotomy|wires?|screws?|catheters?|leads?|hardware|rods?|tubes?|cerclage)\b")
_BONE = re.compile(
    r"\b(?:ribs?|clavic\w+|humer\w+|vertebra\w*|compression|sternum|sternal|scapula\w*|bone|bony|t\d+|l\d+|spine)\b"
)


class SentenceRules:
    """The rules of one sentence over a lexicon; no state but that."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def read(self, text: str) -> list[Statement]:
        """What the folded sentence states, in order of the phrases."""
        items = self._lexicon.scan(text)
        if not items:
            return []
        clause = Clause(text, items)
        statements: list[Statement] = []
        for index, item in enumerate(items):
            if item.kind is Kind.MENTION:
                verdict = clause.judge(index)
                if verdict is not None:
                    word = text[item.start : item.start + 5]
                    statements.extend(statement(name, item.start, item.end, verdict, word) for name in item.names)
        statements.extend(anatomy(clause))
        sides = [side for side in ("left", "right") if side in text]
        if len(sides) == 1:
            statements = [replace(s, side=sides[0]) for s in statements]
        return _refine(text, statements)


def _refine(text: str, statements: list[Statement]) -> list[Statement]:
    """What needs the whole sentence: calcified nodules are no lesion; "borderline cardiomegaly"."""
    refined = []
    for s in statements:
        if s.certainty is Certainty.NEGATIVE and (_PARTIAL.search(text, 0, s.start) or text.endswith("otherwise")):
            s = replace(s, partial=True)  # of the rest, or of some kinds alone
        if s.finding == vocabulary.FX and (kind := _KIND_OF_FRACTURE.search(text, 0, s.start)):
            s = replace(s, word="acute" if kind.group() == "acute" else "old")
        if (
            s.finding == vocabulary.LL
            and s.certainty is not Certainty.NEGATIVE
            and _CALCIFIED_AFTER.match(text[s.end :])
        ):
            s = replace(s, finding=vocabulary.OTHER)
        if s.finding == vocabulary.LL and s.word == "metas" and _BONY_SITE.search(text) and not _LUNG_SITE.search(text):
            s = replace(s, finding=vocabulary.OTHER)
        if s.finding == vocabulary.OTHER and s.word == "lucen" and _ARTIFACT.search(text[s.end :]):
            continue
        if s.finding == vocabulary.LO and s.word == "densi" and _NOT_IN_LUNG.match(text[s.end :]):
            s = replace(s, finding=vocabulary.OTHER)
        if s.finding == vocabulary.LO and _IN_MEDIASTINUM.match(text[s.end :]):
            s = replace(s, finding=vocabulary.OTHER)
        if s.finding in (vocabulary.LO, vocabulary.LL) and _EXPLAINED.match(text[s.end :]):
            continue
        deformed = (
            s.finding == vocabulary.OTHER and s.word in ("defor", "conto") and s.certainty is not Certainty.NEGATIVE
        )
        if deformed and _injured_bone(text, s):
            refined.append(s)  # it vetoes No Finding whatever becomes of the fracture
            s = replace(s, finding=vocabulary.FX, certainty=Certainty.UNCERTAIN, word="old")
        if s.finding == vocabulary.FX and (_BROKEN.search(text) or (_HARDWARE.search(text) and not _BONE.search(text))):
            continue
        if s.finding == vocabulary.LO and text.startswith("scar", s.start) and _scarred_pleura(text):
            s = replace(s, finding=vocabulary.PO)
        if s.finding == vocabulary.PE and s.certainty is not Certainty.NEGATIVE and "abnormal" in text[s.start : s.end]:
            continue
        if s.finding == vocabulary.LO and text[: s.start].endswith("clear "):  # "clear [of] airspace disease"
            s = replace(s, certainty=Certainty.NEGATIVE, cue=(s.start - 6, s.start - 1))
        if s.finding == vocabulary.CO and text.startswith("non", s.start):
            s = replace(s, certainty=Certainty.NEGATIVE, cue=(s.start, s.start + 3))
        if s.finding == vocabulary.OTHER and s.word == "thick" and _PLEURA_BEFORE.search(text, 0, s.start):
            s = replace(s, finding=vocabulary.PO)  # "no pleural effusion or thickening"
        refined.append(s)
    return refined


def _scarred_pleura(text: str) -> bool:
    """Whether the scar of the sentence is one of the pleura."""
    if _PLEURAL_PLACE.search(text) or _PLEURAL_SCAR.search(text):
        return True
    return _BLUNTED.search(text) is not None and _SCAR_OR_FLUID.search(text) is not None


def _injured_bone(text: str, s: Statement) -> bool:
    """Whether the deformity is one of a bone of the chest's frame, and put down to an old injury."""
    before = text[: s.start]
    if "pectus" in before or not (_OF_BONE_BEFORE.search(before) or _OF_BONE_AFTER.match(text[s.end :])):
        return False
    return any(not _DENIED.search(text, 0, injury.start()) for injury in _OLD_INJURY.finditer(text))

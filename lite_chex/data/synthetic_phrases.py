"""The vocabulary of the synthetic report grammar: closed lists of nouns, frames and whole sentences.

A noun is written ``kind:text``: ``a`` takes an article, ``m`` is a mass noun, ``s`` is plural. In it
``{side}`` becomes a side or nothing. In frames ``{np}`` is the bare noun phrase, ``{anp}`` has its
article, ``{is}`` / ``{has}`` / ``{do}`` agree with it. ``HARD_*`` lists hold wording that a labeler of
phrases and cues usually gets wrong; experts' answers are what teaches a model to read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

EC, CM, LO, LL = "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion"
ED, CO, PN, AT = "Edema", "Consolidation", "Pneumonia", "Atelectasis"
PX, PE, PO, FX, SD = "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices"
LUNG = (LO, LL, ED, CO, PN, AT)

SIDES = ("left ", "right ", "left-sided ", "right-sided ", "", "", "")
BASES = (" at the left base", " at the right base", " in the left lower lobe", " in the right lower lobe",
         " in the right middle lobe", " in the lingula", " in the right upper lobe",
         " in the left upper lobe")  # fmt: skip

NOUNS: Mapping[str, Sequence[str]] = {
    EC: ("m:mediastinal widening", "m:widening of the mediastinum", "m:mediastinal enlargement",
         "m:enlargement of the mediastinal contour", "a:widened mediastinum"),
    CM: ("m:cardiomegaly", "m:cardiac enlargement", "m:enlargement of the heart",
         "m:enlargement of the cardiac silhouette", "a:enlarged heart"),
    LO: ("a:{side}lung opacity", "s:{side}airspace opacities", "a:{side}basilar opacity", "m:airspace disease",
         "a:{side}infiltrate", "s:interstitial opacities", "m:{side}basilar opacification", "s:reticular opacities"),
    LL: ("a:pulmonary nodule", "a:{side}lung mass", "a:{side}lung nodule", "a:{side}hilar mass",
         "a:cavitary lesion", "a:lung neoplasm", "s:pulmonary nodules"),
    ED: ("m:pulmonary edema", "m:interstitial edema", "m:pulmonary vascular congestion", "m:vascular congestion",
         "m:congestive heart failure", "m:fluid overload", "m:alveolar edema"),
    CO: ("a:{side}consolidation", "m:focal consolidation", "m:lobar consolidation", "m:{side}basilar consolidation",
         "m:parenchymal consolidation"),
    PN: ("m:pneumonia", "m:{side}lower lobe pneumonia", "m:infection", "a:infectious process", "m:bronchopneumonia",
         "m:aspiration pneumonia"),
    AT: ("m:atelectasis", "m:{side}basilar atelectasis", "m:subsegmental atelectasis", "m:linear atelectasis",
         "m:discoid atelectasis", "m:{side}lower lobe collapse"),
    PX: ("a:{side}pneumothorax", "a:{side}apical pneumothorax", "a:pneumothorax"),
    PE: ("a:{side}pleural effusion", "s:pleural effusions", "a:{side}effusion", "m:{side}pleural fluid",
         "s:bilateral effusions"),
    PO: ("m:{side}pleural thickening", "a:{side}pleural plaque", "m:{side}apical pleural thickening",
         "m:{side}pleural scarring", "m:pleural calcification", "a:{side}fibrothorax", "s:pleural plaques"),
    FX: ("a:{side}rib fracture", "a:{side}clavicle fracture", "s:{side}rib fractures", "a:vertebral fracture",
         "a:compression fracture", "a:{side}humeral fracture"),
    SD: ("a:{side}chest tube", "an:endotracheal tube", "a:nasogastric tube", "a:{side}PICC", "a:dual-lead pacemaker",
         "a:{side}jugular catheter", "a:tracheostomy tube", "a:feeding tube", "a:{side}port", "a:central line"),
}  # fmt: skip

SIZES: Mapping[str, Sequence[str]] = {
    EC: ("mild", "slight", "marked"), CM: ("mild", "moderate", "severe"),
    LO: ("patchy", "hazy", "ill-defined", "faint"), LL: ("small", "dominant", "subtle"),
    ED: ("mild", "moderate", "worsening"), CO: ("dense", "patchy"), PN: ("multifocal", "early", "developing"),
    AT: ("mild", "minimal", "minor"), PX: ("tiny", "small", "large", "moderate"),
    PE: ("small", "trace", "moderate", "large", "layering"), PO: ("mild", "chronic", "dense"),
    FX: ("old", "healed", "nondisplaced", "acute"), SD: (),
}  # fmt: skip
LOCATED = (LO, LL, CO, PN, AT)
QUESTIONED: Mapping[str, str] = {
    EC: "the mediastinum", CM: "heart size", LO: "lung opacity", LL: "a lung nodule or mass", ED: "edema",
    CO: "consolidation", PN: "pneumonia", AT: "atelectasis", PX: "pneumothorax", PE: "pleural effusion",
    PO: "pleural thickening or plaque", FX: "fracture", SD: "a tube, line or device",
}  # fmt: skip
"""How the reading task of the base corpus names a finding."""

POSITIVE = (
    "There {is} {anp}.", "{anp} {is} present.", "{anp} {is} seen.", "Stable {np}.", "Unchanged {np}.",
    "{anp} {is} again noted.", "There {is} persistent {np}.", "Interval development of {anp}.",
    "Findings consistent with {np}.", "{anp} {has} increased.", "Appearance compatible with {np}.", "{np}.",
    "Improved but persistent {np}.", "{anp} {is} demonstrated.", "New {np} since the prior study.",
)  # fmt: skip
HARD_POSITIVE = (
    "There is no doubt about the {np}.", "Not much has happened to the {np} since yesterday.",
    "There is no mistaking the {np}.", "The suspected {np} {has} proved true.", "No change in the {np}.",
    "Neither treatment nor time has removed the {np}.", "What was called possible {np} is now plain to see.",
    "No further change of the known {np}.", "No view is free of the {np}.", "The {np} can no longer be questioned.",
    "The {np} {has} not resolved.", "There has been no improvement in the {np}.", "The {np} {is} without change.",
    "No decrease in the {np} despite treatment.", "The {np} still {has} not gone away.",
    "The {np} {is} not any smaller.", "The {np} cannot be overlooked today.",
)  # fmt: skip
NEGATIVE = (
    "No {np}.", "There {is} no {np}.", "No evidence of {np}.", "No {np} {is} seen.", "Negative for {np}.",
    "There is no evidence for {np}.", "No definite {np}.", "Without {np}.", "{np} {is} not seen.",
    "The {np} {has} resolved.", "Previously seen {np} {has} resolved.", "No obvious {np}.", "No convincing {np}.",
)  # fmt: skip
HARD_NEGATIVE = (
    "The earlier {np} did not persist.", "Nothing on either view points to {np}.",
    "The lateral view argues against {np}.",
    "{anp} could not be found on today's images.", "The prior {np} {has} gone away completely.",
    "Nothing remains of the {np}.", "I fail to see {anp} on this study.", "We looked for {np} in vain.",
    "The question of {np} is answered in the negative.", "{anp} can be dismissed.",
    "The {np} of last week left no trace.", "{anp} would be expected to show here and {do} not.",
    "The {np} described before can no longer be demonstrated.", "{np}: none.",
    "Complete interval clearing of the {np}.", "What was taken for {np} is now gone.",
)  # fmt: skip
UNCERTAIN = (
    "Possible {np}.", "Probable {np}.", "There may be {anp}.", "{anp} cannot be excluded.", "Questionable {np}.",
    "Findings suspicious for {np}.", "Concern for {np}.", "This could represent {np}.", "Likely {np}.",
    "{anp} {is} suspected.", "Findings suggestive of {np}.", "{anp} might be present.", "Equivocal for {np}.",
    "{np} {is} possible.", "Cannot rule out {np}.",
)  # fmt: skip
HARD_UNCERTAIN = (
    "{np} remains in the differential.", "One wonders about {np}.", "Some features hint at {np}.",
    "An element of {np} is entertained.", "It is hard to tell whether there {is} {anp}.", "We are not sure about {np}.",
    "The jury is still out on {np}.", "{np} {is} conceivable.", "The film leaves room for {np}.", "?{np}.",
    "{np} {is} neither confirmed nor refuted by this view.", "No way to be certain whether {np} {is} real.",
    "I would not bet against {np}.", "The appearance raises the question of {np}.",
    "{np} {is} favored, though the view is limited.", "{np} {is} a consideration here.", "Query {np}.",
    "{anp} would be difficult to see and is not fully ruled out.",
)  # fmt: skip

EASY: Mapping[tuple[str, str], Sequence[str]] = {
    (EC, "p"): ("The mediastinum is widened.", "The mediastinal contour is enlarged.", "Widened superior mediastinum."),
    (EC, "n"): ("Mediastinal contours are normal.", "The mediastinum is unremarkable.",
                "Mediastinal contour is within normal limits.", "No mediastinal widening."),
    (EC, "u"): ("The mediastinum may be widened.", "Borderline widening of the mediastinum.",
                "Questionable widening of the mediastinum, perhaps positional."),
    (CM, "p"): ("The heart is enlarged.", "Heart size is enlarged.", "The cardiac silhouette is enlarged.",
                "The heart is mildly enlarged.", "Cardiomegaly is stable."),
    (CM, "n"): ("Heart size is normal.", "The heart is normal in size.", "The cardiac silhouette is normal.",
                "The heart is unremarkable.", "Heart size within normal limits.",
                "Heart size is at the upper limits of normal."),
    (CM, "u"): ("Borderline cardiomegaly.", "The heart is borderline enlarged.", "Heart size is borderline.",
                "The heart may be enlarged but the projection exaggerates it."),
    (LO, "p"): ("Scarring at the left apex.", "Interstitial markings are increased.",
                "Hazy density over the right base.",
                "Coarse interstitial pattern in both lungs."),
    (LO, "n"): ("The lungs are clear.", "Lungs are clear bilaterally.", "Clear lungs.", "Both lungs are clear.",
                "No focal airspace opacity.", "No infiltrate.", "No airspace disease."),
    (LL, "n"): ("No suspicious nodule or mass.", "No lung mass.", "No pulmonary nodule is identified."),
    (ED, "p"): ("The pulmonary vessels are congested.", "Mild congestive failure."),
    (ED, "n"): ("No vascular congestion.", "No overt pulmonary edema.", "No signs of heart failure."),
    (PE, "n"): ("The pleural spaces are clear.", "No pleural abnormality.", "No large effusion."),
    (AT, "p"): ("Bands of atelectasis at both bases.", "The left lower lobe is atelectatic."),
    (PO, "n"): ("No pleural thickening.", "No pleural plaques.", "No pleural thickening or plaque is seen."),
    (FX, "n"): ("No acute fracture.", "No displaced rib fracture.", "No fracture is identified."),
    (FX, "u"): ("Deformity of a left rib, possibly an old fracture.", "Rib contour irregularity, possible fracture."),
    (FX, "p"): ("Old healed rib fractures on the right.", "Compression fracture of a mid thoracic vertebra."),
    (SD, "p"): ("{anp} {is} in place.", "{anp} tip projects over the expected position.", "Unchanged {np}.",
                "There {is} {anp} in standard position.", "Median sternotomy wires are intact.",
                "Surgical clips overlie the upper abdomen.", "A prosthetic valve is noted.", "{np} again seen.",
                "{anp} has been placed.", "Spinal fusion hardware is present."),
    (SD, "n"): ("The {np} has been removed.", "Interval removal of the {np}.", "No lines or tubes remain.",
                "All support devices have been removed.", "Status post removal of the {np}."),
    (SD, "u"): ("Possible retained catheter fragment.", "A thin line over the neck may be a catheter.",
                "{anp} may be present but is poorly seen.", "Questionable {np} projecting over the chest.",
                "{anp} or an external wire cannot be told apart; possible device.", "Probable {np}."),
}  # fmt: skip

HARD: Mapping[tuple[str, str], Sequence[str]] = {
    (EC, "p"): ("The mediastinum is broader than it should be.", "The mediastinal shadow has grown.",
                "Mediastinal silhouette is fuller and wider than before."),
    (EC, "n"): ("The mediastinum does not exceed its usual width.",
                "There is nothing wrong with the mediastinal outline.",
                "The mediastinum keeps its ordinary width."),
    (EC, "u"): ("The mediastinum looks wide, which the supine position may account for.",
                "Whether the mediastinum is truly wide is unclear.",
                "It is not certain that the mediastinum is widened."),
    (CM, "p"): ("The heart is bigger than it should be.", "The cardiothoracic ratio is well above one half.",
                "The heart has a globular, oversized outline.", "The heart takes up too much of the chest."),
    (CM, "n"): ("The heart is not enlarged.", "The cardiothoracic ratio is below one half.",
                "The heart has returned to its usual size.",
                "There is nothing remarkable about the size of the heart."),
    (CM, "u"): ("The heart sits between normal and large.", "Whether the heart is truly enlarged is unclear.",
                "Portable technique makes it hard to say if the heart is large."),
    (LO, "p"): ("The left base is whiter than it should be from airspace filling.",
                "A veil of increased density lies over "
                "the right lung.", "Both bases show a fine reticular mesh."),
    (LO, "n"): ("The lungs show good aeration and nothing else.", "Nothing is seen in the lung fields.",
                "There is not a single opacity in either lung.", "Both lungs have cleared completely."),
    (LL, "p"): ("A round growth projects over the right upper lobe.", "A coin-shaped tumor is seen in the left lung.",
                "A spiculated focus of tumor lies in the right apex."),
    (LL, "u"): ("A round shadow over the left apex may be a nodule or an overlapping rib end.",
                "A rounded focus is either a nodule or a nipple shadow."),
    (ED, "p"): ("The lungs are wet.", "Decompensated heart failure is evident.",
                "There is upper lobe vessel engorgement "
                "from congestion."),
    (ED, "n"): ("The lungs are dry.", "The patient is no longer in failure.", "The congestion has lifted."),
    (CO, "p"): ("The right lower lobe is consolidated.", "The left lower lobe is now solidly consolidated."),
    (CO, "n"): ("No part of either lung is consolidated.", "The consolidated lobe has fully reaerated."),
    (PN, "p"): ("The lung is infected at the right base.", "The infectious focus in the lingula is established."),
    (PN, "n"): ("An infectious cause is not supported.", "The infection has run its course and is gone."),
    (AT, "p"): ("The right lower lobe has collapsed.", "The left base is airless and collapsed."),
    (AT, "n"): ("The collapsed lobe has fully reexpanded.", "Every lobe is fully expanded without collapse."),
    (PX, "p"): ("Air has entered the left pleural space at the apex.",
                "The right lung edge is separated from the chest "
                "wall by pleural air."),
    (PX, "n"): ("The lung is fully reexpanded with no pleural air left.", "No air is left in the pleural space."),
    (PX, "u"): ("A fine apical line is either a skin fold or a pneumothorax.",
                "An apical lucency may or may not be pleural air."),
    (PE, "p"): ("Fluid layers in the left pleural space.", "A meniscus of pleural liquid is seen on the right.",
                "The right hemithorax holds a good deal of pleural fluid."),
    (PE, "n"): ("The pleural spaces are dry.", "The pleural fluid has been drained to nothing.",
                "Both costophrenic angles are sharp, with no fluid behind them."),
    (PE, "u"): ("Blunting of the left costophrenic angle, either fluid or an old change.",
                "The blunted angle on the right may hide a little fluid."),
    (PO, "p"): ("The pleura is thick along the left chest wall.", "Calcified pleura is seen over the right diaphragm."),
    (PO, "n"): ("The pleura is thin and regular throughout, without thickening.",
                "No part of the pleura is thickened."),
    (FX, "p"): ("A left rib is broken.", "The right clavicle is broken and overriding.", "Two ribs on the left have "
                "healed with callus after fracture."),
    (FX, "n"): ("No bone is broken.", "All ribs are unbroken."),
    (FX, "u"): ("A step in the left sixth rib may be a break or a vessel.",
                "A rib may be broken but overlap prevents a "
                "firm answer."),
    (SD, "p"): ("The {np} has not been moved.", "No change in the {np}.", "The {np} has not yet been removed.",
                "The tip of the {np} lies no higher than before.", "Wires from an earlier sternotomy hold together.",
                "No complication of the {np}."),
    (SD, "n"): ("The {np} is out.", "The {np} seen yesterday is no longer there.",
                "The patient has been extubated and is "
                "free of tubes.", "The {np} was taken out, and no other device is left."),
    (SD, "u"): ("A linear density over the neck is either a catheter or something outside the patient.",
                "It is unclear whether the {np} is still in place.", "We are not sure that the {np} was removed.",
                "A fine metallic line hints at a lead fragment."),
}  # fmt: skip

LISTED: Mapping[str, Sequence[str]] = {
    LO: ("focal airspace opacity", "infiltrate", "airspace disease"), LL: ("suspicious nodule", "lung mass"),
    ED: ("pulmonary edema", "vascular congestion", "edema"), CO: ("focal consolidation", "consolidation"),
    PN: ("pneumonia", "acute infection"), AT: ("atelectasis", "lobar collapse"), PX: ("pneumothorax",),
    PE: ("pleural effusion", "effusion", "large pleural effusion"), PO: ("pleural thickening", "pleural plaque"),
    FX: ("acute fracture", "rib fracture"), EC: ("mediastinal widening",), CM: ("cardiomegaly",),
}  # fmt: skip
NEGATIVE_LISTS = (
    "No {list}.", "There is no {list}.", "No evidence of {list}.", "There is no evidence of {list}.",
    "Negative for {list}.", "Without evidence of {list}.", "No {list} is seen.", "No radiographic evidence of {list}.",
)  # fmt: skip
HARD_NEGATIVE_LISTS = (
    "I see no sign, on either of the two views obtained today, of {list}.", "{list}: none of these.",
    "A search for {list} was unrewarding.", "{list} can all be dismissed.", "Nothing to suggest {list}.",
    "The patient has been spared {list}.", "The images do not bear out {list}.",
    "Neither view supports a diagnosis of {list}.",
)  # fmt: skip
MIXED_LISTS = (
    "No {list}, but there {is} {anp}.", "{anp} without {list}.", "There {is} {anp}, with no {list}.",
    "Apart from {np}, no {list}.", "{anp} {is} seen; no {list}.", "No {list}; {np} {is} unchanged.",
)  # fmt: skip
PAIRS_POSITIVE = ("There is {np} with {other}.", "{np} and {other} are present.", "{np} along with {other}.")
PAIRS_UNCERTAIN = (
    "{np} versus {other}.", "{np} or {other} is possible.", "Differential includes {np} and {other}.",
    "Possible {np} and {other}.", "Either {np} or {other}.", "{np} and {other} cannot be excluded.",
)  # fmt: skip
PAIRS_SPLIT = (  # the first is present, the second only possible
    "{anp}, and possibly {other}.", "There {is} {anp}; superimposed {other} cannot be excluded.",
    "{anp} with possible {other}.", "{anp}, probably with {other}.",
)  # fmt: skip
OPACITY_EXPLAINED = (
    "{opacity}, likely {np}.", "{opacity} which may represent {np}.", "{opacity} suspicious for {np}.",
    "{opacity}, probably {np}.", "{opacity}, concerning for {np}.", "{opacity} that could be {np}.",
)  # fmt: skip
OPACITY_SETTLED = ("{opacity} consistent with {np}.", "{opacity} compatible with {np}.", "{opacity} due to {np}.")
OPACITIES = (
    "Left basilar opacity", "Right basilar opacity", "Patchy opacity at the right base", "Hazy opacities at both bases",
    "Right upper lobe opacity", "Retrocardiac opacity", "Increased density at the left base",
)  # fmt: skip
SPECIAL_MARKS: Sequence[tuple[str, str]] = (
    ("Subsegmental atelectasis or scarring at the left base.", "ATu LOu"),
    ("Linear atelectasis versus scarring in the lingula.", "ATu LOu"),
    ("Blunted left costophrenic angle, small effusion or pleural thickening.", "PEu POu"),
    ("Blunting of the right angle may reflect pleural scar or a little effusion.", "PEu POu"),
    ("The cardiomediastinal silhouette is normal.", "ECn CMn"),
    ("Cardiomediastinal silhouette is within normal limits.", "ECn CMn"),
    ("The cardiomediastinal contours are unremarkable.", "ECn CMn"),
    ("Heart size and mediastinal contours are normal.", "ECn CMn"),
    ("The heart and mediastinum are unremarkable.", "ECn CMn"),
    ("Normal heart and mediastinum.", "ECn CMn"),
    ("Cardiomediastinal silhouette unremarkable.", "ECn CMn"),
    ("Heart and mediastinum within normal limits.", "ECn CMn"),
)
CODES: Mapping[str, str] = {"EC": EC, "CM": CM, "LO": LO, "AT": AT, "PE": PE, "PO": PO}

SETTLED: Mapping[str, Sequence[str]] = {
    "p": ("On the lateral view {anp} {is} confirmed.", "The repeat image confirms {np}.", "The {np} {is} real.",
          "Impression stands: {np}, definitely present.", "In retrospect {anp} {is} present after all.",
          "Final read: {np} {is} present.", "The second view proves {np}.", "Review with the prior confirms {np}.",
          "{np} established on the additional view.", "On balance, {np} {is} certain."),
    "n": ("The repeat view shows no {np}.", "On the lateral view no {np} {is} seen.", "The {np} {is} not borne out.",
          "Final read: no {np}.", "The suspected {np} {is} an overlapping shadow and not real.",
          "The additional view excludes {np}.", "In retrospect there {is} no {np}.", "That {np} {has} been ruled out.",
          "Upright film disproves {np}.", "On balance, no {np}."),
    "u": ("In summary, {np} {is} only a possibility.", "On review the {np} {is} not certain.",
          "Final read: {np} {is} questionable.", "On balance, possible {np}.",
          "The {np} can be neither proved nor denied.",
          "The second reader is less sure of the {np}."),
}  # fmt: skip

HISTORY = (
    "Indication: rule out {np}.", "Evaluate for {np}.", "History: concern for {np}.", "Clinical question: {np}.",
    "Reason for exam: assess for {np}.", "Indication: cough, query {np}.", "Patient sent to evaluate for {np}.",
    "Exam requested to exclude {np}.",
)  # fmt: skip
RECOMMEND = (
    "Recommend follow-up to evaluate for {np}.", "CT is advised to look for {np}.", "Repeat views to assess for {np}.",
    "Please correlate clinically for {np}.", "Short-term follow-up is suggested to exclude {np}.",
    "Lateral view recommended to check for {np}.",
)  # fmt: skip
NEUTRAL = (
    "The trachea is midline.", "Pulmonary vascularity is normal.", "No acute bony abnormality.",
    "Two views of the chest were obtained.", "Single portable view.", "Soft tissues are unremarkable.",
    "No free air under the diaphragm.", "No acute cardiopulmonary process.", "No acute disease.",
    "Evaluation is limited by rotation.", "No acute osseous abnormality.", "Frontal and lateral views.",
    "The airway is patent.", "Upper abdomen is unremarkable.", "No acute findings.", "Lung volumes are normal.",
)  # fmt: skip
BARS: Mapping[str, Sequence[str]] = {
    "The lungs are clear.": LUNG, "Lungs are clear bilaterally.": LUNG, "Clear lungs.": LUNG,
    "Both lungs are clear.": LUNG, "The lungs show good aeration and nothing else.": LUNG,
    "Nothing is seen in the lung fields.": LUNG, "Both lungs have cleared completely.": LUNG,
    "No pleural abnormality.": (PO, PX), "The pleural spaces are clear.": (PO, PX),
    "Lung volumes are normal.": (AT, PX), "Pulmonary vascularity is normal.": (ED,),
    "Every lobe is fully expanded without collapse.": (PX,),
}  # fmt: skip
"""Sentences that do not go with certain findings, and which: the reports should not contradict themselves."""
COMPARED = (
    "Comparison is made to {mask}.", "Compared to {mask}.", "Prior exam from {mask} reviewed.", "Comparison: {mask}.",
)  # fmt: skip
VETOING = (
    "Degenerative changes of the thoracic spine.", "Mild thoracic scoliosis.", "Calcified granuloma in the right lung.",
    "The lungs are hyperinflated.", "Emphysematous changes.", "Tortuous thoracic aorta.", "Small hiatal hernia.",
    "Osteophytes along the spine.", "Aortic calcification.", "Elevated right hemidiaphragm.",
    "Calcified nodule in the left apex, a granuloma.", "The aorta is ectatic.", "Blunted left costophrenic angle.",
    "Calcified hilar nodes.", "Flattened diaphragms.", "Old granulomatous disease.", "Enlarged right hilum.",
    "Bones are osteopenic.",
)  # fmt: skip

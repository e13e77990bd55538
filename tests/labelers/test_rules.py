"""Behaviour of the rule labeler, one class of wording after another; every sentence here is made up."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite_chex.errors import UserError
from lite_chex.findings import CHEXPERT14, NO_FINDING, PAPER13, Certainty, FindingSet
from lite_chex.labelers.rules import Mention, RuleLabeler

LABELER = RuleLabeler(CHEXPERT14)
SHORT = dict(
    zip(("EC", "CM", "LO", "LL", "ED", "CO", "PN", "AT", "PX", "PE", "PO", "FX", "SD", "NF"), CHEXPERT14.names)
)
LETTER = {Certainty.POSITIVE: "p", Certainty.NEGATIVE: "n", Certainty.UNCERTAIN: "u"}


def labels(report: str) -> dict[str, str]:
    """Mentioned findings only, No Finding left out: ``{"PE": "n"}``."""
    values = LABELER.label([report]).values[0]
    return {k: LETTER[Certainty(int(v))] for k, v in zip(SHORT, values) if v != Certainty.ABSENT and k != "NF"}


def no_finding(report: str) -> bool:
    return bool(LABELER.label([report]).values[0, -1] == Certainty.POSITIVE)


def expected(text: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in text.split())


NEGATION = [
    ("No pneumothorax.", "PX:n"),
    ("No rib fracture.", "FX:n"),
    ("No rib fracture", "FX:n"),
    ("There is no pneumothorax, effusion, or focal consolidation.", "PX:n PE:n CO:n"),
    ("No pneumothorax or pleural effusion is seen.", "PX:n PE:n"),
    ("There is no evidence of focal consolidation, edema, pleural effusion or pneumothorax.", "CO:n ED:n PE:n PX:n"),
    ("No acute, displaced rib fractures are demonstrated.", "FX:n"),
    ("Lungs are clear without effusion.", "LO:n PE:n"),
    ("Negative for pneumonia.", "PN:n"),
    ("The lungs are free of infiltrates.", "LO:n"),
    ("Neither effusion nor pneumothorax.", "PE:n PX:n"),
    ("Pneumothorax is not seen.", "PX:n"),
    ("Pleural effusion and pneumothorax are not identified.", "PE:n PX:n"),
    ("No focal opacity concerning for pneumonia.", "LO:n PN:n"),
    ("No findings to suggest pulmonary edema.", "ED:n"),
    ("No definite effusion.", "PE:n"),
    ("No convincing evidence of consolidation.", "CO:n"),
    ("No large effusion.", "PE:n"),
    ("Pneumonia has been ruled out.", "PN:n"),
    ("Absence of effusion on both sides.", "PE:n"),
    ("No new consolidation.", "CO:n"),
    ("Cardiomegaly without congestive failure.", "CM:p ED:n"),
    ("No overt pulmonary edema.", "ED:n"),
    ("PNEUMOTHORAX: None.", "PX:n"),
    ("There is no appreciable pneumothorax status post chest tube removal.", "PX:n SD:n"),
    ("The lungs show no nodule or mass.", "LL:n"),
    ("No active tuberculosis.", "PN:n"),
    ("No pulmonary vascular congestion.", "ED:n"),
    ("Mild cardiomegaly with no failure or pneumonia.", "CM:p ED:n PN:n"),
    ("No pleural air collection.", "PX:n"),
    ("Pneumonia is unlikely.", "PN:n"),
    ("The lungs and pleural spaces show no acute abnormality.", "PE:n"),
    ("Lungs are expanded and clear airspace disease.", "LO:n"),
    ("Lungs are free of infiltrate, nodules, and masses.", "LO:n LL:n"),
    ("Lungs free of acute disease.", "LO:n"),
    ("No effusion, nor is there pneumothorax.", "PE:n PX:n"),
    ("Nothing to suggest pneumonia.", "PN:n"),
    ("R basilar atelectasis w/o consolidation.", "AT:p CO:n"),
    ("The opacity is unlikely to represent pneumonia.", "LO:p PN:n"),
    ("Effusion: No. Pneumothorax: Absent.", "PE:n PX:n"),
    ("No pleural effusion or thickening.", "PE:n PO:n"),
    ("No pleural or pericardial effusion.", "PE:n"),
    ("Pneumonia is felt to be unlikely.", "PN:n"),
    ("No fluid in the pleural spaces.", "PE:n"),
    ("The chest is negative for pneumothorax.", "PX:n"),
    ("Pneumothorax - no.", "PX:n"),
    ("Fracture can be excluded.", "FX:n"),
    ("No acute or healed fracture.", "FX:n"),
    ("Fracture: negative.", "FX:n"),
    ("No effusion, old fracture, or pneumothorax.", "PE:n FX:n PX:n"),
    ("The pleura is not thickened.", ""),
    ("Lung markings are not increased.", ""),
]
SCOPE_ENDS = [
    ("Hyperinflation suggestive of emphysema, old right rib fractures noted.", "FX:p"),
    ("Findings suggestive of edema, infection or aspiration noted.", "ED:u PN:u"),
    ("No effusion seen, left apical nodule is stable.", "PE:n LL:p"),
    ("No consolidation seen, pneumothorax, or effusion.", "CO:n PX:n PE:n"),
    ("No effusion in either lung.", "PE:n"),
    ("No evidence of either effusion or pneumothorax.", "PE:n PX:n"),
    ("No effusion, small pneumothorax.", "PE:n PX:p"),
    ("No effusion, small nodule, or pneumothorax.", "PE:n LL:n PX:n"),
    ("No effusion, mild atelectasis or scarring.", "PE:n AT:u LO:u"),
    ("No pneumothorax, but a small left effusion is present.", "PX:n PE:p"),
    ("No pneumothorax; small left pleural effusion.", "PX:n PE:p"),
    ("No effusion, however there is mild atelectasis.", "PE:n AT:p"),
    ("No pneumothorax with stable right effusion.", "PX:n PE:p"),
    ("No consolidation, mild bibasilar atelectasis.", "CO:n AT:p"),
    ("No pneumothorax and stable small effusion.", "PX:n PE:p"),
    ("Atelectasis at the left base without consolidation.", "AT:p CO:n"),
    ("No acute process aside from a left rib fracture.", "FX:p"),
    ("No pneumothorax, the left basilar opacity may represent atelectasis.", "PX:n LO:p AT:u"),
    ("There is no pneumothorax the heart is enlarged.", "PX:n CM:p"),
    ("Mild edema, no effusion.", "ED:p PE:n"),
    ("Left effusion has decreased and there is no pneumothorax.", "PE:p PX:n"),
    ("No effusion.Moderate cardiomegaly.", "PE:n CM:p"),
    ("Mildly enlarged heart but no effusion or edema", "CM:p PE:n ED:n"),
    ("No pneumothorax small left effusion.", "PX:n PE:p"),
    ("There is no pneumothorax, and the moderate right effusion is unchanged.", "PX:n PE:p"),
    ("No pneumothorax and bibasilar atelectasis is unchanged.", "PX:n AT:p"),
    ("No pneumothorax and only a small left effusion.", "PX:n PE:p"),
    ("No pneumothorax, effusion, and consolidation is seen.", "PX:n PE:n CO:n"),
    ("Cardiomegaly without pulmonary edema or effusion.", "CM:p ED:n PE:n"),
    ("Small effusion without pneumothorax or consolidation.", "PE:p PX:n CO:n"),
    ("Evaluation of the heart is limited by bilateral effusions.", "PE:p"),
    ("No effusion, no pneumothorax, and an old clavicle fracture.", "PE:n PX:n FX:p"),
]
PSEUDO = [
    ("No pneumothorax or increase in the small pleural effusions.", "PX:n PE:p"),
    ("Left basilar opacity not definitely changed.", "LO:p"),
    ("No change in the left pleural effusion.", "PE:p"),
    ("No significant interval change in bibasilar atelectasis.", "AT:p"),
    ("Not only consolidation but also effusion is seen.", "CO:p PE:p"),
    ("No increase in the right effusion.", "PE:p"),
    ("Without significant change in cardiomegaly.", "CM:p"),
    ("Small pneumothorax, not significantly changed.", "PX:p"),
    ("The effusion has not resolved.", "PE:p"),
    ("Incompletely resolved pneumonia.", "PN:p"),
    ("Near complete resolution of the left effusion.", "PE:p"),
    ("No improvement in the edema.", "ED:p"),
    ("No change in the opacities or effusion.", "LO:p PE:p"),
    ("No gross change in the effusion.", "PE:p"),
    ("Non-displaced rib fracture.", "FX:p"),
    ("Non-specific opacity.", "LO:p"),
    ("Left base opacity, not seen on the prior exam.", "LO:p"),
    ("Nodule not previously seen.", "LL:p"),
    ("Slight resolution of the edema.", "ED:p"),
    ("The consolidation has largely cleared.", "CO:p"),
    ("Acute versus chronic rib fracture.", "FX:p"),
    ("There is little if any change in the left effusion.", "PE:p"),
    ("There is a small effusion that could be missed.", "PE:p"),
    ("The effusion may obscure a nodule.", "PE:p"),
]
HEDGES = [
    ("Left pleural effusion likely on the basis of heart failure.", "PE:p ED:u"),
    ("Consolidation likely in the setting of aspiration.", "CO:p"),
    ("Edema is more likely than not present.", "ED:u"),
    ("Left basilar opacity, atelectasis favored over pneumonia.", "LO:p AT:u PN:u"),
    ("Pneumonia is not favored.", "PN:u"),
    ("Tiny right pneumothorax suspected at the apex.", "PX:u"),
    ("There is a small pneumothorax, previously suspected on the outside film.", "PX:p"),
    ("There is fluid or pleural thickening at the right base.", "PE:u PO:u"),
    ("There is right basilar pleural thickening or fluid.", "PO:u PE:u"),
    ("There is a skin fold or pneumothorax at the apex.", "PX:u"),
    ("Opacity at the left base, either infarct or pneumonia.", "LO:p PN:u"),
    ("Right lower lobe opacity, infarct versus pneumonia.", "LO:p PN:u"),
    ("Right base opacity versus pneumonia.", "LO:u PN:u"),
    ("Underlying malignancy is also of concern.", "LL:u"),
    ("There is a mass of concern in the right upper lobe.", "LL:p"),
    ("Small effusions are presumably still present.", "PE:u"),
    ("Suspected left hilar mass with obstructive atelectasis.", "LL:u AT:u"),
    ("Possible mass with associated atelectasis.", "LL:u AT:u"),
    ("Right hilar mass with obstructive atelectasis.", "LL:p AT:p"),
    ("Right hilar mass with postobstructive pneumonia or atelectasis.", "LL:p PN:u AT:u"),
    ("Possible left lower lobe pneumonia with stable cardiomegaly.", "PN:u CM:p"),
    ("There is left basilar opacity XXXX atelectasis.", "LO:p AT:u"),
    ("Right basilar opacity, XXXX passive atelectasis.", "LO:p AT:u"),
    ("Right base opacity and XXXX atelectasis.", "LO:p AT:p"),
    ("Pleural effusion versus scarring.", "PE:u PO:u"),
    ("Pleural effusion and/or thickening.", "PE:u PO:u"),
    ("Pleural effusion or scarring in the left lung base.", "PE:u LO:u"),
    ("Possible small left pleural effusion.", "PE:u"),
    ("Pneumonia cannot be excluded.", "PN:u"),
    ("Cannot exclude pneumonia.", "PN:u"),
    ("An early infiltrate is not excluded.", "LO:u"),
    ("Patchy opacity in the left base may represent atelectasis or pneumonia.", "LO:p AT:u PN:u"),
    ("Opacity, likely atelectasis.", "LO:p AT:u"),
    ("Right basilar atelectasis versus consolidation.", "AT:u CO:u"),
    ("Findings suggestive of mild pulmonary edema.", "ED:u"),
    ("Findings consistent with mild pulmonary edema.", "ED:p"),
    ("Findings compatible with pneumonia.", "PN:p"),
    ("Question small pneumothorax.", "PX:u"),
    ("Suspected left rib fracture.", "FX:u"),
    ("Nodular opacity suspicious for malignancy.", "LO:p LL:u"),
    ("Left retrocardiac opacity concerning for pneumonia.", "LO:p PN:u"),
    ("Blunting of the costophrenic angle could represent a small effusion.", "PE:u"),
    ("Small right effusion is possible.", "PE:u"),
    ("Small effusions suspected.", "PE:u"),
    ("Differential includes pneumonia and aspiration.", "PN:u"),
    ("Borderline cardiomegaly.", "CM:u"),
    ("Heart size is borderline enlarged.", "CM:u"),
    ("Probable trace effusion.", "PE:u"),
    ("There may be a tiny apical pneumothorax.", "PX:u"),
    ("Linear atelectasis or scarring at the left base.", "AT:u LO:u"),
    ("Opacities XXXX representing atelectasis.", "LO:p AT:u"),
    ("Basilar opacity, ___ atelectasis.", "LO:p AT:u"),
    ("In the appropriate clinical setting this could be pneumonia.", "PN:u"),
    ("A superimposed infectious process would be difficult to exclude.", "PN:u"),
    ("Right upper lobe opacity, pneumonia should be considered.", "LO:p PN:u"),
    ("Small effusions and/or atelectasis at the bases.", "PE:u AT:u"),
    ("Low lung volumes with bibasilar atelectasis.", "AT:p"),
    ("Left effusion or pleural thickening.", "PE:u PO:u"),
    ("The opacity is likely atelectasis.", "LO:p AT:u"),
    ("Streaky opacities, atelectasis versus infection.", "LO:p AT:u PN:u"),
    ("Atelectasis, infiltrate, or scarring.", "AT:u LO:u"),
    ("Opacity suspicious for, but not diagnostic of, pneumonia.", "LO:p PN:u"),
    ("The density is likely a skin fold.", "LO:p"),
    ("Effusion is likely present.", "PE:u"),
    ("Followup is recommended, as this may represent a nodule.", "LL:u"),
    ("Atelectasis, probably chronic.", "AT:p"),
    ("Atelectasis, less likely pneumonia.", "AT:p PN:u"),
    ("Pneumonia is less likely.", "PN:u"),
    ("Atelectasis is less likely than pneumonia.", "AT:u PN:u"),
    ("Pneumonia seems more likely than edema.", "PN:u ED:u"),
    ("Small left effusion?", "PE:u"),
    ("Left apical pneumothorax? No effusion.", "PX:u PE:n"),
    ("More likely atelectasis than pneumonia.", "AT:u PN:u"),
    ("Small left effusion, if any.", "PE:u"),
    ("Effusion, if present, is small.", "PE:u"),
    ("Minimal, if any, edema.", "ED:u"),
    ("?infiltrate at the right base.", "LO:u"),
    ("Infection is also in the differential.", "PN:u"),
    ("Cannot r/o small effusion.", "PE:u"),
    ("Pneumonia is impossible to exclude.", "PN:u"),
    ("The opacity may be aspiration or pneumonia.", "LO:p PN:u"),
    ("Opacity compatible with pneumonia in the appropriate clinical setting.", "LO:p PN:u"),
    ("Atelectasis would be the alternative explanation.", "AT:u"),
    ("Effusion is another possibility.", "PE:u"),
    ("A pneumothorax may well be present.", "PX:u"),
    ("Small effusions are likely present bilaterally.", "PE:u"),
    ("A small pneumothorax may persist.", "PX:u"),
    ("Nipple shadow versus nodule.", "LL:u"),
    ("The opacity is believed to reflect atelectasis.", "LO:p AT:u"),
    ("Pneumonia cannot be entirely excluded behind the opacity.", "PN:u LO:p"),
    ("Dense consolidation, appearance most typical for pneumonia.", "CO:p PN:u"),
    ("Airspace disease. In the appropriate clinical setting, this is compatible with pneumonia.", "LO:p PN:u"),
    ("In the right clinical context this would represent infection; there is cardiomegaly.", "CM:p PN:u"),
    ("Healing deformity of the left 5th rib is possible.", "FX:u"),
    ("Deformity of the right clavicle related to remote injury.", "FX:u"),
    ("Contour deformity of the 7th rib, suggestive of old trauma.", "FX:u"),
    ("Rib deformities without old injury.", ""),
    ("Right pleural opacity along the lower lateral chest wall compatible with thickening or effusion.", "PE:u PO:u"),
    ("Findings concerning for fibrosis in the bases.", "LO:u"),
    ("Concerning findings for fibrosis in the bases.", "LO:u"),
    ("Borderline heart size and abnormal interstitial pattern.", "CM:u LO:p"),
    ("Costophrenic angles are blunted, XXXX corresponding to small pleural effusions.", "PE:u"),
    ("Basilar opacities, XXXX chronic atelectasis.", "LO:p AT:u"),
    ("Lateral costophrenic sulcus is blunted, either an effusion or scarring.", "PE:u PO:u"),
    ("Blunting of the right costophrenic angle may be from scarring versus a tiny effusion.", "PE:u PO:u"),
    ("Right pleural fluid or extrapleural fat versus scarring.", "PE:u PO:u"),
    ("Blunted left angle, possibly effusion or basilar lung scarring.", "PE:u LO:u"),
    ("Small effusion. Scarring versus atelectasis at the left base.", "PE:p LO:u AT:u"),
    ("Lytic lesion in the posterior left 4th rib.", ""),
    ("There is a lesion of the T9 vertebra.", ""),
    ("Lesion in the right lung behind the rib.", "LL:p"),
    ("Known prostate cancer.", ""),
    ("Lung mass suspicious for carcinoma.", "LL:p"),
    ("Lumbar fusion, XXXX intact.", "SD:p"),
    ("Orthopedic XXXX in the left humerus.", "SD:p"),
    ("A XXXX-A-XXXX projects over the right chest.", "SD:p"),
    ("Posttraumatic deformities of the right ribs.", "FX:u"),
    ("Contour irregularity of the left clavicle suggests an old injury.", "FX:u"),
    ("No posttraumatic deformity of the ribs.", ""),
    ("Wedge deformity of T12, prior trauma to the sternum.", ""),
    ("Scoliotic deformity of the spine, ribs intact, previous injury to the shoulder.", ""),
    ("Post traumatic deformity right scapula.", "FX:u"),
    ("Pectus deformity of the sternum, prior trauma.", ""),
    ("Rib deformity without evidence of prior injury.", ""),
    ("Contour irregularity of the aorta with old rib injury.", ""),
    ("Density overlying the left 5th rib, possibly healing deformity.", "LO:p FX:u"),
    ("Deformity of the right ribs from remote trauma. No acute fracture.", "FX:u"),
    ("In the right clinical setting, this is compatible with pneumonia, but there is cardiomegaly.", "PN:u CM:p"),
    ("In the right clinical setting, this is compatible with pneumonia or edema.", "PN:u ED:u"),
    ("Opacity is compatible with pneumonia in the right clinical setting, and there is an effusion.", "LO:p PN:u PE:p"),
    ("Borderline and stable cardiomegaly.", "CM:u"),
    ("Borderline cardiac and mediastinal silhouette enlargement.", "CM:u EC:u"),
    ("Borderline cardiomegaly and mild edema.", "CM:u ED:p"),
]
ANATOMY = [
    ("Normal heart size is stable.", "CM:n"),
    ("The previously normal heart is enlarged.", "CM:p"),
    ("Heart size is accentuated by low lung volumes and is mildly enlarged.", "CM:p"),
    ("Heart size is accentuated by low lung volumes and is probably mildly enlarged.", "CM:u"),
    ("The heart is unchanged and may be mildly enlarged.", "CM:u"),
    ("Heart size is stable and the right hilum is probably enlarged.", ""),
    ("Superior mediastinal contour is widened.", "EC:p"),
    ("Stable superior mediastinal contour which is within normal limits.", "EC:n"),
    ("Cardiac silhouette, which is enlarged.", "CM:p"),
    ("Mediastinal contour with pulmonary vascularity which is normal.", ""),
    ("Pleural spaces are otherwise free of fluid.", "PE:n"),
    ("Asbestos related pleural disease without acute abnormality.", ""),
    ("The heart is large without consolidation, effusion, or pneumothorax.", "CM:p CO:n PE:n PX:n"),
    ("The heart is normal in size.", "CM:n"),
    ("Heart size normal and lungs clear", "CM:n LO:n"),
    ("Normal heart size and mediastinal contours.", "CM:n EC:n"),
    ("Cardiac and mediastinal contours are within normal limits.", "CM:n EC:n"),
    ("The cardiomediastinal silhouette is unremarkable.", "EC:n CM:n"),
    ("Cardio-mediastinal silhouette is normal.", "EC:n CM:n"),
    ("Cardiomediastinal silhouette is stable.", ""),
    ("Mediastinum is stable.", ""),
    ("Heart size is top normal.", "CM:n"),
    ("Heart size is at the upper limits of normal.", "CM:n"),
    ("The heart is not enlarged.", "CM:n"),
    ("The heart is mildly enlarged.", "CM:p"),
    ("Heart size mildly enlarged for technique, aorta is tortuous.", "CM:p"),
    ("Stable enlargement of the cardiac silhouette.", "CM:p"),
    ("Normal heart size. Widened mediastinum.", "CM:n EC:p"),
    ("Mediastinal widening is again seen.", "EC:p"),
    ("The mediastinum is not widened.", "EC:n"),
    ("Heart, hila, and mediastinum are normal.", "CM:n EC:n"),
    ("Heart size is enlarged, pulmonary vascularity within normal limits.", "CM:p"),
    ("Tortuous aorta, mediastinal contours otherwise normal.", "EC:n"),
    ("Pulmonary vascularity is normal.", ""),
    ("Lungs: clear. Heart: normal size.", "LO:n CM:n"),
    ("HEART SIZE: Normal.", "CM:n"),
    ("Pleural spaces are clear.", "PE:n"),
    ("The lungs are hyperinflated but clear.", "LO:n"),
    ("Clear lungs.", "LO:n"),
    ("The lungs are otherwise clear.", "LO:n"),
    ("The bones are intact.", ""),
    ("Heart size is normal to mildly enlarged.", "CM:u"),
    ("Stable cardiomediastinal silhouette with normal heart size.", "CM:n"),
    ("Heart size within normal limits, stable mediastinal contours.", "CM:n"),
    ("Stable mediastinum, heart size normal.", "CM:n"),
    ("Mediastinal clips are in normal position.", "SD:p"),
    ("Heart size normal lungs are clear.", "CM:n LO:n"),
    ("Normal and stable mediastinal contours.", "EC:n"),
    ("The cardiac silhouette, upper mediastinum and vasculature are within normal limits.", "CM:n EC:n"),
    ("Lungs overall well expanded and clear.", "LO:n"),
    ("Mild hyperexpansion, otherwise clear.", "LO:n"),
    ("The cardiac silhouette is stable and mildly enlarged.", "CM:p"),
    ("The heart is unchanged but enlarged.", "CM:p"),
    ("The heart is obscured but likely enlarged.", "CM:u"),
    ("Heart is slightly above normal limits in size.", "CM:p"),
    ("Lungs are poorly aerated.", ""),
    ("Heart big, unchanged.", "CM:p"),
    ("Heart size is obscured but is probably enlarged.", "CM:u"),
    ("Heart size is difficult to assess but appears mildly enlarged.", "CM:p"),
    ("Heart size is normal but large left effusion.", "CM:n PE:p"),
    ("The heart is non-enlarged.", "CM:n"),
    ("Mediastinal normal width.", "EC:n"),
    ("The cardiomediastinal silhouette is clear.", "EC:n CM:n"),
    ("Lungs and mediastinum are clear.", "EC:n LO:n"),
    ("The mediastinal and hilar lymph nodes are less prominent than before.", ""),
    ("Mediastinal contours are maintained.", "EC:n"),
    ("Normal size and mediastinal contours.", "EC:n"),
    ("The heart is enlarged in size and the mediastinum is stable.", "CM:p"),
    ("Heart is enlarged in size and mediastinal contours are unchanged.", "CM:p"),
    ("Heart is normal in size and mediastinum is shifted to the right.", "CM:n"),
    ("The heart is mildly enlarged in size and the cardiomediastinal silhouette is stable.", "CM:p"),
    ("Borderline heart size and mediastinal contours.", "EC:u CM:u"),
    ("The lungs are well aerated.", ""),
    ("The lungs are well aerated and clear.", "LO:n"),
    ("Mediastinal contours are clearly seen and enlarged.", "EC:p"),
    ("The cardiomediastinal silhouette is clearly visualized.", ""),
    ("The lungs are clearer than before.", ""),
]
VOCABULARY = [
    ("Density in the left lower lobe and bullet fragments.", "LO:p"),
    ("Densities throughout the chest from prior gunshot wound.", ""),
    ("5 mm nodule, tortuous and calcified aorta.", "LL:p"),
    ("A right upper lobe nodule with calcified hilar nodes.", "LL:p"),
    ("Nodule compatible with calcified granuloma.", ""),
    ("Diffuse metastases and old right rib fracture.", "LL:p FX:p"),
    ("Hazy density over the left hemithorax with surgical clips.", "LO:p SD:p"),
    ("The anomalous vein drains below the diaphragm.", ""),
    ("Axillary densities are most suggestive of artifacts.", ""),
    ("Lumbar spinal fusion rods are noted.", "SD:p"),
    ("Congenital fusion of the thoracic vertebrae.", ""),
    ("No pleural or mediastinal air collections.", "PX:n"),
    ("No mediastinal air collections.", ""),
    ("No air in the pleural space.", "PX:n"),
    ("No pleural or mediastinal fluid collections.", "PE:n"),
    ("Rounded densities over the mediastinum are consistent with surgical clips.", "SD:p"),
    ("Density overlying the lower mediastinum, due to hiatal hernia.", ""),
    ("Density overlying the left 4th rib.", "LO:p"),
    ("Density overlying the left 4th rib may represent a nodule or a bone island.", "LO:p LL:u"),
    ("Lytic lesions in the ribs, likely metastases.", ""),
    ("Nodule over the left rib may represent metastasis.", "LL:p"),
    ("Left shoulder replacement.", "SD:p"),
    ("Fatty replacement of the thymus.", ""),
    ("Left PIC line ends in the low SVC.", "SD:p"),
    ("The clinical picture line is unchanged.", ""),
    ("Pleural based opacity in the right lower lobe.", "LO:p"),
    ("Pleural based opacity along the chest wall.", ""),
    ("Radiopaque density in the right upper abdomen.", ""),
    ("Punctate densities in the chest wall.", ""),
    ("Scar carcinoma.", "LL:p"),
    ("Pleural opacity consistent with thickening.", "PO:p"),
    ("Right pleural opacity with interlobular septal thickening.", ""),
    ("Left XXXX-A-XXXX is in XXXX.", "SD:p"),
    ("Nodule in the right lower lobe and hilar calcifications.", "LL:p"),
    ("Hilar calcifications and a nodule in the left lung.", "LL:p"),
    ("Nodule with calcifications in the left lung.", ""),
    ("Nodules are seen, most of which appear calcified.", "LL:p"),
    ("Multiple nodules, all of which are calcified.", ""),
    ("There is a nodule that is not definitively calcified.", "LL:p"),
    ("Pulmonary interstitium is prominent.", "LO:p"),
    ("Pleura: No thickening or effusion.", "PO:n PE:n"),
    ("Left pleural drain in place.", "SD:p"),
    ("Hilar and pulmonary vascular congestion.", "ED:p"),
    ("Right infrahilar airspace disease.", "LO:p"),
    ("Increased interstitial markings bilaterally.", "LO:p"),
    ("Biapical scarring.", "LO:p"),
    ("Left apical pleural thickening.", "PO:p"),
    ("Pleural plaques are present.", "PO:p"),
    ("Calcified granuloma in the right upper lobe.", ""),
    ("Calcified nodule in the left base.", ""),
    ("A 5 mm nodule which is calcified.", ""),
    ("Spiculated mass in the right upper lobe.", "LL:p"),
    ("Pericardial effusion is present.", ""),
    ("Bilateral hydrothorax.", "PE:p"),
    ("Hydropneumothorax on the right.", "PX:p PE:p"),
    ("Old healed rib fractures.", "FX:p"),
    ("Compression deformity of T8.", ""),
    ("Compression fracture of T8.", "FX:p"),
    ("Right upper lobe collapse.", "AT:p"),
    ("Fractured sternotomy wire.", "SD:p"),
    ("Sternotomy wires and surgical clips.", "SD:p"),
    ("Right PICC tip in the mid SVC.", "SD:p"),
    ("Dual lead pacemaker in place.", "SD:p"),
    ("The ET tube terminates 4 cm above the carina.", "SD:p"),
    ("Interval removal of the ET tube.", "SD:n"),
    ("The endotracheal tube has been removed.", "SD:n"),
    ("Soft tissue edema of the neck.", ""),
    ("Retrocardiac opacity.", "LO:p"),
    ("Portable AP radiograph.", ""),
    ("Congestive heart failure.", "ED:p"),
    ("Nonconsolidating airspace disease.", "CO:n LO:p"),
    ("Ground-glass opacities.", "LO:p"),
    ("The catheter is fractured near the clavicle.", "SD:p"),
    ("Nodule without calcification.", "LL:p"),
    ("Soft tissue density over the breast.", ""),
    ("Hilar mass.", "LL:p"),
    ("Loculated fluid on the left.", "PE:p"),
    ("Pleural-parenchymal scarring.", "PO:p LO:p"),
    ("No PNA.", "PN:n"),
    ("Pulmonary vessels are engorged.", "ED:p"),
    ("Interstitial markings are prominent.", "LO:p"),
    ("Fluid in the left costophrenic sulcus.", "PE:p"),
    ("Calcified pleural plaques.", "PO:p"),
    ("Superior mediastinal widening.", "EC:p"),
    ("Clavicle fracture with plate and screws.", "FX:p SD:p"),
    ("Vertebral body collapse.", ""),
    ("Loculated right pleural collection has decreased.", "PE:p"),
    ("No pleural air collection.", "PX:n"),
    ("Right haemothorax.", "PE:p"),
    ("The pleura is thickened.", "PO:p"),
    ("Fluid is tracking into the fissure.", "PE:p"),
    ("Old TB.", ""),
    ("Suspected aspergilloma in the left upper lobe.", "LL:u"),
    ("Bones without fracture or destructive lesion.", "FX:n"),
    ("An opacity is seen above the heart, in the anterior mediastinum.", ""),
    ("Density in the lower lobe in front of the posterior mediastinum.", "LO:p"),
    ("Prominence of soft tissue in the upper mediastinum.", "EC:p"),
    ("Nodular densities over the lower ribs are consistent with nipple shadows.", ""),
    ("Nodular opacity, likely a nipple shadow.", "LO:p"),
    ("Nodule consistent with a metastasis or nipple shadow.", "LL:p"),
    ("The lateral screw of the clavicle plate is fractured.", "SD:p"),
    ("A plate, with fracture of the most lateral fixation screw.", "SD:p"),
    ("Opacity at the base of the mediastinum, which is a hernia.", ""),
    ("Retrocardiac density compatible with hiatal hernia.", ""),
    ("Retrocardiac opacity suggestive of a hiatal hernia.", "LO:p"),
    ("No subglottic edema.", ""),
    ("Pleural thickening at the apex represents scarring.", "PO:p"),
    ("Dense foreign body over the chest wall.", ""),
    ("Metallic density foreign body in the soft tissues.", ""),
    ("No interstitial changes of pulmonary edema.", "ED:n"),
    ("Right apical pleural retraction.", "PO:p"),
    ("Opacity seen posterior to the heart, in the mediastinum.", ""),
    ("Bibasilar opacities, surgical clips in the mediastinum.", "LO:p SD:p"),
    ("Diffuse airspace opacities, no shift in the mediastinum.", "LO:p"),
    ("Opacity obscures structures in the mediastinum.", "LO:p"),
    ("Opacity in the mediastinum and left lung.", "LO:p"),
    ("Left lower lobe opacity with hiatal hernia.", "LO:p"),
    ("Left basilar opacity adjacent to a large hiatal hernia.", "LO:p"),
    ("Basilar opacity is unchanged and retrocardiac density is a hiatal hernia.", "LO:p"),
    ("Upper lobe opacity is worrisome for malignancy and there is a hiatal hernia.", "LO:p LL:u"),
    ("Opacity, retrocardiac density is a hiatal hernia.", "LO:p"),
    ("Retrocardiac opacity consistent with hiatal hernia and atelectasis.", "LO:p AT:p"),
    ("Nodular opacity does not represent a nipple shadow.", "LO:p"),
    ("Nodule in the right lung is inferior to the nipple.", "LL:p"),
    ("Two nodules are seen, one is the nipple and the other is new.", "LL:p"),
    ("Lower lobe nodule, further evaluation with nipple markers recommended.", "LL:p"),
    ("Nodular opacity consistent with nipple shadow or nodule.", "LO:p LL:u"),
    ("The plate of the clavicle fracture is intact.", "FX:p"),
    ("The screws of the right clavicle are fractured.", "SD:p"),
    ("Fractured right 5th rib under the pacer leads.", "FX:p SD:p"),
    ("The leads of the pacemaker overlie a fractured rib.", "FX:p SD:p"),
    ("Fracture of the right humerus transfixed by screws.", "FX:p SD:p"),
    ("Pleural thickening is unchanged adjacent to linear scar.", "PO:p LO:p"),
    ("Apical pleural thickening is seen and there is scarring in the left lung.", "PO:p LO:p"),
    ("Interstitial and peripheral edema pattern in the lungs.", "ED:p"),
    ("Known peripheral edema.", ""),
]
RESOLUTION = [
    ("Resolved effusion with associated atelectasis.", "PE:n AT:p"),
    ("In the visualized portions of the lungs consolidation is not seen.", "CO:n"),
    ("Most of the consolidation in the right lung has cleared.", "CO:p"),
    ("The left effusion has resolved.", "PE:n"),
    ("There has been interval resolution of the right pneumothorax.", "PX:n"),
    ("Previously seen edema is no longer seen.", "ED:n"),
    ("Interval clearing of the left lower lobe pneumonia.", "PN:n"),
    ("Resolving edema.", "ED:p"),
    ("Improved left effusion.", "PE:p"),
    ("The infiltrates and effusions have cleared.", "LO:n PE:n"),
    ("There was an effusion, which has resolved.", "PE:n"),
    ("Atelectasis has cleared on the left but persists on the right.", "AT:p"),
    ("The effusion has resolved, but the atelectasis persists.", "PE:n AT:p"),
    ("The effusion has resolved and the patient remains intubated.", "PE:n"),
    ("The edema has cleared but the patient remains intubated.", "ED:n"),
    ("The opacity consistent with pneumonia is no longer seen.", "LO:n PN:n"),
    ("The edema has spontaneously resolved.", "ED:n"),
    ("The left effusion resolved.", "PE:n"),
]
NO_MENTION = [
    ("Given history of COPD, CHF, and pneumonia, clinical correlation is recommended.", ""),
    ("Decubitus views confirm no effusion.", "PE:n"),
    ("In this patient with a history of malignancy, the nodule should be followed.", "LL:p"),
    ("Given the history of trauma, rib fracture cannot be excluded.", "FX:u"),
    ("Follow to ensure that there is no underlying mass.", ""),
    ("Follow-up shows that there is no mass.", "LL:n"),
    ("INDICATION: Evaluate for pneumonia.\nFINDINGS: Heart size is normal.", "CM:n"),
    ("HISTORY: Fracture, shortness of breath.\n\nIMPRESSION: No effusion.", "PE:n"),
    ("COMPARISON: Effusion on prior study.\nTECHNIQUE: PA and lateral, chest tube.\nFINDINGS: Clear lungs.", "LO:n"),
    ("REASON FOR EXAM: r/o pneumothorax FINDINGS: No effusion.", "PE:n"),
    ("Chest CT is recommended to rule out an underlying nodule.", ""),
    ("If there is clinical concern for fracture, dedicated views are recommended.", ""),
    ("Patient with a history of pneumonia.", ""),
    ("Correlate clinically for symptoms of infection.", ""),
    ("Sequela of prior tuberculosis.", ""),
    ("CT is more sensitive for detecting small nodules.", ""),
    ("If rib fracture is suspected, dedicated views may help.", ""),
    ("Rib fractures can be radiographically occult.", ""),
    ("Possible pneumonia. Repeat film to ensure resolution of pneumonia.", "PN:u"),
    ("Comparison: None.\nThe heart is normal in size. Small left effusion.", "CM:n PE:p"),
    ("COMPARISON: Effusion on ___. Small left effusion.", "PE:p"),
    ("COMPARISON: None. Small left effusion.\n\nThe heart is normal.", "PE:p CM:n"),
    ("COMPARISON: Effusion on ___\n\nThe heart is normal.", "CM:n"),
    ("Indication: Pneumonia. Comparison: None. Findings: No effusion.", "PE:n"),
    ("Indication: cough, fever Findings: No effusion.", "PE:n"),
    ("HISTORY: Fracture. Known nodule.\n\nIMPRESSION: No effusion.", "PE:n"),
    ("HISTORY: Fracture. Known nodule.\nIMPRESSION: No effusion.", "PE:n"),
    ("INDICATION: Pneumonia.\nNo effusion.", "PE:n"),
    ("FINDINGS: No effusion. INDICATION: Pneumonia. Fracture.", "PE:n"),
    ("COMPARISON: Radiograph of ___. CT which showed a nodule.\n\nFINDINGS: Clear lungs.", "LO:n"),
    ("COMPARISON: None. Heart size is normal.\nIMPRESSION: Small effusion.", "CM:n PE:p"),
    ("INDICATION: Pneumonia. The lungs are clear.", "LO:n"),
]
SETTLED = [
    ("Prior films were reviewed and pneumothorax was not seen on the current study.", "PX:n"),
    ("Possible old fracture of the left clavicle. No acute fracture.", "FX:u"),
    ("Questionable acute rib fracture. No acute fracture on dedicated views.", "FX:n"),
    ("Questionable rib fracture. Otherwise no fracture.", "FX:u"),
    ("Possible tiny pneumothorax. No pneumothorax otherwise.", "PX:u"),
    ("Questionable lung nodule. On the prior film the nodule was not seen.", "LL:u"),
    ("Questionable lung nodule. Compared with the old film, the nodule is not seen.", "LL:n"),
    ("Possible small left pneumothorax. Repeat view shows no pneumothorax.", "PX:n"),
    ("No effusion.\nSmall left effusion.", "PE:p"),
    ("Possible effusion.\nSmall left effusion.", "PE:p"),
    ("Left effusion. Possible right effusion.", "PE:p"),
    ("No pneumonia on the right. Possible pneumonia on the left.", "PN:u"),
    ("Opacity in the left base. No acute infiltrate.", "LO:p"),
    ("Possible right effusion. No left effusion.", "PE:u"),
    ("Possible small effusion. No large effusion.", "PE:u"),
    ("Possible scar in the lingula. No infiltrate.", "LO:u"),
    ("Possible congestion without frank edema.", "ED:u"),
    ("Possible nodule. No other nodules.", "LL:u"),
    ("Questionable rib fracture. No displaced fracture.", "FX:u"),
    ("Concerning for infection. No active tuberculosis.", "PN:u"),
    ("Possible infection. No pneumonia or tuberculosis.", "PN:n"),
]
ROUGH = [
    ("NO FOCAL CONSOLIDATION, PLEURAL EFFUSION OR PNEUMOTHORAX.", "CO:n PE:n PX:n"),
    ("1. No pneumothroax. 2. Small efusion.", "PX:n PE:p"),
    ("1.Cardiomegaly.2.No effusion.", "CM:p PE:n"),
    ("Mild cardiomegally", "CM:p"),
    ("The lungs are clear.No effusion.Heart size is normal.", "LO:n PE:n CM:n"),
    ("There is a 2.5 cm mass.No effusion", "LL:p PE:n"),
    ("No XXXX focal consolidation or ___ effusion.", "CO:n PE:n"),
    ("Air space opacity in the right lower-lobe", "LO:p"),
    ("There is mild pulmonary\nedema. No pleural\neffusion.", "ED:p PE:n"),
    ("FINDINGS: There is no consolidation, pleural effusion or evidence of\npneumothorax.", "CO:n PE:n PX:n"),
    ("Heart size normal\nNo effusion", "CM:n PE:n"),
]
ALL = NEGATION + SCOPE_ENDS + PSEUDO + HEDGES + ANATOMY + VOCABULARY + RESOLUTION + NO_MENTION + SETTLED + ROUGH


@pytest.mark.parametrize(("report", "said"), ALL, ids=[r[:50].replace("\n", " ") for r, _ in ALL])
def test_wording(report: str, said: str) -> None:
    assert labels(report) == expected(said)


NORMAL = [
    "There is a lucency along the right lung base due to a skin fold.",
    "Heart size is normal. Lungs are clear. No effusion or pneumothorax.",
    "Normal chest.",
    "No acute cardiopulmonary abnormality.",
    "PICC tip in the SVC. The lungs are clear.",
    "The heart is at the upper limits of normal. No acute disease.",
    "No evidence of emphysema. The spine shows no degenerative change.",
    "Heart size is normal. Prominent left epicardial fat. Lungs are clear.",
    "Postsurgical changes in the lower lumbar spine. Lungs are clear.",
    "Stable abdominal postsurgical changes. Normal heart.",
    "The postoperative cardiomediastinal silhouette is normal in size. Sternotomy wires.",
    "Cervical spine fusion hardware. No effusion.",
]
ABNORMAL = [
    "Lucency at the right base, skin fold versus bulla.",
    "Bridging syndesmophytes are noted.",
    "Right-sided aortic arch.",
    "Pleural disease is stable.",
    "Calcified granuloma. Otherwise normal.",
    "The lungs are hyperinflated.",
    "Mild scoliosis. Lungs are clear.",
    "Degenerative changes of the spine.",
    "Tortuous aorta.",
    "Small hiatal hernia.",
    "Possible pneumonia.",
    "Borderline heart size.",
    "Mild cardiomegaly.",
    "Clear lungs. Old rib fracture.",
    "Mediastinal lymphadenopathy.",
    "Kerley B lines.",
    "Findings of aspiration.",
    "Postsurgical changes of the left lung.",
    "Postoperative changes of a right lobectomy.",
    "Old fusion of T5 and T6.",
    "Lytic lesion in the posterior left 4th rib.",
]


@pytest.mark.parametrize("report", NORMAL)
def test_no_finding_where_nothing_is_asserted(report: str) -> None:
    assert no_finding(report)


@pytest.mark.parametrize("report", ABNORMAL)
def test_no_finding_is_vetoed_by_any_asserted_abnormality(report: str) -> None:
    assert not no_finding(report)


def test_blank_report_says_nothing() -> None:
    assert (LABELER.label(["", " \n "]).values == Certainty.ABSENT).all()


PLAIN = NEGATION + SCOPE_ENDS + PSEUDO + HEDGES + VOCABULARY + RESOLUTION
sentence = st.sampled_from([r for r, _ in PLAIN if ":" not in r])
UNRELATED = ["The trachea is midline.", "The patient is rotated.", "Two views were obtained.", "Bowel gas is normal."]


@given(sentence, st.sampled_from(["", ".", " .", "..", "\n"]), st.sampled_from([str.upper, str.lower, str.title, str]))
@settings(max_examples=200, deadline=None)
def test_case_and_full_stop_never_matter(report: str, ending: str, case: object) -> None:
    changed = case(report.rstrip(".")) + ending  # type: ignore[operator]
    assert labels(changed) == labels(report)


@given(sentence, st.sampled_from(UNRELATED), st.booleans())
@settings(max_examples=150, deadline=None)
def test_an_unrelated_sentence_changes_nothing(report: str, other: str, first: bool) -> None:
    report = report if report.endswith(".") else report + "."
    assert labels(f"{other} {report}" if first else f"{report} {other}") == labels(report)


@given(st.lists(sentence, min_size=1, max_size=6), st.sampled_from([" ", "\n", "\n\n"]))
@settings(max_examples=150, deadline=None)
def test_the_answer_never_contradicts_itself(parts: list[str], gap: str) -> None:
    report = gap.join(p if p.endswith(".") else p + "." for p in parts)
    values = LABELER.label([report]).values
    assert (CHEXPERT14.consistent(values) == values).all()
    positive = {k for part in parts for k, v in labels(part).items() if v == "p"}
    assert {k for k, v in labels(report).items() if v == "p"} == positive  # a positive is never lost, none invented


@given(
    st.lists(st.one_of(sentence, st.text(max_size=12), st.sampled_from(["1.", ":", "___", "XXXX", "\n"])), max_size=12)
)
@settings(max_examples=200, deadline=None)
def test_any_text_is_labelled_and_explained_within_its_bounds(parts: list[str]) -> None:
    report = " ".join(parts)
    values = LABELER.label([report]).values[0]
    assert all(CHEXPERT14.allowed[i, v] for i, v in enumerate(values))
    for mention in LABELER.explain(report):
        assert report[slice(*mention.span)] == mention.phrase != ""
        assert mention.sentence[0] <= mention.span[0] < mention.span[1] <= mention.sentence[1] <= len(report)
        assert mention.cue is None or mention.cue in report


def test_sentences_cut_and_joined_anywhere_are_labelled() -> None:
    """Wording that nobody thought of: the beginning of one sentence, the end of another."""
    rng = np.random.default_rng(0)
    for _ in range(4000):
        one, other = (ALL[i][0].split() for i in rng.integers(len(ALL), size=2))
        report = " ".join(one[: rng.integers(len(one) + 1)] + other[rng.integers(len(other) + 1) :])
        values = LABELER.label([report]).values
        assert (CHEXPERT14.consistent(values) == values).all()


@pytest.mark.timeout(20)
def test_a_text_without_sentences_takes_no_quadratic_time() -> None:
    words = " ".join(f"{w}{i % 7}, effusion or opacity{'' if i % 3 else ' no'}" for i, w in enumerate(["mass"] * 4000))
    assert LABELER.label([words]).values[0, CHEXPERT14.index("Pleural Effusion")] != Certainty.ABSENT


def test_explain_names_phrase_cue_and_place() -> None:
    report = "FINDINGS: Mild cardiomegaly. No pneumothroax.\nIMPRESSION: Opacity, likely atelectasis."
    assert LABELER.explain(report)[1] == Mention(
        "Pneumothorax", Certainty.NEGATIVE, "pneumothroax", "No", (32, 44), (29, 44)
    )
    said = {m.finding: (m.certainty, m.phrase, m.cue) for m in LABELER.explain(report)}
    assert said["Cardiomegaly"] == (Certainty.POSITIVE, "cardiomegaly", None)
    assert said["Atelectasis"] == (Certainty.UNCERTAIN, "atelectasis", "likely")


def test_explain_shows_what_forbids_no_finding() -> None:
    (mention,) = LABELER.explain("There is a hiatal hernia.")
    assert (mention.finding, mention.certainty, mention.phrase) == (NO_FINDING, Certainty.ABSENT, "hernia")


def test_every_decision_has_its_mention() -> None:
    for report, said in ALL:
        explained = {(m.finding, LETTER.get(m.certainty)) for m in LABELER.explain(report)}
        assert {(SHORT[k], v) for k, v in expected(said).items()} <= explained


def test_thirteen_findings_are_the_fourteen_without_devices() -> None:
    reports = [r for r, _ in ALL]
    keep = [i for i, n in enumerate(CHEXPERT14.names) if n in PAPER13.names]
    assert (RuleLabeler(PAPER13).label(reports).values == LABELER.label(reports).values[:, keep]).all()


def test_custom_findings_follow_their_phrases() -> None:
    findings = FindingSet("own", ("Hernia", "Airspace Opacity", "Pleural Effusion", "Bronchiectasis", NO_FINDING))
    labeler = RuleLabeler(
        findings, {"Hernia": ["hiatal hernia", "intrathoracic stomach"], "Pleural Effusion": ["PE-X"]}
    )
    report = "No hiatal hernias. Possible intrathoracic stomach. Patchy opacity. No PE-X. Bronchiectasis."
    expect = [Certainty.UNCERTAIN, Certainty.POSITIVE, Certainty.NEGATIVE, Certainty.POSITIVE, Certainty.ABSENT]
    assert labeler.label([report]).values.tolist() == [expect]
    assert labeler.label(["No effusion."]).values[0, 2] == Certainty.NEGATIVE


def test_custom_findings_change_nothing_about_the_others() -> None:
    """The user's phrases are found within ours ("rib fracture") and take none of them away."""
    phrases = {"Rib Fracture": ("rib fracture",), "Effusion Size": ("large effusion",), "Scoliosis": ("scoliosis",)}
    findings = FindingSet("own", (*PAPER13.names[:-1], *phrases, NO_FINDING), phrases=phrases)
    labeler = RuleLabeler(findings)
    keep = [findings.index(n) for n in PAPER13.names]
    reports = [r for r, _ in ALL]
    np.testing.assert_array_equal(
        labeler.label(reports).values[:, keep[:-1]], RuleLabeler(PAPER13).label(reports).values[:, :-1]
    )
    values = labeler.label(["Old rib fracture. No large effusion, scoliosis or pneumothorax."]).values[0]
    said = {n: Certainty(int(v)).word for n, v in zip(findings.names, values) if v != Certainty.ABSENT}
    assert said == {
        "Fracture": "positive",
        "Rib Fracture": "positive",
        "Pneumothorax": "negative",
        "Pleural Effusion": "negative",
        "Effusion Size": "negative",
        "Scoliosis": "negative",
    }


def test_a_renamed_finding_keeps_its_rules() -> None:
    findings = FindingSet("own", ("Fluid", NO_FINDING), {"Pleural Effusion": "Fluid"}, {"Fluid": ("wet pleura",)})
    labeler = RuleLabeler(findings)
    reports = ["Small effusion.", "No wet pleura.", "Lungs are clear."]
    assert labeler.label(reports).values[:, 0].tolist() == [Certainty.POSITIVE, Certainty.NEGATIVE, Certainty.ABSENT]
    assert [m.finding for m in labeler.explain(reports[0])] == ["Fluid"]
    assert labeler.fingerprint() != RuleLabeler(FindingSet("own", ("Fluid", NO_FINDING))).fingerprint()


@pytest.mark.parametrize("phrases", [{"Hernia": ["hernia"]}, {NO_FINDING: ["normal"]}, {"Edema": ["(wet) lung"]}])
def test_phrases_that_cannot_be_used_are_refused(phrases: dict[str, list[str]]) -> None:
    with pytest.raises(UserError, match="phrases"):
        RuleLabeler(PAPER13, phrases)


def test_pickle_and_fingerprint() -> None:
    labeler = RuleLabeler(PAPER13, {"Edema": ["wet lung"]})
    copy = pickle.loads(pickle.dumps(labeler))
    assert copy.fingerprint() == labeler.fingerprint() != RuleLabeler(PAPER13).fingerprint()
    assert copy.label(["No wet lung."]).values[0, PAPER13.index("Edema")] == Certainty.NEGATIVE


def test_labels_come_in_order_and_do_not_depend_on_the_batch() -> None:
    reports = [r for r, _ in ALL]
    batch = LABELER.label(reports).values
    assert batch.dtype == np.int8
    assert batch.shape == (len(reports), 14)
    assert all((LABELER.label([r]).values[0] == row).all() for r, row in zip(reports[::7], batch[::7]))

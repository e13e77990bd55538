"""MIMIC-CXR's section rules, on made-up reports of exactly that layout (a blank before each line)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite_chex.data.sections import (
    findings_and_impression,
    join_sections,
    section_name,
    split_sections,
    text_to_label,
    unwrapped,
)

USUAL = """\
                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old man with cough  // evaluate for pneumonia

 COMPARISON:  Radiograph of ___.

 FINDINGS:

 The right lung base is hazy.  The left lung is well aerated and without any
 focal change.

 Small fluid collection on the right.

 IMPRESSION:

 1. Haze at the right base.
 2. Small right effusion, which has not changed
 since ___.
""".replace("\n\n", "\n \n")


def names(text: str) -> list[str]:
    return [section.name for section in split_sections(text)]


def test_the_usual_report() -> None:
    assert names(USUAL) == ["examination", "indication", "comparison", "findings", "impression"]
    findings, impression = findings_and_impression(USUAL)
    assert findings is not None
    assert findings.startswith("The right lung base")
    assert findings.endswith("on the right.")
    assert impression is not None
    assert impression.startswith("1. Haze")


def test_lines_are_joined_but_paragraphs_and_items_stay_apart() -> None:
    findings, impression = findings_and_impression(USUAL)
    assert unwrapped(findings or "") == (
        "The right lung base is hazy. The left lung is well aerated and without any focal change.\n"
        "Small fluid collection on the right."
    )
    assert unwrapped(impression or "") == (
        "1. Haze at the right base.\n2. Small right effusion, which has not changed since ___."
    )


@pytest.mark.parametrize(
    ("text", "labelled"),
    [
        ("INDICATION: Rib fracture after fall.", ""),
        ("HISTORY: Pneumonia, rule out pneumothorax.\n\nCOMPARISON: None.", ""),
        ("EXAMINATION: Chest.\n\nFINDINGS:\n\nIMPRESSION:\n\nINDICATION: Effusion?", ""),
        ("WET READ: No effusion.\n\nINDICATION: Effusion?", "No effusion."),
    ],
)
def test_a_question_is_never_the_report(text: str, labelled: str) -> None:
    assert text_to_label(text) == labelled


def test_the_text_to_label_has_no_indication() -> None:
    text = text_to_label(USUAL)
    assert "pneumonia" not in text
    assert text.startswith("The right lung base")
    assert text.endswith("since ___.")


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("CONCLUSION", "impression"),
        ("IMPRESSON", "impression"),
        ("FINDINGS AND IMPRESSION", "impression"),
        ("FINDINGS/IMPRESSION", "impression"),
        ("PORTABLE CHEST", "findings"),
        ("PA AND LATERAL VIEWS OF THE CHEST", "findings"),
        ("CHEST, TWO VIEWS", "findings"),
        ("UPRIGHT PORTABLE RADIOGRAPH", "findings"),
        ("REASON FOR EXAMINATION", "indication"),
        ("CLINICAL HISTORY", "history"),
        ("COMPARISON FILM", "comparison"),
        ("RECOMMENDATION(S)", "recommendations"),
        ("NOTE", "note"),
    ],
)
def test_names_are_normalised(header: str, name: str) -> None:
    assert section_name(header) == name


def test_conclusion_and_view_names() -> None:
    text = " FINAL REPORT\n HISTORY:  Fever.\n \n PORTABLE CHEST:  The lungs are hazy.\n \n CONCLUSION:  Haze.\n"
    assert findings_and_impression(text) == ("The lungs are hazy.", "Haze.")


def test_the_last_of_a_kind_wins() -> None:
    text = " FINDINGS:  First look.\n \n IMPRESSION:  One.\n \n FINDINGS:  Second look.\n \n IMPRESSION:  Two.\n"
    assert findings_and_impression(text) == ("Second look.", "Two.")


def test_an_empty_section_does_not_win() -> None:
    text = " CHEST, PA AND LATERAL:\n \n INDICATION:  Cough.\n \n FINDINGS:  Clear.\n \n IMPRESSION:\n"
    assert findings_and_impression(text) == ("Clear.", None)


def test_no_header_is_the_full_report() -> None:
    text = "The lungs are clear. The heart is of usual size."
    assert [(s.name, s.text) for s in split_sections(text)] == [("full report", text)]
    assert findings_and_impression(text) == (None, None)
    assert text_to_label(text) == text


def test_neither_findings_nor_impression_is_the_last_paragraph() -> None:
    text = (
        "                                 FINAL REPORT\n INDICATION:  Fever.\n \n COMPARISON:  None.\n \n"
        " Heart of usual size.  Clear\n lungs.\n"
    )
    assert names(text) == ["indication", "comparison", "last paragraph"]
    assert findings_and_impression(text) == (None, None)
    assert text_to_label(text) == "Heart of usual size. Clear lungs."


def test_an_addendum_ends_at_the_underscore_line() -> None:
    text = (
        " ADDENDUM  The IMPRESSION is changed.\n \n IMPRESSION:  Text of the addendum.\n"
        " ______________________________________________________________________________\n"
        "                                 FINAL REPORT\n COMPARISON:  None.\n \n FINDINGS:  Clear lungs.\n"
    )
    assert names(text) == ["addendum", "comparison", "findings"]
    assert findings_and_impression(text) == ("Clear lungs.", None)


def test_an_underscore_line_without_an_addendum_cuts_nothing() -> None:
    text = " FINDINGS:  Clear.\n ____________________\n IMPRESSION:  Normal.\n"
    assert findings_and_impression(text)[1] == "Normal."


def test_a_mask_is_no_header_and_no_rule() -> None:
    assert names("XXXX: something\n___\nmore") == ["full report"]


def test_capitals_with_a_colon_inside_a_line_are_no_header() -> None:
    text = " FINDINGS:  Tip of the ETT: 3 cm above. NOTE: seen before.\n \n IMPRESSION:  Lines in place.\n"
    assert names(text) == ["findings", "impression"]


def test_a_view_right_under_an_empty_examination_is_its_content() -> None:
    text = " EXAMINATION:\n CHEST (PA AND LAT):\n \n FINDINGS:  Clear.\n"
    assert findings_and_impression(text) == ("Clear.", None)
    assert names(text) == ["examination", "findings"]


def test_a_report_flattened_to_one_line() -> None:
    text = "INDICATION: Cough. COMPARISON: None. FINDINGS: No effusion. IMPRESSION: Normal."
    assert findings_and_impression(text) == ("No effusion.", "Normal.")
    assert findings_and_impression(text.partition("None. ")[2]) == ("No effusion.", "Normal.")
    assert text_to_label(text) == "No effusion.\nNormal."


def test_title_case_headers_at_a_line_start() -> None:
    assert findings_and_impression("Findings: Clear lungs.\n\nImpression: Normal.") == ("Clear lungs.", "Normal.")
    assert findings_and_impression("**Findings:** Clear.\n**Impression:** Normal.") == ("Clear.", "Normal.")
    assert findings_and_impression("These findings: none. My impression: normal.") == (None, None)


def test_windows_line_ends() -> None:
    assert findings_and_impression(USUAL.replace("\n", "\r\n"))[1] is not None
    text = " INDICATION:  Fever.\n \n COMPARISON:  None.\n \n Clear.\n".replace("\n", "\r\n")
    assert text_to_label(text) == "Clear."


def test_joining() -> None:
    assert join_sections("a ", " b") == "a\nb"
    assert join_sections(None, "b") == "b"
    assert join_sections("", None) == ""


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "FINDINGS:",
                "IMPRESSION:",
                " ",
                "\n",
                "\n \n",
                "Clear lungs.",
                "PORTABLE CHEST:",
                "ADDENDUM",
                "_" * 30,
                "\t",
            ]
        ),
        max_size=25,
    ).map("".join)
)
def test_every_section_stands_where_it_says(text: str) -> None:
    sections = split_sections(text)
    assert sum(section.text.count("Clear lungs.") for section in sections) == text.count("Clear lungs.")
    end = 0
    for section in sections:
        assert section.text == section.text.strip() != ""
        assert text[section.start : section.start + len(section.text)] == section.text
        assert section.start >= end
        end = section.start + len(section.text)


STANFORD = """\
NARRATIVE:
CHEST ONE VIEW 1/1/2011
CLINICAL HISTORY: Fall.
FINDINGS: Portable film.
IMPRESSION:
1. NEW FLUID ON THE LEFT.
END OF IMPRESSION:
SUMMARY: 2-ABNORMAL, PREVIOUSLY REPORTED
"""


def test_a_summary_is_the_impression_only_where_there_is_no_other() -> None:
    assert findings_and_impression(STANFORD)[1] == "1. NEW FLUID ON THE LEFT."
    assert text_to_label(STANFORD) == "Portable film.\n1. NEW FLUID ON THE LEFT."
    for name in ("SUMMARY", "OPINION"):
        assert findings_and_impression(f"FINDINGS: Wet.\n{name}: Edema.\n") == ("Wet.", "Edema.")


@pytest.mark.parametrize(
    ("header", "name"),
    [("FINDNGS", "findings"), ("IMPERSSION", "impression"), ("COMPARSION", "comparison"), ("IDICATION", "indication")],
)
def test_mimics_misspelt_headers(header: str, name: str) -> None:
    assert section_name(header) == name


def test_a_report_written_under_comparison_is_read_and_a_mere_prior_is_not() -> None:
    head = " FINAL REPORT\n INDICATION:  Cough.\n \n COMPARISON:  "
    assert text_to_label(f"{head}Radiograph ___.  There is new fluid on the\n left.\n").endswith(
        "new fluid on the left."
    )
    for prior in ("None.", "Radiograph ___.", "Radiograph ___.  CT of ___."):
        assert text_to_label(f"{head}{prior}\n") == ""
    assert text_to_label(f"{head}Radiograph ___.  There is fluid.\n \n FINDINGS:  Clear.\n") == "Clear."

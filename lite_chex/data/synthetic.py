"""Seeded synthetic chest X-ray reports with gold labels that are right by construction.

A report is a list of statements; each statement knows which findings it marks, and as what. The gold
labels follow from the statements (never from reading the text), under CheXpert's convention: a
statement made later that settles an earlier one wins, No Finding is positive only where nothing
abnormal is asserted. No patient data: every sentence comes from the closed lists of
:mod:`lite_chex.data.synthetic_phrases`.
"""

from __future__ import annotations

import argparse
import csv
import functools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lite_chex.data import synthetic_phrases as P
from lite_chex.data.splits import normalised_text
from lite_chex.data.synthetic_grammar import Draft, Mark, Statement, draft_report, noun_phrase, sentence_case
from lite_chex.findings import CHEXPERT14, LabelArray, to_code

Length = Literal["short", "mixed"]
SAMPLE_SEED = 7
LAYOUTS = ("prose", "headed", "numbered", "telegraphic", "masked", "xxxx", "capitals", "list")
LAYOUT_WEIGHTS = (26, 22, 10, 12, 9, 9, 5, 7)


@dataclass(frozen=True)
class SyntheticReport:
    """One report. labels: int8 ``[14]`` in CHEXPERT14's order; style: the layout's name.

    findings_text / impression_text: the two sections, "" where the layout has none (prose is all findings).
    """

    study_id: str
    patient_id: str
    text: str
    findings_text: str
    impression_text: str
    labels: LabelArray
    style: str


@dataclass(frozen=True)
class _Rendered:
    sentences: list[tuple[str, tuple[Mark, ...]]]
    findings_text: str
    impression_text: str
    text: str
    layout: str


def _typo(rng: random.Random, text: str) -> str:
    """Drop, double or swap one letter of one long word that is no cue."""
    words = text.split(" ")
    cues = ("without", "cannot", "possib", "evidence", "negativ", "resolv", "question")
    long = [i for i, w in enumerate(words) if len(w) > 6 and w.isalpha() and not w.lower().startswith(cues)]
    if not long:
        return text
    i = rng.choice(long)
    word, at = words[i], rng.randrange(1, len(words[i]) - 2)
    kinds = (word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:],
             word[:at] + word[at + 1] + word[at] + word[at + 2 :])  # fmt: skip
    words[i] = rng.choice(kinds)
    return " ".join(words)


def _terse(text: str) -> str:
    for opening in ("There is a ", "There is an ", "There is ", "There are ", "The ", "A ", "An "):
        if text.startswith(opening):
            text = text[len(opening) :]
            break
    for ending in (" is seen.", " is present.", " are present.", " are seen.", " is noted."):
        text = text.removesuffix(ending) + "." if text.endswith(ending) and "No " not in text else text
    return sentence_case(text)


def _surface(rng: random.Random, text: str, layout: str) -> str:
    """One statement as its institution writes it."""
    mask = {"masked": "___", "xxxx": "XXXX"}.get(layout) or rng.choice(("prior study", "yesterday", "last month"))
    text = text.replace("{mask}", mask)
    if layout in ("masked", "xxxx"):
        for name in ("left apex", "today", "yesterday", "last week", "lingula", "sixth", "mid thoracic", "standard"):
            if name in text and rng.random() < 0.7:
                text = text.replace(name, mask)
        if rng.random() < 0.15 and mask not in text:
            text = f"{text[:-1]} as of {mask}." if text.endswith(".") and ":" not in text else text
    if layout == "telegraphic":
        text = _terse(text)
    if rng.random() < 0.05:
        text = _typo(rng, text)
    return text.upper() if layout == "capitals" else text


def _restate(rng: random.Random, draft: Draft) -> list[Statement]:
    """Impression lines that say again what the findings said."""
    said = [(f, c) for f, c in draft.labels.items() if c != "n" and f != P.SD]
    settled = {f for s in draft.tail for f, _ in s.marks}
    out = []
    for finding, certainty in said[:3]:
        if finding not in settled and rng.random() < 0.6:
            frames = ("{np}.", "{np} as above.") if certainty == "p" else ("Possible {np}.", "{np} cannot be excluded.")
            out.append(
                Statement(noun_phrase(rng, finding, modified=False).fill(rng.choice(frames)), ((finding, certainty),))
            )
    return out


def _lines(parts: Sequence[str], layout: str) -> str:
    if layout == "list":
        return "\n".join(f"- {p}" for p in parts)
    if layout == "numbered":
        return "\n".join(f"{i}. {p}" for i, p in enumerate(parts, 1))
    return " ".join(parts)


def _render(rng: random.Random, draft: Draft, long: bool) -> _Rendered:
    point = rng.randrange(sum(LAYOUT_WEIGHTS))
    layout = next(n for i, n in enumerate(LAYOUTS) if point < sum(LAYOUT_WEIGHTS[: i + 1]))
    sections = layout in ("headed", "numbered") or (layout in ("masked", "xxxx", "capitals") and rng.random() < 0.5)
    body, tail = list(draft.body), list(draft.tail)
    if sections and long:
        tail = _restate(rng, draft) + tail
    if sections and not tail and len(body) > 1 and body[-1].marks and rng.random() < 0.8:
        tail = [body.pop()]
    said = [(_surface(rng, s.text, layout), s.marks) for s in (*draft.head, *body, *tail)]
    texts = [t for t, _ in said]
    n_head, n_body = len(draft.head), len(body)
    head, found, closing = texts[:n_head], texts[n_head : n_head + n_body], texts[n_head + n_body :]
    if not sections:
        whole = _lines(texts, layout)
        return _Rendered(said, whole, "", whole, layout)
    f_text, i_text = " ".join(found), _lines(closing, layout)
    blocks = [" ".join(head)] if head else []
    breaks = "\n" if layout in ("masked", "numbered") else " "
    blocks += [f"FINDINGS:{breaks}{f_text}"] if found else []
    blocks += [f"IMPRESSION:{breaks}{i_text}"] if closing else []
    return _Rendered(said, f_text, i_text, "\n".join(blocks) if rng.random() < 0.7 else " ".join(blocks), layout)


def _one(rng: random.Random, style: Length) -> tuple[Draft, _Rendered]:
    size = "short" if style == "short" else rng.choice(("short", "medium", "medium", "long"))
    sentences = {"short": 1 + rng.choice((0, 1, 1, 1, 2, 2, 2, 3)), "medium": 4 + rng.randrange(4)}.get(size)
    draft = draft_report(rng, sentences or 9 + rng.randrange(8))
    return draft, _render(rng, draft, long=size != "short")


def _stream(rng: random.Random, style: Length, seen: set[str]) -> Iterator[tuple[Draft, _Rendered]]:
    """Endless distinct reports: none of a text in ``seen``, to which each is added."""
    while True:
        draft, rendered = _one(rng, style)
        key = normalised_text(rendered.text)
        if key not in seen:
            seen.add(key)
            yield draft, rendered


def _reports(n: int, seed: int, style: Length, seen: set[str], tag: str) -> list[SyntheticReport]:
    rng = random.Random(f"{seed}:{style}:{tag}")
    out: list[SyntheticReport] = []
    patient = 0
    for i, (draft, made) in zip(range(n), _stream(rng, style, seen)):
        patient += i == 0 or rng.random() < 0.8  # some patients come back
        out.append(
            SyntheticReport(f"{tag}{i:05d}", f"{tag.rstrip('-')}-p{patient:05d}", made.text, made.findings_text,
                            made.impression_text, draft.gold(), made.layout)
        )  # fmt: skip
    return out


def generate(n: int, seed: int, style: Length = "mixed") -> list[SyntheticReport]:
    """``n`` distinct reports; the same ones on every machine and Python version.

    style: "short" is 1 to 4 sentences; "mixed" is short, medium and long (up to about 150 words).
    """
    return _reports(n, seed, style, set(), f"syn{seed}-")


SAMPLE_FILES: tuple[tuple[str, int, Length, bool], ...] = (
    ("train", 1200, "short", False), ("validation", 200, "short", True), ("preference", 400, "short", True),
    ("test", 600, "short", True), ("mixed", 150, "mixed", True), ("preference_more", 800, "short", True),
    ("train_more", 3600, "short", False),
)  # fmt: skip


def samples(seed: int) -> dict[str, list[SyntheticReport]]:
    """The reports of each sample file; no patient and no text is in two of them."""
    seen: set[str] = set()
    return {name: _reports(n, seed, style, seen, name) for name, n, style, _ in SAMPLE_FILES}


def write_samples(out: Path, seed: int) -> None:
    """Write ``data_samples/``: the reports of each file, and gold labels of all but train."""
    out.mkdir(parents=True, exist_ok=True)
    made = samples(seed)
    for name, _, _, gold in SAMPLE_FILES:
        rows = [(r.study_id, r.patient_id, r.text) for r in made[name]]
        _write_csv(out / f"reports_{name}.csv", [("study_id", "patient_id", "report"), *rows])
        if gold:
            labels = [(r.study_id, *(to_code(int(v)) for v in r.labels)) for r in made[name]]
            _write_csv(out / f"gold_{name}.csv", [("study_id", *CHEXPERT14.names), *labels])


def _write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)


@functools.cache
def _sample_texts() -> frozenset[str]:
    return frozenset(normalised_text(r.text) for rows in samples(SAMPLE_SEED).values() for r in rows)


def base_corpus(n: int, seed: int) -> Iterator[str]:
    """``n`` texts to pre-train a tiny base on: no report of the samples, and no label.

    Half are reports; half add a reading task, whose answer is a sentence of the report (or "none"). So
    the base learns to find the sentence about a finding, and never sees what it says as a certainty.
    """
    rng = random.Random(f"base:{seed}")
    seen = set(_sample_texts())
    streams = (_stream(rng, "short", seen), _stream(rng, "mixed", seen))
    for _ in range(n):
        made = next(streams[rng.random() < 0.35])[1]
        if rng.random() < 0.5:
            yield made.text
            continue
        mentioned = list(dict.fromkeys(f for _, marks in made.sentences for f, _ in marks))
        ask = mentioned if mentioned and rng.random() < 0.7 else list(P.QUESTIONED)
        finding = rng.choice(ask)
        answer = next((t for t, marks in made.sentences if any(f == finding for f, _ in marks)), "none")
        yield f"{made.text}\n\nQ: which sentence mentions {P.QUESTIONED[finding]}?\nA: {answer}"


def reading_corpus(n: int, seed: int) -> Iterator[tuple[str, dict[str, str]]]:
    """``n`` short reports, each with the first sentence that mentions each finding ("none" where none does).

    The same reading task as :func:`base_corpus`, for all findings at once; no certainty is in it either.
    """
    rng = random.Random(f"reading:{seed}")
    stream = _stream(rng, "short", set(_sample_texts()))
    for _ in range(n):
        made = next(stream)[1]
        found = {
            f: next((t for t, marks in made.sentences if any(m == f for m, _ in marks)), "none") for f in P.QUESTIONED
        }
        yield made.text, found


def main() -> None:
    """``python -m lite_chex.data.synthetic OUT_DIR --seed 7``."""
    parser = argparse.ArgumentParser(description="Write the synthetic sample data.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=SAMPLE_SEED)
    args = parser.parse_args()
    write_samples(args.out, args.seed)


if __name__ == "__main__":
    main()

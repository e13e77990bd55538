"""One annotation session, without the web: what comes next for whom, what a judgement may say, progress."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from lite_chex import __version__
from lite_chex.annotate.agreement import disagreements
from lite_chex.annotate.evidence import Evidence
from lite_chex.annotate.guideline import guideline
from lite_chex.annotate.items import NO_ANSWER, Answer, Draft, Item, make_item
from lite_chex.annotate.sampling import first_is_left, ordered, shown_to_all, unit
from lite_chex.annotate.store import SKIP, Judgement, Store
from lite_chex.errors import UserError
from lite_chex.findings import CERTAINTY_WORDS, FindingSet, findings_option

PACE_WINDOW = 20
HELD_SECONDS = 900.0
"""For so long an item on somebody's screen is theirs, where items are not shown to all."""
VERDICTS = {
    "compare": ("left", "right", "tie", "both_wrong", SKIP),
    "review": ("done", SKIP),
    "label": ("done", SKIP),
    "adjudicate": ("done", SKIP),
}
FILLED_IN = {
    "compare": ("corrections", "agreed_right"),
    "review": ("marks", "format"),
    "label": ("labels",),
    "adjudicate": ("labels",),
}
"""What an undone judgement puts back on the page; the rest of its detail names systems."""
_NAME_LENGTH, _COMMENT_LENGTH = 60, 2000


class Refused(ValueError):
    """The page sent something that cannot be a judgement; the text is for the annotator."""


@dataclass(frozen=True)
class Progress:
    """done and total items of one annotator; pace: median seconds of the last judgements, or None."""

    done: int
    total: int
    pace: float | None


class Session:
    """The items of one task, and the judgements on them.

    Args:
        task: one of ``compare``, ``review``, ``label``, ``adjudicate``.
        drafts: the items, in any order.
        seed: of the order and of the sides.
        versions: of the inputs, stored with each judgement.
        overlap: the share of items that every annotator judges; the rest goes to whoever comes first.
    """

    def __init__(
        self,
        task: str,
        drafts: Sequence[Draft],
        store: Store,
        findings: FindingSet,
        *,
        seed: int = 0,
        versions: Mapping[str, Any] | None = None,
        overlap: float = 1.0,
        opinions: Mapping[str, Sequence[Judgement]] | None = None,
    ) -> None:
        self.task, self.store, self.findings, self.seed = task, store, findings, seed
        self.versions = {"lite_chex": __version__, **(versions or {})}
        self.overlap = overlap
        self._opinions = opinions or {}
        self._drafts = {d.item.key: d for d in ordered(drafts, seed)}
        self._evidence = Evidence(findings)
        self._on_screen: dict[str, tuple[str, float]] = {}  # annotator -> item and since when
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._drafts)

    def config(self) -> dict[str, Any]:
        """What the page needs to know once."""
        return {
            "task": self.task,
            "findings": list(self.findings.names),
            "words": list(CERTAINTY_WORDS),
            "allowed": [[w for w, ok in zip(CERTAINTY_WORDS, row) if ok] for row in self.findings.allowed],
            "guideline": guideline(self.findings),
        }

    def next(self, annotator: str, message: str = "") -> dict[str, Any]:
        """The annotator's next item (None when all is done) and progress."""
        annotator = _name(annotator)
        with self._lock:
            draft, progress = self._next(annotator)
        item = None if draft is None else self._view(draft, annotator, None)
        return {"item": item, "progress": asdict(progress), "message": message}

    def judge(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Commit a judgement, then give the next item.

        body: ``annotator``, ``item`` (its key), ``verdict``, ``request``, ``comment``, ``seconds`` and the
        task's own fields; of a comparison also ``shown``, as it came with the item.

        Raises:
            Refused: if it is not a judgement on an item of this session.
        """
        annotator, request = _name(body.get("annotator")), _request(body)
        draft = self._drafts.get(str(body.get("item")))
        if draft is None:
            raise Refused("This item is not part of the session that is running now; reload the page.")
        verdict = body.get("verdict")
        if verdict not in VERDICTS[self.task]:
            raise Refused(f"The verdict must be one of {', '.join(VERDICTS[self.task])}.")
        comment = str(body.get("comment") or "")[:_COMMENT_LENGTH].encode("utf-8", "replace").decode()
        self.store.add(
            item=draft.item,
            annotator=annotator,
            verdict=str(verdict),
            request=request,
            detail=self._detail(draft, annotator, str(verdict), body),
            comment=comment,
            seconds=_seconds(body.get("seconds")),
            seed=self.seed,
            versions=self.versions,
        )
        return self.next(annotator)

    def undo(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Take back the annotator's last judgement, and show its item again as it was filled in."""
        annotator, request = _name(body.get("annotator")), _request(body)
        mine = self.store.judgements(self.task, annotator)
        if not mine or mine[-1].item not in self._drafts:
            return self.next(annotator, "There is nothing to take back.")
        undone = self.store.undo(self.task, annotator, request)
        if undone is None:
            return self.next(annotator, "There is nothing to take back.")
        with self._lock:
            _, progress = self._next(annotator)
            self._on_screen[annotator] = (undone.item, time.monotonic())
        view = self._view(self._drafts[undone.item], annotator, undone)
        return {"item": view, "progress": asdict(progress), "message": "Taken back; judge it again."}

    def _next(self, annotator: str) -> tuple[Draft | None, Progress]:
        standing = [j for j in self.store.judgements(self.task) if j.item in self._drafts]
        mine = {j.item: j for j in standing if j.annotator == annotator}
        others = {j.item for j in standing if j.annotator != annotator and j.verdict != SKIP}
        now = time.monotonic()
        held = {key for who, (key, since) in self._on_screen.items() if who != annotator and now - since < HELD_SECONDS}
        drafts = list(self._drafts.values())
        if self.task == "review":
            drafts = ordered(drafts, self.seed, annotator)
        open_drafts = []
        for draft in drafts:
            key = draft.item.key
            # Few disagreements are left to one expert: one that is only looked at is kept for nobody.
            taken = key in others or (key in held and self.task != "adjudicate")
            if key not in mine and (not taken or shown_to_all(self.seed, key, self.overlap)):
                open_drafts.append(draft)
        times = [j.seconds for j in sorted(mine.values(), key=lambda j: j.id)[-PACE_WINDOW:] if j.seconds]
        progress = Progress(len(mine), len(mine) + len(open_drafts), round(median(times), 1) if times else None)
        if not open_drafts:
            self._on_screen.pop(annotator, None)
            return None, progress
        self._on_screen[annotator] = (open_drafts[0].item.key, now)
        return open_drafts[0], progress

    def _sides(self, draft: Draft, annotator: str) -> dict[str, Answer]:
        first, second = draft.item.answers
        if not first_is_left(self.seed, annotator, draft.item.key):
            first, second = second, first
        return {"left": first, "right": second}

    def _view(self, draft: Draft, annotator: str, previous: Judgement | None) -> dict[str, Any]:
        """What the page shows; no system is named here."""
        item = draft.item
        view: dict[str, Any] = {
            "key": item.key,
            "study_id": item.study_id,
            "report": [asdict(s) for s in self._evidence.segments(item.report)],
            "previous": None,
        }
        if previous:
            filled = {key: previous.detail.get(key) for key in FILLED_IN[self.task]}
            view["previous"] = {**filled, "comment": previous.comment}
        if self.task == "compare":
            sides = self._sides(draft, annotator)
            view |= {side: self._words(answer.text) for side, answer in sides.items()}
            view["shown"] = _digest(sides)
        elif self.task == "review":
            view["answer"] = self._words(item.answers[0].text)
        elif self.task == "label":
            view["draft"] = self._words(item.answers[0].text) if item.answers else None
            view["probabilities"] = None if draft.probabilities is None else draft.probabilities.round(3).tolist()
        else:
            view |= self._opinions_view(item)
        return view

    def _words(self, answer: str) -> list[str] | None:
        if answer == NO_ANSWER:
            return None
        given = json.loads(answer)
        return [given[name] for name in self.findings.names]

    def _opinions_view(self, item: Item) -> dict[str, Any]:
        """Both annotators' labels under A and B, drawn by the seed; agreed cells are the draft."""
        both = list(self._opinions[item.key])
        if unit(self.seed, "opinion", item.key) < 0.5:
            both.reverse()
        labels = [list(j.detail["labels"]) for j in both]
        return {
            "opinions": [{"name": name, "labels": words} for name, words in zip("AB", labels)],
            "draft": [a if a == b else None for a, b in zip(*labels)],
            "probabilities": None,
        }

    def _detail(self, draft: Draft, annotator: str, verdict: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if self.task == "compare":
            sides = self._sides(draft, annotator)
            if body.get("shown") != _digest(sides):  # else the verdict would be kept for the other answer
                raise Refused(
                    "This pair is shown otherwise now; reload the page: it comes again where it is not judged yet."
                )
            shown = {side: {"answer": a.text, "systems": list(a.systems)} for side, a in sides.items()}
            corrections = self._corrections(body.get("corrections") or {})
            return {**shown, "corrections": corrections, "agreed_right": body.get("agreed_right") is True}
        if self.task == "review":
            answer = draft.item.answers[0]
            marks = self._marks(answer.text, body.get("marks"))
            broken = answer.text == NO_ANSWER or body.get("format") is True
            return {"answer": answer.text, "system": answer.systems[0], "marks": marks, "format": broken}
        if verdict == SKIP:
            return {}
        return {"labels": self._labels(body.get("labels"))}

    def _corrections(self, given: Any) -> dict[str, str]:
        if not isinstance(given, Mapping) or not set(given) <= set(self.findings.names):
            raise Refused("A correction names a finding that is not in the set.")
        for name, word in given.items():
            self._check_word(name, word)
        return dict(given)

    def _marks(self, answer: str, given: Any) -> list[str]:
        words = self._words(answer)
        if words is None:
            return ["" for _ in self.findings.names]
        if not isinstance(given, Sequence) or len(given) != len(words):
            raise Refused("There must be one mark, or an empty one, for each finding.")
        for name, word, mark in zip(self.findings.names, words, given):
            fits = ("", "missed") if word == "absent" else ("", "hallucinated", "wrong_certainty")
            if mark not in fits:
                raise Refused(
                    f"{name} is {word} in this answer: its mark can only be {' or '.join(filter(None, fits))}."
                )
        return list(given)

    def _labels(self, given: Any) -> list[str]:
        names = self.findings.names
        if not isinstance(given, Sequence) or len(given) != len(names):
            raise Refused("There must be one label for each finding.")
        for name, word in zip(names, given):
            if word != "x":
                self._check_word(name, word)
        present = any(w in ("positive", "uncertain") for w, v in zip(given, self.findings.vetoing) if v)
        if self.findings.has_no_finding and given[-1] == "positive" and present:
            raise Refused("No Finding cannot be positive beside a finding that is positive or uncertain.")
        return list(given)

    def _check_word(self, name: str, word: object) -> None:
        allowed = self.findings.allowed[self.findings.index(name)]
        if word not in [w for w, ok in zip(CERTAINTY_WORDS, allowed) if ok]:
            raise Refused(f"{name} cannot have this label.")


def adjudication(store: Store, findings: FindingSet, *, seed: int = 0) -> Session:
    """A session on the label items of the store on which two annotators differ; one adjudicator decides each.

    Raises:
        UserError: if there is none of these findings.
    """
    open_items = disagreements(store.judgements("label"))
    kept = store.items("label")
    opinions, drafts = {}, []
    for key, both in open_items.items():
        old = kept[key]
        if old.finding_set != findings.name:
            continue
        item = make_item("adjudicate", findings, old.study_id, old.report, ())
        opinions[item.key] = both
        drafts.append(Draft(item))
    if not drafts:
        others = sorted({kept[key].finding_set for key in open_items})
        hint = f"; they do with {findings_option(others[0])}" if others else ""
        raise UserError(f"{store.path}: no report on which two annotators' {findings.name} labels differ{hint}")
    return Session("adjudicate", drafts, store, findings, seed=seed, overlap=0.0, opinions=opinions)


def _digest(sides: Mapping[str, Answer]) -> str:
    """Of the two answers as they stand; the page sends it back, so that a verdict says what was on screen."""
    return hashlib.sha256("\x1f".join((sides["left"].text, sides["right"].text)).encode()).hexdigest()[:16]


def _name(value: object) -> str:
    # One spelling of one name: macOS and Windows may type an ü as two characters or as one.
    name = unicodedata.normalize("NFC", " ".join(str(value or "").split()))
    if not name or len(name) > _NAME_LENGTH or not name.isprintable():
        raise Refused(f"Give your name, up to {_NAME_LENGTH} characters.")
    return name


def _seconds(value: object) -> float | None:
    """The time that a page gives; None where it is no number that the store and JSON can hold."""
    try:
        seconds = float(value) if isinstance(value, (int, float)) else math.inf
    except OverflowError:  # an integer of hundreds of digits
        return None
    return round(seconds, 2) if math.isfinite(seconds) else None


def _request(body: Mapping[str, Any]) -> str:
    request = str(body.get("request") or "")
    if not 8 <= len(request) <= 64 or not request.isprintable():
        raise Refused("The page sent no request id; reload it.")
    return request

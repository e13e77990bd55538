"""Comparisons to and from Label Studio (its Pairwise tag), for teams that already judge there.

A task's data holds the report, both answers as readable lines and as the JSON that training needs, and the
item's key. Label Studio has no tie of its own: the labelling configuration adds two choices for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lite_chex.annotate.items import Answer, Draft, Item, make_item
from lite_chex.annotate.sampling import first_is_left
from lite_chex.annotate.store import SKIP, Judgement, Store
from lite_chex.data.files import atomic_path
from lite_chex.errors import UserError
from lite_chex.findings import FindingSet, findings_option

LABELING_CONFIG = """<View>
  <Header value="Which answer fits the report better?"/>
  <Text name="report" value="$report"/>
  <Pairwise name="preference" toName="answer1,answer2"/>
  <View style="display: flex; gap: 2em">
    <Text name="answer1" value="$text1"/>
    <Text name="answer2" value="$text2"/>
  </View>
  <Choices name="verdict" toName="report" choice="single-radio">
    <Choice value="tie"/>
    <Choice value="both wrong"/>
  </Choices>
  <TextArea name="comment" toName="report" placeholder="Comment"/>
</View>
"""
_CHOICES = {"tie": "tie", "both wrong": "both_wrong"}


@dataclass(frozen=True)
class Imported:
    """What an import did: judgements added, and annotations that say nothing."""

    judgements: int
    empty: int


def export_tasks(drafts: Sequence[Draft], path: Path, seed: int) -> int:
    """Write open pairs as tasks to judge in Label Studio, most informative first; returns their number.

    Which answer is the left one is drawn by the seed; the systems are not named.
    """
    tasks = [{"data": _data(d.item, _by_side(d.item, first_is_left(seed, "label-studio", d.item.key)))} for d in drafts]
    _write(path, tasks)
    return len(tasks)


def export_judgements(store: Store, path: Path) -> int:
    """Write the store's comparisons as annotated tasks; returns the number of annotations.

    An item has one task, with the sides of its first annotator; others' verdicts are turned to those.
    """
    items = store.items("compare")
    tasks: dict[str, dict[str, Any]] = {}
    judgements = store.judgements("compare")
    for judgement in judgements:
        left = judgement.detail["left"]["answer"]
        task = tasks.get(judgement.item)
        if task is None:
            item = items[judgement.item]
            data = _data(item, _by_side(item, item.answers[0].text == left))
            task = tasks[judgement.item] = {"data": data, "annotations": []}
        task["annotations"].append(_annotation(judgement, same_sides=task["data"]["answer1"] == left))
    _write(path, list(tasks.values()))
    return len(judgements)


def import_judgements(store: Store, path: Path, findings: FindingSet) -> Imported:
    """Read a JSON export of Label Studio into the store; reading it again adds what was changed since.

    Raises:
        UserError: if it is no such export, or a task was not written by :func:`export_tasks` for these findings.
    """
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give the JSON export of the Label Studio project") from None
    except ValueError:
        tasks = None
    if not isinstance(tasks, list):
        raise UserError(f"{path}: is not a JSON list of tasks; export the project as JSON (not JSON-MIN)")
    known = store.items("compare")
    before, empty = store.history(), 0
    for number, task in enumerate(tasks):
        item, sides = _item(task, number, path, findings)
        item = known.get(item.key, item)
        systems = {answer.text: answer.systems for answer in item.answers}
        shown = {side: {"answer": text, "systems": list(systems[text])} for side, text in sides.items()}
        for position, annotation in enumerate(task.get("annotations") or []):
            verdict, comment = _verdict(annotation)
            if verdict is None:
                empty += 1
                continue
            state = _state(annotation, verdict, comment)
            seconds = annotation.get("lead_time")
            store.add(
                item=item,
                annotator=_annotator(annotation),
                verdict=verdict,
                request=f"label-studio:{item.key}:{annotation.get('id', position)}:{state}",
                detail={**shown, "corrections": {}, "agreed_right": False},
                comment=comment,
                seconds=float(seconds) if isinstance(seconds, (int, float)) else None,
                versions={"source": "label-studio"},
                at=annotation.get("created_at"),
            )
    return Imported(store.history() - before, empty)


def _by_side(item: Item, first_left: bool) -> tuple[Answer, Answer]:
    first, second = item.answers
    return (first, second) if first_left else (second, first)


def _data(item: Item, sides: tuple[Answer, Answer]) -> dict[str, str]:
    data = {"item": item.key, "study_id": item.study_id, "findings": item.finding_set, "report": item.report}
    for number, answer in enumerate(sides, start=1):
        data[f"answer{number}"] = answer.text
        data[f"text{number}"] = "\n".join(f"{name}: {word}" for name, word in json.loads(answer.text).items())
    return data


def _annotation(judgement: Judgement, same_sides: bool) -> dict[str, Any]:
    verdict = judgement.verdict
    result: list[dict[str, Any]] = []
    if verdict in ("left", "right"):
        side = verdict if same_sides else {"left": "right", "right": "left"}[verdict]
        value: dict[str, Any] = {"selected": side}
        result.append({"type": "pairwise", "from_name": "preference", "to_name": "answer1,answer2", "value": value})
    elif verdict != SKIP:
        value = {"choices": [verdict.replace("_", " ")]}
        result.append({"type": "choices", "from_name": "verdict", "to_name": "report", "value": value})
    if judgement.comment:
        value = {"text": [judgement.comment]}
        result.append({"type": "textarea", "from_name": "comment", "to_name": "report", "value": value})
    return {
        "id": judgement.id,
        "completed_by": {"email": judgement.annotator},
        "created_at": judgement.at,
        "lead_time": judgement.seconds,
        "was_cancelled": verdict == SKIP,
        "result": result,
    }


def _item(task: Any, number: int, path: Path, findings: FindingSet) -> tuple[Item, dict[str, str]]:
    """The item of a task (rebuilt, so that a store that never saw it can take it), and its answers by side."""
    data = task.get("data") if isinstance(task, Mapping) else None
    needed = ("item", "study_id", "findings", "report", "answer1", "answer2")
    missing = [key for key in needed if not isinstance(data, Mapping) or not isinstance(data.get(key), str)]
    if data is None or missing:
        raise UserError(
            f'{path}: task {number} (the first is 0) has no "{missing[0]}"; '
            "its tasks must come from `litechex annotate compare --label-studio`"
        )
    if data["findings"] != findings.name:
        option = findings_option(str(data["findings"]))
        raise UserError(f"{path}: task {number} has the findings {data['findings']}; give {option}")
    for side in ("answer1", "answer2"):
        if findings.from_json(data[side]) is None:
            raise UserError(f'{path}: task {number} (the first is 0): "{side}" is no answer to these findings')
    answers = (Answer(data["answer1"], ()), Answer(data["answer2"], ()))
    item = make_item("compare", findings, data["study_id"], data["report"], answers)
    if item.key != data["item"]:
        raise UserError(f"{path}: task {number} (the first is 0): report or answers are not those that were exported")
    return item, {"left": data["answer1"], "right": data["answer2"]}


def _verdict(annotation: Mapping[str, Any]) -> tuple[str | None, str]:
    verdict, comment = (SKIP if annotation.get("was_cancelled") else None), ""
    for result in annotation.get("result") or []:
        value = result.get("value") or {}
        if result.get("type") == "pairwise" and value.get("selected") in ("left", "right"):
            verdict = value["selected"]
        elif result.get("type") == "choices" and verdict is None:
            verdict = _CHOICES.get((value.get("choices") or [""])[0])
        elif result.get("type") == "textarea":
            comment = "\n".join(value.get("text") or [])
    return verdict, comment


def _state(annotation: Mapping[str, Any], verdict: str, comment: str) -> str:
    """Of what an annotation says: one that was changed in Label Studio is a new judgement, and the latest stands."""
    said = json.dumps([verdict, comment, annotation.get("updated_at")], ensure_ascii=False)
    return hashlib.sha256(said.encode()).hexdigest()[:12]


def _annotator(annotation: Mapping[str, Any]) -> str:
    by = annotation.get("completed_by")
    if isinstance(by, Mapping):
        by = by.get("email") or by.get("id")
    return "label-studio" if by is None else str(by) if isinstance(by, str) else f"label-studio-{by}"


def _write(path: Path, tasks: list[dict[str, Any]]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(tasks, ensure_ascii=False, indent=1), encoding="utf-8")

"""Ten short reports of our own, two versions' labels of them, judgements on them, and a server to show them with."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from lite_chex.annotate.items import Answer, Item, make_item
from lite_chex.annotate.store import Store
from lite_chex.findings import CERTAINTY_WORDS, PAPER13, to_code

HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> "
    "<b>No pneumothorax</b> &amp; heart size is normal. {{7*7}} </textarea><|im_end|>"
)
REPORTS = {
    "s0": HOSTILE,
    "s1": "The heart is mildly enlarged. There is a small left pleural effusion. No pneumothorax is seen.",
    "s2": "Patchy opacity in the right lower lobe, which may represent pneumonia. Heart size is normal.",
    "s3": "The lungs are clear. No effusion or pneumothorax. Normal cardiac silhouette.",
    "s4": "Mild pulmonary edema with bilateral effusions. Cardiomegaly is unchanged.",
    "s5": "Linear atelectasis at the left base. No consolidation.",
    "s6": "Healed fracture of the right sixth rib. No acute disease.",
    "s7": "A nodule in the left upper lobe is suspicious for malignancy. No effusion.",
    "s8": "Pleural thickening at the right apex. The lungs are otherwise clear.",
    "s9": "Widened mediastinum. Cannot exclude consolidation at the right base.",
}
# Version "sft" calls everything the rules would miss absent; "ppo" is right but for report s6, where both agree.
RIGHT = {
    "s0": {"Pneumothorax": "negative", "Cardiomegaly": "negative"},
    "s1": {"Cardiomegaly": "positive", "Pleural Effusion": "positive", "Pneumothorax": "negative"},
    "s2": {"Lung Opacity": "positive", "Pneumonia": "uncertain", "Cardiomegaly": "negative"},
    "s3": {"Pleural Effusion": "negative", "Pneumothorax": "negative", "Cardiomegaly": "negative"},
    "s4": {"Edema": "positive", "Pleural Effusion": "positive", "Cardiomegaly": "positive"},
    "s5": {"Atelectasis": "positive", "Consolidation": "negative"},
    "s6": {"Fracture": "positive"},
    "s7": {"Lung Lesion": "uncertain", "Pleural Effusion": "negative"},
    "s8": {"Pleural Other": "positive"},
    "s9": {"Enlarged Cardiomediastinum": "positive", "Consolidation": "uncertain"},
}
WRONG = {
    **{study: dict(list(words.items())[:-1]) for study, words in RIGHT.items()},
    "s2": {"Lung Opacity": "positive", "Pneumonia": "positive", "Edema": "positive"},
    "s4": {"Pleural Effusion": "positive", "Cardiomegaly": "negative", "Fracture": "uncertain"},
    "s6": RIGHT["s6"],
}
RIGHT["s3"]["No Finding"] = "positive"


def words(given: dict[str, str]) -> list[str]:
    return [given.get(name, "absent") for name in PAPER13.names]


def answer(given: dict[str, str]) -> str:
    return PAPER13.to_json([CERTAINTY_WORDS.index(w) for w in words(given)])


def write_version(path: Path, labels: dict[str, dict[str, str]], confidence: float | None = None) -> Path:
    """A label file, with probability columns where a confidence is given."""
    header = ["study_id", *PAPER13.names]
    if confidence is not None:
        header += [f"p_{name}_{word}" for name in PAPER13.names for word in CERTAINTY_WORDS]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for study, given in labels.items():
            row = [study, *(to_code(CERTAINTY_WORDS.index(w)) for w in words(given))]
            if confidence is not None:
                rest = (1 - confidence) / 3
                row += [f"{confidence if w == k else rest:.4f}" for w in words(given) for k in CERTAINTY_WORDS]
            writer.writerow(row)
    return path


@dataclass(frozen=True)
class Files:
    folder: Path
    reports: Path
    sft: Path
    ppo: Path

    @property
    def predictions(self) -> tuple[str, ...]:
        return (f"sft={self.sft}", f"ppo={self.ppo}")


def write_files(folder: Path) -> Files:
    reports = folder / "reports.csv"
    with reports.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["study_id", "report"])
        writer.writerows(REPORTS.items())
    sft = write_version(folder / "sft.csv", WRONG, confidence=0.7)
    return Files(folder, reports, sft, write_version(folder / "ppo.csv", RIGHT, confidence=0.97))


numbers = count()


def an_item(task: str, study: str, systems: tuple[str, ...] = ("sft", "ppo")) -> Item:
    given = {"sft": answer(WRONG[study]), "ppo": answer(RIGHT[study])}
    return make_item(task, PAPER13, study, REPORTS[study], tuple(Answer(given[s], (s,)) for s in systems))


def compare(store: Store, study: str, verdict: str, who: str = "Ann", left: str = "sft", **more: Any) -> None:
    item = an_item("compare", study)
    by_system = {a.systems[0]: {"answer": a.text, "systems": list(a.systems)} for a in item.answers}
    sides = {"left": by_system[left], "right": by_system["ppo" if left == "sft" else "sft"]}
    detail = {**sides, "corrections": {}, "agreed_right": False, **more}
    store.add(item=item, annotator=who, verdict=verdict, request=f"request-{next(numbers)}", detail=detail)


def put_labels(
    store: Store,
    study: str,
    given: list[str],
    who: str,
    task: str = "label",
    item: Item | None = None,
    verdict: str = "done",
) -> None:
    item = item or an_item(task, study, ())
    detail = {"labels": given} if verdict == "done" else {}
    store.add(item=item, annotator=who, verdict=verdict, request=f"request-{next(numbers)}", detail=detail)


def put_review(store: Store, system: str, marks: list[str], broken: bool, who: str = "Ann", study: str = "s1") -> None:
    item = an_item("review", study, (system,))
    detail = {"answer": item.answers[0].text, "system": system, "marks": marks, "format": broken}
    store.add(item=item, annotator=who, verdict="done", request=f"request-{next(numbers)}", detail=detail)


# Runs the command line with every connection and look-up but the loopback's refused.
NO_NETWORK = """
import sys
LOCAL = ("127.0.0.1", "localhost", "::1", "0.0.0.0", "", None)
def refuse(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in LOCAL:
        sys.exit(f"NETWORK: connect {arguments[1]}")
    if event == "socket.getaddrinfo" and arguments[0] not in LOCAL:
        sys.exit(f"NETWORK: look-up of {arguments[0]}")
sys.addaudithook(refuse)
import lite_chex.cli.annotate
from lite_chex.cli import main
main()
"""


@dataclass
class Server:
    """A running `litechex annotate …` (or another command that serves) of its own process."""

    arguments: list[str]
    group: tuple[str, ...] = ("annotate",)
    process: subprocess.Popen[str] = field(init=False)
    url: str = field(init=False, default="")
    seen: list[str] = field(init=False, default_factory=list)

    def start(self) -> Server:
        command = [sys.executable, "-c", NO_NETWORK, *self.group, *self.arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.seen.append(line)
            if line.startswith("Open http"):
                self.url = line.split()[1]
                return self
        raise AssertionError("the server did not start: " + "".join(self.seen))

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def interrupt(self) -> str:
        """Ctrl-C; returns what it prints until it ends."""
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate()[0]

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, str, dict[str, str]]:
        return self._request(urllib.request.Request(self._address(path), headers=headers or {}))

    def post(self, path: str, body: object, headers: dict[str, str] | None = None) -> tuple[int, str, dict[str, str]]:
        return self.send(path, json.dumps(body).encode(), headers)

    def send(self, path: str, content: bytes, headers: dict[str, str] | None = None) -> tuple[int, str, dict[str, str]]:
        sent = {"Content-Type": "application/json", **(headers or {})}
        return self._request(urllib.request.Request(self._address(path), content, sent))

    def _address(self, path: str) -> str:
        return self.url.split("?")[0].rstrip("/") + path

    def _request(self, request: urllib.request.Request) -> tuple[int, str, dict[str, str]]:
        try:
            with _OPENER.open(request, timeout=20) as response:
                return response.status, response.read().decode(), dict(response.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), dict(error.headers)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)

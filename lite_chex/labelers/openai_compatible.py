"""Any OpenAI-compatible server as a labeler (the paper's GPT-4 row): vLLM, llama.cpp, or a paid service.

Our own exports are asked with the message that they were trained on and held to their grammar, which vLLM and
llama.cpp take. Any other server is asked for a JSON-schema answer. One that refuses the schema, or takes no notice
of it (``transformers serve``), is asked for the object in words; its answer is searched for the object, and asked
for again where there is none. No Finding is set to absent where the answer contradicts itself. PhysioNet's
agreement forbids sending MIMIC reports to third parties, so an address that is not this machine's is refused
unless the user says that these reports may be sent. No redirect is followed, and for a local address no proxy of the
environment is used: both would carry reports elsewhere than where they may go.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

import numpy as np

from lite_chex.data.records import Report
from lite_chex.errors import UserError
from lite_chex.findings import NO_FINDING, Certainty, FindingSet, LabelArray
from lite_chex.labelers.base import TOO_LONG, LabelBatch
from lite_chex.labelers.registry import ServerOptions
from lite_chex.prompt import instruction, user_message

if TYPE_CHECKING:
    import openai

OPENAI_URL = "https://api.openai.com/v1"
CHARACTERS_PER_TOKEN = 4
"""A rule of thumb for English with GPT-like tokenizers; reports with many numbers need more tokens."""
UNREADABLE = "the server's answer is not the JSON that was asked for"
ASK_AGAIN = 2
"""How often an unreadable answer is asked for again."""
TRIAL_REPORT = "The lungs are clear."
"""Nobody's, and readable for any model: whether a server refuses this one too tells what is wrong."""
_REFUSES_SCHEMA = re.compile(r"response_format|json_schema|structured_outputs|grammar", re.I)


@dataclass(frozen=True)
class Estimate:
    """What a run will take, by :data:`CHARACTERS_PER_TOKEN`; cost is None without prices."""

    reports: int
    input_tokens: int
    output_tokens: int
    cost: float | None

    def __str__(self) -> str:
        cost = (
            "give --input-price and --output-price for a cost" if self.cost is None else f"cost about {self.cost:,.2f}"
        )
        return (
            f"{self.reports:,} reports: about {self.input_tokens:,} input and {self.output_tokens:,} output tokens "
            f"({CHARACTERS_PER_TOKEN} characters each); {cost}"
        )


def question(findings: FindingSet) -> str:
    """The system message: our own model's instruction, and the keys that ours is never asked to know."""
    text = f"{instruction(findings)} Its keys are: {', '.join(findings.names)}."
    if findings.has_no_finding:
        text += (
            f" {NO_FINDING} is positive only where no other finding is positive or uncertain (devices aside) "
            "and nothing else is abnormal; otherwise it is absent."
        )
    return text


def in_words(findings: FindingSet) -> str:
    """What stands in for the JSON schema where a server has no use for one."""
    skeleton = json.dumps(dict.fromkeys(findings.names, "…"), ensure_ascii=False)
    return f"Write nothing but this object, each … replaced: {skeleton}"


def read_answer(text: str, findings: FindingSet) -> LabelArray | None:
    """Labels of an answer that may stand between other words, in a code fence or behind its reasoning."""
    said = text.rpartition("</think>")[2]
    start = said.find("{")
    while start >= 0:
        end = said.find("}", start)
        labels = findings.from_json(said[start : end + 1]) if end >= 0 else None
        if labels is not None:
            return labels
        start = said.find("{", start + 1)
    return None


def is_loopback(url: str) -> bool:
    """True where the address can only be this machine; a name other than localhost is never trusted."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class OpenAILabeler:
    """Labels through an OpenAI-compatible server; requests of a batch run ``concurrency`` at a time.

    Raises:
        UserError: if the package ``openai`` is missing, the address is not this machine's and
            ``may_send`` is False, or a key is needed and missing.
    """

    name = "openai"

    def __init__(self, model: str, findings: FindingSet, server: ServerOptions) -> None:
        self.model, self.findings, self.server = model, findings, server
        self.url = server.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
        self._question = question(findings)
        self._schema = True
        """False once the server refused a request for its schema or grammar."""
        self._client = self._connect()

    def _connect(self) -> Any:
        local = is_loopback(self.url)
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise UserError(f'--base-url: "{self.url}" is no web address; it looks like http://localhost:8000/v1')
        if not local and not self.server.may_send:
            raise UserError(
                f"--base-url: {self.url} is not this machine, and reports would leave it; data use agreements such as "
                "PhysioNet's forbid that for MIMIC. Where you may, say so with --i-may-send-these-reports"
            )
        key = os.environ.get(self.server.api_key_env)
        if not key and not local:
            raise UserError(f"{self.server.api_key_env}: this environment variable is not set; it must hold the key")
        try:
            import openai
        except ImportError as error:
            raise UserError('the openai labeler needs a package more: pip install "lite-chex[openai]"') from error
        http = openai.DefaultHttpxClient(trust_env=not local, follow_redirects=False)
        return openai.OpenAI(
            base_url=self.url, api_key=key or "local", max_retries=self.server.retries, http_client=http
        )

    def fingerprint(self) -> str:
        asked = json.dumps([self._messages(""), self.server.grammar or self.findings.json_schema()])
        return f"openai {self.url} {self.model} {hashlib.sha256(asked.encode()).hexdigest()}"

    def estimate(self, reports: Iterable[Report]) -> Estimate:
        """Tokens and cost of labelling these reports."""
        n = characters = 0
        for report in reports:
            if report.text.strip():
                n, characters = n + 1, characters + len(report.text)
        answer = self.findings.to_json([Certainty.UNCERTAIN] * len(self.findings))
        tokens = (characters + n * len(self._question)) // CHARACTERS_PER_TOKEN
        answers = n * len(answer) // CHARACTERS_PER_TOKEN
        prices = (self.server.input_price, self.server.output_price)
        cost = None if None in prices else (tokens * (prices[0] or 0) + answers * (prices[1] or 0)) / 1e6
        return Estimate(n, tokens, answers, cost)

    def label(self, reports: Sequence[str]) -> LabelBatch:
        """Label a batch.

        Raises:
            UserError: if the server cannot be reached, refuses the key or the model, or refuses every request
                of the batch and a made-up report too: then something other than the reports is wrong.
        """
        batch, stopped = self.label_some(reports)
        if stopped:
            raise stopped
        return batch

    def label_some(self, reports: Sequence[str]) -> tuple[LabelBatch, BaseException | None]:
        """Label a batch, or its first reports and what ended it there, Ctrl-C or a UserError: answers cost money."""
        answers, stopped = self._answers(reports)
        refused = [a for a in answers if isinstance(a, _Refused)]
        if refused and len(refused) == len(answers) and not all(r.too_long for r in refused):
            stopped = stopped or self._tried()
            answers = [] if stopped else answers
        return self._batch(answers), stopped

    def _tried(self) -> BaseException | None:
        """What ends the run where the server refuses a made-up report too; None where it takes that one: then those
        of the batch, which may be one alone, are to blame."""
        answers, stopped = self._answers([TRIAL_REPORT])
        for answer in answers:
            if isinstance(answer, _Refused):
                return UserError(
                    f"{self.url}: the server refused every request of a batch (HTTP {answer.status}); "
                    "it must serve chat completions. Run again to go on"
                )
        return stopped

    def _answers(self, reports: Sequence[str]) -> tuple[list[_Answer], BaseException | None]:
        stopped: BaseException | None = None
        pool = ThreadPoolExecutor(min(self.server.concurrency, len(reports)))
        asked = [pool.submit(self._ask, report) for report in reports]
        try:
            for future in asked:
                future.result()
        except (KeyboardInterrupt, UserError) as error:
            stopped = error
            # What is under way is waited for: all that was asked is then answered. A second Ctrl-C ends the wait.
            with suppress(KeyboardInterrupt):
                pool.shutdown(cancel_futures=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return [future.result() for future in takewhile(_has_answer, asked)], stopped

    def _batch(self, answers: Sequence[_Answer]) -> LabelBatch:
        values = np.full((len(answers), len(self.findings)), Certainty.ABSENT, dtype=np.int8)
        errors: list[str | None] = [None] * len(answers)
        for i, answer in enumerate(answers):
            if isinstance(answer, _Refused):
                errors[i] = answer.reason
                continue
            if answer is None:
                errors[i] = UNREADABLE
            else:
                values[i] = self.findings.consistent(answer)
        return LabelBatch(values, None, tuple(errors) if any(errors) else None)

    def _ask(self, report: str) -> _Answer:
        """The labels of a report; None where no answer was readable."""
        messages = asked = self._messages(report)
        for _ in range(1 + ASK_AGAIN):
            answer = self._complete(messages)
            if isinstance(answer, _Refused):
                return answer
            labels = read_answer(answer, self.findings)
            if labels is not None:
                return labels
            again = {"role": "user", "content": f"That was not the object. {in_words(self.findings)}"}
            messages = [*asked, {"role": "assistant", "content": answer}, again]
        return None

    def _messages(self, report: str) -> list[dict[str, str]]:
        if self.server.grammar:
            return [{"role": "user", "content": user_message(self.findings, report)}]
        return [{"role": "system", "content": self._question}, {"role": "user", "content": report}]

    def _complete(self, messages: list[dict[str, str]]) -> str | _Refused:
        """One answer; where the server refuses the schema, asked for without it from then on."""
        if self._schema:
            answer = self._request(messages, self._constraint())
            if not (isinstance(answer, _Refused) and answer.schema):
                return answer
            self._schema = False
        if not self.server.grammar:  # of a model which knows the object
            messages = [{"role": "system", "content": f"{self._question} {in_words(self.findings)}"}, *messages[1:]]
        return self._request(messages, {})

    def _constraint(self) -> dict[str, Any]:
        """What holds the answer to its form. A schema leaves white space free, which a model that was trained on the
        decisions alone never learnt to leave out: it may write nothing else. Its grammar has none."""
        if self.server.grammar:  # llama.cpp's name for it, and vLLM's; either takes no notice of the other
            grammar = self.server.grammar
            body = {"grammar": grammar, "structured_outputs": {"grammar": grammar}}
            # vLLM would take the base's from an export that still names it; llama.cpp's own is none.
            return {"extra_body": body | {"repetition_penalty": 1.0}}
        schema = {"name": "chexpert_labels", "strict": True, "schema": self.findings.json_schema()}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}

    def _request(self, messages: list[dict[str, str]], extra: dict[str, Any]) -> str | _Refused:
        import openai

        # OpenAI's newer models know only the newer name of the limit, most local servers only the older. Our own
        # exports end by themselves, in a context that may be too short for report and limit: vLLM refuses such.
        name = "max_completion_tokens" if self.url == OPENAI_URL else "max_tokens"
        limit = {} if self.server.grammar else {name: 50 * len(self.findings)}
        try:
            completion = self._client.chat.completions.create(
                model=self.model, messages=messages, temperature=0, **extra, **limit
            )
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise UserError(
                f"{self.url}: the server refuses the key (HTTP {error.status_code}); set {self.server.api_key_env}"
            ) from error
        except openai.NotFoundError as error:
            raise UserError(
                f'{self.url}: the server has no model "{self.model}" or no chat completions (HTTP 404); '
                "see --model and --base-url"
            ) from error
        except openai.RateLimitError as error:
            raise UserError(
                f"{self.url}: too many requests, also after {self.server.retries} retries; "
                "run the same command again later, maybe with a lower --concurrency, to go on"
            ) from error
        except openai.APIStatusError as error:
            # The body: the client's message holds it only where it is of OpenAI's own form.
            refuses_schema = error.status_code in (400, 422) and _REFUSES_SCHEMA.search(error.response.text)
            return _Refused(error.status_code, _too_long(error), bool(extra and refuses_schema))
        except openai.APIConnectionError as error:
            raise UserError(
                f"{self.url}: the server does not answer; start it, then run the same command again to go on"
            ) from error
        if not completion.choices:
            return ""
        return completion.choices[0].message.content or ""


def _has_answer(future: Future[_Answer]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _too_long(error: openai.APIStatusError) -> bool:
    """Whether the report was too long: OpenAI, llama.cpp and vLLM say so in the code, the type and the message."""
    return (
        error.code == "context_length_exceeded"
        or error.type == "exceed_context_size_error"
        or "maximum context length" in error.response.text
    )


@dataclass(frozen=True)
class _Refused:
    """A request that the server answered with an error status. The server's own words are not kept: they may
    quote the report."""

    status: int
    too_long: bool
    schema: bool = False

    @property
    def reason(self) -> str:
        return TOO_LONG if self.too_long else f"the server refused this report (HTTP {self.status})"


_Answer: TypeAlias = LabelArray | _Refused | None

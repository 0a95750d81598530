"""What a decision, a status and a metric look like to a program."""

from __future__ import annotations

import ctypes
import enum
from typing import Any, Dict, List, NamedTuple, Optional

from . import _call


class Action(enum.IntEnum):
    """What to do about a failure."""

    #: Give up; also when no policy had anything to say.
    FAIL = 0
    #: Once more, at the same target, after `after` seconds.
    RETRY = 1
    #: Go to `target`.
    FALLBACK = 2
    #: Get a new credential, then once more.
    RENEW = 3
    #: Answer with `status` and `body`.
    RESPOND = 4


_ACTIONS = tuple(Action)


class Decision(NamedTuple):
    """What the policies decided. Plain data."""

    action: Action
    #: Seconds to wait first; never less than the other side asked for.
    after: float
    #: FALLBACK: where to go; else "".
    target: str
    #: FAIL, RESPOND: what to answer.
    status: int
    #: The failure as classified, or as the policy says.
    category: str
    #: Who decided; "" nobody.
    policy: str
    why: str
    #: RESPOND: the answer.
    body: bytes

    @property
    def again(self) -> bool:
        """Is there to be another attempt, here or elsewhere?"""
        return self.action in (Action.RETRY, Action.FALLBACK, Action.RENEW)


def _text(raw: bytes) -> str:
    return raw.decode() if raw.isascii() else raw.decode("utf-8", "replace")


_new = tuple.__new__  # Decision() without the function that takes its names


def decision_of(told: Any) -> Decision:
    action, body = told.action, b""
    if action == Action.RESPOND:
        size = min(told.body_size, told.body_capacity)
        body = ctypes.string_at(told.body, size) if size and told.body else b""
    return _new(Decision, (_ACTIONS[action], told.after, _text(told.target), told.status, _text(told.category),
                           _text(told.policy), _text(told.why), body))


class Status(NamedTuple):
    """How an engine is."""

    #: Content hash of the policies that serve.
    generation: str
    #: Of the library.
    version: str
    #: Unix seconds.
    loaded_at: float
    policies: int
    policy_tests: int
    reloads: int
    reloads_refused: int
    rollbacks: int
    #: Handlers that threw, looped, or answered nonsense.
    policy_faults: int
    log_lines_lost: int
    #: Calls and decisions.
    open: int
    #: Bytes of answers undelivered.
    buffered: int


def status_of(told: Any) -> Status:
    values = (getattr(told, name) for name in Status._fields)
    return Status(*(value.decode() if isinstance(value, bytes) else value for value in values))


class Sample(NamedTuple):
    """One sample of one metric: a histogram is its _bucket, _sum and _count samples."""

    name: str
    #: "counter", "gauge", "histogram"
    type: str
    help: str
    labels: Dict[str, str]
    value: float


class Metrics(List[Sample]):
    """All samples as they stood. `prometheus()` is the text that a scrape wants."""

    def find(self, name: str, **labels: str) -> Optional[float]:
        """The value of the first sample of that name that has these labels.

        >>> engine.metrics().find("parry_attempts_total", target="kimi/k2", category="ok")
        """
        wanted = labels.items()
        return next((s.value for s in self if s.name == name and wanted <= s.labels.items()), None)

    def prometheus(self) -> str:
        lines: List[str] = []
        told = ""
        for sample in self:
            family = _family(sample)
            if family != told:
                told = family
                text = sample.help.replace("\\", "\\\\").replace("\n", "\\n")
                lines += [f"# HELP {family} {text}", f"# TYPE {family} {sample.type}"]
            labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sample.labels.items())
            lines.append(f"{sample.name}{{{labels}}} {_number(sample.value)}" if labels else
                         f"{sample.name} {_number(sample.value)}")
        return "\n".join(lines) + "\n" if lines else ""


def _family(sample: Sample) -> str:
    if sample.type == "histogram":
        for ending in ("_bucket", "_sum", "_count"):
            if sample.name.endswith(ending):
                return sample.name[:-len(ending)]
    return sample.name


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)


def sample_of(told: Any) -> Sample:
    return Sample(_call.text(told.name), _call.text(told.type), _call.text(told.help), _labels(_call.text(told.labels)),
                  told.value)


def _labels(text: str) -> Dict[str, str]:
    """Reads a="b",c="d" with the text format's escapes."""
    found: Dict[str, str] = {}
    at = 0
    while at < len(text):
        equals = text.index('="', at)
        name, at, value = text[at:equals], equals + 2, []
        while text[at] != '"':
            if text[at] == "\\":
                at += 1
                value.append("\n" if text[at] == "n" else text[at])
            else:
                value.append(text[at])
            at += 1
        found[name] = "".join(value)
        at += 2  # the quote and a comma
    return found

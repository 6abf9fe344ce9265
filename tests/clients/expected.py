"""What clients are told to do with the servers of `../live/test_real_clients.py`, and what they must then have seen.

Nothing here asserts: `shortcomings` returns all that is wrong at once, in words.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from tests.clients.known import Visit

Calls = list[tuple[str, dict[str, Any]]]

STATIC = "demo://resource/static/document/features.md"
READ = {  # URI: how what is read there begins
    STATIC: "# Everything Server",
    "demo://resource/dynamic/text/7": "Resource 7: This is a plaintext resource",
    "asking://notes/today": "nothing today",
    "asking://notes/monday": "nothing on monday",
}
LISTED = {  # besides the tools and prompts that a plan names
    "resources": {STATIC, "asking://notes/today"},
    "templates": {"demo://resource/dynamic/text/{resourceId}", "asking://notes/{day}"},
}
TEXTS = {  # what must be in the answer of a call
    "everything.echo": "Echo: grüß dich",
    "everything.trigger-long-running-operation": "Steps: 3",
    "everything.trigger-elicitation-request": "Name: Ada\n- Agreed to terms: true",
    "everything.trigger-sampling-request": "roses are red",
    "asking.echo": "Echo: grüß dich",
    "asking.trigger-long-running-operation": "3 steps",
    "asking.trigger-elicitation-request": "Ada, True",
    "asking.trigger-sampling-request": "roses are red",
    "asking.get-roots-list": "file:///",
    "remote.get-sum": "5",
    "remote.trigger-elicitation-request": "Name: Ada\n- Agreed to terms: true",
    "remote.trigger-sampling-request": "roses are red",
    "old.add": "5",
    "time.get_current_time": "UTC",
    "git.git_status": "On branch",
    "fetch.fetch": "grüß dich",
    "files.read_text_file": "grüß dich",
    "memory.read_graph": "entities",
}
QUESTIONS = {  # what the asking tools ask, by the end of their name, for prompts "a poem"
    "asking.trigger-elicitation-request": ("elicitation", "Who is it?"),
    "asking.trigger-sampling-request": ("sampling", "a poem"),
    "trigger-elicitation-request": ("elicitation", "Please provide inputs for the following fields:"),
    "trigger-sampling-request": ("sampling", "Resource trigger-sampling-request context: a poem"),
}


def plan_for(directory: Path, calls: Calls) -> dict[str, Any]:
    """These calls, a prompt and two resources (one listed, one of a template) of either server of `few`."""
    return {
        "calls": calls,
        "prompts": [("everything.args-prompt", {"city": "Oslo"}), ("asking.args-prompt", {"city": "Lima"})],
        "resources": list(READ),
        "elicitation": {"name": "Ada", "check": True},
        "sampling": "roses are red",
        "root": directory.as_uri(),
    }


def few_calls() -> Calls:
    """Plain and asking calls at one legacy server and one modern."""
    return [
        ("everything.echo", {"message": "grüß dich"}),
        ("everything.trigger-long-running-operation", {"duration": 0.3, "steps": 3}),
        ("everything.trigger-elicitation-request", {}),
        ("everything.trigger-sampling-request", {"prompt": "a poem", "maxTokens": 50}),
        ("asking.echo", {"message": "grüß dich"}),
        ("asking.trigger-long-running-operation", {"steps": 3}),
        ("asking.trigger-elicitation-request", {}),
        ("asking.trigger-sampling-request", {"prompt": "a poem"}),
        ("asking.get-roots-list", {}),
    ]


def all_calls(directory: Path, page: str) -> Calls:
    """Those, and one plain call of each further server; ``page`` is the URL of the note in ``directory``."""
    return [
        *few_calls(),
        ("remote.get-sum", {"a": 2, "b": 3}),
        ("remote.trigger-elicitation-request", {}),
        ("remote.trigger-sampling-request", {"prompt": "a poem", "maxTokens": 50}),
        ("old.add", {"a": 2, "b": 3}),
        ("time.get_current_time", {"timezone": "UTC"}),
        ("git.git_status", {"repo_path": str(directory)}),
        ("fetch.fetch", {"url": page}),
        ("files.read_text_file", {"path": str(directory / "note.txt")}),
        ("memory.read_graph", {}),
    ]


def shortcomings(seen: Visit, plan: dict[str, Any]) -> list[str]:
    """What a client that carried out the plan should have seen, and did not; an empty list when all is well."""
    report = seen.report
    if not report:
        return [f"exit {seen.code}, without a report: {seen.stderr[-3000:]}"]
    wrong = [f"{step} failed: {reason}" for step, reason in report["failed"].items()]
    wrong += [*_wrong_answers(report, plan), *_wrong_lists(report, plan), *_wrong_progress(report)]
    return wrong if wrong or seen.code == 0 else [f"exit {seen.code}: {seen.stderr[-3000:]}"]


def wrong_questions(report: dict[str, Any], plan: dict[str, Any]) -> list[str]:
    """Questions that a client which can answer was not asked, was asked too often, or should not have been asked."""
    keys = [name if name in QUESTIONS else name.partition(".")[2] for name, _ in plan["calls"]]
    expected = Counter(QUESTIONS[key] for key in keys if key in QUESTIONS)
    asked = Counter((kind, text) for kind, text in report["asked"] if kind != "roots")
    wrong = [f"not asked: {question}" for question in expected - asked]
    wrong += [f"asked too often: {question}" for question in asked - expected]
    root = report["called"].get("asking.get-roots-list", [False, plan["root"]])[1]
    return wrong if root == plan["root"] else [*wrong, f"roots: {root!r}"]


def _wrong_answers(report: dict[str, Any], plan: dict[str, Any]) -> list[str]:
    wrong = [
        f"{name} answered {(is_error, text[:500])}"
        for name, (is_error, text) in report["called"].items()
        if is_error or TEXTS[name] not in text
    ]
    wrong += [f"{uri} read {text[:500]!r}" for uri, text in report["read"].items() if not text.startswith(READ[uri])]
    cities = {name: args["city"] for name, args in plan["prompts"]}
    return wrong + [
        f"{name} said {text!r}" for name, text in report["got"].items() if text != f"What's weather in {cities[name]}?"
    ]


def _wrong_lists(report: dict[str, Any], plan: dict[str, Any]) -> list[str]:
    needed = LISTED | {"tools": {name for name, _ in plan["calls"]}, "prompts": {name for name, _ in plan["prompts"]}}
    wrong = []
    for kind, names in needed.items():
        listed: Counter[str] = Counter(report.get(kind, names))  # not asked for: nothing to complain about
        wrong += [f"{kind}: {name} is not listed" for name in sorted(names - set(listed))]
        wrong += [f"{kind}: {name} is listed {count} times" for name, count in listed.items() if count > 1]
    return wrong


def _wrong_progress(report: dict[str, Any]) -> list[str]:
    """Some of the steps must come, from the first on: clients drop what is not handled when the answer arrives."""
    runs = {name: steps for name, steps in report["progress"].items() if name.endswith("long-running-operation")}
    return [f"{name} reported {steps}" for name, steps in runs.items() if not steps or steps != [1, 2, 3][: len(steps)]]

"""Findings for machines and for people: JSON, SARIF 2.1.0, one HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from html import escape
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollforge.audit.finding import RULES, Finding
from rollforge.errors import UserError, reported
from rollforge.records.items import Json
from rollforge.stats.text import plural
from rollforge.stats.visible import visible

if TYPE_CHECKING:
    from rollforge.audit.audit import Audit

MARK = "<!doctype html>\n<!-- rollforge audit -->\n"


def as_json(audit: Audit) -> Json:
    return {**asdict(audit), "errors": audit.errors}


def as_sarif(audit: Audit, reference: str) -> Json:
    """https://docs.oasis-open.org/sarif/sarif/v2.1.0/: one run; the location is the environment's file, where it has one."""
    from rollforge import __version__

    path = reference.rpartition(":")[0] or reference
    file = path if path.endswith(".py") else None
    names = list(RULES)
    driver: Json = {
        "name": "rollforge audit",
        "version": __version__,
        "rules": [
            {"id": name, "shortDescription": {"text": rule.asks}, "help": {"text": rule.remedy}}
            for name, rule in RULES.items()
        ],
    }
    results = []
    for one in audit.findings:
        location: Json = {"logicalLocations": [{"name": audit.env, "fullyQualifiedName": reference}]}
        if file:
            location["physicalLocation"] = {"artifactLocation": {"uri": file}, "region": {"startLine": 1}}
        results.append(
            {
                "ruleId": one.rule,
                "ruleIndex": names.index(one.rule),
                "level": one.severity,
                "message": {"text": f"{one.says}. Remedy: {one.remedy}"},
                "locations": [location],
                "properties": {"transcripts": [asdict(shown) for shown in one.shown]},
            }
        )
    run = {"tool": {"driver": driver}, "results": results, "columnKind": "utf16CodeUnits"}
    return {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}


def write_page(file: Path, audit: Audit) -> None:
    """Over an older page of this kind if there is one. Raises `UserError` rather than overwrite anything else."""
    with reported(f"cannot write {file}"):
        if file.exists() and not file.read_bytes().startswith(MARK.encode()):
            raise UserError(f"{file} exists and is no page of this command: name another file")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(_page(audit)), encoding="utf-8")


def _page(audit: Audit) -> Iterator[str]:
    """No script, nothing loaded from anywhere; what came from data is escaped."""
    yield MARK + '<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield f"<title>{_safe(audit.env)} - audit</title><style>{_STYLE}</style></head><body><main>"
    counts = ", ".join(
        f"{sum(one.severity == name for one in audit.findings)} {name}s" for name in ("error", "warning", "note")
    )
    yield f"<h1>{_safe(audit.env)}</h1><p>{counts}; {plural(audit.attempts, 'attack')} on {plural(audit.tasks, 'task')}.</p>"
    for one in audit.findings:
        yield from _finding(one)
    yield f"<h2>Rules that hold</h2><ul>{''.join(f'<li>{_safe(RULES[name].asks)}</li>' for name in audit.passed)}</ul>"
    yield "</main></body></html>\n"


def _finding(one: Finding) -> Iterator[str]:
    yield f'<section class="{one.severity}"><h3><b>{one.severity}</b> {_safe(one.rule)}</h3><p>{_safe(one.says)}</p>'
    yield f"<p><i>{_safe(one.remedy)}</i></p>"
    for shown in one.shown:
        yield f"<details><summary>{_safe(shown.task)}: {_safe(shown.ended)}</summary><dl>"
        for name, value in (("prompt", shown.prompt), ("row", _json(shown.row)), ("calls", _json(shown.calls))):
            if value:
                yield f"<dt>{name}</dt><dd><pre>{_safe(value)}</pre></dd>"
        outputs = "\n".join(shown.outputs)
        for name, value in (("outputs", outputs), ("reply", shown.reply), ("verdict", _json(shown.fields))):
            if value:
                yield f"<dt>{name}</dt><dd><pre>{_safe(value)}</pre></dd>"
        yield "</dl></details>"
    yield "</section>"


def _json(value: Any) -> str:
    return dumps(value, indent=1, default=str, ensure_ascii=False) if value else ""


def _safe(text: str) -> str:
    return escape(visible(text))


_STYLE = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:0}main{max-width:60rem;margin:auto;padding:1rem}
section{border-left:.3rem solid #888;padding:.1rem 1rem;margin:1rem 0}section.error{border-color:#c33}
section.warning{border-color:#c90}pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.2rem 0}dt{font-weight:600}
"""

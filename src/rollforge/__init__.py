"""From environments to training data: verified rollouts for post-training language models.

import rollforge as rf

@rf.env(tasks=[{"prompt": "2+2=?", "answer": "4"}])
def addition(reply: str, answer: str) -> float:
    return float(answer in reply)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rollforge.collect.run import collect_rollouts as collect_rollouts
    from rollforge.curate.run import curate_rollouts as curate_rollouts
    from rollforge.envs.base import Verdict as Verdict
    from rollforge.envs.decorate import env as env
    from rollforge.envs.load import load_env as load_env
    from rollforge.errors import InfraFault as InfraFault
    from rollforge.errors import JudgeFault as JudgeFault
    from rollforge.errors import PolicyFault as PolicyFault
    from rollforge.errors import VerifierFault as VerifierFault
    from rollforge.export.run import export_rollouts as export_rollouts
    from rollforge.records.rollout import Outcome as Outcome
    from rollforge.records.rollout import Rollout as Rollout
    from rollforge.records.rows import read_rollouts as read_rollouts
    from rollforge.records.rows import read_tasks as read_tasks
    from rollforge.records.task import Task as Task

__version__ = "0.1.0"

# Loaded when first used: `import rollforge` and `rollforge --help` cost nothing.
_PUBLIC = {
    "collect_rollouts": "rollforge.collect.run",
    "curate_rollouts": "rollforge.curate.run",
    "export_rollouts": "rollforge.export.run",
    "Verdict": "rollforge.envs.base",
    "env": "rollforge.envs.decorate",
    "load_env": "rollforge.envs.load",
    "InfraFault": "rollforge.errors",
    "JudgeFault": "rollforge.errors",
    "PolicyFault": "rollforge.errors",
    "VerifierFault": "rollforge.errors",
    "Outcome": "rollforge.records.rollout",
    "Rollout": "rollforge.records.rollout",
    "read_rollouts": "rollforge.records.rows",
    "read_tasks": "rollforge.records.rows",
    "Task": "rollforge.records.task",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'rollforge' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PUBLIC[name]), name)

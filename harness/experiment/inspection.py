"""Inspection of a case, which runs its code: the first look and the audit, in this process or in a worker."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import HarnessError
from harness.grid import Experiment

Findings = dict[str, list[dict[str, Any]]]
Look = Callable[[Experiment, Mapping[str, Any]], dict[str, Any]]
Audit = Callable[[Experiment], Findings]


def look_here(experiment: Experiment, before: Mapping[str, Any]) -> dict[str, Any]:
    """Fingerprint data and case in this process.

    Raises:
        HarnessError: if they cannot be used.
    """
    from harness.execution.first_look import fingerprints
    from harness.execution.process_state import kept_process_state

    with kept_process_state():
        return fingerprints(experiment, before)


def audit_here(experiment: Experiment) -> Findings:
    """Audit the penalties of an experiment in this process."""
    from harness.execution.audits import audits
    from harness.execution.process_state import kept_process_state

    with kept_process_state():
        return audits(experiment)


@dataclass(frozen=True)
class WorkerInspection:
    """Inspection in workers, which a case may crash.

    Args:
        waiting: started workers; the first one looks, and is used for training afterwards.
        timeout: seconds that a call may take; None for no limit.
    """

    waiting: Sequence[Any] = ()
    timeout: float | None = None

    def look(self, experiment: Experiment, before: Mapping[str, Any]) -> dict[str, Any]:
        """Fingerprint data and case in a worker.

        Raises:
            HarnessError: if they cannot be used, or their code ends the worker.
        """
        from harness.execution.first_look import source_digest

        if source_digest(experiment) is not None:  # a shipped case needs no worker
            return look_here(experiment, before)
        return dict(self._call("fingerprints", experiment, dict(before)))

    def audit(self, experiment: Experiment) -> Findings:
        """Audit the penalties of an experiment in a worker of its own."""
        from harness.execution.audits import undecided

        try:
            return dict(WorkerInspection(timeout=self.timeout)._call("audits", experiment))
        except HarnessError as error:
            return undecided(error)

    def _call(self, name: str, experiment: Experiment, *arguments: Any) -> Any:
        from harness.execution.calls import call
        from harness.execution.worker_client import waiting_workers

        if self.waiting:
            return call(self.waiting[0], name, experiment, *arguments, timeout=self.timeout)
        with waiting_workers(1) as [worker]:
            return call(worker, name, experiment, *arguments, timeout=self.timeout)

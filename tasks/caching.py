"""When Prefect may return an earlier result: exactly when our store has a verified artifact.

Prefect's own policies hash arguments and the task's lines. Measured with 3.8.8: with the default
policy the body ran twice; with `INPUTS + TASK_SOURCE` an input edited in place, a changed helper
and even a deleted output were all hits. Identity and verification are the store's; this policy asks
it before every task run. A hit is written from the artifact's record at that moment, so whatever
an old result file says is never believed, and a stage made by the CLI or DVC is a hit too.
"""

from dataclasses import dataclass
from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext

from swiftcore.artifacts import Artifact
from tasks.handles import Handle
from tasks.journey import Journey


@dataclass
class ByFingerprint(CachePolicy):
    """The cache key is the stage and its fingerprint while the artifact verifies.

    Otherwise the key is unique to the task run, which no stored result can have. No lock: two runs
    of one fingerprint meet at the lease in `swiftcore.artifacts.make`, which outlives no process.
    """

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """Return the key, after writing the verified artifact's handle under it."""
        journey: Journey = inputs["journey"]
        stage = task_ctx.task.name
        handles = [value for value in inputs.values() if isinstance(value, Handle)]
        call = journey.call(stage, handles)
        identity = call.identity(journey.trip.store)
        artifact = journey.trip.store.lookup(stage, identity.fingerprint).artifact
        if artifact is None:
            return f"{stage}-{identity.fingerprint}-{task_ctx.task_run.id}"
        key = f"{stage}-{identity.fingerprint}"
        self._write(task_ctx, key, journey, artifact)
        return key

    @staticmethod
    def _write(task_ctx: TaskRunContext, key: str, journey: Journey, artifact: Artifact) -> None:
        handle = Handle.of(f"{journey.name}/{artifact.record.stage}", artifact)
        journey.arrived(handle)
        task_ctx.result_store.write(key=key, obj=handle)


BY_FINGERPRINT = ByFingerprint()

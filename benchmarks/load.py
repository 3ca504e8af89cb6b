"""One load of one source in this process, as a run worker does it: through Dagster, in process.

`python -m benchmarks.load SOURCE [--full]`; prints the load's metadata as JSON.
"""

import json
import re
import sys
from pathlib import Path

import dagster as dg

from identity_pipeline.orchestration import assets


def main() -> None:
    name = sys.argv[1]
    definitions = assets.definitions()
    job = definitions.resolve_job_def(assets.JOB)
    with dg.DagsterInstance.get() as instance:
        result = job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey([name])],
            run_config=assets.run_config(name, full_refresh="--full" in sys.argv),
            raise_on_error=True,
        )
        (event,) = result.asset_materializations_for_node(name)
    said = {key: value.value for key, value in event.metadata.items()}
    print(json.dumps(said | {"peak_mb": peak_mb()}))


def peak_mb() -> float:
    """The peak resident memory of this process; what wait() tells of a child begins with its parent's."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


if __name__ == "__main__":
    main()

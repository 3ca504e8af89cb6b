"""What a run needs, imported once by the process that runs are forked from."""
# ruff: noqa: E402, F401 - imported for its effect, while nothing is collected

import gc

gc.disable()

import dagster._cli.api
import dagster_postgres

import identity_pipeline.orchestration.assets
import identity_pipeline.orchestration.dagster_storage
import identity_pipeline.orchestration.launcher
from identity_pipeline.connectors import connector, do_without_frames, modules
from identity_pipeline.core.settings import COLLECT_AFTER

for _name in modules():
    connector(_name)
do_without_frames()
gc.freeze()  # a collection in a fork would copy every page
gc.set_threshold(COLLECT_AFTER)
gc.enable()

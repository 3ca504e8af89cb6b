"""What Arrow allocates with, and pandas: no process imports it for nothing, and who has frames has it whole. In processes of their own."""

import os
import subprocess
import sys

import pyarrow as pa
import pytest

DEFINITIONS = "import identity_pipeline.definitions, identity_pipeline.orchestration.ops, identity_pipeline.loading.load"
OURS = "import identity_pipeline.connectors as c; c.do_without_frames()"
COMPARED = "import pyarrow as pa, pyarrow.compute as pc; pc.equal(pa.array(['a'], pa.string()), 'a'); pa.array(['x'])"
FRAMES = "import pandas as pd, pyarrow as pa; pd.array(['a', pd.NA], dtype=pd.ArrowDtype(pa.string()))"


def run(*lines: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)


def test_a_load_needs_no_pandas():
    done = run(DEFINITIONS, OURS, COMPARED, "import sys; print('pandas' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


def test_the_allocator_is_the_one_that_keeps_least_unless_somebody_chose_another():
    script = "import identity_pipeline.core.text, pyarrow as pa; print(pa.default_memory_pool().backend_name)"
    brought = pa.supported_memory_backends()
    chosen = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
    free = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    for environment, expected in ((free, "jemalloc" if "jemalloc" in brought else brought[0]), (chosen, "system")):
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


def test_who_imports_definitions_into_a_process_of_his_own_may_work_with_frames_afterwards():
    done = run(DEFINITIONS, COMPARED, FRAMES)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("before", ["import pandas", "import identity_pipeline.core.text"])
def test_who_imports_pandas_has_its_nulls(before: str):
    done = run(before, FRAMES, OURS, FRAMES)
    assert done.returncode == 0, done.stderr


def test_a_connector_that_imports_pandas_has_it_work_for_all():
    pretend = (
        "from pathlib import Path; read = Path.read_text\n"
        "Path.read_text = lambda p, *a, **k: ('\\nimport pandas' if 'csv_url' in p.name else '') + read(p, *a, **k)"
    )
    done = run(pretend, OURS, FRAMES)
    assert done.returncode == 0, done.stderr

"""Arrow as our processes use it: without pandas, and giving memory back.

Pandas is what no load of ours uses, and its import costs half a second and 60 MB in each process.

Arrow looks for pandas at two moments: when it makes its first array of a list, and when it first has to
find out the type of a value. It finds none at the first, which is imported for this effect and costs
nothing: who imports pandas afterwards has all of it. After the second, which :func:`settle` is for, Arrow
takes pandas' own nulls (``pd.NA``) for what they are no more, so it is for a process that works without pandas.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder

import pyarrow as pa


class _WithoutPandas(MetaPathFinder):
    def find_spec(self, name: str, *_: object) -> None:
        if name == "pandas":
            raise ImportError(name)


@contextmanager
def _without_pandas() -> Iterator[None]:
    refusing = _WithoutPandas()
    sys.meta_path.insert(0, refusing)
    try:
        yield
    finally:
        sys.meta_path.remove(refusing)


def settle() -> None:
    """Have Arrow do without pandas from now on, unless it is imported already: somebody here works with frames."""
    if "pandas" not in sys.modules:
        with _without_pandas():
            pa.array([""])


if "pandas" not in sys.modules:
    with _without_pandas():
        pa.array([], pa.string())

# Of the allocators that Arrow brings, jemalloc keeps least: the same load peaked at 380 MB with Arrow's default and at 334 with it.
_free = "ARROW_DEFAULT_MEMORY_POOL" not in os.environ and pa.default_memory_pool().backend_name == "mimalloc"  # nobody chose another
if _free and "jemalloc" in pa.supported_memory_backends():
    pa.set_memory_pool(pa.jemalloc_memory_pool())

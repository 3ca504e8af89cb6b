"""Arrow without pandas: imported for its effect, before anything makes an array.

The first array that is made of a Python list has Arrow look for pandas, which costs half a second and
60 MB in each process, and no load uses it. It finds none then. What asks for pandas by itself (a
connector that yields frames, ``Table.to_pandas``) still gets it.
"""

import sys
from importlib.abc import MetaPathFinder

import pyarrow as pa


class _WithoutPandas(MetaPathFinder):
    def find_spec(self, name: str, *_: object) -> None:
        if name == "pandas":
            raise ImportError(name)


def _look_for_pandas_in_vain() -> None:
    if "pandas" in sys.modules:
        return
    refusing = _WithoutPandas()
    sys.meta_path.insert(0, refusing)
    try:
        pa.array([""])  # without a type: then both places look, for the list and for its values
    finally:
        sys.meta_path.remove(refusing)


_look_for_pandas_in_vain()

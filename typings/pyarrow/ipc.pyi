# pyarrow makes these functions at import, so a type checker cannot see them.
from typing import Any

def __getattr__(name: str) -> Any: ...

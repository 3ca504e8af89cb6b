# pyarrow ships no types that a checker can follow: most of it is made at import, or compiled.
from typing import Any

def __getattr__(name: str) -> Any: ...

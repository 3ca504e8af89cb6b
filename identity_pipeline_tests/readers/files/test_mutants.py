"""Damaged files: a few hundred of those that `make soak` reads by the thousand."""

from pathlib import Path

import pytest

from identity_pipeline.readers.files import csv
from identity_pipeline.store.landing import Landing
from identity_pipeline_tests.readers.files import mutants


@pytest.mark.parametrize("first", range(0, 300, 100))
def test_a_damaged_file_ends_with_a_clear_error_or_is_read_without_loss(first: int, tmp_path: Path):
    wrong = {number: said for number in range(first, first + 100) if (said := mutants.fault(number, Landing(str(tmp_path))))}
    assert wrong == {}, f"python -m identity_pipeline_tests.readers.files.mutants --count 1 --seed {min(wrong)}"


def test_a_row_that_is_lost_is_found_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    fitted = csv._Parse._fitted

    def lose(self: csv._Parse, cells: list[str], line: int, last: bool):
        return fitted(self, cells[:1] if line % 20 == 0 else cells, line, last)

    monkeypatch.setattr(csv._Parse, "_fitted", lose)
    assert any(mutants.fault(number, Landing(str(tmp_path))) for number in range(20))

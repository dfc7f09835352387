import pytest

from ivcp.validation.catalog import Catalog
from ivcp.validation.report.distributions import distribution_of


def test_how_numbers_are_spread() -> None:
    with Catalog() as catalog:
        found = distribution_of(catalog, "SELECT column1 FROM (VALUES (1), (2), (9))")
        assert found is not None
        assert (found.minimum, found.median, found.maximum, sum(found.counts)) == (1, 2, 9, 3)
        assert len(found.edges) == len(found.counts) + 1
        assert distribution_of(catalog, "SELECT id FROM clip") is None


def test_equal_numbers_but_for_rounding() -> None:
    with Catalog() as catalog:
        found = distribution_of(catalog, "SELECT column1 FROM (VALUES (1.1 - 0.1), (1.2 - 0.2), (1.7 - 0.7), (1.0))")
        assert found is not None
        assert (found.minimum, found.maximum, max(found.counts)) == (1.0, pytest.approx(1.0), 4)

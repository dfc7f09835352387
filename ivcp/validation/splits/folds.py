"""Whether rows can be divided into folds: known before a video is looked at."""

from __future__ import annotations

from ivcp.data.problems import AnnotationError
from ivcp.validation.catalog import Catalog

_NAMED = 5
_UNITS_OF_CLASSES = (
    "SELECT label, COUNT(DISTINCT unit) AS units, "
    "(SELECT MIN(named) FROM known_label WHERE known_label.label = clip.label) "
    "FROM clip WHERE given = 'train' GROUP BY label HAVING units < ? ORDER BY units, label"
)


def check_folds(catalog: Catalog, folds: int) -> None:
    """Checks that no row has a test split of its own, and that every class has a group for each fold.

    Groups that share a video's content, as far as it is known, count once.

    Raises:
        AnnotationError: that is not so.
    """
    tested = catalog.number("SELECT COUNT(*) FROM clip WHERE given = 'test'")
    if tested:
        raise AnnotationError(
            f"folds = {folds} tests every clip once, but {tested} rows name the split test: remove it, or leave folds "
            "out (official_splits measures data sets that name their test clips)"
        )
    few = catalog.ask(_UNITS_OF_CLASSES, folds).fetchall()
    if few:
        named = ", ".join(f"{name} has {units}" for _, units, name in few[:_NAMED])
        more = f", and {len(few) - _NAMED} more classes" if len(few) > _NAMED else ""
        fewest = few[0][1]
        advice = f"set folds: {fewest}" if fewest > 1 else "add rows of other groups, or leave folds out"
        raise AnnotationError(
            f"folds = {folds} needs {folds} groups of every class, one to test in each: {named}{more}; {advice}. A "
            "group is what the column group says, else a clip's video"
        )

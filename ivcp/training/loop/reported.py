"""Numbers that a module reports beside its loss, for the rows of the log."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ivcp.distributed.processes import summed_over_processes


class ReportedNumbers:
    """Means of what was reported since the last row, over all processes; nothing is copied from the device before."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def saw(self, numbers: Mapping[str, Tensor]) -> None:
        """Takes the numbers of a batch by their names, (numbers,) each; all batches have the same names."""
        for name, values in numbers.items():
            found = torch.stack((values.sum(), values.new_tensor(len(values)))).double()
            self._sums[name] = self._sums[name] + found if name in self._sums else found

    def row(self) -> dict[str, float]:
        """The means, but for names without a number; all processes call this together."""
        if not self._sums:
            return {}
        summed = summed_over_processes(torch.stack(list(self._sums.values()))).tolist()
        means = {name: total / count for name, (total, count) in zip(self._sums, summed, strict=True) if count}
        self._sums = {}
        return means

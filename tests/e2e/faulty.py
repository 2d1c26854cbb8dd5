"""CRIS with a fault on one rank at one step, for tests of what the other ranks do then."""

import os
import signal

from torch import Tensor

from rislab.data.batch import MaskQueries
from rislab.methods.cris.task import CRISTask

VARIABLE = "RISLAB_TEST_FAULT"


class FaultyCRIS(CRISTask):
    """RISLAB_TEST_FAULT is `what:rank:step`; without it, this is CRIS.

    what: `stop` is a SIGTERM to this rank; `nan` a loss that is not finite.
    """

    def losses(self, batch: MaskQueries) -> dict[str, Tensor]:
        terms = super().losses(batch)
        what, rank, step = os.environ.get(VARIABLE, "none:-1:-1").split(":")
        if (self.global_rank, self.global_step) != (int(rank), int(step)):
            return terms
        match what:
            case "stop":
                os.kill(os.getpid(), signal.SIGTERM)
            case "nan":
                return {name: value * float("nan") for name, value in terms.items()}
        return terms

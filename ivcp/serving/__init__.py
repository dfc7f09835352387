"""The predictor: a model directory that answers requests."""

import os

if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    # Threads of PyTorch wait for their next operation by spinning, on cores that decoders and the server need: for
    # some microseconds, as between the operations of one batch, and no longer. Read when torch is imported.
    os.environ["GOMP_SPINCOUNT"] = "20000"

"""Run as a script: serves a GGUF file with xllamacpp's server, as a program of somebody else would do it."""

from __future__ import annotations

import importlib
import sys
import threading
from typing import Any


def main(weights: str, port: str, key: str) -> None:
    """Serve until the process is killed."""
    xllamacpp: Any = importlib.import_module("xllamacpp")  # which has no types
    p = xllamacpp.CommonParams()
    p.model.path = weights
    p.hostnames = ["127.0.0.1"]
    p.port = int(port)
    p.api_keys = [key]
    p.n_parallel = 4
    p.kv_unified = False
    p.n_ctx = 4 * 2048
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
    p.n_predict = 96  # where the request does not say
    p.sampling.temp = 0.0  # likewise: every run gives the same answers
    p.n_batch = p.n_ubatch = 32  # a request that was given up is noticed between two of them
    p.fit_params = False
    p.warmup = False
    p.cache_ram_mib = 0
    p.ui = False
    p.offline = True
    p.endpoint_metrics = True
    p.verbosity = 1  # errors
    server = xllamacpp.Server(p)  # it ends with the last reference to it
    threading.Event().wait()
    del server


if __name__ == "__main__":
    main(*sys.argv[1:])

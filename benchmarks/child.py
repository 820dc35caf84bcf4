"""One measurement: a job as a JSON argument, what was measured as one line of JSON on stdout.

Runs as a script in the virtual environment of a contestant, where this folder is all it shares with
the harness. It imports nothing before the adapter that the work does not need.
"""

import gc
import importlib
import json
import sys


def main(job):
    args = dict(job["args"])
    if not args.pop("collector", True):
        gc.disable()
    adapter = importlib.import_module(f"adapters.{job['adapter']}")
    adapter.LOOP = job["loop"]
    work = getattr(adapter, job["work"], None)
    if work is None:
        return {"cannot": adapter.CANNOT}
    try:
        return {"measured": work(**args)}
    except Exception as error:
        if type(error).__name__ != "Cannot":
            raise
        return {"cannot": str(error)}


if __name__ == "__main__":
    print("\n" + json.dumps(main(json.loads(sys.argv[1]))), flush=True)

"""``python -m benchmarks.prompting``."""

from benchmarks.prompting.run import main

main()

"""``python -m benchmarks.strategies``."""

from benchmarks.strategies.run import main

main()

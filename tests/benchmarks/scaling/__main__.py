"""``python -m tests.benchmarks.scaling``."""

from tests.benchmarks.scaling.run import main

if __name__ == "__main__":
    main()

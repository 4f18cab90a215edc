"""``python -m brain_clusters``: the same as the command ``brain-clusters``."""

from brain_clusters.cli import main

if __name__ == "__main__":
    main(prog_name="brain-clusters")

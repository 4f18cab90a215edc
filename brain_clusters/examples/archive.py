"""A program for ``command:``, without any knowledge of agents: JSON on standard input, JSON on standard output.

echo '{"folder": "reports", "to": "reports.tar.gz"}' | python -m brain_clusters.examples.archive
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
from pathlib import Path


def main() -> None:
    """Pack a folder into a .tar.gz; a failure leaves a message on standard error and a non-zero status."""
    payload = json.load(sys.stdin)
    folder, target = Path(payload["folder"]), Path(payload["to"])
    if not folder.is_dir():
        sys.exit(f"{folder} is not a folder")
    # Renamed when complete: a job that is interrupted leaves no half archive under the final name.
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    with tarfile.open(unfinished, "w:gz") as archive:
        archive.add(folder, arcname=folder.name)
        members = len(archive.getmembers())
    unfinished.replace(target)
    json.dump({"archive": str(target), "members": members, "bytes": target.stat().st_size}, sys.stdout)


if __name__ == "__main__":
    main()

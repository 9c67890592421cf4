"""Say in one line whether every file is there that the packages of an environment say they have.

Runs on the host in that environment's Python.
"""

import csv
import glob
import os
import sysconfig


def gone(folder):
    """List the files that are not there; Python makes the .pyc ones anew."""
    missing = []
    for record in sorted(glob.glob(os.path.join(folder, "*.dist-info", "RECORD"))):
        with open(record, newline="", encoding="utf-8") as stream:
            named = [row[0] for row in csv.reader(stream) if row and not row[0].endswith(".pyc")]
        missing += [name for name in named if not os.path.exists(os.path.join(folder, name))]
    return missing


missing = gone(sysconfig.get_path("purelib"))
print(f"{len(missing)} files are gone, such as {missing[0]}" if missing else "whole")

"""Say in one line whether every file is there that the packages of an environment say they have.

Runs on the host in that environment's Python.
"""

import csv
import glob
import os
import sys

from talk import counted


def gone(prefix):
    """List the files that are not there; Python makes the .pyc ones anew."""
    missing = []
    records = os.path.join(prefix, "lib/python3*/site-packages/*.dist-info/RECORD")
    for record in sorted(glob.glob(records)):
        folder = os.path.dirname(os.path.dirname(record))
        with open(record, newline="", encoding="utf-8") as stream:
            named = [row[0] for row in csv.reader(stream) if row and not row[0].endswith(".pyc")]
        missing += [name for name in named if not os.path.exists(os.path.join(folder, name))]
    return missing


missing = gone(sys.prefix)
print(f"it lacks {counted(len(missing), 'file')}, such as {missing[0]}" if missing else "whole")

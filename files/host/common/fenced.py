"""Do something in a thread that can remove no file but below given folders.

SQLite plays back the journal that lies beside a database, and then removes the file that the
journal names as the one which it belongs to. The server's process can lay one there, that names any
file of this user.
"""

import ctypes
import os
import struct
from concurrent.futures import ThreadPoolExecutor

# landlock(7): numbers that are the same on every architecture.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF, PATH_BENEATH = 444, 445, 446, 1
REMOVE = 1 << 4 | 1 << 5  # folders and files
NO_NEW_PRIVILEGES = 38  # of prctl(2)


def fenced(folders, work):
    """Return what `work` returns, called where nothing outside of the folders can be removed.

    A kernel without Landlock (before 5.13) knows no such fence.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_within, folders, work).result()


def _within(folders, work):
    # Each of these holds for the thread that asks for it alone.
    library = ctypes.CDLL(None)
    rules = library.syscall(CREATE_RULESET, struct.pack("Q", REMOVE), ctypes.c_size_t(8), 0)
    if rules >= 0:
        for folder in folders:
            handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
            library.syscall(ADD_RULE, rules, PATH_BENEATH, struct.pack("=Qi", REMOVE, handle), 0)
            os.close(handle)
        library.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        library.syscall(RESTRICT_SELF, rules, 0)
        os.close(rules)
    return work()

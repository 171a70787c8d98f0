"""Runs a module as `python -m` does, with a key among its arguments that no process list shows.

    python -P tool_start.py FLAG MODULE ARGUMENTS...

The key is taken out of the environment variable SWIFTCORE_TOOL_KEY. Standard library only.
"""

import os
import runpy
import sys

KEY_VARIABLE = "SWIFTCORE_TOOL_KEY"

if __name__ == "__main__":
    flag, module, *arguments = sys.argv[1:]
    sys.argv[:] = [module, *arguments, flag, os.environ.pop(KEY_VARIABLE)]
    runpy.run_module(module, run_name="__main__", alter_sys=True)

"""Kernels are run in Triton's interpreter: it must be chosen before Triton is imported.

So these tests are collected only where it was chosen, in the process `test_in_interpreter.py`
starts: in this one other tests import Triton, and the product would use interpreted kernels.
"""

import os

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore = ["interpreted"]

"""imports.py MODULE...: imports them."""

import importlib
import sys

for name in sys.argv[1:]:
    importlib.import_module(name)
print("READY")
print("EXIT-SUCCESS")

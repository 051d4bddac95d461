"""`radium run` that also writes a file: what the calls of each split had touched, by places, as their last call ended.

learn.py FILE RUN-ARGUMENTS...
"""

import json
import sys
from pathlib import Path

from radium import cli
from radium.tracer.session import Session


def main() -> int:
    learned = {}
    count = Session._count_remote

    def count_and_note(self, call):
        count(self, call)
        self.tracee.home.refresh()
        learned[call.split.report.name] = call.split.working_set.places(self.tracee.home.mappings)

    Session._count_remote = count_and_note
    code = cli.main(["run", *sys.argv[2:]])
    Path(sys.argv[1]).write_text(json.dumps(learned))
    return code


sys.exit(main())

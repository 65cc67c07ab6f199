"""A worker process for the tests of `spawn`: for each line "ensure" on its input it asks for a node and says what came of it.

"fork" makes it fork a child that only sits there. Settings come by the environment, as for any worker.
"""

import os
import sys
import time

from clustersession.errors import ConfigError
from clustersession.node.spawn import ensure_node
from clustersession.settings import load_settings, process_environ
from clustersession.store.place import place_for

config = load_settings()
place = place_for(config, process_environ())


def ensured() -> str:
    began = time.monotonic()
    try:
        ensure_node(config, place)
    except ConfigError as error:
        return f"refused {error}"
    return f"ok {time.monotonic() - began:.3f}"


for line in sys.stdin:
    if line == "fork\n":
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        print(child, flush=True)
    else:
        print(ensured(), flush=True)

"""What a node does with a call: pure rules over the one record that the call is about (design.md 7).

`decide` runs inside a transaction of the store: what a rule wants written and whom it wants hinted happens at once or not
at all. A node answers from what it holds and calls nobody.
"""

from .decision import Decision, Situation
from .dispatch import decide, key_of
from .ends import due_at, eviction, sweep
from .reads import fetch, vouched_until

__all__ = [
    "Decision",
    "Situation",
    "decide",
    "due_at",
    "eviction",
    "fetch",
    "key_of",
    "sweep",
    "vouched_until",
]

"""The rules of clustersession, as pure code: no socket, clock, entropy, thread, log or framework in here.

`now` and random bytes are arguments. Multi-step rules are generators (`effects.Operation`) that yield what they want asked
and are sent the replies, so that one algorithm runs under blocking, asyncio and simulated drivers.
"""

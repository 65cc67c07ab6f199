"""Calls between nodes: a lean, authenticated HTTP/1.1 pair, blocking and asyncio."""

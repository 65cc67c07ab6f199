"""The command `clustersession`."""

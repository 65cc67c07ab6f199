"""The node process: what runs once on a host beside the workers, and how it is started, watched and asked."""

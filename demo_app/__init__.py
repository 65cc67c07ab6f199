"""A small shop on three app hosts behind a balancer without stickiness: `python -m demo_app`, `python -m demo_app check`."""

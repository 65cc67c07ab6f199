"""One small shop (log in, cart, log out) in Flask, Django and FastAPI, over one core that knows no framework."""

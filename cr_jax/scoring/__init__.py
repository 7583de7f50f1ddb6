"""What a text costs under an expert, in nats/token, and what is usual for it."""

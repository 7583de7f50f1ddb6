"""Speed of what a bank's language models do once they are trained."""

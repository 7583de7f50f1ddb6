"""What context does to the residual: prompts of several parts, and who should be asked.

    prompts -> answers: nats of each token by each expert, in several ways -> figures -> entry

Not in the paper, whose windows each hold one text.
"""

"""What a growing bank is compared with: models that learn the domains in the same order.

    text of a stage -> models of an expert's size, or a gate over the frozen experts -> figures

Compressors are trained by the experts' own loop, step and loss, stage by stage: each has the
parameters of one expert and reads in all as many tokens as all experts together.  Gates and counts
choose among the frozen experts.  Not in the paper.
"""

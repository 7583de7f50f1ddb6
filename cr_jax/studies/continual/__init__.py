"""Study `continual`: domains arrive one after another; what does a bank of frozen experts forget?

    scores of all experts on all windows -> an order -> stages -> figures, flips, growth -> section

Experts are frozen and independent, so the bank after k mounts is exactly the first k experts: every
stage of every order, under every rule, follows from one table of scores (`scores`).  What a rule
may know at a stage is what `rules.Router.mount` is given.  `rivals` are trained in the same order.
Not in the paper, which argues that nothing is forgotten and measures it not.
"""

"""Study `modular`: what scheduling the experts' language models buys, beside dense ones.

    windows, models -> measure -> DomainNats -> arms -> table -> section

Not in the paper.  `nats` is what is measured of each domain, `arms` who speaks at each token (a new
arm is one line), `table` the figures, `measure` scores the models of a run, `entry` is the study.
"""

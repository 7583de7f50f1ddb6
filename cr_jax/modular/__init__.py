"""Language models of the domains, trained from one seed and scheduled by the router."""

"""Language models of the domains, scheduled by what the text so far costs under each of them."""

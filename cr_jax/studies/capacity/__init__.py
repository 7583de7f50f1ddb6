"""How many tokens fit into M latents: grids of settings and the law that fits them."""

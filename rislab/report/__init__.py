"""From trial directories to a page that says which of the paper's claims held."""

"""One module a paper; each belongs to a notebook in notebooks/research and to a recipe. Nothing else imports them."""

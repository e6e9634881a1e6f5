"""The shipped flows: a recipe and its bundle each. `python -m models.zoo NAME...` makes bundles anew."""

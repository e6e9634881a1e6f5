"""The recipes to start from: data that is not shipped, or flows that take longer than those of `models.zoo`."""

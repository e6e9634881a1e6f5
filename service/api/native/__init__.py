"""The native verbs: their arguments, their schemas, and one function for each from an exchange to a reply."""

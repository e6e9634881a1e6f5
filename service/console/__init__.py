"""The pages of a server: the console at /, and those that show the API. They know neither a flow nor a verb."""

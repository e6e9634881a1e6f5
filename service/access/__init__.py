"""Who may ask: keys, scopes, budgets, Host names, origins, and the number of connections. Knows no socket."""

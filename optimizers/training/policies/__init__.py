"""Which candidate is improved next: each policy is asked for one, and told of those worth keeping."""

"""What is decided on the host, between steps: rates, batch sizes, and how losses are weighed."""

"""Ask a language model."""

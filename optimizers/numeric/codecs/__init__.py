"""How an optimizer's state is stored between steps."""

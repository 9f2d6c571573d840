"""What recording, feedback and problems cost, beside Trace where it is installed."""

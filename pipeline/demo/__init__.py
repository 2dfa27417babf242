"""Every step of the project on clips drawn for it."""

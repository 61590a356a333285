"""HTTP: what apps and operators call. Never touches a channel."""

"""A durable, self-hosted dispatcher for webhooks and email."""

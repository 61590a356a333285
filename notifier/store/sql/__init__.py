"""SQL by name: each file holds queries under `-- name: …` headers."""

"""From due jobs to channels: the claim window, the fair queue, the worker pool."""

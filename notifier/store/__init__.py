"""Where events, jobs and attempts are kept. Only this package writes, and SQL stands nowhere else."""

"""The same work as other Python task queues do it. Each runs in a virtual environment of its own."""
